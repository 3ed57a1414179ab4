//! Killed at each step of the commit protocol; what is under way is finished under its own layout (SCENARIOS.md, 39).

use serde_json::{Value, json};

use crate::support::{Corpus, Done, Plan, Record, Workspace, finish, read_json};

/// Each step, at its first time and at a later one.
const STEPS: [&str; 18] = [
    "claimed",
    "claimed:7",
    "claims_flushed",
    "claims_flushed:3",
    "prepared",
    "prepared:4",
    "object_put:1",
    "object_put:2",
    "object_put:3",
    "object_put:4",
    "object_put:9",
    "object_put:14",
    "manifest_put",
    "manifest_put:2",
    "manifest_put:5",
    "committed",
    "committed:3",
    "committed:6",
];

const PLAN: Plan = Plan { seed: 3, lines: 1_800, files: 2, pad: 0 };

fn corpus() -> Corpus {
    PLAN.corpus()
}

fn workspace(corpus: &Corpus) -> Workspace {
    let mut workspace = Workspace::new();
    workspace.set("batch.max_records", "250");
    corpus.write_to(&workspace.input());
    workspace
}

/// `catch-up` that dies at this step.
#[track_caller]
fn die_at(workspace: &Workspace, step: &str) -> Done {
    let done = finish(workspace.command(&["catch-up", "--json"]).env("AUDITLAKE_FAILPOINT", step));
    assert_eq!((done.code, done.signal), (None, Some(6)), "it did not die at {step}: {done:#?}");
    done
}

#[test]
fn killed_at_any_step_nothing_is_lost_or_doubled_and_what_is_under_way_is_no_damage() {
    let corpus = corpus();
    for step in STEPS {
        let workspace = workspace(&corpus);
        die_at(&workspace, step);

        let between = workspace.verify();
        if step.starts_with("object_put") {
            assert!(between["in_flight"].as_u64() > Some(0), "{step}: {between:#}");
        }
        let summary = workspace.catch_up();

        assert_eq!(summary["complete"], true, "{step}");
        corpus.truth.assert_holds(&workspace.archived());
        let report = workspace.verify();
        assert_eq!(report["in_flight"], 0, "{step}");
    }
}

#[test]
fn killed_again_and_again_at_the_same_step_it_is_where_it_was_and_then_gets_to_the_end() {
    let corpus = corpus();
    for step in ["claimed", "claims_flushed", "prepared", "object_put:3", "manifest_put"] {
        let workspace = workspace(&corpus);
        for _ in 0..4 {
            die_at(&workspace, step);
            workspace.verify();
        }
        workspace.catch_up();
        corpus.truth.assert_holds(&workspace.archived());
        workspace.verify();
    }
}

#[test]
fn killed_after_every_commit_it_gets_to_the_end_a_batch_at_a_time() {
    let corpus = corpus();
    let workspace = workspace(&corpus);
    let step = ("AUDITLAKE_FAILPOINT", "committed");
    let mut deaths = 0;
    while finish(workspace.command(&["catch-up"]).env(step.0, step.1)).code != Some(0) {
        deaths += 1;
        assert!(deaths < 50, "it does not get on");
        workspace.verify();
    }
    assert!(deaths >= 8, "{deaths}");
    corpus.truth.assert_holds(&workspace.archived());
}

#[test]
fn status_shows_the_batch_under_way() {
    let workspace = workspace(&Plan { files: 1, ..PLAN }.corpus());
    die_at(&workspace, "prepared");
    let status = workspace.run(&["status", "--json"]).expect(0).json();
    let pending: Vec<&Value> =
        status["shards"].as_array().unwrap().iter().filter(|s| !s["pending"].is_null()).collect();
    assert_eq!(pending.len(), 1, "{status:#}");
    assert_eq!(pending[0]["pending"]["batch_seq"], 0);
    assert!(workspace.run(&["status"]).expect(0).stdout.contains("batch 0 ("), "{status:#}");
}

#[test]
fn a_file_that_grows_between_crash_and_restart_changes_nothing_about_the_batch_under_way() {
    for step in ["prepared:2", "object_put:5", "manifest_put:2"] {
        let mut corpus = corpus();
        let workspace = workspace(&corpus);
        die_at(&workspace, step);
        for number in 0..300 {
            let record = Record::new(1 << 60 | number);
            workspace.append(&format!("part-{}.ndjson", number % 2), record.line(0) + "\n");
            corpus.truth.add(record);
        }
        workspace.catch_up();
        corpus.truth.assert_holds(&workspace.archived());
        workspace.verify();
    }
}

