//! New identities, from the system's randomness.

use uuid::{Builder, Uuid};

/// Random bytes.
///
/// # Panics
/// Where the system gives none: going on with predictable keys would be worse than stopping.
#[allow(clippy::disallowed_methods)] // this is where randomness comes from
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// A random UUID (version 4).
pub fn random_id() -> Uuid {
    Builder::from_random_bytes(random_bytes()).into_uuid()
}
