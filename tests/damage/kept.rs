//! A report that was kept, held against what stands now: whole chains go through where they ended then, and bear witness
//! for lease rows that were made anew.

use auditlake::lease::{Compared, LeaseRow};
use auditlake::source::ShardId;
use auditlake::verify::{Kept, Kind, Options, Report, render};

use crate::world::{A, ARCHIVE, Archive, B, C, World};

/// As the archive was before the last batches of the growing shard, and what was kept of its proof.
async fn before() -> (World, Kept) {
    let mut world = World::new();
    world.shards[C].batches.truncate(2);
    world.shards[C].pending = false;
    let kept = kept(&world.build()).await;
    (world, kept)
}

async fn kept(archive: &Archive) -> Kept {
    let report = archive.verify().await;
    assert!(report.tail_proved, "{report:#?}");
    Kept::parse(&serde_json::to_vec(&report).unwrap(), ARCHIVE).unwrap()
}

async fn against(archive: &Archive, kept: &Kept) -> Report {
    archive.verify_with(true, Options { against: Some(kept.clone()), ..Options::default() }).await
}

type Change<'a> = &'a dyn Fn(&mut LeaseRow);

#[track_caller]
fn assert_only(report: &Report, kind: Kind, key: &str, words: &str) {
    let found: Vec<_> = report.findings.iter().map(|finding| (finding.kind, finding.key.as_str())).collect();
    assert_eq!(found, [(kind, key)], "{report:#?}");
    assert!(report.findings[0].detail.contains(words), "{report:#?}");
    assert!(!report.tail_proved, "{report:#?}");
    assert!(!render(report).contains("proved against"), "{}", render(report));
}

/// The archive with the row of the growing shard as it is made anew from what stands.
fn remade(mut archive: Archive, change: impl Fn(&mut LeaseRow)) -> Archive {
    let row = &mut archive.rows[C];
    (row.remade_at, row.pending) = (Some(row.batch_seq), None);
    change(row);
    let under_way = archive.data("events/", C, 3);
    archive.objects.retain(|key, _| !under_way.contains(key));
    archive.rows_after.clone_from(&archive.rows);
    archive
}

#[tokio::test]
async fn an_archive_that_has_grown_since_holds_all_that_was_kept() {
    let (_, kept) = before().await;
    let report = against(&World::new().build(), &kept).await;
    assert_eq!((&report.findings[..], report.tail_proved, report.against), (&[][..], true, Some(kept.began)));
    assert!(render(&report).contains("against   the report of 1970-01-01T00:00:00Z"), "{}", render(&report));
}

