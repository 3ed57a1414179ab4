//! Objects fetched and judged, a few at a time: a distant store answers many questions as fast as one, and decoding is
//! work for every processor. What they take in memory is bounded in bytes.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::identities::Identifier;
use super::inventory::Job;
use super::reader::RowReader;
use super::report::Kind;
use super::rows::{Read, read_object};
use crate::archive::{ArchiveError, ArchiveStore};

/// The most objects fetched and judged at once.
pub(super) const AT_ONCE: usize = 8;

/// The most mebibytes of objects in memory at once. A larger object is read alone.
const ROOM: u32 = 64;

/// What the reading of every object shares.
pub(super) struct Reading<'a> {
    store: &'a dyn ArchiveStore,
    jobs: &'a [Job],
    reader: Arc<dyn RowReader>,
    identifier: Identifier,
    room: Semaphore,
}

impl<'a> Reading<'a> {
    pub(super) fn new(
        store: &'a dyn ArchiveStore,
        jobs: &'a [Job],
        reader: Arc<dyn RowReader>,
        identifier: Identifier,
    ) -> Self {
        Self { store, jobs, reader, identifier, room: Semaphore::new(ROOM as usize) }
    }

    /// Fetches and judges one object, once there is room for it. Rooms are given in the order in which they are asked
    /// for, and given back before anybody waits for a result: nobody starves.
    pub(super) async fn read(&self, number: usize) -> Result<(usize, Read), ArchiveError> {
        let object = &self.jobs[number].object;
        let mebibytes = u32::try_from(object.bytes >> 20).unwrap_or(ROOM).saturating_add(1).min(ROOM);
        let _room = self.room.acquire_many(mebibytes).await;
        let bytes = self.store.get(&object.key).await?;
        Ok((number, self.judge(number, bytes).await))
    }

    /// Decoding is work for a processor, not for a thread that waits on the network.
    async fn judge(&self, number: usize, bytes: Option<Bytes>) -> Read {
        let Some(bytes) = bytes else {
            let detail = "its manifest lists it; it was there when the archive was listed, and is gone".to_owned();
            return Read { faults: vec![(Kind::MissingObject, detail)], ..Read::default() };
        };
        let (job, reader, identifier) = (self.jobs[number].clone(), Arc::clone(&self.reader), self.identifier);
        let judged = tokio::task::spawn_blocking(move || read_object(&job, bytes, &*reader, identifier)).await;
        judged.unwrap_or_else(|stopped| {
            let detail = format!("its reader failed: {stopped}");
            Read { faults: vec![(Kind::AlteredObject, detail)], ..Read::default() }
        })
    }
}
