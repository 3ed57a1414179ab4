//! The worker: finds shards, takes its share of their leases, starts their tasks, and sees them end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{Id, JoinSet};
use tracing::Instrument as _;

use super::board::{Look, SeenShard, StoppedShard};
use super::outcome::Outcome;
use super::rows::{Behind, Rows};
use super::start::{Start, Work};
use super::{Settings, ShardError, ShardFailure, Shutdown, Totals};
use crate::app::Ports;
use crate::archive::ArchiveError;
use crate::lease::{LeaseError, ask_for};
use crate::ops::retry::retry;
use crate::ops::telemetry::Complaint;
use crate::source::{Shard, ShardId, SourceError, Until};

/// The longest pause before a shard that stopped with an error is started again.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// How long a worker may take to leave things as they are, once its grace is over: a call may never be answered.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Why the worker could not look after its shards.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The shards could not be listed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The lease rows could not be read or made.
    #[error("{}{}", away(.0), .0)]
    Lease(#[from] LeaseError),
    /// The archive could not be asked whether it is new.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The tables that all shards share are gone, or were made anew. Whoever starts anew goes on from the archive.
    #[error("{0}; start it again")]
    StateLost(String),
}

/// What an error that may pass means for the whole worker.
fn away(error: &LeaseError) -> &'static str {
    if error.may_pass() { "the state can't be reached: " } else { "" }
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
    rows: Rows,
    /// Shards that stopped with an error, and when they may start again.
    pauses: BTreeMap<ShardId, Pause>,
    /// Since when another worker has more than its share.
    uneven_since: Option<Duration>,
    /// The leases that were asked for and have not come yet.
    asked: BTreeSet<ShardId>,
}

type TaskEnd = (ShardId, Result<Outcome, ShardError>);

impl Worker {
    /// A worker that has started nothing yet.
    pub fn new(ports: Ports, settings: Settings, shutdown: Shutdown, totals: Arc<Totals>) -> Self {
        let settings = Arc::new(settings);
        Self {
            turns: Arc::new(Semaphore::new(settings.concurrency.min(Semaphore::MAX_PERMITS))),
            rows: Rows::new(ports.clone(), settings.clone()),
            ports,
            settings,
            shutdown,
            totals,
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
            busy: BTreeSet::new(),
            pauses: BTreeMap::new(),
            uneven_since: None,
            asked: BTreeSet::new(),
        }
    }

    /// Archives `shards` up to where each ended when it was listed, then returns. A shard that stops with an error holds
    /// up none but its children. What other workers hold is asked for, and given back at the end.
    pub async fn catch_up(mut self, shards: Vec<Shard>) -> Result<Summary, WorkerError> {
        let mut summary = Summary::default();
        let too_late = self.too_late();
        tokio::select! {
            biased;
            done = self.read_up_to(shards, &mut summary) => done?,
            () = too_late => summary.stopped = true,
        }
        Ok(summary)
    }

    async fn read_up_to(&mut self, shards: Vec<Shard>, summary: &mut Summary) -> Result<(), WorkerError> {
        let mut left: BTreeMap<ShardId, Shard> = shards.iter().map(|shard| (shard.id.clone(), shard.clone())).collect();
        self.look_patiently().await?;
        summary.failures.extend(self.rows.lost_batches(&shards, &self.busy));
        for lost in self.rows.lost_shards(&shards, &self.busy) {
            if !self.ports.source.has(&lost).await? {
                self.start(&lost, Work::RecordLoss);
            }
        }
        loop {
            let graceful = self.shutdown.graceful.clone();
            tokio::select! {
                biased;
                // Whatever hangs here must not hold up the end.
                () = graceful.cancelled() => {}
                done = self.look_after_left(&shards, &mut left, summary) => done?,
            }
            if self.tasks.is_empty() && (self.asked.is_empty() || self.shutdown.graceful.is_cancelled()) {
                break;
            }
            let Some((shard, end)) = self.next_event().await else { continue };
            if self.rows.look_at(&shard).await.is_err() {
                self.rows.distrust();
            }
            match end {
                // Another worker has it; it is asked for.
                Ok(Outcome::NotTaken | Outcome::Lost { .. }) => {
                    let again = shards.iter().find(|listed| listed.id == shard);
                    left.extend(again.map(|listed| (shard, listed.clone())));
                }
                end => summary.record(shard, end),
            }
        }
        let ended = left.keys().filter(|shard| self.rows.has_ended(&shards, shard)).count();
        summary.shards += ended as u64;
        summary.stopped |= ended < left.len() || self.shutdown.graceful.is_cancelled();
        Ok(())
    }

