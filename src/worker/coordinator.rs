//! The worker: finds shards, makes their lease rows, starts their tasks, and sees them end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{Id, JoinSet};

use super::planner::startable;
use super::shard_task::{Outcome, ShardTask, Turn};
use super::{Settings, ShardError, ShardFailure, Shutdown, Totals};
use crate::app::Ports;
use crate::archive::chain;
use crate::lease::{Lease, LeaseError, LeaseRow};
use crate::ops::retry::retry;
use crate::source::{Shard, ShardId, SourceError, Until};

/// The longest pause before a shard that stopped with an error is started again.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Why the worker could not look after its shards.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The shards could not be listed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The lease rows could not be read or made.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

/// How a worker's time came to its end.
#[derive(Debug, Default)]
pub struct Summary {
    /// Shards whose tasks ended as they should.
    pub shards: u64,
    /// Shards that stopped with an error, which is each one's last.
    pub failures: Vec<ShardFailure>,
    /// It was told to stop before it was done.
    pub stopped: bool,
}

/// One worker: the process's share of the work.
pub struct Worker {
    ports: Ports,
    settings: Arc<Settings>,
    shutdown: Shutdown,
    totals: Arc<Totals>,
    tasks: JoinSet<Result<Outcome, ShardError>>,
    running: BTreeMap<Id, ShardId>,
    busy: BTreeSet<ShardId>,
    turns: Arc<Semaphore>,
    /// The lease rows, as last seen.
    rows: BTreeMap<ShardId, LeaseRow>,
}

type TaskEnd = (ShardId, Result<Outcome, ShardError>);

impl Worker {
    /// A worker that has started nothing yet.
    pub fn new(ports: Ports, settings: Settings, shutdown: Shutdown, totals: Arc<Totals>) -> Self {
        Self {
            ports,
            turns: Arc::new(Semaphore::new(settings.concurrency)),
            settings: Arc::new(settings),
            shutdown,
            totals,
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
            busy: BTreeSet::new(),
            rows: BTreeMap::new(),
        }
    }

    /// Archives `shards` up to where each ended when it was listed, then returns. A shard that stops with an error holds
    /// up none but its children.
    pub async fn catch_up(mut self, shards: Vec<Shard>) -> Result<Summary, WorkerError> {
        let mut summary = Summary::default();
        let mut left: BTreeMap<ShardId, Shard> = shards.into_iter().map(|shard| (shard.id.clone(), shard)).collect();
        self.look_at_rows().await?;
        summary.failures.extend(self.lost_batches(&left));
        for lost in self.lost_shards(&left) {
            self.start(&lost, Work::RecordLoss);
        }
        for failure in self.make_rows(left.values()).await? {
            left.remove(&failure.shard);
            summary.failures.push(failure);
        }
        loop {
            for shard in self.ready(left.values()) {
                let until = left.remove(&shard).map_or(Until::Forever, |shard| Until::Target(shard.end));
                self.start(&shard, Work::Read(until));
            }
            let Some((shard, end)) = self.next_end().await else { break };
            summary.record(shard.clone(), end);
            self.look_at_row(&shard).await?;
        }
        let ended = left.keys().filter(|shard| self.rows.get(*shard).is_some_and(|row| row.ended)).count();
        summary.shards += ended as u64;
        summary.stopped |= ended < left.len() || self.shutdown.graceful.is_cancelled();
        Ok(summary)
    }

    /// Reads every shard there is and every one that appears, until it is told to stop. A shard that stops with an error
    /// is tried again, after pauses that grow to five minutes.
    pub async fn run(mut self) -> Result<Summary, WorkerError> {
        let mut summary = Summary { stopped: true, ..Summary::default() };
        let mut pauses: BTreeMap<ShardId, Pause> = BTreeMap::new();
        while !self.shutdown.graceful.is_cancelled() {
            if let Err(error) = self.start_all(&mut pauses).await {
                tracing::error!(%error, "shards can't be looked after; trying again");
            }
            if let Some((shard, end)) = self.next_event().await {
                if let Err(error) = self.look_at_row(&shard).await {
                    tracing::warn!(%shard, %error, "the lease row can't be looked at");
                    self.rows.remove(&shard);
                }
                self.reschedule(shard, end, &mut pauses);
            }
        }
        while let Some((shard, end)) = self.next_end().await {
            summary.record(shard, end);
        }
        Ok(summary)
    }

