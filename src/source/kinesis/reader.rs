//! Reads one shard page by page, whichever way records come.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::cursor::{Answer, Cursor, Place};
use super::fault::Fault;
use super::outage::{Outage, Patience};
use super::resume::Verdict;
use super::stream::Stream;
use crate::ops::identity::random_bytes;
use crate::ops::telemetry::Complaint;
use crate::source::{Next, Page, Reading, ShardId, ShardReader, SourceError};

/// How often one place is asked for anew because its iterator expired on the way.
const EXPIRED_IN_A_ROW: u32 = 3;
/// The longest pause before what is in use is asked for again.
const IN_USE_PAUSE: Duration = Duration::from_secs(1);
/// A reader that is further behind than this part of the retention will lose records soon.
const HEADROOM_USED: f64 = 0.75;
/// How often that is told.
const TELL_HEADROOM: Duration = Duration::from_mins(10);

/// A way by which records come.
#[async_trait]
pub(super) trait Feed: Send {
    /// The next answer. It goes on behind the last one; where there was none, or it was forgotten, it begins at `place`.
    /// After a fault, the same call may be made again and misses nothing.
    async fn fetch(&mut self, place: &Place) -> Result<Answer, Fault>;

    /// The next answer begins at the place that is asked for then.
    fn forget(&mut self);
}

/// Reads a shard, in a task of its own while there is more: so the next page is fetched while this one is worked on,
/// and a call that is cancelled leaves the page under way for the next call. Dropping the reader ends the task.
pub(super) struct ShardCursor {
    shard: ShardId,
    /// Empty while a page is under way, and after an error that is for a human.
    engine: Option<Box<Engine>>,
    under_way: JoinSet<Turn>,
}

type Turn = (Option<Box<Engine>>, Result<Page, SourceError>);

impl ShardCursor {
    pub(super) fn new(stream: Arc<Stream>, shard: ShardId, reading: Reading, feed: Box<dyn Feed>) -> Self {
        let engine = Engine {
            stream,
            shard: shard.clone(),
            cursor: Cursor::new(reading),
            feed,
            outage: Outage::default(),
            headroom: Complaint::every(TELL_HEADROOM),
        };
        Self { shard, engine: Some(Box::new(engine)), under_way: JoinSet::new() }
    }

    fn failed(&self, reason: String) -> SourceError {
        SourceError::Stopped { shard: self.shard.clone(), reason }
    }
}

#[async_trait]
impl ShardReader for ShardCursor {
    async fn next(&mut self) -> Result<Page, SourceError> {
        if self.under_way.is_empty() {
            let engine = self.engine.take().ok_or_else(|| self.failed("its reader has failed".into()))?;
            self.under_way.spawn(engine.turn().in_current_span());
        }
        let (engine, page) = match self.under_way.join_next().await {
            Some(Ok(turn)) => turn,
            Some(Err(panic)) => return Err(self.failed(panic.to_string())),
            None => return Err(self.failed("its reader has failed".into())),
        };
        self.engine = engine;
        let page = page?;
        if page.next == Next::More
            && let Some(engine) = self.engine.take()
        {
            self.under_way.spawn(engine.turn().in_current_span());
        }
        Ok(page)
    }
}

/// What it takes to read on.
struct Engine {
    stream: Arc<Stream>,
    shard: ShardId,
    cursor: Cursor,
    feed: Box<dyn Feed>,
    outage: Outage,
    headroom: Complaint,
}

impl Engine {
    /// The next page. An error that may pass leaves the engine where it was.
    async fn turn(mut self: Box<Self>) -> Turn {
        match self.page().await {
            Ok(page) => (Some(self), Ok(page)),
            Err(fault) => {
                let passes = matches!(fault, Fault::Passing(_) | Fault::InUse(_) | Fault::Expired);
                let error = fault.at(&self.shard);
                self.feed.forget();
                (passes.then_some(self), Err(error))
            }
        }
    }

    async fn page(&mut self) -> Result<Page, Fault> {
        if let Some(page) = self.cursor.done() {
            return Ok(page);
        }
        let answer = self.answer().await?;
        let verdict = self.cursor.judge(&answer, self.stream.retention());
        if matches!(verdict, Verdict::Lost(_) | Verdict::Foreign) {
            // What is missing may be missing because this is another stream.
            self.stream.check(Duration::ZERO).await?;
        }
        if let Some(behind) = answer.behind {
            self.watch_headroom(behind);
        }
        self.cursor.page(answer, verdict).map_err(Fault::Stopped)
    }

    /// Asks until there is an answer, it has taken too long, or a human is needed.
    async fn answer(&mut self) -> Result<Answer, Fault> {
        let mut expired = 0;
        loop {
            let place = self.cursor.place();
            let fault = match self.feed.fetch(&place).await {
                Ok(answer) => {
                    self.outage.answered();
                    return Ok(answer);
                }
                Err(fault) => fault,
            };
            match fault {
                Fault::Expired if expired < EXPIRED_IN_A_ROW => {
                    expired += 1;
                    tracing::debug!(shard = %self.shard, ?place, "an iterator expired; a new one goes on from here");
                    self.feed.forget();
                }
                Fault::Invalid(words) => match place {
                    Place::At(_) | Place::After(_) => {
                        tracing::warn!(shard = %self.shard, ?place, words, "the stream no longer has this place; what is missing is told as a gap");
                        self.feed.forget();
                        self.cursor.trimmed();
                    }
                    // A time that has not come yet by the service's clock.
                    Place::Since(_) => self.rest(Fault::Passing(words)).await?,
                    Place::TrimHorizon => return Err(Fault::Stopped(words)),
                },
                Fault::Missing(words) => {
                    return Err(self.stream.explain_missing(&format!("the shard {}", self.shard), &words).await);
                }
                Fault::Stopped(words) => return Err(Fault::Stopped(words)),
                passing => self.rest(passing).await?,
            }
        }
    }

    /// Waits before the next try, unless it has taken too long.
    async fn rest(&mut self, fault: Fault) -> Result<(), Fault> {
        let now = self.stream.clock.monotonic();
        let [jitter] = random_bytes();
        let Patience::Wait(pause) = self.outage.failed(now, jitter) else { return Err(fault) };
        // A subscription that another reader held until a moment ago is free within five seconds.
        let expected = matches!(fault, Fault::InUse(_));
        let pause = if expected { pause.min(IN_USE_PAUSE) } else { pause };
        if !expected && let Some(failures) = self.outage.tell(now) {
            let place = self.cursor.place();
            tracing::warn!(shard = %self.shard, ?place, ?fault, failures, "the shard can't be read now; trying again");
        }
        self.stream.clock.sleep(pause).await;
        Ok(())
    }

    /// Warns when what is read now will soon be older than the stream keeps.
    fn watch_headroom(&mut self, behind: Duration) {
        let (now, retention) = (self.stream.clock.monotonic(), self.stream.retention());
        if behind < retention.mul_f64(HEADROOM_USED) || !self.headroom.is_due(now) {
            return;
        }
        let (behind_s, retention_s) = (behind.as_secs(), retention.as_secs());
        tracing::warn!(shard = %self.shard, behind_s, retention_s,
            "reading is far behind: records will be lost when they are older than the stream's retention; lengthen it");
    }
}
