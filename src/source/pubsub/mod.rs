//! Google Pub/Sub as a source, by way of a spool.
//!
//! Pub/Sub has no positions to read again from, and a batch's window is longer than a message may wait for its
//! acknowledgement. So each worker first appends what it receives to a *spool*, in segments that are put every few seconds, and
//! acknowledges it when its segment is durable. A spool is a shard like any other: leased, read by position, archived in
//! batches. Segments go once they are archived.
//!
//! | file | what |
//! |---|---|
//! | `subscriber.rs`, `client.rs`, `memory.rs` | receiving and acknowledging: the seam, Google's client, and its twin |
//! | `gathering.rs` | messages on their way into a segment (pure) |
//! | `receive.rs` | the loop that receives, puts, and acknowledges |
//! | `spool.rs` | one segment after another, under the next number, if nobody has taken it |
//! | `segment.rs`, `names.rs` | what segments hold and are called (pure) |
//! | `reader.rs` | a spool as a shard |
//! | `keeper.rs` | what is archived goes |
//! | `store.rs` | where spools are |
//!
//! **Ending a spool.** Its writer ends it with a *seal* when it stops. Where a writer died, whoever reads the spool puts the seal
//! after a while in which nothing came. A writer that only slept finds its number taken: it acknowledges nothing, and
//! puts what it holds into a new spool.

mod client;
mod gathering;
mod keeper;
pub mod memory;
mod names;
mod reader;
mod receive;
mod segment;
mod spool;
mod store;
mod subscriber;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub use client::{PubsubSubscription, subscription_name};
pub use gathering::Cut;
pub use names::SpoolName;
pub use receive::ReceiveError;
pub use segment::Message;
pub use spool::{Appended, SpoolWriter};
pub use store::SpoolStore;
pub use subscriber::{Acknowledge, FlowControl, Received, Subscribe, Subscriber, Subscription, SubscriptionError};

use super::{Reading, Shard, ShardId, ShardReader, Source, SourceError, Target};
use crate::archive::ArchiveError;
use crate::archive::trial::refuses_a_second_put;
use crate::lease::LeaseStore;
use crate::ops::clock::Clock;
use crate::ops::identity::random_bytes;
use crate::ops::memory::MemoryBudget;
use keeper::{Keeper, TIDY_EVERY};
use names::{Part, parse_key};
use reader::{SpoolReader, unreadable};
use receive::Receiving;
use spool::Live;

/// What positions in spools belong to. Spools never share a name, so it is one and the same for all.
const ORIGIN: &str = "spool";
/// For how long a listing of the spools is good. Those of this process are known at once.
const LISTING_AGE: Duration = Duration::from_secs(5);
/// The longest pause before a subscription that refused to give anything is asked again.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How messages become shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PubsubOptions {
    /// When a segment is put.
    pub cut: Cut,
    /// How long nothing must have come into a spool that this process reads and does not write, before it is sealed.
    pub seal_after: Duration,
}

/// What has happened, counted; for whoever shows it.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages received, those that came again included.
    pub received: AtomicU64,
    /// Their bytes.
    pub received_bytes: AtomicU64,
    /// Segments put.
    pub segments: AtomicU64,
    /// Segments and seals removed.
    pub removed: AtomicU64,
    /// Messages acknowledged.
    pub acknowledged: AtomicU64,
    /// Messages that are durable and could not be acknowledged.
    pub unacknowledged: AtomicU64,
    /// Messages that are about to go to the dead-letter topic.
    pub near_dead_letter: AtomicU64,
    /// Spools of this process that somebody else has ended.
    pub spools_ended_by_others: AtomicU64,
}

/// What receiving and reading share.
pub(crate) struct Shared {
    store: Arc<dyn SpoolStore>,
    clock: Arc<dyn Clock>,
    options: PubsubOptions,
    /// Bounds what all readers hold together.
    pages: Arc<MemoryBudget>,
    live: Live,
    /// The last segment of each spool, and when they were listed, in monotonic time.
    listing: tokio::sync::Mutex<Option<(Duration, BTreeMap<SpoolName, u64>)>>,
    /// Segments that were put behind the end of their spool.
    late: Mutex<BTreeSet<(SpoolName, u64)>>,
    /// Shards that are archived to their end and of which nothing stands any more, nor does another vouch for them: the next
    /// spool counts them as its parents, so that their rows may go.
    gone: Mutex<Vec<ShardId>>,
    counters: Counters,
}

