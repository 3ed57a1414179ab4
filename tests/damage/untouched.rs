//! What is no damage: an archive that is whole, and one at which a daemon is at work.

use auditlake::archive::MemoryArchive;
use auditlake::archive::chain::newest_manifest;
use auditlake::archive::identity::IdentityError;
use auditlake::encode::keys;
use auditlake::lease::{Gap, LeaseRow};
use auditlake::verify::{Kind, Options, Report, VerifyError, render};

use crate::world::{A, ARCHIVE, Archive, B, C, World, checkpoint};

#[tokio::test]
async fn an_untouched_archive_has_no_finding_and_is_counted_right() {
    let report = World::new().build().verify().await;
    assert_eq!(report.findings, []);
    assert!(report.tail_proved && report.notes.is_empty(), "{report:?}");
    assert_eq!((report.shards, report.manifests), (3, 9));
    // 15 of a with 2 rejects, 10 of b and 4 more, 15 of c.
    assert_eq!(report.rows, 15 + 2 + 14 + 15);
    assert_eq!(report.objects, report.objects_read);
    assert_eq!(report.in_flight, 1, "the pending batch");
    assert!(report.bytes > 1000 && render(&report).ends_with("no damage found\n"));
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

#[tokio::test]
async fn without_lease_rows_the_report_says_that_the_tail_is_not_proved() {
    let mut world = World::new();
    world.shards[C].pending = false;
    let report = world.build().verify_with(false, Options::default()).await;
    assert_eq!(report.findings, []);
    assert!(!report.tail_proved && report.notes[0].contains("no lease rows"), "{report:?}");
}

#[tokio::test]
async fn a_shard_without_a_lease_row_is_noted_and_no_finding() {
    let mut world = World::new();
    world.shards[C].pending = false;
    let mut archive = world.build();
    archive.rows.remove(C);
    archive.rows_after.remove(C);
    let report = archive.verify().await;
    assert_eq!(report.findings, []);
    assert!(!report.tail_proved && report.notes[0].contains("has no lease row"), "{report:?}");
}

#[tokio::test]
async fn a_pending_batch_whose_manifest_stands_already_is_in_flight() {
    let mut archive = World::new().build();
    let mut committed = World::new();
    committed.shards[C].pending = false;
    archive.objects = committed.build().objects;
    assert_eq!(archive.verify().await.findings, []);
}

/// The world after so many batches of its shards.
fn history(batches: usize) -> Archive {
    let mut world = World::new();
    for shard in &mut world.shards {
        shard.pending = false;
        shard.batches.truncate(batches);
    }
    world.shards.truncate(B);
    world.build()
}

#[tokio::test]
async fn what_a_daemon_commits_while_verify_reads_is_no_damage() {
    let (old, new) = (history(1), history(4));
    // Everything that may have been seen of three batches: nothing, some objects, all of them, manifests too.
    let fresh: Vec<_> = new.objects.iter().filter(|(key, _)| !old.objects.contains_key(*key)).collect();
    for seen in 0..=fresh.len() {
        let mut objects = old.objects.clone();
        // As they were put: each batch's objects, then its manifest.
        let mut in_order = fresh.clone();
        in_order
            .sort_by_key(|(key, _)| (key.split(['-', '/', '.']).rfind(|part| part.len() == 8), key.starts_with('_')));
        objects.extend(in_order[..seen].iter().map(|(key, body)| ((*key).clone(), (*body).clone())));
        let archive = Archive { objects, rows: old.rows.clone(), rows_after: new.rows.clone() };
        assert_eq!(archive.verify().await.findings, [], "{seen} of {} objects", fresh.len());
    }
}

#[tokio::test]
async fn a_listing_that_shows_a_later_commit_and_not_an_earlier_one_is_no_damage() {
    let (old, new) = (history(1), history(4));
    let mut archive = Archive { objects: new.objects, rows: old.rows, rows_after: new.rows };
    let passed_by = archive.manifest(A, 1);
    archive.objects.remove(&passed_by);
    assert_eq!(archive.verify().await.findings, []);
}

#[tokio::test]
async fn a_parent_that_ends_while_verify_reads_has_ended_before_its_child() {
    let mut before = World::new();
    before.shards.truncate(B);
    before.shards[A].batches.truncate(3);
    let mut archive = World::new().build();
    archive.rows = before.build().rows;
    let passed_by = archive.manifest(A, 3);
    archive.objects.remove(&passed_by);
    assert_eq!(archive.verify().await.findings, []);
}

#[tokio::test]
async fn a_shard_that_is_new_while_verify_reads_is_no_damage() {
    let mut archive = World::new().build();
    archive.rows.remove(C);
    assert_eq!(archive.verify().await.findings, []);
}

#[tokio::test]
async fn folders_of_the_program_itself_and_the_object_of_check_have_their_place() {
    let mut archive = World::new().build();
    for key in ["_spool/s-1/00000001", "audit-log-access-test"] {
        archive.objects.insert(key.to_owned(), "x".into());
    }
    assert_eq!(archive.verify().await.findings, []);
}

#[tokio::test]
async fn a_recorded_gap_is_told_and_no_finding() {
    let mut world = World::new();
    world.batch(A, 1).forge = Box::new(|manifest| {
        manifest.gap = Some(Gap { after: checkpoint(Some(10)), from: None, until: manifest.window.start });
    });
    let report = world.build().verify().await;
    assert_eq!(report.findings, []);
    assert_eq!((report.gaps.len(), report.gaps[0].batch_seq), (1, 1));
    assert!(render(&report).contains("gap       shard-a, before batch 1"), "{}", render(&report));
}

#[tokio::test]
async fn since_and_until_read_the_windows_that_they_meet_and_judge_all_chains() {
    let mut archive = World::new().build();
    let outside = archive.data("events/", A, 0).remove(0);
    archive.edit(&outside, |bytes| bytes[20] ^= 1);
    let options = Options {
        since: Some("2026-11-21T10:00:00Z".parse().unwrap()),
        until: Some("2026-11-21T10:30:00Z".parse().unwrap()),
        ..Options::default()
    };
    let report = archive.verify_with(true, options.clone()).await;
    assert_eq!(report.findings, [], "the altered object is of the window before");
    assert_eq!(report.manifests, 9);
    assert!(report.objects_read > 0 && report.objects_read < report.objects, "{report:?}");
    assert_eq!(report.covered.first_window, options.since);
    assert_eq!(report.covered.last_window, options.until);

    let gone = archive.manifest(A, 0);
    archive.objects.remove(&gone);
    let report = archive.verify_with(true, options).await;
    assert_eq!((report.findings.len(), report.findings[0].kind), (1, Kind::MissingManifest));
}

#[tokio::test]
async fn fast_reads_no_object_and_still_sees_that_one_is_missing_or_cut() {
    let mut archive = World::new().build();
    let gone = archive.data("events/", A, 0).remove(0);
    archive.objects.remove(&gone);
    let cut = archive.data("events/", B, 0).remove(0);
    archive.edit(&cut, |bytes| bytes.truncate(9));
    let mut report = archive.verify_with(true, Options { fast: true, ..Options::default() }).await;
    let altered = report.findings.pop().unwrap();
    assert_eq!((altered.kind, altered.key), (Kind::AlteredObject, cut));
    assert_eq!((report.objects_read, report.rows), (0, 0));
    assert_eq!((report.findings.len(), report.findings[0].kind), (1, Kind::MissingObject));
}

#[tokio::test]
async fn a_lost_lease_row_is_made_anew_as_it_was() {
    let archive = World::new().build();
    let store = MemoryArchive::new();
    archive.objects.iter().for_each(|(key, body)| store.overwrite(key, body.clone()));
    for row in &archive.rows {
        let newest = newest_manifest(&store, ARCHIVE, &row.shard).await.unwrap().unwrap();
        let remade_at = Some(row.batch_seq);
        let read_through = Some(newest.manifest.read_through);
        assert_eq!(newest.lease_row(), LeaseRow { pending: None, remade_at, read_through, ..row.clone() });
        assert!(keys::encode_shard(&row.shard).len() <= 120);
    }
}

#[tokio::test]
async fn without_its_identity_there_is_nothing_to_prove() {
    use auditlake::verify::{RowReader, Rows, verify};
    struct Nothing;
    impl RowReader for Nothing {
        fn rows(&self, _: auditlake::archive::manifest::ObjectKind, _: &str, _: bytes::Bytes) -> Result<Rows, String> {
            Err("nothing is read".to_owned())
        }
    }
    let store = MemoryArchive::new();
    World::new().build().objects.iter().for_each(|(key, body)| store.overwrite(key, body.clone()));
    let attempt = async || {
        let reader = std::sync::Arc::new(Nothing);
        verify(&store, None, reader, &Options::default(), &mut |_| {}).await.unwrap_err()
    };
    store.overwrite("_auditlake.json", "{");
    assert!(matches!(attempt().await, VerifyError::Identity(IdentityError::Damaged { .. })));
    store.remove("_auditlake.json");
    let error = attempt().await;
    assert!(error.to_string().contains("_auditlake.json is missing"), "{error}");
}
