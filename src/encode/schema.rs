//! The archive's columns, in one place: writers, readers and the DDL follow this table (RECORDS.md, the canonical
//! record). A column's field id is its place in the table, from 1, for ever: once there has been a release,
//! new columns go to the end.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use jiff::Timestamp;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

use super::{Layout, Row};
use crate::record::{PrincipalType, SCHEMA_VERSION};

/// The note that a record carries whose identity another event had claimed (RECORDS.md N11).
pub const CONFLICT_NOTE: &str = "dedupe_conflict";

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// A 32-bit integer.
    Int,
    /// A string.
    Text,
    /// JSON text, a string in Parquet; in NDJSON the JSON itself.
    Json,
    /// A list of strings, neither it nor they null.
    TextList,
    /// An instant: microseconds UTC in Parquet, RFC 3339 with full precision in NDJSON.
    Time,
}

/// What is kept of a column beside its values, for readers that skip what they don't need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// Minimum and maximum, a row group and a page.
    MinMax,
    /// The same and a bloom filter.
    Bloom,
    /// Nothing: nobody looks for a whole document by its bounds, which would only bloat the footer.
    None,
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
    /// Whether its values repeat so much that a dictionary pays.
    pub dictionary: bool,
    /// What is kept for skipping.
    pub index: Index,
    /// One line for people.
    pub doc: &'static str,
}

const fn column(name: &'static str, kind: ColumnType, nullable: bool, dictionary: bool, doc: &'static str) -> Column {
    let index = if matches!(kind, ColumnType::Json) { Index::None } else { Index::MinMax };
    Column { name, kind, nullable, dictionary, index, doc }
}

impl Column {
    const fn index(mut self, index: Index) -> Self {
        self.index = index;
        self
    }
}

/// How many columns there are.
pub const COLUMN_COUNT: usize = 32;

/// Every column, in order.
pub const COLUMNS: [Column; COLUMN_COUNT] = {
    use ColumnType::{Int, Json, Text, TextList, Time};
    const NULL: bool = true;
    const REQUIRED: bool = false;
    const DICTIONARY: bool = true;
    const PLAIN: bool = false;
    [
        column("schema_version", Int, REQUIRED, DICTIONARY, "version of this table, 1"),
        column("log_id", Text, NULL, PLAIN, "the record's id, verbatim").index(Index::Bloom),
        column("version", Int, REQUIRED, DICTIONARY, "the record's version, 0 where it has none"),
        column("emit_time", Time, NULL, PLAIN, "when it happened"),
        column("operation", Text, NULL, DICTIONARY, "the operation, verbatim"),
        column("operation_canonical", Text, NULL, DICTIONARY, "the operation's name in the catalogue"),
        column("resource_category", Text, REQUIRED, DICTIONARY, "what kind of resource it concerns, or unknown"),
        column("action", Text, REQUIRED, DICTIONARY, "the verb: login, create, update, ..., other"),
        column("status", Text, NULL, DICTIONARY, "the status, verbatim"),
        column("outcome", Text, REQUIRED, DICTIONARY, "success, failure or unknown"),
        column("principal_type", Text, NULL, DICTIONARY, "user, service_account or other"),
        column("principal_id", Text, NULL, DICTIONARY, "who did it: the id"),
        column("principal_name", Text, NULL, DICTIONARY, "who did it: the name"),
        column("principal_api_key_id", Text, NULL, DICTIONARY, "the API key that was used"),
        column("actor_email", Text, NULL, DICTIONARY, "the name of a user, if it is an address"),
        column("x_forwarded_for", Text, NULL, DICTIONARY, "the addresses it came through, verbatim"),
        column("ip_chain", TextList, REQUIRED, DICTIONARY, "the same, cleaned and split"),
        column("client_ip", Text, NULL, DICTIONARY, "from the right, the first address outside the trusted proxies"),
        column("async_operation_id", Text, NULL, PLAIN, "the asynchronous operation it belongs to"),
        column("namespace", Text, NULL, DICTIONARY, "the namespace in its details"),
        column("details", Json, NULL, PLAIN, "raw_details, else details"),
        column("details_source", Text, REQUIRED, DICTIONARY, "raw_details, details or none"),
        column("deprecated", Json, REQUIRED, PLAIN, "deprecated fields that were present, verbatim"),
        column("unknown_fields", Json, REQUIRED, PLAIN, "fields that are not known"),
        column("notes", TextList, REQUIRED, DICTIONARY, "the decisions taken when the record was normalised"),
        column("source_label", Text, REQUIRED, DICTIONARY, "the configured label of the source"),
        column("source_kind", Text, REQUIRED, DICTIONARY, "file, kinesis or pubsub"),
        column("source_shard", Text, REQUIRED, DICTIONARY, "the shard it was read from"),
        column("source_position", Text, REQUIRED, PLAIN, "sequence number/sub-sequence/index within the payload"),
        column("arrival_time", Time, REQUIRED, PLAIN, "when the stream received it"),
        column("source_message", Json, NULL, PLAIN, "id, attributes and ordering key of the message it came in"),
        column("raw", Text, NULL, PLAIN, "the record's own JSON text; null where keep_raw is off").index(Index::None),
    ]
};

