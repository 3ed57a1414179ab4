//! One claim as the log stores it, and the hashes that it is made of.
//!
//! | bytes | field |
//! |---|---|
//! | 0..16 | identity: keyed hash of the `log_id`, or (under another key) of the content's SHA-256 |
//! | 16..24 | position: keyed hash of shard, sequence number, sub-sequence number and index |
//! | 24..32 | `core.base` |
//! | 32..40 | `core.details` |
//! | 40..44 | version; 0 for content |
//! | 44 | bits 0-1 the details' source, bits 2-3 the verdict, bits 4-7 zero |
//!
//! Numbers are little-endian. All hashes are SipHash-1-3 with 128 bits under a secret of the directory's own, so that
//! no sender of records can make identities meet: by chance, among a thousand million of them, they do with a
//! probability of 10^-21. A position is compared only with those of its own identity; its 64 bits are wrong once in
//! 10^19 duplicates.

use siphasher::sip128::SipHasher13;

use crate::dedupe::{Core, Identity, Verdict};
use crate::record::DetailsSource;
use crate::source::{RecordPosition, ShardId};

/// The length of a stored claim.
pub(super) const ENTRY_BYTES: usize = 45;

/// The hash of what an identity's versions have in common.
pub(super) type IdentityHash = [u8; 16];

/// A claim that holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub identity: IdentityHash,
    pub position: u64,
    pub core: Core,
    pub version: i32,
    pub verdict: Verdict,
}

impl Entry {
    pub(super) fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..16].copy_from_slice(&self.identity);
        bytes[16..24].copy_from_slice(&self.position.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.core.base.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.core.details.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.version.to_le_bytes());
        let source: u8 = match self.core.details_source {
            DetailsSource::None => 0,
            DetailsSource::RawDetails => 1,
            DetailsSource::Details => 2,
        };
        let verdict: u8 = match self.verdict {
            Verdict::New => 0,
            Verdict::NewerVersion => 1,
            Verdict::OlderVersion => 2,
            // A duplicate holds nothing and is never stored.
            Verdict::Conflict | Verdict::Duplicate => 3,
        };
        bytes[44] = source | verdict << 2;
        bytes
    }

    /// The entry, or `None` where the last byte is none that an entry has.
    pub(super) fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let details_source = match bytes[44] & 0b11 {
            0 => DetailsSource::None,
            1 => DetailsSource::RawDetails,
            2 => DetailsSource::Details,
            _ => return None,
        };
        let verdict = match bytes[44] >> 2 {
            0 => Verdict::New,
            1 => Verdict::NewerVersion,
            2 => Verdict::OlderVersion,
            3 => Verdict::Conflict,
            _ => return None,
        };
        Some(Self {
            identity: *bytes.first_chunk()?,
            position: u64_at(bytes, 16),
            core: Core { base: u64_at(bytes, 24), details_source, details: u64_at(bytes, 32) },
            version: i32::from_le_bytes(*bytes[40..].first_chunk()?),
            verdict,
        })
    }
}

fn u64_at(bytes: &[u8; ENTRY_BYTES], start: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[start..start + 8]);
    u64::from_le_bytes(number)
}

/// The hashes of one directory.
#[derive(Clone, Debug)]
pub(super) struct Hashes {
    log_id: SipHasher13,
    content: SipHasher13,
    position: SipHasher13,
    shard: SipHasher13,
}

impl Hashes {
    /// The hashes under the directory's secret. Each kind of thing has a key of its own, so that a `log_id` never meets
    /// a content.
    pub(super) fn new(secret: &[u8; 16]) -> Self {
        let root = SipHasher13::new_with_key(secret);
        let derived = |purpose: &str| SipHasher13::new_with_key(&root.hash(purpose.as_bytes()).as_bytes());
        Self {
            log_id: derived("log_id"),
            content: derived("content"),
            position: derived("position"),
            shard: derived("shard"),
        }
    }

