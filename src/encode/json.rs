//! Rows to NDJSON, one object a line, plain or as *one* gzip member or zstd frame (readers stop at the first of
//! several).

use std::borrow::Cow;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use flate2::{GzBuilder, write::GzEncoder};
use zstd::stream::write::Encoder as ZstdEncoder;

use super::schema::{self, COLUMNS, Value};
use super::time_text::write_rfc3339;
use super::{Compression, EncodeError, Layout, Row, whole_bytes};

/// Text gathers up to here before it may be compressed: a partition of a few rows holds no compressor.
const HELD_BYTES: usize = 256 << 10;
/// What text comes to before any has been compressed.
const FIRST_GUESS: f64 = 0.15;

/// One NDJSON object being written.
pub(super) struct JsonEncoder {
    layout: Arc<Layout>,
    /// Lines that the compressor has not seen; without compression, all of them.
    held: Vec<u8>,
    /// Where the pieces of them end that are full.
    full: Vec<usize>,
    compressor: Option<Compressor>,
    /// How much text the compressor has seen.
    fed: u64,
    position: String,
}

enum Compressor {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

/// Whether NDJSON can be written as the layout says.
pub(super) fn check(layout: &Layout) -> Result<(), EncodeError> {
    if layout.compression == Compression::Snappy {
        return Err(EncodeError::Layout("snappy is for parquet only; ndjson takes zstd, gzip or none".into()));
    }
    layout.level().map(drop)
}

impl JsonEncoder {
    pub(super) fn new(layout: Arc<Layout>) -> Self {
        Self { layout, held: Vec::new(), full: Vec::new(), compressor: None, fed: 0, position: String::new() }
    }

    /// Takes one row, without compressing anything.
    pub(super) fn append(&mut self, row: &Row<'_>) {
        write_row(&mut self.held, row, &self.layout, &mut self.position);
        let begun = self.held.len() - self.full.last().unwrap_or(&0);
        if self.layout.compression != Compression::None && begun >= HELD_BYTES {
            self.full.push(self.held.len());
        }
    }

    /// Whether full pieces wait to be compressed.
    pub(super) fn has_waiting(&self) -> bool {
        !self.full.is_empty()
    }

    /// Compresses the pieces that are full.
    pub(super) fn encode(&mut self) -> Result<(), EncodeError> {
        let mut begin = 0;
        for end in std::mem::take(&mut self.full) {
            self.compress(begin..end)?;
            begin = end;
        }
        self.held.drain(..begin);
        Ok(())
    }

    /// What the object would come to if it ended now, about.
    pub(super) fn encoded_bytes(&self) -> u64 {
        if self.layout.compression == Compression::None {
            return self.held.len() as u64;
        }
        let out = self.compressor.as_ref().map_or(0, |compressor| compressor.out().len()) as f64;
        let ratio = if self.fed == 0 { FIRST_GUESS } else { out / self.fed as f64 };
        whole_bytes(out + self.held.len() as f64 * ratio)
    }

    /// What is held on the heap.
    pub(super) fn memory_bytes(&self) -> u64 {
        let compressor = self.compressor.as_ref().map_or(0, |compressor| {
            compressor.out().capacity() as u64 + compressor.state_bytes(self.layout.compression_level)
        });
        self.held.capacity() as u64 + compressor + size_of::<Self>() as u64
    }

    /// The object.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, EncodeError> {
        if self.layout.compression == Compression::None {
            return Ok(self.held);
        }
        self.encode()?;
        self.compress(0..self.held.len())?;
        let compressor = self.compressor.take().expect("it was opened to compress");
        Ok(match compressor {
            Compressor::Gzip(encoder) => encoder.finish()?,
            Compressor::Zstd(encoder) => encoder.finish()?,
        })
    }

    fn compress(&mut self, piece: Range<usize>) -> Result<(), EncodeError> {
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            slot => slot.insert(Compressor::new(&self.layout)?),
        };
        self.fed += piece.len() as u64;
        compressor.write(&self.held[piece])?;
        Ok(())
    }
}

impl Compressor {
    fn new(layout: &Layout) -> Result<Self, EncodeError> {
        check(layout)?;
        Ok(if layout.compression == Compression::Gzip {
            // No name and no time of modification: nothing but the rows decides the bytes.
            let level = flate2::Compression::new(layout.compression_level.unsigned_abs());
            Self::Gzip(GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), level))
        } else {
            Self::Zstd(ZstdEncoder::new(Vec::new(), layout.compression_level)?)
        })
    }

    /// Compresses the text to its end. The flush costs a few bytes and makes the size so far known exactly; it falls
    /// where [`HELD_BYTES`] says, so the bytes still follow from the rows alone.
    fn write(&mut self, text: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(text).and_then(|()| encoder.flush()),
            Self::Zstd(encoder) => encoder.write_all(text).and_then(|()| encoder.flush()),
        }
    }

    fn out(&self) -> &Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_ref(),
            Self::Zstd(encoder) => encoder.get_ref(),
        }
    }

    /// What a compressor allocates: its window and tables, by level (zstd's `ZSTD_estimateCStreamSize`, rounded up).
    fn state_bytes(&self, level: i32) -> u64 {
        match (self, level) {
            (Self::Gzip(_), _) => 400 << 10,
            (Self::Zstd(_), ..=4) => 5 << 20,
            (Self::Zstd(_), 5..=9) => 16 << 20,
            (Self::Zstd(_), 10..=16) => 48 << 20,
            (Self::Zstd(_), _) => 256 << 20,
        }
    }
}

/// One line: every column in order, null where there is no value, `details`, `deprecated`, `unknown_fields` and
/// `source_message` as the JSON that they are.
fn write_row(out: &mut Vec<u8>, row: &Row<'_>, layout: &Layout, position: &mut String) {
    let mut before = b'{';
    for (column, value) in COLUMNS.iter().zip(schema::values(row, layout, position)) {
        out.push(before);
        before = b',';
        out.push(b'"');
        out.extend_from_slice(column.name.as_bytes());
        out.extend_from_slice(b"\":");
        write_value(out, value);
    }
    out.extend_from_slice(b"}\n");
}

/// One value, as JSON.
pub(super) fn write_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Text(None) | Value::Json(None) | Value::Time(None) => out.extend_from_slice(b"null"),
        Value::Int(number) => write!(out, "{number}").expect("a vector takes all that is written"),
        Value::Text(Some(text)) => write_string(out, text),
        // JSON text without line breaks, by the record's promise.
        Value::Json(Some(json)) => out.extend_from_slice(json.as_bytes()),
        Value::Time(Some(at)) => {
            out.push(b'"');
            write_rfc3339(out, at);
            out.push(b'"');
        }
        Value::TextList(items, last) => {
            let mut before = b'[';
            for item in items.iter().map(Cow::as_ref).chain(last) {
                out.push(before);
                before = b',';
                write_string(out, item);
            }
            if before == b'[' {
                out.push(b'[');
            }
            out.push(b']');
        }
    }
}

/// A JSON string; escapes only what JSON demands.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a vector takes all that is written");
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
