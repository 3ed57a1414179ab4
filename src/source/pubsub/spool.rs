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
    /// Behind the last object that was listed of it: a seal may have come while its lease was away.
    listed: u64,
    /// The shards that it counts as its parents.
    pub(super) parents: Vec<ShardId>,
}

impl Live {
    /// The first number under which nothing stands, as far as is known, where this process writes the spool.
    pub(super) fn next(&self, spool: &SpoolName) -> Option<u64> {
        self.with(|live| live.get(spool).map(|begun| begun.next.max(begun.listed)))
    }

    /// Takes note of the last object of each spool.
    pub(super) fn saw(&self, listed: &BTreeMap<SpoolName, u64>) {
        self.with(|live| {
            for (spool, begun) in live {
                begun.listed = listed.get(spool).map_or(0, |last| last + 1);
            }
        });
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
        live.with(|spools| spools.insert(name.clone(), Begun { next: 0, listed: 0, parents }));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::super::{Cut, PubsubOptions, PubsubSource};
    use super::*;
    use crate::archive::{ArchiveStore as _, MemoryArchive};
    use crate::ops::clock::SystemClock;
    use crate::ops::memory::MemoryBudget;
    use crate::source::{Checkpoint, Next, Reading, Source as _, Until};

    /// As when a worker lost its lease for a moment, and the seal of whoever had it then was late.
    #[tokio::test]
    async fn a_seal_behind_what_this_process_writes_is_found_though_nothing_more_comes() {
        let store = Arc::new(MemoryArchive::new());
        let cut = Cut { flush_interval: Duration::ZERO, max_bytes: 1, max_messages: 1 };
        let options = PubsubOptions { cut, seal_after: Duration::from_mins(1) };
        let source =
            PubsubSource::new(store.clone(), options, Arc::new(SystemClock::start()), MemoryBudget::new(1 << 20));
        let name = SpoolName::new("spool-1").unwrap();
        let mut writer = source.write(name.clone());
        let message = Message {
            id: "1".into(),
            arrival: Timestamp::UNIX_EPOCH,
            attributes: BTreeMap::new(),
            ordering_key: String::new(),
            delivery_attempt: None,
            data: "{}".into(),
        };
        writer.append(&[message], &CancellationToken::new()).await.unwrap();

        let reading =
            Reading { after: Checkpoint::TrimHorizon, read_through: None, until: Until::Forever, arrival: None };
        let mut reader = source.open(&ShardId::new("spool-1"), reading).await.unwrap();
        assert_eq!(reader.next().await.unwrap().payloads.len(), 1);
        assert_eq!(reader.next().await.unwrap().next, Next::CaughtUp);
        store.put_if_absent(&name.key(1), encode_seal(&name, 1, Timestamp::UNIX_EPOCH)).await.unwrap();
        assert_eq!(reader.next().await.unwrap().next, Next::CaughtUp, "it does not ask the store each time");
        source.shards().await.unwrap();
        assert_eq!(reader.next().await.unwrap().next, Next::ShardEnd);
    }
}
