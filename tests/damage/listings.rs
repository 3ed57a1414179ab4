//! `unlisted_object`: what was put in by somebody else.

use auditlake::encode::keys;
use auditlake::verify::Kind;

use crate::world::{A, Archive, B, C, World};

fn built() -> Archive {
    World::new().build()
}

fn named_like(archive: &Archive, shard: usize, batch_seq: u64) -> String {
    let folder = keys::encode_shard(&archive.rows[shard].shard);
    format!("events/dt=2026-11-25/20261125T093000Z-{folder}-{batch_seq:08}.ndjson")
}

#[tokio::test]
async fn a_rogue_object_is_unlisted_whatever_it_is_called() {
    let archive = built();
    let folder = keys::encode_shard(&archive.rows[C].shard);
    for key in [
        "events/rogue.parquet",
        "events/dt=2026-11-21/rogue.parquet",
        "rejected/dt=2026-11-21/x",
        "holiday.jpg",
        "events/dt=2026-11-21/20261121T093000Z-nobody-00000000.ndjson",
        &named_like(&archive, A, 0),
        &named_like(&archive, C, 2),
        &named_like(&archive, B, 2),
        &named_like(&archive, C, 4),
        "_manifests/readme.txt",
        &format!("_manifests/{folder}/0.json"),
    ] {
        let mut archive = archive.clone();
        archive.objects.insert(key.to_owned(), "rogue".into());
        archive.assert_only(Kind::UnlistedObject, key).await;
    }
}

#[tokio::test]
async fn without_lease_rows_a_rogue_object_is_unlisted_just_the_same() {
    let mut archive = built();
    for key in archive.data("events/", C, 3) {
        archive.objects.remove(&key);
    }
    for key in ["events/rogue.parquet".to_owned(), named_like(&archive, A, 0)] {
        let mut archive = archive.clone();
        archive.objects.insert(key.clone(), "rogue".into());
        archive.assert_only_without_leases(Kind::UnlistedObject, &key).await;
    }
}

#[tokio::test]
async fn a_rogue_manifest_beyond_the_head_is_unlisted_with_its_objects() {
    let good = built();
    for (shard, batch_seq) in [(A, 4), (A, 9), (C, 4), (B, 2)] {
        let mut archive = good.clone();
        let key = archive.manifest(shard, batch_seq);
        let newest = archive.manifest(shard, archive.rows[shard].batch_seq - 1);
        archive.objects.insert(key.clone(), archive.objects[&newest].clone());
        archive.objects.insert(named_like(&archive, shard, batch_seq), "rogue".into());
        archive.assert_only(Kind::UnlistedObject, &key).await;
    }
}

#[tokio::test]
async fn a_forged_manifest_for_the_pending_batch_breaks_the_chain() {
    let mut forged = World::new();
    forged.shards[C].pending = false;
    forged.batch(C, 3).through = Some(38);
    forged.batch(C, 3).events.retain(|row| row.sequence <= 38);
    let mut archive = forged.build();
    archive.rows = built().rows;
    archive.rows_after = archive.rows.clone();
    let detail = archive.assert_only(Kind::BrokenChain, &archive.manifest(C, 3)).await;
    assert!(detail.contains("has prepared (30/0, 40/0]"), "{detail}");
}

#[tokio::test]
async fn objects_of_a_batch_beyond_every_manifest_show_a_cut_tail_without_lease_rows() {
    let archive = built();
    // C's pending batch: without a row nobody can tell.
    let detail = archive.assert_only_without_leases(Kind::TruncatedTail, &archive.manifest(C, 3)).await;
    assert!(detail.contains("no lease row to tell which"), "{detail}");
}
