//! The settings of Kinesis, DynamoDB and S3. Credentials, the region and `AWS_ENDPOINT_URL*` come by the SDK's own chain
//! where they are not set here.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::HumanDuration;
use crate::aws::Access;
use crate::source::InitialPosition;

/// `[source] kinesis = { … }`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KinesisConfig {
    /// The stream's name or ARN. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Where a stream that was never read is begun: `trim_horizon`, `latest`, or a time such as `2026-11-21T00:00:00Z`.
    pub initial_position: InitialPosition,
    /// How records come: `polling` (asked for; 2 MB a second and shard, shared with the stream's other consumers) or
    /// `fan_out` (subscribed to; as much for this one alone, at a price).
    pub consumer: KinesisConsumer,
    /// The registered consumer of `consumer = "fan_out"`; registered where it is missing.
    pub consumer_name: String,
    /// How often a shard that is caught up is asked for more.
    pub poll: HumanDuration,
    /// How often the stream is asked for its shards, beside those that a shard's end makes known.
    pub list_shards: HumanDuration,
    /// The stream's region; the SDK's own where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Another endpoint than the region's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// A role to take on for the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assume_role_arn: Option<String>,
    /// The external id that the role asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

/// How records come from Kinesis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KinesisConsumer {
    /// By asking for them (`GetRecords`): 2 MB a second and shard, shared with the stream's other consumers.
    #[default]
    Polling,
    /// By subscribing (`SubscribeToShard`): 2 MB a second and shard of our own, at a price.
    FanOut,
}

impl Default for KinesisConfig {
    fn default() -> Self {
        Self {
            stream: None,
            initial_position: InitialPosition::TrimHorizon,
            consumer: KinesisConsumer::Polling,
            consumer_name: "auditlake".into(),
            poll: HumanDuration::from_secs(1),
            list_shards: HumanDuration::from_secs(60),
            region: None,
            endpoint_url: None,
            assume_role_arn: None,
            external_id: None,
        }
    }
}

/// `[state] dynamodb = { … }`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DynamodbConfig {
    /// The tables are `<table_prefix>-leases` and `<table_prefix>-claims`.
    pub table_prefix: String,
    /// Whether missing tables are made (billed on demand); where not, they must be there.
    pub create_tables: bool,
    /// Whether tables that are made keep point-in-time backups. The archive is the authority: state can be rebuilt
    /// from it.
    pub point_in_time_recovery: bool,
    /// The tags of tables that are made.
    pub tags: BTreeMap<String, String>,
    /// The tables' region; the SDK's own where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Another endpoint than the region's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// A role to take on for the tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assume_role_arn: Option<String>,
    /// The external id that the role asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

impl Default for DynamodbConfig {
    fn default() -> Self {
        Self {
            table_prefix: "auditlake".into(),
            create_tables: true,
            point_in_time_recovery: false,
            tags: BTreeMap::new(),
            region: None,
            endpoint_url: None,
            assume_role_arn: None,
            external_id: None,
        }
    }
}

/// `[archive] s3 = { … }`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct S3Config {
    /// The bucket. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// What every key begins with; empty for the bucket's root. Slashes at its ends are dropped.
    pub prefix: String,
    /// The bucket's region; the SDK's own where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Another endpoint than the region's (MinIO, R2), of a store that keeps `If-None-Match`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// Whether the bucket stands in the path instead of the host name.
    pub force_path_style: bool,
    /// Server-side encryption: `AES256` or `aws:kms`; the bucket's default where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sse: Option<S3Encryption>,
    /// The key of `aws:kms`; the account's own where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// Whether `aws:kms` uses a bucket key, which saves most of the calls to KMS.
    pub bucket_key: bool,
    /// The storage class, such as `STANDARD_IA`; the bucket's default where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// The tags of every object.
    pub tags: BTreeMap<String, String>,
    /// A retention that every object gets, in a bucket with Object Lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_lock: Option<ObjectLockConfig>,
    /// A role to take on for the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assume_role_arn: Option<String>,
    /// The external id that the role asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

/// Server-side encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum S3Encryption {
    /// Keys that S3 keeps (SSE-S3).
    #[serde(rename = "AES256")]
    Aes256,
    /// Keys that KMS keeps (SSE-KMS).
    #[serde(rename = "aws:kms")]
    Kms,
}

/// `[archive] s3 = { object_lock = { … } }`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectLockConfig {
    /// Who can lift it: `governance` (those with the permission to) or `compliance` (nobody).
    pub mode: ObjectLockMode,
    /// For how long an object can't be removed, from when it is put.
    pub retain: HumanDuration,
}

/// Who can lift an object's retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObjectLockMode {
    /// Those with the permission to.
    Governance,
    /// Nobody.
    Compliance,
}

/// Each service is reached by four settings of its own: serde knows no part of a table that may be shared and still refuses
/// unknown keys.
macro_rules! reached_by_access {
    ($($config:ty),+) => {$(
        impl $config {
            /// Where the service is and who asks.
            pub fn access(&self) -> Access<'_> {
                Access {
                    region: self.region.as_deref(),
                    endpoint_url: self.endpoint_url.as_deref(),
                    assume_role_arn: self.assume_role_arn.as_deref(),
                    external_id: self.external_id.as_deref(),
                }
            }
        }
    )+};
}

reached_by_access!(KinesisConfig, DynamodbConfig, S3Config);
