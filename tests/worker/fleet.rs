//! Several workers over one lease table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use auditlake::archive::ArchiveStore as _;
use auditlake::lease::memory::MemoryLeases;
use auditlake::lease::{LeaseRow, LeaseStore as _, WorkerId};
use auditlake::source::memory::MemorySource;
use auditlake::source::{Checkpoint, InitialPosition, ShardId};
use auditlake::worker::{ShardError, Shutdown, Summary, WorkerError};
use tokio::task::JoinHandle;

use super::assert_each_once;
use super::world::{Faults, World, record};

/// A worker that runs beside the test.
pub(crate) struct Running {
    name: &'static str,
    pub(crate) faults: Arc<Faults>,
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<Result<Summary, WorkerError>>,
}

impl Running {
    /// Tells it to stop, and waits until it has.
    pub(crate) async fn stop(self) -> Summary {
        self.shutdown.graceful.cancel();
        self.task.await.unwrap().unwrap()
    }

    /// It is gone at once, as after `kill -9`.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.is_err());
    }
}

pub(crate) async fn shared_world() -> World {
    World { leases: Arc::new(MemoryLeases::shared()), ..World::new().await }
}

#[allow(clippy::disallowed_methods)] // workers are tasks of the test, as they are processes elsewhere
pub(crate) fn start(world: &World, name: &'static str) -> Running {
    let (faults, shutdown) = (Arc::new(Faults::default()), Shutdown::default());
    let mut settings = world.settings.clone();
    settings.worker = WorkerId::new(name);
    settings.concurrency = usize::MAX;
    let task = tokio::spawn(world.worker_with(&faults, &shutdown, settings).run());
    Running { name, faults, shutdown, task }
}

async fn owners(world: &World) -> BTreeMap<String, usize> {
    let mut owners = BTreeMap::new();
    for row in world.leases.list().await.unwrap() {
        *owners.entry(row.owner.map_or("-".into(), |owner| owner.to_string())).or_default() += 1;
    }
    owners
}

pub(crate) async fn assert_even(world: &World, workers: &[&Running]) {
    let owners = owners(world).await;
    let counts: Vec<usize> = workers.iter().map(|worker| owners.get(worker.name).copied().unwrap_or(0)).collect();
    assert_eq!(owners.len(), workers.len(), "{owners:?}");
    assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{owners:?}");
}

pub(crate) fn put_everywhere(world: &World, shards: usize, ids: std::ops::Range<usize>) {
    for id in ids {
        world.put(&format!("s{}", id % shards), &record(id));
    }
}

