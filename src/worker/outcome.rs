//! How a shard's task ends.

use super::commit::CommitError;
use crate::archive::chain::ChainError;
use crate::dedupe::ClaimError;
use crate::encode::{EncodeError, keys};
use crate::lease::{LeaseError, LeaseRow, OtherOrigin};
use crate::source::{ShardId, SourceError};

/// Why a shard stopped. Its lease row says truthfully how far it got; nothing behind that is passed over.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The source can't be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A record's identity could not be claimed.
    #[error(transparent)]
    Claims(#[from] ClaimError),
    /// A batch could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A batch could not be committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The lease could not be taken or given up.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The shard has no lease row, and its manifests don't tell where to go on.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The source no longer has what a batch under way was made of.
    #[error(
        "batch {name} {range} is under way, but the source no longer has all of it; restore the source to finish the batch, \
         or give it up: move the objects below events/ and rejected/ whose names have {name} in them out of the archive, and \
         run rebuild-state"
    )]
    BatchLost {
        /// What its objects' names have in them.
        name: String,
        /// What it covers.
        range: String,
    },
    /// The lease row is another stream's.
    #[error(transparent)]
    OtherOrigin(#[from] OtherOrigin),
    /// The task panicked.
    #[error("a bug: {0}")]
    Panic(String),
}

impl ShardError {
    /// That the batch which the row says is under way can't be finished.
    pub(super) fn batch_lost(row: &LeaseRow) -> Self {
        let through = row.left_over.as_ref().map(|left_over| format!("({}, {}]", row.checkpoint, left_over.through));
        let range = row.pending.as_ref().map(|pending| pending.range.to_string()).or(through);
        Self::BatchLost { name: keys::batch_name(&row.shard, row.batch_seq), range: range.unwrap_or_default() }
    }

    /// Whether the tables that all shards share are gone, or others count by now: whoever starts anew goes on.
    pub(super) fn is_loss_of_state(&self) -> bool {
        let (lease, claims) = match self {
            Self::Lease(error) | Self::Commit(CommitError::Lease(error)) => (Some(error), None),
            Self::Claims(error) | Self::Commit(CommitError::Claims(error)) => (None, Some(error)),
            _ => (None, None),
        };
        matches!(lease, Some(LeaseError::Lost { .. })) || matches!(claims, Some(ClaimError::Lost(_)))
    }
}

/// A shard and why it stopped.
#[derive(Debug, thiserror::Error)]
#[error("{shard}: {error}")]
pub struct ShardFailure {
    /// The shard.
    pub shard: ShardId,
    /// Why it stopped.
    pub error: ShardError,
}

/// How a shard's task ended, when nothing was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All that was asked for is committed.
    Done,
    /// The worker was told to stop; what was read is committed. `caught_up` where there was no more at the time.
    Stopped {
        /// All that the shard held is in the archive.
        caught_up: bool,
    },
    /// Another worker was faster to take the lease.
    NotTaken,
    /// The lease was lost on the way; whoever has it now goes on from the last commit.
    Lost {
        /// Another worker has it, as its row says. Else it could not be renewed.
        taken: bool,
    },
}
