//! Trying again, with pauses that grow: the only place that knows the crate `backoff`.

use std::future::Future;
use std::time::Duration;

use backoff::backoff::Backoff as _;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::identity::random_bytes;

/// For how long a step that may succeed later is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The time from the first failure to the last try; `None` for as long as the process runs.
    pub give_up_after: Option<Duration>,
}

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The pauses between tries, in the middle of what they may be: from 0.1 to 20 seconds. That they differ from one to the
/// other is decided elsewhere: the crate has a randomness of its own, which no seed reaches.
fn pauses() -> ExponentialBackoff {
    ExponentialBackoffBuilder::new()
        .with_initial_interval(FIRST_PAUSE)
        .with_max_interval(LONGEST_PAUSE)
        .with_randomization_factor(0.0)
        .with_max_elapsed_time(None)
        .build()
}

/// A half to one and a half of the pause, by `chance`, from 0 to 65535: steps that failed together are not tried again
/// together. In whole milliseconds.
fn jittered(pause: Duration, chance: u16) -> Duration {
    let jittered = pause.mul_f64(0.5 + f64::from(chance) / f64::from(u16::MAX));
    Duration::from_millis(jittered.as_millis() as u64)
}

/// Does `step` until it succeeds, fails for good (`may_pass` says no), the policy gives up, or `abort` is asked for;
/// the last error then. Pauses grow from 0.1 to 20 seconds, with jitter. Each failure that is tried again is a warning.
pub async fn retry<T, E, F>(
    policy: RetryPolicy,
    clock: &dyn Clock,
    abort: &CancellationToken,
    may_pass: impl Fn(&E) -> bool,
    mut step: impl FnMut() -> F,
) -> Result<T, E>
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    let mut failing_since = None;
    let mut pauses = pauses();
    loop {
        let error = match step().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let now = clock.monotonic();
        let spent = now.saturating_sub(*failing_since.get_or_insert(now));
        let given_up = policy.give_up_after.is_some_and(|limit| spent >= limit);
        if given_up || abort.is_cancelled() || !may_pass(&error) {
            return Err(error);
        }
        let pause = pauses.next_backoff().unwrap_or(LONGEST_PAUSE);
        let pause = jittered(pause, u16::from_le_bytes(random_bytes()));
        tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "a step failed and is tried again");
        tokio::select! {
            biased;
            () = clock.sleep(pause) => {}
            () = abort.cancelled() => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_a_tenth_of_a_second_to_twenty_seconds() {
        let mut pauses = pauses();
        let grown: Vec<u128> = (0..16).map(|_| pauses.next_backoff().unwrap().as_millis()).collect();
        assert_eq!((grown[0], grown[1], grown[2], grown[15]), (100, 150, 225, 20_000));
    }

    #[test]
    fn chance_takes_from_a_pause_or_adds_to_it_a_half_at_most() {
        assert_eq!(jittered(FIRST_PAUSE, 0), FIRST_PAUSE / 2);
        assert_eq!(jittered(FIRST_PAUSE, u16::MAX), FIRST_PAUSE * 3 / 2);
    }
}
