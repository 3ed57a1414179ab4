//! What a record is known by, and what two copies of it must share (RECORDS.md N11): both are stored, so how they are
//! computed may never change for an archive.

use std::fmt;

use sha2::{Digest as _, Sha256};
use siphasher::sip::SipHasher13;
use uuid::Uuid;

use super::{DetailsSource, Record, semantic};
use crate::dedupe::{Core, Identity};

/// The key of an archive's identity cores, so that nobody who can write records can make two of them collide.
#[derive(Clone, Copy)]
pub struct IdentityKey([u8; 16]);

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityKey(..)")
    }
}

impl IdentityKey {
    /// The key of the archive with this id: the first 16 bytes of SHA-256 of `auditlake identity core 1`, a zero byte
    /// and the id's 16 bytes.
    pub fn of_archive(archive: Uuid) -> Self {
        let digest =
            Sha256::new().chain_update(b"auditlake identity core 1\0").chain_update(archive.as_bytes()).finalize();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Self(key)
    }

    /// The identity core of a record.
    pub fn core_of(&self, record: &Record<'_>) -> Core {
        self.hasher().core_of(record)
    }

    /// For many records.
    pub fn hasher(&self) -> CoreHasher {
        CoreHasher { key: *self, spelled: Vec::with_capacity(256), room: semantic::Room::default() }
    }
}

/// Hashes the cores of records, one after the other, in room that is asked for once.
pub struct CoreHasher {
    key: IdentityKey,
    spelled: Vec<u8>,
    room: semantic::Room,
}

impl CoreHasher {
    /// The identity core of a record.
    pub fn core_of(&mut self, record: &Record<'_>) -> Core {
        self.core(&CoreFields::of(record))
    }

    /// The identity core of these fields.
    ///
    /// `base` is SipHash-1-3 of, in the order of [`CoreFields`] up to `client_ip`: for `emit_time` one byte 0, or 1
    /// and the seconds; for every text one byte 0, or 1, its length in bytes and the bytes; numbers are eight bytes,
    /// little-endian. `details` is 0 where there are none, else the hash of what they say (`semantic.rs`).
    pub fn core(&mut self, fields: &CoreFields<'_>) -> Core {
        // Hashed in one piece: the hasher is slow at beginning and ending.
        let Self { key: IdentityKey(key), spelled, room } = self;
        spelled.clear();
        match fields.emit_time {
            None => spelled.push(0),
            Some(second) => {
                spelled.push(1);
                spelled.extend_from_slice(&second.to_le_bytes());
            }
        }
        let texts = [
            fields.operation_canonical,
            Some(fields.outcome),
            fields.principal_type,
            fields.principal_id,
            fields.principal_name,
            fields.principal_api_key_id,
            fields.async_operation_id,
            fields.client_ip,
        ];
        for text in texts {
            match text {
                None => spelled.push(0),
                Some(text) => {
                    spelled.push(1);
                    spelled.extend_from_slice(&(text.len() as u64).to_le_bytes());
                    spelled.extend_from_slice(text.as_bytes());
                }
            }
        }
        Core {
            base: SipHasher13::new_with_key(key).hash(spelled),
            details_source: fields.details_source,
            details: fields.details.map_or(0, |details| room.hash(details, key)),
        }
    }
}

/// What N11 compares: of a record, or of columns read back from an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreFields<'a> {
    /// Whole seconds since 1970, rounded down.
    pub emit_time: Option<i64>,
    /// As in the archive.
    pub operation_canonical: Option<&'a str>,
    /// The word in the archive.
    pub outcome: &'a str,
    /// The word in the archive.
    pub principal_type: Option<&'a str>,
    /// As in the archive.
    pub principal_id: Option<&'a str>,
    /// As in the archive.
    pub principal_name: Option<&'a str>,
    /// As in the archive.
    pub principal_api_key_id: Option<&'a str>,
    /// As in the archive.
    pub async_operation_id: Option<&'a str>,
    /// As in the archive.
    pub client_ip: Option<&'a str>,
    /// JSON text.
    pub details: Option<&'a str>,
    /// Where the details came from.
    pub details_source: DetailsSource,
}

impl<'a> CoreFields<'a> {
    /// The fields of a record.
    pub fn of(record: &'a Record<'_>) -> Self {
        Self {
            emit_time: record.emit_time.map(|time| time.as_second() - i64::from(time.subsec_nanosecond() < 0)),
            operation_canonical: record.operation_canonical.as_deref(),
            outcome: record.outcome.as_str(),
            principal_type: record.principal_type.map(super::PrincipalType::as_str),
            principal_id: record.principal_id.as_deref(),
            principal_name: record.principal_name.as_deref(),
            principal_api_key_id: record.principal_api_key_id.as_deref(),
            async_operation_id: record.async_operation_id.as_deref(),
            client_ip: record.client_ip.as_deref(),
            details: record.details.as_deref(),
            details_source: record.details_source,
        }
    }
}

