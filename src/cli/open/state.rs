//! Opening the state: leases and claims.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use jiff::Timestamp;
use uuid::Uuid;

use super::dynamodb::{self, DynamoState, Names};
use crate::archive::{ArchiveStore, has_batches};
use crate::cli::Failure;
use crate::config::{Config, StateChoice};
use crate::dedupe::Claims;
use crate::dedupe::dynamodb::DynamoClaims;
use crate::dedupe::embedded::{EmbeddedClaims, Options};
use crate::lease::LeaseStore;
use crate::lease::embedded::EmbeddedLeases;
use crate::ops::clock::Clock;
use crate::ops::identity::random_bytes;
use crate::ops::state_dir::{StateDir, StateError, StateView};
use crate::verify::rebuild;

/// Where leases and claims are.
pub(in crate::cli) enum State {
    /// A directory that is this process's alone for as long as this lives.
    Embedded(StateDir),
    /// Two tables.
    Dynamodb(DynamoState),
}

/// A state that is to be tried out.
pub(in crate::cli) enum Tried {
    /// Open, as a worker has it.
    Open(State),
    /// A directory that another process works with: it can be looked at.
    InUse {
        /// What others may see of it.
        view: StateView,
        /// Which directory, and by whom.
        by: String,
    },
}

impl State {
    /// Takes the directory for this process, or makes sure of the tables.
    pub(in crate::cli) async fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        Ok(match config.state.kind {
            StateChoice::Embedded => {
                Self::Embedded(StateDir::open(&config.state.embedded.path).map_err(state_failure)?)
            }
            StateChoice::Dynamodb => Self::Dynamodb(DynamoState::open(config, clock).await?),
        })
    }

    /// The names of the tables that were made when it was opened.
    pub(in crate::cli) fn made_tables(&self) -> &[String] {
        match self {
            Self::Embedded(_) => &[],
            Self::Dynamodb(state) => state.made(),
        }
    }

    /// The archive that it belongs to, if it does to any.
    pub(in crate::cli) async fn bound(&self) -> Result<Option<Uuid>, Failure> {
        match self {
            Self::Embedded(state) => {
                StateDir::look(state.path()).and_then(|view| view.archive()).map_err(state_failure)
            }
            Self::Dynamodb(state) => state.bound().await,
        }
    }

    /// Makes sure that it is used for one archive only.
    pub(in crate::cli) async fn bind(&self, archive_id: Uuid) -> Result<(), Failure> {
        match self {
            Self::Embedded(state) => state.bind(archive_id).map(drop).map_err(state_failure),
            Self::Dynamodb(state) => state.bind(archive_id).await.map(drop),
        }
    }

    /// The lease rows of the archive that it belongs to.
    pub(in crate::cli) fn leases(&self, archive_id: Uuid) -> Result<Arc<dyn LeaseStore>, Failure> {
        Ok(match self {
            Self::Embedded(state) => Arc::new(EmbeddedLeases::open(state.leases())?),
            Self::Dynamodb(state) => Arc::new(state.leases(archive_id)),
        })
    }

    /// Where the lease rows are, in words.
    pub(super) fn leases_place(&self) -> String {
        match self {
            Self::Embedded(state) => directory(&state.leases()),
            Self::Dynamodb(state) => format!("the table {}", state.names().leases),
        }
    }

    /// Claims that count for nothing, to try out whether a table keeps its conditions.
    pub(in crate::cli) fn trial_claims(&self) -> Option<DynamoClaims> {
        match self {
            Self::Embedded(_) => None,
            Self::Dynamodb(state) => Some(state.trial_claims()),
        }
    }

    /// The claims, complete.
    pub(super) async fn claims(
        &self,
        config: &Config,
        archive: &dyn ArchiveStore,
        archive_id: Uuid,
        now: Timestamp,
    ) -> Result<Arc<dyn Claims>, Failure> {
        Ok(match self {
            Self::Embedded(state) => {
                Arc::new(open_claims(state, claim_options(config), archive, archive_id, now).await?)
            }
            Self::Dynamodb(state) => Arc::new(state.claims(archive, archive_id).await?),
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(state) => f.write_str(&directory(state.path())),
            Self::Dynamodb(state) => state.names().fmt(f),
        }
    }
}

fn directory(path: &Path) -> String {
    format!("the directory `{}`", path.display())
}

