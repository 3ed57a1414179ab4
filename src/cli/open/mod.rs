//! From the configuration to open ports: the wiring.

mod archive;
mod dynamodb;
mod source;
mod state;

use std::sync::Arc;

use uuid::Uuid;

use super::Failure;
use crate::app::Ports;
use crate::batch::Limits;
use crate::config::Config;
use crate::lease::WorkerId;
use crate::ops::clock::{Clock, SystemClock};
use crate::ops::retry::RetryPolicy;
use crate::record::IdentityKey;
use crate::worker::Settings;

pub(super) use archive::{archive_identity, find_archive, open_archive, read_archive};
pub(super) use source::open_source;
pub(super) use state::{State, claim_options, look_at_leases, remake_claims};

/// Everything that a worker needs, open. A state directory is this process's alone for as long as this lives.
pub(super) struct Opened {
    pub(super) ports: Ports,
    pub(super) archive_id: Uuid,
    _state: State,
}

/// Opens source, state and archive, in this order of complaints, and binds the state to the archive.
pub(super) async fn open(config: &Config) -> Result<Opened, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let source = open_source(config, clock.clone())?;
    let state = State::open(config, clock.clone()).await?;
    let archive = open_archive(config, clock.clone()).await?;
    let archive_id = archive_identity(&archive, &state, clock.as_ref()).await?;
    let archive = archive.store;
    state.bind(archive_id).await?;
    let claims = state.claims(config, archive.as_ref(), archive_id, clock.now()).await?;
    let leases = state.leases(archive_id)?;
    let ports = Ports { source, claims, archive, leases, clock };
    Ok(Opened { ports, archive_id, _state: state })
}

/// The settings of a worker under this configuration.
pub(super) fn settings(config: &Config, archive_id: Uuid, retry: RetryPolicy) -> Settings {
    let memory = config.limits.memory.as_u64();
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
        concurrency: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        poll: config.source.file.poll.get(),
        retry,
    }
}
