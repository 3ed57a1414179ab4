//! One object of event rows being written, whatever its format.

use std::sync::Arc;

use jiff::Timestamp;

use super::json::{self, JsonEncoder};
use super::parquet::{ParquetEncoder, ParquetSettings};
use super::segments::Pieces;
use super::{EncodeError, Format, Layout, Row};

/// An object's bytes and what a manifest tells about them.
#[derive(Clone, Debug)]
pub struct EncodedObject {
    /// The object.
    pub bytes: Pieces,
    /// How many rows it holds.
    pub rows: u64,
    /// The earliest `emit_time` among them, full precision.
    pub min_emit_time: Option<Timestamp>,
    /// The latest.
    pub max_emit_time: Option<Timestamp>,
}

/// What all objects of a batch share.
pub(super) struct Settings {
    pub(super) layout: Arc<Layout>,
    parquet: Option<Arc<ParquetSettings>>,
}

impl Settings {
    pub(super) fn new(layout: &Layout) -> Result<Self, EncodeError> {
        let parquet = match layout.format {
            Format::Parquet => Some(Arc::new(ParquetSettings::new(layout)?)),
            Format::Ndjson => {
                json::check(layout)?;
                None
            }
        };
        Ok(Self { layout: Arc::new(layout.clone()), parquet })
    }
}

/// Writes one object of event rows, in the order in which they are appended.
pub struct ObjectEncoder {
    format: Writer,
    rows: u64,
    emit_times: Option<(Timestamp, Timestamp)>,
}

enum Writer {
    Parquet(Box<ParquetEncoder>),
    Json(Box<JsonEncoder>),
}

impl ObjectEncoder {
    /// An empty object. Fails on a layout that can't be written; every layout it takes is written to the end.
    pub fn new(layout: &Layout) -> Result<Self, EncodeError> {
        Ok(Self::with(&Settings::new(layout)?))
    }

    pub(super) fn with(settings: &Settings) -> Self {
        let layout = Arc::clone(&settings.layout);
        let format = match &settings.parquet {
            Some(parquet) => Writer::Parquet(Box::new(ParquetEncoder::new(Arc::clone(parquet), layout))),
            None => Writer::Json(Box::new(JsonEncoder::new(layout))),
        };
        Self { format, rows: 0, emit_times: None }
    }

    /// Takes one row; whether it filled a chunk. Most of the work is left to [`ObjectEncoder::encode`].
    pub fn append(&mut self, row: &Row<'_>) -> bool {
        self.rows += 1;
        if let Some(at) = row.record.emit_time {
            let (min, max) = self.emit_times.unwrap_or((at, at));
            self.emit_times = Some((min.min(at), max.max(at)));
        }
        match &mut self.format {
            Writer::Parquet(writer) => writer.append(row),
            Writer::Json(writer) => {
                writer.append(row);
                false
            }
        }
    }

    /// The chunk that is filled next begins a row group, where there are such.
    pub(super) fn begin_group(&mut self) {
        match &mut self.format {
            Writer::Parquet(writer) => writer.begin_group(),
            Writer::Json(_) => {}
        }
    }

    /// Whether a row group is open.
    pub(super) fn is_open(&self) -> bool {
        match &self.format {
            Writer::Parquet(writer) => writer.is_open(),
            Writer::Json(_) => false,
        }
    }

    /// Encodes the full chunks and closes the row group. What comes next has to begin one.
    pub(super) fn end_group(&mut self) -> Result<(), EncodeError> {
        match &mut self.format {
            Writer::Parquet(writer) => writer.end_group(),
            Writer::Json(_) => Ok(()),
        }
    }

    /// Whether there are rows enough for [`ObjectEncoder::encode`] to do anything.
    pub(super) fn has_waiting(&self) -> bool {
        match &self.format {
            Writer::Parquet(writer) => writer.has_waiting(),
            Writer::Json(writer) => writer.has_waiting(),
        }
    }

    /// Encodes what has come, on as many threads as there are. When it is called changes no byte.
    pub fn encode(&mut self) -> Result<(), EncodeError> {
        match &mut self.format {
            Writer::Parquet(writer) => writer.encode(),
            Writer::Json(writer) => writer.encode(),
        }
    }

    /// What the object would come to, in bytes, if it ended now: within 20 % once 1,024 rows or a mebibyte of them are
    /// encoded; a guess before.
    pub fn encoded_bytes(&self) -> u64 {
        match &self.format {
            Writer::Parquet(writer) => writer.encoded_bytes(),
            Writer::Json(writer) => writer.encoded_bytes(),
        }
    }

    /// What it holds on the heap, in bytes, compressors included.
    pub fn memory_bytes(&self) -> u64 {
        match &self.format {
            Writer::Parquet(writer) => writer.memory_bytes(),
            Writer::Json(writer) => writer.memory_bytes(),
        }
    }

    /// The object.
    pub fn finish(self) -> Result<EncodedObject, EncodeError> {
        let bytes = match self.format {
            Writer::Parquet(writer) => writer.finish()?,
            Writer::Json(writer) => writer.finish()?.into(),
        };
        let (min_emit_time, max_emit_time) = self.emit_times.unzip();
        Ok(EncodedObject { bytes, rows: self.rows, min_emit_time, max_emit_time })
    }
}