/// One shard, killed while batch 1 is under way, the configuration changed; the manifests of batches 1 and 2, and the
/// workspace.
fn change_between_crash_and_restart(before: &[(&str, &str)], after: &[(&str, &str)]) -> (Value, Value, Workspace) {
    let corpus = Plan { seed: 4, lines: 1_000, files: 1, pad: 0 }.corpus();
    let mut workspace = workspace(&corpus);
    for (key, value) in before {
        workspace.set(key, value);
    }
    die_at(&workspace, "prepared:2");
    assert_eq!(workspace.lease("part-0.ndjson")["pending"]["batch_seq"], 1);
    for (key, value) in after {
        workspace.set(key, value);
    }

    workspace.catch_up();

    workspace.verify();
    let manifest = |number| read_json(&workspace.archive().join(format!("_manifests/part-0.ndjson/{number:08}.json")));
    let (pending, next) = (manifest(1), manifest(2));
    let rows = |manifest: &Value| manifest["counts"]["archived"].as_u64().unwrap();
    let all: u64 = (0..4).map(|number| rows(&manifest(number))).sum();
    assert_eq!(all, corpus.truth.archived());
    (pending, next, workspace)
}

/// The keys of a manifest's event objects.
fn events(manifest: &Value) -> Vec<&str> {
    let keys = manifest["objects"].as_array().unwrap().iter().map(|object| object["key"].as_str().unwrap());
    let events: Vec<&str> = keys.filter(|key| key.starts_with("events/")).collect();
    assert!(!events.is_empty());
    events
}

#[test]
fn a_change_of_format_between_crash_and_restart_takes_effect_at_the_next_batch() {
    let parquet = [("archive.format", "\"parquet\""), ("archive.compression", "\"zstd\"")];
    let (pending, next, _) = change_between_crash_and_restart(&[], &parquet);
    assert!(events(&pending).iter().all(|key| key.ends_with(".ndjson")), "{pending:#}");
    assert!(events(&next).iter().all(|key| key.ends_with(".parquet")), "{next:#}");
}

#[test]
fn a_change_of_compression_between_crash_and_restart_takes_effect_at_the_next_batch() {
    let (pending, next, _) = change_between_crash_and_restart(
        &[("archive.compression", "\"gzip\""), ("archive.compression_level", "6")],
        &[("archive.compression", "\"zstd\""), ("archive.compression_level", "9")],
    );
    assert!(events(&pending).iter().all(|key| key.ends_with(".ndjson.gz")), "{pending:#}");
    assert!(events(&next).iter().all(|key| key.ends_with(".ndjson.zst")), "{next:#}");
}

#[test]
fn a_change_of_partitions_between_crash_and_restart_takes_effect_at_the_next_batch() {
    let (pending, next, _) = change_between_crash_and_restart(
        &[],
        &[("archive.partition_by", "[\"source_label\", \"dt\"]"), ("source.label", "\"renamed\"")],
    );
    assert!(events(&pending).iter().all(|key| key.starts_with("events/dt=2026-11-")), "{pending:#}");
    assert!(events(&next).iter().all(|key| key.starts_with("events/source_label=renamed/dt=2026-11-")), "{next:#}");
}

#[test]
fn a_change_of_keep_raw_between_crash_and_restart_takes_effect_at_the_next_batch() {
    let (pending, next, workspace) = change_between_crash_and_restart(&[], &[("archive.keep_raw", "false")]);
    let has_raw = |manifest: &Value| {
        let text = std::fs::read_to_string(workspace.archive().join(events(manifest)[0])).unwrap();
        let row: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        row["raw"] != json!(null)
    };
    assert!(has_raw(&pending) && !has_raw(&next));
}

/// Objects of a batch that no lease row tells of any more: where copies were read in another order than before, the same
/// range gives other rows. Then nothing is overwritten, the object is named, and moving it away is enough.
#[test]
fn the_state_is_lost_with_a_batch_under_way_and_copies_in_other_files() {
    let corpus = corpus();
    for step in ["object_put:1", "object_put:3", "object_put:7", "manifest_put", "manifest_put:3", "committed:2"] {
        let workspace = workspace(&corpus);
        die_at(&workspace, step);
        std::fs::remove_dir_all(workspace.state()).unwrap();
        let mut moved = 0;
        loop {
            let done = workspace.run(&["catch-up", "--json"]);
            if done.code == Some(0) {
                break;
            }
            for failure in done.json()["failures"].as_array().unwrap() {
                let error = failure["error"].as_str().unwrap();
                let (key, rest) =
                    error.split_once(" stands in the archive already").unwrap_or_else(|| panic!("{error}"));
                assert!(
                    rest.contains("nothing is overwritten") && rest.contains("move it out of the archive"),
                    "{error}"
                );
                std::fs::remove_file(workspace.archive().join(key)).unwrap();
                moved += 1;
            }
            assert!(moved < 10, "{step}: more objects are in the way than were put");
        }
        let archived = workspace.archived();
        corpus.truth.assert_records_hold(&archived);
        // The half of a conflict that was committed carries the note already; the other half, read again with nothing
        // known of it, gets one too.
        assert!(archived.conflicts >= corpus.truth.conflicts, "{step}: no conflict goes unnoted");
        workspace.verify();
    }
}