    /// Looks at the rows for as long as a step may be tried again.
    async fn look_patiently(&mut self) -> Result<(), LeaseError> {
        let (policy, clock, graceful) = (self.settings.retry, self.ports.clock.clone(), &self.shutdown.graceful);
        let rows = tokio::sync::Mutex::new(&mut self.rows);
        let look = || async { rows.lock().await.look().await };
        retry(policy, clock.as_ref(), graceful, LeaseError::may_pass, look).await
    }

    /// Returns once the grace is over and all tasks should have ended.
    fn too_late(&self) -> impl Future<Output = ()> + use<> {
        let (clock, abort) = (self.ports.clock.clone(), self.shutdown.abort.clone());
        async move {
            abort.cancelled().await;
            clock.sleep(LAST_MOMENT).await;
            tracing::warn!("a call is still without an answer; it is left alone");
        }
    }

    /// Starts and asks for what it can of what is left.
    async fn look_after_left(
        &mut self,
        shards: &[Shard],
        left: &mut BTreeMap<ShardId, Shard>,
        summary: &mut Summary,
    ) -> Result<(), WorkerError> {
        self.look_patiently().await?;
        if self.look_at_asked().await.is_err() {
            self.rows.distrust();
        }
        for failure in self.rows.make(shards, &failed(summary)).await? {
            left.remove(&failure.shard);
            summary.failures.push(failure);
        }
        self.start_left(shards, left, summary).await?;
        self.ask_for_left(shards, left).await;
        Ok(())
    }

    async fn start_left(
        &mut self,
        shards: &[Shard],
        left: &mut BTreeMap<ShardId, Shard>,
        summary: &mut Summary,
    ) -> Result<(), WorkerError> {
        let resting = BTreeSet::new();
        let view = self.rows.view(shards, &self.busy, &resting);
        let ready: Vec<ShardId> =
            view.startable().into_iter().filter(|shard| left.contains_key(*shard)).cloned().collect();
        let behind = self.rows.look_behind(&ready).await?;
        for failure in behind.failures {
            left.remove(&failure.shard);
            summary.failures.push(failure);
        }
        let ready = ready.iter().filter(|shard| !behind.outdated.contains(shard));
        for shard in ready.filter_map(|shard| left.remove(shard)) {
            self.start(&shard.id, Work::Read(Until::Target(shard.end)));
        }
        Ok(())
    }

    /// Asks for what others hold of what is left.
    async fn ask_for_left(&mut self, shards: &[Shard], left: &BTreeMap<ShardId, Shard>) {
        if self.shutdown.graceful.is_cancelled() {
            return;
        }
        let resting = BTreeSet::new();
        let view = self.rows.view(shards, &self.busy, &resting);
        let held = view.held_by_others().into_iter().filter(|shard| left.contains_key(*shard));
        self.asked = held.cloned().collect();
        for shard in self.asked.clone() {
            self.ask_for(&shard).await;
        }
    }

    /// Looks at the rows that were asked for.
    async fn look_at_asked(&mut self) -> Result<(), LeaseError> {
        for asked in std::mem::take(&mut self.asked) {
            self.rows.look_at(&asked).await?;
            if self.rows.is_on_its_way(&asked) {
                self.asked.insert(asked);
            }
        }
        Ok(())
    }

