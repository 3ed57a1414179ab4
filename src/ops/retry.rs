//! Trying again, with pauses that grow.

use std::future::Future;
use std::time::Duration;

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

/// The pause before the `round`-th try again, from 0: a half to one and a half (by `chance`, from 0 to 65535) of what
/// grows from 0.1 to 20 seconds, so that steps that failed together are not tried again together.
fn pause(round: u32, chance: u16) -> Duration {
    let grown = FIRST_PAUSE.mul_f64(1.5_f64.powi(round.min(32).cast_signed())).min(LONGEST_PAUSE);
    grown.mul_f64(0.5 + f64::from(chance) / f64::from(u16::MAX))
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
    let mut round = 0;
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
        let pause = pause(round, u16::from_le_bytes(random_bytes()));
        round += 1;
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
        let middling = [0, 1, 2, 13, 14, 1000].map(|round| pause(round, u16::MAX / 2).as_millis());
        assert_eq!(middling, [99, 149, 224, 19_461, 19_999, 19_999]);
    }

    #[test]
    fn chance_takes_from_a_pause_or_adds_to_it_a_half_at_most() {
        assert_eq!(pause(0, 0), FIRST_PAUSE / 2);
        assert_eq!(pause(0, u16::MAX), FIRST_PAUSE * 3 / 2);
    }
}
