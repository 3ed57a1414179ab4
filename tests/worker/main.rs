//! The real worker over in-memory ports: what it promises when the ports fail it.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

mod fleet;
mod lost_rows;
mod lost_shards;
mod pubsub;
mod scale;
mod settings;
mod spooled;
mod stops;
mod told;
mod world;

use std::sync::atomic::Ordering;
use std::time::Duration;

use auditlake::archive::ArchiveStore as _;
use auditlake::lease::LeaseStore as _;
use auditlake::source::{Checkpoint, ShardId};
use auditlake::worker::{CommitError, ShardError};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use world::{World, record, record_at};

async fn assert_each_once(world: &World, records: usize) {
    let archived = world.archived().await;
    assert_eq!(archived.len(), records);
    assert!(archived.values().all(|&times| times == 1), "{archived:?}");
    world.assert_proved().await;
    assert_eq!(world.totals.memory.load(Ordering::Relaxed), 0, "memory is accounted for");
    assert_eq!(world.totals.open_batches.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn shards_that_hold_the_same_records_are_archived_once() {
    let world = World::new().await;
    for shard in ["a", "b", "c"] {
        for id in 0..500 {
            world.put(shard, &record(id));
        }
    }
    let summary = world.catch_up().await;
    assert!(summary.failures.is_empty() && !summary.stopped);
    assert_eq!(world.totals.committed().counts.duplicates, 1000);
    assert_each_once(&world, 500).await;
    let before = world.totals.committed();
    world.catch_up().await;
    assert_eq!(world.totals.committed(), before, "there is nothing new");
}

/// So much text that it is decoded on other threads, which know nothing of the runtime that the claims' timer is of.
#[tokio::test(start_paused = true)]
async fn claims_that_are_waited_for_count_as_those_that_are_answered_at_once() {
    let world = World::new().await;
    for id in 0..100 {
        let mut record = record(id % 80);
        record["raw_details"] = json!({ "text": "x".repeat(20_000) });
        world.put("a", &record);
    }
    world.faults.slow_claims.store(true, Ordering::SeqCst);
    assert!(world.catch_up().await.failures.is_empty());
    assert_eq!(world.totals.committed().counts.duplicates, 20);
    assert_each_once(&world, 80).await;
}

#[tokio::test(start_paused = true)]
async fn a_child_is_read_only_after_both_parents_ends_are_committed() {
    let world = World::new().await;
    let [a, b, child] = ["a", "b", "child"].map(ShardId::new);
    world.source.add_shard(&a, vec![]);
    world.source.add_shard(&b, vec![]);
    world.source.add_shard(&child, vec![a.clone(), b.clone()]);
    for shard in ["a", "b", "child"] {
        world.put(shard, &record(shard));
    }
    world.source.end(&a);
    world.catch_up().await;
    assert_eq!(world.row("child").await.checkpoint, Checkpoint::TrimHorizon, "b goes on");
    world.source.end(&b);
    world.catch_up().await;
    assert!(world.row("a").await.ended && world.row("b").await.ended);
    assert_each_once(&world, 3).await;
    let manifests = world.manifests().await;
    assert!(manifests.iter().any(|manifest| manifest.shard == child && manifest.parents == [a.clone(), b.clone()]));
}

/// A shard of 20 records, of which the first ten were archived before the source forgot its oldest `trimmed`.
async fn caught_up_behind_a_trim(trimmed: usize) -> World {
    let world = World::new().await;
    for id in 0..10 {
        world.put("a", &record(id));
    }
    world.catch_up().await;
    for id in 10..20 {
        world.put("a", &record(id));
    }
    world.source.trim(&ShardId::new("a"), trimmed);
    world.catch_up().await;
    world
}

#[tokio::test(start_paused = true)]
async fn what_the_source_lost_is_a_gap_in_the_manifest() {
    let world = caught_up_behind_a_trim(15).await;
    let manifests = world.manifests().await;
    let gap = manifests[1].gap.as_ref().unwrap();
    assert_eq!(gap.after, manifests[0].range.through);
    assert_eq!(world.totals.committed().gaps, 1);
    assert_each_once(&world, 15).await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_nothing_stands_behind_is_told_at_once() {
    let world = caught_up_behind_a_trim(20).await;
    let manifests = world.manifests().await;
    let gap = manifests[1].gap.as_ref().unwrap();
    assert_eq!((&gap.after, manifests[1].counts.payloads), (&manifests[0].range.through, 0));
    assert_eq!(world.totals.committed().gaps, 1);
    // What comes later stands in a batch of its own, behind the gap.
    world.put("a", &record(20));
    world.catch_up().await;
    let last = world.manifests().await.pop().unwrap();
    assert_eq!(last.counts.payloads, 1);
    let archived = world.archived().await;
    assert_eq!(archived.len(), 11);
    let report = world.proof().await;
    assert!(report.is_intact() && !report.gaps.is_empty(), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_gone_before_its_end_was_archived_is_a_gap_told_once() {
    let mut world = World::new().await;
    world.put("gone", &record(1));
    world.put("done", &record(2));
    world.settings.concurrency = 1;
    // "done" is archived; the lease of "gone" is lost before anything of it is prepared.
    world.faults.steal_at.store(5, Ordering::Relaxed);
    world.catch_up().await;
    world.source = auditlake::source::memory::MemorySource::new();
    assert_eq!(world.totals.committed().gaps, 0);
    for _ in 0..2 {
        assert!(world.catch_up().await.failures.is_empty());
        assert_eq!(world.totals.committed().gaps, 1);
    }
    let gaps: Vec<_> = world.manifests().await.into_iter().filter(|manifest| manifest.gap.is_some()).collect();
    assert_eq!((gaps.len(), gaps[0].shard.as_str(), gaps[0].counts.payloads), (1, "gone", 0));
    let report = world.proof().await;
    assert!(report.is_intact() && report.gaps.len() == 1, "{report:#?}");
    // It comes back: nothing of it is passed over.
    world.put("gone", &record(1));
    world.catch_up().await;
    assert_each_once(&world, 2).await;
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_lost_change_nothing() {
    let mut world = World::new().await;
    world.settings.limits.max_records = 7;
    world.settings.concurrency = 1;
    for id in 0..100 {
        world.put("a", &record(id % 90));
    }
    world.faults.lost_writes.store(20, Ordering::Relaxed);
    world.faults.lost_puts.store(20, Ordering::Relaxed);
    let summary = world.catch_up().await;
    assert!(summary.failures.is_empty(), "{:?}", summary.failures);
    assert_each_once(&world, 90).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_lost_its_lease_changes_nothing_and_its_successor_finishes() {
    // Write 1 takes the lease, 2 prepares, 3 commits.
    for steal_at in [2, 3] {
        let world = World::new().await;
        for id in 0..10 {
            world.put("a", &record(id));
        }
        world.faults.steal_at.store(steal_at, Ordering::Relaxed);
        let summary = world.catch_up().await;
        let error = &summary.failures[0].error;
        assert!(matches!(error, ShardError::Commit(CommitError::Lease(_))), "{error}");
        let row = world.row("a").await;
        assert_eq!((row.checkpoint, row.batch_seq), (Checkpoint::TrimHorizon, 0));
        assert_eq!(row.pending.is_some(), steal_at == 3);
        assert!(world.proof().await.is_intact(), "a batch under way is no damage");
        world.put("a", &record(10));
        world.catch_up().await;
        assert_each_once(&world, 11).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_stands_under_a_batchs_key_and_is_not_of_it_stops_the_shard() {
    let world = World::new().await;
    for shard in ["a", "b"] {
        world.put(shard, &record(shard));
    }
    let key = "events/dt=2026-11-21/20261121T093000Z-a-00000000.ndjson";
    let elsewhere = World::new().await;
    elsewhere.put("a", &record("forged"));
    elsewhere.catch_up().await;
    let forged = elsewhere.archive.get(key).await.unwrap().unwrap();
    for (standing, words) in [
        (forged, format!("a: {key} stands in the archive already")),
        ("{\"log_id\":\"forged\"}\n".into(), format!("a: {key} row 0: missing field")),
    ] {
        world.leases.lose_all();
        world.archive.overwrite(key, standing.clone());
        let summary = world.catch_up().await;
        let [failure] = &summary.failures[..] else { panic!("{summary:?}") };
        let error = failure.to_string();
        assert!(error.starts_with(&words) && error.contains("move it out of the archive"), "{error}");
        assert_eq!(world.archive.get(key).await.unwrap().unwrap(), standing);
    }
    assert_eq!(world.row("b").await.batch_seq, 1, "the other shard is done");
    world.archive.remove(key);
    assert!(world.catch_up().await.failures.is_empty());
    assert_eq!(world.archived().await.len(), 2);
    assert!(world.proof().await.is_intact());
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_is_another_batchs_stops_the_shard() {
    let (world, elsewhere) = (World::new().await, World::new().await);
    let key = "_manifests/a/00000000.json";
    elsewhere.put("a", &record("another"));
    elsewhere.catch_up().await;
    let others = elsewhere.archive.get(key).await.unwrap().unwrap();
    world.put("a", &record("a"));
    *world.faults.refuse_puts.lock().unwrap() = Some(key.into());
    assert_eq!(world.catch_up().await.failures.len(), 1);
    *world.faults.refuse_puts.lock().unwrap() = None;
    for (standing, words) in [(others, "it describes another batch"), ("{}".into(), "missing field")] {
        world.archive.overwrite(key, standing.clone());
        let summary = world.catch_up().await;
        let [failure] = &summary.failures[..] else { panic!("{summary:?}") };
        let error = failure.to_string();
        assert!(error.starts_with(&format!("a: {key} stands")) && error.contains(words), "{error}");
        assert_eq!(world.archive.get(key).await.unwrap().unwrap(), standing);
        assert!(world.row("a").await.pending.is_some(), "the batch is not committed");
    }
    world.archive.remove(key);
    assert!(world.catch_up().await.failures.is_empty());
    assert_eq!(world.archived().await.len(), 1);
    assert!(world.proof().await.is_intact());
}

#[tokio::test(start_paused = true)]
async fn where_rejects_can_not_be_put_the_checkpoint_stays() {
    let world = World::new().await;
    world.put("a", &record(1));
    world.source.append(&ShardId::new("a"), "no JSON", world.now());
    *world.faults.refuse_puts.lock().unwrap() = Some("rejected/".into());
    assert_eq!(world.catch_up().await.failures.len(), 1);
    assert_eq!(world.row("a").await.checkpoint, Checkpoint::TrimHorizon);
    *world.faults.refuse_puts.lock().unwrap() = None;
    assert!(world.catch_up().await.failures.is_empty());
    assert_eq!(world.keys("rejected/").await.len(), 1);
    assert_each_once(&world, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_takes_up_what_a_layout_began_though_it_has_changed() {
    let mut world = World::new().await;
    world.put("a", &record(1));
    *world.faults.refuse_puts.lock().unwrap() = Some("events/".into());
    world.catch_up().await;
    assert!(world.row("a").await.pending.is_some());
    *world.faults.refuse_puts.lock().unwrap() = None;
    world.settings.layout.partition_by.clear();
    world.put("a", &record(2));
    world.catch_up().await;
    let keys = world.keys("events/").await;
    assert_eq!(
        keys,
        ["events/20261121T093000Z-a-00000001.ndjson", "events/dt=2026-11-21/20261121T093000Z-a-00000000.ndjson"]
    );
    assert_each_once(&world, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_table_is_made_anew_from_the_archive() {
    let mut world = World::new().await;
    for id in 0..10 {
        world.put("a", &record(id));
    }
    world.catch_up().await;
    world.leases = std::sync::Arc::new(auditlake::lease::memory::MemoryLeases::for_a_sole_worker());
    world.put("a", &record(10));
    world.catch_up().await;
    assert_eq!(world.row("a").await.batch_seq, 2);
    assert!(world.archived().await.values().all(|&times| times == 1));
    let report = world.proof().await;
    assert!(report.is_intact() && !report.tail_proved, "the row was made from what it should witness: {report:#?}");
}

#[tokio::test(start_paused = true)]
async fn no_batch_holds_more_records_than_it_may() {
    let mut world = World::new().await;
    world.settings.limits.max_records = 64;
    for id in 0..1000 {
        world.put("a", &record(id));
    }
    world.catch_up().await;
    let counts: Vec<u64> = world.manifests().await.iter().map(|manifest| manifest.counts.records).collect();
    assert_eq!(counts.len(), 16);
    assert!(counts[..15].iter().all(|&records| records == 64), "{counts:?}");
    assert_each_once(&world, 1000).await;
}

#[tokio::test(start_paused = true)]
async fn max_bytes_means_encoded_bytes_within_a_fifth() {
    let mut world = World::new().await;
    let max_bytes = 1 << 20;
    world.settings.limits.max_bytes = max_bytes;
    for id in 0..20_000 {
        world.put("a", &record(id));
    }
    world.catch_up().await;
    let manifests = world.manifests().await;
    assert!(manifests.len() > 5, "{}", manifests.len());
    for manifest in &manifests[..manifests.len() - 1] {
        let bytes: u64 = manifest.objects.iter().map(|object| object.bytes).sum();
        assert!(bytes.abs_diff(max_bytes) <= max_bytes / 5, "{bytes} of {max_bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backfill_over_four_hundred_dates_keeps_to_the_memory_it_may_use() {
    let mut world = World::new().await;
    world.settings.memory = 2 << 20;
    let first: Timestamp = "2025-10-01T00:00:00Z".parse().unwrap();
    for id in 0..8000_i64 {
        let day = first + SignedDuration::from_hours(24 * (id * 37 % 400));
        world.put("a", &record_at(id, &day.to_string()));
    }
    world.catch_up().await;
    let batches = world.totals.committed().batches;
    assert!(batches > 3, "{batches} batches: the largest is cut when memory is used up");
    assert_each_once(&world, 8000).await;
}

#[tokio::test(start_paused = true)]
async fn one_record_a_minute_for_a_day_gives_one_object_each_half_hour() {
    let world = World::new().await;
    let midnight: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
    for minute in 0..1440 {
        let arrival = midnight + SignedDuration::from_mins(minute);
        world.put_at("a", &record_at(minute, &arrival.to_string()), arrival);
    }
    world.catch_up().await;
    assert_eq!(world.keys("events/").await.len(), 48);
    assert_each_once(&world, 1440).await;
}

#[tokio::test(start_paused = true)]
async fn three_records_and_then_silence_are_archived_when_their_window_is_over() {
    let world = World::new().await;
    for id in 0..3 {
        world.put("a", &record(id));
    }
    world
        .run_while(async {
            world.sleep(Duration::from_mins(28)).await;
            assert!(world.keys("events/").await.is_empty(), "the window ends at 10:00");
            world.sleep(Duration::from_mins(2)).await;
            assert_eq!(world.keys("events/").await.len(), 1);
        })
        .await;
    assert_each_once(&world, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_for_yesterday_goes_to_its_own_partition_in_the_same_batch() {
    let world = World::new().await;
    world.put("a", &record_at(1, "2026-12-31T23:59:59.999Z"));
    world.put("a", &record_at(2, "2027-01-01T00:00:00Z"));
    world.catch_up().await;
    let keys = world.keys("events/").await;
    assert_eq!(keys.iter().map(|key| &key[7..20]).collect::<Vec<_>>(), ["dt=2026-12-31", "dt=2027-01-01"]);
    assert_eq!(world.manifests().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_commits_the_open_batch_and_gives_the_lease_up() {
    let world = World::new().await;
    world.put("a", &record(1));
    world.run_while(world.sleep(Duration::from_secs(5))).await;
    let row = world.row("a").await;
    assert_eq!((row.batch_seq, row.owner), (1, None));
    assert_each_once(&world, 1).await;
}

#[tokio::test(start_paused = true)]
async fn the_daemon_waits_for_an_archive_that_is_away_and_then_goes_on() {
    let mut world = World::new().await;
    world.settings.retry.give_up_after = None;
    world.settings.limits.max_records = 2;
    for id in 0..10 {
        world.put("a", &record(id));
    }
    *world.faults.refuse_puts.lock().unwrap() = Some("events/".into());
    world
        .run_while(async {
            world.sleep(Duration::from_mins(20)).await;
            assert_eq!(world.row("a").await.batch_seq, 0);
            *world.faults.refuse_puts.lock().unwrap() = None;
            world.sleep(Duration::from_mins(1)).await;
            assert_eq!(world.row("a").await.batch_seq, 5);
        })
        .await;
    assert_each_once(&world, 10).await;
}

#[tokio::test(start_paused = true)]
async fn the_daemon_finds_new_shards_and_starts_a_stopped_one_again() {
    let world = World::new().await;
    world.put("a", &record("a"));
    let key = "events/dt=2026-11-21/20261121T093000Z-a-00000000.ndjson";
    world.archive.put_if_absent(key, "{}\n".into()).await.unwrap();
    world
        .run_while(async {
            world.sleep(Duration::from_mins(31)).await;
            world.put("b", &record("b"));
            world.archive.remove(key);
            world.sleep(Duration::from_mins(40)).await;
        })
        .await;
    assert_each_once(&world, 2).await;
}

#[tokio::test(start_paused = true)]
async fn the_lease_row_says_at_what_a_shard_stopped_until_it_is_past_it() {
    let world = World::new().await;
    let lag = || world.totals.board.shown().lag(&ShardId::new("a"), world.now());
    world.put("a", &record(1));
    world.catch_up().await;
    let key = "events/dt=2026-11-21/20261121T093000Z-a-00000001.ndjson";
    world.archive.put_if_absent(key, "{}\n".into()).await.unwrap();
    world.put("a", &record(2));
    world
        .run_while(async {
            world.sleep(Duration::from_mins(31)).await;
            let row = world.row("a").await;
            let stop = row.stopped.unwrap();
            let behind = lag().unwrap();
            assert!(stop.error.contains(key) && stop.at < world.now() && row.owner.is_none(), "{stop:?}");
            world.sleep(Duration::from_mins(5)).await;
            let again = world.row("a").await.stopped.unwrap();
            assert!(again.at > stop.at && again.error == stop.error, "{again:?}");
            assert_eq!(lag(), Some(behind + Duration::from_mins(5)), "the worker that met the stop tells how it grows");
            assert_eq!(world.totals.board.shown().look.unwrap().unowned, 0, "it is known why nobody reads it");
            world.archive.remove(key);
            world.sleep(Duration::from_mins(10)).await;
            assert_eq!(world.row("a").await.stopped, None);
            assert!(world.totals.board.shown().stopped_through.is_empty());
        })
        .await;
    assert_each_once(&world, 2).await;
}

#[tokio::test(start_paused = true)]
async fn one_bad_record_costs_none_of_its_neighbours() {
    let world = World::new().await;
    for id in 0..1000 {
        let mut event = record(id);
        if id == 500 {
            event["emit_time"] = json!(1_793_577_600);
        }
        event["never_seen_before"] = json!({"id": id});
        world.put("a", &event);
    }
    world.catch_up().await;
    let committed = world.totals.committed();
    assert_eq!((committed.counts.archived, committed.counts.rejected), (999, 1));
    let key = &world.keys("rejected/").await[0];
    let reject = String::from_utf8(world.archive.get(key).await.unwrap().unwrap().to_vec()).unwrap();
    assert!(reject.contains("\"emit_time_invalid\"") && reject.contains("\"500/0/0\""), "{reject}");
    assert_each_once(&world, 999).await;
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_kept_beside_its_original_and_its_copies_are_dropped() {
    let world = World::new().await;
    let mut other = record(1);
    other["status"] = json!("PermissionDenied");
    for event in [record(1), other.clone(), other, record(1)] {
        world.put("a", &event);
    }
    world.catch_up().await;
    let counts = world.totals.committed().counts;
    assert_eq!((counts.archived, counts.conflicts, counts.duplicates), (2, 1, 2));
    world.assert_proved().await;
    assert_eq!(world.leases.list().await.unwrap().len(), 1);
}
