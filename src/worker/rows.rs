//! The lease rows as a worker sees them, and the making of those that are missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::planner::{Family, View, Watch};
use super::{Settings, ShardError, ShardFailure, WorkerError};
use crate::app::Ports;
use crate::archive::chain;
use crate::encode::keys;
use crate::lease::{LeaseError, LeaseRow};
use crate::source::{Checkpoint, InitialPosition, Shard, ShardId};

/// The rows, as last seen.
pub(super) struct Rows {
    ports: Ports,
    settings: Arc<Settings>,
    seen: BTreeMap<ShardId, LeaseRow>,
    watch: Watch,
    looked_at: Option<Duration>,
}

impl Rows {
    pub(super) fn new(ports: Ports, settings: Arc<Settings>) -> Self {
        let watch = Watch::new(settings.failover);
        Self { ports, settings, seen: BTreeMap::new(), watch, looked_at: None }
    }

    pub(super) fn get(&self, shard: &ShardId) -> Option<&LeaseRow> {
        self.seen.get(shard)
    }

    /// Looks at all rows, if it is time to: others may have changed them. A sole worker needs no second look.
    pub(super) async fn look(&mut self) -> Result<(), LeaseError> {
        let (leases, now) = (&self.ports.leases, self.ports.clock.monotonic());
        let fresh = |at: Duration| leases.sole_worker() || now.saturating_sub(at) < self.settings.failover;
        if self.looked_at.is_some_and(fresh) {
            return Ok(());
        }
        let rows = match leases.list().await {
            Ok(rows) => rows,
            Err(error) => {
                // The others can't write their rows either, as far as anybody knows.
                self.watch.look_away();
                return Err(error);
            }
        };
        let now = self.ports.clock.monotonic();
        self.watch.look(rows.iter(), now);
        self.seen = rows.into_iter().map(|row| (row.shard.clone(), row)).collect();
        self.looked_at = Some(now);
        Ok(())
    }

    /// Looks at one row.
    pub(super) async fn look_at(&mut self, shard: &ShardId) -> Result<(), LeaseError> {
        match self.ports.leases.get(shard).await? {
            Some(row) => {
                self.watch.look_at(&row, self.ports.clock.monotonic());
                self.seen.insert(shard.clone(), row);
            }
            None => drop(self.seen.remove(shard)),
        }
        Ok(())
    }

    /// All rows are looked at again before anything else is done.
    pub(super) fn distrust(&mut self) {
        self.looked_at = None;
    }

    /// Whether this worker has asked for the lease, and its owner has not given it up yet.
    pub(super) fn is_on_its_way(&self, shard: &ShardId) -> bool {
        let me = Some(&self.settings.worker);
        self.seen
            .get(shard)
            .is_some_and(|row| row.wanted_by.as_ref() == me && row.owner.is_some() && row.owner.as_ref() != me)
    }

    /// Whether all of the shard is archived, its end included.
    pub(super) fn has_ended(&self, listed: &[Shard], shard: &ShardId) -> bool {
        match self.seen.get(shard) {
            Some(row) => row.ended,
            None => Family::of(listed, &self.seen).has_left(shard),
        }
    }

