//! The loop that receives: messages into segments, and acknowledged once their segment is durable.
//!
//! | step | durable once done | a crash behind it |
//! |---|---|---|
//! | receive | nothing | the message comes again when its deadline is over |
//! | put the segment | the messages | they come again too, in another spool: their records are duplicates there |
//! | acknowledge | that they don't come again | |

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::gathering::Gathering;
use super::segment::Message;
use super::spool::{Appended, SpoolWriter};
use super::subscriber::{
    ACKNOWLEDGE_AT_THE_END_WITHIN, ACKNOWLEDGE_WITHIN, Received, Subscriber, Subscription, SubscriptionError,
};
use super::{Counters, Shared};
use crate::archive::ArchiveError;
use crate::ops::clock::Clock;
use crate::ops::planted::{Bug, planted};
use crate::ops::telemetry::Complaint;

/// A message that has been delivered all but so many times as it may be is told.
const NEAR_DEAD_LETTER: u32 = 2;

/// Why receiving stopped before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The subscription gives nothing.
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    /// The spool does not take what was received; it comes again.
    #[error("the spool: {0}")]
    Spool(#[from] ArchiveError),
}

/// Receives until it is told to stop, or nothing comes any more.
pub(super) struct Receiving {
    shared: Arc<Shared>,
    subscription: Subscription,
    subscriber: Box<dyn Subscriber>,
    /// None while a segment is being put, and as long as nothing has been.
    spool: Option<SpoolWriter>,
    gathering: Gathering<Received>,
    /// The segment that is being put: one at a time.
    landing: JoinSet<Landed>,
    acknowledging: JoinSet<()>,
    /// When the last message came.
    last: Duration,
    near_dead_letter: Complaint,
}

/// A segment that has been put, or could not be.
struct Landed {
    spool: SpoolWriter,
    messages: Vec<Received>,
    put: Result<(), ArchiveError>,
}

impl Receiving {
    pub(super) fn new(shared: Arc<Shared>, subscription: Subscription, subscriber: Box<dyn Subscriber>) -> Self {
        Self {
            last: shared.clock.monotonic(),
            shared,
            subscription,
            subscriber,
            spool: None,
            gathering: Gathering::default(),
            landing: JoinSet::new(),
            acknowledging: JoinSet::new(),
            near_dead_letter: Complaint::default(),
        }
    }

    /// Receives until `stop`, or until nothing has come for as long as `idle` says. What has come by then is put and
    /// acknowledged, and the spool ended, unless `abort` comes before.
    pub(super) async fn run(
        mut self,
        idle: Option<Duration>,
        stop: &CancellationToken,
        abort: &CancellationToken,
    ) -> Result<(), ReceiveError> {
        let received = self.receive(idle, stop, abort).await;
        self.subscriber.stop();
        if matches!(received, Err(ReceiveError::Spool(_))) {
            return received;
        }
        tokio::select! {
            biased;
            () = abort.cancelled() => received,
            finished = self.finish(abort) => received.and(finished),
        }
    }

    async fn receive(
        &mut self,
        idle: Option<Duration>,
        stop: &CancellationToken,
        abort: &CancellationToken,
    ) -> Result<(), ReceiveError> {
        let (clock, cut) = (self.shared.clock.clone(), self.shared.options.cut);
        loop {
            let now = clock.monotonic();
            let due = self.gathering.due_in(cut, now).filter(|_| self.landing.is_empty());
            if due == Some(Duration::ZERO) {
                self.land(abort);
            }
            let left = idle.filter(|_| self.is_empty()).map(|idle| (self.last + idle).saturating_sub(now));
            if left == Some(Duration::ZERO) {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(landed) = self.landing.join_next() => self.landed(landed.expect("a put does not panic"))?,
                Some(_) = self.acknowledging.join_next() => {}
                received = self.subscriber.next(), if !self.gathering.is_full(cut) => self.take(received?),
                () = rest(clock.as_ref(), due.or(left)) => {}
            }
        }
    }

    /// Whether all that came is put and acknowledged.
    fn is_empty(&self) -> bool {
        self.gathering.is_empty() && self.landing.is_empty() && self.acknowledging.is_empty()
    }

    fn take(&mut self, received: Received) {
        let (now, message) = (self.shared.clock.monotonic(), &received.message);
        let (bytes, counters) = (message.data.len() as u64, &self.shared.counters);
        counters.received.fetch_add(1, Ordering::Relaxed);
        counters.received_bytes.fetch_add(bytes, Ordering::Relaxed);
        if let (Some(attempt), Some(most)) = (message.delivery_attempt, self.subscription.max_delivery_attempts)
            && attempt + NEAR_DEAD_LETTER > most
        {
            counters.near_dead_letter.fetch_add(1, Ordering::Relaxed);
            if self.near_dead_letter.is_due(now) {
                tracing::warn!(
                    message = message.id,
                    attempt,
                    most,
                    "a message is about to go to the dead-letter topic, where nobody archives it: it was delivered again \
                     and again without being acknowledged; see why segments are not put, or acknowledgements not taken"
                );
            }
        }
        self.last = now;
        self.gathering.push(received, bytes, now);
    }

