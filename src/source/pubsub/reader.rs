//! Reads a spool as a shard: a payload's position is its segment's number and its place in the segment.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::Shared;
use super::names::{Part, SpoolName, parse_key};
use super::segment::{Kind, Segment, decode, encode_seal};
use crate::archive::{ArchiveError, Put};
use crate::lease::Gap;
use crate::ops::planted::{Bug, planted};
use crate::source::{
    Checkpoint, Next, Page, Payload, Position, Reading, ShardId, ShardReader, SourceError, Target, Until,
};

/// Reads one spool, or one segment that came late.
pub(super) struct SpoolReader {
    shared: Arc<Shared>,
    shard: ShardId,
    part: Part,
    until: Until,
    /// The last payload handed out; at first, what was asked for.
    after: Checkpoint,
    read_through: Option<Timestamp>,
    /// The number of the next segment to read.
    place: u64,
    /// The payload at the checkpoint has been met, or is known to be lost, or there is none.
    resumed: bool,
    /// Since when there has been nothing more, in monotonic time.
    idle_since: Option<Duration>,
}

/// What a store's failure means to a reader.
pub(super) fn unreadable(shard: &ShardId, error: &ArchiveError) -> SourceError {
    let (shard, reason) = (shard.clone(), format!("its spool: {error}"));
    if error.may_pass() { SourceError::Unavailable { shard, reason } } else { SourceError::Stopped { shard, reason } }
}

impl SpoolReader {
    pub(super) fn new(shared: Arc<Shared>, part: Part, reading: Reading) -> Self {
        let first = if let Part::Late(_, number) = part { number } else { 0 };
        let place = reading.after.position().map_or(Some(first), |position| position.sequence.as_u64());
        Self {
            shared,
            shard: part.shard(),
            part,
            until: reading.until,
            read_through: reading.read_through,
            place: place.unwrap_or(first),
            resumed: reading.after.position().is_none(),
            after: reading.after,
            idle_since: None,
        }
    }

    fn spool(&self) -> &SpoolName {
        self.part.spool()
    }

    fn stopped(&self, reason: String) -> SourceError {
        SourceError::Stopped { shard: self.shard.clone(), reason }
    }

    /// A page without payloads.
    fn empty(&self, next: Next) -> Page {
        let read_through = self.shared.clock.now();
        Page { payloads: Vec::new(), next, read_through, bytes: 0, gap: None, behind: None, held: None }
    }

    async fn fetch(&self, number: u64) -> Result<Option<(Segment, u64)>, SourceError> {
        let key = self.spool().key(number);
        let found = self.shared.store.get(&key).await.map_err(|error| unreadable(&self.shard, &error))?;
        let Some(bytes) = found else { return Ok(None) };
        let segment = decode(self.spool(), number, &bytes).map_err(|fault| {
            self.stopped(format!(
                "the segment {key} of its spool is damaged: {fault}. Its messages were acknowledged: bring back the object \
                 as it was; what can't be brought back, download from Temporal Cloud and archive it as files"
            ))
        })?;
        Ok(Some((segment, bytes.len() as u64)))
    }

    /// The first segment of this number or a later one.
    async fn first_from(&self, number: u64) -> Result<Option<u64>, SourceError> {
        let listed = self.shared.store.list(&self.spool().folder()).await;
        let listed = listed.map_err(|error| unreadable(&self.shard, &error))?;
        let numbers = listed.iter().filter_map(|object| parse_key(&object.key)).map(|(_, number)| number);
        Ok(numbers.filter(|standing| *standing >= number).min())
    }

    /// The payloads of a segment, or the end that a seal is; with the gap in front of it, where there is one.
    async fn segment_page(&mut self, segment: Segment, stored: u64, gap: Option<Gap>) -> Result<Page, SourceError> {
        let number = segment.header.number;
        if segment.header.kind == Kind::Seal {
            if !self.resumed && gap.is_none() {
                return Err(self.stopped("where its checkpoint's payload was, the spool ends".into()));
            }
            (self.resumed, self.place) = (true, number);
            // A gap begins a batch of its own; the seal is met again behind it.
            let next = if gap.is_some() { Next::More } else { Next::ShardEnd };
            return Ok(Page { read_through: segment.header.written, bytes: stored, gap, ..self.empty(next) });
        }
        let position = |index: usize| Position { sequence: number.into(), sub_sequence: index as u64 };
        let payload = |(index, message): (usize, super::segment::Message)| Payload {
            position: position(index),
            arrival: message.arrival,
            source_message: message.source_message(),
            data: message.data,
        };
        let mut payloads: Vec<Payload> = segment.messages.into_iter().enumerate().map(payload).collect();
        if !self.resumed && gap.is_none() {
            self.check_resumed(&payloads)?;
        }
        if let Some(after) = self.after.position() {
            payloads.retain(|payload| payload.position > *after);
        }
        if let Checkpoint::Since(time) = self.after {
            payloads.retain(|payload| payload.arrival >= time);
        }
        if let Until::Through(through) = &self.until {
            payloads.retain(|payload| Some(&payload.position) <= through.position());
        }
        let bytes: u64 = payloads.iter().map(Payload::weight).sum();
        let held = Some(Arc::new(self.shared.pages.reserve(bytes).await));
        // Nothing is awaited from here on: a call that is cancelled has changed nothing.
        self.after = payloads.last().map_or(self.after.clone(), Payload::checkpoint);
        (self.resumed, self.idle_since, self.place) = (true, None, number + 1);
        let next = match &self.until {
            Until::Through(through) if self.after == *through => Next::Reached,
            Until::Through(through) if self.after.position() >= through.position() => {
                return Err(self.stopped(format!("the payload at {through} is not the one that was archived")));
            }
            _ => Next::More,
        };
        Ok(Page { payloads, read_through: segment.header.written, bytes: stored, gap, held, ..self.empty(next) })
    }

