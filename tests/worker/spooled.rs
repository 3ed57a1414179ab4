//! A subscription, its spools, and processes that receive and archive.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use auditlake::archive::{ArchiveError, ArchiveStore, Listed, MemoryArchive, Put, Stat};
use auditlake::lease::WorkerId;
use auditlake::ops::memory::MemoryBudget;
use auditlake::source::Source as _;
use auditlake::source::pubsub::memory::MemorySubscription;
use auditlake::source::pubsub::{Cut, PubsubOptions, PubsubSource, ReceiveError, Receiver, SpoolStore};
use auditlake::worker::{Settings, Shutdown, Summary};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::assert_each_once;
use super::fleet::shared_world;
use super::world::{Faults, World, record};

const OPTIONS: PubsubOptions = PubsubOptions {
    cut: Cut { flush_interval: Duration::from_secs(5), max_bytes: 1 << 20, max_messages: 1000 },
    seal_after: Duration::from_secs(30),
};

/// The store of spools as one process reaches it.
pub(crate) struct Reach {
    pub(crate) store: Arc<MemoryArchive>,
    /// Nothing it sends gets out, until this is over.
    pub(crate) asleep: watch::Sender<bool>,
    /// Nothing may be removed, for as long as it is set.
    pub(crate) keeps: Arc<AtomicBool>,
    /// How long a put is on its way.
    pub(crate) put_takes: Duration,
    /// Of this many puts, every other one takes effect and loses its answer.
    pub(crate) lost_puts: AtomicU64,
    pub(crate) puts: AtomicU64,
    pub(crate) listings: AtomicU64,
    pub(crate) gets: AtomicU64,
}

impl Reach {
    pub(crate) fn new(store: Arc<MemoryArchive>, keeps: Arc<AtomicBool>, put_takes: Duration) -> Arc<Self> {
        let zero = AtomicU64::default;
        let asleep = watch::Sender::new(false);
        Arc::new(Self {
            store,
            asleep,
            keeps,
            put_takes,
            lost_puts: zero(),
            puts: zero(),
            listings: zero(),
            gets: zero(),
        })
    }

    pub(crate) async fn awake(&self) {
        self.asleep.subscribe().wait_for(|asleep| !asleep).await.unwrap();
    }
}

