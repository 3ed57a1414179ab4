//! The archive.

use std::sync::Arc;

use async_trait::async_trait;
use auditlake::archive::{ArchiveError, ArchiveStore, Listed, MemoryArchive, Put, Stat};
use bytes::Bytes;

use super::{Faulty, at_once};
use crate::sim::operation::Port;

fn unavailable(key: &str) -> impl Fn(&str) -> ArchiveError + use<> {
    let key = key.to_owned();
    move |reason| ArchiveError::Unavailable { key: key.clone(), reason: reason.to_owned() }
}

impl Faulty<MemoryArchive> {
    async fn ask<R: Send + 'static>(
        &self,
        what: &str,
        key: &str,
        ask: impl Fn(&MemoryArchive, &str) -> Result<R, ArchiveError> + Send + Sync + 'static,
    ) -> Result<R, ArchiveError> {
        let (twin, asked) = (self.twin.clone(), key.to_owned());
        self.call(Port::Archive, format!("{what} {key}"), move || ask(&twin, &asked), unavailable(key)).await
    }
}

#[async_trait]
impl ArchiveStore for Faulty<MemoryArchive> {
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<Put, ArchiveError> {
        let (twin, shared, put) = (self.twin.clone(), self.shared.clone(), key.to_owned());
        let effect = move || {
            shared.intrude(&put);
            let done = at_once(twin.put_if_absent(&put, body.clone()))?;
            if done == Put::Created {
                shared.state().object_put(&put, &body);
            }
            Ok(done)
        };
        self.call(Port::Archive, format!("put {key}"), effect, unavailable(key)).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ArchiveError> {
        self.ask("get", key, |twin: &MemoryArchive, key| at_once(twin.get(key))).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ArchiveError> {
        self.ask("list", prefix, |twin: &MemoryArchive, prefix| at_once(twin.list(prefix))).await
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>, ArchiveError> {
        self.ask("stat", key, |twin: &MemoryArchive, key| at_once(twin.stat(key))).await
    }
}

/// For use where nothing is in the way.
pub(crate) fn all_objects(archive: &Arc<MemoryArchive>, prefix: &str) -> Vec<(String, Bytes)> {
    let listing = at_once(archive.list(prefix)).expect("a twin does not fail");
    let body = |key: &str| at_once(archive.get(key)).expect("a twin does not fail").expect("it was listed");
    listing.into_iter().map(|listed| (listed.key.clone(), body(&listed.key))).collect()
}
