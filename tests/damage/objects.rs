//! `missing_object`, `altered_object`, `count_mismatch` and `duplicate_record`: what is wrong within a batch.

use auditlake::archive::manifest::Manifest;
use auditlake::digest::Digest;
use auditlake::verify::Kind;

use crate::world::{A, Archive, B, C, Row, World};

fn built() -> Archive {
    World::new().build()
}

#[tokio::test]
async fn a_deleted_object_is_missing() {
    for (root, shard, batch_seq) in [("events/", A, 0), ("events/", C, 2), ("rejected/", A, 1)] {
        let mut archive = built();
        let key = archive.data(root, shard, batch_seq).remove(0);
        archive.objects.remove(&key);
        archive.assert_only(Kind::MissingObject, &key).await;
    }
}

#[tokio::test]
async fn a_flipped_byte_a_cut_and_an_addition_alter_an_object() {
    let damages: [fn(&mut Vec<u8>); 5] = [
        |bytes| bytes[0] ^= 1,
        |bytes| *bytes.last_mut().unwrap() ^= 1,
        |bytes| bytes.truncate(bytes.len() / 2),
        Vec::clear,
        |bytes| bytes.push(b'\n'),
    ];
    for damage in damages {
        for root in ["events/", "rejected/"] {
            let mut archive = built();
            let key = archive.data(root, A, 1).remove(0);
            archive.edit(&key, damage);
            archive.assert_only(Kind::AlteredObject, &key).await;
        }
    }
}

#[tokio::test]
async fn a_changed_word_that_reads_as_well_alters_an_object() {
    for (root, shard, batch_seq) in [("events/", A, 0), ("events/", C, 1), ("rejected/", A, 1)] {
        let mut archive = built();
        let key = archive.data(root, shard, batch_seq).remove(0);
        archive.replace(&key, "\"version\":0", "\"version\":7");
        let detail = archive.assert_only(Kind::AlteredObject, &key).await;
        assert!(detail.starts_with("its SHA-256 is"), "{detail}");
    }
}

#[tokio::test]
async fn a_copied_conflict_is_a_duplicate_and_no_miscount() {
    let mut world = World::new();
    let conflict = world.batch(B, 1).events.iter().find(|row| row.conflict).unwrap().clone();
    world.batch(A, 1).events.push(conflict);
    world.batch(A, 1).forge = Box::new(|m| m.counts.conflicts = 0);
    let found = world.build().verify().await.findings;
    assert_eq!(found.iter().map(|f| f.kind).collect::<Vec<_>>(), [Kind::DuplicateRecord], "{found:#?}");
}

#[tokio::test]
async fn two_swapped_objects_are_both_altered() {
    let mut archive = built();
    let (one, two) = (archive.data("events/", A, 1).remove(0), archive.data("events/", A, 2).remove(0));
    let (first, second) = (archive.objects[&one].clone(), archive.objects[&two].clone());
    archive.objects.insert(one.clone(), second);
    archive.objects.insert(two.clone(), first);
    let found: Vec<_> = archive.verify().await.findings.into_iter().map(|f| (f.kind, f.key)).collect();
    assert_eq!(found, [(Kind::AlteredObject, one), (Kind::AlteredObject, two)]);
}

#[tokio::test]
async fn a_forgery_that_swaps_the_rows_of_two_batches_alters_both() {
    let mut world = World::new();
    let first = std::mem::take(&mut world.batch(A, 1).events);
    let second = std::mem::replace(&mut world.batch(A, 2).events, first);
    world.batch(A, 1).events = second;
    let archive = world.build();
    let found = archive.verify().await.findings;
    assert!(found.len() >= 2 && found.iter().all(|finding| finding.kind == Kind::AlteredObject), "{found:#?}");
    assert!(found[0].detail.contains("is outside shard-a (10/0, 20/0]"), "{found:#?}");
}

