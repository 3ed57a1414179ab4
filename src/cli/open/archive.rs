//! Opening the archive, and telling which one it is.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use futures_util::TryFutureExt as _;
use uuid::Uuid;

use super::answers::{Part, asked, however_long};
use super::require_region;
use super::state::{State, Tried, bound_archive};
use crate::archive::identity::{self, ArchiveIdentity, IdentityError};
use crate::archive::s3::{Encryption, LockMode, Probe, Retention, S3Options};
use crate::archive::{ArchiveError, ArchiveStore, LocalArchive, S3Archive, has_batches};
use crate::aws::{self, Patience};
use crate::cli::Failure;
use crate::config::{ArchiveChoice, Config, ObjectLockMode, S3Config, S3Encryption};
use crate::ops::clock::Clock;
use crate::ops::identity::random_id;

/// How long one call may take: 64 MiB, the most that goes in one, have a minute on a line of 9 Mbit/s. The archive tries
/// again itself.
const PATIENCE: Patience = Patience { attempt: Duration::from_mins(1), attempts: 1 };

/// Where the archive is, and the setting that says so.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Place {
    setting: &'static str,
    /// The setting with the endpoint that is asked, or the region; none of a disk.
    asked: Option<String>,
    /// As people and query engines write it: a path, or `s3://bucket/prefix`.
    pub(in crate::cli) location: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.location)
    }
}

impl Place {
    fn local(path: &Path) -> Self {
        Self { setting: "archive.local.path", asked: None, location: path.display().to_string() }
    }

    /// The failure, with the place that it is about.
    fn failure(&self, error: ArchiveError) -> Failure {
        let place = self.of(&error);
        Failure::Failed(anyhow!(error).context(place))
    }

    /// The place, as it is told beside the error: whoever gives no answer does not say who was asked.
    fn of(&self, error: &ArchiveError) -> String {
        match &self.asked {
            Some(asked) if matches!(error, ArchiveError::Unavailable { .. }) => format!("{asked}: {}", self.location),
            _ => self.to_string(),
        }
    }
}

/// The archive, open, whatever it is.
pub(in crate::cli) struct OpenArchive {
    pub(in crate::cli) store: Arc<dyn ArchiveStore>,
    pub(in crate::cli) place: Place,
    /// Where it is a bucket: what can be tried out.
    bucket: Option<S3Archive>,
}

