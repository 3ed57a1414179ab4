//! Quarantine: what could not become a record, raw, with the reason and the place. Always plain NDJSON, so that it can
//! be read with nothing but eyes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::Layout;
use super::json::write_string;
use super::time_text::write_rfc3339;
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
    /// Its bytes, as they came.
    pub raw: &'a [u8],
}

/// The fields of a line, in order; all strings, none null.
pub const REJECT_FIELDS: [&str; 7] =
    ["reason", "source_label", "source_kind", "source_shard", "source_position", "arrival_time", "raw_base64"];

/// Appends one line to an object's bytes.
pub(super) fn write_reject(out: &mut Vec<u8>, row: &RejectRow<'_>, layout: &Layout) {
    let position = row.position.to_string();
    let mut arrival = Vec::with_capacity(30);
    write_rfc3339(&mut arrival, row.arrival);
    let arrival = String::from_utf8(arrival).expect("a time's text is ASCII");
    let raw = STANDARD.encode(row.raw);
    let kind = layout.source_kind.as_str();
    let values = [row.reason.as_str(), &layout.source_label, kind, row.shard.as_str(), &position, &arrival, &raw];
    let mut before = b'{';
    for (name, value) in REJECT_FIELDS.into_iter().zip(values) {
        out.push(before);
        before = b',';
        write_string(out, name);
        out.push(b':');
        write_string(out, value);
    }
    out.extend_from_slice(b"}\n");
}
