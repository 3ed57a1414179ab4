//! 7. Objects are put down: the [`ArchiveStore`] port.

pub mod chain;
pub mod identity;
pub mod left_over;
mod local;
pub mod manifest;
mod memory;
pub mod s3;
pub mod trial;

use async_trait::async_trait;
use bytes::Bytes;

use crate::digest::Digest;
use crate::encode::Pieces;
use crate::encode::keys::MANIFESTS_PREFIX;

pub use local::LocalArchive;
pub use memory::MemoryArchive;
pub use s3::S3Archive;

/// What came of [`ArchiveStore::put_if_absent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object stands under its key, durable, and this call put it there.
    Created,
    /// An object stood there already; nothing was changed.
    Exists,
}

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its key, below the archive's root, with `/` between the parts.
    pub key: String,
    /// Its size.
    pub bytes: u64,
}

/// What a store tells of an object without giving it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its bytes as the store itself worked it out when they came, where it keeps one. Never what a writer
    /// merely says: that would prove nothing.
    pub sha256: Option<Digest>,
}

/// Why the archive could not do as it was told; by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// There is no room. Nothing of the object is visible; the same call succeeds once there is.
    #[error("no space left in the archive for {key}")]
    OutOfSpace {
        /// The object's key.
        key: String,
    },
    /// The same call may succeed later.
    #[error("the archive is unavailable{}: {reason}", named(" at ", key))]
    Unavailable {
        /// The object's key, or the prefix listed.
        key: String,
        /// What happened.
        reason: String,
    },
    /// A human is needed, before anything can be asked of the archive: its bucket is not there, or is another region's, or
    /// knows nothing of who asks.
    #[error("the archive is out of reach: {reason}")]
    OutOfReach {
        /// What happened.
        reason: String,
    },
    /// A human is needed: permissions, a damaged disk.
    #[error("the archive refuses{}: {reason}", named(" ", key))]
    Refused {
        /// The object's key, or the prefix listed.
        key: String,
        /// What happened.
        reason: String,
    },
}

/// A key, behind what happened; nothing where the whole archive was meant.
fn named(before: &str, key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{before}{key}") }
}

impl ArchiveError {
    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::OutOfReach { .. })
    }
}

/// Where objects are kept. Keys are relative to the archive's root. There is no overwriting and no half-written
/// object: an object is visible under its key whole and durable, or not at all.
#[async_trait]
pub trait ArchiveStore: Send + Sync {
    /// Puts `body` under `key` unless an object stands there. Durable once it returns.
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<Put, ArchiveError>;

    /// The same of bytes in pieces. A store that can take them as they are holds nothing twice.
    async fn put_pieces_if_absent(&self, key: &str, body: &Pieces) -> Result<Put, ArchiveError> {
        self.put_if_absent(key, body.join()).await
    }

    /// The object, or `None` where there is none.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ArchiveError>;

    /// Every object whose key begins with `prefix`, in the order of their keys.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ArchiveError>;

    /// What is known of the object without reading it, or `None` where there is none.
    async fn stat(&self, key: &str) -> Result<Option<Stat>, ArchiveError>;

    /// The first `at_most` of [`list`](Self::list). A store that lists by pages asks for no more than it needs.
    async fn list_some(&self, prefix: &str, at_most: usize) -> Result<Vec<Listed>, ArchiveError> {
        let mut listing = self.list(prefix).await?;
        listing.truncate(at_most);
        Ok(listing)
    }
}

/// Whether anything was ever committed into the archive.
pub async fn has_batches(archive: &dyn ArchiveStore) -> Result<bool, ArchiveError> {
    Ok(!archive.list_some(MANIFESTS_PREFIX, 1).await?.is_empty())
}

/// Refuses a key that can't be one in every adapter: relative, of non-empty parts, none of them `.` or `..`, and not
/// in a folder that starts with a dot, since adapters keep their own things there.
///
/// Checked in every adapter, so that what works in a test's memory works on a disk.
pub(crate) fn check_key(key: &str) -> Result<(), ArchiveError> {
    let bad_part = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
    if key.split('/').any(bad_part) || key.starts_with('.') {
        return Err(ArchiveError::Refused { key: key.to_owned(), reason: "it is not a key of an archive".to_owned() });
    }
    Ok(())
}

/// Refuses a prefix that would lead out of the archive. Its last part may be the beginning of a name.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), ArchiveError> {
    let folder = prefix.rsplit_once('/').map(|(folder, _)| folder);
    if let Some(folder) = folder
        && check_key(folder).is_err()
    {
        let reason = "it is not a prefix of an archive's keys".to_owned();
        return Err(ArchiveError::Refused { key: prefix.to_owned(), reason });
    }
    Ok(())
}
