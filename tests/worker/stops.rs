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
