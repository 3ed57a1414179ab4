//! 8. Who reads which shard, and how far they got: the [`LeaseStore`] port.

pub mod dynamodb;
pub mod embedded;
mod held;
pub mod memory;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::batch::Window;
use crate::digest::Digest;
use crate::encode::Layout;
use crate::ops::identity::random_bytes;
use crate::source::{Checkpoint, HashRange, Position, Range, ShardId};

pub use held::{Holding, Lease, ask_for};

/// A worker's name; no two live workers share one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(SmolStr);

impl WorkerId {
    /// The worker of this name.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(SmolStr::new(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Records that the source no longer had when they were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The last payload that was read before it.
    pub after: Checkpoint,
    /// When the last record before it arrived, where known.
    pub from: Option<Timestamp>,
    /// When the first record behind it arrived.
    pub until: Timestamp,
}

/// A batch that is prepared and not yet committed: from here on its range and its object keys are fixed, whoever
/// finishes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its number.
    pub batch_seq: u64,
    /// Its payloads.
    pub range: Range,
    /// Whether the shard ends with it.
    pub shard_end: bool,
    /// Its window; names its objects.
    pub window: Window,
    /// The arrival time of its first payload, which a source without arrival times of its own gives again on replay.
    pub arrival: Timestamp,
    /// What decides its keys and rows.
    pub layout: Layout,
    /// What was missing in front of it.
    pub gap: Option<Gap>,
}

impl Pending {
    /// Whether it holds no payloads: it says that the shard ended, or that something is missing, and can be finished
    /// though the source has the shard no more.
    pub fn holds_nothing(&self) -> bool {
        self.range.after == self.range.through
    }
}

/// A batch of which objects stand in the archive, and of which nothing else is known any more: its lease row was lost
/// before its manifest was put. The next batch of the shard takes up what stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOver {
    /// Its window; names its objects.
    pub window: Window,
    /// The last payload that left something in an object. Read up to here and no further, the batch has the very rows
    /// that stand.
    pub through: Position,
    /// What decides its keys and rows, as far as its objects tell; what they don't is as configured when it was found.
    pub layout: Layout,
    /// The folders in which an object of events stood: which records the batch has there is settled.
    #[serde(default)]
    pub partitions: BTreeSet<String>,
}

/// That whoever had the lease met an error that it could not get past, and gave it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// When.
    pub at: Timestamp,
    /// Why, as the log says it.
    pub error: String,
}

/// The longest reason that is kept, in characters: rows are read often.
const LONGEST_REASON: usize = 1000;

impl Stop {
    /// Now, for this reason.
    pub fn new(at: Timestamp, error: &dyn fmt::Display) -> Self {
        Self { at, error: error.to_string().chars().take(LONGEST_REASON).collect() }
    }
}

/// A proof whose chain heads were kept, and found in the archive again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// When the proof began.
    pub began: Timestamp,
    /// How many batches the shard had then.
    pub batches: u64,
}

