//! Windows of arrival time, aligned to the clock.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A half-open span `[start, end)` of arrival time; a multiple of its length since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first instant that belongs to it.
    pub start: Timestamp,
    /// The first instant that does not.
    pub end: Timestamp,
}

impl Window {
    /// The window of `length` that holds `arrival`. `length` counts in whole seconds, at least one.
    pub fn holding(arrival: Timestamp, length: Duration) -> Self {
        let length = i64::try_from(length.as_secs()).unwrap_or(i64::MAX).max(1);
        let start = arrival.as_second().div_euclid(length).saturating_mul(length);
        // Timestamp's range ends in the year 9999; a window beyond it ends where time does.
        let at = |second: i64| Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
        Self { start: at(start), end: at(start.saturating_add(length)) }
    }

    /// The window of `length` that begins at `start`.
    pub fn of_length(start: Timestamp, length: Duration) -> Self {
        Self { start, end: start.checked_add(length).unwrap_or(Timestamp::MAX) }
    }

    /// Whether `arrival` lies within.
    pub fn holds(&self, arrival: Timestamp) -> bool {
        self.start <= arrival && arrival < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(arrival: &str, minutes: u64) -> Window {
        Window::holding(arrival.parse().unwrap(), Duration::from_mins(minutes))
    }

    #[test]
    fn half_hours_start_at_the_hour_and_the_half() {
        let w = window("2026-11-21T09:59:59.999Z", 30);
        assert_eq!(w.start.to_string(), "2026-11-21T09:30:00Z");
        assert_eq!(w.end.to_string(), "2026-11-21T10:00:00Z");
        assert!(!w.holds(w.end) && w.holds(w.start));
    }

    #[test]
    fn times_before_1970_have_windows_too() {
        let w = window("1969-12-31T23:59:00Z", 30);
        assert_eq!(w.start.to_string(), "1969-12-31T23:30:00Z");
        assert_eq!(w.end.to_string(), "1970-01-01T00:00:00Z");
    }
}
