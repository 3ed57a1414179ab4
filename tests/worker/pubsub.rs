//! Workers that receive from a subscription: killed, slept, and with acknowledgements that fail in every way.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use auditlake::archive::{ArchiveError, ArchiveStore, Listed, MemoryArchive, Put, Stat};
use auditlake::lease::{LeaseStore as _, WorkerId};
use auditlake::ops::memory::MemoryBudget;
use auditlake::source::Source as _;
use auditlake::source::pubsub::memory::{Acks, MemorySubscription};
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
struct Reach {
    store: Arc<MemoryArchive>,
    /// Nothing it sends gets out, until this is over.
    asleep: watch::Sender<bool>,
    /// Of this many puts, every other one takes effect and loses its answer.
    lost_puts: AtomicU64,
    puts: AtomicU64,
    listings: AtomicU64,
    gets: AtomicU64,
}

impl Reach {
    fn new(store: Arc<MemoryArchive>) -> Arc<Self> {
        let zero = AtomicU64::default;
        let asleep = watch::Sender::new(false);
        Arc::new(Self { store, asleep, lost_puts: zero(), puts: zero(), listings: zero(), gets: zero() })
    }

    async fn awake(&self) {
        self.asleep.subscribe().wait_for(|asleep| !asleep).await.unwrap();
    }
}

#[async_trait]
impl ArchiveStore for Reach {
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<Put, ArchiveError> {
        self.awake().await;
        self.puts.fetch_add(1, Ordering::SeqCst);
        let put = self.store.put_if_absent(key, body).await?;
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
        SpoolStore::remove(self.store.as_ref(), key).await
    }
}

/// A subscription, the spools that it is received into, and everything that outlives a process.
struct Spooled {
    world: World,
    subscription: MemorySubscription,
    spools: Arc<MemoryArchive>,
    options: PubsubOptions,
}

/// A process: a worker and a receiver.
struct Process {
    receiver: Arc<Receiver>,
    reach: Arc<Reach>,
    faults: Arc<Faults>,
    shutdown: Shutdown,
    task: JoinHandle<Summary>,
}

impl Process {
    /// Tells it to stop, and waits until it has.
    async fn stop(self) {
        self.shutdown.graceful.cancel();
        assert!(self.task.await.unwrap().failures.is_empty());
    }

    /// It is gone at once, as after `kill -9`.
    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.is_err());
    }

    /// Neither what it wants to put nor what it wants to renew gets out, until it wakes.
    fn sleep(&self, asleep: bool) {
        self.reach.asleep.send_replace(asleep);
        self.faults.leases_away.store(asleep, Ordering::SeqCst);
    }
}

impl Spooled {
    async fn new() -> Self {
        let world = shared_world().await;
        let subscription = MemorySubscription::new(world.clock.clone());
        Self { world, subscription, spools: Arc::new(MemoryArchive::new()), options: OPTIONS }
    }

    /// One in which nobody looks often: weeks pass in it.
    async fn for_weeks() -> Self {
        let mut spooled = Self::new().await;
        spooled.world.settings.poll = Duration::from_mins(30);
        spooled.world.settings.failover = Duration::from_hours(2);
        spooled
    }

    fn publish(&self, ids: Range<usize>) {
        for id in ids {
            self.subscription.publish(record(id).to_string());
        }
    }

    fn source(&self, reach: &Arc<Reach>) -> PubsubSource {
        PubsubSource::new(reach.clone(), self.options, self.world.clock.clone(), MemoryBudget::new(1 << 20))
    }

    fn receiver(&self, source: &PubsubSource) -> Receiver {
        source.receiver(Arc::new(self.subscription.clone()), self.world.leases.clone())
    }

    #[allow(clippy::disallowed_methods)] // processes are tasks of the test
    fn start(&self, name: &str) -> Process {
        let (reach, faults, shutdown) =
            (Reach::new(self.spools.clone()), Arc::<Faults>::default(), Shutdown::default());
        let source = self.source(&reach);
        let receiver = Arc::new(self.receiver(&source));
        let settings = Settings { worker: WorkerId::new(name), concurrency: usize::MAX, ..self.world.settings.clone() };
        let worker = self.world.worker_on(Arc::new(source), &faults, &shutdown, settings);
        let (receives, stops) = (receiver.clone(), shutdown.clone());
        let task =
            tokio::spawn(
                async move { tokio::join!(worker.run(), receives.run(&stops.graceful, &stops.abort)).0.unwrap() },
            );
        Process { receiver, reach, faults, shutdown, task }
    }

