//! What objects are called, and what their names say (the archive's contract, DESIGN.md).
//!
//! | key | object |
//! |---|---|
//! | `events/dt=2026-11-21/20261121T093000Z-<shard>-00000042.parquet` | event rows of one partition (`.ndjson.zst`, `.ndjson.gz`, `.ndjson`) |
//! | `rejected/dt=2026-11-21/20261121T093000Z-<shard>-00000042.ndjson` | quarantine, by date of arrival |
//! | `_manifests/<shard>/00000042.json` | a batch's manifest |
//! | `_verify/20261121T093000Z.json` | what `verify --record` found |
//! | `_auditlake.json` | whose archive it is |
//!
//! A key is made of the batch alone (window, shard, number, partition), never of a clock or a random number: whoever
//! finishes a batch puts the same object under the same key.

use std::fmt::Write as _;

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::time_text::{compact, parse_compact, utc};
use super::{Compression, Format, Layout, PartitionKey, Row};
use crate::batch::Window;
use crate::digest::Digest;
use crate::source::ShardId;

/// The key of the object that says whose archive it is.
pub const IDENTITY_KEY: &str = "_auditlake.json";
/// What the keys of event objects begin with.
pub const EVENTS_PREFIX: &str = "events/";
/// What the keys of quarantine objects begin with.
pub const REJECTED_PREFIX: &str = "rejected/";
/// What `check` puts to try its permission.
pub const ACCESS_TEST_KEY: &str = "audit-log-access-test";
/// What the keys of recorded verifications begin with.
pub const VERIFICATIONS_PREFIX: &str = "_verify/";
/// What the keys of manifests begin with.
pub const MANIFESTS_PREFIX: &str = "_manifests/";

/// All that stays as it is in a part of a key: safe in S3, on disks and in Hive's folder names.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-');

/// File systems take 255 bytes a name; window, number and extension need some, and percent-encoding trebles.
const MAX_ENCODED_SHARD: usize = 120;

/// A shard's name as a part of a key: everything but `[A-Za-z0-9._-]` percent-encoded, never `.` or `..`. A name
/// longer than 120 bytes once encoded becomes its beginning, `~` and the first 16 digits of its SHA-256; `~` stands in
/// no other encoded name, so names stay apart.
pub fn encode_shard(shard: &ShardId) -> String {
    let name = shard.as_str();
    let encoded = match name {
        "" => return "~".to_owned(),
        "." => return "%2E".to_owned(),
        ".." => return "%2E%2E".to_owned(),
        _ => encode_part(name),
    };
    if encoded.len() <= MAX_ENCODED_SHARD {
        return encoded;
    }
    let digest = Digest::of(name.as_bytes()).to_string();
    let mut prefix = &encoded[..MAX_ENCODED_SHARD - 17];
    if let Some(cut) = prefix[prefix.len() - 2..].find('%') {
        prefix = &prefix[..prefix.len() - 2 + cut];
    }
    format!("{prefix}~{}", &digest[..16])
}

