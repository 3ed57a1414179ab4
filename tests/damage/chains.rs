//! `missing_manifest`, `truncated_tail`, `broken_chain`, `range_gap` and `range_overlap`: what is wrong between batches.

use auditlake::archive::manifest::Manifest;
use auditlake::digest::Digest;
use auditlake::lease::LeaseRow;
use auditlake::source::{Checkpoint, Position};
use auditlake::verify::Kind;
use uuid::Uuid;

use crate::world::{A, Archive, B, C, World, checkpoint};

fn built() -> Archive {
    World::new().build()
}

#[tokio::test]
async fn a_deleted_manifest_within_the_chain_is_missing() {
    for (shard, batch_seq) in [(A, 0), (A, 1), (A, 2), (B, 0), (C, 1)] {
        let mut archive = built();
        let key = archive.manifest(shard, batch_seq);
        archive.objects.remove(&key);
        archive.assert_only(Kind::MissingManifest, &key).await;
    }
}

#[tokio::test]
async fn several_deleted_manifests_in_a_row_are_one_finding() {
    let mut archive = built();
    let (first, second) = (archive.manifest(A, 1), archive.manifest(A, 2));
    archive.objects.remove(&first);
    archive.objects.remove(&second);
    let detail = archive.assert_only(Kind::MissingManifest, &first).await;
    assert!(detail.starts_with("manifests 1 to 2 are missing"), "{detail}");
}

#[tokio::test]
async fn a_deleted_newest_manifest_is_a_truncated_tail_and_its_objects_are_not_unlisted() {
    for (shard, batch_seq) in [(A, 3), (B, 1), (C, 2)] {
        let mut archive = built();
        let key = archive.manifest(shard, batch_seq);
        archive.objects.remove(&key);
        archive.assert_only(Kind::TruncatedTail, &key).await;
    }
}

#[tokio::test]
async fn a_batch_taken_away_with_all_its_objects_is_a_truncated_tail() {
    let mut archive = built();
    let key = archive.manifest(C, 2);
    for gone in archive.data("events/", C, 2).into_iter().chain([key.clone()]) {
        archive.objects.remove(&gone);
    }
    archive.assert_only(Kind::TruncatedTail, &key).await;
}

#[tokio::test]
async fn all_manifests_of_a_shard_deleted_are_one_truncated_tail() {
    for shard in [A, C] {
        let mut archive = built();
        for batch_seq in 0..archive.rows[shard].batch_seq {
            let key = archive.manifest(shard, batch_seq);
            archive.objects.remove(&key);
        }
        archive.assert_only(Kind::TruncatedTail, &archive.manifest(shard, 0)).await;
    }
}

#[tokio::test]
async fn without_lease_rows_a_deleted_newest_manifest_is_shown_by_its_objects() {
    let mut world = World::new();
    world.shards[C].pending = false;
    for (shard, newest) in [(C, 3), (B, 1)] {
        let mut archive = world.build();
        let key = archive.manifest(shard, newest);
        archive.objects.remove(&key);
        archive.assert_only_without_leases(Kind::TruncatedTail, &key).await;
    }
}

#[tokio::test]
async fn an_edited_manifest_breaks_the_chain_and_nothing_follows_from_it() {
    for (shard, batch_seq) in [(A, 0), (A, 1), (A, 3), (B, 1), (C, 2)] {
        for (from, to) in [
            ("\"writer\": \"test\"", "\"writer\": \"evil\""),
            ("\"payloads\": 1", "\"payloads\": 2"),
            ("\"records\": ", "\"records\": 9"),
            ("\"through\": {\n    \"sequence\": \"", "\"through\": {\n    \"sequence\": \"7"),
            ("\"objects\": [", "\"objects\": [ "),
            ("\"shard_end\"", "\"shard_end\" "),
            ("\n}\n", "\n}"),
        ] {
            let mut archive = built();
            let key = archive.manifest(shard, batch_seq);
            archive.replace(&key, from, to);
            archive.assert_only(Kind::BrokenChain, &key).await;
        }
    }
}