#[tokio::test(start_paused = true)]
async fn workers_share_the_shards_and_archive_each_record_once() {
    let world = shared_world().await;
    put_everywhere(&world, 8, 0..400);
    let a = start(&world, "a");
    world.sleep(Duration::from_secs(5)).await;
    assert_eq!(owners(&world).await, BTreeMap::from([("a".into(), 8)]), "the first one takes all at once");
    let (b, c) = (start(&world, "b"), start(&world, "c"));
    world.sleep(Duration::from_mins(3)).await;
    assert_even(&world, &[&a, &b, &c]).await;
    put_everywhere(&world, 8, 200..800);
    for worker in [a, b, c] {
        assert!(worker.stop().await.failures.is_empty());
    }
    assert_eq!(owners(&world).await, BTreeMap::from([("-".into(), 8)]), "all leases are given up");
    assert_each_once(&world, 800).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_changes_hands_with_its_open_batch_committed() {
    let world = shared_world().await;
    put_everywhere(&world, 2, 0..20);
    let a = start(&world, "a");
    world.sleep(Duration::from_secs(5)).await;
    assert_eq!(world.manifests().await.len(), 0, "the window is open");
    let b = start(&world, "b");
    world.sleep(Duration::from_mins(1)).await;
    assert_even(&world, &[&a, &b]).await;
    assert_eq!(world.totals.committed().counts.payloads, 10, "what was open in the shard that moved");
    assert_eq!(world.totals.records_read.load(Ordering::Relaxed), 20, "nothing was read twice");
    a.stop().await;
    b.stop().await;
    assert_each_once(&world, 20).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_workers_shards_are_taken_over_after_the_failover() {
    let world = shared_world().await;
    put_everywhere(&world, 4, 0..40);
    let (a, b) = (start(&world, "a"), start(&world, "b"));
    world.sleep(Duration::from_mins(1)).await;
    assert_even(&world, &[&a, &b]).await;
    a.kill().await;
    world.sleep(Duration::from_secs(9)).await;
    assert_eq!(owners(&world).await.len(), 2, "it might still be alive");
    world.sleep(Duration::from_secs(25)).await;
    assert_eq!(owners(&world).await, BTreeMap::from([("b".into(), 4)]));
    b.stop().await;
    assert_each_once(&world, 40).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_renew_stops_by_itself_and_changes_nothing_of_its_successors() {
    let world = shared_world().await;
    put_everywhere(&world, 2, 0..20);
    let a = start(&world, "a");
    world.sleep(Duration::from_secs(5)).await;
    a.faults.leases_away.store(true, Ordering::SeqCst);
    let b = start(&world, "b");
    world.sleep(Duration::from_secs(40)).await;
    assert_eq!(owners(&world).await, BTreeMap::from([("b".into(), 2)]));
    put_everywhere(&world, 2, 20..40);
    world.sleep(Duration::from_mins(40)).await;
    let manifests = world.manifests().await.len();
    a.faults.leases_away.store(false, Ordering::SeqCst);
    world.sleep(Duration::from_secs(5)).await;
    assert_eq!(world.manifests().await.len(), manifests, "it brings nothing");
    world.sleep(Duration::from_mins(2)).await;
    assert_even(&world, &[&a, &b]).await;
    a.stop().await;
    b.stop().await;
    assert_each_once(&world, 40).await;
}

#[tokio::test(start_paused = true)]
async fn when_the_table_was_away_for_everyone_each_goes_on_with_what_it_had() {
    let world = shared_world().await;
    put_everywhere(&world, 6, 0..60);
    let workers = [start(&world, "a"), start(&world, "b")];
    world.sleep(Duration::from_mins(2)).await;
    let before = world.leases.list().await.unwrap();
    let away = |is_away| workers.iter().for_each(|worker| worker.faults.leases_away.store(is_away, Ordering::SeqCst));
    away(true);
    world.sleep(Duration::from_mins(5)).await;
    away(false);
    world.sleep(Duration::from_mins(1)).await;
    let owned = |rows: Vec<LeaseRow>| rows.into_iter().map(|row| (row.shard, row.owner)).collect::<Vec<_>>();
    assert_eq!(owned(world.leases.list().await.unwrap()), owned(before), "no lease moved");
    for worker in workers {
        worker.stop().await;
    }
    assert_each_once(&world, 60).await;
}

#[tokio::test(start_paused = true)]
async fn renewals_whose_answers_are_lost_keep_the_lease() {
    let world = shared_world().await;
    put_everywhere(&world, 1, 0..10);
    let a = start(&world, "a");
    world.sleep(Duration::from_secs(5)).await;
    let taken = world.row("s0").await.taken_at;
    a.faults.lost_writes.store(500, Ordering::SeqCst);
    world.sleep(Duration::from_mins(40)).await;
    assert_eq!(world.row("s0").await.taken_at, taken, "it was never lost");
    assert_eq!(world.manifests().await.len(), 1);
    a.stop().await;
    assert_each_once(&world, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_split_and_a_merge_are_read_on_without_a_restart_and_old_rows_go() {
    let world = shared_world().await;
    let [p, left, right, merged] = ["p", "q-left", "q-right", "r-merged"].map(ShardId::new);
    world.source.add_shard(&p, vec![]);
    world.put("p", &record(1));
    let (a, b) = (start(&world, "a"), start(&world, "b"));
    world.sleep(Duration::from_secs(20)).await;
    world.source.add_shard(&left, vec![p.clone()]);
    world.source.add_shard(&right, vec![p.clone()]);
    world.put("q-left", &record(2));
    world.put("q-right", &record(3));
    world.sleep(Duration::from_secs(20)).await;
    assert_eq!(world.row("q-left").await.owner, None, "its parent has not ended");
    world.source.end(&p);
    world.sleep(Duration::from_secs(30)).await;
    assert_eq!(world.row("p").await.children, [left.clone(), right.clone()]);
    assert!(world.row("q-left").await.owner.is_some());
    world.source.add_shard(&merged, vec![left.clone(), right.clone()]);
    world.put("r-merged", &record(4));
    world.source.end(&left);
    world.source.end(&right);
    world.sleep(Duration::from_mins(40)).await;
    let rows: Vec<String> = world.leases.list().await.unwrap().iter().map(|row| row.shard.to_string()).collect();
    assert_eq!(rows, ["r-merged"], "the others have moved on, though the source still lists them");
    for first in world.manifests().await.iter().filter(|manifest| manifest.batch_seq == 0) {
        let named: Vec<ShardId> = first.parent_heads.keys().cloned().collect();
        assert_eq!(named, first.parents, "each child names its parents' last manifests");
    }
    a.stop().await;
    b.stop().await;
    assert_each_once(&world, 4).await;
    // A worker that starts now begins nothing anew.
    let summary = world.catch_up().await;
    assert!(summary.failures.is_empty() && !summary.stopped, "{summary:?}");
    assert_each_once(&world, 4).await;
}

#[tokio::test(start_paused = true)]
async fn latest_begins_with_the_first_start_and_children_at_their_beginning() {
    let mut world = shared_world().await;
    world.settings.initial = InitialPosition::Latest;
    let [p, child] = ["p", "q-child"].map(ShardId::new);
    world.put("p", &record("old"));
    world.sleep(Duration::from_secs(1)).await;
    let a = start(&world, "a");
    world.sleep(Duration::from_secs(5)).await;
    let started = world.row("p").await.checkpoint;
    assert!(matches!(started, Checkpoint::Since(_)), "{started}");
    a.kill().await;
    // It arrives while nobody runs: a successor that began at its own `latest` would pass it over.
    world.put("p", &record("between"));
    world.source.add_shard(&child, vec![p.clone()]);
    world.put("q-child", &record("child"));
    world.source.end(&p);
    let b = start(&world, "b");
    world.sleep(Duration::from_mins(1)).await;
    assert_eq!(world.row("q-child").await.checkpoint, Checkpoint::TrimHorizon);
    b.stop().await;
    let archived: Vec<String> = world.archived().await.into_keys().collect();
    assert_eq!(archived, ["between", "child"]);
    world.assert_proved().await;
}

#[tokio::test(start_paused = true)]
async fn latest_with_a_lost_lease_table_passes_nothing_over() {
    let mut world = shared_world().await;
    world.settings.initial = InitialPosition::Latest;
    world.settings.archive_made_at = world.now();
    world.put("a", &record(1));
    world.put("b", &record(2));
    let a = start(&world, "a");
    world.sleep(Duration::from_secs(5)).await;
    // Only `a` commits; of `b` nothing tells that it was ever begun.
    world.source.end(&ShardId::new("a"));
    world.sleep(Duration::from_secs(5)).await;
    a.kill().await;
    world.leases = Arc::new(MemoryLeases::shared());
    world.put("b", &record(3));
    world.sleep(Duration::from_mins(5)).await;
    let b = start(&world, "b");
    world.sleep(Duration::from_secs(30)).await;
    b.stop().await;
    let archived = world.archived().await;
    assert!(archived.len() == 3 && archived.values().all(|&times| times == 1), "{archived:?}");
    assert!(world.proof().await.is_intact());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_made_again_under_its_name_is_refused() {
    let mut world = shared_world().await;
    world.source = MemorySource::of_origin("stream@1");
    world.put("a", &record(1));
    world.catch_up().await;
    world.source = MemorySource::of_origin("stream@2");
    world.put("a", &record(2));
    let summary = world.catch_up().await;
    assert!(matches!(summary.failures[0].error, ShardError::OtherOrigin { .. }), "{summary:?}");
    // The archive knows it, too.
    world.leases = Arc::new(MemoryLeases::shared());
    let summary = world.catch_up().await;
    assert!(matches!(summary.failures[0].error, ShardError::OtherOrigin { .. }), "{summary:?}");
    assert_eq!(world.archived().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_catch_up_asks_the_daemons_for_their_shards_and_gives_them_back() {
    let world = shared_world().await;
    put_everywhere(&world, 4, 0..40);
    let a = start(&world, "a");
    world.sleep(Duration::from_secs(5)).await;
    let summary = world.catch_up().await;
    assert!(summary.failures.is_empty() && !summary.stopped, "{summary:?}");
    assert_eq!(world.archived().await.len(), 40, "without waiting for the window's end");
    world.sleep(Duration::from_mins(1)).await;
    assert_eq!(owners(&world).await, BTreeMap::from([("a".into(), 4)]));
    a.stop().await;
    assert_each_once(&world, 40).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_catch_ups_at_once_both_end() {
    let world = shared_world().await;
    put_everywhere(&world, 4, 0..40);
    let (x, y) = tokio::join!(world.catch_up(), async {
        let settings = auditlake::worker::Settings { worker: WorkerId::new("y"), ..world.settings.clone() };
        let shards = auditlake::source::Source::shards(&world.source).await.unwrap();
        world.worker_with(&world.faults, &world.shutdown, settings).catch_up(shards).await.unwrap()
    });
    assert!(x.failures.is_empty() && y.failures.is_empty() && !x.stopped && !y.stopped, "{x:?} {y:?}");
    assert_each_once(&world, 40).await;
}

#[tokio::test(start_paused = true)]
async fn the_rows_of_an_idle_shard_say_until_when_it_was_read() {
    let world = shared_world().await;
    world.source.add_shard(&ShardId::new("a"), vec![]);
    let a = start(&world, "a");
    world.sleep(Duration::from_mins(10)).await;
    let read_through = world.row("a").await.read_through;
    assert!(read_through.is_some(), "{read_through:?}");
    a.stop().await;
}

/// The budget of docs/operations.md, for the default failover of ten seconds.
#[tokio::test(start_paused = true)]
async fn an_hour_of_leases_costs_what_the_budget_says() {
    let world = shared_world().await;
    put_everywhere(&world, 8, 0..80);
    let workers = [start(&world, "a"), start(&world, "b")];
    world.sleep(Duration::from_mins(20)).await;
    let count = |counter: fn(&Faults) -> &std::sync::atomic::AtomicU64| -> u64 {
        workers.iter().map(|worker| counter(&worker.faults).load(Ordering::SeqCst)).sum()
    };
    let before = (count(|f| &f.writes), count(|f| &f.scans), count(|f| &f.reads));
    world.sleep(Duration::from_hours(1)).await;
    let writes = count(|f| &f.writes) - before.0;
    assert!((8 * 1000..8 * 1100).contains(&writes), "1,100 writes a shard and hour: {writes}");
    let scans = count(|f| &f.scans) - before.1;
    assert!((2 * 300..=2 * 360).contains(&scans), "360 scans a worker and hour: {scans}");
    assert!(count(|f| &f.reads) - before.2 <= 8, "no reads but for what moves");
    for worker in workers {
        worker.stop().await;
    }
    assert_each_once(&world, 80).await;
}

/// Each try of one worker ends the pause of none: the other one is told that it came too late, which is no recovery.
#[tokio::test(start_paused = true)]
async fn a_shard_that_can_not_go_on_is_not_handed_to_and_fro() {
    let world = shared_world().await;
    world.put("s", &record("x"));
    let (a, b) = (start(&world, "a"), start(&world, "b"));
    world.sleep(Duration::from_mins(1)).await;
    world.archive.put_if_absent("_manifests/s/00000000.json", "{}".into()).await.unwrap();
    world.sleep(Duration::from_hours(2)).await;
    let before = world.row("s").await.counter;
    world.sleep(Duration::from_hours(1)).await;
    // Twelve pauses of five minutes for each of two, and some writes a try.
    let writes = world.row("s").await.counter - before;
    assert!((24..200).contains(&writes), "{writes}");
    a.stop().await;
    b.stop().await;
}
