//! The lease table.

use async_trait::async_trait;
use auditlake::lease::memory::MemoryLeases;
use auditlake::lease::{LeaseError, LeaseRow, LeaseStore, Listing};
use auditlake::source::ShardId;

use super::{Faulty, at_once};
use crate::sim::operation::Port;

#[allow(clippy::needless_pass_by_value)] // as the others take theirs
fn unavailable(reason: &str) -> LeaseError {
    LeaseError::Unavailable { reason: reason.to_owned() }
}

impl Faulty<MemoryLeases> {
    /// A call to the table that is there now: one that comes when another took its place finds nothing of what it means.
    async fn at_table<R: Send + 'static>(
        &self,
        what: String,
        effect: impl Fn(&MemoryLeases) -> Result<R, LeaseError> + Send + Sync + 'static,
    ) -> Result<R, LeaseError> {
        let (twin, shared) = (self.twin.clone(), self.shared.clone());
        let table = self.shared.state().table;
        let effect = move || {
            let now = shared.state().table;
            if now != table || !now.exists {
                return Err(LeaseError::Lost { reason: "simulated: there is no table".to_owned() });
            }
            effect(&twin)
        };
        self.call(Port::Leases, what, effect, unavailable).await
    }
}

#[async_trait]
impl LeaseStore for Faulty<MemoryLeases> {
    async fn look(&self) -> Result<Listing, LeaseError> {
        self.at_table("look".to_owned(), |twin| at_once(twin.look())).await
    }

    async fn get(&self, shard: &ShardId) -> Result<Option<LeaseRow>, LeaseError> {
        let wanted = shard.clone();
        self.at_table(format!("look at {shard}"), move |twin| at_once(twin.get(&wanted))).await
    }

    async fn create(&self, row: &LeaseRow) -> Result<(), LeaseError> {
        let (shared, written) = (self.shared.clone(), row.clone());
        let effect = move |twin: &MemoryLeases| {
            at_once(twin.create(&written))?;
            shared.state().row_created(&written);
            Ok(())
        };
        self.at_table(format!("create {}", terms(row)), effect).await
    }

    async fn replace(&self, row: &LeaseRow) -> Result<(), LeaseError> {
        let (shared, written, writer) = (self.shared.clone(), row.clone(), self.seat.worker.clone());
        let effect = move |twin: &MemoryLeases| {
            let before = at_once(twin.get(&written.shard))?;
            at_once(twin.replace(&written))?;
            if let Some(before) = before {
                shared.row_replaced(&writer, &before, &written);
            }
            Ok(())
        };
        self.at_table(format!("replace {}", terms(row)), effect).await
    }

    async fn remove(&self, row: &LeaseRow) -> Result<(), LeaseError> {
        let removed = row.clone();
        let effect = move |twin: &MemoryLeases| at_once(twin.remove(&removed));
        self.at_table(format!("remove {}", terms(row)), effect).await
    }

    fn sole_worker(&self) -> bool {
        self.twin.sole_worker()
    }
}

/// What of a row tells what happens.
fn terms(row: &LeaseRow) -> String {
    let owner = row.owner.as_ref().map_or("-", |owner| owner.as_str());
    let pending = row.pending.as_ref().map(|pending| pending.range.to_string()).unwrap_or_default();
    let wanted = row.wanted_by.as_ref().map_or("-", |wanted| wanted.as_str());
    format!(
        "{} #{} owner {owner} wanted {wanted} seq {} at {}{} {pending}",
        row.shard,
        row.counter,
        row.batch_seq,
        row.checkpoint,
        if row.ended { " ended" } else { "" }
    )
}
