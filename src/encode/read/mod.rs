//! The way back: the rows of an object, for verification, recovery and rebuilding. Streams; holds one batch of rows.
//!
//! Check an object's digest first where there is one: a damaged object is then found by its bytes, and what is read
//! here is what was written.

mod columns;
mod lines;

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde::de::value::{Error as WordError, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer};

use super::keys::{Encoding, REJECTED_PREFIX};
use super::schema::CONFLICT_NOTE;
use crate::record::{DetailsSource, Outcome, PrincipalType, Record, RejectReason};
use crate::source::{Position, RecordPosition, SequenceNumber, ShardId};

use columns::BatchRows;
use lines::Lines;

/// How many rows are decoded at a time.
const BATCH_ROWS: usize = 1_024;

/// Which columns are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// What tells rows apart: identity, place, times, and whether they are conflicts.
    Keys,
    /// Those, and what the identity core is made of (RECORDS.md N11).
    Core,
}

/// A row of the archive, as far as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedRow {
    /// Verbatim.
    pub log_id: Option<String>,
    /// 0 where the record has none.
    pub version: i32,
    /// In Parquet, cut to microseconds.
    pub emit_time: Option<Timestamp>,
    /// When the stream received it; in Parquet, cut to microseconds.
    pub arrival: Timestamp,
    /// The shard it was read from.
    pub shard: ShardId,
    /// Its payload's place there.
    pub payload: Position,
    /// Its index within the payload.
    pub index: u32,
    /// Whether it carries the note `dedupe_conflict`.
    pub conflict: bool,
    /// What [`Projection::Core`] adds.
    pub core: Option<ArchivedCore>,
}

/// The columns of the identity core, and the record's own text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchivedCore {
    /// See [`Record`], as all the others.
    pub operation_canonical: Option<String>,
    /// What came of the operation.
    pub outcome: Outcome,
    /// The kind of principal.
    pub principal_type: Option<PrincipalType>,
    /// The principal's id.
    pub principal_id: Option<String>,
    /// The principal's name.
    pub principal_name: Option<String>,
    /// The API key that was used.
    pub principal_api_key_id: Option<String>,
    /// Verbatim.
    pub async_operation_id: Option<String>,
    /// The client's address.
    pub client_ip: Option<String>,
    /// JSON text.
    pub details: Option<String>,
    /// Which field `details` is.
    pub details_source: DetailsSource,
    /// The record's own text, where the archive keeps it.
    pub raw: Option<String>,
}

impl ArchivedRow {
    /// Its place in its shard.
    pub fn position(&self) -> RecordPosition<'_> {
        self.payload.record(self.index)
    }

    /// A record with the fields that were read, all others at their defaults: enough for its identity and its core.
    pub fn record(&self) -> Record<'_> {
        let mut record = Record {
            log_id: self.log_id.as_deref().map(Into::into),
            version: self.version,
            emit_time: self.emit_time,
            ..Record::default()
        };
        if let Some(core) = &self.core {
            record.operation_canonical = core.operation_canonical.as_deref().map(Into::into);
            record.outcome = core.outcome;
            record.principal_type = core.principal_type;
            record.principal_id = core.principal_id.as_deref().map(Into::into);
            record.principal_name = core.principal_name.as_deref().map(Into::into);
            record.principal_api_key_id = core.principal_api_key_id.as_deref().map(Into::into);
            record.async_operation_id = core.async_operation_id.as_deref().map(Into::into);
            record.client_ip = core.client_ip.as_deref().map(Into::into);
            record.details = core.details.as_deref().map(Into::into);
            record.details_source = core.details_source;
            record.raw = core.raw.as_deref().unwrap_or_default().into();
        }
        record
    }
}

/// A reject of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedReject {
    /// Why.
    pub reason: RejectReason,
    /// The shard it was read from.
    pub shard: ShardId,
    /// Its payload's place there.
    pub payload: Position,
    /// Its index within the payload.
    pub index: u32,
    /// When the stream received it.
    pub arrival: Timestamp,
    /// Its bytes.
    pub raw: Bytes,
}

