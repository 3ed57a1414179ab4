//! What decides a batch's keys, partitions and rows.

use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::EncodeError;
use crate::record::Rules;
use crate::source::SourceKind;

/// The file format of event objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// One JSON object a line.
    #[serde(alias = "json")]
    Ndjson,
}

/// The compression of event objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Zstandard.
    Zstd,
    /// gzip.
    Gzip,
    /// Snappy; Parquet only.
    Snappy,
    /// Not compressed.
    None,
}

impl Compression {
    /// The levels that it has; any, where it has none.
    pub const fn levels(self) -> RangeInclusive<i32> {
        match self {
            Self::Zstd => 1..=22,
            Self::Gzip => 0..=9,
            Self::Snappy | Self::None => i32::MIN..=i32::MAX,
        }
    }
}

/// One level of the archive's folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartitionKey {
    /// The UTC date of `emit_time`, else of arrival (RECORDS.md N10): `dt=2026-11-21`.
    Dt,
    /// The UTC hour of the same: `hour=09`.
    Hour,
    /// The configured label of the source.
    SourceLabel,
    /// The record's resource category.
    ResourceCategory,
}

impl PartitionKey {
    /// The level of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Dt, Self::Hour, Self::SourceLabel, Self::ResourceCategory].into_iter().find(|key| key.as_str() == name)
    }

    /// The name of the folder's key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dt => "dt",
            Self::Hour => "hour",
            Self::SourceLabel => "source_label",
            Self::ResourceCategory => "resource_category",
        }
    }
}

/// All of the configuration that decides what a batch's objects are called and what they hold. It is written into the
/// lease row when a batch is prepared, so that a batch is finished as it was begun whatever the configuration has
/// become since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The file format.
    pub format: Format,
    /// The compression.
    pub compression: Compression,
    /// The level, where the compression has levels.
    pub compression_level: i32,
    /// The folders, outermost first.
    pub partition_by: Vec<PartitionKey>,
    /// Whether each row keeps the record's own JSON text.
    pub keep_raw: bool,
    /// Recorded with every event.
    pub source_label: String,
    /// Recorded with every event.
    pub source_kind: SourceKind,
    /// How records are read.
    pub rules: Rules,
}

impl Layout {
    /// The level, if it is one that the compression has.
    pub(super) fn level(&self) -> Result<i32, EncodeError> {
        let (level, levels) = (self.compression_level, self.compression.levels());
        if levels.contains(&level) {
            return Ok(level);
        }
        let (least, most) = levels.into_inner();
        Err(EncodeError::Layout(format!("compression_level must be from {least} to {most}, not {level}")))
    }
}
