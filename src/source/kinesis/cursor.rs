//! A place in a shard, and how what the stream answers becomes pages. Pure: both ways of reading share it.

use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::aggregate::unpack;
use super::resume::{Found, Known, Verdict, judge, overtaken};
use crate::lease::Gap;
use crate::ops::memory::Reservation;
use crate::source::{Checkpoint, Next, Page, Payload, Position, Reading, SequenceNumber, Target, Until};

/// How far the stream's clock may be ahead of ours, for a reader that is to stop at a time.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(1);

/// Where to ask a shard for records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At the oldest that it still has.
    TrimHorizon,
    /// At those that arrived at this time or later.
    Since(Timestamp),
    /// At this record.
    At(SequenceNumber),
    /// Behind this record.
    After(SequenceNumber),
}

/// A record as the stream has it.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) sequence: SequenceNumber,
    pub(super) arrival: Timestamp,
    pub(super) data: Bytes,
}

/// How near the end of what the stream has an answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tip {
    /// There is more.
    Behind,
    /// The service says that it is at the tip. It counts milliseconds, so a record of the same millisecond may follow.
    Near,
    /// There was nothing more to be had.
    Reached,
}

/// What a shard answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// Records in order; may be none.
    pub(super) records: Vec<Raw>,
    /// How far they are behind the shard's tip.
    pub(super) behind: Option<Duration>,
    /// Whether there is more.
    pub(super) tip: Tip,
    /// The shard has ended, and nothing comes behind these.
    pub(super) ended: bool,
    /// What had arrived by then is in these or before them, if they reach the tip.
    pub(super) asked: Timestamp,
    /// The memory that the records take.
    pub(super) held: Option<Reservation>,
}

impl Answer {
    /// The bytes of its records.
    pub(super) fn bytes(&self) -> u64 {
        self.records.iter().map(|record| record.data.len() as u64).sum()
    }
}

/// How far a reader has come.
#[derive(Debug)]
pub(super) struct Cursor {
    reading: Reading,
    phase: Phase,
    /// The last payload handed out; at first, what was asked for.
    after: Checkpoint,
    /// The last record met since the place was last looked for by `after`.
    read: Option<SequenceNumber>,
    /// The stream refused the place behind `after`.
    trimmed: bool,
    read_through: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The record at `after` has not been met yet; whether older ones have.
    Resuming {
        older: bool,
    },
    Reading,
    /// There is nothing more to read.
    Done(Next),
}

/// Why a loop over records ends early.
enum Stop {
    /// What was asked for is complete.
    Reached,
    /// The end of the range that was asked for is not there any more.
    Passed,
}

impl Cursor {
    /// The place that was asked for.
    pub(super) fn new(reading: Reading) -> Self {
        let after = reading.after.clone();
        let phase = if after.position().is_some() { Phase::Resuming { older: false } } else { Phase::Reading };
        Self { phase, after, read: None, trimmed: false, read_through: reading.read_through, reading }
    }

    /// Where to ask next.
    pub(super) fn place(&self) -> Place {
        match (&self.read, &self.after) {
            (Some(read), _) => Place::After(read.clone()),
            (None, Checkpoint::Since(time)) if !self.trimmed => Place::Since(*time),
            (None, Checkpoint::Imported(position) | Checkpoint::At { position, .. }) if !self.trimmed => {
                Place::At(position.sequence.clone())
            }
            (None, _) => Place::TrimHorizon,
        }
    }

    /// The stream does not take the place's sequence number, so it no longer has the record: it is looked for from the
    /// oldest on.
    pub(super) fn trimmed(&mut self) {
        self.trimmed = true;
        self.read = None;
        if self.after.position().is_some() {
            self.phase = Phase::Resuming { older: false };
        }
    }

    /// The page of a reader that has nothing more to read.
    pub(super) fn done(&self) -> Option<Page> {
        let Phase::Done(next) = self.phase else { return None };
        Some(Page {
            payloads: Vec::new(),
            next,
            read_through: self.read_through.unwrap_or(Timestamp::UNIX_EPOCH),
            bytes: 0,
            gap: None,
            behind: None,
            held: None,
        })
    }

    /// Whether the answer is what should come behind `after`.
    pub(super) fn judge(&self, answer: &Answer, retention: Duration) -> Verdict {
        let records: Vec<_> = answer.records.iter().map(|record| (record.sequence.clone(), record.arrival)).collect();
        let no_more = answer.ended || answer.tip == Tip::Reached;
        let found = Found { records: &records, no_more, asked: answer.asked };
        let known = Known { after: &self.after, read_through: self.read_through, retention, older: false };
        match self.phase {
            Phase::Resuming { older } => judge(Known { older, ..known }, found),
            // Of a stream that is begun, nothing was read that something could be missing behind.
            _ if self.read.is_none() => Verdict::There,
            _ => overtaken(known, found).map_or(Verdict::There, Verdict::Lost),
        }
    }

