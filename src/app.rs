//! The one seam: the five ports, filled by `main` with real adapters and by tests with memory ones.

use std::sync::Arc;

use crate::archive::ArchiveStore;
use crate::dedupe::Claims;
use crate::lease::LeaseStore;
use crate::ops::clock::Clock;
use crate::source::Source;

/// Everything that faces the outside.
#[derive(Clone)]
pub struct Ports {
    /// Where payloads come from.
    pub source: Arc<dyn Source>,
    /// Who was first to bring a record.
    pub claims: Arc<dyn Claims>,
    /// Where objects are kept.
    pub archive: Arc<dyn ArchiveStore>,
    /// Who reads which shard, and how far.
    pub leases: Arc<dyn LeaseStore>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}
