//! Trying again: the only place that knows the crate `backoff`.

use std::future::Future;
use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;

/// For how long a step that may succeed later is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The time from the first failure to the last try; `None` for as long as the process runs.
    pub give_up_after: Option<Duration>,
}

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(100);

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
    let mut pauses = ExponentialBackoffBuilder::new()
        .with_initial_interval(FIRST_PAUSE)
        .with_max_interval(LONGEST_PAUSE)
        .with_max_elapsed_time(None)
        .build();
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
        tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "a step failed and is tried again");
        tokio::select! {
            () = clock.sleep(pause) => {}
            () = abort.cancelled() => return Err(error),
        }
    }
}
