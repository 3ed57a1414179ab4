//! What a bucket's objects get, and how patient the adapter is.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ops::retry::RetryPolicy;

/// The settings of an [`S3Archive`](super::S3Archive).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Options {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with; slashes at either end make no difference. Empty for the bucket's root.
    pub prefix: String,
    /// Server-side encryption; the bucket's default where it is missing.
    pub encryption: Option<Encryption>,
    /// The storage class; the bucket's default where it is missing.
    pub storage_class: Option<String>,
    /// The tags of every object.
    pub tags: BTreeMap<String, String>,
    /// Object Lock, for every object.
    pub retention: Option<Retention>,
    /// A body larger than this is put in parts. At most 5 GiB: S3 takes no larger one whole.
    pub multipart_above: u64,
    /// The size of a part, in bytes. At least 5 MiB: S3 takes smaller ones as the last only.
    pub part_bytes: u64,
    /// For how long a call is tried again that may succeed later, counted from its first failure.
    pub retry: RetryPolicy,
}

/// Server-side encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Keys that S3 keeps (SSE-S3).
    S3,
    /// Keys that KMS keeps (SSE-KMS).
    Kms {
        /// Which; the account's own where it is missing.
        key_id: Option<String>,
        /// Whether a bucket key saves most of the calls to KMS.
        bucket_key: bool,
    },
}

/// Object Lock: an object can't be removed before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Who can lift it.
    pub mode: LockMode,
    /// For how long, from when the object is put.
    pub retain: Duration,
}

/// Who can lift an object's retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Those with the permission to.
    Governance,
    /// Nobody.
    Compliance,
}

impl S3Options {
    /// The bucket's root, and the bucket's own defaults for everything.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: String::new(),
            encryption: None,
            storage_class: None,
            tags: BTreeMap::new(),
            retention: None,
            multipart_above: 64 << 20,
            part_bytes: 16 << 20,
            retry: RetryPolicy { give_up_after: Some(Duration::from_secs(5)) },
        }
    }

    /// `s3://bucket/prefix`.
    pub(super) fn place(&self) -> String {
        match self.prefix.as_str() {
            "" => format!("s3://{}", self.bucket),
            prefix => format!("s3://{}/{prefix}", self.bucket),
        }
    }
}
