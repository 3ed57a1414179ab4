//! The in-memory twin of a stream: shards that tests fill, end, trim and split.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    Checkpoint, Next, Page, Payload, Position, Reading, SequenceNumber, Shard, ShardId, ShardReader, Source,
    SourceError, Target, Until,
};
use crate::lease::Gap;

/// How many payloads a page holds.
const PAGE_PAYLOADS: usize = 100;

/// A stream in memory. Clones share it.
#[derive(Clone, Default)]
pub struct MemorySource {
    shards: Arc<Mutex<BTreeMap<ShardId, Stream>>>,
    origin: Option<Arc<str>>,
}

#[derive(Clone, Default)]
struct Stream {
    parents: Vec<ShardId>,
    payloads: Vec<Payload>,
    next_sequence: u64,
    ended: bool,
    /// The newest payload that was forgotten.
    trimmed: Option<(Position, Timestamp)>,
}

impl MemorySource {
    /// A stream without shards.
    pub fn new() -> Self {
        Self::default()
    }

    /// A stream without shards, which tells what it is.
    pub fn of_origin(origin: &str) -> Self {
        Self { origin: Some(origin.into()), ..Self::default() }
    }

    /// Adds a shard that came from `parents`.
    pub fn add_shard(&self, shard: &ShardId, parents: Vec<ShardId>) {
        self.with(|shards| {
            shards.entry(shard.clone()).or_default().parents = parents;
        });
    }

    /// Appends a payload; its position.
    pub fn append(&self, shard: &ShardId, data: impl Into<bytes::Bytes>, arrival: Timestamp) -> Position {
        self.with(|shards| {
            let stream = shards.entry(shard.clone()).or_default();
            let position = Position::new(stream.next_sequence);
            stream.next_sequence += 1;
            stream.payloads.push(Payload {
                position: position.clone(),
                arrival,
                source_message: None,
                data: data.into(),
            });
            position
        })
    }

    /// Ends a shard.
    pub fn end(&self, shard: &ShardId) {
        self.with(|shards| shards.entry(shard.clone()).or_default().ended = true);
    }

