//! Where in the log an identity's claims may stand: the only part of the claims that is kept in memory.

use hashbrown::HashTable;

use super::entry::IdentityHash;

/// How many tables there are.
const TABLES: usize = 256;
/// How many steps of the identities' hash are told apart when one of the tables is chosen.
const STEPS: usize = 4096;

/// A place in the log: the segment's number modulo 4,096 in the upper 12 bits, the entry's in the lower 20.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location(u32);

impl Location {
    /// The most entries that a segment can have.
    pub(super) const SEGMENT_ENTRIES: u32 = 1 << 20;
    /// The most segments that there can be at a time: 4,096. Fewer in tests, which come to the end of them.
    pub(super) const SEGMENTS: u32 = if cfg!(test) { 1 << 7 } else { 1 << 12 };

    pub(super) fn new(segment: u32, entry: u32) -> Self {
        debug_assert!(entry < Self::SEGMENT_ENTRIES);
        Self((segment % Self::SEGMENTS) << 20 | entry)
    }

    /// The segment's number modulo [`Self::SEGMENTS`].
    pub(super) fn segment(self) -> u32 {
        self.0 >> 20
    }

    pub(super) fn entry(self) -> u32 {
        self.0 & (Self::SEGMENT_ENTRIES - 1)
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    location: Location,
}

impl Slot {
    /// A table takes its bucket from the low bits and its tag from the highest seven.
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

/// The locations of claims, by a part of their identity's hash. Two identities may meet in it, so the log has the last
/// word; with 32 bits and the choice of the table that is rare.
///
/// A hash table doubles when it is full, and equal tables would all double together: memory would jump from 10 to 21
/// bytes a claim. So the tables' shares of the hashes are unequal, from 1 to 2, and they double one after the other:
/// about 15 bytes a claim at any time, and no pause longer than the doubling of one table.
pub(super) struct Index {
    tables: Vec<HashTable<Slot>>,
    table_of: Vec<u8>,
}

impl Index {
    pub(super) fn new() -> Self {
        // Table i has the share log2: it begins where 1 + step/STEPS is 2^(i/TABLES).
        let table = |step: usize| (1.0 + step as f64 / STEPS as f64).log2() * TABLES as f64;
        #[allow(clippy::cast_sign_loss)] // at least log2(1) = 0
        let table_of = (0..STEPS).map(|step| table(step) as u8).collect();
        Self { tables: (0..TABLES).map(|_| HashTable::new()).collect(), table_of }
    }

    /// The table, and the hash within it: from different bytes, so that the one says nothing about the other.
    fn place(&self, identity: &IdentityHash) -> (usize, u32) {
        let step = usize::from(u16::from_le_bytes([identity[4], identity[5]])) % STEPS;
        (usize::from(self.table_of[step]), u32::from_le_bytes([identity[0], identity[1], identity[2], identity[3]]))
    }

    /// Where claims to this identity may stand, in no order.
    pub(super) fn find(&self, identity: &IdentityHash) -> impl Iterator<Item = Location> + '_ {
        let (table, hash) = self.place(identity);
        let slots = self.tables[table].iter_hash(Slot::spread(hash));
        slots.filter(move |slot| slot.hash == hash).map(|slot| slot.location)
    }

    pub(super) fn insert(&mut self, identity: &IdentityHash, location: Location) {
        let (table, hash) = self.place(identity);
        self.tables[table].insert_unique(Slot::spread(hash), Slot { hash, location }, |slot| Slot::spread(slot.hash));
    }

    /// Forgets the claims of a segment, given by its number.
    pub(super) fn forget_segment(&mut self, segment: u32) {
        let segment = Location::new(segment, 0).segment();
        for table in &mut self.tables {
            table.retain(|slot| slot.location.segment() != segment);
        }
    }

    /// How many claims there are.
    pub(super) fn len(&self) -> usize {
        self.tables.iter().map(HashTable::len).sum()
    }

    /// What it takes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.tables.iter().map(HashTable::allocation_size).sum()
    }
}

#[cfg(test)]
mod tests {
    use siphasher::sip128::SipHasher13;

    use super::*;

    fn identity(number: u32) -> IdentityHash {
        SipHasher13::new().hash(&number.to_le_bytes()).as_bytes()
    }

    #[test]
    fn a_location_keeps_segment_and_entry() {
        let location = Location::new(2 * Location::SEGMENTS - 1, (1 << 20) - 1);
        assert_eq!((location.segment(), location.entry()), (Location::SEGMENTS - 1, (1 << 20) - 1));
    }

    #[test]
    fn finds_all_claims_of_an_identity_and_hardly_any_other() {
        let mut index = Index::new();
        for number in 0..20_000 {
            index.insert(&identity(number / 2), Location::new(1, number));
        }
        assert_eq!(index.len(), 20_000);
        let mut others = 0;
        for number in 0..10_000 {
            let found: Vec<u32> = index.find(&identity(number)).map(Location::entry).collect();
            assert!(found.contains(&(2 * number)) && found.contains(&(2 * number + 1)));
            others += found.len() - 2;
            others += index.find(&identity(1_000_000 + number)).count();
        }
        assert!(others < 3, "{others}");
    }

    #[test]
    fn a_forgotten_segment_is_found_no_more_and_the_others_are() {
        let mut index = Index::new();
        for number in 0..3000 {
            index.insert(&identity(number), Location::new(number % 3, number));
        }
        index.forget_segment(1);
        index.forget_segment(Location::SEGMENTS + 2);
        assert_eq!(index.len(), 1000);
        for number in 0..3000 {
            assert_eq!(index.find(&identity(number)).count(), usize::from(number % 3 == 0));
        }
    }

    #[test]
    fn memory_grows_smoothly_with_the_claims() {
        let mut index = Index::new();
        for number in 0..400_000_u32 {
            index.insert(&identity(number), Location::new(0, number));
            if number >= 100_000 && number % 10_000 == 0 {
                let each = index.bytes() as f64 / f64::from(number);
                assert!((13.0..17.5).contains(&each), "{each} bytes a claim at {number}");
            }
        }
    }
}