/// SHA-256 of a record's canonical JSON (RFC 8785: sorted keys, no spaces): what a record without `log_id` is known by.
///
/// JSON that has no canonical form (a number beyond 64-bit floats) is hashed as it stands.
pub fn content_key(raw: &str) -> [u8; 32] {
    let canonical = serde_json::from_str::<serde_json::Value>(raw)
        .and_then(|value| serde_json_canonicalizer::to_vec(&value))
        .unwrap_or_else(|_| raw.as_bytes().to_vec());
    Sha256::digest(canonical).into()
}

/// What a record is known by. Hashes the whole record where it has no `log_id`: ask once.
pub fn identity_of<'r>(record: &'r Record<'_>) -> Identity<'r> {
    match &record.log_id {
        Some(log_id) => Identity::LogId { log_id, version: record.version },
        None => Identity::Content(content_key(&record.raw)),
    }
}

/// RECORDS.md's `dedupe_key`: `log_id#version`, or `sha256:` and 64 hexadecimal digits.
pub fn dedupe_key(identity: &Identity<'_>) -> String {
    match identity {
        Identity::LogId { log_id, version } => format!("{log_id}#{version}"),
        Identity::Content(digest) => format!("sha256:{}", hex::encode(digest)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Rules, normalise};
    use super::*;

    fn key() -> IdentityKey {
        IdentityKey::of_archive(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef))
    }

    fn fields() -> CoreFields<'static> {
        CoreFields {
            emit_time: Some(1_793_754_123),
            operation_canonical: Some("UpdateNamespace"),
            outcome: "success",
            principal_type: Some("user"),
            principal_id: None,
            principal_name: Some("alice@example.com"),
            principal_api_key_id: None,
            async_operation_id: None,
            client_ip: Some("192.0.2.1"),
            details: Some(r#"{"a":[1,2.50,-3e-2,"é"],"b":{"c":null,"d":true},"e":false}"#),
            details_source: DetailsSource::RawDetails,
        }
    }

    fn details(text: &str) -> u64 {
        key().hasher().core(&CoreFields { details: Some(text), ..fields() }).details
    }

    #[test]
    fn what_is_stored_is_computed_as_it_always_was() {
        // These values stand in archives; they were computed by another program, from the documentation above.
        // If this test fails, the code is wrong, not the test.
        let core = key().hasher().core(&fields());
        assert_eq!((core.base, core.details), (BASE, DETAILS));
        let unordered = r#"{"e":false,"b":{"d":true,"c":null},"ab":"","a":[1,2.50,-3e-2,"é",0.00,1200]}"#;
        assert_eq!(details(unordered), 0x2a72_810c_cacd_8b04);
        assert_eq!(hex::encode(key().0), KEY);
        assert_eq!(hex::encode(content_key(r#"{ "b": 1.0, "a": "\u00e9" }"#)), CONTENT);
    }

    const KEY: &str = "d9d8624bd9ed220d5495eeb240944f2f";
    const BASE: u64 = 0xe95e_6532_bec3_3ef4;
    const DETAILS: u64 = 0x2224_d042_ebc2_dec1;
    const CONTENT: &str = "aa58fba8483623bed37c1b02edfccbdd9a53123837c20bfa4cb4049993a2872e";

    #[test]
    fn details_are_the_same_however_they_are_written() {
        for (left, right) in [
            (r#"{"a":1,"b":2}"#, "{ \"b\" : 2,\n\"a\" : 1 }"),
            (r#"{"a":[3,30,0.5]}"#, r#"{"a":[3.0,3e1,5E-1]}"#),
            ("[0]", "[-0.0e7]"),
            ("[1200]", "[0.12e+4]"),
            (r#"{"a":"é/"}"#, r#"{"\u0061":"\u00e9\/"}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (
                r#"{"b":1,"c":[{}],"a":{"d":1,"c":2,"d":[]},"b":3,"ab":0}"#,
                r#"{"a":{"c":2,"d":[]},"ab":0,"b":3,"c":[{}]}"#,
            ),
            ("[12345678901234567890123]", "[1.2345678901234567890123e22]"),
        ] {
            assert_eq!(details(left), details(right), "{left} {right}");
        }
    }

    #[test]
    fn details_that_say_something_else_are_told_apart() {
        let texts = [
            "{}",
            "[]",
            "null",
            "true",
            "false",
            "0",
            "\"\"",
            "\"0\"",
            "\"d0\"",
            "[[]]",
            "[{}]",
            "[null]",
            "[1,2]",
            "[2,1]",
            "[12]",
            "1",
            "-1",
            "10",
            "0.1",
            "1e-7",
            "1.0000000000000001",
            "\"null\"",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"b":1}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":1,"b":2}"#,
            r#"{"a":2,"b":1}"#,
            r#"{"ab":""}"#,
            r#"{"a":"b"}"#,
            r#"{"a":null}"#,
            "not json",
            "[1e999999999999999999999]",
            "[1e-999999999999999999999]",
        ];
        let hashes: std::collections::HashSet<_> = texts.iter().map(|text| details(text)).collect();
        assert_eq!(hashes.len(), texts.len());
    }

    #[test]
    fn every_field_of_the_core_counts_and_none_is_taken_for_its_neighbour() {
        let base = |fields: CoreFields<'_>| key().hasher().core(&fields).base;
        let empty = CoreFields {
            emit_time: None,
            operation_canonical: None,
            principal_type: None,
            principal_name: None,
            client_ip: None,
            ..fields()
        };
        let x = Some("x");
        let hashes: std::collections::HashSet<_> = [
            base(empty),
            base(CoreFields { emit_time: Some(0), ..empty }),
            base(CoreFields { operation_canonical: x, ..empty }),
            base(CoreFields { operation_canonical: Some(""), ..empty }),
            base(CoreFields { outcome: "failure", ..empty }),
            base(CoreFields { principal_type: x, ..empty }),
            base(CoreFields { principal_id: x, ..empty }),
            base(CoreFields { principal_name: x, ..empty }),
            base(CoreFields { principal_api_key_id: x, ..empty }),
            base(CoreFields { async_operation_id: x, ..empty }),
            base(CoreFields { client_ip: x, ..empty }),
            base(CoreFields { principal_id: Some("a"), principal_name: Some("bc"), ..empty }),
            base(CoreFields { principal_id: Some("ab"), principal_name: Some("c"), ..empty }),
        ]
        .into();
        assert_eq!(hashes.len(), 13);
        assert_eq!(
            base(CoreFields { details: None, details_source: DetailsSource::None, ..empty }),
            base(empty),
            "details have their own hash"
        );
        assert_ne!(
            IdentityKey::of_archive(Uuid::nil()).hasher().core(&empty).base,
            base(empty),
            "another archive, another key"
        );
    }

    fn core_of(json: &str) -> Core {
        key().core_of(&normalise(json, &Rules::default()).unwrap())
    }

    #[test]
    fn copies_of_an_event_in_other_shapes_have_equal_cores() {
        let old = core_of(
            r#"{"log_id":"x","emit_time":"2026-11-04T01:02:03.1Z","operation":"DeleteUserAPI","user_email":"a@b","level":"INFO","details":{"x":1}}"#,
        );
        let new = core_of(
            r#"{"logId":"x","emitTime":{"seconds":1793754123},"operation":"DeleteUser","principal":{"type":"user","name":"a@b"},"status":"OK","rawDetails":{"y":1}}"#,
        );
        assert!(old.same_event(&new), "details of different sources do not count");
        let changed = core_of(
            r#"{"logId":"x","emitTime":{"seconds":1793754123},"operation":"DeleteUser","principal":{"type":"user","name":"a@b"},"status":"OK","rawDetails":{"y":2}}"#,
        );
        assert!(!changed.same_event(&new));
        assert!(
            !core_of(r#"{"log_id":"x","emit_time":"2026-11-04T01:02:04Z","operation":"DeleteUser"}"#).same_event(&new)
        );
    }

    #[test]
    fn times_before_1970_are_rounded_down_to_the_second() {
        let seconds = |time: &str| {
            CoreFields::of(&normalise(&format!("{{\"emit_time\":\"{time}\"}}"), &Rules::default()).unwrap()).emit_time
        };
        assert_eq!(seconds("1969-12-31T23:59:59.5Z"), Some(-1));
        assert_eq!(seconds("1969-12-31T23:59:59Z"), Some(-1));
        assert_eq!(seconds("1970-01-01T00:00:00.9Z"), Some(0));
    }

    #[test]
    fn a_record_without_log_id_is_known_by_its_content() {
        let of = |json: &str| dedupe_key(&identity_of(&normalise(json, &Rules::default()).unwrap()));
        assert_eq!(of(r#"{"log_id":"a#b","version":-1}"#), "a#b#-1");
        assert_eq!(of(r#"{"status":"OK","version":1}"#), of("{\"version\": 1e0,\n\"status\":\"\\u004fK\"}"));
        assert_ne!(of(r#"{"status":"OK","version":1}"#), of(r#"{"status":"OK","version":2}"#));
        assert_eq!(
            of(r#"{"status":"OK","x":1e999}"#),
            of(r#"{"status":"OK","x":1e999}"#),
            "what has no canonical form is hashed as it is"
        );
        assert!(!format!("{:?}", key()).contains("17"), "the key is not printed");
    }
}
