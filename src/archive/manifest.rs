//! A batch's manifest: what was put for it, chained to the manifest before it by its SHA-256.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::Uuid;

use crate::batch::Window;
use crate::digest::Digest;
use crate::lease::Gap;
use crate::source::{Range, ShardId};

/// What a batch was made of. `records = archived + duplicates + rejected`, and conflicts are among the archived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Units of the stream read.
    pub payloads: u64,
    /// JSON values and unreadable stretches found in them.
    pub records: u64,
    /// Rows in event objects.
    pub archived: u64,
    /// Copies dropped.
    pub duplicates: u64,
    /// Records archived under an identity that another event had claimed.
    pub conflicts: u64,
    /// Rows in reject objects.
    pub rejected: u64,
    /// Payloads in which there was nothing.
    pub empty: u64,
}

/// What an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// Canonical records.
    Events,
    /// Quarantine.
    Rejected,
}

impl ObjectKind {
    /// The word in manifests and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Rejected => "rejected",
        }
    }
}

/// One object of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestObject {
    /// Its key, below the archive's root.
    pub key: String,
    /// What it holds.
    pub kind: ObjectKind,
    /// How many rows.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its bytes.
    pub sha256: Digest,
    /// The earliest `emit_time` among its rows, full precision.
    pub min_emit_time: Option<Timestamp>,
    /// The latest.
    pub max_emit_time: Option<Timestamp>,
}

/// The arrival times of a batch's payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrivalRange {
    /// The earliest.
    pub min: Timestamp,
    /// The latest.
    pub max: Timestamp,
}

/// A batch's manifest, the object `_manifests/<shard>/<batch_seq>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The archive it belongs to.
    pub archive_id: Uuid,
    /// The shard read.
    pub shard: ShardId,
    /// The shards that one came from.
    pub parents: Vec<ShardId>,
    /// The SHA-256 of each parent's newest manifest, in a shard's first manifest: a shard's end is vouched for by its
    /// children, also when its lease row is gone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parent_heads: BTreeMap<ShardId, Digest>,
    /// What the shard's positions belong to, where its source says so (of a stream, its ARN and when it was made).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<SmolStr>,
    /// The batch's number in its shard, from 0.
    pub batch_seq: u64,
    /// The window that names its objects.
    pub window: Window,
    /// The payloads it covers: `after` and `through`.
    #[serde(flatten)]
    pub range: Range,
    /// Whether the shard ends with it.
    pub shard_end: bool,
    /// When its payloads arrived; none where it covers no payload.
    pub arrival: Option<ArrivalRange>,
    /// The time up to which the shard was known to be read.
    pub read_through: Timestamp,
    /// What it was made of.
    pub counts: Counts,
    /// What was put, in the order of the keys.
    pub objects: Vec<ManifestObject>,
    /// What was missing in front of it.
    pub gap: Option<Gap>,
    /// The SHA-256 of the manifest before it; none for the shard's first.
    pub previous: Option<Digest>,
    /// The program that wrote it.
    pub writer: String,
}

impl Manifest {
    /// Whether both describe one batch. Two attempts at a batch may differ in when they were made and by which version
    /// of the program, in nothing else.
    pub fn same_batch(&self, other: &Self) -> bool {
        let unsigned =
            |manifest: &Self| Self { read_through: Timestamp::UNIX_EPOCH, writer: String::new(), ..manifest.clone() };
        unsigned(self) == unsigned(other)
    }

    /// The bytes that are put and digested: pretty JSON and a line break.
    #[allow(clippy::missing_panics_doc)] // it cannot
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a manifest has no map keys but strings");
        bytes.push(b'\n');
        bytes
    }
}