    /// Turns the answer into a page, by the verdict on it; else what is wrong. Then the cursor is of no more use.
    pub(super) fn page(&mut self, answer: Answer, verdict: Verdict) -> Result<Page, String> {
        let gap = self.proceed(verdict)?;
        let (bytes, first) = (answer.bytes(), self.read.is_none());
        let (tip, ended, behind) = (answer.tip, answer.ended, answer.behind);
        let mut payloads = Vec::with_capacity(answer.records.len());
        let mut stop = None;
        for record in answer.records {
            stop = self.take(record, &mut payloads)?;
            if stop.is_some() {
                break;
            }
        }
        self.prove_beginning(first, gap.as_ref(), payloads.first())?;
        if let Some(last) = payloads.last() {
            self.after = last.checkpoint();
        }
        if stop.is_none() && (ended || tip >= Tip::Near) {
            self.read_through = self.read_through.max(Some(answer.asked));
        }
        let next = self.next(stop, tip, ended);
        let read_through = self.read_through.unwrap_or(Timestamp::UNIX_EPOCH);
        let held = answer.held.filter(|_| !payloads.is_empty()).map(std::sync::Arc::new);
        Ok(Page { payloads, next, read_through, bytes, gap, behind, held })
    }

    fn proceed(&mut self, verdict: Verdict) -> Result<Option<Gap>, String> {
        let (phase, gap) = match verdict {
            Verdict::Ask { older } => (Phase::Resuming { older }, None),
            Verdict::There | Verdict::NothingLost => (Phase::Reading, None),
            Verdict::Lost(gap) => (Phase::Reading, Some(gap)),
            Verdict::Foreign => {
                return Err(format!(
                    "the stream has older records than the one at the checkpoint {}, but not that one: the checkpoint is \
                     of another stream",
                    self.after
                ));
            }
        };
        self.phase = phase;
        Ok(gap)
    }

    /// Takes the payloads of one record that lie behind `after`.
    fn take(&mut self, record: Raw, payloads: &mut Vec<Payload>) -> Result<Option<Stop>, String> {
        let Raw { sequence, arrival, data } = record;
        let beyond = match &self.reading.until {
            Until::Target(Target::Arrival(time)) => arrival > time.checked_add(CLOCK_SKEW).unwrap_or(Timestamp::MAX),
            Until::Target(Target::Before { sequence: end, .. }) => sequence >= *end,
            Until::Forever | Until::Through(_) => false,
        };
        if beyond {
            return Ok(Some(Stop::Reached));
        }
        self.read_through = self.read_through.max(Some(arrival));
        self.read = Some(sequence.clone());
        let after = self.after.position();
        if after.is_some_and(|after| sequence < after.sequence) {
            return Ok(None);
        }
        let mut met = after.is_none_or(|after| sequence != after.sequence);
        for (data, sub_sequence) in unpack(data).into_iter().zip(0..) {
            let position = Position { sequence: sequence.clone(), sub_sequence };
            let payload = Payload { position, arrival, source_message: None, data };
            match after {
                Some(after) if payload.position < *after => {}
                Some(after) if payload.position == *after => {
                    met = matches!(self.after, Checkpoint::Imported(_)) || payload.checkpoint() == self.after;
                }
                _ => {
                    let stop = self.stop_at(&payload)?;
                    if !matches!(stop, Some(Stop::Passed)) {
                        payloads.push(payload);
                    }
                    if stop.is_some() {
                        return Ok(stop);
                    }
                }
            }
        }
        if !met && matches!(self.after, Checkpoint::At { .. }) {
            return Err(format!("what stands at {} is not the payload that was archived", self.after));
        }
        Ok(None)
    }

    /// Whether a range that is read again ends with this payload, or should have ended before it.
    fn stop_at(&self, payload: &Payload) -> Result<Option<Stop>, String> {
        let Until::Through(through) = &self.reading.until else { return Ok(None) };
        match through.position() {
            Some(end) if payload.position < *end => Ok(None),
            Some(end) if payload.position > *end => Ok(Some(Stop::Passed)),
            _ if matches!(through, Checkpoint::At { .. }) && payload.checkpoint() != *through => {
                Err(format!("what stands at {through} is not the payload that the batch under way ended with"))
            }
            _ => Ok(Some(Stop::Reached)),
        }
    }

    /// A range that is read again must begin with the payload that it began with: its arrival time is known.
    fn prove_beginning(&self, first: bool, gap: Option<&Gap>, payload: Option<&Payload>) -> Result<(), String> {
        let Until::Through(through) = &self.reading.until else { return Ok(()) };
        let from_the_start = first && self.reading.after.position().is_none();
        let (true, Some(payload)) = (from_the_start || gap.is_some(), payload) else {
            // Without a payload, the end of the range will not be met.
            return Ok(());
        };
        let same = self.reading.arrival.map_or(gap.is_none(), |arrival| arrival == payload.arrival);
        if same {
            return Ok(());
        }
        Err(format!(
            "a batch {} to {through} is under way, but the stream no longer has its first records: the oldest that it has \
             arrived at {}",
            self.reading.after, payload.arrival
        ))
    }

