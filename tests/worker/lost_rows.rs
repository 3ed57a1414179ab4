//! Lease rows and claims that are lost, or can't be read, under the hands of those who work by them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use auditlake::archive::ArchiveStore as _;
use auditlake::dedupe::memory::MemoryClaims;
use auditlake::encode::{Compression, PartitionKey};
use auditlake::lease::{LeaseRow, LeaseStore as _, WorkerId};
use auditlake::source::ShardId;
use auditlake::source::memory::MemorySource;
use auditlake::verify::rebuild;
use auditlake::worker::WorkerError;
use serde_json::json;

use super::assert_each_once;
use super::fleet::{put_everywhere, shared_world, start};
use super::world::{ARCHIVE_ID, World, record, record_at};

/// Longer than a lease lasts, and than a row that was made anew is left alone.
const LONG: Duration = Duration::from_mins(1);

const YESTERDAY: &str = "2026-11-20T23:59:59Z";
const TODAY: &str = "2026-11-21T09:31:00Z";

/// A worker dies in the middle of the commit of a batch of both days, when it can't put what begins with `missing`; then
/// every row is gone.
async fn robbed_in_the_middle_of_a_commit(world: &World, missing: &str) {
    for id in 0..10 {
        world.put("s", &record_at(format!("y{id}"), YESTERDAY));
        world.put("s", &record_at(format!("t{id}"), TODAY));
    }
    world.put("s", &json!("rejected"));
    let a = start(world, "a");
    *a.faults.refuse_puts.lock().unwrap() = Some(missing.into());
    world.sleep(Duration::from_mins(31)).await;
    assert!(world.row("s").await.pending.is_some(), "it is in the middle of it");
    a.kill().await;
    world.leases.lose_all();
}

/// Another worker goes on, and with more than the first one had.
async fn goes_on(world: &World, records: usize) {
    for id in 0..10 {
        world.put("s", &record_at(format!("more{id}"), TODAY));
    }
    let b = start(world, "b");
    world.sleep(LONG).await;
    let summary = b.stop().await;
    assert!(summary.failures.is_empty(), "{summary:?}");
    assert_each_once_of_a_lost_row(world, records).await;
}

