//! What keeps the rest running: the clock, retries, telemetry, shutdown.

pub mod clock;
pub(crate) mod disk;
pub mod state_dir;