/// One shard's row. Looking at a row is not holding its lease: a `Lease` is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRow {
    /// The shard; the row's key.
    pub shard: ShardId,
    /// The shards it came from.
    pub parents: Vec<ShardId>,
    /// Who holds the lease, if anyone does.
    pub owner: Option<WorkerId>,
    /// Grows with every write; every write is on condition of its value.
    pub counter: u64,
    /// Everything up to here is in the archive.
    pub checkpoint: Checkpoint,
    /// The shard has ended and its end is committed.
    pub ended: bool,
    /// The number of the next batch.
    pub batch_seq: u64,
    /// The SHA-256 of the newest manifest.
    pub chain_head: Option<Digest>,
    /// The batch under way.
    pub pending: Option<Pending>,
    /// What is left of a batch that was under way when the row before this one was lost; stays until that is committed.
    #[serde(default)]
    pub left_over: Option<LeftOver>,
    /// When the lease was last given up, everything that the shard held then was in the archive, or its loss was: a source
    /// that no longer has the shard has lost nothing more. Of a shard that has to end before it goes, as those of streams
    /// have, only the second is known.
    #[serde(default)]
    pub caught_up: bool,
    /// The time up to which the shard is known to be archived: the arrival of the last committed record, or, where it
    /// is caught up and nothing is open, the last time that it was looked at. A source that no longer has the payload
    /// at the checkpoint has lost nothing that arrived until then.
    #[serde(default)]
    pub read_through: Option<Timestamp>,
    /// Who asks for the lease: its owner commits what is open and gives it up.
    #[serde(default)]
    pub wanted_by: Option<WorkerId>,
    /// How long its lease lasts without being renewed, by its owner's configuration: another worker's may say less.
    #[serde(default)]
    pub failover: Option<Duration>,
    /// When the owner took it. Never compared with a clock: of two leases it tells the one that moved last.
    #[serde(default)]
    pub taken_at: Option<Timestamp>,
    /// How often the lease changed hands since its checkpoint last moved.
    #[serde(default)]
    pub switches: u64,
    /// The shards that came from it, where it has ended.
    #[serde(default)]
    pub children: Vec<ShardId>,
    /// Its share of a stream that is split by hash keys.
    #[serde(default)]
    pub hash_range: Option<HashRange>,
    /// What its positions belong to ([`crate::source::Source::origin`]).
    #[serde(default)]
    pub origin: Option<SmolStr>,
    /// The row was made anew from the archive when this was its next batch: what the archive had lost by then, nobody
    /// can tell.
    #[serde(default)]
    pub remade_at: Option<u64>,
    /// What the archive was compared with before the row was made anew.
    #[serde(default)]
    pub compared: Option<Compared>,
    /// What the shard stopped at, until something of it is committed again, or all that it holds is. For people: nobody
    /// decides by it.
    #[serde(default)]
    pub stopped: Option<Stop>,
}

impl LeaseRow {
    /// Whether the row was made anew from the archive, and nobody has had its lease since. Whoever had the one that was
    /// lost may still be at work.
    pub fn is_untouched(&self) -> bool {
        self.remade_at == Some(self.batch_seq) && self.owner.is_none() && self.taken_at.is_none()
    }

    /// Whether nothing of the shard is archived by what the row says, and nobody has had its lease yet.
    pub fn is_new(&self) -> bool {
        self.batch_seq == 0 && !self.ended && self.owner.is_none() && self.taken_at.is_none()
    }

    /// Refuses a row whose positions mean nothing in what is read now.
    pub fn check_origin(&self, read: Option<&str>) -> Result<(), OtherOrigin> {
        match (self.origin.as_deref(), read) {
            (Some(archived), Some(read)) if archived != read => {
                Err(OtherOrigin { archived: archived.into(), read: read.into() })
            }
            _ => Ok(()),
        }
    }
}

impl LeaseRow {
    /// A row for a shard of which nothing has been read.
    pub fn new(shard: ShardId, parents: Vec<ShardId>) -> Self {
        Self {
            shard,
            parents,
            owner: None,
            counter: 0,
            checkpoint: Checkpoint::TrimHorizon,
            ended: false,
            batch_seq: 0,
            chain_head: None,
            pending: None,
            left_over: None,
            caught_up: false,
            read_through: None,
            wanted_by: None,
            failover: None,
            taken_at: None,
            switches: 0,
            children: Vec::new(),
            hash_range: None,
            origin: None,
            remade_at: None,
            compared: None,
            stopped: None,
        }
    }
}

/// The row is another source's.
#[derive(Debug, thiserror::Error)]
#[error("it was archived from {archived}, and {read} is read now: {}", self.advice())]
pub struct OtherOrigin {
    /// Where its positions belong.
    pub archived: String,
    /// What is read now.
    pub read: String,
}

impl OtherOrigin {
    /// What it means, and what to do.
    fn advice(&self) -> &'static str {
        // A stream's name is the same however often it is made; when that was stands behind it.
        let name = |origin: &str| origin.rsplit_once('@').map(|(name, _)| name.to_owned());
        if name(&self.archived).is_some_and(|archived| name(&self.read) == Some(archived)) {
            "a stream that was deleted and made again under its name has other records in shards of the same names; archive \
             it under another archive.s3.prefix (or path), with other state"
        } else {
            "that is another source, and an archive has one; set source.kind and its stream or subscription to what it was \
             archived from, or archive this one under another archive.s3.prefix (or path), with other state"
        }
    }
}