    /// What there is to plan with.
    pub(super) fn view<'a>(
        &'a self,
        listed: &'a [Shard],
        busy: &'a BTreeSet<ShardId>,
        resting: &'a BTreeSet<ShardId>,
    ) -> View<'a> {
        let now = self.ports.clock.monotonic();
        let expired = self.seen.values().filter(|row| self.watch.is_expired(row, now)).map(|row| &row.shard);
        View {
            me: &self.settings.worker,
            sole_worker: self.ports.leases.sole_worker(),
            listed,
            rows: &self.seen,
            expired: expired.collect(),
            busy,
            resting,
        }
    }

    /// Makes the rows that are missing; the shards whose manifests don't tell where to go on.
    pub(super) async fn make(
        &mut self,
        listed: &[Shard],
        resting: &BTreeSet<ShardId>,
    ) -> Result<Vec<ShardFailure>, WorkerError> {
        let family = Family::of(listed, &self.seen);
        let is_missing = |shard: &&Shard| {
            !self.seen.contains_key(&shard.id) && !resting.contains(&shard.id) && !family.has_left(&shard.id)
        };
        let missing: Vec<&Shard> = listed.iter().filter(is_missing).collect();
        let start = self.start(&missing).await?;
        let mut failures = Vec::new();
        // Children before their parents: a shard whose parent has a row when it has none itself came later. That holds
        // however many workers make rows, and wherever one of them dies.
        for shard in missing.into_iter().rev() {
            match self.make_one(shard, start).await {
                Ok(row) => drop(self.seen.insert(shard.id.clone(), row)),
                Err(ShardError::Lease(error)) => return Err(error.into()),
                Err(error) => failures.push(ShardFailure { shard: shard.id.clone(), error }),
            }
        }
        Ok(failures)
    }

    /// When the archive's first start was, as far as `latest` means it. Where that can't be told any more, because the
    /// rows were lost, it is when the archive was made, which was not later.
    async fn start(&self, missing: &[&Shard]) -> Result<Timestamp, WorkerError> {
        if missing.is_empty() || self.settings.initial != InitialPosition::Latest {
            return Ok(self.settings.archive_made_at);
        }
        let is_first = self.seen.is_empty() && self.ports.archive.list(keys::MANIFESTS_PREFIX).await?.is_empty();
        Ok(if is_first { self.ports.clock.now() } else { self.settings.archive_made_at })
    }

    /// A row for a shard that has none. The archive is the authority: where manifests of the shard stand there, it goes
    /// on from the newest of them.
    async fn make_one(&self, shard: &Shard, start: Timestamp) -> Result<LeaseRow, ShardError> {
        let (archive, archive_id) = (self.ports.archive.as_ref(), self.settings.archive_id);
        let mut row = match chain::newest_manifest(archive, archive_id, &shard.id).await? {
            Some(newest) => newest.lease_row(),
            None => LeaseRow {
                checkpoint: self.first_checkpoint(shard, start),
                ..LeaseRow::new(shard.id.clone(), shard.parents.clone())
            },
        };
        row.hash_range.clone_from(&shard.hash_range);
        let origin = self.ports.source.origin().map(Into::into);
        row.origin = row.origin.or(origin);
        match self.ports.leases.create(&row).await {
            Ok(()) => Ok(row),
            // Another worker was faster; its row is as good.
            Err(LeaseError::Conflict { .. }) => Ok(self.ports.leases.get(&shard.id).await?.unwrap_or(row)),
            Err(error) => Err(error.into()),
        }
    }

    fn first_checkpoint(&self, shard: &Shard, start: Timestamp) -> Checkpoint {
        // What a split or a merge made while its parents were read has nothing that is not wanted.
        if shard.parents.iter().any(|parent| self.seen.contains_key(parent)) {
            return Checkpoint::TrimHorizon;
        }
        self.settings.initial.checkpoint(start)
    }

    /// Removes the row of a shard that is finished; another worker may have done it.
    pub(super) async fn forget(&mut self, shard: &ShardId) -> Result<(), LeaseError> {
        let Some(row) = self.seen.remove(shard) else { return Ok(()) };
        match self.ports.leases.remove(&row).await {
            Ok(()) => {
                tracing::info!(%shard, "the row of an ended shard was removed: its children have moved on");
                Ok(())
            }
            Err(LeaseError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Shards that the source no longer has, though they were known to hold more than was archived, and that nobody else
    /// looks after. Of a shard whose parent is listed, it does not know yet: parents go first.
    pub(super) fn lost_shards(&self, listed: &[Shard], busy: &BTreeSet<ShardId>) -> Vec<ShardId> {
        let parents: BTreeSet<&ShardId> = listed.iter().flat_map(|shard| &shard.parents).collect();
        // Of a row that was made from the archive and not read from since, nothing is known, but that it has not ended:
        // its children wait for that.
        let unknown = |row: &LeaseRow| row.remade_at == Some(row.batch_seq) && !parents.contains(&row.shard);
        let lost = |row: &&LeaseRow| match &row.pending {
            Some(pending) => pending.holds_nothing(),
            None => !(row.caught_up || row.ended || unknown(row)),
        };
        self.gone(listed, busy).filter(lost).map(|row| row.shard.clone()).collect()
    }

    /// The rows of shards that the source no longer has, and that nobody else looks after.
    fn gone(&self, listed: &[Shard], busy: &BTreeSet<ShardId>) -> impl Iterator<Item = &LeaseRow> {
        let (now, sole) = (self.ports.clock.monotonic(), self.ports.leases.sole_worker());
        let free = move |row: &LeaseRow| {
            let mine = row.owner.as_ref() == Some(&self.settings.worker) && !busy.contains(&row.shard);
            sole || row.owner.is_none() || mine || self.watch.is_expired(row, now)
        };
        let ids: BTreeSet<&ShardId> = listed.iter().map(|shard| &shard.id).collect();
        let is_gone = move |row: &&LeaseRow| {
            !ids.contains(&row.shard) && row.parents.iter().all(|id| !ids.contains(id)) && free(row)
        };
        self.seen.values().filter(is_gone)
    }

    /// A batch can be under way in a shard that the source no longer has: it can't be finished, and that is no success.
    pub(super) fn lost_batches(&self, listed: &[Shard], busy: &BTreeSet<ShardId>) -> Vec<ShardFailure> {
        let lost = self.gone(listed, busy);
        let failure = |row: &LeaseRow| {
            let pending = row.pending.as_ref().filter(|pending| !pending.holds_nothing())?;
            let error = ShardError::BatchLost(pending.range.to_string());
            Some(ShardFailure { shard: row.shard.clone(), error })
        };
        lost.filter_map(failure).collect()
    }
}
