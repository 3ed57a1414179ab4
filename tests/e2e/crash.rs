//! SIGKILL at any moment, any number of times (SCENARIOS.md, 38).

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::support::{Corpus, Plan, Workspace, duckdb, mix, wait_until};

/// Starts `catch-up` and kills it after a number of new manifests and a number of milliseconds that look like chance,
/// until `kills` have hit a process that ran.
fn kill_again_and_again(workspace: &Workspace, kills: u64, seed: u64) {
    let mut hit = 0;
    for attempt in 0.. {
        assert!(attempt < 3 * kills, "only {hit} of {attempt} kills hit a process that ran: the input is too small");
        if hit == kills {
            return;
        }
        let chance = mix(seed << 32 | attempt);
        // A third of the kills come before the first batch: at the start, while claims are read, in a batch found under way.
        let batches = [0, 0, 1, 1, 2, 3][(chance % 6) as usize];
        let enough = workspace.manifests() + batches;
        let mut process = workspace.start(&["catch-up", "--json"]);
        wait_until("batches are committed", || workspace.manifests() >= enough || !process.runs());
        thread::sleep(Duration::from_millis(chance / 6 % 150));
        hit += u64::from(process.kill());
    }
}

#[test]
fn killed_thirty_times_every_record_of_200_000_is_archived_once() {
    let mut workspace = Workspace::new();
    workspace.set("batch.max_records", "1000").set("archive.keep_raw", "false");
    let corpus = Plan { seed: 1, lines: 200_000, files: 5, pad: 0 }.corpus();
    corpus.write_to(&workspace.input());

    kill_again_and_again(&workspace, 30, 7);
    let last = workspace.catch_up();

    assert_eq!((&last["complete"], &last["failures"]), (&json!(true), &json!([])));
    corpus.truth.assert_holds(&workspace.archived());
    let report = workspace.verify();
    assert_eq!((&report["in_flight"], &report["tail_proved"]), (&json!(0), &json!(true)));
    assert_eq!(report["rows"], corpus.truth.archived() + corpus.truth.rejected());
    let again = workspace.catch_up();
    assert_eq!((&again["records"], &again["batches"]), (&json!(0), &json!(0)));
}

#[test]
fn killed_again_and_again_a_parquet_archive_holds_in_duckdb_what_was_sent() {
    let mut workspace = Workspace::new();
    workspace
        .set("batch.max_records", "700")
        .set("archive.format", "\"parquet\"")
        .set("archive.compression", "\"zstd\"");
    let Corpus { files, truth } = Plan { seed: 2, lines: 25_000, files: 3, pad: 200 }.corpus();
    // One of them compressed: its checkpoints lie in its content.
    workspace.feed("a.ndjson", &files[0]);
    workspace.feed("b.ndjson.gz", crate::main_job::gzip(&files[1]));
    workspace.feed("c.ndjson", &files[2]);

    kill_again_and_again(&workspace, 12, 8);
    workspace.catch_up();

    workspace.verify();
    let sql = workspace.run(&["ddl", "duckdb"]).expect(0).stdout;
    let query =
        "SELECT count(*), count(DISTINCT (log_id, version, json_extract_string(details, '$.tag'))) FROM audit_events";
    assert_eq!(duckdb(&sql, query), [json!([truth.archived(), truth.archived()])]);
    assert_eq!(duckdb(&sql, "SELECT count(*) FROM audit_rejected"), [json!([truth.rejected()])]);
    let sent: u64 = truth.events.iter().map(|key| crc32fast::hash(key.tag.as_bytes())).map(u64::from).sum();
    let tags = duckdb(&sql, "SELECT json_extract_string(details, '$.tag') FROM audit_events");
    let found: u64 = tags.iter().map(|row| u64::from(crc32fast::hash(row[0].as_str().unwrap().as_bytes()))).sum();
    assert_eq!(found, sent, "the sum of the tags' checksums");
}