impl Shared {
    fn begin_spool(&self) -> SpoolWriter {
        self.write(SpoolName::begun(self.clock.now(), random_bytes()))
    }

    /// Each shard that is gone is named once, and none that is still being written: one who slept may put something into a
    /// spool that counts as gone, and whoever lists it then must find that it has left.
    fn write(&self, name: SpoolName) -> SpoolWriter {
        let mut parents = std::mem::take(&mut *self.gone.lock().unwrap_or_else(PoisonError::into_inner));
        parents.retain(|shard| Part::of(shard).is_none_or(|part| self.live.next(part.spool()).is_none()));
        SpoolWriter::begin(self.store.clone(), self.clock.clone(), self.live.clone(), name, parents)
    }

    fn found_gone(&self, gone: Vec<ShardId>) {
        *self.gone.lock().unwrap_or_else(PoisonError::into_inner) = gone;
    }

    fn found_late(&self, late: BTreeSet<(SpoolName, u64)>) {
        *self.late.lock().unwrap_or_else(PoisonError::into_inner) = late;
    }

    fn late(&self) -> BTreeSet<(SpoolName, u64)> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last segment of each spool, as of a moment ago.
    async fn spools(&self) -> Result<BTreeMap<SpoolName, u64>, SourceError> {
        let now = self.clock.monotonic();
        let mut listing = self.listing.lock().await;
        if let Some((at, spools)) = listing.as_ref()
            && now.saturating_sub(*at) < LISTING_AGE
        {
            return Ok(spools.clone());
        }
        let objects = self.store.list("").await.map_err(|error| unreadable(&ShardId::new("spools"), &error))?;
        let mut spools = BTreeMap::new();
        for (spool, number) in objects.iter().filter_map(|object| parse_key(&object.key)) {
            let last: &mut u64 = spools.entry(spool).or_default();
            *last = number.max(*last);
        }
        self.live.saw(&spools);
        *listing = Some((now, spools.clone()));
        Ok(spools)
    }
}

/// The spools of a subscription.
#[derive(Clone)]
pub struct PubsubSource {
    shared: Arc<Shared>,
}

