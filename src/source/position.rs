//! Positions in a shard, and the progress that is written as them.
//!
//! | term | meaning |
//! |---|---|
//! | [`SequenceNumber`] | where a payload stands in its shard: a decimal string of any length; for a file the byte offset at which the payload starts |
//! | [`Position`] | sequence number and sub-sequence number (the place within a KPL aggregate; 0 elsewhere) |
//! | [`RecordPosition`] | a position and the record's index within its payload |
//! | [`Checkpoint`] | how far a shard has been read: nothing yet, or the last payload read *and what it was* |
//! | [`Range`] | `(after, through]`: the payloads of a batch |

use std::cmp::Ordering;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::digest::Digest;

/// A decimal string, longer than 128 bits for Kinesis. Orders by length, then digits, so that numbers of different
/// lengths order as numbers.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SequenceNumber(SmolStr);

impl SequenceNumber {
    /// A sequence number from its decimal digits; leading zeros do not count.
    pub fn new(digits: &str) -> Self {
        let trimmed = digits.trim_start_matches('0');
        Self(SmolStr::new(if trimmed.is_empty() { "0" } else { trimmed }))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number, where it fits 64 bits (as the offsets of files do).
    pub fn as_u64(&self) -> Option<u64> {
        self.0.parse().ok()
    }
}

impl From<u64> for SequenceNumber {
    fn from(number: u64) -> Self {
        Self(smol_str::format_smolstr!("{number}"))
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.as_str().cmp(other.0.as_str()))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a payload stands in its shard.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The stream's own number of the payload.
    pub sequence: SequenceNumber,
    /// The place within an aggregate that shares one sequence number; 0 where nothing aggregates.
    #[serde(default)]
    pub sub_sequence: u64,
}

impl Position {
    /// The position of a payload that is no part of an aggregate.
    pub fn new(sequence: impl Into<SequenceNumber>) -> Self {
        Self { sequence: sequence.into(), sub_sequence: 0 }
    }

    /// The position of the record at `index` of this payload.
    pub fn record(&self, index: u32) -> RecordPosition<'_> {
        RecordPosition { payload: self, index }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sequence, self.sub_sequence)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a record stands in its shard; printed as `sequence/sub-sequence/index`, the archive's `source_position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordPosition<'a> {
    /// The payload's position.
    pub payload: &'a Position,
    /// The record's index within the payload; rejected elements count.
    pub index: u32,
}

impl fmt::Display for RecordPosition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.payload, self.index)
    }
}

/// How far a shard has been read.
///
/// It names the last payload read and carries its digest: reading resumes *at* the checkpoint, so a source that no
/// longer has that payload, or has another one there, is found out instead of being read on from.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "CheckpointForm", from = "CheckpointForm")]
pub enum Checkpoint {
    /// Nothing of the shard has been read.
    TrimHorizon,
    /// Nothing has been read, and what arrived before this time is not wanted (`initial_position`).
    Since(Timestamp),
    /// Everything up to and including this payload has been read by another program, whose checkpoint was taken over;
    /// it kept no digest.
    Imported(Position),
    /// Everything up to and including this payload has been read.
    At {
        /// Where the payload stands.
        position: Position,
        /// How many bytes it has.
        bytes: u64,
        /// The SHA-256 of its bytes, as the source delivered them.
        payload: Digest,
    },
}

impl Checkpoint {
    /// The checkpoint of a reader that has read up to and including the payload `data` at `position`.
    pub fn at(position: Position, data: &[u8]) -> Self {
        Self::At { position, bytes: data.len() as u64, payload: Digest::of(data) }
    }

    /// The position of the last payload read, if there was one.
    pub fn position(&self) -> Option<&Position> {
        match self {
            Self::TrimHorizon | Self::Since(_) => None,
            Self::Imported(position) | Self::At { position, .. } => Some(position),
        }
    }

    /// Orders checkpoints of one shard by what they have read.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.position().cmp(&other.position())
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrimHorizon => f.write_str("TRIM_HORIZON"),
            Self::Since(time) => write!(f, "since {time}"),
            Self::Imported(position) | Self::At { position, .. } => fmt::Display::fmt(position, f),
        }
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A checkpoint's form in JSON: the Kinesis Client Library's word, or position and digest.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum CheckpointForm {
    Sentinel(Sentinel),
    At {
        #[serde(flatten)]
        position: Position,
        payload_bytes: u64,
        payload_sha256: Digest,
    },
    Imported {
        imported: Position,
    },
    Since {
        since: Timestamp,
    },
}

