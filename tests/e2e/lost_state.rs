//! The archive is the authority: what was lost beside it costs nothing.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Corpus, Plan, Record, Workspace, files_below, get, read_json, served_at, wait_until};

fn archived_once() -> (Workspace, Corpus) {
    let mut workspace = Workspace::new();
    workspace.set("batch.max_records", "200");
    let corpus = Plan { seed: 11, lines: 900, files: 2, pad: 0 }.corpus();
    corpus.write_to(&workspace.input());
    workspace.catch_up();
    (workspace, corpus)
}

/// A file of copies of what is archived, and of `fresh` records.
fn feed_copies(workspace: &Workspace, corpus: &mut Corpus, fresh: u64) {
    let mut bytes = corpus.files.concat();
    for number in 0..fresh {
        let record = Record::new(1 << 52 | number);
        bytes.extend_from_slice((record.line(0) + "\n").as_bytes());
        corpus.truth.add(record);
    }
    // Rejects have no identity: the copies of them stand in quarantine twice.
    corpus.truth.rejects.values_mut().for_each(|times| *times *= 2);
    workspace.feed("copies.ndjson", bytes);
}

#[test]
fn without_its_state_catch_up_goes_on_from_the_archive_and_archives_no_copy() {
    let (workspace, mut corpus) = archived_once();
    fs::remove_dir_all(workspace.state()).unwrap();

    let nothing = workspace.catch_up();
    assert_eq!((&nothing["records"], &nothing["batches"]), (&json!(0), &json!(0)));
    workspace.verify();

    fs::remove_dir_all(workspace.state()).unwrap();
    feed_copies(&workspace, &mut corpus, 40);
    let summary = workspace.catch_up();
    assert_eq!(summary["archived"], 40);
    corpus.truth.assert_holds(&workspace.archived());
    workspace.verify();
}

#[test]
fn without_its_claims_alone_catch_up_archives_no_copy() {
    let (workspace, mut corpus) = archived_once();
    fs::remove_dir_all(workspace.state().join("claims")).unwrap();
    feed_copies(&workspace, &mut corpus, 3);
    assert_eq!(workspace.catch_up()["archived"], 3);
    corpus.truth.assert_holds(&workspace.archived());
    workspace.verify();
}

#[test]
fn without_its_lease_rows_alone_catch_up_goes_on_from_the_newest_manifests() {
    let (workspace, corpus) = archived_once();
    fs::remove_dir_all(workspace.state().join("leases")).unwrap();
    assert_eq!(workspace.catch_up()["records"], 0);
    corpus.truth.assert_holds(&workspace.archived());
    let report = workspace.verify();
    assert_eq!(report["tail_proved"], false, "rows made from the archive can't witness what it had lost by then");
    assert_eq!(report["notes"].as_array().unwrap().len(), 2);
}

#[test]
fn rebuild_state_makes_leases_and_claims_from_the_archive_alone() {
    let (workspace, mut corpus) = archived_once();
    let rows = |workspace: &Workspace| {
        ["part-0.ndjson", "part-1.ndjson"].map(|shard| {
            let mut row = workspace.lease(shard);
            // What only a row that was never lost can know.
            for key in ["counter", "caught_up", "failover", "remade_at", "taken_at"] {
                row.as_object_mut().unwrap().remove(key).unwrap();
            }
            row
        })
    };
    let before = rows(&workspace);
    fs::remove_dir_all(workspace.state()).unwrap();

    let rebuilt = workspace.run(&["rebuild-state", "--json"]).expect(0).json();

    assert_eq!(rebuilt["shards"], 2);
    assert_eq!(rebuilt["claims"], corpus.truth.archived());
    assert_eq!(rebuilt["unclaimable"], 0);
    assert_eq!(rows(&workspace), before);
    workspace.verify();
    feed_copies(&workspace, &mut corpus, 7);
    assert_eq!(workspace.catch_up()["archived"], 7);
    corpus.truth.assert_holds(&workspace.archived());
    workspace.verify();
}

