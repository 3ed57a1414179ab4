//! Rows out of Arrow columns.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, TimestampMicrosecondType};
use arrow_array::{Array, ListArray, PrimitiveArray, RecordBatch, StringArray};
use jiff::Timestamp;

use super::{ArchivedCore, ArchivedRow, Projection, ReadError, is_conflict, parse_position, parse_word};
use crate::source::ShardId;

const KEYS: [&str; 7] = ["log_id", "version", "emit_time", "notes", "source_shard", "source_position", "arrival_time"];
const CORE: [&str; 11] = [
    "operation_canonical",
    "outcome",
    "principal_type",
    "principal_id",
    "principal_name",
    "principal_api_key_id",
    "async_operation_id",
    "client_ip",
    "details",
    "details_source",
    "raw",
];

/// The columns that are read.
pub(super) fn names(projection: Projection) -> Vec<&'static str> {
    match projection {
        Projection::Keys => KEYS.to_vec(),
        Projection::Core => [KEYS.as_slice(), CORE.as_slice()].concat(),
    }
}

/// A batch's columns, each of the type that it must have.
pub(super) struct BatchRows {
    log_id: StringArray,
    version: PrimitiveArray<Int32Type>,
    emit_time: PrimitiveArray<TimestampMicrosecondType>,
    arrival: PrimitiveArray<TimestampMicrosecondType>,
    notes: ListArray,
    shard: StringArray,
    position: StringArray,
    core: Option<[StringArray; CORE.len()]>,
    first_row: u64,
}

impl BatchRows {
    /// `first_row` is the number of its first row in the object.
    pub(super) fn new(batch: &RecordBatch, projection: Projection, first_row: u64) -> Result<Self, ReadError> {
        let core = match projection {
            Projection::Keys => None,
            Projection::Core => {
                let mut arrays = Vec::with_capacity(CORE.len());
                for name in CORE {
                    arrays.push(text(batch, name)?);
                }
                Some(arrays.try_into().expect("one array was read for each name"))
            }
        };
        Ok(Self {
            log_id: text(batch, "log_id")?,
            version: typed(batch, "version", |array| array.as_primitive_opt().cloned())?,
            emit_time: typed(batch, "emit_time", |array| array.as_primitive_opt().cloned())?,
            arrival: typed(batch, "arrival_time", |array| array.as_primitive_opt().cloned())?,
            notes: typed(batch, "notes", |array| array.as_list_opt().cloned())?,
            shard: text(batch, "source_shard")?,
            position: text(batch, "source_position")?,
            core,
            first_row,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.version.len()
    }

    pub(super) fn row(&self, index: usize) -> Result<ArchivedRow, ReadError> {
        let row = self.first_row + index as u64;
        let wrong = |reason: &str| ReadError::Row { row, reason: reason.to_owned() };
        let required = |array: &StringArray, reason| value(array, index).ok_or_else(|| wrong(reason));
        let (payload, position) = parse_position(&required(&self.position, "source_position is null")?, row)?;
        let notes = self.notes.value(index);
        let notes = notes.as_string_opt::<i32>().ok_or_else(|| wrong("notes are no strings"))?;
        Ok(ArchivedRow {
            log_id: value(&self.log_id, index),
            version: self.version.value(index),
            emit_time: time(&self.emit_time, index).map_err(wrong)?,
            arrival: time(&self.arrival, index).map_err(wrong)?.ok_or_else(|| wrong("arrival_time is null"))?,
            shard: ShardId::new(required(&self.shard, "source_shard is null")?),
            payload,
            index: position,
            conflict: is_conflict(notes.iter().flatten()),
            core: self.core.as_ref().map(|core| core_of(core, index, row)).transpose()?,
        })
    }
}

fn core_of(arrays: &[StringArray; CORE.len()], index: usize, row: u64) -> Result<ArchivedCore, ReadError> {
    let [operation, outcome, kind, id, name, key, async_operation, client_ip, details, source, raw] = arrays;
    let word = |array, column: &str| {
        value(array, index).ok_or_else(|| ReadError::Row { row, reason: format!("{column} is null") })
    };
    Ok(ArchivedCore {
        operation_canonical: value(operation, index),
        outcome: parse_word(&word(outcome, "outcome")?, "outcome", row)?,
        principal_type: value(kind, index).map(|kind| parse_word(&kind, "principal_type", row)).transpose()?,
        principal_id: value(id, index),
        principal_name: value(name, index),
        principal_api_key_id: value(key, index),
        async_operation_id: value(async_operation, index),
        client_ip: value(client_ip, index),
        details: value(details, index),
        details_source: parse_word(&word(source, "details_source")?, "details_source", row)?,
        raw: value(raw, index),
    })
}

fn text(batch: &RecordBatch, column: &'static str) -> Result<StringArray, ReadError> {
    typed(batch, column, |array| array.as_string_opt::<i32>().cloned())
}

fn typed<T>(batch: &RecordBatch, column: &'static str, cast: impl Fn(&dyn Array) -> Option<T>) -> Result<T, ReadError> {
    let array = batch.column_by_name(column);
    let array = array.ok_or_else(|| ReadError::Column { column, reason: "is not there".to_owned() })?;
    cast(array).ok_or_else(|| ReadError::Column { column, reason: format!("is of type {}", array.data_type()) })
}

fn value(array: &StringArray, index: usize) -> Option<String> {
    array.is_valid(index).then(|| array.value(index).to_owned())
}

fn time(array: &PrimitiveArray<TimestampMicrosecondType>, index: usize) -> Result<Option<Timestamp>, &'static str> {
    let at = array.is_valid(index).then(|| Timestamp::from_microsecond(array.value(index)));
    at.transpose().map_err(|_| "a time lies outside the years -9999 to 9999")
}
