//! Opening the archive, and telling which one it is.

use std::path::Path;

use anyhow::{Context, anyhow};
use uuid::Uuid;

use super::state::state_failure;
use crate::archive::identity::{self, ArchiveIdentity, IdentityError};
use crate::archive::{ArchiveStore, LocalArchive};
use crate::cli::Failure;
use crate::config::Config;
use crate::ops::clock::Clock;
use crate::ops::identity::random_id;
use crate::ops::state_dir::StateDir;

/// The folder of the archive, which need not be there yet.
pub(super) fn open_archive(path: &Path) -> Result<LocalArchive, Failure> {
    if path.exists() && !path.is_dir() {
        return Err(Failure::configuration(anyhow!("archive.local.path: {}: is not a folder", path.display())));
    }
    Ok(LocalArchive::open(path)?)
}

/// The archive's identity; an archive is made where there is none yet, unless the state says that there should be one: then
/// its disk is not there.
pub(super) async fn archive_identity(
    archive: &dyn ArchiveStore,
    state: &StateDir,
    clock: &dyn Clock,
    path: &Path,
) -> Result<ArchiveIdentity, Failure> {
    let bound = StateDir::look(state.path()).and_then(|view| view.archive()).map_err(state_failure)?;
    if let (Some(bound), Err(IdentityError::Absent)) = (bound, identity::read(archive).await) {
        let (path, state) = (path.display(), state.path().display());
        return Err(Failure::configuration(anyhow!(
            "archive.local.path: {path}: the archive {bound}, to which the state directory `{state}` belongs, is not \
             there; is its disk mounted?"
        )));
    }
    let opened = identity::open_or_create(archive, clock.now(), random_id).await;
    opened.map_err(|error| identity_failure(error, path))
}

fn identity_failure(error: IdentityError, path: &Path) -> Failure {
    let is_configuration = matches!(error, IdentityError::NotAnArchive { .. } | IdentityError::Absent);
    let error = anyhow!(error).context(format!("archive.local.path: {}", path.display()));
    if is_configuration { Failure::Configuration(error) } else { Failure::Failed(error) }
}

/// The archive, for reading only: it must be there.
pub(in crate::cli) async fn read_archive(config: &Config) -> Result<(LocalArchive, Uuid), Failure> {
    let path = &config.archive.local.path;
    // Opening for writing would make the directory.
    std::fs::metadata(path)
        .with_context(|| format!("archive.local.path: {}", path.display()))
        .map_err(Failure::configuration)?;
    let archive = open_archive(path)?;
    let read = identity::read(&archive).await.map_err(|error| identity_failure(error, path))?;
    Ok((archive, read.archive_id))
}