#[test]
fn rebuild_state_over_a_living_state_changes_nothing_that_counts() {
    let (workspace, mut corpus) = archived_once();
    let text = workspace.run(&["rebuild-state"]).expect(0).stdout;
    assert!(text.starts_with("state made anew: 2 shards, "), "{text}");
    assert_eq!(workspace.catch_up()["records"], 0);
    feed_copies(&workspace, &mut corpus, 0);
    assert_eq!(workspace.catch_up()["archived"], 0);
    corpus.truth.assert_holds(&workspace.archived());
    workspace.verify();
}

#[test]
fn a_state_that_is_lost_while_a_batch_is_under_way_is_no_loss_of_records() {
    let mut workspace = Workspace::new();
    workspace.set("batch.max_records", "100");
    let corpus = Plan { seed: 12, lines: 20_000, files: 1, pad: 0 }.corpus();
    corpus.write_to(&workspace.input());
    let process = workspace.start(&["catch-up"]);
    crate::support::wait_until("some batches are committed", || workspace.manifests() > 3);
    assert!(process.kill());
    fs::remove_dir_all(workspace.state()).unwrap();

    let summary = workspace.run(&["catch-up", "--json"]);

    // The objects of the batch under way stand; what is read again into that batch is the same, so they are adopted.
    summary.expect(0);
    corpus.truth.assert_holds(&workspace.archived());
    workspace.verify();
}

#[test]
fn verify_without_the_state_proves_all_but_the_tail_and_says_so() {
    let (workspace, _) = archived_once();
    fs::remove_dir_all(workspace.state()).unwrap();
    let report = workspace.verify();
    assert_eq!(report["tail_proved"], false);
    let said =
        format!("state.embedded.path: the directory `{}`: there are no lease rows: ", workspace.state().display());
    assert!(report["notes"][0].as_str().unwrap().starts_with(&said), "{report:#}");
    let text = workspace.run(&["verify"]).expect(0).stdout;
    assert!(text.contains("tail      NOT PROVED") && text.ends_with("no damage found\n"), "{text}");
}

#[test]
fn a_reader_writes_nothing() {
    let (workspace, _) = archived_once();
    let stamp = |workspace: &Workspace| -> Vec<_> {
        let files = [files_below(&workspace.archive()), files_below(&workspace.state())].concat();
        files.into_iter().map(|path| (path.metadata().unwrap().modified().unwrap(), path)).collect()
    };
    let before = stamp(&workspace);
    for command in [&["verify"][..], &["verify", "--fast"], &["status"], &["ddl", "duckdb"], &["config"]] {
        workspace.run(command).expect(0);
    }
    assert_eq!(stamp(&workspace), before);
}

#[test]
fn the_same_input_gives_the_same_bytes_in_another_archive() {
    let corpus = Plan { seed: 13, lines: 500, files: 1, pad: 0 }.corpus();
    let objects = ["parquet", "ndjson"].map(|format| {
        let archives = [(); 2].map(|()| {
            let mut workspace = Workspace::new();
            workspace.set("archive.format", &format!("{format:?}")).set("archive.compression", "\"zstd\"");
            let file = workspace.feed("a.ndjson", &corpus.files[0]);
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_793_500_000);
            fs::File::options().append(true).open(file).unwrap().set_modified(time).unwrap();
            workspace.catch_up();
            let names = [workspace.objects("events"), workspace.objects("rejected")].concat();
            let with_bytes = |name: String| (fs::read(workspace.archive().join(&name)).unwrap(), name);
            names.into_iter().map(with_bytes).collect::<Vec<_>>()
        });
        assert!(archives[0] == archives[1], "{format}");
        archives[0].len()
    });
    assert!(objects.iter().all(|count| *count > 3), "{objects:?}");
}

#[test]
fn killed_while_claims_are_made_anew_no_copy_gets_in() {
    let mut workspace = Workspace::new();
    workspace.set("batch.max_records", "2000");
    let mut corpus = Plan { seed: 14, lines: 12_000, files: 2, pad: 0 }.corpus();
    corpus.write_to(&workspace.input());
    workspace.catch_up();
    feed_copies(&workspace, &mut corpus, 5);
    for round in 0..6_u64 {
        // Where the one before was killed early, there are none.
        let _ = fs::remove_dir_all(workspace.state().join("claims"));
        let process = workspace.start(&["catch-up"]);
        std::thread::sleep(std::time::Duration::from_millis(30 + 60 * round));
        process.kill();
        let process = workspace.start(&["rebuild-state"]);
        std::thread::sleep(std::time::Duration::from_millis(20 + 50 * round));
        process.kill();
    }
    workspace.catch_up();
    corpus.truth.assert_holds(&workspace.archived());
    workspace.verify();
}

