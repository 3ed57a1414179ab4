//! 5. Records gather into batches. Pure: windows and cuts are decided from arrival times and sizes alone.

mod window;

pub use window::Window;
