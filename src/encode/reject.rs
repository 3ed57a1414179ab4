//! Quarantine: what could not become a record, raw, with the reason and the place. Always plain NDJSON, so that it can
//! be read with nothing but eyes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::Layout;
use super::json::{write_string, write_value};
use super::schema::Value;
use crate::record::RejectReason;
use crate::source::{RecordPosition, ShardId};

/// Something that went to quarantine.
#[derive(Clone, Copy, Debug)]
pub struct RejectRow<'a> {
    /// Why.
    pub reason: RejectReason,
    /// The shard it was read from.
    pub shard: &'a ShardId,
    /// Its place there.
    pub position: RecordPosition<'a>,
    /// When the stream received it.
    pub arrival: Timestamp,
    /// See [`Payload::source_message`](crate::source::Payload::source_message).
    pub source_message: Option<&'a str>,
    /// Its bytes, as they came.
    pub raw: &'a [u8],
}

/// The fields of a line, in order: strings, but for `source_message`, which is JSON, and alone may be null.
pub const REJECT_FIELDS: [&str; 8] = [
    "reason",
    "source_label",
    "source_kind",
    "source_shard",
    "source_position",
    "arrival_time",
    "source_message",
    "raw_base64",
];

/// Appends one line to an object's bytes.
pub(super) fn write_reject(out: &mut Vec<u8>, row: &RejectRow<'_>, layout: &Layout) {
    let (position, raw) = (row.position.to_string(), STANDARD.encode(row.raw));
    let text = |text| Value::Text(Some(text));
    let values = [
        text(row.reason.as_str()),
        text(&layout.source_label),
        text(layout.source_kind.as_str()),
        text(row.shard.as_str()),
        text(&position),
        Value::Time(Some(row.arrival)),
        Value::Json(row.source_message),
        text(&raw),
    ];
    let mut before = b'{';
    for (name, value) in REJECT_FIELDS.into_iter().zip(values) {
        out.push(before);
        before = b',';
        write_string(out, name);
        out.push(b':');
        write_value(out, value);
    }
    out.extend_from_slice(b"}\n");
}
