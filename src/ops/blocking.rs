//! Long work of the processor, where nothing else may wait for it.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does work that may take seconds (a batch's last compression, digests of whole objects), while leases are still
/// renewed: the other tasks of this thread go on elsewhere, even if the process has one thread only. On a test's
/// single-threaded runtime the work is simply done.
pub(crate) fn long_work<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