    /// Waits for a task's end, for the time to look for new shards, or for the word to stop.
    async fn next_event(&mut self) -> Option<TaskEnd> {
        let (clock, graceful) = (self.ports.clock.clone(), self.shutdown.graceful.clone());
        let poll = self.settings.poll;
        tokio::select! {
            biased;
            () = graceful.cancelled() => None,
            Some(end) = self.next_end() => Some(end),
            () = clock.sleep(poll) => None,
        }
    }

    async fn start_all(&mut self, pauses: &mut BTreeMap<ShardId, Pause>) -> Result<(), WorkerError> {
        let now = self.ports.clock.monotonic();
        let mut shards = self.ports.source.shards().await?;
        if self.rows.is_empty() || !self.ports.leases.sole_worker() {
            self.look_at_rows().await?;
        }
        let listed: BTreeMap<ShardId, Shard> = shards.iter().map(|shard| (shard.id.clone(), shard.clone())).collect();
        for lost in self.lost_shards(&listed) {
            let rests = pauses.get(&lost).is_some_and(|pause| pause.over_at > now);
            if !rests && !self.busy.contains(&lost) {
                self.start(&lost, Work::RecordLoss);
            }
        }
        shards.retain(|shard| pauses.get(&shard.id).is_none_or(|pause| pause.over_at <= now));
        for failure in self.make_rows(shards.iter()).await? {
            self.reschedule(failure.shard, Err(failure.error), pauses);
        }
        for shard in self.ready(shards.iter()) {
            self.start(&shard, Work::Read(Until::Forever));
        }
        Ok(())
    }

    fn reschedule(&self, shard: ShardId, end: Result<Outcome, ShardError>, pauses: &mut BTreeMap<ShardId, Pause>) {
        let Err(error) = end else {
            pauses.remove(&shard);
            return;
        };
        let last = pauses.get(&shard).map_or(self.settings.poll, |pause| pause.length);
        let length = (last * 2).min(LONGEST_PAUSE);
        tracing::error!(%shard, %error, again_in_s = length.as_secs(), "the shard has stopped where it is");
        pauses.insert(shard, Pause { length, over_at: self.ports.clock.monotonic() + length });
    }

