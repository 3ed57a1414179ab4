//! Outages, and how a worker stops in the middle of one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use auditlake::lease::{LeaseRow, LeaseStore as _, WorkerId};
use auditlake::source::Source as _;
use auditlake::worker::Settings;

use super::assert_each_once;
use super::fleet::{Running, put_everywhere, shared_world, start};
use super::world::World;

async fn owned(world: &World) -> Vec<(String, Option<WorkerId>)> {
    let rows = world.leases.list().await.unwrap();
    rows.into_iter().map(|row: LeaseRow| (row.shard.to_string(), row.owner)).collect()
}

/// Stops it, its grace of 25 seconds over; whether it was gone within a few more.
async fn is_gone_after_the_grace(world: &World, worker: Running) -> bool {
    worker.shutdown.graceful.cancel();
    world.sleep(Duration::from_secs(25)).await;
    worker.shutdown.abort.cancel();
    let mut task = worker.task;
    tokio::select! {
        biased;
        ended = &mut task => ended.is_ok(),
        () = world.sleep(Duration::from_secs(4)) => {
            task.abort();
            false
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_lease_table_that_never_answers_stops_all_the_same() {
    for seconds in [0, 60] {
        let world = shared_world().await;
        put_everywhere(&world, 2, 0..20);
        let a = start(&world, "a");
        world.sleep(Duration::from_secs(5)).await;
        a.faults.leases_mute.store(true, Ordering::SeqCst);
        world.sleep(Duration::from_secs(seconds)).await;
        assert!(is_gone_after_the_grace(&world, a).await, "after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_an_archive_that_never_answers_stops_all_the_same() {
    let world = shared_world().await;
    let a = start(&world, "a");
    a.faults.listings_mute.store(true, Ordering::SeqCst);
    put_everywhere(&world, 2, 0..20);
    world.sleep(Duration::from_secs(5)).await;
    assert!(is_gone_after_the_grace(&world, a).await);
}

#[tokio::test(start_paused = true)]
async fn a_catch_up_that_waits_for_a_lease_table_that_never_answers_stops_all_the_same() {
    let world = shared_world().await;
    put_everywhere(&world, 2, 0..20);
    world.faults.leases_mute.store(true, Ordering::SeqCst);
    let stop = async {
        world.shutdown.graceful.cancel();
        world.sleep(Duration::from_secs(25)).await;
        world.shutdown.abort.cancel();
        world.sleep(Duration::from_secs(4)).await;
    };
    let shards = world.source.shards().await.unwrap();
    let worker = world.worker_with(&world.faults, &world.shutdown, world.settings.clone());
    tokio::select! {
        biased;
        summary = worker.catch_up(shards) => assert!(summary.is_ok_and(|summary| summary.stopped)),
        () = stop => panic!("it goes on"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_a_little_longer_than_the_failover_moves_no_lease() {
    for (seconds, after) in [12, 15, 19, 25].into_iter().flat_map(|seconds| [0, 4, 8].map(|after| (seconds, after))) {
        let world = shared_world().await;
        put_everywhere(&world, 6, 0..60);
        let workers = [start(&world, "a"), start(&world, "b")];
        world.sleep(Duration::from_secs(120 + after)).await;
        let before = owned(&world).await;
        let away =
            |is_away| workers.iter().for_each(|worker| worker.faults.leases_away.store(is_away, Ordering::SeqCst));
        away(true);
        world.sleep(Duration::from_secs(seconds)).await;
        away(false);
        world.sleep(Duration::from_mins(1)).await;
        assert_eq!(owned(&world).await, before, "{seconds} s, {after} s later");
        for worker in workers {
            worker.stop().await;
        }
        assert_each_once(&world, 60).await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_catch_ups_that_want_a_dead_workers_lease_both_end() {
    let world = shared_world().await;
    put_everywhere(&world, 2, 0..20);
    let a = start(&world, "a");
    world.sleep(Duration::from_secs(5)).await;
    a.kill().await;
    let shards = world.source.shards().await.unwrap();
    let settings = Settings { worker: WorkerId::new("y"), ..world.settings.clone() };
    let other = world.worker_with(&world.faults, &world.shutdown, settings).catch_up(shards);
    let both = async { tokio::join!(world.catch_up(), other) };
    tokio::select! {
        (x, y) = both => assert!(!x.stopped && !y.unwrap().stopped),
        () = world.sleep(Duration::from_mins(5)) => panic!("each asks in the other's place, for ever"),
    }
    assert_each_once(&world, 20).await;
}

#[tokio::test(start_paused = true)]
async fn a_catch_up_bears_with_rows_that_can_not_be_listed_for_a_moment() {
    let world = shared_world().await;
    put_everywhere(&world, 2, 0..20);
    world.faults.failing_scans.store(2, Ordering::SeqCst);
    assert!(world.catch_up().await.failures.is_empty());
    assert_each_once(&world, 20).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_given_up_and_taken_before_that_is_known_is_no_failure() {
    let world = shared_world().await;
    put_everywhere(&world, 1, 0..20);
    world.faults.steal_released.store(true, Ordering::SeqCst);
    let summary = world.catch_up().await;
    assert!(summary.failures.is_empty() && !summary.stopped, "{summary:?}");
    assert_each_once(&world, 20).await;
}

/// That its row knows nothing of the batch is no fault of the state's: it is another worker's by now.
#[tokio::test(start_paused = true)]
async fn who_has_lost_its_lease_and_finds_its_successors_batch_raises_no_alarm() {
    let world = shared_world().await;
    put_everywhere(&world, 1, 0..20);
    let a = start(&world, "a");
    world.sleep(Duration::from_secs(5)).await;
    let row = world.row("s0").await;
    let (counter, owner) = (row.counter + 1, Some(WorkerId::new("b")));
    world.leases.replace(&LeaseRow { counter, owner, ..row }).await.unwrap();
    world.archive.overwrite("_manifests/s0/00000000.json", "the successor's");
    let summary = a.stop().await;
    assert!(summary.failures.is_empty(), "{summary:?}");
}

#[tokio::test(start_paused = true)]
async fn who_stops_in_the_middle_of_a_write_gives_the_lease_up() {
    let world = shared_world().await;
    put_everywhere(&world, 1, 0..20);
    let a = start(&world, "a");
    world.sleep(Duration::from_secs(5)).await;
    a.faults.mute_prepare.store(true, Ordering::SeqCst);
    a.shutdown.graceful.cancel();
    world.sleep(Duration::from_secs(1)).await;
    a.shutdown.abort.cancel();
    let summary = a.task.await.unwrap().unwrap();
    assert!(summary.failures.is_empty(), "{summary:?}");
    let row = world.row("s0").await;
    assert_eq!((row.owner, row.pending.is_some()), (None, true));
    let b = start(&world, "b");
    world.sleep(Duration::from_secs(5)).await;
    b.stop().await;
    assert_each_once(&world, 20).await;
}

/// Time is real here: what is tested is that a thread which is busy keeps no other from renewing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_renewed_while_its_task_is_busy() {
    let mut world = shared_world().await;
    world.settings.failover = Duration::from_millis(600);
    world.settings.poll = Duration::from_millis(50);
    world.settings.limits.max_records = 20;
    put_everywhere(&world, 1, 0..20);
    let a = start(&world, "a");
    a.faults.busy_puts.store(true, Ordering::SeqCst);
    world.sleep(Duration::from_millis(200)).await;
    let b = start(&world, "b");
    world.sleep(Duration::from_secs(4)).await;
    assert_eq!(owned(&world).await, [("s0".to_owned(), Some(WorkerId::new("a")))]);
    assert_eq!(world.manifests().await.len(), 1);
    for worker in [a, b] {
        worker.stop().await;
    }
}
