//! What keeps the rest running: the clock, retries, telemetry, shutdown.

pub mod clock;
