//! A shard's task from its first step to its last: its turn, its lease, its work.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::board::{Ended, Seat};
use super::outcome::Outcome;
use super::shard_task::{ShardTask, Turn};
use super::{Settings, ShardError, Shutdown, Totals};
use crate::app::Ports;
use crate::archive::chain;
use crate::dedupe::ClaimError;
use crate::digest::Digest;
use crate::lease::{Holding, Lease, LeaseError, LeaseRow, WorkerId};
use crate::ops::retry::retry;
use crate::source::{ShardId, Until};

/// What a task is started for.
pub(super) enum Work {
    /// To read the shard and archive it.
    Read(Until),
    /// To write down that the source no longer has it.
    RecordLoss,
}

/// A task that is about to begin.
pub(super) struct Start {
    pub(super) ports: Ports,
    pub(super) settings: Arc<Settings>,
    pub(super) shutdown: Shutdown,
    pub(super) totals: Arc<Totals>,
    /// The lease row that was looked at.
    pub(super) row: LeaseRow,
    /// Its parents, and their rows where they have any.
    pub(super) parents: BTreeMap<ShardId, Option<LeaseRow>>,
    pub(super) work: Work,
}

impl Start {
    /// Waits for its turn, takes the lease, renews it, and does the work.
    pub(super) async fn run(self, turns: Arc<Semaphore>) -> Result<Outcome, ShardError> {
        let turn = tokio::select! {
            biased;
            turn = Turn::first(turns) => turn,
            () = self.shutdown.graceful.cancelled() => return Ok(Outcome::Stopped { caught_up: false }),
        };
        self.check_origin()?;
        let prepare = async {
            self.check_claims().await?;
            Ok::<_, ShardError>((self.parent_heads().await?, self.take().await?))
        };
        let prepared = tokio::select! {
            biased;
            prepared = prepare => prepared?,
            () = self.shutdown.abort.cancelled() => return Ok(Outcome::Stopped { caught_up: false }),
        };
        let (parent_heads, Some(lease)) = prepared else { return Ok(Outcome::NotTaken) };
        let renews = !self.ports.leases.sole_worker();
        if renews {
            // Nobody where it was given back, or never taken: the row does not tell which.
            let before = self.row.owner.as_ref().map(WorkerId::as_str);
            tracing::info!(shard = %self.row.shard, worker = %self.settings.worker, before, "took the lease");
        }
        let kept = lease.keep();
        let seat = Seat::take(self.totals.clone(), self.ports.clock.clone(), lease.row());
        let Self { ports, settings, shutdown, totals, work, .. } = self;
        let (until, records_loss) = match work {
            Work::Read(until) => (until, false),
            Work::RecordLoss => (Until::Forever, true),
        };
        let children = Vec::new();
        let mut task =
            ShardTask { ports, settings, shutdown, totals, seat, lease, until, parent_heads, turn, children };
        let work = async {
            let outcome = if records_loss { task.record_loss().await } else { Box::pin(task.run()).await };
            task.seat.ended(Ended::of(&outcome));
            outcome
        };
        // A task of its own: this one may be busy for longer than a lease lasts. It ends with this one.
        let mut renewal = JoinSet::new();
        if renews {
            renewal.spawn(kept.in_current_span());
        }
        work.await
    }

    async fn take(&self) -> Result<Option<Lease>, LeaseError> {
        let mut row = self.row.clone();
        row.origin = row.origin.or_else(|| self.ports.source.origin().map(Into::into));
        let holding = Holding {
            store: self.ports.leases.clone(),
            clock: self.ports.clock.clone(),
            worker: self.settings.worker.clone(),
            failover: self.settings.failover,
        };
        let now = self.ports.clock.now();
        let take = || Lease::take(holding.clone(), row.clone(), now);
        let clock = self.ports.clock.as_ref();
        match retry(self.settings.retry, clock, &self.shutdown.abort, LeaseError::may_pass, take).await {
            Ok(lease) => Ok(Some(lease)),
            // Another worker was faster: that is what leases are for.
            Err(LeaseError::Conflict { .. }) if !self.ports.leases.sole_worker() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whoever counts by claims that count no more can commit nothing, and leaves the lease to others.
    async fn check_claims(&self) -> Result<(), ClaimError> {
        if self.ports.leases.sole_worker() {
            return Ok(());
        }
        let (policy, clock, abort) = (self.settings.retry, self.ports.clock.as_ref(), &self.shutdown.abort);
        retry(policy, clock, abort, ClaimError::may_pass, || self.ports.claims.flush()).await
    }

    /// A stream that was deleted and made again under its name has shards of the same names, and other records.
    fn check_origin(&self) -> Result<(), ShardError> {
        Ok(self.row.check_origin(self.ports.source.origin())?)
    }

    /// The newest manifests of the parents of a shard that has none yet: its first one names them, so that a shard's end
    /// is vouched for by its children.
    async fn parent_heads(&self) -> Result<BTreeMap<ShardId, Digest>, ShardError> {
        let mut heads = BTreeMap::new();
        if self.row.batch_seq > 0 {
            return Ok(heads);
        }
        for (parent, row) in &self.parents {
            let head = if let Some(row) = row {
                row.chain_head
            } else {
                let (archive, archive_id) = (self.ports.archive.as_ref(), self.settings.archive_id);
                chain::newest_manifest(archive, archive_id, parent).await?.map(|newest| newest.digest)
            };
            heads.extend(head.map(|head| (parent.clone(), head)));
        }
        Ok(heads)
    }
}