/// The place of a column in [`COLUMNS`].
pub fn column_index(name: &str) -> Option<usize> {
    COLUMNS.iter().position(|column| column.name == name)
}

/// The column's field id in Parquet: its place, from 1.
pub fn field_id(index: usize) -> usize {
    index + 1
}

/// The field id of a list's elements, far above those of columns to come.
pub fn element_field_id(index: usize) -> usize {
    1_000 + field_id(index)
}

/// The Arrow schema of every Parquet object. It depends on nothing: every file of every archive has it.
pub fn arrow_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let fields = COLUMNS.iter().enumerate().map(|(index, column)| {
            let kind = arrow_type(column.kind, index);
            with_id(Field::new(column.name, kind, column.nullable), field_id(index))
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    });
    Arc::clone(&SCHEMA)
}

/// The field of a list's elements. `element` is the name that the Parquet format prescribes.
pub(crate) fn element_field(index: usize) -> Field {
    with_id(Field::new("element", DataType::Utf8, false), element_field_id(index))
}

fn arrow_type(kind: ColumnType, index: usize) -> DataType {
    match kind {
        ColumnType::Int => DataType::Int32,
        ColumnType::Text | ColumnType::Json => DataType::Utf8,
        ColumnType::TextList => DataType::List(Arc::new(element_field(index))),
        ColumnType::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    }
}

fn with_id(field: Field, id: usize) -> Field {
    field.with_metadata(HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]))
}

/// One value of a row, as its column's type has it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Int(i32),
    Text(Option<&'a str>),
    Json(Option<&'a str>),
    /// The strings of a list, and one more behind them.
    TextList(&'a [Cow<'a, str>], Option<&'a str>),
    Time(Option<Timestamp>),
}

impl Value<'_> {
    /// The size that counts against batches of rows: text as it is, four bytes a string, eight for anything else.
    pub(crate) fn plain_bytes(&self) -> u64 {
        match self {
            Self::Int(_) | Self::Time(_) => 8,
            Self::Text(text) | Self::Json(text) => text.map_or(4, |text| text.len() as u64 + 4),
            Self::TextList(items, last) => {
                4 + items.iter().map(|item| item.len() as u64 + 4).sum::<u64>()
                    + last.map_or(0, |item| item.len() as u64 + 4)
            }
        }
    }
}

