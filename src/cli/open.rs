//! From the configuration to open ports: the wiring.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use uuid::Uuid;

use super::Failure;
use crate::app::Ports;
use crate::archive::identity::{self, IdentityError};
use crate::archive::{ArchiveStore, LocalArchive};
use crate::batch::Limits;
use crate::config::Config;
use crate::dedupe::embedded::{EmbeddedClaims, Options};
use crate::encode::keys::MANIFESTS_PREFIX;
use crate::lease::WorkerId;
use crate::lease::embedded::EmbeddedLeases;
use crate::ops::clock::{Clock, SystemClock};
use crate::ops::identity::{random_bytes, random_id};
use crate::ops::retry::RetryPolicy;
use crate::ops::state_dir::{StateDir, StateError};
use crate::record::IdentityKey;
use crate::source::file::{FileOptions, FileSource};
use crate::verify::rebuild;
use crate::worker::Settings;

/// Everything that a worker needs, open. The state directory is this process's alone for as long as this lives.
pub(super) struct Opened {
    pub(super) ports: Ports,
    pub(super) archive_id: Uuid,
    _state: StateDir,
}

/// Opens source, state and archive, in this order of complaints, and binds the state to the archive.
pub(super) async fn open(config: &Config) -> Result<Opened, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let source = open_source(config, clock.clone())?;
    let state = open_state(config)?;
    let archive: Arc<dyn ArchiveStore> = Arc::new(open_archive(&config.archive.local.path)?);
    let archive_id = archive_identity(archive.as_ref(), &state, clock.as_ref(), &config.archive.local.path).await?;
    state.bind(archive_id).map_err(state_failure)?;
    let claims = open_claims(&state, claim_options(config), archive.as_ref(), archive_id, clock.now()).await?;
    let leases = EmbeddedLeases::open(state.leases())?;
    let ports = Ports { source, claims: Arc::new(claims), archive, leases: Arc::new(leases), clock };
    Ok(Opened { ports, archive_id, _state: state })
}

/// The claims of the state directory. Those that are new, beside an archive that is not, are made from the archive first:
/// without them copies of what is archived would get in.
async fn open_claims(
    state: &StateDir,
    options: Options,
    archive: &dyn ArchiveStore,
    archive_id: Uuid,
    now: Timestamp,
) -> Result<EmbeddedClaims, Failure> {
    let claims = EmbeddedClaims::open(state.claims(), options, now)?;
    if !claims.is_new() || archive.list(MANIFESTS_PREFIX).await?.is_empty() {
        return Ok(claims);
    }
    drop(claims);
    let claimed = remake_claims(state, options, archive, archive_id, now).await?;
    tracing::warn!(records = claimed.records, objects = claimed.objects, "claims were made anew from the archive");
    Ok(EmbeddedClaims::open(state.claims(), options, now)?)
}

/// Makes the claims anew from the archive, beside the old ones, whose place they take when they are complete: half of
/// them would not look new any more.
pub(super) async fn remake_claims(
    state: &StateDir,
    options: Options,
    archive: &dyn ArchiveStore,
    archive_id: Uuid,
    now: Timestamp,
) -> Result<rebuild::Progress, Failure> {
    let claims = EmbeddedClaims::open(state.new_claims()?, options, now)?;
    let mut report = |progress: rebuild::Progress| {
        if progress.objects.is_multiple_of(100) {
            tracing::info!(objects = progress.objects, claims = progress.records, "reading the archive back");
        }
    };
    let done = rebuild::claims(archive, archive_id, &claims, now, &mut report).await?;
    drop(claims);
    state.adopt_new_claims()?;
    if done.unclaimable > 0 {
        tracing::warn!(
            records = done.unclaimable,
            "records without log_id could not claim, since the archive does not keep their raw text: a copy of one would \
             be archived again"
        );
    }
    Ok(done)
}