    fn next(&mut self, stop: Option<Stop>, tip: Tip, ended: bool) -> Next {
        let (next, done) = match (stop, &self.reading.until) {
            (Some(Stop::Reached), _) => (Next::Reached, true),
            (Some(Stop::Passed), _) => (Next::CaughtUp, true),
            (None, _) if ended => (Next::ShardEnd, true),
            (None, Until::Forever) if tip >= Tip::Near => (Next::CaughtUp, false),
            (None, Until::Target(_)) if tip == Tip::Reached => (Next::Reached, true),
            (None, Until::Through(_)) if tip == Tip::Reached => (Next::CaughtUp, true),
            (None, _) => (Next::More, false),
        };
        if done {
            self.phase = Phase::Done(next);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn time(text: &str) -> Timestamp {
        format!("2026-11-{text}Z").parse().unwrap()
    }

    fn cursor(after: Checkpoint, until: Until) -> Cursor {
        Cursor::new(Reading { after, read_through: None, until, arrival: None })
    }

    fn answer(records: &[(u64, &str)], tip: Tip) -> Answer {
        let raw = |(number, arrival): &(u64, &str)| Raw {
            sequence: SequenceNumber::from(*number),
            arrival: time(arrival),
            data: Bytes::from(number.to_string()),
        };
        let records = records.iter().map(raw).collect();
        Answer { records, behind: None, tip, ended: false, asked: time("21T12:00:00"), held: None }
    }

    fn page(cursor: &mut Cursor, answer: Answer) -> Page {
        let verdict = cursor.judge(&answer, DAY);
        cursor.page(answer, verdict).unwrap()
    }

    #[test]
    fn a_place_is_behind_the_last_record_read() {
        let mut cursor = cursor(Checkpoint::TrimHorizon, Until::Forever);
        assert_eq!(cursor.place(), Place::TrimHorizon);
        page(&mut cursor, answer(&[], Tip::Behind));
        assert_eq!(cursor.place(), Place::TrimHorizon);
        page(&mut cursor, answer(&[(7, "21T11:00:00"), (8, "21T11:00:01")], Tip::Behind));
        assert_eq!(cursor.place(), Place::After(SequenceNumber::from(8)));
        page(&mut cursor, answer(&[], Tip::Behind));
        assert_eq!(cursor.place(), Place::After(SequenceNumber::from(8)), "an empty page loses no place");
        cursor.trimmed();
        assert_eq!(cursor.place(), Place::TrimHorizon);
    }

    #[test]
    fn records_that_come_again_are_passed_over() {
        let mut cursor = cursor(Checkpoint::TrimHorizon, Until::Forever);
        page(&mut cursor, answer(&[(7, "21T11:00:00"), (8, "21T11:00:01")], Tip::Behind));
        let again =
            page(&mut cursor, answer(&[(7, "21T11:00:00"), (8, "21T11:00:01"), (10, "21T11:00:02")], Tip::Near));
        assert_eq!((again.payloads.len(), again.next), (1, Next::CaughtUp));
        assert_eq!(again.payloads[0].position, Position::new(10));
    }

    #[test]
    fn what_was_forgotten_between_two_pages_is_a_gap() {
        let mut cursor = cursor(Checkpoint::TrimHorizon, Until::Forever);
        let first = page(&mut cursor, answer(&[(7, "20T10:00:00")], Tip::Behind));
        assert_eq!(first.gap, None);
        let gap = page(&mut cursor, answer(&[(9, "20T14:00:00")], Tip::Behind)).gap.unwrap();
        assert_eq!((gap.from, gap.until), (Some(time("20T10:00:00")), time("20T14:00:00")));
        assert_eq!(gap.after, first.payloads[0].checkpoint());
        assert_eq!(page(&mut cursor, answer(&[(11, "20T14:00:01")], Tip::Behind)).gap, None);
    }

    #[test]
    fn a_tip_that_is_near_is_no_target_yet() {
        let target = || Until::Target(Target::Arrival(time("21T12:00:00")));
        let mut cursor = cursor(Checkpoint::TrimHorizon, target());
        assert_eq!(page(&mut cursor, answer(&[(7, "21T11:00:00")], Tip::Near)).next, Next::More);
        assert_eq!(page(&mut cursor, answer(&[], Tip::Reached)).next, Next::Reached);
        assert_eq!(cursor.done().map(|page| page.next), Some(Next::Reached));
    }

    #[test]
    fn read_through_never_goes_back_and_never_before_the_last_arrival() {
        let mut cursor = cursor(Checkpoint::TrimHorizon, Until::Forever);
        let behind = page(&mut cursor, answer(&[(7, "21T11:00:00")], Tip::Behind));
        assert_eq!(behind.read_through, time("21T11:00:00"));
        let caught_up = page(&mut cursor, answer(&[], Tip::Reached));
        assert_eq!(caught_up.read_through, time("21T12:00:00"));
        let ahead = page(&mut cursor, answer(&[(8, "21T12:00:03")], Tip::Near));
        assert_eq!(ahead.read_through, time("21T12:00:03"), "the stream's clock is ahead of ours");
        assert_eq!(page(&mut cursor, answer(&[], Tip::Behind)).read_through, time("21T12:00:03"));
    }
}
