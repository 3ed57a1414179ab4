//! Trying out whether a store keeps what it has.

use bytes::Bytes;

use super::{ArchiveError, ArchiveStore, Put};
use crate::encode::keys::ACCESS_TEST_KEY;

/// What stands under [`ACCESS_TEST_KEY`].
pub(super) const BODY: Bytes = Bytes::from_static(
    b"auditlake tries here whether it may write, and whether a second put is refused. This may stay.\n",
);

/// Puts a small object twice; whether the second put was refused. A store that overwrites voids the archive's every
/// promise.
pub async fn refuses_a_second_put(store: &dyn ArchiveStore) -> Result<bool, ArchiveError> {
    store.put_if_absent(ACCESS_TEST_KEY, BODY).await?;
    Ok(store.put_if_absent(ACCESS_TEST_KEY, BODY).await? == Put::Exists)
}
