//! 6. Rows become the bytes of an object. Pure and deterministic: the same rows under the same layout give the same
//! bytes, however they were handed over.

mod layout;

use jiff::Timestamp;

pub use layout::{Compression, Format, Layout, PartitionKey};

use crate::record::Record;
use crate::source::{RecordPosition, ShardId};

/// A canonical record and where it came from: one row of the archive. `source_label` and `source_kind` stand in the
/// [`Layout`].
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// The record.
    pub record: &'a Record<'a>,
    /// The shard it was read from.
    pub shard: &'a ShardId,
    /// Its place there.
    pub position: RecordPosition<'a>,
    /// When the stream received it.
    pub arrival: Timestamp,
}
