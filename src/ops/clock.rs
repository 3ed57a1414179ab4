//! The [`Clock`] port: the only place that asks what time it is.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

/// Time, as the loops see it.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The time of day, UTC. May jump.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment of this process. Never jumps.
    fn monotonic(&self) -> Duration;

    /// Returns once `duration` of monotonic time is over.
    async fn sleep(&self, duration: Duration);
}

/// From `earlier` to `later`; nothing where it is the other way round.
pub fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or(Duration::ZERO)
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: tokio::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn start() -> Self {
        Self { started: tokio::time::Instant::now() }
    }
}

#[async_trait]
#[allow(clippy::disallowed_methods)] // this is the clock
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The twin: a time of day that begins where it is told to, and passes as the runtime's time does. On a runtime whose
/// time is paused it passes only while everything waits for it.
#[derive(Clone, Copy, Debug)]
pub struct PausedClock {
    base: Timestamp,
    clock: SystemClock,
}

impl PausedClock {
    /// A clock whose time of day is `base` now.
    pub fn start(base: Timestamp) -> Self {
        Self { base, clock: SystemClock::start() }
    }
}

#[async_trait]
impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        self.base + self.clock.monotonic()
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }
}
