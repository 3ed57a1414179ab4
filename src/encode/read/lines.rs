//! Rows out of NDJSON.

use std::io::{BufRead, BufReader, Cursor, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{ArchivedCore, ArchivedReject, ArchivedRow, Projection, ReadError, is_conflict, parse_position};
use crate::encode::keys::Encoding;
use crate::record::{DetailsSource, Outcome, PrincipalType, RejectReason};
use crate::source::ShardId;

/// The lines of an object, decompressed as they are read.
pub(super) struct Lines {
    text: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    format: &'static str,
}

/// One line and its number, from 0.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    text: &'a [u8],
    row: u64,
}

impl Lines {
    pub(super) fn open(bytes: Bytes, encoding: Encoding) -> Result<Self, ReadError> {
        let bytes = Cursor::new(bytes);
        let (format, text): (_, Box<dyn Read + Send>) = match encoding {
            Encoding::NdjsonGzip => ("gzip", Box::new(MultiGzDecoder::new(bytes))),
            Encoding::NdjsonZstd => {
                let decoder = zstd::stream::read::Decoder::new(bytes);
                ("zstd", Box::new(decoder.map_err(|error| ReadError::damaged("zstd", error))?))
            }
            Encoding::Ndjson | Encoding::Parquet => ("ndjson", Box::new(bytes)),
        };
        Ok(Self { text: BufReader::with_capacity(64 << 10, text), line: Vec::new(), format })
    }

    /// The next line, which is row number `row`. A last line without its line break has been cut off.
    pub(super) fn next(&mut self, row: u64) -> Result<Option<Line<'_>>, ReadError> {
        self.line.clear();
        self.text.read_until(b'\n', &mut self.line).map_err(|error| ReadError::damaged(self.format, error))?;
        match self.line.split_last() {
            None => Ok(None),
            Some((b'\n', text)) => Ok(Some(Line { text, row })),
            Some(_) => Err(ReadError::Row { row, reason: "its line does not end".to_owned() }),
        }
    }
}

impl<'a> Line<'a> {
    fn parse<T: Deserialize<'a>>(self) -> Result<T, ReadError> {
        serde_json::from_slice(self.text).map_err(|error| ReadError::Row { row: self.row, reason: error.to_string() })
    }
}

/// A field that must be there, null or not; serde takes a missing one for null otherwise.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

#[derive(Deserialize)]
struct Keys {
    #[serde(deserialize_with = "present")]
    log_id: Option<String>,
    version: i32,
    #[serde(deserialize_with = "present")]
    emit_time: Option<Timestamp>,
    notes: Vec<String>,
    source_shard: ShardId,
    source_position: String,
    arrival_time: Timestamp,
}

#[derive(Deserialize)]
struct Core {
    #[serde(deserialize_with = "present")]
    operation_canonical: Option<String>,
    outcome: Outcome,
    #[serde(deserialize_with = "present")]
    principal_type: Option<PrincipalType>,
    #[serde(deserialize_with = "present")]
    principal_id: Option<String>,
    #[serde(deserialize_with = "present")]
    principal_name: Option<String>,
    #[serde(deserialize_with = "present")]
    principal_api_key_id: Option<String>,
    #[serde(deserialize_with = "present")]
    async_operation_id: Option<String>,
    #[serde(deserialize_with = "present")]
    client_ip: Option<String>,
    #[serde(deserialize_with = "present")]
    details: Option<Box<RawValue>>,
    details_source: DetailsSource,
    #[serde(deserialize_with = "present")]
    raw: Option<String>,
}

pub(super) fn row(line: Line<'_>, projection: Projection) -> Result<ArchivedRow, ReadError> {
    let keys: Keys = line.parse()?;
    let (payload, index) = parse_position(&keys.source_position, line.row)?;
    let core = match projection {
        Projection::Keys => None,
        Projection::Core => Some(core(line.parse()?)),
    };
    Ok(ArchivedRow {
        log_id: keys.log_id,
        version: keys.version,
        emit_time: keys.emit_time,
        arrival: keys.arrival_time,
        shard: keys.source_shard,
        payload,
        index,
        conflict: is_conflict(keys.notes.iter().map(String::as_str)),
        core,
    })
}

fn core(core: Core) -> ArchivedCore {
    ArchivedCore {
        operation_canonical: core.operation_canonical,
        outcome: core.outcome,
        principal_type: core.principal_type,
        principal_id: core.principal_id,
        principal_name: core.principal_name,
        principal_api_key_id: core.principal_api_key_id,
        async_operation_id: core.async_operation_id,
        client_ip: core.client_ip,
        details: core.details.map(|json| json.get().to_owned()),
        details_source: core.details_source,
        raw: core.raw,
    }
}

#[derive(Deserialize)]
struct Reject {
    reason: RejectReason,
    source_shard: ShardId,
    source_position: String,
    arrival_time: Timestamp,
    raw_base64: String,
}

pub(super) fn reject(line: Line<'_>) -> Result<ArchivedReject, ReadError> {
    let reject: Reject = line.parse()?;
    let (payload, index) = parse_position(&reject.source_position, line.row)?;
    let raw = STANDARD.decode(&reject.raw_base64);
    let raw = raw.map_err(|error| ReadError::Row { row: line.row, reason: format!("raw_base64: {error}") })?;
    Ok(ArchivedReject {
        reason: reject.reason,
        shard: reject.source_shard,
        payload,
        index,
        arrival: reject.arrival_time,
        raw: raw.into(),
    })
}