/// Why an object can't be read as what its key says.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The key ends with no format that the archive has.
    #[error("no known format: {key}")]
    UnknownFormat {
        /// The object's key.
        key: String,
    },
    /// The bytes are no file of that format, or a damaged one.
    #[error("not readable as {format}: {reason}")]
    Damaged {
        /// The format that the key says.
        format: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// A column is missing or of another type.
    #[error("column {column}: {reason}")]
    Column {
        /// Its name.
        column: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A row is not what a row of the archive looks like.
    #[error("row {row}: {reason}")]
    Row {
        /// Its number, from 0.
        row: u64,
        /// What is wrong with it.
        reason: String,
    },
}

impl ReadError {
    fn damaged(format: &'static str, reason: impl fmt::Display) -> Self {
        Self::Damaged { format, reason: reason.to_string() }
    }
}

/// The rows of an object of events, in order. Ends with the first error.
pub struct RowReader {
    rows: Rows,
    projection: Projection,
    next_row: u64,
    failed: bool,
}

enum Rows {
    Parquet { batches: Box<ParquetRecordBatchReader>, batch: Option<Box<BatchRows>>, next: usize },
    Lines(Lines),
}

/// Opens an object of events by the format that its key ends with. Any other object under that key fails here or at its
/// first row.
pub fn read_rows(bytes: Bytes, key: &str, projection: Projection) -> Result<RowReader, ReadError> {
    let (_, encoding) = Encoding::split(key).ok_or_else(|| ReadError::UnknownFormat { key: key.to_owned() })?;
    let rows = match encoding {
        Encoding::Parquet => open_parquet(bytes, projection)?,
        _ => Rows::Lines(Lines::open(bytes, encoding)?),
    };
    Ok(RowReader { rows, projection, next_row: 0, failed: false })
}

fn open_parquet(bytes: Bytes, projection: Projection) -> Result<Rows, ReadError> {
    let damaged = |error| ReadError::damaged("parquet", error);
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(damaged)?;
    let wanted = columns::names(projection);
    let fields = builder.parquet_schema().root_schema().get_fields();
    let mut roots = Vec::with_capacity(wanted.len());
    for column in wanted {
        let root = fields.iter().position(|field| field.name() == column);
        roots.push(root.ok_or_else(|| ReadError::Column { column, reason: "is not there".to_owned() })?);
    }
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let batches = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(damaged)?;
    Ok(Rows::Parquet { batches: Box::new(batches), batch: None, next: 0 })
}

impl RowReader {
    fn read(&mut self) -> Result<Option<ArchivedRow>, ReadError> {
        match &mut self.rows {
            Rows::Lines(lines) => lines.next(self.next_row)?.map(|line| lines::row(line, self.projection)).transpose(),
            Rows::Parquet { batches, batch, next } => loop {
                if let Some(rows) = batch.as_ref().filter(|rows| *next < rows.len()) {
                    *next += 1;
                    return rows.row(*next - 1).map(Some);
                }
                let Some(more) = batches.next() else { return Ok(None) };
                let more = more.map_err(|error| ReadError::damaged("parquet", error))?;
                *batch = Some(Box::new(BatchRows::new(&more, self.projection, self.next_row)?));
                *next = 0;
            },
        }
    }
}

impl Iterator for RowReader {
    type Item = Result<ArchivedRow, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.read().transpose();
        self.failed = matches!(row, Some(Err(_)));
        self.next_row += 1;
        row
    }
}

/// The rows of an object of rejects, in order. Ends with the first error.
pub fn read_rejects(bytes: Bytes) -> Result<impl Iterator<Item = Result<ArchivedReject, ReadError>>, ReadError> {
    let mut lines = Lines::open(bytes, Encoding::Ndjson)?;
    let mut failed = false;
    Ok((0..).map_while(move |row| {
        if failed {
            return None;
        }
        let reject = lines.next(row).and_then(|line| line.map(|line| lines::reject(line)).transpose()).transpose();
        failed = matches!(reject, Some(Err(_)));
        reject
    }))
}

/// Whether two objects of one key hold the same records in the same order: `log_id`, version, time, position and whether
/// they are conflicts, that is all that a manifest tells of them; of rejects the reason and position. Two attempts at one batch may differ in their bytes (another compressor's version) and
/// still be the same batch.
pub fn same_rows(a: Bytes, b: Bytes, key: &str) -> Result<bool, ReadError> {
    if a == b {
        return Ok(true);
    }
    if key.starts_with(REJECTED_PREFIX) {
        let what = |reject: ArchivedReject| (reject.reason, reject.shard, reject.payload, reject.index);
        return same(read_rejects(a)?, read_rejects(b)?, what);
    }
    let what =
        |row: ArchivedRow| (row.log_id, row.version, row.emit_time, row.shard, row.payload, row.index, row.conflict);
    same(read_rows(a, key, Projection::Keys)?, read_rows(b, key, Projection::Keys)?, what)
}

fn same<T, K: PartialEq>(
    mut a: impl Iterator<Item = Result<T, ReadError>>,
    mut b: impl Iterator<Item = Result<T, ReadError>>,
    what: impl Fn(T) -> K,
) -> Result<bool, ReadError> {
    loop {
        match (a.next().transpose()?, b.next().transpose()?) {
            (None, None) => return Ok(true),
            (Some(x), Some(y)) => {
                if what(x) != what(y) {
                    return Ok(false);
                }
            }
            _ => return Ok(false),
        }
    }
}

/// A printed position, in the one form in which it is printed.
fn parse_position(text: &str, row: u64) -> Result<(Position, u32), ReadError> {
    let read = || {
        let mut parts = text.split('/');
        let (sequence, sub_sequence, index) = (parts.next()?, parts.next()?, parts.next()?);
        let sequence = sequence.bytes().all(|b| b.is_ascii_digit()).then(|| SequenceNumber::new(sequence))?;
        let payload = Position { sequence, sub_sequence: sub_sequence.parse().ok()? };
        let index = index.parse().ok()?;
        (payload.record(index).to_string() == text).then_some((payload, index))
    };
    read().ok_or_else(|| ReadError::Row { row, reason: format!("source_position {text:?} is no position") })
}

/// One of the archive's words, by its serde name.
fn parse_word<T: DeserializeOwned>(text: &str, column: &str, row: u64) -> Result<T, ReadError> {
    let word: StrDeserializer<'_, WordError> = text.into_deserializer();
    T::deserialize(word).map_err(|_| ReadError::Row { row, reason: format!("{column} {text:?} is no such word") })
}

/// Whether the notes tell of a conflict.
fn is_conflict<'a>(mut notes: impl Iterator<Item = &'a str>) -> bool {
    notes.any(|note| note == CONFLICT_NOTE)
}

#[cfg(test)]
mod tests;