fn encode_part(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// The instant whose UTC date and hour a row is partitioned by (RECORDS.md N10).
pub fn partition_time(emit_time: Option<Timestamp>, arrival: Timestamp) -> Timestamp {
    emit_time.unwrap_or(arrival)
}

/// The UTC date of an instant as folders print it. Dates before the year 1 go to `0001-01-01`: no engine reads them out
/// of a folder's name, and one such folder would make the whole table unreadable.
fn date_text(at: Timestamp) -> String {
    let date = utc(at).date();
    if date.year() < 1 { "0001-01-01".to_owned() } else { date.to_string() }
}

/// The folders of a row, without a slash at either end: `dt=2026-11-21/source_label=example`. Empty where the layout
/// has no partitions.
pub fn partition_path(row: &Row<'_>, layout: &Layout) -> String {
    let mut path = String::with_capacity(32);
    write_partition_path(&mut path, row, layout);
    path
}

/// [`partition_path`] into a buffer that is used again.
pub(crate) fn write_partition_path(path: &mut String, row: &Row<'_>, layout: &Layout) {
    path.clear();
    let at = partition_time(row.record.emit_time, row.arrival);
    for key in &layout.partition_by {
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(key.as_str());
        path.push('=');
        match key {
            PartitionKey::Dt => path.push_str(&date_text(at)),
            PartitionKey::Hour => write!(path, "{:02}", utc(at).hour()).expect("a string takes all that is written"),
            PartitionKey::SourceLabel => push_value(path, &layout.source_label),
            PartitionKey::ResourceCategory => push_value(path, &row.record.resource_category),
        }
    }
}

/// A folder named `key=` alone is not read by every engine, so an empty value gets Hive's own name for none.
fn push_value(path: &mut String, value: &str) {
    if value.is_empty() {
        path.push_str("__HIVE_DEFAULT_PARTITION__");
    } else {
        path.extend(utf8_percent_encode(value, ENCODED));
    }
}

/// The folder of a reject: the UTC date of its arrival.
pub fn rejected_partition(arrival: Timestamp) -> String {
    format!("dt={}", date_text(arrival))
}

/// What the name of an event object ends with.
pub fn extension(layout: &Layout) -> &'static str {
    match (layout.format, layout.compression) {
        (Format::Parquet, _) => "parquet",
        (Format::Ndjson, Compression::Zstd) => "ndjson.zst",
        (Format::Ndjson, Compression::Gzip) => "ndjson.gz",
        (Format::Ndjson, Compression::None | Compression::Snappy) => "ndjson",
    }
}

/// The key of an event object.
pub fn object_key(partition: &str, window: &Window, shard: &ShardId, batch_seq: u64, layout: &Layout) -> String {
    data_key(EVENTS_PREFIX, partition, window, shard, batch_seq, extension(layout))
}

/// The key of a quarantine object.
pub fn rejected_key(partition: &str, window: &Window, shard: &ShardId, batch_seq: u64) -> String {
    data_key(REJECTED_PREFIX, partition, window, shard, batch_seq, "ndjson")
}

fn data_key(prefix: &str, partition: &str, window: &Window, shard: &ShardId, batch_seq: u64, ext: &str) -> String {
    let folder = if partition.is_empty() { String::new() } else { format!("{partition}/") };
    format!("{prefix}{folder}{}-{}.{ext}", compact(window.start), batch_name(shard, batch_seq))
}

/// What the names of all objects of a batch have in front of their ending: `<shard>-<batch>`.
pub fn batch_name(shard: &ShardId, batch_seq: u64) -> String {
    format!("{}-{batch_seq:08}", encode_shard(shard))
}

/// The key of the record of a verification that began at `began`.
pub fn verification_key(began: Timestamp) -> String {
    format!("{VERIFICATIONS_PREFIX}{}.json", compact(began))
}

/// The key of a batch's manifest.
pub fn manifest_key(shard: &ShardId, batch_seq: u64) -> String {
    manifest_key_in(&encode_shard(shard), batch_seq)
}

/// The same, of a shard whose name is encoded.
pub fn manifest_key_in(folder: &str, batch_seq: u64) -> String {
    format!("{MANIFESTS_PREFIX}{folder}/{batch_seq:08}.json")
}

/// What the keys of a shard's manifests begin with.
pub fn manifest_prefix(shard: &ShardId) -> String {
    format!("{MANIFESTS_PREFIX}{}/", encode_shard(shard))
}

/// The batch that an object belongs to, as its key tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchName<'a> {
    /// The shard, encoded: a shortened name can't be turned back, so compare with [`encode_shard`].
    pub folder: &'a str,
    /// The batch's number in it.
    pub batch_seq: u64,
}

/// Whose manifest stands under this key; none where it is no manifest's.
pub fn manifest_batch(key: &str) -> Option<BatchName<'_>> {
    match parse_object_key(key)? {
        ParsedKey::Manifest { shard: folder, batch_seq } => Some(BatchName { folder, batch_seq }),
        _ => None,
    }
}

/// Whose rows or rejects stand under this key; none where it is no such object's.
pub fn data_batch(key: &str) -> Option<BatchName<'_>> {
    match parse_object_key(key)? {
        ParsedKey::Events(data) | ParsedKey::Rejected(data) => {
            Some(BatchName { folder: data.shard, batch_seq: data.batch_seq })
        }
        _ => None,
    }
}

