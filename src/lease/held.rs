//! Holding a lease.

use std::sync::Arc;

use super::{LeaseError, LeaseRow, LeaseStore, WorkerId};

/// A lease that this worker holds: the row as it last wrote it, and the right to write it again for as long as nobody
/// else has.
pub struct Lease {
    store: Arc<dyn LeaseStore>,
    row: LeaseRow,
}

impl Lease {
    /// Takes the lease of the row that was looked at, whoever owned it; [`LeaseError::Conflict`] where the row has been
    /// written since.
    pub async fn take(store: Arc<dyn LeaseStore>, seen: LeaseRow, worker: &WorkerId) -> Result<Self, LeaseError> {
        let mut lease = Self { store, row: seen };
        let take = |row: &mut LeaseRow| {
            row.owner = Some(worker.clone());
            row.caught_up = false;
        };
        lease.write(take).await?;
        Ok(lease)
    }

    /// The row as this worker last wrote it.
    pub fn row(&self) -> &LeaseRow {
        &self.row
    }

    /// Gives the lease up, so that another worker need not wait for it to expire; `caught_up` where all that the shard
    /// held is in the archive.
    pub async fn release(&mut self, caught_up: bool) -> Result<(), LeaseError> {
        let release = |row: &mut LeaseRow| {
            row.owner = None;
            row.caught_up = caught_up;
        };
        self.write(release).await
    }

    /// Writes the row, changed, on condition that nobody else has written it.
    ///
    /// A failed condition may be our own doing: a write that took effect though its answer was lost, and was sent
    /// again. So the row is read once more, and if it says just what we meant to write, the write has succeeded. After
    /// [`LeaseError::Unavailable`] the same change can be asked for again.
    pub(crate) async fn write(&mut self, change: impl FnOnce(&mut LeaseRow)) -> Result<(), LeaseError> {
        let mut row = self.row.clone();
        change(&mut row);
        row.counter += 1;
        match self.store.replace(&row).await {
            Ok(()) => {}
            Err(LeaseError::Conflict { shard }) => {
                if self.store.get(&shard).await?.as_ref() != Some(&row) {
                    return Err(LeaseError::Conflict { shard });
                }
            }
            Err(error) => return Err(error),
        }
        self.row = row;
        Ok(())
    }
}