/// There are lease rows of another source than the one that is read now.
#[derive(Debug, thiserror::Error)]
#[error("the row of {shard}: {}", self.said())]
pub struct OtherRows {
    /// The shard of the first of them.
    pub shard: ShardId,
    /// What is wrong with it.
    pub other: OtherOrigin,
    /// Whether there are rows of the source that is read now, too.
    pub mixed: bool,
}

impl OtherRows {
    /// Refuses rows of which any is another source's, also where rows of this one stand beside it, as after two that began at
    /// the same moment: shards that stop one by one are seen later than a start that fails.
    pub fn check(rows: &[LeaseRow], read: Option<&str>) -> Result<(), Self> {
        let mixed = rows.iter().any(|row| row.origin.is_some() && row.origin.as_deref() == read);
        let other = |row: &LeaseRow| {
            let other = row.check_origin(read).err()?;
            Some(Self { shard: row.shard.clone(), other, mixed })
        };
        rows.iter().find_map(other).map_or(Ok(()), Err)
    }

    fn said(&self) -> String {
        if !self.mixed {
            return self.other.to_string();
        }
        let OtherOrigin { archived, read } = &self.other;
        format!(
            "it was archived from {archived}, other rows from {read}, which is read now: an archive has one source; stop the \
             workers of both, give one of the two another archive.s3.prefix (or path) and other state, and remove its rows here"
        )
    }
}

/// The shard of the row that `check` makes and removes; no source has one of this name. Should it be kept from removing
/// it, the row is nobody's, and those who list rows pass it over.
pub const TRIAL_SHARD: &str = "audit-log-access-test";

/// What the counter of a row begins with that may take the place of a lost one. Never the same twice: a worker that slept
/// meanwhile must not find the counter it remembers. Whole numbers up to 2^53 are exact in every program that may read them.
pub fn first_counter() -> u64 {
    u64::from(u32::from_le_bytes(random_bytes())) << 16
}

/// Why a row could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The row is not as the condition says: someone else wrote it, or an earlier attempt of ours did.
    #[error("the lease row of {shard} has moved on")]
    Conflict {
        /// The row's shard.
        shard: ShardId,
    },
    /// The same call may succeed later; whether it took effect is unknown.
    #[error("the lease table is unavailable: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// What is stored can't be understood; a human is needed.
    #[error("the lease row of {shard} is damaged: {reason}")]
    Damaged {
        /// The row's shard.
        shard: ShardId,
        /// What is wrong.
        reason: String,
    },
    /// The table does not do as it is told, and won't by itself: a permission, a table that is not ours. A human is
    /// needed.
    #[error("the lease table refuses: {reason}")]
    Refused {
        /// What happened, where, and what can be done.
        reason: String,
    },
    /// The table is not there any more, and all leases with it. Who starts anew makes it again, from the archive.
    #[error("the lease table is lost: {reason}")]
    Lost {
        /// What happened, where, and what can be done.
        reason: String,
    },
}

impl LeaseError {
    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// The shard whose row it is about, where it is about one.
    pub fn shard(&self) -> Option<&ShardId> {
        match self {
            Self::Conflict { shard } | Self::Damaged { shard, .. } => Some(shard),
            Self::Unavailable { .. } | Self::Refused { .. } | Self::Lost { .. } => None,
        }
    }
}

/// The rows of a table.
#[derive(Debug, Default)]
pub struct Listing {
    /// Those that can be read, in the order of their shards.
    pub rows: Vec<LeaseRow>,
    /// What is wrong with the others: each is [`LeaseError::Damaged`].
    pub damaged: Vec<LeaseError>,
}

impl Listing {
    /// All rows, where all can be read.
    pub fn whole(self) -> Result<Vec<LeaseRow>, LeaseError> {
        self.damaged.into_iter().next().map_or(Ok(self.rows), Err)
    }
}

