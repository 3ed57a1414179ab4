//! [`LeaseStore`] in this process's memory, for tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{LeaseError, LeaseRow, LeaseStore, Listing};
use crate::ops::planted::{Bug, planted};
use crate::source::ShardId;

/// Rows that are forgotten with the process.
#[derive(Debug, Default)]
pub struct MemoryLeases {
    rows: Mutex<BTreeMap<ShardId, LeaseRow>>,
    sole_worker: bool,
}

impl MemoryLeases {
    /// No rows, for many workers.
    pub fn shared() -> Self {
        Self::default()
    }

    /// No rows, for one worker.
    pub fn for_a_sole_worker() -> Self {
        Self { sole_worker: true, ..Self::default() }
    }

    /// Takes all rows away. The port has no such call: this is how a test loses a table.
    pub fn lose_all(&self) {
        self.rows().clear();
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<ShardId, LeaseRow>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl LeaseStore for MemoryLeases {
    async fn look(&self) -> Result<Listing, LeaseError> {
        Ok(Listing { rows: self.rows().values().cloned().collect(), damaged: Vec::new() })
    }

    async fn get(&self, shard: &ShardId) -> Result<Option<LeaseRow>, LeaseError> {
        Ok(self.rows().get(shard).cloned())
    }

    async fn create(&self, row: &LeaseRow) -> Result<(), LeaseError> {
        let mut rows = self.rows();
        if rows.contains_key(&row.shard) {
            return Err(LeaseError::Conflict { shard: row.shard.clone() });
        }
        rows.insert(row.shard.clone(), row.clone());
        Ok(())
    }

    async fn replace(&self, row: &LeaseRow) -> Result<(), LeaseError> {
        match self.rows().get_mut(&row.shard) {
            Some(stored) if Some(stored.counter) == row.counter.checked_sub(1) || is_unconditional(stored, row) => {
                *stored = row.clone();
                Ok(())
            }
            _ => Err(LeaseError::Conflict { shard: row.shard.clone() }),
        }
    }

    async fn remove(&self, row: &LeaseRow) -> Result<(), LeaseError> {
        let mut rows = self.rows();
        if rows.get(&row.shard).is_none_or(|stored| stored.counter != row.counter) {
            return Err(LeaseError::Conflict { shard: row.shard.clone() });
        }
        rows.remove(&row.shard);
        Ok(())
    }

    fn sole_worker(&self) -> bool {
        self.sole_worker
    }
}

/// What a commit leaves behind, of a worker that need not be the owner any more.
fn is_unconditional(stored: &LeaseRow, row: &LeaseRow) -> bool {
    let is_committed = row.batch_seq > 0 && row.switches == 0 && row.pending.is_none() && row.owner.is_some();
    planted(Bug::CommitWithoutCondition) && is_committed && row.owner != stored.owner
}
