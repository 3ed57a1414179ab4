//! The lease rows as a worker sees them, and the making of those that are missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;

use super::planner::{Family, View, Watch};
use super::{Settings, ShardError, ShardFailure, WorkerError};
use crate::app::Ports;
use crate::archive::ArchiveError;
use crate::archive::chain::{self, ChainError, Newest};
use crate::archive::left_over;
use crate::encode::keys;
use crate::lease::{Compared, LeaseError, LeaseRow, first_counter};
use crate::ops::planted::{Bug, planted};
use crate::source::{Checkpoint, InitialPosition, Shard, ShardId};

/// What must not be taken, though its lease is free.
#[derive(Default)]
pub(super) struct Behind {
    /// Objects stand there that don't tell where to go on.
    pub(super) failures: Vec<ShardFailure>,
    /// The row was made by an old look at the archive, and is made again.
    pub(super) outdated: BTreeSet<ShardId>,
}

/// How many shards' newest manifests are looked for at a time.
const CHAINS_AT_ONCE: usize = 16;

/// The rows, as last seen.
pub(super) struct Rows {
    ports: Ports,
    settings: Arc<Settings>,
    seen: BTreeMap<ShardId, LeaseRow>,
    watch: Watch,
    looked_at: Option<Duration>,
    /// How many rows can't be read.
    damaged: usize,
    /// Shards whose rows were seen, and are gone though the shard had not ended: they are lost.
    vanished: BTreeSet<ShardId>,
}

impl Rows {
    pub(super) fn new(ports: Ports, settings: Arc<Settings>) -> Self {
        let watch = Watch::new(settings.failover);
        Self { ports, settings, seen: BTreeMap::new(), watch, looked_at: None, damaged: 0, vanished: BTreeSet::new() }
    }

    pub(super) fn get(&self, shard: &ShardId) -> Option<&LeaseRow> {
        self.seen.get(shard)
    }

    /// All of them.
    pub(super) fn seen(&self) -> impl Iterator<Item = &LeaseRow> {
        self.seen.values()
    }

    /// Looks at all rows, if it is time to: others may have changed them. A sole worker needs no second look.
    pub(super) async fn look(&mut self) -> Result<(), LeaseError> {
        let (leases, now) = (&self.ports.leases, self.ports.clock.monotonic());
        let fresh = |at: Duration| leases.sole_worker() || now.saturating_sub(at) < self.settings.failover;
        if self.looked_at.is_some_and(fresh) {
            return Ok(());
        }
        let listing = match leases.look().await {
            Ok(listing) => listing,
            Err(error) => {
                // The others can't write their rows either, as far as anybody knows.
                self.watch.look_away();
                return Err(error);
            }
        };
        if listing.damaged.len() > self.damaged {
            for error in &listing.damaged {
                let shard = error.shard().map(ShardId::as_str);
                tracing::error!(shard, %error, "a lease row can't be read; its shard stays where it is, the others go on: \
                    with all workers stopped, remove the row, and it is made anew from the archive");
            }
        }
        self.damaged = listing.damaged.len();
        let rows = listing.rows;
        self.watch.look(rows.iter(), self.watch_time());
        let before = std::mem::take(&mut self.seen);
        self.seen = rows.into_iter().map(|row| (row.shard.clone(), row)).collect();
        let gone = before.into_values().filter(|row| !row.ended && !self.seen.contains_key(&row.shard));
        self.vanished.extend(gone.map(|row| row.shard));
        self.looked_at = Some(self.ports.clock.monotonic());
        Ok(())
    }

    /// Looks at one row.
    pub(super) async fn look_at(&mut self, shard: &ShardId) -> Result<(), LeaseError> {
        match self.ports.leases.get(shard).await? {
            Some(row) => {
                self.watch.look_at(&row, self.watch_time());
                self.seen.insert(shard.clone(), row);
            }
            None => self.vanished.extend(self.seen.remove(shard).filter(|row| !row.ended).map(|row| row.shard)),
        }
        Ok(())
    }

