//! What keeps the rest running: the clock, retries, telemetry, shutdown, and the disk.

pub mod admin;
pub(crate) mod blocking;
pub mod calls;
pub mod clock;
pub(crate) mod disk;
pub mod failpoint;
pub mod health;
pub mod identity;
pub mod memory;
pub mod metrics;
pub mod planted;
pub mod retry;
pub mod shutdown;
pub mod state_dir;
pub mod telemetry;
pub mod words;
