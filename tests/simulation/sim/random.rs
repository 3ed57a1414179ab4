//! Chance, as the seed decides it.

use std::time::Duration;

use auditlake::ops::identity::random_bytes;

/// Any of `0..bound`.
pub(crate) fn below(bound: u64) -> u64 {
    u64::from_le_bytes(random_bytes()) % bound.max(1)
}

/// Once in `times`.
pub(crate) fn once_in(times: u64) -> bool {
    below(times) == 0
}

/// Up to `longest`, in milliseconds.
pub(crate) fn up_to(longest: Duration) -> Duration {
    Duration::from_millis(below(longest.as_millis() as u64 + 1))
}
