//! Stores of objects: the archive, and what the store of spools shares with it.

use std::sync::Arc;

use async_trait::async_trait;
use auditlake::archive::{ArchiveError, ArchiveStore, Listed, MemoryArchive, Put, Stat};
use bytes::Bytes;

use super::{Faulty, at_once};
use crate::sim::operation::Port;
use crate::sim::shared::Shared;

/// A store of objects, and what is told of those that are put.
pub(crate) trait Objects: Send + Sync + 'static {
    const PORT: Port;

    fn twin(&self) -> &MemoryArchive;

    /// An object is about to be put.
    fn is_reached(_shared: &Shared, _key: &str) {}

    /// An object was put where none stood.
    fn was_put(shared: &Shared, key: &str, body: &Bytes);
}

impl Objects for MemoryArchive {
    const PORT: Port = Port::Archive;

    fn twin(&self) -> &MemoryArchive {
        self
    }

    fn is_reached(shared: &Shared, key: &str) {
        shared.intrude(key);
    }

    fn was_put(shared: &Shared, key: &str, body: &Bytes) {
        shared.state().object_put(key, body);
    }
}

pub(super) fn unavailable(key: &str) -> impl Fn(&str) -> ArchiveError + use<> {
    let key = key.to_owned();
    move |reason| ArchiveError::Unavailable { key: key.clone(), reason: reason.to_owned() }
}

impl<O: Objects> Faulty<O> {
    pub(super) async fn ask<R: Send + 'static>(
        &self,
        what: &str,
        key: &str,
        ask: impl Fn(&O, &str) -> Result<R, ArchiveError> + Send + Sync + 'static,
    ) -> Result<R, ArchiveError> {
        let (twin, asked) = (self.twin.clone(), key.to_owned());
        self.call(O::PORT, format!("{what} {key}"), move || ask(&twin, &asked), unavailable(key)).await
    }
}

#[async_trait]
impl<O: Objects> ArchiveStore for Faulty<O> {
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<Put, ArchiveError> {
        let (twin, shared, put) = (self.twin.clone(), self.shared.clone(), key.to_owned());
        let effect = move || {
            O::is_reached(&shared, &put);
            let done = at_once(twin.twin().put_if_absent(&put, body.clone()))?;
            if done == Put::Created {
                O::was_put(&shared, &put, &body);
            }
            Ok(done)
        };
        self.call(O::PORT, format!("put {key}"), effect, unavailable(key)).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ArchiveError> {
        self.ask("get", key, |objects, key| at_once(objects.twin().get(key))).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ArchiveError> {
        self.ask("list", prefix, |objects, prefix| at_once(objects.twin().list(prefix))).await
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>, ArchiveError> {
        self.ask("stat", key, |objects, key| at_once(objects.twin().stat(key))).await
    }
}

/// For use where nothing is in the way.
pub(crate) fn all_objects(archive: &Arc<MemoryArchive>, prefix: &str) -> Vec<(String, Bytes)> {
    let listing = at_once(archive.list(prefix)).expect("a twin does not fail");
    let body = |key: &str| at_once(archive.get(key)).expect("a twin does not fail").expect("it was listed");
    listing.into_iter().map(|listed| (listed.key.clone(), body(&listed.key))).collect()
}