impl Tried {
    /// Opens the state as [`State::open`] does, where no other process works with it.
    pub(in crate::cli) async fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        let is_in_use = |error: &anyhow::Error| matches!(error.downcast_ref(), Some(StateError::InUse { .. }));
        match State::open(config, clock).await {
            Ok(state) => Ok(Self::Open(state)),
            Err(Failure::Failed(error)) if is_in_use(&error) => {
                let view = StateDir::look(&config.state.embedded.path).map_err(state_failure)?;
                Ok(Self::InUse { view, by: error.to_string() })
            }
            Err(failure) => Err(failure),
        }
    }

    /// The archive that it belongs to, if it does to any.
    pub(in crate::cli) async fn bound(&self) -> Result<Option<Uuid>, Failure> {
        match self {
            Self::Open(state) => state.bound().await,
            Self::InUse { view, .. } => view.archive().map_err(state_failure),
        }
    }

    /// The lease rows, to be looked at; and where they are, in words.
    pub(in crate::cli) fn leases(&self, archive_id: Uuid) -> Result<(Arc<dyn LeaseStore>, String), Failure> {
        Ok(match self {
            Self::Open(state) => (state.leases(archive_id)?, state.leases_place()),
            Self::InUse { view, .. } => (Arc::new(EmbeddedLeases::look(view.leases())), directory(&view.leases())),
        })
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(state) => state.fmt(f),
            Self::InUse { view, .. } => f.write_str(&directory(view.path())),
        }
    }
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
    if !claims.is_new() || !has_batches(archive).await? {
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
    let done = claim_archive(&claims, archive, archive_id, now).await?;
    drop(claims);
    state.adopt_new_claims()?;
    Ok(done)
}

/// Lets everything in the archive claim, and says how far it has come.
pub(super) async fn claim_archive(
    claims: &dyn Claims,
    archive: &dyn ArchiveStore,
    archive_id: Uuid,
    now: Timestamp,
) -> Result<rebuild::Progress, rebuild::RebuildError> {
    let mut report = |progress: rebuild::Progress| {
        if progress.objects.is_multiple_of(100) {
            tracing::info!(objects = progress.objects, claims = progress.records, "reading the archive back");
        }
    };
    let done = rebuild::claims(archive, archive_id, claims, now, &mut report).await?;
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

/// A state of another archive is a matter of configuration, everything else of the moment.
fn state_failure(error: StateError) -> Failure {
    match error {
        StateError::OtherArchive { .. } => Failure::configuration(anyhow!(
            "{error}; one state directory goes with one archive: set state.embedded.path and archive.local.path to a pair"
        )),
        StateError::Unavailable { .. } => Failure::Failed(anyhow!(error).context("state.embedded.path")),
        other => Failure::Failed(other.into()),
    }
}

/// The lease rows, to be looked at while others may be writing them; none where there is no state. A state of
/// another archive than `archive_id` is refused: its rows would make that archive look damaged.
pub(in crate::cli) async fn look_at_leases(
    config: &Config,
    archive_id: Option<Uuid>,
) -> Result<Option<Arc<dyn LeaseStore>>, Failure> {
    if config.state.kind == StateChoice::Dynamodb {
        let leases = dynamodb::look(config, archive_id).await?;
        return Ok(leases.map(|leases| Arc::new(leases) as Arc<dyn LeaseStore>));
    }
    let path = &config.state.embedded.path;
    match StateDir::look(path) {
        Ok(view) => match (view.archive().map_err(state_failure)?, archive_id) {
            (Some(bound), Some(asked)) if bound != asked => {
                Err(state_failure(StateError::OtherArchive { path: path.clone(), bound, asked }))
            }
            _ => Ok(Some(Arc::new(EmbeddedLeases::look(view.leases())))),
        },
        Err(StateError::Missing { .. }) => Ok(None),
        Err(error) => Err(state_failure(error)),
    }
}

/// Where the lease rows are, or would be, with the setting that says so.
pub(in crate::cli) fn leases_place(config: &Config) -> String {
    match config.state.kind {
        StateChoice::Embedded => format!("state.embedded.path: {}", directory(&config.state.embedded.path)),
        StateChoice::Dynamodb => {
            format!("state.dynamodb.table_prefix: the table {}", Names::of(&config.state.dynamodb).leases)
        }
    }
}

/// The archive that the state belongs to, and where that state is; none where there is no state, or it is nobody's yet.
pub(in crate::cli) async fn bound_archive(config: &Config) -> Result<Option<(Uuid, String)>, Failure> {
    let path = &config.state.embedded.path;
    let (bound, place) = match config.state.kind {
        StateChoice::Dynamodb => (dynamodb::bound(config).await?, Names::of(&config.state.dynamodb).to_string()),
        StateChoice::Embedded => match StateDir::look(path) {
            Ok(view) => (view.archive().map_err(state_failure)?, directory(path)),
            Err(StateError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(state_failure(error)),
        },
    };
    Ok(bound.map(|bound| (bound, place)))
}

/// Whether a process works with the state directory; `None` where it can't be told, as of a table, which has any number of
/// workers.
pub(in crate::cli) fn state_is_in_use(config: &Config) -> Option<bool> {
    match config.state.kind {
        StateChoice::Dynamodb => None,
        StateChoice::Embedded => StateDir::look(&config.state.embedded.path).ok()?.is_in_use(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::read_archive;
    use super::*;
    use crate::ops::clock::SystemClock;

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
        assert!(Box::pin(crate::cli::catch_up::catch_up(&config)).await.is_ok());
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
