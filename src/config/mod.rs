//! Every setting: read from a TOML file, each key overridable by an environment variable `AUDITLAKE__SECTION__KEY`.

mod aws;
mod google;
mod load;
mod units;

use std::path::PathBuf;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use aws::{
    DynamodbConfig, KinesisConfig, KinesisConsumer, ObjectLockConfig, ObjectLockMode, S3Config, S3Encryption,
};
pub use google::{PubsubConfig, SpoolChoice, SpoolConfig};
pub use load::{ConfigError, load, schema};
pub use units::{HumanBytes, HumanDuration};

use crate::encode::{Compression, Format, Layout, PartitionKey};
use crate::record::Rules;
use crate::source::SourceKind;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where payloads come from.
    pub source: SourceConfig,
    /// Where leases, checkpoints and claims are kept.
    pub state: StateConfig,
    /// Where the archive is, and what its objects look like.
    pub archive: ArchiveConfig,
    /// When a batch is over.
    pub batch: BatchConfig,
    /// How records are read.
    pub record: RecordConfig,
    /// How long copies are recognised.
    pub dedupe: DedupeConfig,
    /// How workers share shards.
    pub lease: LeaseConfig,
    /// Bounds on what the process takes.
    pub limits: LimitsConfig,
    /// The worker itself.
    pub worker: WorkerConfig,
    /// What is served over HTTP.
    pub metrics: MetricsConfig,
}

/// `[source]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SourceConfig {
    /// `file`, `kinesis` or `pubsub`.
    pub kind: SourceChoice,
    /// Recorded with every event as `source_label`: records name no account.
    pub label: String,
    /// For `kind = "file"`.
    pub file: FileConfig,
    /// For `kind = "kinesis"`.
    pub kinesis: KinesisConfig,
    /// For `kind = "pubsub"`.
    pub pubsub: PubsubConfig,
}

/// The sources there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceChoice {
    /// Files of a directory.
    #[default]
    File,
    /// An Amazon Kinesis stream.
    Kinesis,
    /// A Google Pub/Sub subscription.
    Pubsub,
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            kind: SourceChoice::File,
            label: "default".into(),
            file: FileConfig::default(),
            kinesis: KinesisConfig::default(),
            pubsub: PubsubConfig::default(),
        }
    }
}

/// `[source] file = { … }`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FileConfig {
    /// A file, or a directory that is read with all below it; names that begin with a dot are passed over. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// How often `run` looks for appended lines and new files.
    pub poll: HumanDuration,
    /// How long `catch-up` gives the writer of a file, counted from its last modification, to end a line that it has
    /// begun.
    pub settle: HumanDuration,
}

impl Default for FileConfig {
    fn default() -> Self {
        Self { path: None, poll: HumanDuration::from_secs(1), settle: HumanDuration::from_secs(5) }
    }
}

/// `[state]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StateConfig {
    /// `embedded` or `dynamodb`.
    pub kind: StateChoice,
    /// For `kind = "embedded"`.
    pub embedded: EmbeddedConfig,
    /// For `kind = "dynamodb"`.
    pub dynamodb: DynamodbConfig,
}

/// The places for state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateChoice {
    /// A directory of one process.
    #[default]
    Embedded,
    /// Two DynamoDB tables, for any number of workers.
    Dynamodb,
}

/// `[state] embedded = { … }`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddedConfig {
    /// A directory of this process alone; made where it is missing.
    pub path: PathBuf,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self { path: "state".into() }
    }
}

/// `[archive]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ArchiveConfig {
    /// `local` or `s3`.
    pub kind: ArchiveChoice,
    /// For `kind = "local"`.
    pub local: LocalConfig,
    /// For `kind = "s3"`.
    pub s3: S3Config,
    /// The format of event objects: `parquet` or `ndjson` (`json` is an alias).
    pub format: Format,
    /// `zstd`, `gzip`, `snappy` (Parquet only) or `none`.
    pub compression: Compression,
    /// zstd: 1 to 22; gzip: 0 to 9.
    pub compression_level: i32,
    /// The folders of event objects, outermost first: any of `dt`, `hour`, `source_label`, `resource_category`.
    pub partition_by: Vec<PartitionKey>,
    /// Whether each row keeps the record's own JSON text.
    pub keep_raw: bool,
}

