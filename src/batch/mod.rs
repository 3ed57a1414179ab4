//! 5. Records gather into batches. Pure: windows and cuts are decided from arrival times and sizes alone.

mod batcher;
mod window;

pub use batcher::{CutReason, Limits, Load};
pub use window::Window;