    /// Reads every shard there is and every one that appears, until it is told to stop. A shard that stops with an error
    /// is tried again, after pauses that grow to five minutes. [`WorkerError::StateLost`] is the only error: what was read
    /// and not committed is read again.
    pub async fn run(mut self) -> Result<Summary, WorkerError> {
        let mut summary = Summary { stopped: true, ..Summary::default() };
        let (graceful, too_late) = (self.shutdown.graceful.clone(), self.too_late());
        let lost = tokio::select! {
            biased;
            () = graceful.cancelled() => None,
            lost = self.look_on() => Some(lost),
        };
        // Without their rows, or their claims, the tasks can commit nothing: they end by themselves.
        graceful.cancel();
        let ends = async {
            while let Some((shard, end)) = self.next_end().await {
                summary.record(shard, end);
            }
        };
        tokio::select! {
            biased;
            () = ends => {}
            () = too_late => {}
        }
        lost.map_or(Ok(summary), Err)
    }

    /// Looks after the shards until it is dropped, or there is nothing left to look after them with.
    async fn look_on(&mut self) -> WorkerError {
        let mut complaint = Complaint::default();
        loop {
            self.totals.board.turn(self.ports.clock.monotonic());
            match self.look_after_shards().await {
                Ok(()) => complaint.clear(),
                Err(WorkerError::Lease(LeaseError::Lost { reason })) => return WorkerError::StateLost(reason),
                Err(error) => {
                    self.totals.board.could_not_look(self.ports.clock.monotonic(), &error);
                    // An outage of minutes is told when it begins, and then once a minute.
                    if complaint.is_due(self.ports.clock.monotonic()) {
                        tracing::error!(%error, "shards can't be looked after; trying again");
                    }
                    self.rows.distrust();
                }
            }
            if let Some((shard, end)) = self.next_event().await {
                if let Err(error) = self.rows.look_at(&shard).await {
                    tracing::warn!(%shard, %error, "the lease row can't be looked at");
                    self.rows.distrust();
                }
                match end {
                    Err(error) if error.is_loss_of_state() => return WorkerError::StateLost(error.to_string()),
                    end => self.reschedule(shard, end),
                }
            }
        }
    }

    /// Waits for a task's end, or for the time to look again.
    async fn next_event(&mut self) -> Option<TaskEnd> {
        let (clock, poll) = (self.ports.clock.clone(), self.settings.poll);
        tokio::select! {
            biased;
            Some(end) = self.next_end() => Some(end),
            () = clock.sleep(poll) => None,
        }
    }

    async fn look_after_shards(&mut self) -> Result<(), WorkerError> {
        let now = self.ports.clock.monotonic();
        let shards = self.ports.source.shards().await?;
        self.rows.look().await?;
        self.look_at_asked().await?;
        let resting: BTreeSet<ShardId> =
            self.pauses.iter().filter(|(_, pause)| pause.over_at > now).map(|(shard, _)| shard.clone()).collect();
        for lost in self.rows.lost_shards(&shards, &self.busy) {
            let is_mine_to_tell = !resting.contains(&lost) && !self.busy.contains(&lost);
            if is_mine_to_tell && !self.ports.source.has(&lost).await? {
                self.start(&lost, Work::RecordLoss);
            }
        }
        for failure in self.rows.lost_batches(&shards, &self.busy) {
            if !resting.contains(&failure.shard) {
                self.reschedule(failure.shard, Err(failure.error));
            }
        }
        for failure in self.rows.make(&shards, &resting).await? {
            self.reschedule(failure.shard, Err(failure.error));
        }
        let view = self.rows.view(&shards, &self.busy, &resting);
        let is_patient =
            |since: Option<Duration>| since.is_none_or(|since| now.saturating_sub(since) < self.settings.failover);
        let plan = view.plan(is_patient(self.uneven_since));
        self.uneven_since = view.is_uneven().then(|| self.uneven_since.unwrap_or(now));
        let me = &self.settings.worker;
        self.totals.board.looked(
            now,
            me,
            Look { shards: self.rows.seen().map(SeenShard::of).collect(), unowned: view.unowned() },
        );
        let Behind { failures, outdated: mut not_now } = self.rows.look_behind(&plan.take).await?;
        for failure in failures {
            not_now.insert(failure.shard.clone());
            self.reschedule(failure.shard, Err(failure.error));
        }
        for shard in plan.take.into_iter().filter(|shard| !not_now.contains(shard)) {
            self.start(&shard, Work::Read(Until::Forever));
        }
        if let Some(shard) = plan.ask_for {
            self.ask_for(&shard).await;
        }
        for shard in plan.forget {
            self.rows.forget(&shard).await?;
        }
        Ok(())
    }

