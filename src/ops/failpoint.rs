//! Named steps of the commit protocol at which a test can kill the process.
//!
//! Built only with the feature `failpoints`; otherwise [`reach`] is nothing. `AUDITLAKE_FAILPOINT=<step>[:<n>]` kills
//! the process, as SIGKILL does, when it reaches the step for the n-th time (the first, where no number is given).

/// The step `name` of the commit protocol is reached.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn reach(_name: &str) {}

/// The step `name` of the commit protocol is reached.
#[cfg(feature = "failpoints")]
pub fn reach(name: &str) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static REACHED: AtomicU64 = AtomicU64::new(0);

    let Ok(wanted) = std::env::var("AUDITLAKE_FAILPOINT") else { return };
    let (step, times) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if step == name && REACHED.fetch_add(1, Ordering::Relaxed) + 1 == times.parse().unwrap_or(1) {
        // An abort runs no destructor and flushes no buffer: to the disk it is the same as SIGKILL.
        std::process::abort();
    }
}
