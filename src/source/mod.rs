//! 1. Payloads come in: the [`Source`] port.

pub mod file;
pub mod kinesis;
pub mod memory;
mod position;
pub mod pubsub;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::ops::memory::Reservation;

pub use position::{Checkpoint, InitialPosition, Position, Range, RecordPosition, SequenceNumber};

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

/// The hash keys that a shard of a Kinesis stream takes, both ends included: decimal numbers of 128 bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashRange {
    /// The first.
    pub start: SmolStr,
    /// The last.
    pub end: SmolStr,
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
    /// What it takes of a stream that is split by hash keys; shown in its lease row.
    pub hash_range: Option<HashRange>,
}

impl Shard {
    /// A shard of a source that does not split by hash keys.
    pub fn new(id: ShardId, parents: Vec<ShardId>, end: Target) -> Self {
        Self { id, parents, end, hash_range: None }
    }
}

/// The place at which a one-shot reader stops: everything before it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing behind it is read.
    Before {
        /// The first sequence number that is *not* to be read (for a file: its length in bytes as it is stored).
        sequence: SequenceNumber,
        /// How many bytes lie before it, where the source knows; for showing progress.
        bytes: Option<u64>,
    },
    /// The stream can't say where it ends. The reader stops at the first payload that arrived later than this, or
    /// where the stream says that it holds no more.
    Arrival(Timestamp),
}

impl Target {
    /// How many bytes lie before it, where the source knows.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::Before { bytes, .. } => *bytes,
            Self::Arrival(_) => None,
        }
    }
}

/// Where a reader begins and where it stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Everything up to here has been read. A source proves that it still has that payload (its digest), or says so.
    pub after: Checkpoint,
    /// The time up to which the shard is known to be read: a source that no longer has the payload at `after` has lost
    /// nothing if it still has all that arrived later than this.
    pub read_through: Option<Timestamp>,
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
    /// How far these payloads are behind the shard's tip, where the source says so.
    pub behind: Option<Duration>,
    /// What the page holds of the memory for pages; given back with its last copy.
    pub held: Option<Arc<Reservation>>,
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
    /// What the positions of its shards belong to: for a stream, which can be made again under its name, its ARN and when it
    /// was made. Lease rows and manifests keep it, and a worker refuses those of another.
    fn origin(&self) -> Option<&str> {
        None
    }

    /// Whether its shards may go without having ended, as files do.
    fn shards_just_go(&self) -> bool {
        self.origin().is_none()
    }

    /// For how long it keeps a payload, where it drops any.
    fn retention(&self) -> Option<Duration> {
        None
    }

    /// Every shard there is, with the place at which it ends now. Parents stand before their children.
    async fn shards(&self) -> Result<Vec<Shard>, SourceError>;

    /// Whether the shard is there, asked anew: it may be newer than a listing that does not show it.
    async fn has(&self, shard: &ShardId) -> Result<bool, SourceError> {
        Ok(self.shards().await?.iter().any(|listed| listed.id == *shard))
    }

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
    /// What a Pub/Sub message says beside its bytes, as canonical JSON text in one line; other sources have no such thing.
    /// It is the same whenever the payload is read. Each of its records is archived with it, and none is compared by it.
    pub source_message: Option<Arc<str>>,
    /// Its bytes, as they came.
    pub data: Bytes,
}

impl Payload {
    /// The checkpoint of a reader that has read up to and including this payload.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::at(self.position.clone(), &self.data)
    }

    /// How long the text of its `source_message` is, in bytes.
    pub fn source_message_length(&self) -> usize {
        self.source_message.as_ref().map_or(0, |text| text.len())
    }

    /// What it holds in memory, in bytes.
    pub fn weight(&self) -> u64 {
        (self.data.len() + self.source_message_length()) as u64
    }
}