    /// Asks the owner of a lease for it. Should that not succeed, the next look at the rows tells what became of it.
    async fn ask_for(&mut self, shard: &ShardId) {
        let Some(row) = self.rows.get(shard).cloned() else { return };
        let me = &self.settings.worker;
        self.asked.insert(shard.clone());
        // Whoever asked first gets it first: two that ask in each other's place would keep a dead owner's row moving. And
        // where there is no owner, there is nobody to ask.
        if row.wanted_by.is_some() || row.owner.is_none() {
            return;
        }
        let owner = row.owner.as_ref().map_or("nobody", |owner| owner.as_str());
        match ask_for(self.ports.leases.as_ref(), &row, me).await {
            Ok(()) => tracing::info!(%shard, owner, "asked for the lease"),
            Err(error) => tracing::debug!(%shard, %error, "the lease could not be asked for"),
        }
        if let Err(error) = self.rows.look_at(shard).await {
            tracing::debug!(%shard, %error, "the lease row can't be looked at");
        }
    }

    fn reschedule(&mut self, shard: ShardId, end: Result<Outcome, ShardError>) {
        let error = match end {
            Ok(outcome) => {
                // Another worker's try tells nothing: two of them would hand a shard that can't go on to and fro.
                if !matches!(outcome, Outcome::NotTaken | Outcome::Lost { .. }) {
                    self.pauses.remove(&shard);
                }
                self.totals.board.recovered(&shard);
                return;
            }
            Err(error) => error,
        };
        let last = self.pauses.get(&shard).map_or(self.settings.poll, |pause| pause.length);
        let length = (last * 2).min(LONGEST_PAUSE);
        let row = self.rows.get(&shard);
        let checkpoint = row.map(|row| row.checkpoint.to_string());
        tracing::error!(%shard, %error, checkpoint, again_in_s = length.as_secs(), "the shard has stopped where it is");
        let over_at = self.ports.clock.monotonic() + length;
        let stopped = StoppedShard { error: error.to_string(), at: self.ports.clock.now(), again_at: over_at };
        self.totals.board.stopped(&shard, stopped, row.and_then(|row| row.read_through));
        self.pauses.insert(shard, Pause { length, over_at });
    }

    fn start(&mut self, shard: &ShardId, work: Work) {
        let Some(row) = self.rows.get(shard).cloned() else { return };
        let parents = row.parents.iter().map(|parent| (parent.clone(), self.rows.get(parent).cloned())).collect();
        let start = Start {
            ports: self.ports.clone(),
            settings: self.settings.clone(),
            shutdown: self.shutdown.clone(),
            totals: self.totals.clone(),
            row,
            parents,
            work,
        };
        let turns = self.turns.clone();
        // Each line that is logged on the way names the shard, whoever logs it. Of the highest level, so that no filter
        // takes the name away from a line that it lets pass.
        let span = tracing::error_span!("task", %shard);
        let task = self.tasks.spawn(start.run(turns).instrument(span));
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
}

fn failed(summary: &Summary) -> BTreeSet<ShardId> {
    summary.failures.iter().map(|failure| failure.shard.clone()).collect()
}

/// When a shard that stopped may start again.
struct Pause {
    length: Duration,
    over_at: Duration,
}

impl Summary {
    fn record(&mut self, shard: ShardId, end: Result<Outcome, ShardError>) {
        match end {
            Ok(Outcome::NotTaken | Outcome::Lost { .. }) => {}
            Ok(outcome) => {
                self.shards += 1;
                self.stopped |= matches!(outcome, Outcome::Stopped { .. });
            }
            Err(error) => self.failures.push(ShardFailure { shard, error }),
        }
    }
}
