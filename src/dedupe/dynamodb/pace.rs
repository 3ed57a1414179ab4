//! How many calls may be under way: more as long as it goes well, half as many where the table asks for fewer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// Additive increase, multiplicative decrease.
#[derive(Clone, Copy, Debug)]
struct Pace {
    most: u32,
    limit: u32,
    under_way: u32,
    /// Calls that went well since the limit last changed; one round of them makes room for one more.
    went_well: u32,
    /// How often the limit was halved.
    halved: u32,
}

impl Pace {
    fn new(most: u32) -> Self {
        Self { most, limit: most, under_way: 0, went_well: 0, halved: 0 }
    }

    /// Lets a call through, if there is room; what [`Pace::throttled`] wants to know of it.
    fn try_enter(&mut self) -> Option<u32> {
        let enters = self.under_way < self.limit;
        self.under_way += u32::from(enters);
        enters.then_some(self.halved)
    }

    fn leave(&mut self) {
        self.under_way -= 1;
    }

    fn succeeded(&mut self) {
        self.went_well += 1;
        if self.went_well >= self.limit && self.limit < self.most {
            self.limit += 1;
            self.went_well = 0;
        }
    }

    /// Halves the limit, but once only for all calls that were under way together.
    fn throttled(&mut self, entered: u32) {
        if entered == self.halved {
            self.limit = (self.limit / 2).max(1);
            self.went_well = 0;
            self.halved = self.halved.wrapping_add(1);
        }
    }
}

/// Lets as many calls through at a time as the pace says.
#[derive(Debug)]
pub(super) struct Gate {
    pace: Mutex<Pace>,
    left: Notify,
}

/// One call's permission.
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    entered: u32,
}

impl Gate {
    /// At most so many at a time.
    pub(super) fn new(most: u32) -> Self {
        Self { pace: Mutex::new(Pace::new(most)), left: Notify::new() }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        // Numbers only: a panic elsewhere leaves them as good as they were.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn.
    pub(super) async fn enter(&self) -> Pass<'_> {
        loop {
            let left = self.left.notified();
            let entered = self.pace().try_enter();
            if let Some(entered) = entered {
                // A place that was left while nobody waited yet wakes one only, and the limit may have grown.
                self.left.notify_one();
                return Pass { gate: self, entered };
            }
            left.await;
        }
    }
}

impl Pass<'_> {
    /// The call went well.
    pub(super) fn succeeded(&self) {
        self.gate.pace().succeeded();
    }

    /// The table asks for fewer calls, or does not answer.
    pub(super) fn throttled(&self) {
        self.gate.pace().throttled(self.entered);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.pace().leave();
        self.gate.left.notify_one();
    }
}

/// The pause before the `round`-th try again, from 0: a random part (`chance`, from 0 to 65535) of a bound that grows
/// from 50 ms to 5 s, so that workers that were throttled together do not come back together.
pub(super) fn pause(round: u32, chance: u16) -> Duration {
    let bound = 50_u64.saturating_mul(1 << round.min(10)).min(5_000);
    Duration::from_millis(bound * (u64::from(chance) + 1) / (1 << 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(pace: &mut Pace, calls: usize) -> Vec<u32> {
        (0..calls).map(|_| pace.try_enter().unwrap()).collect()
    }

    #[test]
    fn throttling_halves_the_limit_and_success_brings_it_back_one_by_one() {
        let mut pace = Pace::new(16);
        let calls = enter(&mut pace, 16);
        assert_eq!(pace.try_enter(), None);
        pace.throttled(calls[0]);
        assert_eq!(pace.limit, 8);
        let mut needed = 0;
        while pace.limit < 16 {
            pace.succeeded();
            needed += 1;
        }
        assert_eq!(needed, (8..16).sum::<u32>());
    }

    #[test]
    fn calls_that_are_throttled_together_halve_once_and_later_ones_again() {
        let mut pace = Pace::new(16);
        for expected in [8, 4, 2, 1, 1] {
            let round = pace.limit as usize;
            for entered in enter(&mut pace, round) {
                pace.throttled(entered);
                pace.leave();
            }
            assert_eq!(pace.limit, expected);
        }
        assert!(pace.try_enter().is_some() && pace.try_enter().is_none());
    }

    #[test]
    fn pauses_grow_and_are_never_longer_than_five_seconds() {
        assert_eq!(pause(0, u16::MAX), Duration::from_millis(50));
        assert_eq!(pause(3, u16::MAX), Duration::from_millis(400));
        assert_eq!(pause(3, u16::MAX / 2), Duration::from_millis(200));
        assert_eq!(pause(40, u16::MAX), Duration::from_secs(5));
        assert_eq!(pause(40, 0), Duration::from_millis(0));
    }

    #[tokio::test]
    async fn whoever_waits_gets_its_turn() {
        let gate = Gate::new(2);
        let calls = (0..50).map(|_| async {
            let pass = gate.enter().await;
            tokio::task::yield_now().await;
            assert!(gate.pace().under_way <= 2);
            pass.succeeded();
        });
        futures_util::future::join_all(calls).await;
        assert_eq!(gate.pace().under_way, 0);
    }
}
