//! The only loops: the [`Worker`] starts one task a shard; the task reads, gathers and commits. `commit.rs` alone moves
//! a checkpoint.

pub mod board;
mod commit;
mod coordinator;
mod decoding;
mod gathering;
mod open_batch;
mod outcome;
mod planner;
mod rows;
mod shard_task;
mod standing;
mod start;
mod tally;

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use commit::CommitError;
pub use coordinator::{Summary, Worker, WorkerError};
pub use outcome::{ShardError, ShardFailure};
pub(crate) use planner::Family;
pub use tally::{Tally, Totals};

use crate::batch::Limits;
use crate::encode::Layout;
use crate::lease::WorkerId;
use crate::ops::retry::RetryPolicy;
use crate::record::IdentityKey;
use crate::source::InitialPosition;

/// What a worker needs to know; the same for all of its shards.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name in the lease rows.
    pub worker: WorkerId,
    /// The archive it writes to.
    pub archive_id: Uuid,
    /// The key of the archive's identity cores.
    pub identity: IdentityKey,
    /// What decides the next batch's keys and rows.
    pub layout: Layout,
    /// When a batch is over.
    pub limits: Limits,
    /// The most bytes that all open batches may hold in memory together.
    pub memory: u64,
    /// The most shards that are read at the same time; those that have nothing to read don't count.
    pub concurrency: usize,
    /// How long a shard that is caught up waits before it looks again, and the source is asked for new shards.
    pub poll: Duration,
    /// How long a lease lasts without being renewed.
    pub failover: Duration,
    /// Where a stream that was never read is begun.
    pub initial: InitialPosition,
    /// When the archive was made: nobody's first start was earlier.
    pub archive_made_at: Timestamp,
    /// For how long a step of the commit that may succeed later is tried again.
    pub retry: RetryPolicy,
}

/// How a worker is told to stop.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Finish: open batches are cut and committed, leases released.
    pub graceful: CancellationToken,
    /// The grace is over: leave things as they are; they are finished or replayed next time.
    pub abort: CancellationToken,
}