/// That the tail is not proved is what a row that was made anew is known by.
async fn assert_each_once_of_a_lost_row(world: &World, records: usize) {
    let archived = world.archived().await;
    assert!(archived.values().all(|&times| times == 1), "{archived:?}");
    assert_eq!(archived.len(), records);
    let report = world.proof().await;
    assert!(report.is_intact() && !report.tail_proved, "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn objects_of_a_batch_whose_row_was_lost_are_taken_up_by_the_next() {
    for missing in ["_manifests/", "events/dt=2026-11-21", "rejected/"] {
        let world = shared_world().await;
        robbed_in_the_middle_of_a_commit(&world, missing).await;
        assert!(world.manifests().await.is_empty());
        goes_on(&world, 30).await;
        assert_eq!(world.keys("rejected/").await.len(), 1, "without {missing}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_behind_a_batch_that_is_committed() {
    let world = shared_world().await;
    put_everywhere(&world, 1, 0..10);
    world.put("s", &record("first"));
    world.catch_up().await;
    robbed_in_the_middle_of_a_commit(&world, "_manifests/").await;
    goes_on(&world, 41).await;
}

#[tokio::test(start_paused = true)]
async fn what_stands_is_taken_up_in_the_layout_it_was_put_in() {
    let mut world = shared_world().await;
    robbed_in_the_middle_of_a_commit(&world, "_manifests/").await;
    world.settings.layout.compression = Compression::Gzip;
    world.settings.layout.partition_by = vec![PartitionKey::Dt, PartitionKey::Hour];
    let b = start(&world, "b");
    world.sleep(LONG).await;
    assert!(b.stop().await.failures.is_empty());
    assert_each_once_of_a_lost_row(&world, 20).await;
}

#[tokio::test(start_paused = true)]
async fn what_stands_and_is_not_of_the_shards_stops_it_and_no_other() {
    let world = shared_world().await;
    robbed_in_the_middle_of_a_commit(&world, "rejected/").await;
    let key = world.keys("events/").await.remove(0);
    world.archive.overwrite(&key, "{}");
    world.put("other", &record("other"));
    let b = start(&world, "b");
    world.sleep(LONG).await;
    b.stop().await;
    assert!(world.leases.get(&ShardId::new("s")).await.unwrap().is_none(), "nothing says where it goes on");
    assert_eq!(world.archived_in("other").await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_stands_and_holds_other_records_is_moved_away_and_the_batch_goes_on() {
    let elsewhere = shared_world().await;
    for id in 0..10 {
        elsewhere.put("s", &record_at(format!("forged{id}"), YESTERDAY));
        elsewhere.put("s", &record_at(format!("t{id}"), TODAY));
    }
    elsewhere.catch_up().await;
    let world = shared_world().await;
    robbed_in_the_middle_of_a_commit(&world, "_manifests/").await;
    let key = world.keys("events/dt=2026-11-20").await.remove(0);
    world.archive.overwrite(&key, elsewhere.archive.get(&key).await.unwrap().unwrap());
    for _ in 0..2 {
        let summary = world.catch_up().await;
        let [failure] = &summary.failures[..] else { panic!("{summary:?}") };
        assert!(failure.to_string().starts_with(&format!("s: {key} stands in the archive already")), "{failure}");
    }
    world.archive.remove(&key);
    goes_on(&world, 30).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_source_no_longer_has_stops_the_shard_and_says_which_objects_stand() {
    let world = shared_world().await;
    robbed_in_the_middle_of_a_commit(&world, "_manifests/").await;
    world.source.trim(&ShardId::new("s"), 21);
    let mut worker = world.settings.clone();
    worker.failover = Duration::from_secs(1);
    let shards = auditlake::source::Source::shards(&world.source).await.unwrap();
    let summary = world.worker_with(&world.faults, &world.shutdown, worker).catch_up(shards).await.unwrap();
    let [failure] = &summary.failures[..] else { panic!("{summary:?}") };
    assert!(failure.error.to_string().contains("whose names have s-00000000 in them"), "{failure}");
}

/// The claims are lost with the rows. A batch under way had left out what another shard had brought first, and of that
/// nothing is in the archive yet: it is archived from there, and stays out of the objects that stand.
#[tokio::test(start_paused = true)]
async fn what_a_batch_under_way_had_left_out_is_archived_where_it_came_first() {
    let mut world = shared_world().await;
    let both: Vec<_> = (0..5).map(|id| record_at(format!("both{id}"), YESTERDAY)).collect();
    let a = start(&world, "a");
    *a.faults.refuse_puts.lock().unwrap() = Some("_manifests/".into());
    *a.faults.refuse_puts_with.lock().unwrap() = Some("-other-".into());
    world.put("s", &record_at("before", YESTERDAY));
    for record in &both {
        world.put("other", record);
    }
    world.sleep(Duration::from_mins(1)).await;
    for record in &both {
        world.put("s", record);
    }
    world.put("s", &record_at("behind", YESTERDAY));
    world.sleep(Duration::from_mins(31)).await;
    a.kill().await;
    let [standing] = &world.keys("events/").await[..] else { panic!("only the other shard's object stands") };
    assert!(standing.contains("-s-"), "{standing}");
    world.leases.lose_all();
    world.claims = Arc::new(MemoryClaims::new());
    let (archive, mut quietly) = (world.archive.as_ref(), |_| ());
    let done = rebuild::claims(archive, ARCHIVE_ID, world.claims.as_ref(), world.now(), &mut quietly).await.unwrap();
    assert_eq!(done.records, 2, "the shard's own");

    // Another worker keeps the lease of the other shard to itself, so what had been left out comes from here first. Whoever
    // takes this one up dies when the batch is prepared: what stood is known still.
    let other = ShardId::new("other");
    let mut held = LeaseRow { owner: Some(WorkerId::new("idle")), ..LeaseRow::new(other, Vec::new()) };
    world.leases.create(&held).await.unwrap();
    let b = start(&world, "b");
    *b.faults.refuse_puts.lock().unwrap() = Some("_manifests/".into());
    for _ in 0..30 {
        held.counter += 1;
        world.leases.replace(&held).await.unwrap();
        world.sleep(Duration::from_secs(2)).await;
    }
    assert!(world.row("s").await.pending.is_some(), "it is in the middle of it");
    b.kill().await;
    let c = start(&world, "c");
    world.sleep(Duration::from_mins(31)).await;
    let summary = c.stop().await;
    assert!(summary.failures.is_empty(), "{summary:?}");
    assert_each_once_of_a_lost_row(&world, 7).await;
    assert_eq!((world.archived_in("other").await, world.archived_in("s").await), (5, 2));
}

/// The claims are lost as well: those of the records that stand are made anew from the objects, under way or not.
#[tokio::test(start_paused = true)]
async fn records_of_a_batch_under_way_are_known_to_claims_that_were_made_anew() {
    let mut world = shared_world().await;
    robbed_in_the_middle_of_a_commit(&world, "_manifests/").await;
    world.claims = Arc::new(MemoryClaims::new());
    let (archive, mut quietly) = (world.archive.as_ref(), |_| ());
    let done = rebuild::claims(archive, ARCHIVE_ID, world.claims.as_ref(), world.now(), &mut quietly).await.unwrap();
    assert_eq!(done.records, 20);
    for id in 0..10 {
        world.put("a", &record_at(format!("y{id}"), YESTERDAY));
    }
    goes_on(&world, 30).await;
    assert_eq!(world.archived_in("a").await, 0, "copies");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_was_made_anew_is_left_alone_for_as_long_as_a_lease_lasts() {
    let world = shared_world().await;
    put_everywhere(&world, 2, 0..20);
    let a = start(&world, "a");
    world.sleep(LONG).await;
    a.shutdown.graceful.cancel();
    world.sleep(LONG).await;
    world.leases.lose_all();
    let b = start(&world, "b");
    world.sleep(Duration::from_secs(9)).await;
    assert!(world.leases.list().await.unwrap().iter().all(|row| row.owner.is_none()), "somebody may still be at work");
    world.sleep(LONG).await;
    assert!(world.leases.list().await.unwrap().iter().all(|row| row.owner.is_some()));
    b.stop().await;
}

/// What it puts by then is the batch that the new row's owner goes on from, or takes up.
#[tokio::test(start_paused = true)]
async fn who_goes_on_for_a_moment_after_its_row_was_made_anew_holds_up_nobody() {
    for missing in ["", "_manifests/s/00000001"] {
        let world = shared_world().await;
        world.put("s", &record("first"));
        world.catch_up().await;
        robbed_in_the_middle_of_a_commit(&world, "events/").await;
        let b = start(&world, "b");
        world.sleep(Duration::from_secs(3)).await;
        assert!(world.row("s").await.is_untouched());
        // Another world, in which the first one's worker did it all, tells what it would have put.
        let other = shared_world().await;
        other.put("s", &record("first"));
        other.catch_up().await;
        *other.faults.refuse_puts.lock().unwrap() = Some(missing.into()).filter(|missing: &String| !missing.is_empty());
        for id in 0..10 {
            other.put("s", &record_at(format!("y{id}"), YESTERDAY));
            other.put("s", &record_at(format!("t{id}"), TODAY));
        }
        other.put("s", &json!("rejected"));
        other.catch_up().await;
        for key in other.keys("").await.into_iter().filter(|key| key.contains("00000001")) {
            world.archive.overwrite(&key, other.archive.get(&key).await.unwrap().unwrap());
        }
        for id in 0..10 {
            world.put("s", &record_at(format!("more{id}"), TODAY));
        }
        world.sleep(LONG).await;
        let summary = b.stop().await;
        assert!(summary.failures.is_empty(), "{summary:?}");
        assert_each_once_of_a_lost_row(&world, 31).await;
    }
}

/// Somebody who did not look may take it in the moment in which it is to be removed.
#[tokio::test(start_paused = true)]
async fn a_row_that_is_behind_the_archive_is_removed_only_as_it_was_seen() {
    for is_taken in [false, true] {
        let world = shared_world().await;
        world.put("s", &record("first"));
        world.catch_up().await;
        let shard = ShardId::new("s");
        world.leases.lose_all();
        world.leases.create(&LeaseRow::new(shard.clone(), Vec::new())).await.unwrap();
        let b = start(&world, "b");
        b.faults.steal_removed.store(is_taken, Ordering::SeqCst);
        world.sleep(Duration::from_secs(3)).await;
        assert!(!b.faults.steal_removed.load(Ordering::SeqCst), "nobody tried to remove it");
        let standing = world.leases.get(&shard).await.unwrap();
        let owner = standing.as_ref().and_then(|row| row.owner.clone());
        assert_eq!(owner, is_taken.then(|| WorkerId::new("thief")), "{standing:?}");
        b.stop().await;
    }
}

/// Nothing tells that its row was lost but the manifests of shards that the source no longer has.
#[tokio::test(start_paused = true)]
async fn the_row_of_a_shard_without_manifests_is_made_anew_with_those_of_its_ancestors_gone() {
    let mut world = shared_world().await;
    world.put("p", &record("p"));
    world.source.end(&ShardId::new("p"));
    world.catch_up().await;
    world.source = MemorySource::new();
    world.source.add_shard(&ShardId::new("q"), vec![ShardId::new("p")]);
    world.leases.lose_all();
    let b = start(&world, "b");
    world.sleep(Duration::from_secs(3)).await;
    assert!(world.row("q").await.is_untouched(), "somebody may be in the middle of its first batch");
    b.stop().await;
}

/// No row that is made anew has the counter that somebody remembers.
#[tokio::test(start_paused = true)]
async fn who_slept_while_its_row_was_lost_changes_nothing_of_the_new_one() {
    let world = shared_world().await;
    put_everywhere(&world, 1, 0..20);
    let a = start(&world, "a");
    world.sleep(LONG).await;
    let remembered = world.row("s0").await;
    a.kill().await;
    for _ in 0..20 {
        world.leases.lose_all();
        let b = start(&world, "b");
        world.sleep(LONG).await;
        let standing = world.row("s0").await;
        assert!(standing.counter.abs_diff(remembered.counter) > 100, "{standing:?}");
        b.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_its_lease_table_a_worker_ends_with_an_error_that_says_so() {
    let world = shared_world().await;
    put_everywhere(&world, 2, 0..20);
    let a = start(&world, "a");
    world.sleep(LONG).await;
    a.faults.no_lease_table.store(true, Ordering::SeqCst);
    world.sleep(LONG).await;
    assert!(a.task.is_finished(), "it goes on without");
    let error = a.task.await.unwrap().unwrap_err();
    assert!(matches!(&error, WorkerError::StateLost(reason) if reason.contains("no table")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn who_counts_by_claims_that_count_no_more_ends_and_commits_nothing() {
    // Found out before the lease is taken, before the batch is prepared, and when all of it but the commit is done.
    for flush in [1, 2, 3] {
        let world = shared_world().await;
        put_everywhere(&world, 1, 0..20);
        let a = start(&world, "a");
        a.faults.claims_lost_at.store(flush, Ordering::SeqCst);
        world.sleep(Duration::from_mins(31)).await;
        let error = a.task.await.unwrap().unwrap_err();
        assert!(matches!(&error, WorkerError::StateLost(reason) if reason.contains("others count")), "{error}");
        let row = world.row("s0").await;
        assert_eq!((row.batch_seq, row.pending.is_some(), row.owner), (0, flush == 3, None));
        let b = start(&world, "b");
        world.sleep(Duration::from_mins(31)).await;
        b.stop().await;
        assert_each_once(&world, 20).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_can_not_be_read_holds_up_no_other_shard() {
    let world = shared_world().await;
    put_everywhere(&world, 3, 0..30);
    let a = start(&world, "a");
    world.sleep(LONG).await;
    a.stop().await;
    let before = world.row("s1").await;
    put_everywhere(&world, 3, 30..60);
    let b = start(&world, "b");
    *b.faults.damaged_row.lock().unwrap() = Some(ShardId::new("s1"));
    world.sleep(Duration::from_mins(31)).await;
    assert_eq!(world.row("s1").await, before, "it is left as it is");
    assert_eq!(world.archived().await.len(), 50);
    *b.faults.damaged_row.lock().unwrap() = None;
    world.sleep(Duration::from_mins(31)).await;
    b.stop().await;
    assert_each_once(&world, 60).await;
}
