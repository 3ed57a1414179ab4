//! From the configuration to open ports: the wiring.

mod answers;
mod archive;
mod dynamodb;
mod pubsub;
mod source;
mod state;

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::app::Ports;
use crate::archive::identity::ArchiveIdentity;
use crate::batch::Limits;
use crate::config::{Config, SourceChoice};
use crate::lease::{LeaseError, LeaseRow, OtherRows, WorkerId};
use crate::ops::clock::Clock;
use crate::ops::identity::random_bytes;
use crate::ops::memory::MemoryBudget;
use crate::ops::retry::{RetryPolicy, retry};
use crate::record::IdentityKey;
use crate::source::InitialPosition;
use crate::source::pubsub::Receiver;
use crate::worker::Settings;

use answers::however_long;
use source::READ_AHEAD;

pub(super) use answers::{Part, in_time, no_answer};
pub(super) use archive::{
    OpenArchive, archive_identity, bucket_endpoint, check_pair, find_archive, is_written, open_archive, read_archive,
    refuse_lost_archive,
};
pub(super) use dynamodb::{Names, found_client, is_there, missing_leases};
pub(super) use pubsub::open_subscription;
pub(super) use source::{Lag, OpenSource, open_source, pages, require_files};
pub(super) use state::{State, Tried, claim_options, leases_place, look_at_leases, remake_claims, state_is_in_use};

/// For how long the first look at the lease rows is tried again. A table that is throttled may take some of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Refuses a service whose region nothing names; `section` is its part of the configuration.
fn require_region(region: Option<&aws_config::Region>, section: &str, whose: &str) -> Result<(), Failure> {
    if region.is_some() {
        return Ok(());
    }
    Err(Failure::configuration(anyhow!(
        "{section}.region: is required: neither it nor AWS_REGION nor the profile names {whose} region"
    )))
}

/// Everything that a worker needs, open. A state directory is this process's alone for as long as this lives.
pub(super) struct Opened {
    pub(super) ports: Ports,
    /// What fills the source, where something has to.
    pub(super) receiver: Option<Arc<Receiver>>,
    pub(super) archive: ArchiveIdentity,
    /// What is read, as people write it.
    pub(super) reads: String,
    /// Where the archive is, as people and query engines write it.
    pub(super) location: String,
    /// What bounds the records that are read ahead.
    pub(super) pages: Arc<MemoryBudget>,
    _state: State,
}

/// Opens source, state and archive, in this order of complaints, and binds the state to the archive.
pub(super) async fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Opened, Failure> {
    let pages = pages(config);
    let now = clock.as_ref();
    let source = OpenSource::open(config, clock.clone(), pages.clone());
    let source = however_long(config, now, Part::Source, Box::pin(source)).await?;
    let subscription = however_long(config, now, Part::Source, Box::pin(open_subscription(config))).await?;
    let state = however_long(config, now, Part::State, Box::pin(State::open(config, clock.clone()))).await?;
    let archive = open_archive(config, clock.clone()).await?;
    let identity = Box::pin(archive_identity(&archive, &state, now));
    let identity = however_long(config, now, Part::Archive, identity).await?;
    let (archive, location) = (archive.store, archive.place.location);
    let archive_id = identity.archive_id;
    state.bind(archive_id).await?;
    let leases = state.leases(archive_id)?;
    // Before anything is received: what is acknowledged is nowhere else.
    let (policy, never) = (RetryPolicy { give_up_after: Some(PATIENCE) }, CancellationToken::new());
    let listing = retry(policy, clock.as_ref(), &never, LeaseError::may_pass, || leases.look()).await?;
    refuse_another_source(&state.leases_place(), &listing.rows, source.port().origin())?;
    let claims = state.claims(config, archive.as_ref(), archive_id, clock.now()).await?;
    let receiver = source.receiver(subscription, &leases);
    let ports = Ports { source: source.port(), claims, archive, leases, clock };
    let reads = source::place(config);
    Ok(Opened { ports, receiver, archive: identity, reads, location, pages, _state: state })
}

/// Refuses to read what `origin` names by the rows at `place` where any of them is another source's.
pub(super) fn refuse_another_source(place: &str, rows: &[LeaseRow], origin: Option<&str>) -> Result<(), Failure> {
    OtherRows::check(rows, origin).map_err(|error| anyhow!(error).context(place.to_owned()).into())
}

/// The settings of a worker under this configuration.
pub(super) fn settings(config: &Config, archive: &ArchiveIdentity, retry: RetryPolicy) -> Settings {
    // Files are read as fast as cores can take them. Readers of a stream wait for the network; their memory is bounded
    // by what they may read ahead.
    let whole = config.limits.memory.as_u64();
    let (concurrency, poll, memory) = match config.source.kind {
        SourceChoice::File => {
            (std::thread::available_parallelism().map_or(1, std::num::NonZero::get), config.source.file.poll, whole)
        }
        SourceChoice::Kinesis => (usize::MAX, config.source.kinesis.poll, whole - whole / READ_AHEAD),
        SourceChoice::Pubsub => (usize::MAX, pubsub::POLL, whole - whole / READ_AHEAD),
    };
    // What a subscription gives is wanted, all of it.
    let initial = match config.source.kind {
        SourceChoice::Kinesis => config.source.kinesis.initial_position,
        SourceChoice::File | SourceChoice::Pubsub => InitialPosition::TrimHorizon,
    };
    Settings {
        worker: worker_id(config.worker.id.as_deref()),
        archive_id: archive.archive_id,
        identity: IdentityKey::of_archive(archive.archive_id),
        layout: config.layout(),
        limits: Limits {
            window: config.batch.window.get(),
            max_records: config.batch.max_records,
            max_bytes: config.batch.max_bytes.as_u64(),
            max_memory: memory,
        },
        memory,
        concurrency,
        poll: poll.get(),
        failover: config.lease.failover.get(),
        initial,
        archive_made_at: archive.created_at,
        retry,
    }
}

/// The configured name, or the host's, with something of this process alone behind it: two processes of one name must not
/// take each other's leases for their own.
fn worker_id(configured: Option<&str>) -> WorkerId {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = configured.map(str::to_owned).or_else(host).unwrap_or_default();
    let unique: [u8; 4] = random_bytes();
    WorkerId::new(format!("{}-{}", name.trim(), hex::encode(unique)).trim_start_matches('-'))
}