/// Where lease rows are kept. Every write is conditional and atomic.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// All rows. One that is damaged hides none of the others.
    async fn look(&self) -> Result<Listing, LeaseError>;

    /// All rows, in the order of their shards; [`LeaseError::Damaged`] where one can't be read.
    async fn list(&self) -> Result<Vec<LeaseRow>, LeaseError> {
        self.look().await?.whole()
    }

    /// One row.
    async fn get(&self, shard: &ShardId) -> Result<Option<LeaseRow>, LeaseError>;

    /// Writes a row that is not there yet; [`LeaseError::Conflict`] where it is.
    async fn create(&self, row: &LeaseRow) -> Result<(), LeaseError>;

    /// Replaces the row, on condition that the stored counter is `row.counter - 1`; [`LeaseError::Conflict`]
    /// otherwise. Durable once it returns.
    async fn replace(&self, row: &LeaseRow) -> Result<(), LeaseError>;

    /// Removes the row, on condition that the stored counter is `row.counter`; [`LeaseError::Conflict`] otherwise, also
    /// where there is no row.
    async fn remove(&self, row: &LeaseRow) -> Result<(), LeaseError>;

    /// Whether no other worker can be alive while this store is open, so that an owner in a row is a dead one.
    fn sole_worker(&self) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(origins: &[Option<&str>]) -> Vec<LeaseRow> {
        let row = |(n, origin): (usize, Option<&str>)| LeaseRow {
            origin: origin.map(Into::into),
            ..LeaseRow::new(ShardId::new(format!("shard-{n}")), Vec::new())
        };
        origins.iter().copied().enumerate().map(row).collect()
    }

    #[test]
    fn a_source_is_refused_where_anything_came_from_another() {
        let refused = |origins: &[Option<&str>], read: &str| OtherRows::check(&rows(origins), Some(read)).is_err();
        assert!(refused(&[Some("spool")], "arn@1"));
        assert!(refused(&[None, Some("arn@1")], "arn@2"));
        assert!(!refused(&[], "arn@1"));
        assert!(!refused(&[None], "arn@1"), "rows of an earlier build say nothing");
        assert!(!refused(&[Some("arn@1"), None], "arn@1"));
        assert!(!refused(&[Some("file")], "file"));
        assert!(OtherRows::check(&rows(&[Some("arn@1")]), None).is_ok());
    }

    #[test]
    fn of_rows_of_two_sources_one_is_named_and_what_to_do() {
        for (read, other, archived) in [("arn@1", "shard-1", "spool"), ("spool", "shard-0", "arn@1")] {
            let error = OtherRows::check(&rows(&[Some("arn@1"), Some("spool")]), Some(read)).unwrap_err();
            let said = error.to_string();
            let begins =
                format!("the row of {other}: it was archived from {archived}, other rows from {read}, which is read");
            assert!(said.starts_with(&begins), "{said}");
            assert!(said.contains("stop the workers of both") && said.contains("remove its rows here"), "{said}");
        }
        let error = OtherRows::check(&rows(&[None, Some("spool")]), Some("file")).unwrap_err().to_string();
        let begins = "the row of shard-1: it was archived from spool, and file is read now: that is another source";
        assert!(error.starts_with(begins), "{error}");
    }

    #[test]
    fn another_source_is_told_from_a_stream_that_was_made_again() {
        let says =
            |archived: &str, read: &str| OtherOrigin { archived: archived.into(), read: read.into() }.to_string();
        let (again, another) = ("made again under its name", "another source, and an archive has one; set source.kind");
        assert!(says("arn:stream/a@2026-01-01T00:00:00Z", "arn:stream/a@2026-02-01T00:00:00Z").contains(again));
        for (archived, read) in
            [("arn:stream/a@1", "arn:stream/b@1"), ("spool", "arn:stream/a@1"), ("arn:stream/a@1", "spool")]
        {
            let said = says(archived, read);
            assert!(said.contains(another) && !said.contains(again), "{said}");
        }
    }
}
