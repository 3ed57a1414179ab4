//! The stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use auditlake::ops::clock::Clock as _;
use auditlake::source::memory::MemorySource;
use auditlake::source::{Next, Page, Reading, Shard, ShardId, ShardReader, Source, SourceError, Until};
use jiff::Timestamp;

use super::{Faulty, at_once};
use crate::sim::faults::{Fault, latency};
use crate::sim::operation::Port;
use crate::sim::random::{below, once_in, up_to};

/// A reader that was not used for so long can't go on: its iterator has expired.
const ITERATOR_LASTS: Duration = Duration::from_mins(5);
/// A listing is behind by so much at most. A stream that is being resharded can't be resharded again, so that no listing is
/// behind by two generations.
pub(crate) const LISTED_WITHIN: Duration = Duration::from_secs(20);

fn unavailable(shard: &ShardId) -> impl Fn(&str) -> SourceError + use<> {
    let shard = shard.clone();
    move |reason| SourceError::Unavailable { shard: shard.clone(), reason: reason.to_owned() }
}

impl Faulty<MemorySource> {
    fn know(&self, shards: impl IntoIterator<Item = ShardId>) {
        self.seat.known.lock().expect("nobody panics here").extend(shards);
    }

    fn knows(&self, shard: &ShardId) -> bool {
        self.seat.known.lock().expect("nobody panics here").contains(shard)
    }
}

#[async_trait]
impl Source for Faulty<MemorySource> {
    fn origin(&self) -> Option<&str> {
        self.twin.origin()
    }

    async fn shards(&self) -> Result<Vec<Shard>, SourceError> {
        let twin = self.twin.clone();
        let everything = ShardId::new("*");
        let effect = move || at_once(twin.shards());
        let mut shards = self.call(Port::Source, "shards".to_owned(), effect, unavailable(&everything)).await?;
        // A listing may be behind.
        let now = self.seat.clock.monotonic();
        let state = self.shared.state();
        let behind = if state.faults.noise && once_in(3) { up_to(LISTED_WITHIN) } else { Duration::ZERO };
        let is_listed = |shard: &ShardId| {
            !state.ledger.shards[shard].forgotten && (self.knows(shard) || state.is_older(shard, behind, now))
        };
        shards.retain(|shard| is_listed(&shard.id));
        drop(state);
        self.know(shards.iter().map(|shard| shard.id.clone()));
        Ok(shards)
    }

    async fn open(&self, shard: &ShardId, reading: Reading) -> Result<Box<dyn ShardReader>, SourceError> {
        let (twin, of, world, begun) = (self.twin.clone(), shard.clone(), self.shared.clone(), reading.clone());
        let what = format!("open {shard} after {}", reading.after);
        let effect = move || {
            let reader = at_once(twin.open(&of, begun.clone()))?;
            world.state().opened(&of);
            Ok(reader)
        };
        let reader = self.call(Port::Source, what, effect, unavailable(shard)).await?;
        Ok(Box::new(FaultyReader {
            port: Faulty::new(&self.twin, &self.seat, &self.shared),
            shard: shard.clone(),
            reader,
            waits: !matches!(reading.until, Until::Through(_)),
            used: self.seat.clock.monotonic(),
            read_through: Timestamp::UNIX_EPOCH,
            rest: VecDeque::new(),
        }))
    }
}

struct FaultyReader {
    port: Faulty<MemorySource>,
    shard: ShardId,
    reader: Box<dyn ShardReader>,
    /// It follows the shard's tip.
    waits: bool,
    used: Duration,
    read_through: Timestamp,
    /// Pages that were fetched and not given yet.
    rest: VecDeque<Page>,
}

#[async_trait]
impl ShardReader for FaultyReader {
    /// All that is waited for comes before the twin is asked: a call that is cancelled loses nothing.
    async fn next(&mut self) -> Result<Page, SourceError> {
        let (seat, fault) = (self.port.seat.clone(), self.port.fault(Port::Source));
        seat.reach(Port::Source, false);
        seat.awake().await;
        seat.clock.sleep(latency()).await;
        match fault {
            Fault::Slow(long) | Fault::Mute(long) => seat.clock.sleep(long).await,
            _ => {}
        }
        seat.awake().await;
        let fails = unavailable(&self.shard);
        if matches!(fault, Fault::NotDone | Fault::LostAnswer | Fault::Mute(_) | Fault::Late(_)) {
            self.port.log(|| format!("read {}: simulated: failed", self.shard));
            return Err(fails("simulated: it can't be read now"));
        }
        let now = seat.clock.monotonic();
        if now.saturating_sub(std::mem::replace(&mut self.used, now)) > ITERATOR_LASTS {
            return Err(fails("simulated: the iterator has expired"));
        }
        let noise = self.port.shared.state().faults.noise;
        if noise && once_in(40) {
            return Ok(self.nothing_yet());
        }
        if self.rest.is_empty() {
            let page = at_once(self.reader.next())?;
            self.rest.extend(if noise && once_in(2) { cut(page) } else { vec![page] });
        }
        let mut page = self.rest.pop_front().expect("a page was fetched");
        if page.next == Next::CaughtUp && page.payloads.is_empty() && self.waits {
            // All that has arrived was given: the twin keeps nothing back.
            page.read_through = seat.clock.now();
        }
        if page.next == Next::ShardEnd {
            let children = self.port.shared.state().children_of(&self.shard);
            self.port.know(children);
        }
        self.read_through = self.read_through.max(page.read_through);
        page.read_through = self.read_through;
        self.port.log(|| format!("read {}: {} payloads, {:?}", self.shard, page.payloads.len(), page.next));
        seat.reach(Port::Source, true);
        Ok(page)
    }
}

impl FaultyReader {
    /// A page of nothing, and more behind it.
    fn nothing_yet(&self) -> Page {
        let read_through = self.read_through;
        Page { payloads: Vec::new(), next: Next::More, read_through, bytes: 0, gap: None, behind: None, held: None }
    }
}

/// The page as several, each of at least one payload.
fn cut(page: Page) -> Vec<Page> {
    let mut pages = Vec::new();
    let mut left = page;
    while left.payloads.len() > 1 && !once_in(3) {
        let rest = left.payloads.split_off(1 + below(left.payloads.len() as u64 - 1) as usize);
        let behind = Page { payloads: rest, gap: None, ..left.clone() };
        left.next = Next::More;
        left.read_through = left.payloads.last().map_or(left.read_through, |last| last.arrival);
        left.bytes = 0;
        pages.push(std::mem::replace(&mut left, behind));
    }
    pages.push(left);
    pages
}

/// The twin of this stream's name.
pub(crate) fn stream() -> Arc<MemorySource> {
    Arc::new(MemorySource::of_origin("stream@1"))
}