    /// Begins to put what has been gathered.
    fn land(&mut self, abort: &CancellationToken) {
        let spool = self.spool.take().unwrap_or_else(|| self.shared.begin_spool());
        self.landing.spawn(land(self.shared.clone(), spool, self.gathering.take(), abort.clone()));
    }

    fn landed(&mut self, landed: Landed) -> Result<(), ReceiveError> {
        let Landed { spool, messages, put } = landed;
        self.spool = Some(spool);
        put?;
        self.shared.counters.segments.fetch_add(1, Ordering::Relaxed);
        self.acknowledging.spawn(acknowledge(self.shared.clone(), messages));
        Ok(())
    }

    /// Puts and acknowledges what is left, and ends the spool.
    async fn finish(&mut self, abort: &CancellationToken) -> Result<(), ReceiveError> {
        loop {
            if self.landing.is_empty() && !self.gathering.is_empty() {
                self.land(abort);
            }
            let Some(landed) = self.landing.join_next().await else { break };
            self.landed(landed.expect("a put does not panic"))?;
        }
        let (acknowledging, subscriber) = (&mut self.acknowledging, &mut self.subscriber);
        let acknowledged = async {
            while acknowledging.join_next().await.is_some() {}
            subscriber.closed().await;
        };
        tokio::select! {
            biased;
            () = acknowledged => {}
            () = self.shared.clock.sleep(ACKNOWLEDGE_AT_THE_END_WITHIN) => {
                tracing::warn!("acknowledgements could not be sent: those messages come again, and are known by then");
            }
        }
        match self.spool.take() {
            Some(spool) => Ok(spool.seal(abort).await?),
            None => Ok(()),
        }
    }
}

/// Waits for so long, or for ever.
async fn rest(clock: &dyn Clock, duration: Option<Duration>) {
    match duration {
        Some(duration) => clock.sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// Puts messages into the spool; into a new one, where somebody has ended this one meanwhile.
async fn land(
    shared: Arc<Shared>,
    mut spool: SpoolWriter,
    mut messages: Vec<Received>,
    abort: CancellationToken,
) -> Landed {
    let raw: Vec<Message> = messages.iter().map(|received| received.message.clone()).collect();
    if planted(Bug::AcknowledgedBeforeDurable) {
        acknowledge(shared.clone(), std::mem::take(&mut messages)).await;
    }
    let put = loop {
        match spool.append(&raw, &abort).await {
            Ok(Appended::Durable) => break Ok(()),
            Ok(Appended::Taken) => {
                shared.counters.spools_ended_by_others.fetch_add(1, Ordering::Relaxed);
                tracing::info!(spool = %spool.name(), "somebody else has ended this spool; nothing was acknowledged, and a new one is begun");
                spool = shared.begin_spool();
            }
            Err(error) => break Err(error),
        }
    };
    Landed { spool, messages, put }
}

/// Acknowledges messages that are durable. Which of them come again all the same does not matter: they are known then.
async fn acknowledge(shared: Arc<Shared>, messages: Vec<Received>) {
    let counters = &shared.counters;
    let count = messages.len() as u64;
    let mut under_way: FuturesUnordered<_> =
        messages.into_iter().map(|received| received.acknowledge.acknowledge()).collect();
    let (mut acknowledged, mut last_error) = (0, None);
    let all = async {
        while let Some(done) = under_way.next().await {
            match done {
                Ok(()) => acknowledged += 1,
                Err(error) => last_error = Some(error),
            }
        }
    };
    tokio::select! {
        biased;
        () = all => {}
        () = shared.clock.sleep(ACKNOWLEDGE_WITHIN) => {}
    }
    counters.acknowledged.fetch_add(acknowledged, Ordering::Relaxed);
    let failed = count - acknowledged;
    if failed > 0 {
        let before = counters.unacknowledged.fetch_add(failed, Ordering::Relaxed);
        complain(before, failed, last_error);
    }
}

/// Failures are told when they begin, and then each time that they have doubled.
fn complain(before: u64, failed: u64, error: Option<String>) {
    if before == 0 || before.ilog2() < (before + failed).ilog2() {
        let error = error.unwrap_or_else(|| format!("no answer within {} s", ACKNOWLEDGE_WITHIN.as_secs()));
        tracing::warn!(
            failed,
            before,
            error,
            "messages that are durable could not be acknowledged: they may come again, and are duplicates then"
        );
    }
}

impl Counters {
    /// How many messages have come, those that came again included.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}