#[test]
fn a_state_from_a_backup_changes_nothing_until_it_is_made_anew() {
    let workspace = Workspace::new();
    let line = |number: u64| Record::new(number).line(0) + "\n";
    let file = workspace.feed("f", line(1));
    workspace.catch_up();
    let backup = workspace.state().with_extension("backup");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        assert!(std::process::Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
    };
    copy(&workspace.state(), &backup);
    fs::write(&file, [line(1), line(2)].concat()).unwrap();
    workspace.catch_up();
    fs::write(&file, [line(1), line(2), line(3)].concat()).unwrap();
    // In another window, so that the objects' keys are others.
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_793_500_000);
    fs::File::options().append(true).open(&file).unwrap().set_modified(time).unwrap();
    fs::remove_dir_all(workspace.state()).unwrap();
    copy(&backup, &workspace.state());
    let before = files_below(&workspace.archive());

    let error = workspace.run(&["catch-up", "--json"]).expect(1).json()["failures"][0]["error"].to_string();

    assert!(error.contains("older than the archive") && error.contains("rebuild-state"), "{error}");
    assert_eq!(files_below(&workspace.archive()), before);
    let found = workspace.run(&["verify", "--json"]).expect(1).json();
    let detail = found["findings"][0]["detail"].as_str().unwrap();
    assert!(detail.ends_with("it fits manifest 0: it names it, and goes on where that ends"), "{found:#}");
    workspace.run(&["rebuild-state"]).expect(0);
    assert_eq!(workspace.catch_up()["archived"], 1);
    assert_eq!(workspace.archived_rows(), 3);
    workspace.verify();
}

/// The way that docs/operations.md shows.
#[test]
fn a_manifest_that_somebody_put_is_named_and_without_it_the_shard_goes_on() {
    let workspace = Workspace::new();
    let line = |number| Record::new(number).line(0) + "\n";
    workspace.feed("a.ndjson", line(1));
    workspace.catch_up();
    let key = "_manifests/a.ndjson/00000001.json";
    fs::write(workspace.archive().join(key), "{}").unwrap();
    workspace.append("a.ndjson", line(2));
    let said = workspace.run(&["catch-up"]).expect(1).stderr;
    assert!(said.contains(&format!("{key} stands in the archive already")), "{said}");
    assert!(said.contains("or somebody put it there (verify names it;"), "{said}");
    let found = workspace.run(&["verify", "--json"]).expect(1).json();
    assert_eq!((&found["findings"][0]["kind"], &found["findings"][0]["key"]), (&json!("unlisted_object"), &json!(key)));
    let detail = found["findings"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("it does not fit the chain: it cannot be read as a manifest"), "{detail}");
    assert!(
        workspace.run(&["rebuild-state"]).expect(1).stderr.contains(&format!("{key} cannot be read as a manifest"))
    );

    fs::remove_file(workspace.archive().join(key)).unwrap();
    assert_eq!(workspace.catch_up()["archived"], 1);
    workspace.verify();
}

/// The report of a whole proof, kept outside; the workspace's state is lost since.
fn kept_and_lost() -> (Workspace, PathBuf) {
    let (workspace, _) = archived_once();
    // Nothing of it is archived, so that its row is made by a worker.
    workspace.feed("empty.ndjson", "");
    let kept = workspace.path("kept.json");
    fs::write(&kept, workspace.run(&["verify", "--json"]).expect(0).stdout).unwrap();
    fs::remove_dir_all(workspace.state()).unwrap();
    (workspace, kept)
}