#[tokio::test]
async fn a_manifest_that_lists_another_object_now_breaks_the_chain_only() {
    let mut archive = built();
    let key = archive.manifest(A, 1);
    let listed = archive.data("events/", A, 1).remove(0);
    archive.replace(&key, &listed, "events/dt=2026-11-21/elsewhere.ndjson");
    archive.assert_only(Kind::BrokenChain, &key).await;
}

#[tokio::test]
async fn an_edited_predecessor_is_the_editeds_fault_and_not_the_predecessors() {
    for batch_seq in [1, 3] {
        let mut archive = built();
        let key = archive.manifest(A, batch_seq);
        let previous = Digest::of(&archive.objects[&archive.manifest(A, batch_seq - 1)]).to_string();
        archive.replace(&key, &previous, &Digest::of(b"forged").to_string());
        archive.assert_only(Kind::BrokenChain, &key).await;
    }
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_breaks_the_chain_with_the_reason() {
    for (batch_seq, damage) in [(0, ""), (1, "{}"), (3, "not json")] {
        let mut archive = built();
        let key = archive.manifest(A, batch_seq);
        archive.objects.insert(key.clone(), damage.into());
        let detail = archive.assert_only(Kind::BrokenChain, &key).await;
        assert!(detail.contains("cannot be read as a manifest: "), "{detail}");
    }
}

/// Forgeries that are consistent: every digest is right.
fn forged(shard: usize, batch_seq: usize, forge: impl Fn(&mut Manifest) + 'static) -> (Archive, String) {
    let mut world = World::new();
    world.batch(shard, batch_seq).forge = Box::new(forge);
    let archive = world.build();
    let key = archive.manifest(shard, batch_seq as u64);
    (archive, key)
}

#[tokio::test]
async fn a_manifest_of_another_archive_shard_or_batch_breaks_the_chain() {
    let (archive, key) = forged(A, 1, |m| m.archive_id = Uuid::nil());
    let detail = archive.assert_only(Kind::BrokenChain, &key).await;
    assert!(detail.contains("belongs to the archive 00000000"), "{detail}");
    let (archive, key) = forged(A, 1, |m| m.shard = auditlake::source::ShardId::new("x"));
    archive.assert_only(Kind::BrokenChain, &key).await;
    let (archive, key) = forged(A, 1, |m| m.batch_seq = 7);
    archive.assert_only(Kind::BrokenChain, &key).await;
}

#[tokio::test]
async fn manifests_that_name_no_predecessor_or_one_too_many_break_the_chain() {
    let (archive, key) = forged(A, 1, |m| m.previous = None);
    archive.assert_only(Kind::BrokenChain, &key).await;
    let (archive, key) = forged(A, 0, |m| m.previous = Some(Digest::of(b"")));
    archive.assert_only(Kind::BrokenChain, &key).await;
}

#[tokio::test]
async fn an_archive_under_another_identity_is_one_finding_a_shard() {
    let mut archive = built();
    archive.replace("_auditlake.json", "00a0d1", "00beef");
    let found = archive.verify().await.findings;
    let expected: Vec<_> = [A, B, C].map(|shard| (Kind::BrokenChain, archive.manifest(shard, 0))).into();
    let mut found: Vec<_> = found.into_iter().map(|f| (f.kind, f.key)).collect();
    found.sort_by_key(|(_, key)| expected.iter().position(|(_, k)| k == key));
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_chain_rewritten_without_its_lease_row_is_broken_at_its_head() {
    let mut world = World::new();
    world.batch(C, 0).forge = Box::new(|m| m.writer = "evil".to_owned());
    let mut archive = world.build();
    archive.rows = built().rows;
    archive.rows_after = archive.rows.clone();
    archive.assert_only(Kind::BrokenChain, &archive.manifest(C, 2)).await;
}

#[tokio::test]
async fn an_omitted_range_with_everything_rehashed_is_a_gap() {
    let mut world = World::new();
    world.shards[A].batches.remove(1);
    let archive = world.build();
    let detail = archive.assert_only(Kind::RangeGap, &archive.manifest(A, 1)).await;
    assert_eq!(detail, "batch 0 ends at 10/0, it begins after 20/0");
}

#[tokio::test]
async fn a_shortened_range_with_everything_rehashed_is_a_gap_behind_it() {
    let mut world = World::new();
    world.batch(C, 0).through = Some(8);
    world.batch(C, 0).events.retain(|row| row.sequence <= 8);
    let archive = world.build();
    archive.assert_only(Kind::RangeGap, &archive.manifest(C, 1)).await;
}

#[tokio::test]
async fn a_range_that_begins_before_the_last_one_ended_overlaps() {
    for after in [Some(8), None] {
        let mut world = World::new();
        world.batch(A, 1).after = after;
        let archive = world.build();
        archive.assert_only(Kind::RangeOverlap, &archive.manifest(A, 1)).await;
    }
}

#[tokio::test]
async fn a_range_that_runs_backwards_overlaps() {
    let mut world = World::new();
    (world.batch(A, 3).after, world.batch(A, 3).through) = (Some(30), Some(29));
    let archive = world.build();
    archive.assert_only(Kind::RangeOverlap, &archive.manifest(A, 3)).await;
}

#[tokio::test]
async fn another_payload_at_the_place_of_a_checkpoint_breaks_the_chain() {
    let (archive, key) = forged(A, 1, |m| {
        m.range.after = Checkpoint::at(Position::new(10), b"another");
    });
    archive.assert_only(Kind::BrokenChain, &key).await;
}

#[tokio::test]
async fn a_lease_row_that_has_read_further_or_less_far_than_the_archive_is_a_gap_or_an_overlap() {
    for (read, kind) in [(35, Kind::RangeGap), (25, Kind::RangeOverlap)] {
        let mut archive = built();
        archive.rows[A].checkpoint = checkpoint(Some(read));
        archive.rows_after = archive.rows.clone();
        archive.assert_only(kind, &archive.manifest(A, 3)).await;
    }
}

#[tokio::test]
async fn a_batch_behind_the_shards_end_breaks_the_chain() {
    let mut world = World::new();
    world.batch(A, 1).shard_end = true;
    let archive = world.build();
    archive.assert_only(Kind::BrokenChain, &archive.manifest(A, 2)).await;
}

#[tokio::test]
async fn a_child_read_before_each_of_its_parents_ended_is_a_gap() {
    for (parent, newest) in [(A, 3), (B, 1)] {
        let mut world = World::new();
        world.batch(parent, newest).shard_end = false;
        let archive = world.build();
        let detail = archive.assert_only(Kind::RangeGap, &archive.manifest(C, 0)).await;
        assert!(detail.contains(&world.shards[parent].name), "{detail}");
    }
}

#[tokio::test]
async fn a_parent_that_the_archive_never_knew_is_no_finding() {
    let mut world = World::new();
    world.shards.remove(A);
    assert_eq!(world.build().verify().await.findings, []);
}

#[tokio::test]
async fn a_child_vouches_for_the_end_of_a_parent_whose_row_is_gone() {
    let mut archive = built();
    let is_parent =
        |row: &LeaseRow| [archive.rows[A].shard.clone(), archive.rows[B].shard.clone()].contains(&row.shard);
    let rows: Vec<LeaseRow> = archive.rows.iter().filter(|row| !is_parent(row)).cloned().collect();
    let (last, keys) =
        (archive.manifest(A, 3), [archive.data("events/", A, 3), archive.data("rejected/", A, 3)].concat());
    (archive.rows, archive.rows_after) = (rows.clone(), rows);
    let report = archive.verify().await;
    assert!(report.findings.is_empty() && report.tail_proved, "{report:#?}");

    let mut forged = archive.clone();
    forged.edit(&last, |bytes| bytes.push(b' '));
    forged.assert_only(Kind::BrokenChain, &last).await;

    archive.objects.remove(&last);
    archive.objects.retain(|key, _| !keys.contains(key));
    archive.assert_only(Kind::TruncatedTail, &last).await;
}
