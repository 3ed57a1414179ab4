//! The store of spools.

use std::sync::Arc;

use async_trait::async_trait;
use auditlake::archive::{ArchiveError, MemoryArchive};
use auditlake::source::pubsub::{PubsubSource, SpoolStore};
use auditlake::source::{Reading, Shard, ShardId, ShardReader, Source, SourceError};
use bytes::Bytes;

use super::Faulty;
use super::archive::Objects;
use crate::sim::operation::Port;
use crate::sim::shared::Shared;

/// The twin.
#[derive(Default)]
pub(crate) struct Spools(pub(crate) Arc<MemoryArchive>);

impl Objects for Spools {
    const PORT: Port = Port::Spools;

    fn twin(&self) -> &MemoryArchive {
        &self.0
    }

    fn was_put(shared: &Shared, key: &str, body: &Bytes) {
        shared.state().segment_put(key, body);
    }
}

#[async_trait]
impl SpoolStore for Faulty<Spools> {
    async fn remove(&self, key: &str) -> Result<(), ArchiveError> {
        let shared = self.shared.clone();
        let remove = move |spools: &Spools, key: &str| {
            if spools.0.remove(key).is_some() {
                shared.segment_removed(key);
            }
            Ok(())
        };
        self.ask("remove", key, remove).await
    }
}

/// The spools as the worker of one process has them. What can go wrong does so behind them, at their store.
pub(crate) struct Watched {
    pub(crate) spools: PubsubSource,
    pub(crate) shared: Arc<Shared>,
}

#[async_trait]
impl Source for Watched {
    fn origin(&self) -> Option<&str> {
        self.spools.origin()
    }

    async fn shards(&self) -> Result<Vec<Shard>, SourceError> {
        self.spools.shards().await
    }

    async fn has(&self, shard: &ShardId) -> Result<bool, SourceError> {
        self.spools.has(shard).await
    }

    async fn open(&self, shard: &ShardId, reading: Reading) -> Result<Box<dyn ShardReader>, SourceError> {
        let reader = self.spools.open(shard, reading).await?;
        self.shared.state().opened(shard);
        Ok(reader)
    }
}
