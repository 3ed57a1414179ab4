//! How a reader bears with a stream that gives no answers. Pure; times are monotonic.

use std::time::Duration;

use crate::ops::telemetry::Complaint;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// For how long a reader tries by itself. Then it says so: what it has read so far is committed, and it is opened again.
const PATIENCE: Duration = Duration::from_mins(1);

/// The failures since the last answer, and what was told of them.
#[derive(Debug, Default)]
pub(super) struct Outage {
    began: Option<Duration>,
    failures: u32,
    untold: u64,
    /// Not over when a call is answered: other readers of the same stream may slow this one down all day.
    complaint: Complaint,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Wait so long, then ask again.
    Wait(Duration),
    /// It has lasted too long.
    GiveUp,
}

impl Outage {
    /// A call failed. `jitter`, of 0 to 255, shortens the pause by up to a half, so that readers that were cut off
    /// together do not come back together.
    pub(super) fn failed(&mut self, now: Duration, jitter: u8) -> Patience {
        let began = *self.began.get_or_insert(now);
        self.untold += 1;
        if now.saturating_sub(began) >= PATIENCE {
            self.answered();
            return Patience::GiveUp;
        }
        let longest = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures += 1;
        Patience::Wait(longest * (512 - u32::from(jitter)) / 512)
    }

    /// How many failures there were since the last time that this said so, if it is time to.
    pub(super) fn tell(&mut self, now: Duration) -> Option<u64> {
        self.complaint.is_due(now).then(|| std::mem::take(&mut self.untold))
    }

    /// A call was answered.
    pub(super) fn answered(&mut self) {
        self.began = None;
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails until it gives up: the pauses.
    fn pauses(outage: &mut Outage, from: Duration, jitter: u8) -> Vec<Duration> {
        let (mut now, mut pauses) = (from, Vec::new());
        while let Patience::Wait(pause) = outage.failed(now, jitter) {
            now += pause;
            pauses.push(pause);
        }
        pauses
    }

    #[test]
    fn pauses_grow_to_ten_seconds_and_end_after_a_minute() {
        let pauses = pauses(&mut Outage::default(), Duration::from_hours(1), 0);
        assert_eq!(pauses[..4], [250, 500, 1000, 2000].map(Duration::from_millis));
        assert_eq!(pauses.iter().max(), Some(&LONGEST_PAUSE));
        let whole: Duration = pauses.iter().sum();
        assert!(whole >= PATIENCE && whole < PATIENCE + LONGEST_PAUSE, "{whole:?}");
    }

    #[test]
    fn jitter_shortens_a_pause_by_up_to_a_half() {
        let mut outage = Outage::default();
        let Patience::Wait(pause) = outage.failed(Duration::ZERO, u8::MAX) else { panic!() };
        assert!(pause > FIRST_PAUSE / 2 && pause < FIRST_PAUSE * 51 / 100, "{pause:?}");
    }

    #[test]
    fn who_gave_up_may_try_for_another_minute() {
        let mut outage = Outage::default();
        pauses(&mut outage, Duration::ZERO, 0);
        assert_eq!(outage.failed(Duration::from_mins(5), 0), Patience::Wait(FIRST_PAUSE));
    }

    #[test]
    fn an_answer_ends_the_outage() {
        let mut outage = Outage::default();
        for second in 0..1000 {
            assert_eq!(outage.failed(Duration::from_secs(second), 0), Patience::Wait(FIRST_PAUSE));
            outage.answered();
        }
    }

    #[test]
    fn failures_are_told_at_once_and_then_once_a_minute() {
        let mut outage = Outage::default();
        let told: Vec<(u64, u64)> = (0..150)
            .filter_map(|second| {
                outage.failed(Duration::from_secs(second), 0);
                outage.answered();
                outage.tell(Duration::from_secs(second)).map(|failures| (second, failures))
            })
            .collect();
        assert_eq!(told, [(0, 1), (60, 60), (120, 60)]);
    }
}
