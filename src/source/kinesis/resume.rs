//! Where reading goes on behind a checkpoint, and whether anything was lost in front of it. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::lease::Gap;
use crate::source::{Checkpoint, SequenceNumber};

/// How far a stream's idea of its retention, and its clock, may differ from ours.
const MARGIN: SignedDuration = SignedDuration::from_mins(1);

/// What an answer to "from the checkpoint's record on" shows of a shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    /// The records' sequence numbers and arrival times.
    pub(super) records: &'a [(SequenceNumber, Timestamp)],
    /// There is nothing behind these at the moment.
    pub(super) no_more: bool,
    /// When it was asked for.
    pub(super) asked: Timestamp,
}

/// What is known of a shard when its reader is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// Everything up to here has been read.
    pub(super) after: &'a Checkpoint,
    /// Everything that arrived until then has been read.
    pub(super) read_through: Option<Timestamp>,
    /// For how long the stream keeps a record.
    pub(super) retention: Duration,
    /// Older records than the checkpoint's have been met.
    pub(super) older: bool,
}

/// Where reading goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing tells yet: ask on.
    Ask {
        /// Records older than the checkpoint's were among those seen.
        older: bool,
    },
    /// The checkpoint's record is there.
    There,
    /// It is not there any more, and no record behind it can have been lost.
    NothingLost,
    /// It is not there any more, nor, perhaps, what came behind it.
    Lost(Gap),
    /// The stream has older records, but not this one: it never was of this stream.
    Foreign,
}

/// Judges the records that an answer begins with.
pub(super) fn judge(known: Known<'_>, found: Found<'_>) -> Verdict {
    let Some(checkpoint) = known.after.position() else { return Verdict::There };
    let sequence = &checkpoint.sequence;
    let older = known.older || found.records.iter().any(|(record, _)| record < sequence);
    let first = found.records.iter().find(|(record, _)| record >= sequence);
    match first {
        Some((record, _)) if record == sequence => Verdict::There,
        None if !found.no_more => Verdict::Ask { older },
        _ if older => Verdict::Foreign,
        _ if !may_be_lost(known.read_through, found.asked, known.retention) => Verdict::NothingLost,
        first => {
            let until = first.map_or(found.asked, |(_, arrival)| *arrival);
            Verdict::Lost(Gap { after: known.after.clone(), from: known.read_through, until })
        }
    }
}

/// What a reader has lost that is slower than the stream forgets: it had come less far than the stream still has, and
/// the next record is one that the stream still has. Where the next record is older than that, the stream has not
/// forgotten anything in front of it yet.
pub(super) fn overtaken(known: Known<'_>, found: Found<'_>) -> Option<Gap> {
    let read_through = known.read_through?;
    let (_, first) = found.records.first()?;
    let edge = edge(found.asked, known.retention).checked_sub(MARGIN).unwrap_or(Timestamp::MIN);
    let lost = read_through < edge && *first >= edge;
    lost.then(|| Gap { after: known.after.clone(), from: Some(read_through), until: *first })
}

/// What arrived before this is no longer kept.
fn edge(now: Timestamp, retention: Duration) -> Timestamp {
    let retention = SignedDuration::try_from(retention).unwrap_or(SignedDuration::MAX);
    now.checked_sub(retention).unwrap_or(Timestamp::MIN)
}

