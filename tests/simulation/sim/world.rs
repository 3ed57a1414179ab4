//! The world: real workers over twins, and the hand that moves them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use auditlake::app::Ports;
use auditlake::archive::{MemoryArchive, identity};
use auditlake::dedupe::memory::MemoryClaims;
use auditlake::encode::{Compression, Format, PartitionKey};
use auditlake::lease::memory::MemoryLeases;
use auditlake::lease::{LeaseRow, LeaseStore as _, WorkerId};
use auditlake::ops::clock::{Clock as _, PausedClock};
use auditlake::ops::identity::random_bytes;
use auditlake::ops::memory::MemoryBudget;
use auditlake::ops::retry::RetryPolicy;
use auditlake::source::ShardId;
use auditlake::source::memory::MemorySource;
use auditlake::worker::{Settings, Shutdown, Summary, Totals, Worker, WorkerError};
use jiff::Timestamp;
use tokio::task::JoinHandle;

use super::faulty::{Faulty, at_once, stream};
use super::log::Log;
use super::operation::Moment;
use super::random::below;
use super::seat::{Life, Seat, Strike};
use super::shared::{Shared, Table};
use super::spooled::{PAGES, Process, Spooled};
use super::{Shape, Stats};
use crate::settings::{ARCHIVE_ID, settings};

/// How many workers there may be, `catch-up` not counted.
pub(crate) const WORKERS: usize = 4;
/// The number of a `catch-up`.
pub(crate) const CATCH_UP: usize = WORKERS;
/// How long the world goes on without a look at it.
const TICK: Duration = Duration::from_secs(1);
/// A worker's grace, and how long it may take beyond it.
pub(crate) const GRACE: Duration = Duration::from_secs(25);
const BEYOND_GRACE: Duration = Duration::from_secs(4);

pub(crate) struct World {
    pub(crate) source: Arc<MemorySource>,
    /// What records come from instead, if they come from a subscription.
    pub(crate) spooled: Option<Spooled>,
    pub(crate) claims: Arc<MemoryClaims>,
    pub(crate) leases: Arc<MemoryLeases>,
    pub(crate) archive: Arc<MemoryArchive>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Log,
    pub(crate) clock: PausedClock,
    pub(crate) configured: Settings,
    places: Vec<Place>,
    /// The accounts of all workers that there were.
    accounts: Vec<(WorkerId, Arc<Totals>, Arc<MemoryBudget>)>,
    /// Rows were lost: what the archive had lost by then, nobody can prove.
    pub(crate) rows_were_lost: bool,
    /// Two others may both have vouched for the spool of one who slept for weeks; until both have moved on, its row is made
    /// anew as a lost one when something is found behind its end.
    pub(crate) slept_for_weeks: bool,
    /// How much time passed at once.
    pub(crate) skipped: Duration,
    pub(crate) stats: Stats,
}

/// Where one worker after the other may be.
#[derive(Default)]
struct Place {
    running: Option<Running>,
    /// When the next one is started, if one is wanted.
    starts_at: Option<Duration>,
    /// How long after a crash that is.
    back_in: Duration,
}

struct Running {
    seat: Arc<Seat>,
    task: JoinHandle<Result<Summary, WorkerError>>,
    shutdown: Shutdown,
    /// For how long it has known that it is to stop.
    stopping_for: Option<Duration>,
}