/// The places for an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ArchiveChoice {
    /// A directory.
    #[default]
    Local,
    /// An Amazon S3 bucket, or one that speaks its protocol.
    S3,
}

impl Default for ArchiveConfig {
    fn default() -> Self {
        Self {
            kind: ArchiveChoice::Local,
            local: LocalConfig::default(),
            s3: S3Config::default(),
            format: Format::Parquet,
            compression: Compression::Zstd,
            compression_level: 3,
            partition_by: vec![PartitionKey::Dt],
            keep_raw: true,
        }
    }
}

/// `[archive] local = { … }`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LocalConfig {
    /// The archive's directory; made where it is missing.
    pub path: PathBuf,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self { path: "archive".into() }
    }
}

/// `[batch]`: whichever bound is reached first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// The length of a window of arrival time; windows are aligned to the clock. In whole seconds.
    pub window: HumanDuration,
    /// The most records read into a batch.
    pub max_records: u64,
    /// The most bytes of its objects, encoded.
    pub max_bytes: HumanBytes,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { window: HumanDuration::from_secs(30 * 60), max_records: 500_000, max_bytes: HumanBytes::mib(128) }
    }
}

/// `[record]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecordConfig {
    /// Networks, such as `10.0.0.0/8`, of the proxies in front of Temporal Cloud: passed over when the client's address is
    /// looked for.
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
}

/// `[dedupe]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DedupeConfig {
    /// How long a record's identity stays claimed. Temporal may resend 30 days back.
    pub window: HumanDuration,
}

impl Default for DedupeConfig {
    fn default() -> Self {
        Self { window: HumanDuration::from_secs(35 * 86_400) }
    }
}

/// `[lease]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseConfig {
    /// How long a lease outlives the last word of its worker, who renews it three times as often. Embedded state has one
    /// worker, whose leases need not expire: its lock does.
    pub failover: HumanDuration,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self { failover: HumanDuration::from_secs(10) }
    }
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// The most that one payload (a message; a line or a JSON document of a file) may hold, decompressed.
    pub max_payload_bytes: HumanBytes,
    /// The most that records may hold in memory: a quarter of it those that are read ahead, the rest those of open
    /// batches. Beyond it reading waits, and the largest batches are cut early.
    pub memory: HumanBytes,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { max_payload_bytes: HumanBytes::mib(64), memory: HumanBytes::mib(256) }
    }
}

/// `[worker]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// The worker's name in the lease table; the host's where it is missing. Something unique is put behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How long a stop may take: open batches are committed until then, what is left is read again next time.
    pub shutdown_grace: HumanDuration,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self { id: None, shutdown_grace: HumanDuration::from_secs(25) }
    }
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// The address, with its port, at which `run` serves `/metrics`, `/livez`, `/readyz` and a page; `off` for nothing.
    pub listen: String,
}

/// The port that OpenTelemetry's exporters of Prometheus metrics take.
const LISTEN: &str = "127.0.0.1:9464";

impl MetricsConfig {
    /// The address; `None` where nothing is served.
    pub fn address(&self) -> Option<&str> {
        (self.listen != "off").then_some(&self.listen)
    }

    /// Whether nobody asked for this very address.
    pub fn is_default(&self) -> bool {
        self.listen == LISTEN
    }
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { listen: LISTEN.into() }
    }
}

impl Config {
    /// What decides the keys and rows of the next batch.
    pub fn layout(&self) -> Layout {
        Layout {
            format: self.archive.format,
            compression: self.archive.compression,
            compression_level: self.archive.compression_level,
            partition_by: self.archive.partition_by.clone(),
            keep_raw: self.archive.keep_raw,
            source_label: self.source.label.clone(),
            source_kind: match self.source.kind {
                SourceChoice::File => SourceKind::File,
                SourceChoice::Kinesis => SourceKind::Kinesis,
                SourceChoice::Pubsub => SourceKind::Pubsub,
            },
            rules: Rules {
                trusted_proxies: self.record.trusted_proxies.clone(),
                max_payload_bytes: self.limits.max_payload_bytes.as_u64(),
            },
        }
    }
}
