//! Trying out whether a store keeps what it has.

use bytes::Bytes;

use super::{ArchiveError, ArchiveStore, Put};

/// What is put to try.
pub(super) const BODY: Bytes = Bytes::from_static(
    b"auditlake tries here whether it may write, and whether a second put is refused. This may stay.\n",
);

/// Puts a small object under `key`, twice; whether the second put was refused. A store that overwrites voids the archive's every
/// promise.
pub async fn refuses_a_second_put(store: &dyn ArchiveStore, key: &str) -> Result<bool, ArchiveError> {
    store.put_if_absent(key, BODY).await?;
    Ok(store.put_if_absent(key, BODY).await? == Put::Exists)
}
