//! Opening the state: leases and claims.

use anyhow::anyhow;
use jiff::Timestamp;
use uuid::Uuid;

use crate::archive::ArchiveStore;
use crate::cli::Failure;
use crate::config::Config;
use crate::dedupe::embedded::{EmbeddedClaims, Options};
use crate::encode::keys::MANIFESTS_PREFIX;
use crate::lease::embedded::EmbeddedLeases;
use crate::ops::identity::random_bytes;
use crate::ops::state_dir::{StateDir, StateError};
use crate::verify::rebuild;

/// The claims of the state directory. Those that are new, beside an archive that is not, are made from the archive first:
/// without them copies of what is archived would get in.
pub(super) async fn open_claims(
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
pub(in crate::cli) async fn remake_claims(
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

/// How claims are kept under this configuration.
pub(in crate::cli) fn claim_options(config: &Config) -> Options {
    Options::new(config.dedupe.window.get(), random_bytes())
}

/// The state directory, taken for this process.
pub(in crate::cli) fn open_state(config: &Config) -> Result<StateDir, Failure> {
    StateDir::open(&config.state.embedded.path).map_err(state_failure)
}

/// A state of another archive is a matter of configuration, everything else of the moment.
pub(in crate::cli) fn state_failure(error: StateError) -> Failure {
    match error {
        StateError::OtherArchive { .. } => Failure::configuration(anyhow!(
            "{error}; one state directory goes with one archive: set state.embedded.path and archive.local.path to a pair"
        )),
        other => Failure::Failed(other.into()),
    }
}

/// The lease rows, to be looked at while another process may be writing them; none where there is no state. A state of
/// another archive than `archive_id` is refused: its rows would make that archive look damaged.
pub(in crate::cli) fn look_at_leases(
    config: &Config,
    archive_id: Option<Uuid>,
) -> Result<Option<EmbeddedLeases>, Failure> {
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::super::read_archive;
    use super::*;
    use crate::ops::clock::{Clock as _, SystemClock};

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
        assert!(crate::cli::catch_up::catch_up(&config).await.is_ok());
        fs::remove_dir_all(root.path().join("state")).unwrap();

        let (archive, archive_id) =
            read_archive(&config, Arc::new(SystemClock::start())).await.unwrap_or_else(|_| panic!());
        let state = StateDir::open(root.path().join("state")).unwrap();
        let now = SystemClock::start().now();
        // Each claim is sealed when the next one begins a segment.
        let options = Options { segment_claims: 1, ..Options::new(std::time::Duration::from_mins(1), [7; 16]) };
        let object = archive.list("events/").await.unwrap().pop().unwrap().key;
        let (object, away) = (root.path().join("archive").join(object), root.path().join("away"));
        fs::rename(&object, &away).unwrap();
        // Stops as a crash does, behind the first object.
        assert!(open_claims(&state, options, archive.as_ref(), archive_id, now).await.is_err());
        fs::rename(&away, &object).unwrap();

        let claims = open_claims(&state, options, archive.as_ref(), archive_id, now).await.unwrap_or_else(|_| panic!());
        assert_eq!(claims.len().unwrap(), 2);
    }
}
