//! Worlds whose records come from a subscription, by way of spools.

use std::sync::Arc;
use std::time::Duration;

use auditlake::app::Ports;
use auditlake::archive::MemoryArchive;
use auditlake::ops::clock::{Clock, PausedClock};
use auditlake::ops::memory::MemoryBudget;
use auditlake::source::pubsub::memory::{MemorySubscription, look_into};
use auditlake::source::pubsub::{Cut, PubsubOptions, PubsubSource, ReceiveError, Receiver};
use auditlake::source::{ShardId, Source, SourceError};
use auditlake::worker::{Shutdown, Summary, Worker, WorkerError};

use super::faulty::{Faulty, Spools, Watched, all_objects};
use super::operation::{Content, Moment};
use super::random::{below, once_in};
use super::seat::{Life, Seat, Strike};
use super::shared::Shared;
use super::world::{CATCH_UP, GRACE, WORKERS, World};

/// A worker that stands still lets deadlines pass after this long: its client asked for as much last.
const DEADLINE: Duration = Duration::from_mins(1);
/// For how long nothing must come to whoever catches up. Longer than messages stay away whose receiver is gone.
const DRAIN_IDLE: Duration = Duration::from_secs(20);
/// What the readers of a process may hold together.
pub(crate) const PAGES: u64 = 1 << 20;
/// Longer than seals are kept.
const AGE: Duration = Duration::from_hours(41 * 24);

/// What the records of a world come from.
pub(crate) struct Spooled {
    pub(crate) subscription: Arc<MemorySubscription>,
    pub(crate) store: Arc<MemoryArchive>,
    pub(crate) options: PubsubOptions,
}

impl Spooled {
    pub(crate) fn new(clock: PausedClock) -> Self {
        let subscription = MemorySubscription::new(Arc::new(clock));
        if below(2) == 0 {
            subscription.with_exactly_once();
        }
        let cut = Cut { flush_interval: Duration::from_secs(5), max_bytes: 1 << 20, max_messages: 1000 };
        let options = PubsubOptions { cut, seal_after: Duration::from_secs(30) };
        Self { subscription: Arc::new(subscription), store: Arc::default(), options }
    }

    /// How a process reaches it.
    fn open(&self, seat: &Arc<Seat>, shared: &Arc<Shared>, pages: &Arc<MemoryBudget>) -> PubsubSource {
        let store = Arc::new(Spools(self.store.clone()));
        let store = Arc::new(Faulty::new(&store, seat, shared));
        PubsubSource::new(store, self.options, seat.clone(), pages.clone())
    }

    /// The ports of a process, with the spools for a source; and what receives into them.
    pub(crate) fn ports(
        &self,
        seat: &Arc<Seat>,
        shared: &Arc<Shared>,
        pages: &Arc<MemoryBudget>,
        ports: Ports,
    ) -> (Ports, Option<Receiver>) {
        let spools = self.open(seat, shared, pages);
        let receiver = spools.receiver(Arc::new(Faulty::new(&self.subscription, seat, shared)), ports.leases.clone());
        (Ports { source: Arc::new(Watched { spools, shared: shared.clone() }), ..ports }, Some(receiver))
    }
}

/// A worker on a source: the stream, or spools with their receiver.
pub(crate) struct Process {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) receiver: Option<Receiver>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) shutdown: Shutdown,
    pub(crate) worker: Worker,
}

fn not_received(error: &ReceiveError) -> WorkerError {
    SourceError::Unavailable { shard: ShardId::new("*"), reason: error.to_string() }.into()
}

impl Process {
    /// What the daemon does.
    pub(crate) async fn run(self) -> Result<Summary, WorkerError> {
        let Some(receiver) = self.receiver else { return self.worker.run().await };
        let Shutdown { graceful, abort } = &self.shutdown;
        // Where the worker ends by itself, its receiver is not waited for any longer than at a stop.
        let late = async {
            graceful.cancelled().await;
            self.clock.sleep(GRACE).await;
            abort.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            (summary, ()) = async { tokio::join!(self.worker.run(), receiver.run(graceful, abort)) } => summary,
            () = late => unreachable!("never returns"),
        }
    }

