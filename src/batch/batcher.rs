//! When a batch is over.

use std::time::Duration;

use jiff::Timestamp;

use super::Window;

/// The bounds of a batch; whichever is reached first cuts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The length of a window of arrival time.
    pub window: Duration,
    /// The most records read, archived or not.
    pub max_records: u64,
    /// The most bytes of its objects, encoded.
    pub max_bytes: u64,
    /// The most bytes it may hold in memory while it is open.
    pub max_memory: u64,
}

/// Why a batch was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CutReason {
    /// A payload of a later window arrived, or the clock says that the window is over.
    Window,
    /// It holds `batch.max_records`.
    Records,
    /// It holds `batch.max_bytes`.
    Bytes,
    /// It uses its share of the process's memory.
    Memory,
    /// The shard has ended.
    ShardEnd,
    /// A one-shot run has read all that there was when it started.
    Target,
    /// The worker stops.
    Stop,
    /// Another worker asked for the shard's lease.
    Handover,
    /// Records are missing behind it.
    Gap,
    /// The shard can't be read on.
    Fault,
    /// It had been cut before, and is finished after a crash or a takeover.
    Resumed,
}

impl CutReason {
    /// All there are.
    pub const ALL: [Self; 11] = [
        Self::Window,
        Self::Records,
        Self::Bytes,
        Self::Memory,
        Self::ShardEnd,
        Self::Target,
        Self::Stop,
        Self::Handover,
        Self::Gap,
        Self::Fault,
        Self::Resumed,
    ];

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Records => "records",
            Self::Bytes => "bytes",
            Self::Memory => "memory",
            Self::ShardEnd => "shard_end",
            Self::Target => "target",
            Self::Stop => "stop",
            Self::Handover => "handover",
            Self::Gap => "gap",
            Self::Fault => "fault",
            Self::Resumed => "resumed",
        }
    }
}

/// What an open batch weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Records read into it.
    pub records: u64,
    /// The size of its objects if it were cut now.
    pub encoded_bytes: u64,
    /// What it holds in memory.
    pub memory_bytes: u64,
}

impl Limits {
    /// Whether a payload of `records` that arrived at `arrival` must wait for the next batch. A batch of nothing takes
    /// any payload: none is ever cut in two.
    pub fn cut_before(&self, window: Window, load: Load, arrival: Timestamp, records: u64) -> Option<CutReason> {
        if arrival >= window.end {
            return Some(CutReason::Window);
        }
        (load.records > 0 && load.records + records > self.max_records).then_some(CutReason::Records)
    }

    /// Whether a batch is over with what it holds.
    pub fn cut_after(&self, load: Load) -> Option<CutReason> {
        if load.records >= self.max_records {
            Some(CutReason::Records)
        } else if load.encoded_bytes >= self.max_bytes {
            Some(CutReason::Bytes)
        } else if load.memory_bytes >= self.max_memory {
            Some(CutReason::Memory)
        } else {
            None
        }
    }

    /// How long until the clock closes the window of an idle shard; zero when it is over. Nothing that arrives from
    /// then on belongs to it.
    pub fn closes_in(&self, window: Window, now: Timestamp) -> Duration {
        Duration::try_from(window.end.duration_since(now)).unwrap_or(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { window: Duration::from_mins(30), max_records: 10, max_bytes: 1000, max_memory: 5000 };

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn window() -> Window {
        Window::holding(at("2026-11-21T09:31:00Z"), LIMITS.window)
    }

    fn records(records: u64) -> Load {
        Load { records, ..Load::default() }
    }

    #[test]
    fn a_payload_of_the_next_window_waits() {
        assert_eq!(LIMITS.cut_before(window(), records(1), at("2026-11-21T09:59:59.999Z"), 1), None);
        assert_eq!(LIMITS.cut_before(window(), records(1), at("2026-11-21T10:00:00Z"), 1), Some(CutReason::Window));
    }

    #[test]
    fn a_payload_that_arrived_before_the_window_joins_it() {
        assert_eq!(LIMITS.cut_before(window(), records(1), at("2026-11-20T00:00:00Z"), 1), None);
    }

    #[test]
    fn a_payload_is_never_cut_in_two() {
        let now = at("2026-11-21T09:31:00Z");
        assert_eq!(LIMITS.cut_before(window(), records(8), now, 2), None);
        assert_eq!(LIMITS.cut_before(window(), records(8), now, 3), Some(CutReason::Records));
        assert_eq!(LIMITS.cut_before(window(), records(0), now, 500), None);
    }

    #[test]
    fn whichever_bound_is_reached_first_cuts() {
        let load = |records, encoded_bytes, memory_bytes| Load { records, encoded_bytes, memory_bytes };
        assert_eq!(LIMITS.cut_after(load(9, 999, 4999)), None);
        assert_eq!(LIMITS.cut_after(load(10, 0, 0)), Some(CutReason::Records));
        assert_eq!(LIMITS.cut_after(load(1, 1000, 0)), Some(CutReason::Bytes));
        assert_eq!(LIMITS.cut_after(load(1, 0, 5000)), Some(CutReason::Memory));
    }

    #[test]
    fn the_clock_closes_the_window_of_an_idle_shard_at_its_end() {
        assert_eq!(LIMITS.closes_in(window(), at("2026-11-21T09:59:00Z")), Duration::from_mins(1));
        assert_eq!(LIMITS.closes_in(window(), at("2026-11-21T10:00:00Z")), Duration::ZERO);
        assert_eq!(LIMITS.closes_in(window(), at("2026-11-21T12:00:00Z")), Duration::ZERO);
    }
}