    /// Whether the payload at the checkpoint is the one that was archived.
    fn check_resumed(&self, payloads: &[Payload]) -> Result<(), SourceError> {
        let met = payloads.iter().find(|payload| Some(&payload.position) == self.after.position());
        let is_it = match &self.after {
            Checkpoint::Imported(_) => met.is_some(),
            after => met.is_some_and(|payload| payload.checkpoint() == *after),
        };
        let reason = || format!("the payload at its checkpoint {} is not the one that was archived", self.after);
        if is_it { Ok(()) } else { Err(self.stopped(reason())) }
    }

    /// There is no segment of the number that comes next.
    async fn nothing_there(&mut self) -> Result<Page, SourceError> {
        let live = self.shared.live.next(self.spool());
        if self.resumed && live.is_some_and(|next| self.place >= next) || matches!(self.until, Until::Through(_)) {
            return Ok(self.empty(Next::CaughtUp));
        }
        let now = self.shared.clock.monotonic();
        let idle_for = now.saturating_sub(*self.idle_since.get_or_insert(now));
        let waits = self.until == Until::Forever && idle_for < self.shared.options.seal_after;
        if self.resumed && live.is_none() && waits {
            return Ok(self.empty(Next::CaughtUp));
        }
        match self.first_from(self.place).await? {
            Some(number) if number == self.place => Ok(self.empty(Next::More)),
            Some(number) => self.gap_before(number).await,
            None if !self.resumed => Ok(self.lost_at_the_end()),
            None if live.is_some() => Ok(self.empty(Next::CaughtUp)),
            None if planted(Bug::SealSkipped) => Ok(self.empty(Next::ShardEnd)),
            None => {
                self.seal().await?;
                Ok(self.empty(Next::More))
            }
        }
    }

    /// Segments are missing in front of this one. Nobody removes one that is not archived: somebody else did.
    async fn gap_before(&mut self, number: u64) -> Result<Page, SourceError> {
        let Some((segment, stored)) = self.fetch(number).await? else { return Ok(self.empty(Next::More)) };
        let first = segment.messages.first().map(|message| message.arrival);
        let until = first.unwrap_or(segment.header.written);
        let gap = Gap { after: self.after.clone(), from: self.read_through, until };
        self.segment_page(segment, stored, Some(gap)).await
    }

    /// The segment at the checkpoint is gone, and nothing stands behind it.
    fn lost_at_the_end(&mut self) -> Page {
        let gap = Gap { after: self.after.clone(), from: self.read_through, until: self.shared.clock.now() };
        self.resumed = true;
        self.place += 1;
        Page { gap: Some(gap), ..self.empty(Next::CaughtUp) }
    }

    /// Ends the spool here: whoever wrote it finds the number taken, and begins another one. Whether this seal is the one
    /// that stands there then, or the writer was faster, is seen by reading on.
    async fn seal(&self) -> Result<Put, SourceError> {
        let (key, now) = (self.spool().key(self.place), self.shared.clock.now());
        let put = self.shared.store.put_if_absent(&key, encode_seal(self.spool(), self.place, now)).await;
        let put = put.map_err(|error| unreadable(&self.shard, &error))?;
        if put == Put::Created {
            tracing::info!(spool = %self.spool(), number = self.place, "nobody writes this spool any more; it was sealed");
        }
        Ok(put)
    }

    /// What there is at the place where a reader that is to stop there stops. A spool that nobody here writes ends with
    /// it, so that what a dead worker left behind is done with once it is archived.
    async fn at_target(&self) -> Result<Page, SourceError> {
        if self.shared.live.next(self.spool()).is_some() {
            return Ok(self.empty(Next::Reached));
        }
        let is_seal = |found: Option<(Segment, u64)>| found.is_some_and(|(it, _)| it.header.kind == Kind::Seal);
        let nothing_behind = self.first_from(self.place).await?.is_none();
        let ended =
            if nothing_behind { self.seal().await? == Put::Created } else { is_seal(self.fetch(self.place).await?) };
        Ok(self.empty(if ended { Next::ShardEnd } else { Next::Reached }))
    }
}

#[async_trait]
impl ShardReader for SpoolReader {
    async fn next(&mut self) -> Result<Page, SourceError> {
        if let Until::Through(through) = &self.until
            && self.after == *through
        {
            return Ok(self.empty(Next::Reached));
        }
        if let Part::Late(_, number) = self.part
            && self.place > number
        {
            return Ok(self.empty(Next::ShardEnd));
        }
        if let Until::Target(Target::Before { sequence, .. }) = &self.until
            && self.resumed
            && sequence.as_u64().is_none_or(|end| self.place >= end)
        {
            return self.at_target().await;
        }
        // This process knows what it has put: no need to ask for more.
        if self.resumed && self.shared.live.next(self.spool()).is_some_and(|next| self.place >= next) {
            return Ok(self.empty(Next::CaughtUp));
        }
        match self.fetch(self.place).await? {
            Some((segment, stored)) => self.segment_page(segment, stored, None).await,
            None => self.nothing_there().await,
        }
    }
}
