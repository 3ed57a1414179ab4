//! Rows on their way into column writers: one Arrow array builder a column.

use std::ops::AddAssign;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{ArrayBuilder, Int32Builder, ListBuilder, StringBuilder, TimestampMicrosecondBuilder};

use super::schema::{self, COLUMN_COUNT, COLUMNS, Column, ColumnType, Value};
use super::time_text::floor_micros;
use super::{Layout, Row};

/// A chunk is full with the row that reaches either bound. Each partition of a batch holds one, so it is small; each
/// costs a call into every column writer, so it is not tiny.
const CHUNK_ROWS: u64 = 1_024;
const CHUNK_BYTES: u64 = 1 << 20;

/// The rows of an object that no column writer has seen.
#[derive(Default)]
pub(super) struct Chunk {
    /// None before the first row: an idle partition holds nothing.
    columns: Vec<Builder>,
    extent: Extent,
    /// What the chunk before this one came to, which this one will come to as well.
    before: Extent,
    position: String,
}

/// How many rows there are, and their plain bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Extent {
    pub(super) rows: u64,
    /// By column.
    pub(super) plain: [u64; COLUMN_COUNT],
    /// All of them.
    pub(super) total: u64,
}

impl AddAssign for Extent {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.total += other.total;
        self.plain.iter_mut().zip(other.plain).for_each(|(sum, plain)| *sum += plain);
    }
}

/// A chunk as arrays.
pub(super) struct Finished {
    pub(super) arrays: Vec<ArrayRef>,
    pub(super) extent: Extent,
    /// Whether a row group ends in front of it, full or not.
    pub(super) begins_group: bool,
}

enum Builder {
    Int(Int32Builder),
    Text(StringBuilder),
    TextList(ListBuilder<StringBuilder>),
    Time(TimestampMicrosecondBuilder),
}

impl Chunk {
    pub(super) fn rows(&self) -> u64 {
        self.extent.rows
    }

    pub(super) fn plain_bytes(&self) -> u64 {
        self.extent.total
    }

    /// Whether it has reached either bound.
    pub(super) fn is_full(&self) -> bool {
        self.extent.rows >= CHUNK_ROWS || self.extent.total >= CHUNK_BYTES
    }

    pub(super) fn append(&mut self, row: &Row<'_>, layout: &Layout) {
        if self.columns.is_empty() {
            let Extent { rows, plain, .. } = self.before;
            let builder = |(index, column): (usize, &Column)| Builder::new(column.kind, index, rows, plain[index]);
            self.columns = COLUMNS.iter().enumerate().map(builder).collect();
        }
        let values = schema::values(row, layout, &mut self.position);
        for ((builder, plain), value) in self.columns.iter_mut().zip(&mut self.extent.plain).zip(values) {
            let bytes = value.plain_bytes();
            *plain += bytes;
            self.extent.total += bytes;
            builder.append(value);
        }
        self.extent.rows += 1;
    }

    /// The rows so far; the chunk is empty after it, and gives its memory back.
    pub(super) fn finish(&mut self) -> Finished {
        let extent = self.extent;
        let full = std::mem::replace(self, Self { before: extent, ..Self::default() });
        Finished { arrays: full.columns.into_iter().map(Builder::finish).collect(), extent, begins_group: false }
    }

    /// Builders double as they grow, so they may hold twice what is in them.
    pub(super) fn memory_bytes(&self) -> u64 {
        let begun = if self.extent.rows > 0 { self.before.total } else { 0 };
        begun.max(2 * self.extent.total) + (COLUMN_COUNT * size_of::<Builder>()) as u64
    }
}

impl Builder {
    /// With room for so many rows of so many plain bytes in all.
    fn new(kind: ColumnType, index: usize, rows: u64, plain: u64) -> Self {
        let (rows, bytes) = (rows as usize, plain as usize);
        match kind {
            ColumnType::Int => Self::Int(Int32Builder::with_capacity(rows)),
            ColumnType::Text | ColumnType::Json => Self::Text(StringBuilder::with_capacity(rows, bytes)),
            ColumnType::TextList => {
                let items = ListBuilder::with_capacity(StringBuilder::with_capacity(rows, bytes), rows);
                Self::TextList(items.with_field(schema::element_field(index)))
            }
            ColumnType::Time => Self::Time(TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC")),
        }
    }

    fn append(&mut self, value: Value<'_>) {
        match (self, value) {
            (Self::Int(builder), Value::Int(number)) => builder.append_value(number),
            (Self::Text(builder), Value::Text(text) | Value::Json(text)) => builder.append_option(text),
            (Self::Time(builder), Value::Time(at)) => builder.append_option(at.map(floor_micros)),
            (Self::TextList(builder), Value::TextList(items, last)) => {
                let items = items.iter().map(AsRef::as_ref).chain(last);
                items.for_each(|item| builder.values().append_value(item));
                builder.append(true);
            }
            _ => unreachable!("the values of a row stand in the order of the columns, which a test proves"),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Int(mut builder) => Arc::new(builder.finish()),
            Self::Text(mut builder) => Arc::new(builder.finish()),
            Self::TextList(mut builder) => ArrayBuilder::finish(&mut builder),
            Self::Time(mut builder) => Arc::new(builder.finish()),
        }
    }
}
