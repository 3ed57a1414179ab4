//! The main job: files in, an archive out, and nothing the second time.

use std::fs;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::{Corpus, Plan, Record, Truth, Workspace, digest};

/// As `gzip` writes it.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn records(truth: &mut Truth, numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|number| 1 << 50 | number).map(Record::new).inspect(|r| truth.add(*r)).map(|r| r.line(40)).collect()
}

/// Every form that a file can have: plain, gzip, zstd, array, API page, below a folder, empty, hidden.
fn every_form() -> (Workspace, Truth) {
    let workspace = Workspace::new();
    let Corpus { files, mut truth } = Plan { seed: 5, lines: 900, files: 3, pad: 40 }.corpus();
    workspace.feed("plain.ndjson", &files[0]);
    workspace.feed("packed.ndjson.gz", gzip(&files[1]));
    workspace.feed("2026/11/deep.ndjson.zst", zstd::encode_all(&files[2][..], 3).unwrap());
    workspace.feed("download.json", format!("[\n{}\n]\n", records(&mut truth, 0..50).join(",\n")));
    let page = records(&mut truth, 50..80).join(",");
    workspace.feed("page.json", format!("\u{feff}{{\"logs\":[{page}],\"nextPageToken\":\"\"}}"));
    workspace.feed("windows.ndjson", records(&mut truth, 80..90).join("\r\n"));
    workspace.feed("empty.ndjson", "");
    workspace.feed(".hidden.ndjson", "no file of ours");
    (workspace, truth)
}

