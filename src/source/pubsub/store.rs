//! Where spools are kept: a store like the archive's, from which segments go once they are archived.

use async_trait::async_trait;

use crate::archive::{ArchiveError, ArchiveStore, LocalArchive, MemoryArchive, S3Archive, check_key};

/// A store of objects that may be removed again. The archive has none: what it holds stays.
#[async_trait]
pub trait SpoolStore: ArchiveStore {
    /// Removes the object, if it is there.
    async fn remove(&self, key: &str) -> Result<(), ArchiveError>;
}

#[async_trait]
impl SpoolStore for LocalArchive {
    async fn remove(&self, key: &str) -> Result<(), ArchiveError> {
        self.remove_segment(key).await
    }
}

#[async_trait]
impl SpoolStore for S3Archive {
    async fn remove(&self, key: &str) -> Result<(), ArchiveError> {
        self.remove_segment(key).await
    }
}

#[async_trait]
impl SpoolStore for MemoryArchive {
    async fn remove(&self, key: &str) -> Result<(), ArchiveError> {
        check_key(key)?;
        drop(MemoryArchive::remove(self, key));
        Ok(())
    }
}
