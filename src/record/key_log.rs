//! Whether an object may have a key twice (N13), noticed while it is scanned.

use super::scan::MAX_DEPTH;

/// What is kept of the keys of the objects that are open.
pub(super) trait KeyLog {
    /// A container is opened below so many others.
    fn open(&mut self, depth: u32);
    /// And closed.
    fn close(&mut self, depth: u32);
    /// A key of the innermost of so many, and whether it has escapes.
    fn add(&mut self, depth: u32, key: &[u8], escaped: bool);
}

/// Nothing.
impl KeyLog for () {
    #[inline]
    fn open(&mut self, _: u32) {}
    #[inline]
    fn close(&mut self, _: u32) {}
    #[inline]
    fn add(&mut self, _: u32, _: &[u8], _: bool) {}
}

/// Their hashes, to notice a key that comes twice (N13).
pub(super) struct Keys {
    hashes: [u32; Keys::MOST],
    count: usize,
    /// Where each level's keys begin.
    starts: [u8; MAX_DEPTH as usize],
    /// A bit for each hash of the innermost level: one whose bit is new has not come.
    seen: u64,
    /// Those of the levels around it.
    seen_outside: [u64; MAX_DEPTH as usize],
    pub(super) repeated: bool,
}

impl Default for Keys {
    fn default() -> Self {
        let (starts, seen_outside) = ([0; MAX_DEPTH as usize], [0; MAX_DEPTH as usize]);
        Self { hashes: [0; Self::MOST], count: 0, starts, seen: 0, seen_outside, repeated: false }
    }
}

impl KeyLog for &mut Keys {
    #[inline]
    fn open(&mut self, depth: u32) {
        self.starts[depth as usize] = self.count as u8;
        self.seen_outside[depth as usize] = std::mem::take(&mut self.seen);
    }

    #[inline]
    fn close(&mut self, depth: u32) {
        self.count = self.starts[depth as usize].into();
        self.seen = self.seen_outside[depth as usize];
    }

    #[inline]
    fn add(&mut self, depth: u32, key: &[u8], escaped: bool) {
        let hash = key_hash(key);
        let bit = 1 << (hash % u64::BITS);
        if self.seen & bit != 0 {
            let start = usize::from(self.starts[depth as usize - 1]);
            self.repeated |= self.hashes[start..self.count].contains(&hash);
        }
        self.seen |= bit;
        // An escape can spell a key in another way: the exact search knows.
        self.repeated |= escaped;
        match self.hashes.get_mut(self.count) {
            Some(slot) => {
                *slot = hash;
                self.count += 1;
            }
            None => self.repeated = true,
        }
    }
}

impl Keys {
    /// Forgets all.
    #[inline]
    pub(super) fn clear(&mut self) {
        // What stands at the levels is read only where they were opened since.
        (self.count, self.seen, self.repeated) = (0, 0, false);
    }

    /// More keys than this, and the question is left to the exact search.
    const MOST: usize = 64;
}

/// Tells most keys apart, and costs little: length, first and last bytes.
#[inline]
pub(super) fn key_hash(key: &[u8]) -> u32 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let (first, last) = if let (Some(first), Some(last)) = (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
    } else if let (Some(first), Some(last)) = (key.first_chunk::<4>(), key.last_chunk::<4>()) {
        (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into())
    } else {
        (key.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0)
    };
    ((first.wrapping_mul(ODD).rotate_left(29) ^ last ^ key.len() as u64).wrapping_mul(ODD) >> 32) as u32
}