impl OpenArchive {
    /// Fails where nothing can be asked of a bucket: it is not there, or gives no answer. A single permission that is
    /// missing is another matter.
    pub(in crate::cli) async fn find(&self) -> Result<(), Failure> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        match bucket.probe(Probe::List).await {
            Err(ArchiveError::Refused { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(self.place.failure(error)),
        }
    }

    /// That there is no archive in its place, though `state` is that of one.
    fn gone(&self, bound: Uuid, state: &dyn fmt::Display) -> Failure {
        let help = if self.bucket.is_some() { "is it another bucket or prefix?" } else { "is its disk mounted?" };
        Failure::configuration(anyhow!(
            "{}: the archive {bound}, whose state is in {state}, is not there; {help}",
            self.place
        ))
    }

    /// Tries out what can be tried of a bucket.
    pub(in crate::cli) async fn probe(&self, probes: &[Probe]) -> Result<(), Failure> {
        if let Some(bucket) = &self.bucket {
            for probe in probes {
                bucket.probe(*probe).await.map_err(|error| self.place.failure(error))?;
            }
        }
        Ok(())
    }
}

/// The archive of the configuration, which need not be there yet. Asks it nothing.
pub(in crate::cli) async fn open_archive(config: &Config, clock: Arc<dyn Clock>) -> Result<OpenArchive, Failure> {
    match config.archive.kind {
        ArchiveChoice::Local => {
            let place = Place::local(&config.archive.local.path);
            let path = &config.archive.local.path;
            if path.exists() && !path.is_dir() {
                return Err(Failure::configuration(anyhow!("{place}: is not a folder")));
            }
            Ok(OpenArchive { store: Arc::new(LocalArchive::open(path)?), place, bucket: None })
        }
        ArchiveChoice::S3 => {
            let (archive, asked) = open_bucket(&config.archive.s3, clock).await?;
            let place = Place { setting: "archive.s3", asked: Some(asked), location: archive.place() };
            Ok(OpenArchive { store: Arc::new(archive.clone()), place, bucket: Some(archive) })
        }
    }
}

/// The bucket, and who is asked for it ([`asked`]).
pub(super) async fn open_bucket(config: &S3Config, clock: Arc<dyn Clock>) -> Result<(S3Archive, String), Failure> {
    let Some(bucket) = config.bucket.as_deref().filter(|bucket| !bucket.is_empty()) else {
        return Err(Failure::configuration(anyhow!("archive.s3.bucket: is required: the bucket of the archive")));
    };
    let sdk = aws::sdk_config(config.access(), PATIENCE).await;
    require_region(sdk.region(), "archive.s3", "the bucket's")?;
    let refuse = |reason| Failure::configuration(anyhow!("archive.s3: {reason}"));
    aws::check_credentials(&sdk).await.map_err(refuse)?;
    let client = aws::s3_client(&sdk, config.force_path_style);
    let prefix = |error: ArchiveError| Failure::configuration(anyhow!("archive.s3.prefix: {error}"));
    let archive = S3Archive::new(client, s3_options(config, bucket), clock).map_err(prefix)?;
    Ok((archive, asked("archive.s3", &sdk, "S3")))
}

/// The bucket's endpoint, where it is another than its region's: the configuration's, or the environment's.
pub(in crate::cli) async fn bucket_endpoint(config: &S3Config) -> Option<String> {
    aws::endpoint(&aws::sdk_config(config.access(), PATIENCE).await, "S3")
}

fn s3_options(config: &S3Config, bucket: &str) -> S3Options {
    let encryption = config.sse.map(|sse| match sse {
        S3Encryption::Aes256 => Encryption::S3,
        S3Encryption::Kms => Encryption::Kms { key_id: config.kms_key_id.clone(), bucket_key: config.bucket_key },
    });
    let retention = config.object_lock.map(|lock| Retention {
        mode: match lock.mode {
            ObjectLockMode::Governance => LockMode::Governance,
            ObjectLockMode::Compliance => LockMode::Compliance,
        },
        retain: lock.retain.get(),
    });
    S3Options {
        prefix: config.prefix.clone(),
        encryption,
        storage_class: config.storage_class.clone(),
        tags: config.tags.clone(),
        retention,
        ..S3Options::new(bucket)
    }
}

/// The archive's identity; an archive is made where there is none yet, unless the state says that there should be one: then
/// its disk is not there. What a worker needs of a bucket is tried out first, and nothing is written where something
/// else lives.
pub(in crate::cli) async fn archive_identity(
    archive: &OpenArchive,
    state: &State,
    clock: &dyn Clock,
) -> Result<ArchiveIdentity, Failure> {
    let (store, place) = (archive.store.as_ref(), &archive.place);
    let failure = |error| identity_failure(error, place);
    archive.probe(&Probe::READING).await?;
    check_presence(archive, state.bound().await?, state).await?;
    identity::look(store).await.map_err(failure)?;
    archive.probe(&Probe::WRITING).await?;
    let opened = identity::open_or_create(store, clock.now(), random_id).await;
    opened.map_err(failure)
}

/// Refuses a place where there is no archive, though the state is one's: its disk is not there, or it is another bucket.
/// Which archive stands there.
async fn check_presence(
    archive: &OpenArchive,
    bound: Option<Uuid>,
    state: &dyn fmt::Display,
) -> Result<Option<ArchiveIdentity>, Failure> {
    match (bound, identity::read(archive.store.as_ref()).await) {
        (Some(bound), Err(IdentityError::Absent)) => Err(archive.gone(bound, state)),
        // What is wrong with it is said by whoever needs it.
        (_, found) => Ok(found.ok()),
    }
}

/// Sees whether archive and state belong together, or may: where neither is there yet. The archive that is there, where
/// the state is nobody's yet.
pub(in crate::cli) async fn check_pair(archive: &OpenArchive, state: &Tried) -> Result<Option<Uuid>, Failure> {
    let bound = state.bound().await?;
    match (bound, check_presence(archive, bound, state).await?) {
        (Some(bound), Some(found)) if bound != found.archive_id => Err(Failure::configuration(anyhow!(
            "{}: it is the archive {}, and {state} belong to {bound}",
            archive.place,
            found.archive_id
        ))),
        (bound, _) => {
            let found = identity::look(archive.store.as_ref()).await;
            let found = found.map_err(|error| identity_failure(error, &archive.place))?;
            Ok(found.filter(|_| bound.is_none()).map(|found| found.archive_id))
        }
    }
}

fn identity_failure(error: IdentityError, place: &Place) -> Failure {
    let is_configuration = matches!(error, IdentityError::NotAnArchive { .. } | IdentityError::Absent);
    let place = match &error {
        IdentityError::Archive(error) => place.of(error),
        _ => place.to_string(),
    };
    let error = anyhow!(error).context(place);
    if is_configuration { Failure::Configuration(error) } else { Failure::Failed(error) }
}

/// What may be wrong where nobody has said which archive is meant, so that it is the default one.
fn hint(config: &Config) -> &'static str {
    let is_default = config.archive == Config::default().archive;
    if is_default { "; is --config missing?" } else { "" }
}