    /// The time by which leases expire.
    fn watch_time(&self) -> Duration {
        let clock = &self.ports.clock;
        if planted(Bug::ExpiryByWallClock) {
            return clock.now().duration_since(Timestamp::UNIX_EPOCH).unsigned_abs();
        }
        clock.monotonic()
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
        let now = self.watch_time();
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
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let looked_at = self.ports.clock.monotonic();
        let (mut rows, mut failures) = self.new_rows(&missing).await?;
        self.drop_found(&mut rows).await?;
        self.take_up_what_is_left(listed, &mut rows, &mut failures).await?;
        for row in rows {
            if self.is_outdated(&row, looked_at).await {
                self.distrust();
                continue;
            }
            let shard = row.shard.clone();
            match self.create(row).await {
                Ok(row) => {
                    if row.remade_at.is_some() {
                        tracing::warn!(%shard, checkpoint = %row.checkpoint, batches = row.batch_seq,
                            "the lease row was lost; it is made anew from the archive");
                    }
                    self.vanished.remove(&shard);
                    self.seen.insert(shard, row);
                }
                Err(error @ LeaseError::Damaged { .. }) => failures.push(ShardFailure { shard, error: error.into() }),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(failures)
    }

    /// Drops the rows that others have made since all rows were looked at, and have put manifests by: those are not lost.
    /// A row comes before its manifests, so that it stands where they do, but for a lost one.
    async fn drop_found(&mut self, rows: &mut Vec<LeaseRow>) -> Result<(), LeaseError> {
        if self.ports.leases.sole_worker() {
            return Ok(());
        }
        let begun: Vec<ShardId> = rows.iter().filter(|row| row.batch_seq > 0).map(|row| row.shard.clone()).collect();
        for shard in begun {
            match self.look_at(&shard).await {
                // It is not lost, and whoever tries to make it is told.
                Err(LeaseError::Damaged { .. }) => {}
                looked => looked?,
            }
            if self.seen.contains_key(&shard) {
                rows.retain(|row| row.shard != shard);
            }
        }
        Ok(())
    }

    /// Whether the archive has gone on since it was looked at for this row. Who slept meanwhile may find the row missing
    /// again, because it was lost: then what it saw is old.
    async fn is_outdated(&self, row: &LeaseRow, looked_at: Duration) -> bool {
        if self.ports.clock.monotonic().saturating_sub(looked_at) < self.settings.failover {
            return false;
        }
        match chain::newest_manifest(self.ports.archive.as_ref(), self.settings.archive_id, &row.shard).await {
            Ok(newest) => newest.is_some_and(|newest| newest.manifest.batch_seq >= row.batch_seq),
            Err(_) => true,
        }
    }

    /// The rows of these shards, in the order in which they are to be made, and the shards that can have none.
    ///
    /// Children before their parents: a shard whose parent has a row when it has none itself came later. And those that have
    /// no manifests before those that have: as long as one is missing whose row was lost, so are all that are told from new
    /// ones by that alone. Both hold however many workers make rows, and wherever one of them dies.
    async fn new_rows(&self, missing: &[&Shard]) -> Result<(Vec<LeaseRow>, Vec<ShardFailure>), WorkerError> {
        let start = self.start().await?;
        let (mut rows, mut failures) = (Vec::new(), Vec::new());
        let chains = self.newest(missing.iter().map(|shard| &shard.id)).await;
        for (shard, newest) in missing.iter().zip(chains).rev() {
            match newest {
                Ok(newest) => rows.push(self.new_row(shard, newest, start)),
                Err(error) => failures.push(ShardFailure { shard: shard.id.clone(), error: error.into() }),
            }
        }
        rows.sort_by_key(|row| row.batch_seq > 0);
        Ok((rows, failures))
    }

    /// The newest manifests of these shards.
    async fn newest(&self, shards: impl Iterator<Item = &ShardId>) -> Vec<Result<Option<Newest>, ChainError>> {
        let (archive, archive_id) = (self.ports.archive.as_ref(), self.settings.archive_id);
        let chains: Vec<_> = shards.map(|shard| chain::newest_manifest(archive, archive_id, shard)).collect();
        stream::iter(chains).buffered(CHAINS_AT_ONCE).collect().await
    }

    /// Looks at the archive once more for those of the shards that are about to be taken for the first time: whoever made
    /// their rows may have looked at it long before. What must not be taken now.
    pub(super) async fn look_behind(&mut self, shards: &[ShardId]) -> Result<Behind, WorkerError> {
        let failures = self.catch_up_rows(shards).await?;
        let outdated =
            if self.ports.leases.sole_worker() { BTreeSet::new() } else { self.drop_outdated(shards).await? };
        Ok(Behind { failures, outdated })
    }

    /// Removes rows that say that nothing is archived, where something is: they were made by a look at the archive from
    /// before that, after the row that told of it was lost. They are made again, and then left alone for a while.
    async fn drop_outdated(&mut self, shards: &[ShardId]) -> Result<BTreeSet<ShardId>, WorkerError> {
        let is_new = |row: &&LeaseRow| row.is_new() && !row.is_untouched();
        let new: Vec<ShardId> = shards
            .iter()
            .filter_map(|shard| self.seen.get(shard))
            .filter(is_new)
            .map(|row| row.shard.clone())
            .collect();
        let mut outdated = BTreeSet::new();
        for (shard, newest) in new.iter().zip(self.newest(new.iter()).await) {
            // A chain that can't be read is told of by whoever goes on with it.
            if matches!(newest, Ok(Some(_))) {
                tracing::warn!(%shard, "the lease row is behind the archive; it is made again");
                outdated.insert(shard.clone());
                self.remove(shard).await?;
            }
        }
        Ok(outdated)
    }

    /// Whoever had rows that were lost may have gone on for a moment after these were made anew. The shards whose objects
    /// don't tell where to go on.
    async fn catch_up_rows(&mut self, shards: &[ShardId]) -> Result<Vec<ShardFailure>, ArchiveError> {
        let untouched = shards.iter().filter_map(|shard| self.seen.get(shard)).filter(|row| row.is_untouched());
        let mut rows: Vec<LeaseRow> = untouched.cloned().collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let chains = self.newest(rows.iter().map(|row| &row.shard)).await;
        let mut damaged = Vec::new();
        for (row, newest) in rows.iter_mut().zip(chains) {
            match newest {
                Ok(Some(newest)) if newest.manifest.batch_seq >= row.batch_seq => {
                    let (counter, wanted_by, hash_range) = (row.counter, row.wanted_by.take(), row.hash_range.take());
                    *row = LeaseRow { counter, wanted_by, hash_range, ..newest.lease_row() };
                }
                Ok(_) => {}
                Err(error) => damaged.push((row.shard.clone(), error)),
            }
            row.left_over = None;
        }
        rows.retain(|row| damaged.iter().all(|(shard, _)| row.shard != *shard));
        let (layout, window) = (&self.settings.layout, self.settings.limits.window);
        damaged.extend(left_over::find(self.ports.archive.as_ref(), &mut rows, layout, window).await?);
        self.seen.extend(rows.into_iter().map(|row| (row.shard.clone(), row)));
        Ok(damaged.into_iter().map(|(shard, error)| ShardFailure { shard, error: error.into() }).collect())
    }

    /// Objects may stand of batches that only lost rows told of. Rows are lost where one was seen and is gone, where a shard
    /// has manifests and no row, or one that was made anew just now, and where there are manifests of any shard and no row
    /// at all; where there are no manifests either, nothing tells but the objects.
    async fn take_up_what_is_left(
        &self,
        listed: &[Shard],
        rows: &mut Vec<LeaseRow>,
        failures: &mut Vec<ShardFailure>,
    ) -> Result<(), WorkerError> {
        let archive = self.ports.archive.as_ref();
        let is_remade = |shard: &Shard| self.seen.get(&shard.id).is_some_and(|row| row.is_untouched() && !row.ended);
        let is_lost = |row: &LeaseRow| row.batch_seq > 0 || self.vanished.contains(&row.shard);
        let mut lost = rows.iter().any(is_lost) || listed.iter().any(is_remade);
        if !lost && !archive.list_some(keys::MANIFESTS_PREFIX, 1).await?.is_empty() {
            // The first row may have been made, and its manifest put, since all rows were looked at.
            lost = self.seen.is_empty() && self.ports.leases.look().await?.rows.is_empty();
            if !lost {
                return Ok(());
            }
        }
        let (layout, window) = (&self.settings.layout, self.settings.limits.window);
        let unreadable = left_over::find(archive, rows, layout, window).await?;
        if !lost {
            rows.retain(|row| unreadable.iter().all(|(shard, _)| row.shard != *shard));
        }
        // A lost row is made though its objects can't be read: a worker that starts later would take its shard for a new
        // one. Before such a row is taken, they are looked at again.
        let compared = self.compared();
        for row in rows.iter_mut().filter(|row| lost || row.left_over.is_some()) {
            row.remade_at = Some(row.batch_seq);
            row.compared = compared.clone().filter(|_| row.batch_seq == 0);
        }
        failures.extend(unreadable.into_iter().map(|(shard, error)| ShardFailure { shard, error: error.into() }));
        Ok(())
    }

    /// What all rows were compared with when `rebuild-state` made them, of a shard that had nothing to make a row from: had
    /// it had a manifest in that proof, the comparison had failed. Only for as long as nobody has had one of their leases:
    /// what is lost later was not compared.
    fn compared(&self) -> Option<Compared> {
        let is_as_made = |row: &LeaseRow| row.is_untouched() && row.compared.is_some();
        let began = self.seen.values().next()?.compared.as_ref()?.began;
        self.seen.values().all(is_as_made).then_some(Compared { began, batches: 0 })
    }

    /// When the archive's first start was, as far as `latest` means it. Where that can't be told any more, because the
    /// rows were lost, it is when the archive was made, which was not later.
    async fn start(&self) -> Result<Timestamp, WorkerError> {
        if self.settings.initial != InitialPosition::Latest {
            return Ok(self.settings.archive_made_at);
        }
        let is_first =
            self.seen.is_empty() && self.ports.archive.list_some(keys::MANIFESTS_PREFIX, 1).await?.is_empty();
        Ok(if is_first { self.ports.clock.now() } else { self.settings.archive_made_at })
    }

    /// A row for a shard that has none. The archive is the authority: where manifests of the shard stand there, it goes
    /// on from the newest of them.
    fn new_row(&self, shard: &Shard, newest: Option<Newest>, start: Timestamp) -> LeaseRow {
        let mut row = newest.map_or_else(
            || LeaseRow {
                checkpoint: self.first_checkpoint(shard, start),
                ..LeaseRow::new(shard.id.clone(), shard.parents.clone())
            },
            |newest| newest.lease_row(),
        );
        row.hash_range.clone_from(&shard.hash_range);
        let origin = self.ports.source.origin().map(Into::into);
        row.origin = row.origin.or(origin);
        if !self.ports.leases.sole_worker() {
            row.counter = first_counter();
        }
        row
    }

    async fn create(&self, row: LeaseRow) -> Result<LeaseRow, LeaseError> {
        match self.ports.leases.create(&row).await {
            Ok(()) => Ok(row),
            // Another worker was faster; its row is as good.
            Err(LeaseError::Conflict { shard }) => Ok(self.ports.leases.get(&shard).await?.unwrap_or(row)),
            Err(error) => Err(error),
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
        if self.remove(shard).await? {
            tracing::info!(%shard, "the row of an ended shard was removed: its children have moved on");
        }
        Ok(())
    }

    /// Removes the row as it was seen; whether it was there still.
    async fn remove(&mut self, shard: &ShardId) -> Result<bool, LeaseError> {
        let Some(row) = self.seen.remove(shard) else { return Ok(false) };
        match self.ports.leases.remove(&row).await {
            Ok(()) => Ok(true),
            Err(LeaseError::Conflict { .. }) => Ok(false),
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
        let (now, sole) = (self.watch_time(), self.ports.leases.sole_worker());
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
            let is_lost =
                row.left_over.is_some() || row.pending.as_ref().is_some_and(|pending| !pending.holds_nothing());
            is_lost.then(|| ShardFailure { shard: row.shard.clone(), error: ShardError::batch_lost(row) })
        };
        lost.filter_map(failure).collect()
    }
}