fn assert_summary(summary: &Value, truth: &Truth) {
    let counted = ["records", "archived", "duplicates", "rejected", "conflicts"].map(|key| summary[key].as_u64());
    let expected = [truth.records, truth.archived(), truth.duplicates(), truth.rejected(), truth.conflicts];
    assert_eq!(counted, expected.map(Some), "{summary:#}");
    let reasons: u64 = summary["rejected_by_reason"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(reasons, truth.rejected());
    assert_eq!((&summary["complete"], &summary["stopped"], &summary["gaps"]), (&json!(true), &json!(false), &json!(0)));
}

#[test]
fn every_form_of_file_is_archived_and_the_second_run_archives_nothing() {
    let (workspace, truth) = every_form();

    let first = workspace.catch_up();
    assert_summary(&first, &truth);
    assert_eq!(first["shards"], 7);
    truth.assert_holds(&workspace.archived());
    assert_eq!(first["objects"], workspace.objects("events").len() + workspace.objects("rejected").len());
    let report = workspace.verify();
    assert_eq!(report["rows"], truth.archived() + truth.rejected());

    let objects = workspace.objects("");
    let second = workspace.catch_up();
    for key in ["records", "archived", "duplicates", "rejected", "batches", "objects", "object_bytes"] {
        assert_eq!(second[key], 0, "{key}");
    }
    assert_eq!(second["complete"], true);
    assert_eq!(workspace.objects(""), objects);
    workspace.verify();
}

#[test]
fn status_says_of_every_form_that_was_archived_whole_that_it_is_caught_up() {
    let (workspace, _) = every_form();
    workspace.catch_up();
    let status = || {
        let status = workspace.run(&["status", "--json"]).expect(0).json();
        let shards = status["shards"].as_array().unwrap().iter();
        let said = |shard: &Value| ["shard", "state", "lag_bytes"].map(|key| shard[key].clone());
        shards.map(said).collect::<Vec<_>>()
    };
    let done = status();
    assert_eq!(done.len(), 7);
    for [shard, state, lag] in &done {
        assert_eq!((state, lag), (&json!("caught up"), &json!(0)), "{shard}");
    }

    // Longer, or another file: only reading it tells.
    let packed = std::fs::read(workspace.input().join("packed.ndjson.gz")).unwrap();
    workspace.feed("packed.ndjson.gz", [packed, gzip(Record::new(1).line(40).as_bytes())].concat());
    let changed: Vec<_> = status().into_iter().filter(|[_, state, _]| state != "caught up").collect();
    assert_eq!(changed, [[json!("packed.ndjson.gz"), json!("unowned"), json!(null)]]);
    assert_eq!(workspace.catch_up()["records"], 1);
    assert_eq!(status(), done);
}

#[test]
fn the_summary_is_a_table_with_a_headline() {
    let (workspace, truth) = every_form();
    let first = workspace.run(&["catch-up"]).expect(0).stdout;
    assert!(first.starts_with("done\n"), "{first}");
    let row = |text: &str, name: &str| {
        let line =
            text.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line.trim_start()[name.len()..].trim().replace(',', "")
    };
    assert_eq!(row(&first, "read"), truth.records.to_string());
    assert_eq!(row(&first, "archived"), truth.archived().to_string());
    assert_eq!(row(&first, "duplicates"), truth.duplicates().to_string());
    assert_eq!(row(&first, "rejected"), truth.rejected().to_string());
    let second = workspace.run(&["catch-up"]).expect(0).stdout;
    assert!(second.starts_with("nothing new: everything there is has been archived before\n"), "{second}");
    assert_eq!(row(&second, "archived"), "0");
}

#[test]
fn a_stream_that_is_delivered_twice_is_archived_once_and_the_run_says_so() {
    let workspace = Workspace::new();
    let Corpus { files, mut truth } = Plan { seed: 6, lines: 600, files: 2, pad: 40 }.corpus();
    workspace.feed("monday.ndjson", &files[0]);
    workspace.feed("tuesday.ndjson", &files[1]);
    workspace.catch_up();
    // The same records again: under another name, and packed. A line that is no record has no identity to know it by.
    workspace.feed("monday (1).ndjson", &files[0]);
    workspace.feed("tuesday.ndjson.zst", zstd::encode_all(&files[1][..], 3).unwrap());
    let rejected = truth.rejected();
    truth.rejects.values_mut().for_each(|times| *times *= 2);

    let second = workspace.run(&["catch-up"]).expect(0).stdout;

    assert!(second.starts_with("nothing new archived: all that was read was a copy or was rejected\n"), "{second}");
    truth.assert_holds(&workspace.archived());
    let report = workspace.verify();
    assert_eq!(report["rows"], truth.archived() + 2 * rejected);
}

#[test]
fn status_tells_what_is_left_before_and_after() {
    let (workspace, _) = every_form();
    let before = workspace.run(&["status", "--json"]).expect(0).json();
    let states = |status: &Value| -> Vec<String> {
        let shards = status["shards"].as_array().unwrap().iter();
        shards.map(|shard| format!("{} {} {}", shard["shard"], shard["state"], shard["batches"])).collect()
    };
    assert_eq!(before["archive_id"], Value::Null);
    assert_eq!(states(&before).len(), 7);
    assert!(states(&before).contains(&"\"empty.ndjson\" \"caught up\" 0".to_owned()), "{before:#}");
    assert_eq!(states(&before).iter().filter(|state| state.ends_with("\"waiting\" 0")).count(), 6, "{before:#}");
    assert!(!workspace.state().exists() && !workspace.archive().exists(), "looking makes nothing");

    workspace.catch_up();

    let after = workspace.run(&["status", "--json"]).expect(0).json();
    assert!(after["archive_id"].is_string());
    let read = states(&after);
    assert!(read.contains(&"\"plain.ndjson\" \"caught up\" 1".to_owned()), "{read:?}");
    assert!(read.contains(&"\"empty.ndjson\" \"caught up\" 0".to_owned()), "{read:?}");
    let shards = after["shards"].as_array().unwrap();
    assert!(shards.iter().all(|shard| shard["pending"].is_null() && shard["owner"].is_null()), "{after:#}");
    let plain = shards.iter().find(|shard| shard["shard"] == "plain.ndjson").unwrap();
    assert_eq!(plain["lag_bytes"], 0);
    workspace.append("plain.ndjson", Record::new(1 << 55).line(0) + "\n");
    let text = workspace.run(&["status"]).expect(0).stdout;
    let line = text.lines().find(|line| line.contains("plain.ndjson")).unwrap();
    assert!(!line.contains(" 0  "), "its lag is told: {line}");
}

#[test]
fn a_file_that_grew_is_read_from_where_it_was() {
    let workspace = Workspace::new();
    let mut truth = Truth::default();
    workspace.feed("a.ndjson", records(&mut truth, 0..10).join("\n") + "\n");
    workspace.catch_up();
    workspace.append("a.ndjson", records(&mut truth, 10..15).join("\n"));

    let summary = workspace.catch_up();

    assert_eq!((&summary["records"], &summary["archived"]), (&json!(5), &json!(5)));
    truth.assert_holds(&workspace.archived());
    workspace.verify();
}

#[test]
fn a_single_file_is_a_source_too() {
    let mut workspace = Workspace::new();
    let mut truth = Truth::default();
    let file = workspace.feed("only.ndjson", records(&mut truth, 0..10).join("\n"));
    workspace.set_path("source.file.path", &file);
    assert_summary(&workspace.catch_up(), &truth);
    truth.assert_holds(&workspace.archived());
    workspace.verify();
}

/// The same file gives the same objects, byte by byte, however many threads decode and encode it.
#[test]
fn the_number_of_threads_changes_no_byte() {
    let Corpus { files, truth } = Plan { seed: 9, lines: 30_000, files: 1, pad: 240 }.corpus();
    let arrival = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000);
    let archive_with = |threads: &str| {
        let mut workspace = Workspace::new();
        workspace.set("batch.max_records", "14_000");
        let file = workspace.feed("audit.ndjson", &files[0]);
        fs::File::options().append(true).open(file).unwrap().set_modified(arrival).unwrap();
        let mut command = workspace.command(&["catch-up", "--json"]);
        assert!(command.env("RAYON_NUM_THREADS", threads).output().unwrap().status.success());
        truth.assert_holds(&workspace.archived());
        let keys = [workspace.objects("events"), workspace.objects("rejected")].concat();
        let object = |key: String| (digest(&fs::read(workspace.archive().join(&key)).unwrap()), key);
        keys.into_iter().map(object).collect::<Vec<_>>()
    };
    let one = archive_with("1");
    assert!(one.len() > 6, "several batches of several objects: {one:?}");
    for threads in ["2", "5"] {
        assert_eq!(archive_with(threads), one, "{threads} threads");
    }
}
