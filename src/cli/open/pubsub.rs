//! Opening a subscription, and the spools that it is received into.

use std::sync::Arc;

use anyhow::anyhow;

use super::archive::open_bucket;
use crate::archive::LocalArchive;
use crate::cli::Failure;
use crate::config::{ArchiveChoice, Config, HumanDuration, S3Config, SourceChoice, SpoolChoice};
use crate::ops::clock::Clock;
use crate::ops::memory::MemoryBudget;
use crate::source::pubsub::{
    Cut, PubsubOptions, PubsubSource, PubsubSubscription, SpoolStore, Subscribe, SubscriptionError,
};

/// How often a spool that is caught up is asked for more. Of its own spools a worker knows without asking.
pub(super) const POLL: HumanDuration = HumanDuration::from_secs(1);

/// The part of the memory that one segment may hold: one in so many. One is gathered while another is put, and both are
/// there as they came, as they are stored, and compressed.
const SEGMENT: u64 = 32;

/// What names the emulator for all of Google's clients but this one.
const EMULATOR: &str = "PUBSUB_EMULATOR_HOST";

/// Where spools are kept.
async fn spool_store(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<dyn SpoolStore>, Failure> {
    let spool = &config.source.pubsub.spool;
    Ok(match (spool.store, config.archive.kind) {
        (SpoolChoice::Local, _) => Arc::new(LocalArchive::open(&spool.path)?),
        (SpoolChoice::Archive, ArchiveChoice::Local) => {
            Arc::new(LocalArchive::open(config.archive.local.path.join(spool.prefix.trim_matches('/')))?)
        }
        (SpoolChoice::Archive, ArchiveChoice::S3) => {
            Arc::new(open_bucket(&folder(&config.archive.s3, &spool.prefix), clock).await?.0)
        }
    })
}

/// The spools.
pub(super) async fn open_spools(
    config: &Config,
    clock: Arc<dyn Clock>,
    pages: Arc<MemoryBudget>,
) -> Result<Arc<PubsubSource>, Failure> {
    let spool = &config.source.pubsub.spool;
    let store = spool_store(config, clock.clone()).await?;
    let options = PubsubOptions {
        cut: Cut {
            flush_interval: spool.flush_interval.get(),
            max_bytes: spool.max_bytes.as_u64().min(config.limits.memory.as_u64() / SEGMENT).max(1),
            max_messages: spool.max_messages,
        },
        seal_after: spool.seal_after.get(),
    };
    Ok(Arc::new(PubsubSource::new(store, options, clock, pages)))
}

/// The bucket's folder for spools. What is kept for years is the archive's: segments go within the hour.
fn folder(s3: &S3Config, prefix: &str) -> S3Config {
    let prefix = [s3.prefix.trim_matches('/'), prefix.trim_matches('/')].join("/");
    let prefix = prefix.trim_start_matches('/').to_owned();
    S3Config { prefix, storage_class: None, object_lock: None, ..s3.clone() }
}

/// The subscription of the configuration, if the source is one. It must be there.
pub(in crate::cli) async fn open_subscription(config: &Config) -> Result<Option<Arc<dyn Subscribe>>, Failure> {
    if config.source.kind != SourceChoice::Pubsub {
        return Ok(None);
    }
    let pubsub = &config.source.pubsub;
    let required = |key: &str, what: &str| Failure::configuration(anyhow!("source.pubsub.{key}: is required: {what}"));
    let Some(subscription) = pubsub.subscription.as_deref().filter(|name| !name.is_empty()) else {
        return Err(required("subscription", "the name of the subscription to archive"));
    };
    let project = match pubsub.project.as_deref().filter(|name| !name.is_empty()) {
        Some(project) => project,
        None if subscription.starts_with("projects/") => "",
        None => return Err(required("project", "the project of the subscription")),
    };
    let emulator = std::env::var(EMULATOR).ok().filter(|host| !host.is_empty()).map(|host| format!("http://{host}"));
    let endpoint = pubsub.endpoint.clone().or(emulator);
    let opened = PubsubSubscription::open(project, subscription, endpoint.as_deref()).await.map_err(failure)?;
    let known = opened.look().await.map_err(failure)?;
    tracing::debug!(subscription = opened.name(), ?known, "the subscription is there");
    Ok(Some(Arc::new(opened)))
}

fn failure(error: SubscriptionError) -> Failure {
    Failure::Failed(anyhow!(error).context("source.pubsub"))
}