/// The values of a row, in the order of [`COLUMNS`]. `position` is a buffer for the printed position.
pub(crate) fn values<'a>(row: &'a Row<'_>, layout: &'a Layout, position: &'a mut String) -> [Value<'a>; COLUMN_COUNT] {
    let record = row.record;
    position.clear();
    write!(position, "{}", row.position).expect("a string takes all that is written");
    let text = Value::Text;
    [
        Value::Int(SCHEMA_VERSION),
        text(record.log_id.as_deref()),
        Value::Int(record.version),
        Value::Time(record.emit_time),
        text(record.operation.as_deref()),
        text(record.operation_canonical.as_deref()),
        text(Some(&record.resource_category)),
        text(Some(&record.action)),
        text(record.status.as_deref()),
        text(Some(record.outcome.as_str())),
        text(record.principal_type.map(PrincipalType::as_str)),
        text(record.principal_id.as_deref()),
        text(record.principal_name.as_deref()),
        text(record.principal_api_key_id.as_deref()),
        text(record.actor_email.as_deref()),
        text(record.x_forwarded_for.as_deref()),
        Value::TextList(&record.ip_chain, None),
        text(record.client_ip.as_deref()),
        text(record.async_operation_id.as_deref()),
        text(record.namespace.as_deref()),
        Value::Json(record.details.as_deref()),
        text(Some(record.details_source.as_str())),
        Value::Json(Some(object_text(&record.deprecated))),
        Value::Json(Some(object_text(&record.unknown_fields))),
        Value::TextList(&record.notes, row.conflict.then_some(CONFLICT_NOTE)),
        text(Some(&layout.source_label)),
        text(Some(layout.source_kind.as_str())),
        text(Some(row.shard.as_str())),
        text(Some(position)),
        Value::Time(Some(row.arrival)),
        Value::Json(row.source_message),
        text(layout.keep_raw.then_some(&*record.raw)),
    ]
}

/// An object's JSON text; a record made by `Record::default` has none yet.
fn object_text(text: &str) -> &str {
    if text.is_empty() { "{}" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::samples;

    #[test]
    fn every_value_stands_in_a_column_of_its_type() {
        let sample = samples::full();
        let layout = samples::layout();
        let mut position = String::new();
        let row = sample.row();
        for (column, value) in COLUMNS.iter().zip(values(&row, &layout, &mut position)) {
            let fits = match value {
                Value::Int(_) => column.kind == ColumnType::Int,
                Value::Text(_) => column.kind == ColumnType::Text,
                Value::Json(_) => column.kind == ColumnType::Json,
                Value::TextList(..) => column.kind == ColumnType::TextList,
                Value::Time(_) => column.kind == ColumnType::Time,
            };
            assert!(fits, "{}", column.name);
        }
    }

    /// RECORDS.md's table, copied, and `source_message`: a change of the columns must be meant. `?` may be null.
    #[test]
    fn the_columns_are_those_of_the_records_table_and_one() {
        let contract = "schema_version Int; log_id? Text; version Int; emit_time? Time; operation? Text; \
             operation_canonical? Text; resource_category Text; action Text; status? Text; outcome Text; \
             principal_type? Text; principal_id? Text; principal_name? Text; principal_api_key_id? Text; \
             actor_email? Text; x_forwarded_for? Text; ip_chain TextList; client_ip? Text; async_operation_id? Text; \
             namespace? Text; details? Json; details_source Text; deprecated Json; unknown_fields Json; \
             notes TextList; source_label Text; source_kind Text; source_shard Text; source_position Text; \
             arrival_time Time; source_message? Json; raw? Text";
        let print =
            |column: &Column| format!("{}{} {:?}", column.name, if column.nullable { "?" } else { "" }, column.kind);
        assert_eq!(COLUMNS.iter().map(print).collect::<Vec<_>>().join("; "), contract);
    }

    #[test]
    fn columns_whose_values_hardly_repeat_have_no_dictionary() {
        let plain: Vec<_> = COLUMNS.iter().filter(|column| !column.dictionary).map(|column| column.name).collect();
        let wanted = "log_id emit_time async_operation_id details deprecated unknown_fields source_position arrival_time source_message raw";
        assert_eq!(plain.join(" "), wanted);
        let indexed = |index| COLUMNS.iter().filter(move |column| column.index == index).map(|column| column.name);
        assert_eq!(indexed(Index::Bloom).collect::<Vec<_>>(), ["log_id"]);
        let none = ["details", "deprecated", "unknown_fields", "source_message", "raw"];
        assert_eq!(indexed(Index::None).collect::<Vec<_>>(), none);
    }

    #[test]
    fn names_are_unique_and_field_ids_count_from_one() {
        let schema = arrow_schema();
        for (index, field) in schema.fields().iter().enumerate() {
            assert_eq!(column_index(field.name()), Some(index));
            assert_eq!(field.metadata()[PARQUET_FIELD_ID_META_KEY], (index + 1).to_string());
        }
    }
}
