//! Which rows stand in the archive twice. Pure.
//!
//! Twenty bytes a row: a keyed hash of 128 bits in place of its identity, and the object that holds it. A row's
//! identity is its `(log_id, version)`; that of a row with the note `dedupe_conflict`, or without a `log_id`, is its
//! position, since it may well share the other with its neighbour.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher24};
use uuid::Uuid;

use super::reader::RowKey;

/// A row's identity, hashed. Equal identities have equal hashes, so no duplicate is missed; unequal ones have the same
/// with a chance of 2^-128 a pair.
pub(super) type Hash = [u8; 16];

/// Makes the hashes of one archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identifier(SipHasher24);

impl Identifier {
    pub(super) fn new(archive_id: Uuid) -> Self {
        Self(SipHasher24::new_with_key(archive_id.as_bytes()))
    }

    pub(super) fn hash(&self, row: &RowKey) -> Hash {
        let mut hasher = self.0;
        match &row.log_id {
            Some(log_id) if !row.conflict => {
                hasher.write_u8(1);
                hasher.write(log_id.as_bytes());
                hasher.write(&row.version.to_le_bytes());
            }
            _ => {
                hasher.write_u8(2);
                hasher.write(row.position.record(row.index).to_string().as_bytes());
                hasher.write_u8(b'/');
                hasher.write(row.shard.as_str().as_bytes());
            }
        }
        hasher.finish128().as_bytes()
    }
}

/// Set in [`Entry::place`] for a row that is no part of its batch, so that of two rows the one that belongs where it
/// stands sorts first and counts as the original.
const STRANGER: u32 = 1 << 31;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    hash: Hash,
    place: u32,
}

/// A row that stands somewhere else, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Duplicate {
    pub(super) hash: Hash,
    /// The object that holds the copy.
    pub(super) copy: usize,
    /// The object that holds the original.
    pub(super) original: usize,
    /// Whether the copy is a row that is no part of its batch.
    pub(super) stranger: bool,
}

/// The identities of all rows read.
#[derive(Debug)]
pub(super) struct Identities {
    /// By the hash's first byte: a vector that grows copies itself, and 256 small ones don't all do at once.
    buckets: Vec<Vec<Entry>>,
}

impl Identities {
    pub(super) fn new() -> Self {
        Self { buckets: vec![Vec::new(); 256] }
    }

    /// Notes a row of the object of this number, which is below 2^31.
    pub(super) fn add(&mut self, hash: Hash, object: usize, stranger: bool) {
        let place = object as u32 | if stranger { STRANGER } else { 0 };
        self.buckets[usize::from(hash[0])].push(Entry { hash, place });
    }

    /// Every row beyond the first of its identity.
    pub(super) fn duplicates(mut self) -> Vec<Duplicate> {
        let mut found = Vec::new();
        for bucket in &mut self.buckets {
            bucket.sort_unstable();
            for same in bucket.chunk_by(|a, b| a.hash == b.hash) {
                let object = |entry: &Entry| (entry.place & !STRANGER) as usize;
                found.extend(same[1..].iter().map(|copy| Duplicate {
                    hash: copy.hash,
                    copy: object(copy),
                    original: object(&same[0]),
                    stranger: copy.place & STRANGER != 0,
                }));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Position, ShardId};

    fn row(log_id: Option<&str>, version: i32, position: u64, conflict: bool) -> RowKey {
        RowKey {
            log_id: log_id.map(str::to_owned),
            version,
            emit_time: None,
            shard: ShardId::new("s"),
            position: Position::new(position),
            index: 0,
            conflict,
        }
    }

    fn duplicates(rows: &[(RowKey, usize, bool)]) -> Vec<(usize, usize)> {
        let identifier = Identifier::new(Uuid::from_u128(7));
        let mut identities = Identities::new();
        for (row, object, stranger) in rows {
            identities.add(identifier.hash(row), *object, *stranger);
        }
        identities.duplicates().iter().map(|d| (d.original, d.copy)).collect()
    }

    #[test]
    fn the_same_version_of_a_log_id_twice_is_a_duplicate_and_another_version_is_not() {
        let rows = [(row(Some("a"), 0, 1, false), 0, false), (row(Some("a"), 1, 2, false), 1, false)];
        assert_eq!(duplicates(&rows), []);
        let again = [rows.as_slice(), &[(row(Some("a"), 1, 9, false), 2, false)]].concat();
        assert_eq!(duplicates(&again), [(1, 2)]);
    }

    #[test]
    fn a_conflict_is_kept_beside_its_original_but_not_twice() {
        let rows = [(row(Some("a"), 0, 1, false), 0, false), (row(Some("a"), 0, 2, true), 0, false)];
        assert_eq!(duplicates(&rows), []);
        let again = [rows.as_slice(), &[(row(Some("a"), 0, 2, true), 1, false)]].concat();
        assert_eq!(duplicates(&again), [(0, 1)]);
    }

    #[test]
    fn rows_without_a_log_id_are_known_by_their_position() {
        let rows = [(row(None, 0, 1, false), 0, false), (row(None, 0, 2, false), 0, false)];
        assert_eq!(duplicates(&rows), []);
    }

    #[test]
    fn of_two_copies_the_one_that_is_no_part_of_its_batch_is_at_fault() {
        let rows = [(row(Some("a"), 0, 1, false), 0, true), (row(Some("a"), 0, 1, false), 5, false)];
        assert_eq!(duplicates(&rows), [(5, 0)]);
    }
}
