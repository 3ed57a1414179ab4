//! From the configuration to open ports: the wiring.

mod archive;
mod source;
mod state;

use std::sync::Arc;

use uuid::Uuid;

use super::Failure;
use crate::app::Ports;
use crate::archive::ArchiveStore;
use crate::batch::Limits;
use crate::config::{Config, SourceChoice};
use crate::lease::WorkerId;
use crate::lease::embedded::EmbeddedLeases;
use crate::ops::clock::{Clock, SystemClock};
use crate::ops::retry::RetryPolicy;
use crate::ops::state_dir::StateDir;
use crate::record::IdentityKey;
use crate::worker::Settings;

use archive::{archive_identity, open_archive};
use state::open_claims;

pub(super) use archive::read_archive;
pub(super) use source::{Lag, OpenSource, open_source, pages};
pub(super) use state::{claim_options, look_at_leases, open_state, remake_claims, state_failure};

/// Everything that a worker needs, open. The state directory is this process's alone for as long as this lives.
pub(super) struct Opened {
    pub(super) ports: Ports,
    pub(super) archive_id: Uuid,
    _state: StateDir,
}

/// Opens source, state and archive, in this order of complaints, and binds the state to the archive.
pub(super) async fn open(config: &Config) -> Result<Opened, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let source = open_source(config, clock.clone(), pages(config)).await?;
    let state = open_state(config)?;
    let archive: Arc<dyn ArchiveStore> = Arc::new(open_archive(&config.archive.local.path)?);
    let archive_id = archive_identity(archive.as_ref(), &state, clock.as_ref(), &config.archive.local.path).await?;
    state.bind(archive_id).map_err(state_failure)?;
    let claims = open_claims(&state, claim_options(config), archive.as_ref(), archive_id, clock.now()).await?;
    let leases = EmbeddedLeases::open(state.leases())?;
    let ports = Ports { source, claims: Arc::new(claims), archive, leases: Arc::new(leases), clock };
    Ok(Opened { ports, archive_id, _state: state })
}

/// The settings of a worker under this configuration.
pub(super) fn settings(config: &Config, archive_id: Uuid, retry: RetryPolicy) -> Settings {
    let memory = config.limits.memory.as_u64();
    // Files are read as fast as cores can take them. Readers of a stream wait for the network; their memory is bounded
    // by what they may read ahead.
    let (concurrency, poll) = match config.source.kind {
        SourceChoice::File => {
            (std::thread::available_parallelism().map_or(1, std::num::NonZero::get), config.source.file.poll)
        }
        SourceChoice::Kinesis => (tokio::sync::Semaphore::MAX_PERMITS, config.source.kinesis.poll),
    };
    Settings {
        worker: WorkerId::new(format!("{}", std::process::id())),
        archive_id,
        identity: IdentityKey::of_archive(archive_id),
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
        retry,
    }
}
