//! An object's bytes and rows held against what its manifest says of it. Pure.

use std::collections::HashSet;

use bytes::Bytes;
use jiff::Timestamp;

use super::identities::{Hash, Identifier};
use super::inventory::Job;
use super::reader::{RowKey, RowReader};
use super::report::Kind;
use crate::archive::manifest::ObjectKind;
use crate::digest::Digest;
use crate::ops::words::{counted, thousands};
use crate::source::Range;

/// How many strangers of an object are remembered one by one, to be named.
const REMEMBERED: usize = 64;

/// What an object turned out to be.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// All its rows.
    pub(super) rows: u64,
    /// Those with the note `dedupe_conflict`.
    pub(super) conflicts: u64,
    /// The identity of each event, and whether it is a stranger.
    pub(super) identities: Vec<(Hash, bool)>,
    pub(super) strangers: Strangers,
    /// What is wrong with it, apart from its strangers.
    pub(super) faults: Vec<(Kind, String)>,
}

/// Rows that are no part of their batch. They are reported at the end: one that is a copy is a duplicate and nothing
/// else.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    pub(super) count: u64,
    remembered: Vec<(Option<Hash>, String)>,
}

impl Strangers {
    fn add(&mut self, hash: Option<Hash>, why: impl FnOnce() -> String) {
        self.count += 1;
        if self.remembered.len() < REMEMBERED {
            self.remembered.push((hash, why()));
        }
    }

    /// What is to be said of those that are no copies; so many are, with these hashes.
    pub(super) fn explain(&self, copies: u64, hashes: &HashSet<Hash>) -> Option<String> {
        let rest = self.count.saturating_sub(copies);
        let mut named = self.remembered.iter().filter(|(hash, _)| hash.is_none_or(|hash| !hashes.contains(&hash)));
        let example = named.next().map_or(String::new(), |(_, why)| format!(": {why}, for one"));
        (rest > 0).then(|| format!("{rest} of its rows are not of its batch{example}"))
    }
}

/// The earliest and the latest of times, in whole microseconds: the archive's formats keep no more.
#[derive(Debug, Default, PartialEq, Eq)]
struct Times(Option<(i128, i128)>);

impl Times {
    fn add(&mut self, time: Timestamp) {
        let micros = time.as_nanosecond().div_euclid(1000);
        self.0 = Some(self.0.map_or((micros, micros), |(min, max)| (min.min(micros), max.max(micros))));
    }
}

/// Reads the object of `job`.
pub(super) fn read_object(job: &Job, bytes: Bytes, reader: &dyn RowReader, identifier: Identifier) -> Read {
    let object = &job.object;
    let mut read = Read::default();
    let digest = Digest::of(&bytes);
    if digest != object.sha256 {
        let detail = format!("its SHA-256 is {digest}, its manifest says {}", object.sha256);
        read.faults.push((Kind::AlteredObject, detail));
        // What it holds now says nothing about what it held.
        return read;
    }
    let mut times = Times::default();
    let unreadable = match reader.rows(object.kind, &object.key, bytes) {
        Ok(rows) => read_rows(job, rows, identifier, &mut read, &mut times).err(),
        Err(reason) => Some(reason),
    };
    if let Some(reason) = unreadable {
        let detail = format!("its digest is that of its manifest, yet it cannot be read: {reason}");
        read.faults.push((Kind::AlteredObject, detail));
    } else if read.rows != object.rows {
        let detail = format!("it holds {}, its manifest says {}", counted(read.rows, "row"), thousands(object.rows));
        read.faults.push((Kind::CountMismatch, detail));
    } else if object.kind == ObjectKind::Events && read.strangers.count == 0 {
        let mut said = Times::default();
        object.min_emit_time.into_iter().chain(object.max_emit_time).for_each(|time| said.add(time));
        if said != times {
            let detail = "its manifest's earliest or latest emit_time is not that of its rows".to_owned();
            read.faults.push((Kind::CountMismatch, detail));
        }
    }
    read
}

fn read_rows(
    job: &Job,
    rows: impl Iterator<Item = Result<RowKey, String>>,
    identifier: Identifier,
    read: &mut Read,
    times: &mut Times,
) -> Result<(), String> {
    for row in rows {
        let row = row?;
        read.rows += 1;
        read.conflicts += u64::from(row.conflict);
        row.emit_time.into_iter().for_each(|time| times.add(time));
        let stranger = stranger(job, &row);
        let mut hash = None;
        // A reject has no identity; whether it is its batch's is all there is to ask.
        if job.object.kind == ObjectKind::Events {
            let identity = identifier.hash(&row);
            read.identities.push((identity, stranger));
            hash = Some(identity);
        }
        if stranger {
            let place = row.position.record(row.index);
            let why = || format!("{} {place} is outside {} {}", row.shard, job.shard, job.range);
            read.strangers.add(hash, why);
        }
    }
    Ok(())
}

fn stranger(job: &Job, row: &RowKey) -> bool {
    let Range { after, through } = &job.range;
    let position = Some(&row.position);
    row.shard != job.shard || position <= after.position() || position > through.position()
}
