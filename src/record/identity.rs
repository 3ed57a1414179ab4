//! What a record is known by, and what two copies of it must share (RECORDS.md N11): both are stored, so how they are
//! computed may never change for an archive.

use std::fmt;
use std::hash::Hasher as _;

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

    /// The identity core of these fields.
    ///
    /// `base` is SipHash-1-3 of, in the order of [`CoreFields`] up to `client_ip`: for `emit_time` one byte 0, or 1
    /// and the seconds; for every text one byte 0, or 1, its length in bytes and the bytes; numbers are eight bytes,
    /// little-endian. `details` is 0 where there are none, else the hash of what they say (`semantic.rs`).
    pub fn core(&self, fields: &CoreFields<'_>) -> Core {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        match fields.emit_time {
            None => hasher.write(&[0]),
            Some(second) => {
                hasher.write(&[1]);
                hasher.write(&second.to_le_bytes());
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
                None => hasher.write(&[0]),
                Some(text) => {
                    hasher.write(&[1]);
                    hasher.write(&(text.len() as u64).to_le_bytes());
                    hasher.write(text.as_bytes());
                }
            }
        }
        Core {
            base: hasher.finish(),
            details_source: fields.details_source,
            details: fields.details.map_or(0, |details| semantic::hash(details, &self.0)),
        }
    }

    /// The identity core of a record.
    pub fn core_of(&self, record: &Record<'_>) -> Core {
        self.core(&CoreFields::of(record))
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
