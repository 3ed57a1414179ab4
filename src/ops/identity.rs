//! New identities, and whatever else is random.

use std::cell::Cell;
use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;
use uuid::{Builder, Uuid};

thread_local! {
    /// The seed of this thread's randomness and how much of it was used, where a simulation decides it.
    static SEEDED: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

/// Random bytes, from the system.
///
/// # Panics
/// Where the system gives none: going on with predictable keys would be worse than stopping.
#[allow(clippy::disallowed_methods)] // this is where randomness comes from
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    match SEEDED.get() {
        Some(_) => bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&next_seeded()[..chunk.len()])),
        None => getrandom::fill(&mut bytes).expect("the system gives random bytes"),
    }
    bytes
}

/// A random UUID (version 4).
pub fn random_id() -> Uuid {
    Builder::from_random_bytes(random_bytes()).into_uuid()
}

/// For as long as it lives, what is random on its thread follows from a seed.
#[derive(Debug)]
pub struct Seeded {
    before: Option<(u64, u64)>,
}

/// Lets `seed` decide all that is random on this thread, so that a simulation comes out the same way twice. Nothing else
/// may: identities that anybody can tell in advance protect from nothing.
#[must_use = "randomness is the system's again once this is dropped"]
pub fn seeded(seed: u64) -> Seeded {
    Seeded { before: SEEDED.replace(Some((seed, 0))) }
}

impl Drop for Seeded {
    fn drop(&mut self) {
        SEEDED.set(self.before);
    }
}

fn next_seeded() -> [u8; 8] {
    let (seed, used) = SEEDED.get().unwrap_or_default();
    SEEDED.set(Some((seed, used + 1)));
    SipHasher13::new_with_keys(seed, used).finish().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn() -> ([u8; 3], [u8; 16], Uuid) {
        (random_bytes(), random_bytes(), random_id())
    }

    #[test]
    fn a_seed_decides_what_is_random_for_as_long_as_it_is_held() {
        let first = {
            let _seeded = seeded(7);
            drawn()
        };
        let seeded_again = seeded(7);
        assert_eq!(drawn(), first);
        assert_ne!(drawn(), first, "not the same again and again");
        drop(seeded_again);
        let _other = seeded(8);
        assert_ne!(drawn(), first);
    }

    #[test]
    fn without_a_seed_nothing_is_the_same_twice() {
        assert_ne!(drawn(), drawn());
    }
}
