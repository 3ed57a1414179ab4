//! Opening the source.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use jiff::Timestamp;

use super::pubsub::open_spools;
use super::require_region;
use crate::aws::{Patience, check_credentials, kinesis_client, sdk_config};
use crate::cli::Failure;
use crate::config::{Config, KinesisConsumer, SourceChoice, SourceConfig};
use crate::lease::{LeaseRow, LeaseStore};
use crate::ops::clock::{Clock, between};
use crate::ops::memory::MemoryBudget;
use crate::source::file::{FileOptions, FileSource};
use crate::source::kinesis::{KinesisOptions, KinesisSource};
use crate::source::pubsub::{PubsubSource, Receiver, Subscribe, subscription_name};
use crate::source::{Shard, Source, SourceError};

/// The longest that one call to Kinesis may take, to its answer's last byte: ten megabytes by a thin line. The reader
/// tries again by itself.
const KINESIS_CALL: Duration = Duration::from_secs(15);

/// A source whose kind is known.
pub(in crate::cli) enum OpenSource {
    File(Arc<FileSource>),
    Kinesis(Arc<KinesisSource>),
    Pubsub(Arc<PubsubSource>),
}

/// How much of a shard is not archived yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Lag {
    /// In bytes, where the source can tell.
    pub(in crate::cli) bytes: Option<u64>,
    /// In time, where the shard is known to be read up to some time.
    pub(in crate::cli) time: Option<Duration>,
}

impl OpenSource {
    /// The source that the configuration names. `pages` bounds what is read ahead.
    pub(in crate::cli) async fn open(
        config: &Config,
        clock: Arc<dyn Clock>,
        pages: Arc<MemoryBudget>,
    ) -> Result<Self, Failure> {
        match config.source.kind {
            SourceChoice::File => Ok(Self::File(open_files(config, clock)?)),
            SourceChoice::Kinesis => Ok(Self::Kinesis(open_kinesis(config, clock, pages).await?)),
            SourceChoice::Pubsub => Ok(Self::Pubsub(open_spools(config, clock, pages).await?)),
        }
    }

    /// The port.
    pub(in crate::cli) fn port(&self) -> Arc<dyn Source> {
        match self {
            Self::File(files) => files.clone(),
            Self::Kinesis(stream) => stream.clone(),
            Self::Pubsub(spools) => spools.clone(),
        }
    }

    /// What receives from a subscription into the source, where it is one that has to be filled.
    pub(in crate::cli) fn receiver(
        &self,
        subscription: Option<Arc<dyn Subscribe>>,
        leases: &Arc<dyn LeaseStore>,
    ) -> Option<Arc<Receiver>> {
        match (self, subscription) {
            (Self::Pubsub(spools), Some(subscription)) => Some(Arc::new(spools.receiver(subscription, leases.clone()))),
            _ => None,
        }
    }

    /// What of `shard` is not archived by what its lease row says.
    pub(in crate::cli) fn lag(&self, shard: &Shard, row: &LeaseRow, now: Timestamp) -> std::io::Result<Lag> {
        match self {
            Self::File(files) => {
                let done_at = row.read_through.filter(|_| row.caught_up);
                Ok(Lag { bytes: files.lag(shard, &row.checkpoint, done_at)?, time: None })
            }
            Self::Kinesis(_) | Self::Pubsub(_) => {
                let behind = |read: Timestamp| between(read, now);
                Ok(Lag { bytes: None, time: row.read_through.filter(|_| !row.ended).map(behind) })
            }
        }
    }
}

/// The source's port.
pub(in crate::cli) async fn open_source(
    config: &Config,
    clock: Arc<dyn Clock>,
    pages: Arc<MemoryBudget>,
) -> Result<Arc<dyn Source>, Failure> {
    Ok(OpenSource::open(config, clock, pages).await?.port())
}

/// What is read, as people write it. The configuration of a source that is open names it.
pub(super) fn place(config: &Config) -> String {
    let SourceConfig { kind, file, kinesis, pubsub, .. } = &config.source;
    let word = |word: &Option<String>| word.clone().unwrap_or_default();
    match kind {
        SourceChoice::File => file.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        SourceChoice::Kinesis => format!("Kinesis stream {}", word(&kinesis.stream)),
        SourceChoice::Pubsub => subscription_name(&word(&pubsub.project), &word(&pubsub.subscription)),
    }
}

/// The part of the memory that records which are read ahead from a stream may hold: one in so many.
pub(super) const READ_AHEAD: u64 = 4;

/// The most that records which are read ahead may hold in memory.
pub(in crate::cli) fn pages(config: &Config) -> Arc<MemoryBudget> {
    MemoryBudget::new(config.limits.memory.as_u64() / READ_AHEAD)
}

/// Refuses a configuration that names nothing to read, as none at all does.
pub(in crate::cli) fn require_files(config: &Config) -> Result<&Path, Failure> {
    config.source.file.path.as_deref().ok_or_else(|| {
        Failure::configuration(anyhow!(
            "source.file.path: is required: the file or directory to archive; is --config missing?"
        ))
    })
}

/// The files, if there is anything at their path.
fn open_files(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<FileSource>, Failure> {
    let path = require_files(config)?.to_owned();
    readable(&path).with_context(|| format!("source.file.path: {}", path.display())).map_err(Failure::configuration)?;
    let options = FileOptions {
        path,
        window: config.batch.window.get(),
        settle: config.source.file.settle.get(),
        max_payload_bytes: config.limits.max_payload_bytes.as_u64(),
    };
    Ok(Arc::new(FileSource::new(options, clock)))
}

fn readable(path: &Path) -> std::io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        std::fs::read_dir(path).map(drop)
    } else {
        std::fs::File::open(path).map(drop)
    }
}

async fn open_kinesis(
    config: &Config,
    clock: Arc<dyn Clock>,
    pages: Arc<MemoryBudget>,
) -> Result<Arc<KinesisSource>, Failure> {
    let kinesis = &config.source.kinesis;
    let Some(stream) = kinesis.stream.clone() else {
        return Err(Failure::configuration(anyhow!(
            "source.kinesis.stream: is required: the name or the ARN of the stream to archive"
        )));
    };
    let sdk = sdk_config(kinesis.access(), Patience { attempt: KINESIS_CALL, attempts: 1 }).await;
    require_region(sdk.region(), "source.kinesis", "the stream's")?;
    let refuse = |reason| Failure::configuration(anyhow!("source.kinesis: {reason}"));
    check_credentials(&sdk).await.map_err(refuse)?;
    let consumer = match kinesis.consumer {
        KinesisConsumer::Polling => None,
        KinesisConsumer::FanOut => Some(kinesis.consumer_name.clone()),
    };
    let options = KinesisOptions { stream, consumer, list_shards: kinesis.list_shards.get() };
    let opened = KinesisSource::open(kinesis_client(&sdk), options, clock, pages).await;
    Ok(Arc::new(opened.map_err(|error: SourceError| anyhow!(error).context("source.kinesis.stream"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_named_as_people_write_it() {
        let mut config = Config::default();
        config.source.file.path = Some("/var/log/audit".into());
        config.source.kinesis.stream = Some("temporal-audit".into());
        config.source.pubsub.project = Some("p".into());
        config.source.pubsub.subscription = Some("s".into());
        let mut named = |kind| {
            config.source.kind = kind;
            place(&config)
        };
        assert_eq!(named(SourceChoice::File), "/var/log/audit");
        assert_eq!(named(SourceChoice::Kinesis), "Kinesis stream temporal-audit");
        assert_eq!(named(SourceChoice::Pubsub), "projects/p/subscriptions/s");
    }
}
