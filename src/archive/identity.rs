//! Which archive this is: the object `_auditlake.json`, put before any other.
//!
//! A worker refuses an archive that is not its own, so a wrong bucket or an unmounted disk is found before anything is
//! written into it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ArchiveError, ArchiveStore};
use crate::encode::keys;

pub use crate::encode::keys::IDENTITY_KEY;

/// The shape of keys, manifests and rows that this program writes and reads.
pub const SCHEMA_VERSION: u32 = 1;

/// The archive's identity. Its fields never change once it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveIdentity {
    /// Stands in every manifest.
    pub archive_id: Uuid,
    /// [`SCHEMA_VERSION`] of its creator.
    pub schema_version: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// The program that made it, with its version.
    pub created_by: String,
}

/// Why an archive can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nothing tells that there is an archive.
    #[error("there is no archive here: {IDENTITY_KEY} is missing")]
    Absent,
    /// Something else lives here; a human chooses another place, or brings the identity back.
    #[error("not an archive: there are other objects ({example}, for one) but no {IDENTITY_KEY}")]
    NotAnArchive {
        /// The key of one of them.
        example: String,
    },
    /// A newer program wrote it.
    #[error("the archive has schema version {found}, this program knows {SCHEMA_VERSION}: use a newer one")]
    UnknownVersion {
        /// The version that it has.
        found: u64,
    },
    /// A human is needed.
    #[error("{IDENTITY_KEY} is damaged: {reason}")]
    Damaged {
        /// What is wrong with it.
        reason: String,
    },
    /// The archive could not be asked.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// The identity of the archive that stands here; [`IdentityError::Absent`] where there is none. Writes nothing.
pub async fn read(store: &dyn ArchiveStore) -> Result<ArchiveIdentity, IdentityError> {
    match store.get(IDENTITY_KEY).await? {
        Some(bytes) => parse(&bytes),
        None => Err(IdentityError::Absent),
    }
}

/// The identity of the archive that stands here; `None` where there is nothing, so that one may be made. Writes nothing.
///
/// # Errors
/// [`IdentityError::NotAnArchive`] where something else lives here, and whatever [`read`] says.
pub async fn look(store: &dyn ArchiveStore) -> Result<Option<ArchiveIdentity>, IdentityError> {
    match read(store).await {
        Err(IdentityError::Absent) => {}
        known => return known.map(Some),
    }
    let Some(example) = stranger(store).await? else { return Ok(None) };
    // Another worker may have made the archive, and put its first objects, since we looked.
    match read(store).await {
        Err(IdentityError::Absent) => Err(IdentityError::NotAnArchive { example }),
        known => known.map(Some),
    }
}

/// The identity of the archive that stands here, or of the one that is made now. Of any number of workers that make it
/// at the same time, all get the identity of the one that was first.
pub async fn open_or_create(
    store: &dyn ArchiveStore,
    now: Timestamp,
    new_id: impl FnOnce() -> Uuid + Send,
) -> Result<ArchiveIdentity, IdentityError> {
    if let Some(known) = look(store).await? {
        return Ok(known);
    }
    let identity = ArchiveIdentity {
        archive_id: new_id(),
        schema_version: SCHEMA_VERSION,
        created_at: now,
        created_by: concat!("auditlake ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    store.put_if_absent(IDENTITY_KEY, to_bytes(&identity).into()).await?;
    // Whoever was first, what stands is what counts.
    read(store).await
}

/// An object that has no place in front of an archive's identity. What `check` puts has.
async fn stranger(store: &dyn ArchiveStore) -> Result<Option<String>, ArchiveError> {
    // Of three objects at most two have a place there; a wrong bucket may hold millions.
    let listing = store.list_some("", 3).await?;
    Ok(listing.into_iter().map(|object| object.key).find(|key| key != keys::ACCESS_TEST_KEY && key != IDENTITY_KEY))
}

fn to_bytes(identity: &ArchiveIdentity) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(identity).expect("an identity has no map keys but strings");
    bytes.push(b'\n');
    bytes
}

fn parse(bytes: &[u8]) -> Result<ArchiveIdentity, IdentityError> {
    /// All that every version of the identity has.
    #[derive(Deserialize)]
    struct Versioned {
        schema_version: u64,
    }
    let damaged = |error: serde_json::Error| IdentityError::Damaged { reason: error.to_string() };
    // The version first: a newer identity need not have the fields of ours.
    let found = serde_json::from_slice::<Versioned>(bytes).map_err(damaged)?.schema_version;
    if found != u64::from(SCHEMA_VERSION) {
        return Err(IdentityError::UnknownVersion { found });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::archive::MemoryArchive;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    async fn open(store: &MemoryArchive, n: u128) -> Result<ArchiveIdentity, IdentityError> {
        open_or_create(store, Timestamp::UNIX_EPOCH, || id(n)).await
    }

    #[tokio::test]
    async fn an_archive_is_made_once_and_known_again() {
        let store = MemoryArchive::new();
        let made = open(&store, 1).await.unwrap();
        assert_eq!(made.archive_id, id(1));
        assert_eq!(open(&store, 2).await.unwrap(), made);
        assert_eq!(read(&store).await.unwrap(), made);
    }

    #[tokio::test]
    async fn of_two_creators_the_first_one_counts() {
        let store = MemoryArchive::new();
        let slow = open_or_create(&store, Timestamp::UNIX_EPOCH, || {
            let first = ArchiveIdentity {
                archive_id: id(1),
                schema_version: 1,
                created_at: Timestamp::UNIX_EPOCH,
                created_by: "the first".to_owned(),
            };
            store.overwrite(IDENTITY_KEY, to_bytes(&first));
            id(2)
        });
        assert_eq!(slow.await.unwrap().archive_id, id(1));
    }

    #[tokio::test]
    async fn reading_an_empty_place_finds_no_archive_and_makes_none() {
        let store = MemoryArchive::new();
        assert!(matches!(read(&store).await, Err(IdentityError::Absent)));
        assert!(store.list("").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_place_with_other_objects_is_refused_by_name() {
        let store = MemoryArchive::new();
        store.overwrite("holiday.jpg", Bytes::new());
        let error = open(&store, 1).await.unwrap_err();
        assert!(matches!(&error, IdentityError::NotAnArchive { example } if example == "holiday.jpg"), "{error}");
        assert!(store.get(IDENTITY_KEY).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn the_object_of_check_does_not_keep_an_archive_from_being_made() {
        let store = MemoryArchive::new();
        store.overwrite(keys::ACCESS_TEST_KEY, Bytes::new());
        assert!(open(&store, 1).await.is_ok());
    }

    #[tokio::test]
    async fn a_newer_archive_is_told_from_a_damaged_one() {
        let store = MemoryArchive::new();
        store.overwrite(IDENTITY_KEY, r#"{"schema_version": 2, "archive": "renamed"}"#);
        assert!(matches!(read(&store).await, Err(IdentityError::UnknownVersion { found: 2 })));
        store.overwrite(IDENTITY_KEY, r#"{"schema_version": 1"#);
        assert!(matches!(read(&store).await, Err(IdentityError::Damaged { .. })));
        store.overwrite(IDENTITY_KEY, r#"{"schema_version": 1, "archive_id": "x"}"#);
        assert!(matches!(open(&store, 1).await, Err(IdentityError::Damaged { .. })));
    }
}