impl World {
    pub(crate) async fn new(log: Log, shape: Shape) -> Self {
        let base: Timestamp = "2026-11-21T09:31:00Z".parse().expect("it is a time");
        let (archive, clock) = (Arc::new(MemoryArchive::new()), PausedClock::start(base));
        identity::open_or_create(archive.as_ref(), base, || ARCHIVE_ID).await.expect("a twin does not fail");
        let shared = Shared::new(log.clone(), clock, archive.clone());
        shared.state().faults.noise = shape.faults;
        let mut configured = settings();
        configured.limits.window = Duration::from_mins(2);
        configured.poll = Duration::from_secs(2);
        configured.archive_made_at = base;
        let mut world = Self {
            source: stream(),
            spooled: shape.spooled.then(|| Spooled::new(clock)),
            claims: Arc::default(),
            leases: Arc::new(MemoryLeases::shared()),
            archive,
            shared,
            log,
            clock,
            configured,
            places: (0..=CATCH_UP).map(|_| Place::default()).collect(),
            accounts: Vec::new(),
            rows_were_lost: false,
            slept_for_weeks: false,
            skipped: Duration::ZERO,
            stats: Stats::default(),
        };
        for shard in ["a", "b", "c"].map(ShardId::new).into_iter().filter(|_| !shape.spooled) {
            world.add_shard(&shard, Vec::new());
            // They were there long before.
            world.shared.state().born.remove(&shard);
        }
        world
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(crate) fn add_shard(&mut self, shard: &ShardId, parents: Vec<ShardId>) {
        self.source.add_shard(shard, parents.clone());
        let mut state = self.shared.state();
        state.born.insert(shard.clone(), self.clock.monotonic());
        state.ledger.shards.entry(shard.clone()).or_default().parents = parents;
    }

    /// Starts a worker where none is.
    pub(crate) fn start(&mut self, number: usize) {
        if let Some(running) = &self.places[number].running {
            if running.stopping_for.is_some() {
                self.come_back_in(number, Duration::ZERO);
            }
            return;
        }
        self.places[number].starts_at = None;
        let unique: [u8; 2] = random_bytes();
        let worker = WorkerId::new(format!("w{number}-{}", hex(unique)));
        let seat = Arc::new(Seat::new(worker.clone(), number, self.clock));
        let (shared, totals) = (&self.shared, Arc::new(Totals::default()));
        // Who starts makes the tables that are missing.
        let mut state = shared.state();
        if !state.table.exists {
            state.table.exists = true;
        }
        drop(state);
        let ports = Ports {
            source: Arc::new(Faulty::new(&self.source, &seat, shared)),
            claims: Arc::new(Faulty::new(&self.claims, &seat, shared)),
            archive: Arc::new(Faulty::new(&self.archive, &seat, shared)),
            leases: Arc::new(Faulty::new(&self.leases, &seat, shared)),
            clock: seat.clone(),
        };
        let pages = MemoryBudget::new(PAGES);
        let (ports, receiver) = match &self.spooled {
            Some(spooled) => spooled.ports(&seat, shared, &pages, ports),
            None => (ports, None),
        };
        let mut settings = Settings { worker: worker.clone(), ..self.configured.clone() };
        settings.concurrency = if below(2) == 0 { usize::MAX } else { 2 };
        let give_up_after = (number == CATCH_UP).then_some(Duration::from_mins(1));
        settings.retry = RetryPolicy { give_up_after };
        let shutdown = Shutdown::default();
        let (source, clock) = (ports.source.clone(), seat.clone());
        let works = Worker::new(ports, settings, shutdown.clone(), totals.clone());
        let process = Process { source, receiver, clock, shutdown: shutdown.clone(), worker: works };
        let task = launch(process, number == CATCH_UP);
        self.log.add(|| format!("{:?} {worker} starts", self.clock.monotonic()));
        self.accounts.push((worker, totals, pages));
        self.stats.starts += 1;
        self.places[number].running = Some(Running { seat, task, shutdown, stopping_for: None });
    }

    pub(crate) fn seat(&self, number: usize) -> Option<Arc<Seat>> {
        self.places[number].running.as_ref().map(|running| running.seat.clone())
    }

    fn come_back_in(&mut self, number: usize, back_in: Duration) {
        self.places[number].starts_at = Some(self.now() + back_in);
    }

    /// Tells a worker to stop. None comes in its place.
    pub(crate) fn stop(&mut self, number: usize) {
        self.places[number].starts_at = None;
        if let Some(running) = &mut self.places[number].running {
            running.shutdown.graceful.cancel();
            running.stopping_for.get_or_insert(Duration::ZERO);
        }
    }

    pub(crate) fn is_running(&self, number: usize) -> bool {
        self.places[number].running.is_some()
    }

    /// Time passes, and whoever is to be woken, buried or started is.
    pub(crate) async fn advance(&mut self, duration: Duration) {
        let until = self.now() + duration;
        loop {
            let left = until.saturating_sub(self.now());
            if left.is_zero() || self.is_over() {
                return;
            }
            let step = left.min(TICK);
            self.clock.sleep(step).await;
            self.look(step).await;
        }
    }

    /// Whether an invariant is broken.
    pub(crate) fn is_over(&self) -> bool {
        !self.shared.state().judge.violations.is_empty()
    }

    pub(crate) fn violated(&self, what: String) {
        self.shared.state().judge.violated(what);
    }

    async fn look(&mut self, passed: Duration) {
        for number in 0..self.places.len() {
            if let Some(seat) = self.seat(number) {
                self.lapse(&seat);
            }
            self.look_at(number, passed).await;
        }
        for complaint in self.log.take_complaints() {
            self.judge_complaint(&complaint);
        }
    }

    async fn look_at(&mut self, number: usize, passed: Duration) {
        let now = self.now();
        let place = &mut self.places[number];
        let Some(running) = &mut place.running else {
            if place.starts_at.is_some_and(|at| at <= now) {
                self.start(number);
            }
            return;
        };
        running.seat.wake(false);
        let is_dead = running.seat.life() == Life::Dead;
        if is_dead {
            running.task.abort();
        } else if let (Some(stopping), Life::Awake) = (&mut running.stopping_for, running.seat.life()) {
            *stopping += passed;
            if *stopping >= GRACE {
                running.shutdown.abort.cancel();
            }
            if *stopping > GRACE + BEYOND_GRACE {
                let worker = running.seat.worker.clone();
                return self.violated(format!("{worker} was told to stop and goes on behind its grace"));
            }
        }
        if running.task.is_finished() || is_dead {
            let running = place.running.take().expect("it is there");
            let (worker, told) = (running.seat.worker.clone(), running.stopping_for.is_some());
            let end = running.task.await;
            self.log.add(|| format!("{now:?} {worker} is gone"));
            if is_dead {
                self.stats.crashes += 1;
                self.come_back_in(number, self.places[number].back_in);
                // Its tasks go after it, and theirs after them.
                self.clock.sleep(Duration::from_millis(1)).await;
            } else {
                self.judge_end(&worker, number, told, end);
            }
            self.judge_accounts(&worker);
        }
    }

    fn judge_end(
        &mut self,
        worker: &WorkerId,
        number: usize,
        told: bool,
        end: Result<Result<Summary, WorkerError>, tokio::task::JoinError>,
    ) {
        match end {
            Ok(Ok(summary)) => {
                for failure in &summary.failures {
                    self.judge_complaint(&format!("{worker} ended with {failure}"));
                }
                if !told && number != CATCH_UP {
                    self.violated(format!("{worker} ended by itself: {summary:?}"));
                }
            }
            Ok(Err(error)) => {
                self.judge_complaint(&format!("{worker} ended: {error}"));
                if number != CATCH_UP && !told {
                    // Whoever watches over it starts it again.
                    self.come_back_in(number, Duration::from_secs(1 + below(5)));
                }
            }
            Err(panic) => self.violated(format!("{worker} ended: {panic}")),
        }
    }

    /// What the product reports as an error must be somebody else's doing.
    fn judge_complaint(&self, complaint: &str) {
        let state = self.shared.state();
        let is_ours = complaint.contains("simulated") || complaint.contains("has moved on");
        let is_intruder = state.intruders.iter().any(|key| complaint.contains(key));
        let is_loss = complaint.starts_with("records are missing") && state.ledger.has_losses();
        drop(state);
        if !(is_ours || is_intruder || is_loss) {
            self.violated(format!("it complains without reason: {complaint}"));
        }
    }

    /// Invariant 10.
    fn judge_accounts(&mut self, worker: &WorkerId) {
        let Some(place) = self.accounts.iter().position(|(of, ..)| of == worker) else { return };
        let (_, totals, pages) = self.accounts.swap_remove(place);
        let (bytes, batches) = (totals.memory.load(Ordering::Relaxed), totals.open_batches.load(Ordering::Relaxed));
        let read = pages.held();
        if bytes != 0 || batches != 0 || read != 0 {
            self.violated(format!(
                "invariant 10: {worker} is gone and holds {bytes} bytes in {batches} batches, and {read} in pages"
            ));
        }
    }

    /// Everything is well from now on: no faults, nobody asleep, nothing in the way.
    pub(crate) fn heal(&mut self) {
        for place in &mut self.places {
            if let Some(running) = &place.running {
                running.seat.disarm();
                running.seat.set_right();
                running.seat.wake(true);
            }
        }
        let mut state = self.shared.state();
        state.faults.heal();
        state.to_intrude.clear();
        for key in state.intruders.clone() {
            if state.judge.is_intruder(&key) {
                self.archive.remove(&key);
                state.judge.taken_away(&key);
            }
        }
    }

    /// The lease rows that stand.
    pub(crate) fn rows(&self) -> BTreeMap<ShardId, LeaseRow> {
        let rows = at_once(self.leases.list()).expect("a twin does not fail");
        rows.into_iter().map(|row| (row.shard.clone(), row)).collect()
    }

    pub(crate) fn lose_leases(&mut self, table: bool) {
        self.leases.lose_all();
        // What was sent to the table that was lost does nothing to the next.
        let mut state = self.shared.state();
        state.table = Table { exists: !table, number: state.table.number + 1, lost_at: self.clock.monotonic() };
        drop(state);
        self.rows_were_lost = true;
    }

    /// Strikes a worker, if there is one; after a crash the next one comes `back_in` later.
    pub(crate) fn strike(&mut self, number: usize, strike: Strike, at: Moment, back_in: Duration) {
        if let Some(seat) = self.seat(number) {
            self.places[number].back_in = back_in;
            seat.strike(strike, at);
        }
    }

    /// What it came to, and what was broken.
    pub(crate) fn finish(mut self) -> (Stats, Vec<String>) {
        let state = self.shared.state();
        self.stats.seeds = 1;
        self.stats.simulated = self.clock.monotonic().saturating_sub(self.skipped);
        self.stats.faults = state.faults.injected;
        self.stats.records = state.ledger.records;
        self.stats.batches = state.judge.chains.values().map(|chain| chain.next).sum();
        (self.stats, state.judge.violations.clone())
    }

    /// What workers are told from now on.
    pub(crate) fn configure(&mut self, layout: u8, window: u8, records: u8) {
        let (format, compression) = match layout % 3 {
            0 => (Format::Ndjson, Compression::None),
            1 => (Format::Ndjson, Compression::Gzip),
            _ => (Format::Parquet, Compression::Snappy),
        };
        let partition_by =
            if layout.is_multiple_of(2) { vec![PartitionKey::Dt] } else { vec![PartitionKey::Dt, PartitionKey::Hour] };
        self.configured.layout.format = format;
        self.configured.layout.compression = compression;
        self.configured.layout.partition_by = partition_by;
        self.configured.limits.window = Duration::from_secs([60, 120, 300][usize::from(window) % 3]);
        self.configured.limits.max_records = [5, 30, 1_000_000][usize::from(records) % 3];
        if let Some(spooled) = &mut self.spooled {
            spooled.options.cut.max_messages = [2, 10, 1000][usize::from(records) % 3];
            spooled.options.seal_after = Duration::from_secs([10, 30, 60][usize::from(window) % 3]);
        }
    }
}

#[allow(clippy::disallowed_methods)] // a worker is a task of the simulation, as it is a process elsewhere
fn launch(process: Process, is_catch_up: bool) -> JoinHandle<Result<Summary, WorkerError>> {
    tokio::spawn(async move { if is_catch_up { process.catch_up().await } else { process.run().await } })
}

fn hex(bytes: [u8; 2]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