#[test]
fn after_a_lost_state_proofs_are_whole_again_once_it_was_compared_with_a_report_that_was_kept() {
    let (mut workspace, kept) = kept_and_lost();
    let against = ["--against", kept.to_str().unwrap()];
    workspace.catch_up();
    let report = workspace.verify();
    assert_eq!((&report["tail_proved"], &report["against"]), (&json!(false), &Value::Null));
    // A single run that is compared is whole.
    let report = workspace.run(&[&["verify", "--json"][..], &against].concat()).expect(0).json();
    assert_eq!((&report["tail_proved"], &report["against"]), (&json!(true), &read_json(&kept)["began"]), "{report:#}");
    assert_eq!(workspace.verify()["tail_proved"], false, "nothing was written down");

    let text = workspace.run(&[&["rebuild-state"][..], &against].concat()).expect(0).stdout;
    assert!(text.contains("; the archive has all that the report of 20"), "{text}");
    workspace.append("part-0.ndjson", Record::new(1 << 53).line(0) + "\n");
    workspace.catch_up();
    let text = workspace.run(&["verify", "--record"]).expect(0).stdout;
    assert!(text.contains("tail      proved against the lease rows\n"), "{text}");
    assert!(text.contains("note      3 lease rows made anew from the archive: all that the report of 20"), "{text}");

    // What ends the alert AuditlakeVerifyOverdue.
    workspace.set("metrics.listen", "\"127.0.0.1:0\"");
    let daemon = workspace.start(&["run"]);
    let address = served_at(&daemon);
    let whole = "\nauditlake_verify_last_whole_timestamp_seconds ";
    wait_until("a whole proof is known", || get(&address, "/metrics").body.contains(whole));
    assert!(get(&address, "/").body.contains("<b class=\"good\">intact</b>"));
    daemon.signal("TERM");
    daemon.wait().expect(0);

    // Rows that are lost again were not compared.
    fs::remove_file(workspace.state().join("leases/part-1.ndjson.json")).unwrap();
    fs::remove_file(workspace.state().join("leases/empty.ndjson.json")).unwrap();
    workspace.catch_up();
    let report = workspace.verify();
    assert_eq!(report["tail_proved"], false, "{report:#}");
    assert_eq!(report["notes"].as_array().unwrap().len(), 3, "{report:#}");
}

#[test]
fn an_archive_that_was_cut_since_the_report_was_kept_is_no_state_to_be_made_from() {
    let (workspace, kept) = kept_and_lost();
    let newest = workspace.objects("_manifests").pop().unwrap();
    fs::remove_file(workspace.archive().join(&newest)).unwrap();
    let arguments = ["rebuild-state", "--against", kept.to_str().unwrap()];
    let error = workspace.run(&arguments).expect(1).stderr;
    assert!(error.contains(&format!("{newest} is missing, and stands in the report of 20")), "{error}");
    assert!(!workspace.state().join("leases").exists(), "nothing was made");

    // Without it, nothing tells.
    workspace.run(&["rebuild-state"]).expect(0);
    workspace.run(&["verify"]).expect(0);
    let report = workspace.run(&["verify", "--json", "--against", kept.to_str().unwrap()]).expect(1).json();
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(
        (findings.len(), &findings[0]["kind"], &findings[0]["key"]),
        (1, &json!("truncated_tail"), &json!(newest))
    );
}

#[test]
fn what_bears_no_witness_is_refused_as_an_argument() {
    let (workspace, kept) = kept_and_lost();
    let other = workspace.path("other.json");
    for (change, words) in [
        ("tail_proved", "it bears no witness"),
        ("archive_digest", "it was changed since"),
        ("archive_id", "is a report of the archive 00000000-"),
        ("began", "is not what `verify --json` prints"),
    ] {
        let mut report = read_json(&kept);
        report[change] = match change {
            "tail_proved" => json!(false),
            "archive_id" => json!("00000000-0000-0000-0000-000000000000"),
            _ => Value::Null,
        };
        fs::write(&other, report.to_string()).unwrap();
        for command in ["verify", "rebuild-state"] {
            let error = workspace.run(&[command, "--against", other.to_str().unwrap()]).expect(2).stderr;
            assert!(error.contains(&format!("--against {}: ", other.display())) && error.contains(words), "{error}");
        }
    }
    let error = workspace.run(&["verify", "--against", "nowhere.json"]).expect(2).stderr;
    assert!(error.contains("--against nowhere.json: No such file"), "{error}");
}