#[tokio::test]
async fn a_row_that_was_made_anew_bears_witness_once_the_shard_was_read_on() {
    let (_, kept) = before().await;
    let whole = World::new().build();
    let later = |row: &mut LeaseRow| row.read_through = Some("2026-11-21T12:00:00Z".parse().unwrap());
    let earlier = |row: &mut LeaseRow| row.read_through = Some("2026-11-21T10:00:00Z".parse().unwrap());
    let cases: [(&str, Change<'_>, bool); 5] = [
        ("nobody has read on", &earlier, false),
        ("it has committed since", &|row| row.remade_at = Some(1), true),
        ("it ended where it had ended", &|row| row.remade_at = Some(2), true),
        ("it was idle since", &later, true),
        ("it was given up with nothing left", &|row| row.caught_up = true, true),
    ];
    for (what, change, is_proved) in cases {
        let archive = remade(whole.clone(), |row| {
            earlier(row);
            change(row);
        });
        let alone = archive.verify().await;
        assert!(alone.findings.is_empty() && !alone.tail_proved, "{what}: {alone:#?}");
        assert!(alone.notes[0].contains("made anew from the archive at batch") && alone.notes.len() == 1, "{what}");
        let report = against(&archive, &kept).await;
        assert!(report.findings.is_empty() && report.tail_proved == is_proved, "{what}: {report:#?}");
        let words = if is_proved { "1 lease row made anew" } else { "not proved before the shard is read on" };
        assert!(report.notes[0].contains(words) && report.notes.len() == 1, "{what}: {report:#?}");

        // The row says by itself what it was compared with before it was made.
        let mark = || Some(kept.compared(&ShardId::new(&World::new().shards[C].name)));
        let marked = remade(whole.clone(), |row| {
            earlier(row);
            change(row);
            row.compared = mark();
        });
        let report = marked.verify().await;
        assert!(report.findings.is_empty() && report.tail_proved == is_proved, "{what}: {report:#?}");
    }
}

#[tokio::test]
async fn a_shard_that_was_not_there_then_had_nothing_then() {
    let mut world = World::new();
    world.shards.pop();
    let kept = kept(&world.build()).await;
    let archive = remade(World::new().build(), |row| row.remade_at = Some(1));
    assert!(against(&archive, &kept).await.tail_proved);
    assert_eq!(kept.compared(&archive.rows[C].shard), Compared { began: kept.began, batches: 0 });
}

#[tokio::test]
async fn a_tail_that_was_cut_before_the_row_was_made_is_found() {
    let (world, kept) = before().await;
    let mut archive = world.build();
    let gone = archive.manifest(C, 1);
    let first = archive.manifest(C, 0);
    let mut cut = world;
    cut.shards[C].batches.truncate(1);
    let row = cut.build().rows[C].clone();
    archive.rows[C] = row;
    archive.objects.remove(&gone);
    let archive = remade(archive, |_| ());
    assert_only(&against(&archive, &kept).await, Kind::TruncatedTail, &gone, "manifest 1 is missing: the report of");

    // And with all that was left of it, and a row that knows nothing.
    let mut nothing = archive.clone();
    let objects = [archive.data("events/", C, 0), archive.data("events/", C, 1), vec![first.clone()]].concat();
    nothing.objects.retain(|key, _| !objects.contains(key));
    nothing.rows.pop();
    nothing.rows_after.pop();
    assert!(nothing.verify().await.tail_proved, "nothing else tells");
    assert_only(&against(&nothing, &kept).await, Kind::TruncatedTail, &first, "manifests 0 to 1 are missing");
}

#[tokio::test]
async fn what_was_written_anew_since_is_found() {
    let (_, kept) = before().await;
    for (shard, newest) in [(A, 3), (B, 1), (C, 1)] {
        let mut world = World::new();
        world.batch(shard, 0).duplicates += 1;
        let archive = world.build();
        assert_eq!(archive.verify().await.findings, [], "with all digests");
        let report = against(&archive, &kept).await;
        // A chain that names the heads of those it came from is another one, too.
        let found = report.findings.iter().find(|finding| finding.key == archive.manifest(shard, newest)).unwrap();
        assert_eq!(found.kind, Kind::BrokenChain);
        assert!(found.detail.contains("was written anew"), "{report:#?}");
        let expected = if shard == C { 1 } else { 2 };
        assert_eq!(report.findings.len(), expected, "{report:#?}");
        assert!(
            !report.tail_proved && render(&report).contains("tail      NOT PROVED of chains"),
            "{}",
            render(&report)
        );
    }
}

#[tokio::test]
async fn of_a_damaged_chain_whose_row_was_made_anew_nothing_good_is_said() {
    let (_, kept) = before().await;
    let read_on = |row: &mut LeaseRow| row.remade_at = Some(1);
    let whole = remade(World::new().build(), read_on);
    assert!(against(&whole, &kept).await.notes[0].contains("all that the report of"));

    let mut cut = whole.clone();
    cut.objects.remove(&whole.manifest(C, 2));
    let mut gone = whole.clone();
    gone.objects.remove(&whole.data("events/", C, 0)[0]);
    let mut altered = whole.clone();
    altered.edit(&whole.data("events/", C, 0)[0], |bytes| bytes[0] ^= 1);
    let mut anew = World::new();
    anew.batch(C, 0).duplicates += 1;
    let anew = remade(anew.build(), read_on);
    for (what, archive, is_proved) in
        [("cut", cut, false), ("anew", anew, false), ("an object gone", gone, true), ("altered", altered, true)]
    {
        let report = against(&archive, &kept).await;
        assert!(!report.findings.is_empty() && report.notes.is_empty(), "{what}: {report:#?}");
        assert_eq!(report.tail_proved, is_proved, "{what}: {report:#?}");
    }
}

#[tokio::test]
async fn what_is_found_anyway_is_found_once() {
    let (_, kept) = before().await;
    let mut archive = World::new().build();
    for key in [archive.manifest(C, 1), archive.manifest(C, 2)] {
        archive.objects.remove(&key);
    }
    assert_only(&against(&archive, &kept).await, Kind::TruncatedTail, &archive.manifest(C, 1), "the lease row counts");
    let mut archive = World::new().build();
    let key = archive.manifest(A, 3);
    archive.edit(&key, |bytes| bytes.push(b' '));
    assert_only(&against(&archive, &kept).await, Kind::BrokenChain, &key, "chain head of its lease row");
}
