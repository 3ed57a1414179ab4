//! What outlives every worker: the twins' companions, and what is known of all that was done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use auditlake::archive::MemoryArchive;
use auditlake::encode::keys;
use auditlake::lease::{LeaseRow, WorkerId};
use auditlake::ops::clock::{Clock as _, PausedClock};
use auditlake::source::ShardId;

use super::books::Books;
use super::faults::Faults;
use super::judge::{INTRUDER, Judge};
use super::ledger::Ledger;
use super::log::Log;

/// What was on its way when the lease table was lost arrives within this time: half a failover.
const ARRIVES_WITHIN: Duration = Duration::from_secs(5);

pub(crate) struct Shared {
    pub(crate) log: Log,
    pub(crate) clock: PausedClock,
    pub(crate) archive: Arc<MemoryArchive>,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) ledger: Ledger,
    pub(crate) judge: Judge,
    pub(crate) faults: Faults,
    pub(crate) books: Books,
    pub(crate) table: Table,
    /// When each shard came to be that was not always there.
    pub(crate) born: BTreeMap<ShardId, Duration>,
    /// Calls that will take effect though nobody waits for them.
    pub(crate) in_flight: u64,
    /// The shards whose next object somebody else's will stand in the way of.
    pub(crate) to_intrude: BTreeSet<ShardId>,
    /// The keys of such objects, those that were taken away again included.
    pub(crate) intruders: BTreeSet<String>,
}

/// The lease table: one that is made again is another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) exists: bool,
    pub(crate) number: u64,
    /// When the one before it was lost.
    pub(crate) lost_at: Duration,
}

impl Shared {
    pub(crate) fn new(log: Log, clock: PausedClock, archive: Arc<MemoryArchive>) -> Arc<Self> {
        Arc::new(Self { log, clock, archive, state: Mutex::default() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an object of somebody else's under the key, if one is to be there.
    pub(crate) fn intrude(&self, key: &str) {
        let Some(name) = keys::data_batch(key) else { return };
        let mut state = self.state();
        let Some(shard) = state.to_intrude.iter().find(|shard| keys::encode_shard(shard) == name.folder).cloned()
        else {
            return;
        };
        state.to_intrude.remove(&shard);
        if state.judge.stands(key) {
            return;
        }
        self.archive.overwrite(key, INTRUDER);
        state.object_put(key, INTRUDER.as_bytes());
        state.intruders.insert(key.to_owned());
        self.log.add(|| format!("an intruder stands under {key}"));
    }

    /// An object of a spool was removed.
    pub(crate) fn segment_removed(&self, key: &str) {
        let now = self.clock.now();
        self.state().segment_removed(key, now);
    }

    /// A lease row was written over another.
    pub(crate) fn row_replaced(&self, writer: &WorkerId, before: &LeaseRow, after: &LeaseRow) {
        let now = self.clock.monotonic();
        self.state().judge.row_replaced(writer, before, after, now);
    }
}

impl State {
    pub(crate) fn object_put(&mut self, key: &str, body: &[u8]) {
        let Self { judge, ledger, .. } = self;
        judge.object_put(key, body, ledger);
    }

    pub(crate) fn row_created(&mut self, row: &LeaseRow) {
        self.judge.row_created(row);
        // The parents of a stream's shard are known before there is a row. A spool's stand in its row alone, and one that is
        // made anew may have others.
        let shard = self.ledger.shards.get_mut(&row.shard);
        if let Some(shard) = shard.filter(|_| self.books.have(&row.shard)) {
            shard.parents.clone_from(&row.parents);
        }
    }

    /// A reader of the shard was opened.
    pub(crate) fn opened(&mut self, shard: &ShardId) {
        let Self { judge, ledger, .. } = self;
        let parents = ledger.shards.get(shard).map(|shard| &shard.parents);
        judge.opened(shard, parents.map_or(&[], Vec::as_slice));
    }

    /// Whether a shard is so old that every listing knows it.
    pub(crate) fn is_older(&self, shard: &ShardId, than: Duration, now: Duration) -> bool {
        self.born.get(shard).is_none_or(|born| *born + than <= now)
    }

    /// Whether what was sent when `sent_to` was the lease table still arrives. Who waits a failover before it takes a row that
    /// was made anew counts on it that nothing is on its way for longer.
    pub(crate) fn arrives(&self, sent_to: Table, now: Duration) -> bool {
        self.table.number == sent_to.number || now < self.table.lost_at + ARRIVES_WITHIN
    }

    pub(crate) fn children_of(&self, shard: &ShardId) -> Vec<ShardId> {
        let children = self.ledger.shards.iter().filter(|(_, child)| child.parents.contains(shard));
        children.map(|(id, _)| id.clone()).collect()
    }
}
