//! The archive of a test: a map.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{ArchiveError, ArchiveStore, Listed, Put, Stat, check_key, check_prefix};

/// The in-memory twin of the archives.
#[derive(Debug, Default)]
pub struct MemoryArchive {
    objects: Mutex<BTreeMap<String, Bytes>>,
}

impl MemoryArchive {
    /// An archive without objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `body` under `key` whatever stands there. The port has no such call: this is how a test does damage.
    pub fn overwrite(&self, key: &str, body: impl Into<Bytes>) {
        self.lock().insert(key.to_owned(), body.into());
    }

    /// Takes the object away, if there is one. The port has no such call: this is how a test does damage.
    pub fn remove(&self, key: &str) -> Option<Bytes> {
        self.lock().remove(key)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        // Every change is one call on the map: there is no half-done state that a panic could have left behind.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ArchiveStore for MemoryArchive {
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<Put, ArchiveError> {
        check_key(key)?;
        let mut objects = self.lock();
        if objects.contains_key(key) {
            return Ok(Put::Exists);
        }
        objects.insert(key.to_owned(), body);
        Ok(Put::Created)
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ArchiveError> {
        check_key(key)?;
        Ok(self.lock().get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ArchiveError> {
        check_prefix(prefix)?;
        let objects = self.lock();
        let from_prefix = objects.range(prefix.to_owned()..);
        Ok(from_prefix
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, body)| Listed { key: key.clone(), bytes: body.len() as u64 })
            .collect())
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>, ArchiveError> {
        check_key(key)?;
        Ok(self.lock().get(key).map(|body| Stat { bytes: body.len() as u64, sha256: None }))
    }
}
