//! `unlisted_object`: what was put in by somebody else.

use auditlake::archive::manifest::Manifest;
use auditlake::digest::Digest;
use auditlake::encode::keys;
use auditlake::verify::Kind;

use crate::world::{A, Archive, B, C, World, checkpoint};

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
        let detail = archive.assert_only(Kind::UnlistedObject, &key).await;
        assert!(detail.contains("; it does not fit the chain: it says that it is batch"), "{detail}");
    }
}

type Forgery = Box<dyn Fn(&mut Manifest)>;

/// The archive as it is, with the row that the growing shard had when it had one batch less, or two: manifests beyond it.
fn with_an_older_row(batches: usize, forge: impl Fn(&mut Manifest) + 'static) -> Archive {
    let mut world = World::new();
    world.shards[C].pending = false;
    world.shards[C].batches.truncate(batches);
    let row = world.build().rows[C].clone();
    world = World::new();
    world.shards[C].pending = false;
    world.shards[C].batches.truncate(3);
    world.batch(C, 2).forge = Box::new(forge);
    let mut archive = world.build();
    archive.rows[C] = row;
    archive.rows_after.clone_from(&archive.rows);
    archive
}

#[tokio::test]
async fn a_manifest_beyond_the_head_that_fits_the_chain_is_told_from_one_that_does_not() {
    let fits = with_an_older_row(2, |_| ());
    let detail = fits.assert_only(Kind::UnlistedObject, &fits.manifest(C, 2)).await;
    assert!(detail.ends_with("; it fits manifest 1: it names it, and goes on where that ends"), "{detail}");

    // Each by the one before it, whether that is allowed or not.
    let report = with_an_older_row(1, |_| ()).verify().await;
    let details: Vec<_> = report.findings.iter().map(|finding| finding.detail.as_str()).collect();
    assert_eq!(details.len(), 2, "{details:?}");
    assert!(details[0].contains("it fits manifest 0") && details[1].contains("it fits manifest 1"), "{details:?}");

    let cases: [(Forgery, &str); 3] = [
        (Box::new(|manifest| manifest.previous = Some(Digest::of(b"another"))), "as its predecessor, manifest 1 is"),
        (
            Box::new(|manifest| manifest.range.after = checkpoint(Some(21))),
            "manifest 1 ends at 20/0, it begins after 21/0",
        ),
        (Box::new(|manifest| manifest.range.through = checkpoint(Some(3))), "runs backwards"),
    ];
    for (forge, words) in cases {
        let archive = with_an_older_row(2, forge);
        let detail = archive.assert_only(Kind::UnlistedObject, &archive.manifest(C, 2)).await;
        assert!(detail.contains("; it does not fit the chain: ") && detail.contains(words), "{detail}");
    }

    let mut without = fits;
    let between = without.manifest(C, 2);
    let far = without.manifest(C, 3);
    let text = String::from_utf8(without.objects.remove(&between).unwrap().to_vec()).unwrap();
    without.objects.insert(far.clone(), text.replace("\"batch_seq\": 2", "\"batch_seq\": 3").into());
    let report = without.verify().await;
    let rogue = report.findings.iter().find(|finding| finding.key == far).unwrap();
    assert!(rogue.detail.ends_with("it does not fit the chain: manifest 2 is not there"), "{rogue:?}");
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