    /// The shards that may start now.
    fn ready<'s>(&self, shards: impl Iterator<Item = &'s Shard>) -> Vec<ShardId> {
        if self.shutdown.graceful.is_cancelled() {
            return Vec::new();
        }
        let startable = startable(shards, &self.rows, &self.busy, self.ports.leases.sole_worker());
        startable.map(|shard| shard.id.clone()).collect()
    }

    async fn look_at_rows(&mut self) -> Result<(), LeaseError> {
        let rows = self.ports.leases.list().await?;
        self.rows = rows.into_iter().map(|row| (row.shard.clone(), row)).collect();
        Ok(())
    }

    async fn look_at_row(&mut self, shard: &ShardId) -> Result<(), LeaseError> {
        if let Some(row) = self.ports.leases.get(shard).await? {
            self.rows.insert(shard.clone(), row);
        }
        Ok(())
    }

    /// Makes the rows that are missing; the shards whose manifests don't tell where to go on.
    async fn make_rows(&mut self, shards: impl Iterator<Item = &Shard>) -> Result<Vec<ShardFailure>, WorkerError> {
        let mut failures = Vec::new();
        for shard in shards {
            if self.rows.contains_key(&shard.id) {
                continue;
            }
            match self.make_row(shard).await {
                Ok(row) => {
                    self.rows.insert(shard.id.clone(), row);
                }
                Err(ShardError::Lease(error)) => return Err(error.into()),
                Err(error) => failures.push(ShardFailure { shard: shard.id.clone(), error }),
            }
        }
        Ok(failures)
    }

    /// A row for a shard that has none. The archive is the authority: where manifests of the shard stand there, it goes
    /// on from the newest of them.
    async fn make_row(&self, shard: &Shard) -> Result<LeaseRow, ShardError> {
        let (archive, archive_id) = (self.ports.archive.as_ref(), self.settings.archive_id);
        let row = match chain::newest_manifest(archive, archive_id, &shard.id).await? {
            Some(newest) => newest.lease_row(),
            None => LeaseRow::new(shard.id.clone(), shard.parents.clone()),
        };
        match self.ports.leases.create(&row).await {
            Ok(()) => Ok(row),
            // Another worker was faster; its row is as good.
            Err(LeaseError::Conflict { .. }) => Ok(self.ports.leases.get(&shard.id).await?.unwrap_or(row)),
            Err(error) => Err(error.into()),
        }
    }

    fn start(&mut self, shard: &ShardId, work: Work) {
        let Some(row) = self.rows.get(shard).cloned() else { return };
        let (ports, settings) = (self.ports.clone(), self.settings.clone());
        let (shutdown, totals, turns) = (self.shutdown.clone(), self.totals.clone(), self.turns.clone());
        let task = self.tasks.spawn(async move {
            let turn = tokio::select! {
                turn = Turn::first(turns) => turn,
                () = shutdown.graceful.cancelled() => return Ok(Outcome::Stopped { caught_up: false }),
            };
            let take = || Lease::take(ports.leases.clone(), row.clone(), &settings.worker);
            let taken = retry(settings.retry, ports.clock.as_ref(), &shutdown.abort, LeaseError::may_pass, take);
            let lease = taken.await?;
            match work {
                Work::Read(until) => ShardTask { ports, settings, shutdown, totals, lease, until, turn }.run().await,
                Work::RecordLoss => {
                    let until = Until::Forever;
                    ShardTask { ports, settings, shutdown, totals, lease, until, turn }.record_loss().await
                }
            }
        });
        self.running.insert(task.id(), shard.clone());
        self.busy.insert(shard.clone());
    }

    /// Waits for a task to end; `None` where none runs.
    async fn next_end(&mut self) -> Option<TaskEnd> {
        let (id, end) = match self.tasks.join_next_with_id().await? {
            Ok((id, end)) => (id, end),
            Err(panic) => (panic.id(), Err(ShardError::Panic(panic.to_string()))),
        };
        let shard = self.running.remove(&id).expect("every task was entered when it was started");
        self.busy.remove(&shard);
        Some((shard, end))
    }

    /// Shards that the source no longer has, though they were known to hold more than was archived.
    fn lost_shards(&self, shards: &BTreeMap<ShardId, Shard>) -> Vec<ShardId> {
        // Of a row that was made from the archive and not read from since, nothing is known.
        let unknown = |row: &LeaseRow| row.remade_at == Some(row.batch_seq);
        let lost = |row: &&LeaseRow| !(row.caught_up || row.ended || row.pending.is_some() || unknown(row));
        let gone = self.rows.values().filter(|row| !shards.contains_key(&row.shard));
        gone.filter(lost).map(|row| row.shard.clone()).collect()
    }

    /// A batch can be under way in a shard that the source no longer has: it can't be finished, and that is no success.
    fn lost_batches(&self, shards: &BTreeMap<ShardId, Shard>) -> Vec<ShardFailure> {
        let lost = self.rows.values().filter(|row| !shards.contains_key(&row.shard));
        let failure = |row: &LeaseRow| {
            let error = ShardError::BatchLost(row.pending.as_ref()?.range.to_string());
            Some(ShardFailure { shard: row.shard.clone(), error })
        };
        lost.filter_map(failure).collect()
    }
}

/// What a task is started for.
enum Work {
    /// To read the shard and archive it.
    Read(Until),
    /// To write down that the source no longer has it.
    RecordLoss,
}

/// When a shard that stopped may start again.
struct Pause {
    length: Duration,
    over_at: Duration,
}

impl Summary {
    fn record(&mut self, shard: ShardId, end: Result<Outcome, ShardError>) {
        match end {
            Ok(outcome) => {
                self.shards += 1;
                self.stopped |= matches!(outcome, Outcome::Stopped { .. });
            }
            Err(error) => self.failures.push(ShardFailure { shard, error }),
        }
    }
}
