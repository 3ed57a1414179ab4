//! A large fleet: what it costs, and that it comes to rest.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::fleet::{Running, assert_even, put_everywhere, shared_world, start};

const SHARDS: usize = 200;
const WORKERS: usize = 20;

/// Every worker starts at once, as after an outage; five minutes later each has its ten leases, and keeps them. What
/// `docs/operations.md` says of the lease table's load is counted here.
#[tokio::test(start_paused = true)]
async fn twenty_workers_share_two_hundred_shards_and_then_rest() {
    let world = shared_world().await;
    put_everywhere(&world, SHARDS, 0..SHARDS);
    let names = (0..WORKERS).map(|number| &*format!("w{number}").leak());
    let workers: Vec<Running> = names.map(|name| start(&world, name)).collect();
    world.sleep(Duration::from_mins(5)).await;
    assert_even(&world, &workers.iter().collect::<Vec<_>>()).await;

    let count = || {
        let sum = |of: fn(&Running) -> u64| workers.iter().map(of).sum::<u64>() as usize;
        (
            sum(|worker| worker.faults.writes.load(Ordering::SeqCst)),
            sum(|worker| worker.faults.scans.load(Ordering::SeqCst)),
        )
    };
    let before = count();
    world.sleep(Duration::from_mins(2)).await;
    let (writes, scans) = (count().0 - before.0, count().1 - before.1);
    assert!((SHARDS * 34..SHARDS * 37).contains(&writes), "18 renewals a shard and minute: {writes}");
    assert!((WORKERS * 10..=WORKERS * 13).contains(&scans), "6 looks a worker and minute: {scans}");
    assert_even(&world, &workers.iter().collect::<Vec<_>>()).await;
    for worker in &workers {
        worker.shutdown.graceful.cancel();
    }
    for worker in workers {
        assert!(worker.stop().await.failures.is_empty());
    }
}