    /// Forgets the oldest `count` payloads, as retention does.
    pub fn trim(&self, shard: &ShardId, count: usize) {
        self.with(|shards| {
            let stream = shards.entry(shard.clone()).or_default();
            let trimmed = stream.payloads.drain(..count.min(stream.payloads.len())).last();
            stream.trimmed = trimmed.map(|last| (last.position, last.arrival)).or(stream.trimmed.take());
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<ShardId, Stream>) -> T) -> T {
        act(&mut self.shards.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Source for MemorySource {
    fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    async fn shards(&self) -> Result<Vec<Shard>, SourceError> {
        Ok(self.with(|shards| {
            let listed = shards.iter().map(|(id, stream)| {
                let bytes = stream.payloads.iter().map(|payload| payload.data.len() as u64).sum();
                let sequence = SequenceNumber::from(stream.next_sequence);
                Shard::new(id.clone(), stream.parents.clone(), Target::Before { sequence, bytes: Some(bytes) })
            });
            listed.collect()
        }))
    }

    async fn open(&self, shard: &ShardId, reading: Reading) -> Result<Box<dyn ShardReader>, SourceError> {
        let mut reader = MemoryReader { source: self.clone(), shard: shard.clone(), reading, resumed: false };
        if !self.with(|shards| shards.contains_key(shard)) {
            return Err(reader.stopped("there is no such shard"));
        }
        reader.resumed = reader.reading.after.position().is_none();
        Ok(Box::new(reader))
    }
}

struct MemoryReader {
    source: MemorySource,
    shard: ShardId,
    reading: Reading,
    resumed: bool,
}

impl MemoryReader {
    fn stopped(&self, reason: &str) -> SourceError {
        SourceError::Stopped { shard: self.shard.clone(), reason: reason.into() }
    }

    /// The payloads at and behind the checkpoint, and whether the shard has ended.
    fn rest(&self) -> (Vec<Payload>, bool) {
        let since = if let Checkpoint::Since(time) = self.reading.after { time } else { Timestamp::MIN };
        let after = self.reading.after.position().cloned();
        let from_here = |payload: &&Payload| {
            payload.arrival >= since && after.as_ref().is_none_or(|after| payload.position >= *after)
        };
        self.source.with(|shards| {
            let stream = shards.get(&self.shard).cloned().unwrap_or_default();
            (stream.payloads.iter().filter(from_here).take(PAGE_PAYLOADS + 1).cloned().collect(), stream.ended)
        })
    }

    /// When the newest of the payloads arrived that were forgotten unread; none where nothing was lost.
    fn lost(&self) -> Option<Timestamp> {
        let (position, arrival) =
            self.source.with(|shards| shards.get(&self.shard).and_then(|stream| stream.trimmed.clone()))?;
        let unread = Some(&position) > self.reading.after.position();
        let known = self.reading.read_through.is_some_and(|read| read > arrival);
        (unread && !known).then_some(arrival)
    }

    /// Steps over the payload at the checkpoint; what stands there instead is a gap, or another stream.
    fn resume(&mut self, payloads: &mut Vec<Payload>) -> Result<Option<Gap>, SourceError> {
        let after = self.reading.after.clone();
        let at_checkpoint = payloads.first().is_some_and(|first| Some(&first.position) == after.position());
        let is_at = matches!(after, Checkpoint::At { .. });
        if at_checkpoint && payloads.remove(0).checkpoint() != after && is_at {
            return Err(self.stopped("the payload at the checkpoint is not the one that was archived"));
        }
        if self.resumed || at_checkpoint {
            self.resumed = true;
            return Ok(None);
        }
        let Some(lost) = self.lost() else { return Ok(None) };
        self.resumed = true;
        // Nothing stands behind the gap: it ends a moment behind the last that was lost.
        let until = payloads.first().map_or(lost + Duration::from_millis(1), |first| first.arrival);
        Ok(Some(Gap { after, from: self.reading.read_through, until }))
    }
}

#[async_trait]
impl ShardReader for MemoryReader {
    async fn next(&mut self) -> Result<Page, SourceError> {
        let (mut payloads, ended) = self.rest();
        let gap = self.resume(&mut payloads)?;
        let full = payloads.len() >= PAGE_PAYLOADS;
        let found = payloads.len();
        payloads.truncate(PAGE_PAYLOADS);
        match &self.reading.until {
            Until::Forever => {}
            Until::Target(Target::Before { sequence, .. }) => {
                payloads.retain(|payload| payload.position.sequence < *sequence);
            }
            Until::Target(Target::Arrival(time)) => payloads.retain(|payload| payload.arrival <= *time),
            Until::Through(through) => {
                payloads.retain(|payload| Some(&payload.position) <= through.position());
            }
        }
        if let Some(last) = payloads.last() {
            self.reading.after = last.checkpoint();
        }
        let stopped_short = payloads.len() < found.min(PAGE_PAYLOADS);
        let reached = match &self.reading.until {
            Until::Forever => false,
            Until::Target(_) => stopped_short || !full,
            Until::Through(through) => self.reading.after == *through,
        };
        let at_tip = !full && !stopped_short;
        let through = matches!(self.reading.until, Until::Through(_));
        let next = match () {
            // The end of a shard counts for whoever reads on; a batch that is read again ends where it ended.
            () if at_tip && ended && !through => Next::ShardEnd,
            () if reached => Next::Reached,
            () if full => Next::More,
            () => Next::CaughtUp,
        };
        let read_through = payloads.last().map_or(Timestamp::UNIX_EPOCH, |payload| payload.arrival);
        let bytes = payloads.iter().map(|payload| payload.data.len() as u64).sum();
        Ok(Page { payloads, next, read_through, bytes, gap, behind: None, held: None })
    }
}