    /// The hash of an identity, and its version.
    pub(super) fn identity(&self, identity: &Identity<'_>) -> (IdentityHash, i32) {
        match identity {
            Identity::LogId { log_id, version } => (self.log_id.hash(log_id.as_bytes()).as_bytes(), *version),
            Identity::Content(digest) => (self.content.hash(digest).as_bytes(), 0),
        }
    }

    /// Hashes the positions of one shard.
    pub(super) fn positions(&self, shard: &ShardId) -> PositionHasher<'_> {
        let prefix = self.shard.hash(shard.as_str().as_bytes()).as_bytes();
        PositionHasher { position: &self.position, bytes: prefix.to_vec() }
    }
}

/// Hashes the positions of one shard.
pub(super) struct PositionHasher<'a> {
    position: &'a SipHasher13,
    /// The shard's hash, then room for a position.
    bytes: Vec<u8>,
}

impl PositionHasher<'_> {
    pub(super) fn hash(&mut self, position: RecordPosition<'_>) -> u64 {
        // Unambiguous: all but the digits has a fixed length.
        self.bytes.truncate(16);
        self.bytes.extend_from_slice(&position.payload.sub_sequence.to_le_bytes());
        self.bytes.extend_from_slice(&position.index.to_le_bytes());
        self.bytes.extend_from_slice(position.payload.sequence.as_str().as_bytes());
        self.position.hash(&self.bytes).h1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::source::Position;

    #[test]
    fn an_entry_survives_its_bytes_whatever_it_holds() {
        for details_source in [DetailsSource::None, DetailsSource::RawDetails, DetailsSource::Details] {
            for verdict in [Verdict::New, Verdict::NewerVersion, Verdict::OlderVersion, Verdict::Conflict] {
                let entry = Entry {
                    identity: *b"0123456789abcdef",
                    position: u64::MAX - 1,
                    core: Core { base: 3, details_source, details: 1 << 63 },
                    version: -7,
                    verdict,
                };
                let read = Entry::from_bytes(&entry.to_bytes()).unwrap();
                assert_eq!(format!("{read:?}"), format!("{entry:?}"));
            }
        }
    }

    #[test]
    fn bytes_that_no_entry_has_are_refused() {
        for last in [3, 0b1_0000, 0xff] {
            let mut bytes = [0; ENTRY_BYTES];
            bytes[44] = last;
            assert!(Entry::from_bytes(&bytes).is_none(), "{last}");
        }
    }

    #[test]
    fn every_part_of_a_position_counts() {
        let hashes = Hashes::new(&[7; 16]);
        let mut seen = HashSet::new();
        for shard in ["a", "b", "", "a/0"] {
            let mut positions = hashes.positions(&ShardId::new(shard));
            for sequence in [0, 1, 10, 100] {
                for sub_sequence in [0, 1, 0x30] {
                    for index in [0, 1, 0x30] {
                        let payload = Position { sub_sequence, ..Position::new(sequence) };
                        assert!(seen.insert(positions.hash(payload.record(index))), "{shard} {payload} {index}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_log_id_never_meets_a_content_and_secrets_differ() {
        let digest = [b'a'; 32];
        let text = "a".repeat(32);
        let log_id = Identity::LogId { log_id: &text, version: 0 };
        let (one, other) = (Hashes::new(&[1; 16]), Hashes::new(&[2; 16]));
        assert_ne!(one.identity(&log_id), one.identity(&Identity::Content(digest)));
        assert_ne!(one.identity(&log_id), other.identity(&log_id));
        assert_eq!(one.identity(&log_id), Hashes::new(&[1; 16]).identity(&log_id));
    }

    #[test]
    fn versions_of_a_log_id_share_its_hash() {
        let hashes = Hashes::new(&[1; 16]);
        let of = |version| hashes.identity(&Identity::LogId { log_id: "x", version });
        assert_eq!(of(1).0, of(2).0);
        assert_eq!((of(1).1, of(-2).1), (1, -2));
    }
}