#[tokio::test]
async fn a_forged_row_of_another_shard_or_position_alters_its_object() {
    for (shard, sequence) in [("shard-b", 15), ("shard-a", 10), ("shard-a", 21)] {
        let mut world = World::new();
        let row = world.shards[A].row(11);
        let forged = Row { shard: shard.to_owned(), sequence, ..row };
        world.batch(A, 1).events.push(forged.clone());
        let key = world.build().data("events/", A, 1).remove(0);
        let detail = world.build().assert_only(Kind::AlteredObject, &key).await;
        assert!(detail.starts_with("1 of its rows"), "{detail}");

        let mut world = World::new();
        world.batch(A, 1).rejects.push(forged);
        let key = world.build().data("rejected/", A, 1).remove(0);
        world.build().assert_only(Kind::AlteredObject, &key).await;
    }
}

#[tokio::test]
async fn an_object_that_cannot_be_read_though_its_digest_is_right_is_altered() {
    let mut world = World::new();
    let archive = world.build();
    let key = archive.data("events/", B, 1).remove(0);
    let digest = Digest::of(b"not json\n");
    world.batch(B, 1).forge = Box::new(move |manifest| {
        (manifest.objects[0].sha256, manifest.objects[0].bytes) = (digest, 9);
    });
    let mut archive = world.build();
    archive.objects.insert(key.clone(), "not json\n".into());
    let detail = archive.assert_only(Kind::AlteredObject, &key).await;
    assert!(detail.contains("cannot be read: expected"), "{detail}");
}

/// Cuts the last row of a batch's object `n` and makes the manifest's digest and size agree.
fn cut_row(world: &mut World, shard: usize, batch_seq: usize, n: usize) -> (String, Vec<u8>) {
    let archive = world.build();
    let mut sorted =
        [archive.data("events/", shard, batch_seq as u64), archive.data("rejected/", shard, batch_seq as u64)].concat();
    let key = sorted.remove(n);
    let text = String::from_utf8(archive.objects[&key].to_vec()).unwrap();
    let cut: String =
        text.lines().rev().skip(1).collect::<Vec<_>>().into_iter().rev().flat_map(|l| [l, "\n"]).collect();
    let (digest, bytes) = (Digest::of(cut.as_bytes()), cut.len() as u64);
    world.batch(shard, batch_seq).forge = Box::new(move |manifest| {
        (manifest.objects[n].sha256, manifest.objects[n].bytes) = (digest, bytes);
    });
    (key, cut.into_bytes())
}

#[tokio::test]
async fn rows_that_were_cut_with_everything_rehashed_are_missed_by_the_count() {
    for (shard, batch_seq, n) in [(A, 0, 0), (A, 1, 0), (A, 1, 1), (C, 2, 0)] {
        let mut world = World::new();
        let (key, cut) = cut_row(&mut world, shard, batch_seq, n);
        let mut archive = world.build();
        archive.objects.insert(key.clone(), cut.into());
        archive.assert_only(Kind::CountMismatch, &key).await;
    }
}

#[tokio::test]
async fn numbers_of_a_manifest_that_contradict_one_another_are_a_count_mismatch() {
    type Forge = fn(&mut Manifest);
    let forgeries: [(&str, Forge); 6] = [
        ("records", |m| m.counts.records += 1),
        ("1 duplicate and", |m| m.counts.duplicates += 1),
        ("archived", |m| {
            m.counts.archived -= 1;
            m.counts.records -= 1;
        }),
        ("rejected", |m| {
            m.counts.rejected += 1;
            m.counts.records += 1;
        }),
        ("conflicts among", |m| m.counts.conflicts = 1000),
        ("conflicts, and of its rows 1 ", |m| m.counts.conflicts = 0),
    ];
    for (word, forge) in forgeries {
        let mut world = World::new();
        world.batch(B, 1).forge = Box::new(forge);
        let archive = world.build();
        let detail = archive.assert_only(Kind::CountMismatch, &archive.manifest(B, 1)).await;
        assert!(detail.contains(word), "{detail}");
    }
}