    /// What a one-shot run does.
    async fn catch_up(&self) -> Result<Summary, ReceiveError> {
        let reach = Reach::new(self.spools.clone());
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
    async fn standing(&self) -> Vec<String> {
        self.spools.list("").await.unwrap().into_iter().map(|object| object.key).collect()
    }

    /// Finishes everything, and holds what came of it against what was published.
    async fn assert_all_is_archived_once(&self, records: usize) {
        // Whoever was killed had leases, and messages that are still away.
        self.world.sleep(Duration::from_secs(30)).await;
        let summary = self.catch_up().await.unwrap();
        assert!(summary.failures.is_empty() && !summary.stopped, "{summary:?}");
        assert_eq!(self.subscription.unacknowledged(), 0);
        self.assert_nothing_is_left().await;
        assert_each_once(&self.world, records).await;
    }

    /// No segment stands, and of each spool that was ended a seal.
    async fn assert_nothing_is_left(&self) {
        let standing = self.standing().await;
        let spools: BTreeSet<&str> = standing.iter().filter_map(|key| key.split('/').next()).collect();
        assert_eq!(standing.len(), spools.len(), "{standing:?}");
        for key in &standing {
            let object = self.spools.get(key).await.unwrap().unwrap();
            assert!(object.windows(6).any(|word| word == b"\"seal\""), "{key} is no seal");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_window_of_35_minutes_messages_are_acknowledged_within_seconds_and_archived_in_one_batch() {
    let mut spooled = Spooled::new().await;
    spooled.world.settings.limits.window = Duration::from_mins(35);
    // Windows are aligned to the clock: it begins with one.
    let into = spooled.world.now().as_second().rem_euclid(35 * 60).unsigned_abs();
    spooled.world.sleep(Duration::from_secs(35 * 60 - into)).await;
    let process = spooled.start("a");
    for id in 0..200 {
        spooled.publish(id..id + 1);
        spooled.world.sleep(Duration::from_secs(10)).await;
        assert_eq!(spooled.subscription.unacknowledged(), 0, "message {id} waits for its acknowledgement");
    }
    assert_eq!(spooled.world.manifests().await.len(), 0, "the window is open");
    spooled.world.sleep(Duration::from_mins(3)).await;
    let manifests = spooled.world.manifests().await;
    assert_eq!((manifests.len(), manifests[0].counts.archived), (1, 200));
    spooled.world.sleep(Duration::from_mins(2)).await;
    assert_eq!(spooled.standing().await.len(), 1, "all but the last segment, which the checkpoint lies in");
    process.stop().await;
    spooled.assert_all_is_archived_once(200).await;
}

/// The library's default limits are 1,000 messages and 100 MiB: who waits for more before it acknowledges stalls.
#[tokio::test(start_paused = true)]
async fn a_thousand_and_one_small_messages_do_not_stall() {
    for max_messages in [1, 100, 1000, 5000] {
        let mut spooled = Spooled::new().await;
        spooled.options.cut.max_messages = max_messages;
        spooled.publish(0..1001);
        let process = spooled.start("a");
        spooled.world.sleep(Duration::from_secs(10)).await;
        assert_eq!(spooled.subscription.unacknowledged(), 0);
        assert_eq!(spooled.subscription.deliveries(), 1001);
        process.stop().await;
        spooled.assert_all_is_archived_once(1001).await;
    }
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_moment_no_message_is_lost_and_none_archived_twice() {
    for tick in 0..48 {
        let spooled = Spooled::new().await;
        let victim = spooled.start("victim");
        let other = (tick % 3 == 0).then(|| spooled.start("other"));
        spooled.publish(0..20);
        // Late acknowledgements may count after their process is gone, or never.
        spooled.subscription.acks(if tick % 2 == 0 { Acks::Count } else { Acks::Late(Duration::from_secs(3)) });
        spooled.world.sleep(Duration::from_millis(250 * tick)).await;
        spooled.publish(20..40);
        spooled.world.sleep(Duration::from_millis(90)).await;
        victim.kill().await;
        spooled.subscription.acks(Acks::Count);
        let successor = spooled.start("successor");
        spooled.publish(40..50);
        spooled.world.sleep(Duration::from_secs(20)).await;
        successor.stop().await;
        if let Some(other) = other {
            other.stop().await;
        }
        spooled.assert_all_is_archived_once(50).await;
    }
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_that_fail_in_any_way_bring_messages_again_which_are_archived_once() {
    for acks in [Acks::Lost, Acks::Fail, Acks::Mute, Acks::Late(Duration::from_secs(8))] {
        let spooled = Spooled::new().await;
        spooled.subscription.acks(acks);
        let process = spooled.start("a");
        for id in 0..10 {
            spooled.publish(id * 10..id * 10 + 10);
            spooled.world.sleep(Duration::from_secs(10)).await;
        }
        // An answer that never comes holds up nothing: what came later is spooled, and read.
        let segments = process.receiver.counters().segments.load(Ordering::Relaxed);
        assert!(segments >= 10, "{acks:?}: {segments} segments");
        let failed = process.receiver.counters().unacknowledged.load(Ordering::Relaxed);
        assert_eq!(failed > 0, matches!(acks, Acks::Fail | Acks::Mute), "{acks:?}: {failed}");
        spooled.subscription.acks(Acks::Count);
        process.stop().await;
        spooled.assert_all_is_archived_once(100).await;
        let comes_again = !matches!(acks, Acks::Late(_));
        assert_eq!(spooled.subscription.deliveries() > 100, comes_again, "{acks:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn puts_whose_answers_are_lost_add_nothing_twice() {
    let spooled = Spooled::new().await;
    let process = spooled.start("a");
    process.reach.lost_puts.store(40, Ordering::SeqCst);
    for id in 0..30 {
        spooled.publish(id * 5..id * 5 + 5);
        spooled.world.sleep(Duration::from_secs(7)).await;
    }
    assert_eq!(process.reach.lost_puts.load(Ordering::SeqCst), 0);
    assert_eq!(spooled.subscription.deliveries(), 150, "nothing had to come again");
    process.stop().await;
    spooled.assert_all_is_archived_once(150).await;
    assert_eq!(spooled.world.totals.committed().counts.duplicates, 0, "each attempt was told for one's own");
}

/// Puts a process to sleep in the middle of a put, lets others seal and finish its spool, and wakes it after a while.
async fn a_writer_that_slept(spooled: Spooled, for_so_long: Duration) {
    let sleeper = spooled.start("sleeper");
    spooled.publish(0..10);
    spooled.world.sleep(Duration::from_secs(10)).await;
    assert_eq!(spooled.subscription.unacknowledged(), 0);
    sleeper.sleep(true);
    spooled.publish(10..20);
    spooled.world.sleep(Duration::from_secs(10)).await;
    assert_eq!(spooled.subscription.unacknowledged(), 10, "its segment does not get out");

    let other = spooled.start("other");
    spooled.world.sleep(for_so_long).await;
    let spool = spooled.standing().await.remove(0);
    assert!(spool.ends_with("/00000001"), "a seal stands where its next segment was to: {spool}");
    assert!(spooled.world.row(spool.split('/').next().unwrap()).await.ended);

    sleeper.sleep(false);
    spooled.world.sleep(Duration::from_secs(20)).await;
    assert_eq!(sleeper.receiver.counters().spools_ended_by_others.load(Ordering::Relaxed), 1);
    assert_eq!(spooled.subscription.unacknowledged(), 0, "acknowledged once they stood in a spool of its own");
    spooled.publish(20..30);
    spooled.world.sleep(Duration::from_secs(10)).await;
    sleeper.stop().await;
    other.stop().await;
    spooled.assert_all_is_archived_once(30).await;
    assert_eq!(spooled.world.totals.committed().gaps, 0);
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_slept_can_not_add_to_a_sealed_spool() {
    a_writer_that_slept(Spooled::new().await, Duration::from_hours(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_slept_for_weeks_finds_its_number_taken_though_its_spool_is_gone() {
    a_writer_that_slept(Spooled::for_weeks().await, Duration::from_hours(39 * 24)).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_writer_adds_that_slept_for_longer_than_seals_are_kept_is_archived_all_the_same() {
    let spooled = Spooled::for_weeks().await;
    let sleeper = spooled.start("sleeper");
    spooled.publish(0..10);
    spooled.world.sleep(Duration::from_secs(10)).await;
    sleeper.sleep(true);
    spooled.publish(10..20);
    // Of these the sleeper alone knows: nobody else gets them while it lives.
    spooled.world.sleep(Duration::from_secs(10)).await;
    let other = spooled.start("other");
    spooled.world.sleep(Duration::from_hours(41 * 24)).await;
    assert_eq!(spooled.standing().await, Vec::<String>::new(), "the seal is gone, too");
    sleeper.sleep(false);
    spooled.world.sleep(Duration::from_mins(2)).await;
    assert_eq!(spooled.subscription.unacknowledged(), 0);
    other.stop().await;
    spooled.publish(20..30);
    spooled.world.sleep(Duration::from_hours(3)).await;
    let shards: Vec<String> =
        spooled.world.leases.list().await.unwrap().iter().map(|row| row.shard.to_string()).collect();
    assert!(shards.iter().any(|shard| shard.ends_with("-late-00000001")), "{shards:?}");
    assert_eq!(sleeper.receiver.counters().spools_ended_by_others.load(Ordering::Relaxed), 1, "it was turned away");
    sleeper.stop().await;
    spooled.assert_all_is_archived_once(30).await;
}

#[tokio::test(start_paused = true)]
async fn a_one_shot_run_takes_all_there_is_and_ends_every_spool() {
    let spooled = Spooled::new().await;
    let dead = spooled.start("dead");
    spooled.publish(0..50);
    spooled.world.sleep(Duration::from_secs(7)).await;
    dead.kill().await;
    spooled.publish(50..2500);
    // While it takes it, more comes, and then no more.
    let (summary, ()) = tokio::join!(spooled.catch_up(), async {
        for id in 0..10 {
            spooled.world.sleep(Duration::from_secs(10)).await;
            spooled.publish(2500 + id..2501 + id);
        }
    });
    assert!(summary.unwrap().failures.is_empty());
    assert_eq!(spooled.subscription.unacknowledged(), 0);
    spooled.assert_nothing_is_left().await;
    assert_each_once(&spooled.world, 2510).await;
    let before = spooled.world.totals.committed();
    spooled.catch_up().await.unwrap();
    assert_eq!(spooled.world.totals.committed(), before, "there is nothing new");
}

#[tokio::test(start_paused = true)]
async fn that_nothing_comes_proves_nothing_where_the_service_does_not_answer() {
    let spooled = Spooled::new().await;
    spooled.subscription.away(true);
    assert!(matches!(spooled.catch_up().await, Err(ReceiveError::Subscription(_))));
    spooled.subscription.away(false);
    let (summary, ()) = tokio::join!(spooled.catch_up(), async {
        spooled.world.sleep(Duration::from_secs(5)).await;
        spooled.subscription.away(true);
    });
    assert!(matches!(summary, Err(ReceiveError::Subscription(_))));
}

#[tokio::test(start_paused = true)]
async fn a_daemon_waits_for_a_subscription_that_is_away() {
    let spooled = Spooled::new().await;
    spooled.subscription.away(true);
    let process = spooled.start("a");
    spooled.publish(0..10);
    spooled.world.sleep(Duration::from_mins(10)).await;
    assert_eq!(spooled.subscription.deliveries(), 0);
    spooled.subscription.away(false);
    spooled.world.sleep(Duration::from_mins(6)).await;
    assert_eq!(spooled.subscription.unacknowledged(), 0);
    process.stop().await;
    spooled.assert_all_is_archived_once(10).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_about_to_go_to_the_dead_letters_is_counted() {
    let spooled = Spooled::new().await;
    spooled.subscription.with_dead_letters(5);
    spooled.subscription.acks(Acks::Lost);
    let process = spooled.start("a");
    spooled.publish(0..1);
    spooled.world.sleep(Duration::from_secs(40)).await;
    let near = || process.receiver.counters().near_dead_letter.load(Ordering::Relaxed);
    assert_eq!(near(), 0, "it has come {} times", spooled.subscription.deliveries());
    spooled.world.sleep(Duration::from_mins(1)).await;
    assert!(near() > 0, "it has come {} times", spooled.subscription.deliveries());
    spooled.subscription.acks(Acks::Count);
    process.stop().await;
    spooled.assert_all_is_archived_once(1).await;
}

#[tokio::test(start_paused = true)]
async fn workers_that_live_end_no_spool_of_one_another() {
    let spooled = Spooled::new().await;
    let processes = ["a", "b", "c"].map(|name| spooled.start(name));
    for id in 0..120 {
        spooled.publish(id * 6..id * 6 + 6);
        spooled.world.sleep(Duration::from_secs(20)).await;
    }
    let ended = |process: &Process| process.receiver.counters().spools_ended_by_others.load(Ordering::Relaxed);
    assert!(processes.iter().map(ended).sum::<u64>() <= 1, "a lease is looked for elsewhere at most at first");
    for process in processes {
        process.stop().await;
    }
    spooled.assert_all_is_archived_once(720).await;
}

#[tokio::test(start_paused = true)]
async fn told_to_stop_a_process_puts_and_acknowledges_what_it_has() {
    let spooled = Spooled::new().await;
    let process = spooled.start("a");
    spooled.world.sleep(Duration::from_secs(2)).await;
    spooled.publish(0..10);
    spooled.world.sleep(Duration::from_secs(1)).await;
    assert_eq!(spooled.subscription.unacknowledged(), 10, "they wait for others");
    process.stop().await;
    assert_eq!(spooled.subscription.unacknowledged(), 0);
    spooled.assert_all_is_archived_once(10).await;
    assert_eq!(spooled.subscription.deliveries(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_held_up_no_longer_than_its_grace_by_a_store_that_is_away() {
    let spooled = Spooled::new().await;
    let process = spooled.start("a");
    spooled.publish(0..10);
    spooled.world.sleep(Duration::from_secs(1)).await;
    process.reach.asleep.send_replace(true);
    process.shutdown.graceful.cancel();
    spooled.world.sleep(Duration::from_secs(25)).await;
    assert!(!process.task.is_finished());
    process.shutdown.abort.cancel();
    spooled.world.sleep(Duration::from_secs(3)).await;
    assert!(process.task.is_finished());
    spooled.assert_all_is_archived_once(10).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_starts_beside_another_takes_no_new_spool_for_a_lost_one() {
    let spooled = Spooled::new().await;
    let a = spooled.start("a");
    let b = spooled.start("b");
    for id in 0..30 {
        spooled.publish(id..id + 1);
        // Its spool is begun while the other one's listing is old.
        spooled.world.sleep(Duration::from_millis(5300)).await;
        if id % 10 == 5 {
            spooled.world.sleep(Duration::from_mins(2)).await;
        }
    }
    a.stop().await;
    b.stop().await;
    spooled.assert_all_is_archived_once(30).await;
    assert_eq!(spooled.world.totals.committed().gaps, 0);
}

/// The budget of docs/operations.md: one worker, a message a second.
#[tokio::test(start_paused = true)]
async fn an_hour_of_one_message_a_second_costs_what_the_budget_says() {
    let spooled = Spooled::new().await;
    let process = spooled.start("a");
    let reach = process.reach.clone();
    let count = || [&reach.puts, &reach.gets, &reach.listings].map(|counter| counter.load(Ordering::SeqCst));
    let mut before = count();
    let mut acknowledged = 0;
    for second in 0..4200 {
        if second == 600 {
            (before, acknowledged) = (count(), spooled.subscription.acknowledged());
        }
        spooled.publish(second..second + 1);
        spooled.world.sleep(Duration::from_secs(1)).await;
    }
    let after = count();
    let [puts, gets, listings] = [0, 1, 2].map(|index| after[index] - before[index]);
    assert_eq!(spooled.subscription.acknowledged() - acknowledged, 3600);
    assert!((595..=605).contains(&puts), "{puts} puts");
    assert!((595..=605).contains(&gets), "{gets} gets");
    assert!((700..=790).contains(&listings), "{listings} listings");
    process.stop().await;
    spooled.assert_all_is_archived_once(4200).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_in_spools_survives_the_loss_of_the_lease_table() {
    let spooled = Spooled::new().await;
    let a = spooled.start("a");
    spooled.publish(0..100);
    spooled.world.sleep(Duration::from_mins(40)).await;
    spooled.publish(100..200);
    spooled.world.sleep(Duration::from_secs(10)).await;
    a.kill().await;
    spooled.world.leases.lose_all();
    let summary = spooled.catch_up().await.unwrap();
    assert!(summary.failures.is_empty(), "{summary:?}");
    assert_eq!(spooled.world.archived().await.len(), 200);
    assert!(spooled.world.proof().await.is_intact());
    let rows = spooled.world.rows_from_the_archive().await.unwrap();
    assert!(rows.iter().all(|row| row.ended), "rebuild-state makes rows of spools as of any shard");
}