#[derive(Serialize, Deserialize)]
enum Sentinel {
    #[serde(rename = "TRIM_HORIZON")]
    TrimHorizon,
}

impl From<Checkpoint> for CheckpointForm {
    fn from(checkpoint: Checkpoint) -> Self {
        match checkpoint {
            Checkpoint::TrimHorizon => Self::Sentinel(Sentinel::TrimHorizon),
            Checkpoint::Since(since) => Self::Since { since },
            Checkpoint::Imported(imported) => Self::Imported { imported },
            Checkpoint::At { position, bytes, payload } => {
                Self::At { position, payload_bytes: bytes, payload_sha256: payload }
            }
        }
    }
}

impl From<CheckpointForm> for Checkpoint {
    fn from(form: CheckpointForm) -> Self {
        match form {
            CheckpointForm::Sentinel(Sentinel::TrimHorizon) => Self::TrimHorizon,
            CheckpointForm::Since { since } => Self::Since(since),
            CheckpointForm::Imported { imported } => Self::Imported(imported),
            CheckpointForm::At { position, payload_bytes, payload_sha256 } => {
                Self::At { position, bytes: payload_bytes, payload: payload_sha256 }
            }
        }
    }
}

/// Where a stream that was never read is begun; written `trim_horizon`, `latest`, or as a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitialPosition {
    /// With the oldest record that the stream still has.
    #[default]
    TrimHorizon,
    /// With what arrives from the first start on.
    Latest,
    /// With what arrived at this time or later.
    At(Timestamp),
}

impl InitialPosition {
    /// The checkpoint of a shard that is begun there, where the first start is at `start`. `latest` becomes a time, so
    /// that a worker which dies before its first batch is committed has its successor begin at the same place.
    pub fn checkpoint(self, start: Timestamp) -> Checkpoint {
        match self {
            Self::TrimHorizon => Checkpoint::TrimHorizon,
            Self::Latest => Checkpoint::Since(start),
            Self::At(time) => Checkpoint::Since(time),
        }
    }
}

impl fmt::Display for InitialPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrimHorizon => f.write_str("trim_horizon"),
            Self::Latest => f.write_str("latest"),
            Self::At(time) => fmt::Display::fmt(time, f),
        }
    }
}

impl Serialize for InitialPosition {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InitialPosition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.to_ascii_lowercase().as_str() {
            "trim_horizon" => Ok(Self::TrimHorizon),
            "latest" => Ok(Self::Latest),
            _ => text.parse().map(Self::At).map_err(|_| {
                let message =
                    format!("`{text}` is neither `trim_horizon` nor `latest` nor a time (2026-11-21T00:00:00Z)");
                serde::de::Error::custom(message)
            }),
        }
    }
}

impl schemars::JsonSchema for InitialPosition {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "InitialPosition".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "examples": ["trim_horizon", "latest", "2026-11-21T00:00:00Z"] })
    }
}

/// The payloads `(after, through]` of one shard: what a batch covers. Ranges of consecutive batches chain: each begins
/// where its predecessor ended.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Read before this range began.
    pub after: Checkpoint,
    /// Read once this range is done.
    pub through: Checkpoint,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}]", self.after, self.through)
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_of_different_lengths_order_as_numbers() {
        let mut numbers = ["100", "99", "49590338271490256608559692538361571095921575989136588898", "0", "007"]
            .map(SequenceNumber::new);
        numbers.sort();
        assert_eq!(
            numbers.map(|n| n.to_string()),
            ["0", "7", "99", "100", "49590338271490256608559692538361571095921575989136588898"]
        );
    }

    #[test]
    fn a_checkpoint_survives_json_in_each_form() {
        let at = Checkpoint::at(Position::new(42), b"x");
        let (since, imported) = (Checkpoint::Since(Timestamp::UNIX_EPOCH), Checkpoint::Imported(Position::new(7)));
        for checkpoint in [Checkpoint::TrimHorizon, at, since, imported] {
            let json = serde_json::to_string(&checkpoint).unwrap();
            assert_eq!(serde_json::from_str::<Checkpoint>(&json).unwrap(), checkpoint, "{json}");
        }
        assert_eq!(serde_json::to_string(&Checkpoint::TrimHorizon).unwrap(), "\"TRIM_HORIZON\"");
    }

    #[test]
    fn trim_horizon_is_before_everything() {
        let at = Checkpoint::at(Position::new(0), b"");
        assert_eq!(Checkpoint::TrimHorizon.compare(&at), Ordering::Less);
    }

    #[test]
    fn a_record_position_prints_as_three_numbers() {
        assert_eq!(Position::new(7).record(3).to_string(), "7/0/3");
    }
}
