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

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_given_up_and_taken_before_that_is_known_is_no_failure() {
    let world = shared_world().await;
    put_everywhere(&world, 1, 0..20);
    world.faults.steal_released.store(true, Ordering::SeqCst);
    let summary = world.catch_up().await;
    assert!(summary.failures.is_empty() && !summary.stopped, "{summary:?}");
    assert_each_once(&world, 20).await;
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