impl PubsubSource {
    /// The spools in `store`. `pages` bounds what all readers hold together.
    pub fn new(
        store: Arc<dyn SpoolStore>,
        options: PubsubOptions,
        clock: Arc<dyn Clock>,
        pages: Arc<MemoryBudget>,
    ) -> Self {
        let shared = Shared {
            store,
            clock,
            options,
            pages,
            live: Live::default(),
            listing: tokio::sync::Mutex::default(),
            late: Mutex::default(),
            gone: Mutex::default(),
            counters: Counters::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Begins the spool of this name, which must never have been one's. Receiving begins its own.
    pub fn write(&self, name: SpoolName) -> SpoolWriter {
        self.shared.write(name)
    }

    /// Tries out what spools need of their store: that an object is put once and no second time, and can be removed. Under a
    /// name that no segment has.
    pub async fn try_out(&self) -> Result<(), ArchiveError> {
        let (store, key) = (&self.shared.store, format!("access-test-{}", hex::encode(random_bytes::<8>())));
        let refused = refuses_a_second_put(store.as_ref(), &key).await;
        store.remove(&key).await?;
        if refused? {
            return Ok(());
        }
        let reason = "a second object was put in the place of the first: conditions are not kept".into();
        Err(ArchiveError::Refused { key, reason })
    }

    /// What receives from `subscription` into these spools. `leases` tell what of them is archived.
    pub fn receiver(&self, subscription: Arc<dyn Subscribe>, leases: Arc<dyn LeaseStore>) -> Receiver {
        Receiver { shared: self.shared.clone(), subscription, keeper: Keeper::new(self.shared.clone(), leases) }
    }
}

#[async_trait]
impl Source for PubsubSource {
    fn origin(&self) -> Option<&str> {
        Some(ORIGIN)
    }

    async fn shards(&self) -> Result<Vec<Shard>, SourceError> {
        let shard = |part: &Part, end: u64, parents: Vec<ShardId>| {
            let shard = part.shard();
            (shard.clone(), Shard::new(shard, parents, Target::Before { sequence: end.into(), bytes: None }))
        };
        let listed = self.shared.spools().await?;
        let listed = listed.into_iter().map(|(spool, last)| shard(&Part::Whole(spool), last + 1, Vec::new()));
        let live = self.shared.live.all().into_iter();
        let live = live.map(|(spool, begun)| shard(&Part::Whole(spool), begun.next, begun.parents));
        let late = self.shared.late().into_iter();
        let late = late.map(|(spool, number)| shard(&Part::Late(spool, number), number + 1, Vec::new()));
        // What this process knows of its own spools is newer than any listing.
        let shards: BTreeMap<ShardId, Shard> = listed.chain(late).chain(live).collect();
        Ok(shards.into_values().collect())
    }

    async fn has(&self, shard: &ShardId) -> Result<bool, SourceError> {
        let Some(part) = Part::of(shard) else { return Ok(false) };
        if self.shared.live.next(part.spool()).is_some() {
            return Ok(true);
        }
        let standing = self.shared.store.list_some(&part.spool().folder(), 1).await;
        standing.map(|objects| !objects.is_empty()).map_err(|error| unreadable(shard, &error))
    }

    async fn open(&self, shard: &ShardId, reading: Reading) -> Result<Box<dyn ShardReader>, SourceError> {
        match Part::of(shard) {
            Some(part) if self.has(shard).await? => Ok(Box::new(SpoolReader::new(self.shared.clone(), part, reading))),
            _ => Err(SourceError::Stopped { shard: shard.clone(), reason: "there is no such spool".into() }),
        }
    }
}

/// Receives messages into spools, and removes what of them is archived.
pub struct Receiver {
    shared: Arc<Shared>,
    subscription: Arc<dyn Subscribe>,
    keeper: Keeper,
}

impl Receiver {
    /// What has happened so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Receives and tidies up until `stop`; then puts and acknowledges what has come, unless `abort` comes before. What
    /// goes wrong is told and tried again.
    pub async fn run(&self, stop: &CancellationToken, abort: &CancellationToken) {
        tokio::join!(self.receive_on(stop, abort), self.tidy_on(stop));
    }

    /// Receives until nothing has come for as long as `idle`, or until `stop`; what has come is put and acknowledged, and
    /// the spool ended.
    pub async fn drain(
        &self,
        idle: Duration,
        stop: &CancellationToken,
        abort: &CancellationToken,
    ) -> Result<(), ReceiveError> {
        self.receive(Some(idle), stop, abort).await?;
        *self.shared.listing.lock().await = None;
        // That nothing came proves nothing where the service does not answer.
        if !stop.is_cancelled() {
            self.subscription.look().await?;
        }
        Ok(())
    }

    /// Finds what was put behind the end of a spool, and removes what is archived, where it may.
    pub async fn tidy(&self) -> Result<(), SourceError> {
        self.keeper.tidy().await
    }

    async fn receive(
        &self,
        idle: Option<Duration>,
        stop: &CancellationToken,
        abort: &CancellationToken,
    ) -> Result<(), ReceiveError> {
        let known = tokio::select! {
            biased;
            known = self.subscription.look() => known?,
            () = stop.cancelled() => return Ok(()),
        };
        let cut = self.shared.options.cut;
        // One segment is gathered while another is put: less would hold up the one until the other is acknowledged.
        let flow = FlowControl { messages: cut.max_messages * 2, bytes: cut.max_bytes * 2 };
        Receiving::new(self.shared.clone(), known, self.subscription.subscribe(flow)).run(idle, stop, abort).await
    }

    async fn receive_on(&self, stop: &CancellationToken, abort: &CancellationToken) {
        let clock = &self.shared.clock;
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            let began = clock.monotonic();
            if let Err(error) = self.receive(None, stop, abort).await {
                if clock.monotonic().saturating_sub(began) > LONGEST_PAUSE {
                    pause = FIRST_PAUSE;
                }
                let (subscription, again_in_s) = (self.subscription.name(), pause.as_secs());
                tracing::error!(subscription, %error, again_in_s, "nothing can be received now");
                tokio::select! {
                    biased;
                    () = clock.sleep(pause) => {}
                    () = stop.cancelled() => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    async fn tidy_on(&self, stop: &CancellationToken) {
        loop {
            let round = async {
                if let Err(error) = self.tidy().await {
                    tracing::warn!(%error, "the spools can't be looked through now; it is tried again");
                }
                self.shared.clock.sleep(TIDY_EVERY).await;
            };
            tokio::select! {
                biased;
                () = round => {}
                () = stop.cancelled() => return,
            }
        }
    }
}