/// The source, if there is anything at its path.
pub(super) fn open_source(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<FileSource>, Failure> {
    let Some(path) = config.source.file.path.clone() else {
        return Err(Failure::configuration(anyhow!(
            "source.file.path: is required: the file or directory to archive; is --config missing?"
        )));
    };
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

/// How claims are kept under this configuration.
pub(super) fn claim_options(config: &Config) -> Options {
    Options::new(config.dedupe.window.get(), random_bytes())
}

/// The state directory, taken for this process.
pub(super) fn open_state(config: &Config) -> Result<StateDir, Failure> {
    StateDir::open(&config.state.embedded.path).map_err(state_failure)
}

/// A state of another archive is a matter of configuration, everything else of the moment.
pub(super) fn state_failure(error: StateError) -> Failure {
    match error {
        StateError::OtherArchive { .. } => Failure::configuration(anyhow!(
            "{error}; one state directory goes with one archive: set state.embedded.path and archive.local.path to a pair"
        )),
        other => Failure::Failed(other.into()),
    }
}

/// The folder of the archive, which need not be there yet.
fn open_archive(path: &Path) -> Result<LocalArchive, Failure> {
    if path.exists() && !path.is_dir() {
        return Err(Failure::configuration(anyhow!("archive.local.path: {}: is not a folder", path.display())));
    }
    Ok(LocalArchive::open(path)?)
}

/// The archive's id; an archive is made where there is none yet, unless the state says that there should be one: then
/// its disk is not there.
async fn archive_identity(
    archive: &dyn ArchiveStore,
    state: &StateDir,
    clock: &dyn Clock,
    path: &Path,
) -> Result<Uuid, Failure> {
    let bound = StateDir::look(state.path()).and_then(|view| view.archive()).map_err(state_failure)?;
    if let (Some(bound), Err(IdentityError::Absent)) = (bound, identity::read(archive).await) {
        let (path, state) = (path.display(), state.path().display());
        return Err(Failure::configuration(anyhow!(
            "archive.local.path: {path}: the archive {bound}, to which the state directory `{state}` belongs, is not \
             there; is its disk mounted?"
        )));
    }
    let opened = identity::open_or_create(archive, clock.now(), random_id).await;
    opened.map(|identity| identity.archive_id).map_err(|error| identity_failure(error, path))
}

fn identity_failure(error: IdentityError, path: &Path) -> Failure {
    let is_configuration = matches!(error, IdentityError::NotAnArchive { .. } | IdentityError::Absent);
    let error = anyhow!(error).context(format!("archive.local.path: {}", path.display()));
    if is_configuration { Failure::Configuration(error) } else { Failure::Failed(error) }
}

/// The archive, for reading only: it must be there.
pub(super) async fn read_archive(config: &Config) -> Result<(LocalArchive, Uuid), Failure> {
    let path = &config.archive.local.path;
    // Opening for writing would make the directory.
    std::fs::metadata(path)
        .with_context(|| format!("archive.local.path: {}", path.display()))
        .map_err(Failure::configuration)?;
    let archive = open_archive(path)?;
    let read = identity::read(&archive).await.map_err(|error| identity_failure(error, path))?;
    Ok((archive, read.archive_id))
}

/// The lease rows, to be looked at while another process may be writing them; none where there is no state. A state of
/// another archive than `archive_id` is refused: its rows would make that archive look damaged.
pub(super) fn look_at_leases(config: &Config, archive_id: Option<Uuid>) -> Result<Option<EmbeddedLeases>, Failure> {
    let path = &config.state.embedded.path;
    match StateDir::look(path) {
        Ok(view) => match (view.archive().map_err(state_failure)?, archive_id) {
            (Some(bound), Some(asked)) if bound != asked => {
                Err(state_failure(StateError::OtherArchive { path: path.clone(), bound, asked }))
            }
            _ => Ok(Some(EmbeddedLeases::look(view.leases()))),
        },
        Err(StateError::Missing { .. }) => Ok(None),
        Err(error) => Err(state_failure(error)),
    }
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn claims_that_were_half_made_from_the_archive_are_made_again() {
        let root = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.source.file.path = Some(root.path().join("in"));
        config.state.embedded.path = root.path().join("state");
        config.archive.local.path = root.path().join("archive");
        fs::create_dir(root.path().join("in")).unwrap();
        for name in ["a", "b"] {
            fs::write(root.path().join("in").join(name), format!("{{\"log_id\":\"{name}\"}}\n")).unwrap();
        }
        assert!(super::super::catch_up::catch_up(&config).await.is_ok());
        fs::remove_dir_all(root.path().join("state")).unwrap();

        let (archive, archive_id) = read_archive(&config).await.unwrap_or_else(|_| panic!());
        let state = StateDir::open(root.path().join("state")).unwrap();
        let now = SystemClock::start().now();
        // Each claim is sealed when the next one begins a segment.
        let options = Options { segment_claims: 1, ..Options::new(std::time::Duration::from_mins(1), [7; 16]) };
        let object = archive.list("events/").await.unwrap().pop().unwrap().key;
        let (object, away) = (root.path().join("archive").join(object), root.path().join("away"));
        fs::rename(&object, &away).unwrap();
        // Stops as a crash does, behind the first object.
        assert!(open_claims(&state, options, &archive, archive_id, now).await.is_err());
        fs::rename(&away, &object).unwrap();

        let claims = open_claims(&state, options, &archive, archive_id, now).await.unwrap_or_else(|_| panic!());
        assert_eq!(claims.len().unwrap(), 2);
    }
}
