//! 1. Payloads come in: the [`Source`] port.

pub mod file;
pub mod memory;
mod position;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

pub use position::{Checkpoint, Position, Range, RecordPosition, SequenceNumber};

/// A shard's name: a Kinesis shard id, a spool's name, or the path of a file below the source's directory (with `/`
/// between the parts).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(SmolStr);

impl ShardId {
    /// The shard of this name.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(SmolStr::new(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a source reads from; the archive's `source_kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Files of a directory.
    File,
    /// An Amazon Kinesis stream.
    Kinesis,
    /// A Google Pub/Sub subscription, by way of its spool.
    Pubsub,
}

impl SourceKind {
    /// The word used in configuration and in the archive.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Kinesis => "kinesis",
            Self::Pubsub => "pubsub",
        }
    }
}

/// A shard as its source lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its name.
    pub id: ShardId,
    /// The shards it came from; it is read only after all of them have ended.
    pub parents: Vec<ShardId>,
    /// Where it ended when it was listed, for a reader that is to stop there.
    pub end: Target,
}

/// The place at which a one-shot reader stops: everything before it is read, nothing behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The first sequence number that is *not* to be read (for a file: its length in bytes as it is stored).
    pub before: SequenceNumber,
    /// How many bytes lie before it, where the source knows; for showing progress.
    pub bytes: Option<u64>,
}

/// Where a reader begins and where it stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Everything up to here has been read. A source proves that it still has that payload (its digest), or says so.
    pub after: Checkpoint,
    /// Where to stop.
    pub until: Until,
    /// The arrival time to give to what is read, where the source has none of its own and is asked for a batch again.
    pub arrival: Option<Timestamp>,
}

/// Where a reader stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// Nowhere: it waits for more.
    Forever,
    /// At the place that was the shard's end when it was listed.
    Target(Target),
    /// Behind this payload: the end of a batch that is read again.
    Through(Checkpoint),
}

/// What a reader found next.
#[derive(Clone, Debug)]
pub struct Page {
    /// Payloads in order; may be none.
    pub payloads: Vec<Payload>,
    /// What comes after them.
    pub next: Next,
    /// The time up to which the shard is known to be read once these payloads are.
    pub read_through: Timestamp,
    /// How many bytes of the shard this page took, as the source stores them; for showing progress.
    pub bytes: u64,
    /// Payloads that the source no longer had, in front of these.
    pub gap: Option<crate::lease::Gap>,
}

/// What comes after a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More, at once.
    More,
    /// Nothing at the moment; asking again later may bring more.
    CaughtUp,
    /// Nothing: the place given by [`Until`] is reached.
    Reached,
    /// Nothing ever: the shard has ended.
    ShardEnd,
}

/// Why a source can't be read; by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The same call may succeed later.
    #[error("{shard}: {reason}")]
    Unavailable {
        /// What was read.
        shard: ShardId,
        /// What happened.
        reason: String,
    },
    /// A human is needed; the shard stays where it is.
    #[error("{shard}: {reason}")]
    Stopped {
        /// What was read.
        shard: ShardId,
        /// What is wrong, where, and what can be done.
        reason: String,
    },
}

/// Where payloads come from.
#[async_trait]
pub trait Source: Send + Sync {
    /// Every shard there is, with the place at which it ends now. Parents stand before their children.
    async fn shards(&self) -> Result<Vec<Shard>, SourceError>;

    /// A reader of one shard.
    async fn open(&self, shard: &ShardId, reading: Reading) -> Result<Box<dyn ShardReader>, SourceError>;
}

/// Reads one shard, in order.
#[async_trait]
pub trait ShardReader: Send {
    /// The next page. Cancelling the call loses nothing.
    async fn next(&mut self) -> Result<Page, SourceError>;
}

/// One unit of a stream: a Kinesis user record, a Pub/Sub message, a line (or a document of several lines) of a file.
/// It holds any number of JSON values (RECORDS.md, framing).
#[derive(Clone, Debug)]
pub struct Payload {
    /// Where it stands.
    pub position: Position,
    /// When the stream received it.
    pub arrival: Timestamp,
    /// Its bytes, as they came.
    pub data: Bytes,
}

impl Payload {
    /// The checkpoint of a reader that has read up to and including this payload.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::at(self.position.clone(), &self.data)
    }
}
