//! The local budget of one shard: what Kinesis lets its readers do, so that we need not be told so. Pure.

use std::time::Duration;

/// Calls of `GetRecords` that a shard answers in a second
/// (<https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html>).
const CALLS_PER_SECOND: f64 = 5.0;
/// Bytes that a shard gives in a second (same source).
const BYTES_PER_SECOND: f64 = 2_000_000.0;
/// Bytes that one call may bring (same source): what it brings beyond a second's share is waited for afterwards.
const BYTES_AT_ONCE: f64 = 10_000_000.0;

/// A token bucket. It may be drawn below nothing: how much a call brings is known when it has been made.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    per_second: f64,
    most: f64,
    level: f64,
    seen: Duration,
}

impl Bucket {
    fn full(per_second: f64, most: f64, now: Duration) -> Self {
        Self { per_second, most, level: most, seen: now }
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.seen).as_secs_f64();
        self.level = (self.level + passed * self.per_second).min(self.most);
        self.seen = now.max(self.seen);
    }

    /// How long until it holds `level`.
    fn until(&self, level: f64) -> Duration {
        Duration::from_secs_f64(((level - self.level) / self.per_second).max(0.0))
    }
}

/// The budget of one shard. Times are monotonic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    calls: Bucket,
    bytes: Bucket,
}

impl Pace {
    /// A budget of which nothing has been spent.
    pub(super) fn new(now: Duration) -> Self {
        Self {
            calls: Bucket::full(CALLS_PER_SECOND, CALLS_PER_SECOND, now),
            bytes: Bucket::full(BYTES_PER_SECOND, BYTES_AT_ONCE, now),
        }
    }

    /// Takes a call if one may be made now; else how long to wait before asking again.
    pub(super) fn call(&mut self, now: Duration) -> Result<(), Duration> {
        self.calls.fill(now);
        self.bytes.fill(now);
        let wait = self.calls.until(1.0).max(self.bytes.until(0.0));
        if wait > Duration::ZERO {
            // Rounded up, or a clock of coarse steps would be asked again and again.
            return Err(wait + Duration::from_millis(1));
        }
        self.calls.level -= 1.0;
        Ok(())
    }

    /// What a call has brought.
    pub(super) fn brought(&mut self, bytes: u64) {
        self.bytes.level -= bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls as fast as it may for `seconds`, each bringing `bytes`; how many calls that were.
    fn calls(seconds: u64, bytes: u64) -> u64 {
        let (mut now, mut pace, mut calls) = (Duration::ZERO, Pace::new(Duration::ZERO), 0);
        loop {
            match pace.call(now) {
                Ok(()) if now >= Duration::from_secs(seconds) => return calls,
                Ok(()) => {
                    pace.brought(bytes);
                    calls += 1;
                }
                Err(wait) => now += wait,
            }
        }
    }

    #[test]
    fn small_pages_come_at_five_calls_a_second() {
        assert!((300..=306).contains(&calls(60, 1000)), "{}", calls(60, 1000));
    }

    #[test]
    fn catching_up_reaches_two_megabytes_a_second_with_pages_of_any_size() {
        for page in [500_000, 1_000_000, 2_000_000, 10_000_000] {
            let bytes = calls(60, page) * page;
            // What the bucket held at first, and one page begun within its share, may come on top.
            assert!((119_000_000..=120_000_000 + 10_000_000 + page).contains(&bytes), "{page}: {bytes}");
        }
    }

    #[test]
    fn a_rest_saves_up_no_more_than_a_second_of_calls() {
        let mut pace = Pace::new(Duration::ZERO);
        let later = Duration::from_hours(1);
        let burst = (0..100).take_while(|_| pace.call(later).is_ok()).count();
        assert_eq!(burst, 5);
    }

    #[test]
    fn a_full_page_is_paid_for_before_the_next_but_one() {
        let mut pace = Pace::new(Duration::ZERO);
        pace.call(Duration::ZERO).unwrap();
        pace.brought(10_000_000);
        pace.call(Duration::ZERO).unwrap();
        pace.brought(10_000_000);
        let wait = pace.call(Duration::ZERO).unwrap_err();
        assert!(wait >= Duration::from_secs(5) && wait < Duration::from_millis(5100), "{wait:?}");
    }
}