    /// What `catch-up` does.
    pub(crate) async fn catch_up(self) -> Result<Summary, WorkerError> {
        if let Some(receiver) = &self.receiver {
            let Shutdown { graceful, abort } = &self.shutdown;
            receiver.drain(DRAIN_IDLE, graceful, abort).await.map_err(|error| not_received(&error))?;
            receiver.tidy().await?;
        }
        let summary = tokio::select! {
            biased;
            () = self.shutdown.graceful.cancelled() => return Ok(Summary { stopped: true, ..Summary::default() }),
            shards = self.source.shards() => self.worker.catch_up(shards?).await?,
        };
        if let Some(receiver) = &self.receiver {
            receiver.tidy().await?;
        }
        Ok(summary)
    }
}

impl World {
    /// Publishes messages, where records come from a subscription; whether they do.
    pub(crate) fn publish(&self, messages: &[Vec<Content>]) -> bool {
        let Some(spooled) = &self.spooled else { return false };
        let mut state = self.shared.state();
        for contents in messages {
            let written = state.ledger.write(contents);
            let id = spooled.subscription.publish(written.body.clone());
            state.ledger.publish(id.to_string(), written);
        }
        true
    }

    /// Lets messages come again: one that somebody has, one that was acknowledged.
    pub(crate) fn redeliver(&self, message: usize) {
        let Some(spooled) = &self.spooled else { return };
        let published = self.shared.state().ledger.published();
        let of = |ids: &[String]| (!ids.is_empty()).then(|| ids[message % ids.len()].clone());
        if let Some(id) = of(&spooled.subscription.waiting()) {
            spooled.subscription.lapse(&id);
        }
        if let Some(id) = of(&published)
            && !spooled.subscription.is_exactly_once()
        {
            spooled.subscription.bring_back(&id);
        }
    }

    /// Who stands still lets the deadlines of its messages pass, and who is gone has none any more. Now and then one comes
    /// again for no reason.
    pub(crate) fn lapse(&self, seat: &Seat) {
        let Some(spooled) = &self.spooled else { return };
        let lapses = match seat.life() {
            Life::Awake if self.shared.state().faults.noise && once_in(100) => seat.last_given().into_iter().collect(),
            Life::AsleepUntil(_) if seat.still_for() >= DEADLINE => seat.let_go(),
            Life::Dead => seat.let_go(),
            _ => Vec::new(),
        };
        for id in lapses {
            spooled.subscription.lapse(&id);
        }
    }

    /// Everybody is gone but one, who stands still for longer than seals are kept. Others come back minutes before it wakes.
    pub(crate) async fn age(&mut self, sleeper: usize) {
        if self.spooled.is_none() || self.seat(sleeper).is_none() {
            return;
        }
        // Who sleeps on finds gone even the row that vouched for its spool, and rows are made anew as lost ones.
        self.rows_were_lost |= !self.skipped.is_zero();
        self.slept_for_weeks = true;
        let (others, rest) = (Duration::from_mins(4), Duration::from_mins(4));
        self.strike(sleeper, Strike::Freeze(others + AGE + rest), Moment::Now, Duration::ZERO);
        // The others end what it has begun.
        self.start((sleeper + 1) % WORKERS);
        self.advance(others).await;
        for number in (0..=CATCH_UP).filter(|number| *number != sleeper) {
            self.stop(number);
            self.strike(number, Strike::Crash, Moment::Now, Duration::ZERO);
        }
        self.advance(Duration::from_secs(1)).await;
        self.clock.sleep(AGE).await;
        self.skipped += AGE;
        self.start((sleeper + 1) % WORKERS);
        // Long enough for its seals to be found and removed.
        self.advance(rest / 2).await;
    }

    /// The messages that are not acknowledged.
    pub(crate) fn unacknowledged(&self) -> Vec<String> {
        self.spooled.as_ref().map(|spooled| spooled.subscription.waiting()).unwrap_or_default()
    }

    /// When all is archived, nothing stands in the spools but seals.
    pub(crate) fn judge_spools(&self) {
        let Some(spooled) = &self.spooled else { return };
        let left = self.unacknowledged();
        if !left.is_empty() {
            self.violated(format!("invariant 12: catch-up ended, and these messages are not acknowledged: {left:?}"));
        }
        for (key, body) in all_objects(&spooled.store, "") {
            if !look_into(&key, &body).is_ok_and(|found| found.is_seal) {
                self.violated(format!("invariant 12: {key} is left in its spool"));
            }
        }
    }
}
