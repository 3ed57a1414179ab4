//! Shards that the source no longer has, and rows that say too little of them.

use std::sync::Arc;

use auditlake::lease::memory::MemoryLeases;
use auditlake::lease::{LeaseRow, LeaseStore as _};
use auditlake::source::memory::MemorySource;
use auditlake::source::{Checkpoint, Position, ShardId};

use super::assert_each_once;
use super::world::{World, record};

/// A world whose stream has forgotten the shard `p`, and has its child `q`.
async fn bereft_world() -> World {
    let world = World::new().await;
    world.source.add_shard(&ShardId::new("q"), vec![ShardId::new("p")]);
    world.put("q", &record("q"));
    world
}

async fn make_row(world: &World, row: LeaseRow) {
    world.leases.create(&row).await.unwrap();
}

async fn rebuild_leases(world: &mut World) {
    world.leases = Arc::new(MemoryLeases::for_a_sole_worker());
    for row in world.rows_from_the_archive().await.unwrap() {
        world.leases.create(&row).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_loss_that_was_half_written_down_is_finished_and_holds_up_no_child() {
    let world = bereft_world().await;
    make_row(&world, LeaseRow::new(ShardId::new("p"), vec![])).await;
    *world.faults.refuse_puts.lock().unwrap() = Some("_manifests/p/".into());
    assert_eq!(world.catch_up().await.failures.len(), 1);
    assert!(world.row("p").await.pending.is_some());
    *world.faults.refuse_puts.lock().unwrap() = None;
    let summary = world.catch_up().await;
    assert!(summary.failures.is_empty() && !summary.stopped, "{summary:?}");
    assert_eq!(world.totals.committed().gaps, 1);
    assert_each_once(&world, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_loss_that_the_archive_tells_of_holds_up_no_child_of_rows_made_anew() {
    let mut world = bereft_world().await;
    make_row(&world, LeaseRow::new(ShardId::new("p"), vec![])).await;
    assert!(!world.catch_up().await.stopped);
    rebuild_leases(&mut world).await;
    world.put("q", &record("later"));
    let summary = world.catch_up().await;
    assert!(summary.failures.is_empty() && !summary.stopped, "{summary:?}");
    assert_eq!((world.archived().await.len(), world.totals.committed().gaps), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_parent_of_which_rows_made_anew_know_no_end_is_lost_and_holds_up_no_child() {
    let mut world = World::new().await;
    world.put("p", &record("p"));
    world.catch_up().await;
    rebuild_leases(&mut world).await;
    let stream = bereft_world().await.source;
    let world = World { source: stream, ..world };
    let summary = world.catch_up().await;
    assert!(summary.failures.is_empty() && !summary.stopped, "{summary:?}");
    assert_eq!((world.archived().await.len(), world.totals.committed().gaps), (2, 1));
    assert!(world.proof().await.is_intact());
}

#[tokio::test(start_paused = true)]
async fn a_streams_shard_that_ended_and_went_unread_is_a_gap_though_it_was_caught_up_before() {
    let mut world = World::new().await;
    world.source = MemorySource::of_origin("stream@1");
    world.put("p", &record("p"));
    world.catch_up().await;
    // Nobody runs for longer than the stream keeps records: what came, and the shard's end, are gone.
    world.source = MemorySource::of_origin("stream@1");
    world.source.add_shard(&ShardId::new("q"), vec![ShardId::new("p")]);
    world.put("q", &record("q"));
    for _ in 0..2 {
        let summary = world.catch_up().await;
        assert!(summary.failures.is_empty() && !summary.stopped, "{summary:?}");
        assert_eq!(world.totals.committed().gaps, 1);
    }
    assert_eq!(world.archived().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_a_listing_does_not_know_yet_is_not_lost() {
    let mut world = World::new().await;
    world.leases = Arc::new(MemoryLeases::shared());
    world.put("p", &record("p"));
    make_row(&world, LeaseRow::new(ShardId::new("q"), vec![ShardId::new("p")])).await;
    world.catch_up().await;
    assert_eq!(world.totals.committed().gaps, 0);
    assert_eq!(world.row("q").await.batch_seq, 0);
}

#[tokio::test(start_paused = true)]
async fn the_ancestors_of_a_shard_that_was_taken_over_are_not_read_again() {
    let world = World::new().await;
    let [a, b, c] = ["a", "b", "c"].map(ShardId::new);
    world.source.add_shard(&a, vec![]);
    world.source.add_shard(&b, vec![a.clone()]);
    world.source.add_shard(&c, vec![b.clone()]);
    for shard in ["a", "b", "c", "c"] {
        world.put(shard, &record(shard));
    }
    world.source.end(&a);
    world.source.end(&b);
    // As `import-checkpoints` makes them: the other application had removed the rows of `a` and `b`.
    make_row(&world, LeaseRow { ended: true, ..LeaseRow::new(b.clone(), vec![]) }).await;
    let checkpoint = Checkpoint::Imported(Position::new(0));
    make_row(&world, LeaseRow { checkpoint, ..LeaseRow::new(c, vec![b]) }).await;
    world.catch_up().await;
    assert_eq!(world.archived().await.into_keys().collect::<Vec<_>>(), ["c"]);
}
