//! 6. Rows become the bytes of an object. Pure and deterministic: the same rows under the same layout give the same
//!    bytes, however they were handed over.
//!
//! | file | holds |
//! |---|---|
//! | `schema.rs` | the columns, in one table that writers, readers and DDL follow |
//! | `keys.rs` | what objects are called, and which partition a row is in |
//! | `object.rs`, `batch.rs` | one object being written; all objects of a batch |
//! | `parquet.rs` (`chunk.rs`, `pages.rs`, `segments.rs`), `json.rs`, `reject.rs` | the formats |
//! | `read.rs` | the way back |
//! | `ddl.rs` | the SQL that opens it all |

mod batch;
mod chunk;
mod compress;
pub mod ddl;
mod json;
pub mod keys;
mod layout;
mod object;
mod pages;
mod parquet;
pub mod read;
mod reject;
#[cfg(test)]
mod samples;
pub mod schema;
mod segments;
pub mod time_text;

use jiff::Timestamp;

pub use batch::{BatchEncoder, FinishedObject};
pub use layout::{Compression, Format, Layout, PartitionKey};
pub use object::{EncodedObject, ObjectEncoder};
pub use parquet::CREATED_BY;
pub use reject::{REJECT_FIELDS, RejectRow};
pub use segments::Pieces;

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
    /// See [`Payload::source_message`](crate::source::Payload::source_message).
    pub source_message: Option<&'a str>,
    /// Whether its identity had been claimed by another event: adds the note `dedupe_conflict` (RECORDS.md N11).
    pub conflict: bool,
}

/// Why rows could not be encoded. Neither can be helped by trying again.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The layout asks for what does not exist.
    #[error("{0}")]
    Layout(String),
    /// A Parquet writer refused.
    #[error("parquet: {0}")]
    Parquet(#[from] ::parquet::errors::ParquetError),
    /// A compressor refused.
    #[error("compression: {0}")]
    Compression(#[from] std::io::Error),
}

/// An estimate as a number of bytes; never below zero.
fn whole_bytes(estimate: f64) -> u64 {
    // A cast of a float goes no further than the integer's ends.
    #[allow(clippy::cast_sign_loss)]
    let bytes = estimate as u64;
    bytes
}
