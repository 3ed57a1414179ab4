//! The seam between the proof and the formats: what it needs to know of each row of an object.

use bytes::Bytes;
use jiff::Timestamp;

use crate::archive::manifest::ObjectKind;
use crate::source::{Position, ShardId};

/// What a row tells about where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowKey {
    /// Verbatim; none for a record without one, and for every reject.
    pub log_id: Option<String>,
    /// 0 where the record has none.
    pub version: i32,
    /// When the event happened; to the precision of the format.
    pub emit_time: Option<Timestamp>,
    /// The shard that it was read from.
    pub shard: ShardId,
    /// The payload that it was read from.
    pub position: Position,
    /// Its index in there.
    pub index: u32,
    /// Whether it carries the note `dedupe_conflict`: it is kept beside another record of its identity.
    pub conflict: bool,
}

/// The rows of an object, in their order. An error ends them.
pub type Rows = Box<dyn Iterator<Item = Result<RowKey, String>> + Send>;

/// Reads objects back.
pub trait RowReader: Send + Sync {
    /// The rows of the object `key`, whose bytes these are.
    ///
    /// # Errors
    /// Why the bytes are not an object of this kind and of the format that the key names, in one clause.
    fn rows(&self, kind: ObjectKind, key: &str, bytes: Bytes) -> Result<Rows, String>;
}