#[allow(clippy::disallowed_methods)] // time is paused
async fn on_its_way(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

#[async_trait]
impl ArchiveStore for Reach {
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<Put, ArchiveError> {
        self.awake().await;
        self.puts.fetch_add(1, Ordering::SeqCst);
        on_its_way(self.put_takes / 2).await;
        let put = self.store.put_if_absent(key, body).await?;
        on_its_way(self.put_takes / 2).await;
        let lost = |left: u64| left.checked_sub(1);
        match self.lost_puts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lost) {
            Ok(left) if left % 2 == 0 => {
                Err(ArchiveError::Unavailable { key: key.into(), reason: "the answer was lost".into() })
            }
            _ => Ok(put),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ArchiveError> {
        self.awake().await;
        self.gets.fetch_add(1, Ordering::SeqCst);
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ArchiveError> {
        self.awake().await;
        self.listings.fetch_add(1, Ordering::SeqCst);
        self.store.list(prefix).await
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>, ArchiveError> {
        self.store.stat(key).await
    }
}

#[async_trait]
impl SpoolStore for Reach {
    async fn remove(&self, key: &str) -> Result<(), ArchiveError> {
        self.awake().await;
        if self.keeps.load(Ordering::SeqCst) {
            return Err(ArchiveError::Refused { key: key.into(), reason: "allow s3:DeleteObject".into() });
        }
        SpoolStore::remove(self.store.as_ref(), key).await
    }
}

/// A subscription, the spools that it is received into, and everything that outlives a process.
pub(crate) struct Spooled {
    pub(crate) world: World,
    pub(crate) subscription: MemorySubscription,
    pub(crate) spools: Arc<MemoryArchive>,
    pub(crate) options: PubsubOptions,
    pub(crate) put_takes: Duration,
    pub(crate) keeps: Arc<AtomicBool>,
}

/// A process: a worker and a receiver.
pub(crate) struct Process {
    pub(crate) receiver: Arc<Receiver>,
    pub(crate) reach: Arc<Reach>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<Summary>,
}

impl Process {
    /// Tells it to stop, and waits until it has.
    pub(crate) async fn stop(self) {
        self.shutdown.graceful.cancel();
        assert!(self.task.await.unwrap().failures.is_empty());
    }

    /// It is gone at once, as after `kill -9`.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.is_err());
    }

    /// Neither what it wants to put nor what it wants to renew gets out, until it wakes.
    pub(crate) fn sleep(&self, asleep: bool) {
        self.reach.asleep.send_replace(asleep);
        self.faults.leases_away.store(asleep, Ordering::SeqCst);
    }
}

impl Spooled {
    pub(crate) async fn new() -> Self {
        let world = shared_world().await;
        let subscription = MemorySubscription::new(world.clock.clone());
        Self {
            world,
            subscription,
            spools: Arc::new(MemoryArchive::new()),
            options: OPTIONS,
            put_takes: Duration::ZERO,
            keeps: Arc::default(),
        }
    }

    /// One in which nobody looks often: weeks pass in it.
    pub(crate) async fn for_weeks() -> Self {
        let mut spooled = Self::new().await;
        spooled.world.settings.poll = Duration::from_mins(30);
        spooled.world.settings.failover = Duration::from_hours(2);
        spooled
    }

    pub(crate) fn publish(&self, ids: Range<usize>) {
        for id in ids {
            self.subscription.publish(record(id).to_string());
        }
    }

    pub(crate) fn source(&self, reach: &Arc<Reach>) -> PubsubSource {
        PubsubSource::new(reach.clone(), self.options, self.world.clock.clone(), MemoryBudget::new(1 << 20))
    }

    pub(crate) fn receiver(&self, source: &PubsubSource) -> Receiver {
        source.receiver(Arc::new(self.subscription.clone()), self.world.leases.clone())
    }

    #[allow(clippy::disallowed_methods)] // processes are tasks of the test
    pub(crate) fn start(&self, name: &str) -> Process {
        let (reach, faults, shutdown) = (
            Reach::new(self.spools.clone(), self.keeps.clone(), self.put_takes),
            Arc::<Faults>::default(),
            Shutdown::default(),
        );
        let source = self.source(&reach);
        let receiver = Arc::new(self.receiver(&source));
        let settings = Settings { worker: WorkerId::new(name), concurrency: usize::MAX, ..self.world.settings.clone() };
        let worker = self.world.worker_on(Arc::new(source), &faults, &shutdown, settings);
        let (filling, ends) = (receiver.clone(), shutdown.clone());
        let task =
            tokio::spawn(
                async move { tokio::join!(worker.run(), filling.run(&ends.graceful, &ends.abort)).0.unwrap() },
            );
        Process { receiver, reach, faults, shutdown, task }
    }

    /// What a one-shot run does.
    pub(crate) async fn catch_up(&self) -> Result<Summary, ReceiveError> {
        let reach = Reach::new(self.spools.clone(), self.keeps.clone(), self.put_takes);
        let (source, shutdown) = (self.source(&reach), Shutdown::default());
        let receiver = self.receiver(&source);
        receiver.drain(Duration::from_secs(20), &shutdown.graceful, &shutdown.abort).await?;
        receiver.tidy().await.unwrap();
        let shards = source.shards().await.unwrap();
        let settings = Settings { worker: WorkerId::new("catch-up"), ..self.world.settings.clone() };
        let worker = self.world.worker_on(Arc::new(source), &Arc::default(), &shutdown, settings);
        let summary = worker.catch_up(shards).await.unwrap();
        receiver.tidy().await.unwrap();
        Ok(summary)
    }

    /// The segments and seals that stand: of each spool, the numbers.
    pub(crate) async fn standing(&self) -> Vec<String> {
        self.spools.list("").await.unwrap().into_iter().map(|object| object.key).collect()
    }

    /// Finishes everything, and holds what came of it against what was published.
    pub(crate) async fn assert_all_is_archived_once(&self, records: usize) {
        // Whoever was killed had leases, and messages that are still away.
        self.world.sleep(Duration::from_secs(30)).await;
        let summary = self.catch_up().await.unwrap();
        assert!(summary.failures.is_empty() && !summary.stopped, "{summary:?}");
        assert_eq!(self.subscription.unacknowledged(), 0);
        self.assert_nothing_is_left().await;
        assert_each_once(&self.world, records).await;
    }

    /// No segment stands, and of each spool that was ended a seal.
    pub(crate) async fn assert_nothing_is_left(&self) {
        let standing = self.standing().await;
        let spools: BTreeSet<&str> = standing.iter().filter_map(|key| key.split('/').next()).collect();
        assert_eq!(standing.len(), spools.len(), "{standing:?}");
        for key in &standing {
            let object = self.spools.get(key).await.unwrap().unwrap();
            assert!(object.windows(6).any(|word| word == b"\"seal\""), "{key} is no seal");
        }
    }
}
