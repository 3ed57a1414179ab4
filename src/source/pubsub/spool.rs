//! Writing a spool: one segment after another, each put once under the next number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::names::SpoolName;
use super::segment::{Message, encode, encode_seal};
use super::store::SpoolStore;
use crate::archive::{ArchiveError, Put};
use crate::ops::clock::Clock;
use crate::ops::failpoint;
use crate::ops::planted::{Bug, planted};
use crate::ops::retry::{RetryPolicy, retry};
use crate::source::ShardId;

/// The spools that this process writes: its readers need not ask the store how far each one goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Live(Arc<Mutex<BTreeMap<SpoolName, Begun>>>);

/// A spool that is being written.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    /// The number of its next segment.
    pub(super) next: u64,
    /// The shards that it counts as its parents.
    pub(super) parents: Vec<ShardId>,
}

impl Live {
    /// The number of the next segment, where this process writes the spool.
    pub(super) fn next(&self, spool: &SpoolName) -> Option<u64> {
        self.with(|live| live.get(spool).map(|begun| begun.next))
    }

    /// All spools that this process writes and has put something into.
    pub(super) fn all(&self) -> Vec<(SpoolName, Begun)> {
        let is_there = |(_, begun): &(&SpoolName, &Begun)| begun.next > 0;
        self.with(|live| live.iter().filter(is_there).map(|(name, begun)| (name.clone(), begun.clone())).collect())
    }

    fn advance(&self, spool: &SpoolName, next: u64) {
        self.with(|live| {
            if let Some(begun) = live.get_mut(spool) {
                begun.next = next;
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<SpoolName, Begun>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What came of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The messages stand in the spool, durable.
    Durable,
    /// Somebody else has ended the spool: its next number is taken. The messages don't stand in it.
    Taken,
}

/// A spool that is being written. Nobody else ever puts messages into it, and it puts one segment at a time: so what
/// stands under the number behind its last segment is either its own next segment or somebody's seal.
pub struct SpoolWriter {
    pub(super) store: Arc<dyn SpoolStore>,
    pub(super) clock: Arc<dyn Clock>,
    live: Live,
    name: SpoolName,
    next: u64,
}

impl SpoolWriter {
    /// A spool of which nothing has been written yet.
    pub(super) fn begin(
        store: Arc<dyn SpoolStore>,
        clock: Arc<dyn Clock>,
        live: Live,
        name: SpoolName,
        parents: Vec<ShardId>,
    ) -> Self {
        live.with(|spools| spools.insert(name.clone(), Begun { next: 0, parents }));
        Self { store, clock, live, name, next: 0 }
    }

    /// Its name.
    pub fn name(&self) -> &SpoolName {
        &self.name
    }

    /// Puts the messages, and tries for as long as it takes, until `abort`.
    pub async fn append(&mut self, messages: &[Message], abort: &CancellationToken) -> Result<Appended, ArchiveError> {
        let segment = encode(&self.name, self.next, messages, self.clock.now());
        let appended = self.put(segment, abort).await?;
        failpoint::reach("segment_put");
        if appended == Appended::Durable {
            self.next += 1;
            self.live.advance(&self.name, self.next);
        }
        Ok(appended)
    }

    /// Ends the spool. If its next number is taken, somebody else has.
    pub async fn seal(mut self, abort: &CancellationToken) -> Result<(), ArchiveError> {
        if self.next > 0 {
            let seal = encode_seal(&self.name, self.next, self.clock.now());
            self.put(seal, abort).await?;
        }
        Ok(())
    }

    /// Puts one object under the next number. What stands there already is ours if it has the same bytes: an attempt
    /// whose answer was lost.
    async fn put(&mut self, segment: Bytes, abort: &CancellationToken) -> Result<Appended, ArchiveError> {
        let (key, clock, policy) = (self.name.key(self.next), self.clock.as_ref(), RetryPolicy { give_up_after: None });
        let put = || self.store.put_if_absent(&key, segment.clone());
        if retry(policy, clock, abort, ArchiveError::may_pass, put).await? == Put::Created {
            return Ok(Appended::Durable);
        }
        let get = || self.store.get(&key);
        let standing = retry(policy, clock, abort, ArchiveError::may_pass, get).await?;
        let is_ours = standing.as_ref() == Some(&segment) || planted(Bug::SealTakenForSegment);
        Ok(if is_ours { Appended::Durable } else { Appended::Taken })
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        self.live.with(|live| live.remove(&self.name));
    }
}