/// The archive, for reading only: it must be there.
pub(in crate::cli) async fn read_archive(
    config: &Config,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<dyn ArchiveStore>, Uuid), Failure> {
    if config.archive.kind == ArchiveChoice::Local {
        // Opening for writing would make the directory.
        let path = &config.archive.local.path;
        let missing = |error| anyhow!("{}: {error}{}", Place::local(path), hint(config));
        std::fs::metadata(path).map_err(missing).map_err(Failure::configuration)?;
    }
    let archive = open_archive(config, clock.clone()).await?;
    let read = identity::read(archive.store.as_ref()).map_err(|error| match error {
        IdentityError::Absent => {
            Failure::configuration(anyhow!("{}: {}{}", archive.place, IdentityError::Absent, hint(config)))
        }
        error => identity_failure(error, &archive.place),
    });
    let read = however_long(config, clock.as_ref(), Part::Archive, read).await?;
    Ok((archive.store, read.archive_id))
}

/// Which archive there is, if there is one. That it can't be asked is no reason to say that there is none, nor is that its
/// identity is gone where something of it is left.
pub(in crate::cli) async fn find_archive(config: &Config, clock: Arc<dyn Clock>) -> Result<Option<Uuid>, Failure> {
    let archive = open_archive(config, clock).await?;
    let found =
        identity::look(archive.store.as_ref()).await.map_err(|error| identity_failure(error, &archive.place))?;
    Ok(found.map(|identity| identity.archive_id))
}

/// Whether anything was ever committed into the archive of the configuration.
pub(in crate::cli) async fn is_written(config: &Config, clock: Arc<dyn Clock>) -> Result<bool, Failure> {
    let OpenArchive { store, place, .. } = open_archive(config, clock).await?;
    has_batches(store.as_ref()).await.map_err(|error| place.failure(error))
}

/// Refuses a place without an archive where there is the state of one.
pub(in crate::cli) async fn refuse_lost_archive(config: &Config, clock: Arc<dyn Clock>) -> Result<(), Failure> {
    match bound_archive(config).await? {
        Some((bound, state)) => Err(open_archive(config, clock).await?.gone(bound, &state)),
        None => Ok(()),
    }
}
