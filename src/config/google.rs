//! The settings of Pub/Sub. Credentials come by Google's own chain: `GOOGLE_APPLICATION_CREDENTIALS`, what `gcloud auth
//! application-default login` left, the machine's service account.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{HumanBytes, HumanDuration};

/// `[source] pubsub = { … }`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PubsubConfig {
    /// The subscription's project. Required, unless the subscription is named in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The subscription's name, or `projects/…/subscriptions/…`. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
    /// Another endpoint than Google's. One that begins with `http://` is an emulator's, and asked without credentials.
    /// `PUBSUB_EMULATOR_HOST` counts where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// `catch-up` has received all there is when nothing has come for so long.
    pub drain_idle: HumanDuration,
    /// What is received is kept there until it is archived.
    pub spool: SpoolConfig,
}

impl Default for PubsubConfig {
    fn default() -> Self {
        Self {
            project: None,
            subscription: None,
            endpoint: None,
            drain_idle: HumanDuration::from_secs(10),
            spool: SpoolConfig::default(),
        }
    }
}

/// `[source] pubsub = { spool = { … } }`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// `archive` (beside the archive, below `_spool/`) or `local` (a directory, for a single machine).
    pub store: SpoolChoice,
    /// The directory of `store = "local"`.
    pub path: PathBuf,
    /// The folder of `store = "archive"`, below the archive's prefix; begins with an underscore.
    pub prefix: String,
    /// How long a message may wait for others before they are put and acknowledged together.
    pub flush_interval: HumanDuration,
    /// The most bytes of a segment, and never more than a 32nd of `limits.memory`; a larger message has one of its own.
    pub max_bytes: HumanBytes,
    /// The most messages of a segment.
    pub max_messages: u64,
    /// How long nothing must have come into a spool that another worker began, before it counts as a dead one's.
    pub seal_after: HumanDuration,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            store: SpoolChoice::Archive,
            path: "spool".into(),
            prefix: "_spool".into(),
            flush_interval: HumanDuration::from_secs(5),
            max_bytes: HumanBytes::mib(8),
            max_messages: 10_000,
            seal_after: HumanDuration::from_secs(30),
        }
    }
}

/// The places for spools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpoolChoice {
    /// Where the archive is, in a folder of their own.
    #[default]
    Archive,
    /// A directory.
    Local,
}