/// What a key says. Shards stay encoded: a shortened name can't be turned back, so compare with [`encode_shard`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParsedKey<'a> {
    /// An object of event rows.
    Events(DataKey<'a>),
    /// An object of rejects.
    Rejected(DataKey<'a>),
    /// A manifest.
    Manifest {
        /// The encoded shard.
        shard: &'a str,
        /// The batch's number.
        batch_seq: u64,
    },
    /// `_auditlake.json`.
    Identity,
}

/// What the key of an object with rows says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKey<'a> {
    /// The folders, without a slash at either end.
    pub partition: &'a str,
    /// The start of the batch's window.
    pub window_start: Timestamp,
    /// The encoded shard.
    pub shard: &'a str,
    /// The batch's number.
    pub batch_seq: u64,
    /// How its bytes are to be read.
    pub encoding: Encoding,
}

/// How an object's bytes are to be read; its key ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `.parquet`.
    Parquet,
    /// `.ndjson`.
    Ndjson,
    /// `.ndjson.gz`.
    NdjsonGzip,
    /// `.ndjson.zst`.
    NdjsonZstd,
}

impl Encoding {
    /// The encoding that a key ends with, and the key without it.
    pub fn split(key: &str) -> Option<(&str, Self)> {
        let known = [
            (".parquet", Self::Parquet),
            (".ndjson", Self::Ndjson),
            (".ndjson.gz", Self::NdjsonGzip),
            (".ndjson.zst", Self::NdjsonZstd),
        ];
        known.into_iter().find_map(|(end, encoding)| Some((key.strip_suffix(end)?, encoding)))
    }
}

/// Whether an event object has the format, the compression and the folders of a layout.
pub fn is_of_layout(key: &str, layout: &Layout) -> bool {
    let Some(ParsedKey::Events(data)) = parse_object_key(key) else { return false };
    let folders = data.partition.split('/').filter(|folder| !folder.is_empty());
    let names = folders.map(|folder| folder.split('=').next().unwrap_or_default());
    names.eq(layout.partition_by.iter().map(|key| key.as_str())) && key.ends_with(&format!(".{}", extension(layout)))
}

/// What a key says, or `None` where it is none of the archive's. Only keys that this module would print are read.
pub fn parse_object_key(key: &str) -> Option<ParsedKey<'_>> {
    if key == IDENTITY_KEY {
        return Some(ParsedKey::Identity);
    }
    if let Some(rest) = key.strip_prefix(MANIFESTS_PREFIX) {
        let (shard, file) = rest.split_once('/')?;
        let batch_seq = parse_seq(file.strip_suffix(".json")?)?;
        return is_encoded(shard).then_some(ParsedKey::Manifest { shard, batch_seq });
    }
    if let Some(rest) = key.strip_prefix(EVENTS_PREFIX) {
        return parse_data(rest).map(ParsedKey::Events);
    }
    let data = parse_data(key.strip_prefix(REJECTED_PREFIX)?)?;
    (data.encoding == Encoding::Ndjson).then_some(ParsedKey::Rejected(data))
}

fn parse_data(rest: &str) -> Option<DataKey<'_>> {
    let (partition, file) = rest.rsplit_once('/').unwrap_or(("", rest));
    let is_folder =
        |folder: &str| folder.split_once('=').is_some_and(|(key, value)| !key.is_empty() && is_encoded(value));
    if !partition.is_empty() && !partition.split('/').all(is_folder) {
        return None;
    }
    let (stem, encoding) = Encoding::split(file)?;
    let (window, rest) = stem.split_once('-')?;
    let (shard, seq) = rest.rsplit_once('-')?;
    let (window_start, batch_seq) = (parse_compact(window)?, parse_seq(seq)?);
    is_encoded(shard).then_some(DataKey { partition, window_start, shard, batch_seq, encoding })
}

/// A batch's number in the one form in which it is printed.
fn parse_seq(text: &str) -> Option<u64> {
    let number = text.parse().ok()?;
    (text == format!("{number:08}")).then_some(number)
}

fn is_encoded(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-%~".contains(&b))
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