/// Whether a record may have come and gone unread: one that arrived later than `read_through`, and is now older than
/// the stream keeps records.
fn may_be_lost(read_through: Option<Timestamp>, now: Timestamp, retention: Duration) -> bool {
    let edge = edge(now, retention);
    read_through.is_none_or(|read| read.checked_sub(MARGIN).unwrap_or(Timestamp::MIN) < edge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Position;

    const DAY: Duration = Duration::from_hours(24);

    fn time(text: &str) -> Timestamp {
        format!("2026-11-{text}Z").parse().unwrap()
    }

    fn verdict(read_through: Option<&str>, records: &[(u64, &str)], no_more: bool, older: bool) -> Verdict {
        let after = Checkpoint::at(Position::new(100), b"x");
        let records: Vec<_> =
            records.iter().map(|(number, arrival)| (SequenceNumber::from(*number), time(arrival))).collect();
        let found = Found { records: &records, no_more, asked: time("21T12:00:00") };
        judge(Known { after: &after, read_through: read_through.map(time), retention: DAY, older }, found)
    }

    fn lost(from: Option<&str>, until: &str) -> Verdict {
        let after = Checkpoint::at(Position::new(100), b"x");
        Verdict::Lost(Gap { after, from: from.map(time), until: time(until) })
    }

    #[test]
    fn the_checkpoints_record_is_looked_for() {
        assert_eq!(verdict(None, &[(100, "21T11:00:00"), (101, "21T11:00:00")], true, false), Verdict::There);
        assert_eq!(verdict(None, &[(99, "21T11:00:00"), (100, "21T11:00:00")], true, false), Verdict::There);
        assert_eq!(verdict(None, &[], false, false), Verdict::Ask { older: false });
        assert_eq!(verdict(None, &[(99, "21T11:00:00")], false, false), Verdict::Ask { older: true });
    }

    #[test]
    fn a_record_that_older_ones_outlive_is_of_another_stream() {
        assert_eq!(verdict(None, &[(99, "21T11:00:00"), (101, "21T11:00:00")], false, false), Verdict::Foreign);
        assert_eq!(verdict(None, &[(101, "21T11:00:00")], false, true), Verdict::Foreign);
        assert_eq!(verdict(Some("21T11:59:00"), &[], true, true), Verdict::Foreign);
    }

    #[test]
    fn what_was_trimmed_is_lost_unless_it_is_known_to_be_read() {
        let first = [(200, "20T13:00:00")];
        assert_eq!(verdict(None, &first, false, false), lost(None, "20T13:00:00"));
        assert_eq!(verdict(Some("20T11:00:00"), &first, false, false), lost(Some("20T11:00:00"), "20T13:00:00"));
        // The stream keeps what arrived from 20T12:00:00 on.
        assert_eq!(verdict(Some("20T12:00:59"), &first, false, false), lost(Some("20T12:00:59"), "20T13:00:00"));
        assert_eq!(verdict(Some("20T12:01:00"), &first, false, false), Verdict::NothingLost);
    }

    #[test]
    fn a_gap_with_nothing_behind_it_is_one_too() {
        assert_eq!(verdict(Some("20T11:00:00"), &[], true, false), lost(Some("20T11:00:00"), "21T12:00:00"));
        assert_eq!(verdict(Some("21T11:00:00"), &[], true, false), Verdict::NothingLost);
    }

    #[test]
    fn without_a_record_to_look_for_nothing_is_missed() {
        let known = Known { after: &Checkpoint::TrimHorizon, read_through: None, retention: DAY, older: false };
        let found = Found { records: &[], no_more: true, asked: time("21T12:00:00") };
        assert_eq!(judge(known, found), Verdict::There);
    }

    #[test]
    fn a_reader_that_the_stream_forgets_faster_than_is_overtaken() {
        let after = Checkpoint::at(Position::new(100), b"x");
        let gap = |read_through: Option<&str>, first: &[&str]| {
            let records: Vec<_> = first.iter().map(|arrival| (SequenceNumber::from(200), time(arrival))).collect();
            let found = Found { records: &records, no_more: false, asked: time("21T12:00:00") };
            let read_through = read_through.map(time);
            overtaken(Known { after: &after, read_through, retention: DAY, older: false }, found)
        };
        // The stream keeps what arrived from 20T12:00:00 on, by its own clock.
        let lost = gap(Some("20T11:00:00"), &["20T12:30:00"]).unwrap();
        assert_eq!((lost.from, lost.until), (Some(time("20T11:00:00")), time("20T12:30:00")));
        assert_eq!(gap(Some("20T11:00:00"), &["20T11:00:01"]), None, "it has not forgotten yet");
        assert_eq!(gap(Some("20T11:59:30"), &["20T12:30:00"]), None, "clocks differ");
        assert_eq!(gap(Some("20T13:00:00"), &["21T12:00:00"]), None);
        assert_eq!(gap(Some("20T11:00:00"), &[]), None, "not before there is a record behind it");
        assert_eq!(gap(None, &["20T12:30:00"]), None, "nothing was read before");
    }

    #[test]
    fn a_retention_longer_than_time_itself_loses_nothing() {
        assert!(!may_be_lost(Some(Timestamp::UNIX_EPOCH), time("21T12:00:00"), Duration::MAX));
    }
}