#[tokio::test]
async fn a_row_count_and_the_totals_that_were_lowered_with_the_rows_left_are_a_count_mismatch() {
    let mut world = World::new();
    world.batch(A, 0).forge = Box::new(|m| {
        m.objects[0].rows -= 1;
        m.counts.archived -= 1;
        m.counts.records -= 1;
    });
    let archive = world.build();
    archive.assert_only(Kind::CountMismatch, &archive.data("events/", A, 0)[0]).await;
}

#[tokio::test]
async fn times_in_a_manifest_that_are_not_its_rows_are_a_count_mismatch() {
    let mut world = World::new();
    world.batch(A, 0).forge = Box::new(|m| m.objects[0].max_emit_time = Some(m.window.start));
    let archive = world.build();
    archive.assert_only(Kind::CountMismatch, &archive.data("events/", A, 0)[0]).await;
}

#[tokio::test]
async fn a_record_copied_into_another_batch_of_its_shard_is_a_duplicate_where_it_does_not_belong() {
    for (from, to) in [(0, 2), (2, 0)] {
        let mut world = World::new();
        let row = world.batch(A, from).events[1].clone();
        world.batch(A, to).events.push(row.clone());
        let archive = world.build();
        let report = archive.verify().await;
        assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
        let finding = &report.findings[0];
        assert_eq!((finding.kind, finding.batch_seq), (Kind::DuplicateRecord, Some(to as u64)));
        assert!(finding.detail.contains(&format!("log_id {}, version 0", row.log_id.unwrap())), "{}", finding.detail);
    }
}

#[tokio::test]
async fn a_record_copied_into_another_shard_as_if_it_were_its_own_is_a_duplicate() {
    let mut world = World::new();
    let copied = world.shards[A].row(2);
    let copied = Row { shard: world.shards[C].name.clone(), sequence: 13, ..copied };
    world.batch(C, 1).events.push(copied);
    let archive = world.build();
    let report = archive.verify().await;
    let found: Vec<_> =
        report.findings.iter().map(|f| (f.kind, f.key.contains("shard-a") || f.key.contains("ccc"))).collect();
    assert_eq!(found, [(Kind::DuplicateRecord, true)], "{:#?}", report.findings);
}

#[tokio::test]
async fn a_record_twice_in_one_object_is_a_duplicate_with_a_log_id_without_and_with_the_note() {
    for pick in [|row: &Row| row.log_id.is_none(), |row: &Row| row.conflict, |row: &Row| row.sequence == 12] {
        let mut world = World::new();
        let row = world.batch(B, 1).events.iter().find(|row| pick(row)).unwrap().clone();
        world.batch(B, 1).events.push(row);
        let archive = world.build();
        let report = archive.verify().await;
        assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
        assert_eq!(report.findings[0].kind, Kind::DuplicateRecord);
        assert!(report.findings[0].detail.contains("more than once"), "{:#?}", report.findings);
    }
}

#[tokio::test]
async fn a_second_record_of_one_identity_without_the_note_is_a_duplicate() {
    let mut world = World::new();
    for row in &mut world.batch(B, 1).events {
        row.conflict = false;
    }
    let found = world.build().verify().await.findings;
    assert_eq!(found.iter().map(|f| f.kind).collect::<Vec<_>>(), [Kind::DuplicateRecord], "{found:#?}");
}

#[tokio::test]
async fn an_object_that_two_manifests_list_brings_its_records_twice() {
    let mut world = World::new();
    let archive = world.build();
    let first: Manifest = serde_json::from_slice(&archive.objects[&archive.manifest(A, 0)]).unwrap();
    let listed = first.objects[0].clone();
    let key = listed.key.clone();
    world.batch(A, 3).forge = Box::new(move |m| {
        m.counts.archived += listed.rows;
        m.counts.records += listed.rows;
        m.objects.push(listed.clone());
    });
    world.build().assert_only(Kind::DuplicateRecord, &key).await;
}
