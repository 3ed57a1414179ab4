//! `run`: follows its files, closes windows by the clock, stops when it is told to.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use crate::support::{Plan, Process, Record, Truth, Workspace, signal, wait_until};

fn lines(truth: &mut Truth, numbers: std::ops::Range<u64>) -> String {
    numbers
        .map(|number| Record::new(1 << 51 | number))
        .inspect(|record| truth.add(*record))
        .map(|r| r.line(0) + "\n")
        .collect()
}

fn follow(window: &str) -> (Workspace, Truth) {
    let mut workspace = Workspace::new();
    workspace.set("batch.window", &format!("{window:?}"));
    (workspace, Truth::default())
}

/// A daemon that has archived five lines of `a.ndjson`.
fn five_archived() -> (Workspace, Truth, Process) {
    let (workspace, mut truth) = follow("2s");
    workspace.feed("a.ndjson", lines(&mut truth, 0..5));
    let process = workspace.start(&["run"]);
    wait_until("what stood there", || workspace.archived_rows() == 5);
    (workspace, truth, process)
}

/// Stops it by SIGTERM; it must end well and soon.
#[track_caller]
fn stop(process: Process) {
    process.signal("TERM");
    let asked = Instant::now();
    process.wait().expect(0);
    assert!(asked.elapsed() < Duration::from_secs(25), "it took {:?} to stop", asked.elapsed());
}

#[test]
fn appended_lines_and_new_files_are_archived() {
    let (workspace, mut truth, process) = five_archived();
    workspace.append("a.ndjson", lines(&mut truth, 5..8));
    wait_until("what was appended", || workspace.archived_rows() == 8);
    workspace.feed("2026/b.ndjson", lines(&mut truth, 8..10));
    workspace.feed("c.ndjson.gz", crate::main_job::gzip(lines(&mut truth, 10..12).as_bytes()));
    wait_until("new files", || workspace.archived_rows() == 12);
    workspace.verify();
    stop(process);
    truth.assert_holds(&workspace.archived());
    workspace.verify();
}

#[test]
fn status_tells_an_owner_that_is_at_work_from_one_that_died() {
    let (workspace, mut truth, process) = five_archived();
    let shard = || workspace.run(&["status", "--json"]).expect(0).json()["shards"][0].clone();
    wait_until("it is caught up", || shard()["state"] == "caught up");
    assert_eq!(shard()["owner_alive"], true);
    process.signal("KILL");
    process.wait();
    workspace.append("a.ndjson", lines(&mut truth, 5..8));
    let left = shard();
    assert!(left["owner"].is_string(), "{left:#}");
    assert_eq!((&left["state"], &left["owner_alive"]), (&json!("unowned"), &json!(false)), "{left:#}");
    let text = workspace.run(&["status"]).expect(0).stdout;
    assert!(text.contains(&format!("{} (gone)", left["owner"].as_str().unwrap())), "{text}");
    workspace.catch_up();
    truth.assert_holds(&workspace.archived());
}

#[test]
fn three_records_and_then_silence_are_archived_when_their_window_ends() {
    let (workspace, mut truth) = follow("4s");
    let process = workspace.start(&["run"]);
    wait_until("it has started", || process.stderr().contains("\"started\""));
    let path = workspace.feed("a.ndjson", lines(&mut truth, 0..3));
    let arrival = path.metadata().unwrap().modified().unwrap();
    wait_until("their object appears", || workspace.archived_rows() == 3);
    let appeared = SystemTime::now();

    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let window_end = (seconds(arrival) / 4 + 1) * 4;
    assert!(seconds(appeared) >= window_end, "it closed {} s early", window_end - seconds(appeared));
    // The clock closes it, not the next record: there is none.
    assert!(seconds(appeared) <= window_end + 20, "{} s late", seconds(appeared) - window_end);
    assert_eq!(
        workspace.objects("events").iter().filter(|key| key.contains("a.ndjson-00000000")).count(),
        workspace.objects("events").len()
    );
    stop(process);
    truth.assert_holds(&workspace.archived());
}

#[test]
fn either_signal_in_the_middle_of_a_window_commits_what_was_read() {
    for name in ["TERM", "INT"] {
        let (workspace, mut truth) = follow("1d");
        workspace.feed("a.ndjson", lines(&mut truth, 0..50));
        let process = workspace.start(&["run"]);
        process.wait_until_caught_up("a.ndjson");
        assert_eq!(workspace.manifests(), 0, "the window is open");
        let asked = Instant::now();
        process.signal(name);
        let done = process.wait().expect(0);
        assert!(asked.elapsed() < Duration::from_secs(25), "{name}");
        assert!(done.stderr.contains("stopping: open batches are committed"), "{}", done.stderr);
        truth.assert_holds(&workspace.archived());
        workspace.verify();
        let lease = workspace.lease("a.ndjson");
        assert_eq!((&lease["pending"], &lease["owner"], &lease["batch_seq"]), (&json!(null), &json!(null), &json!(1)));
    }
}

/// The process that `unshare` runs as the first of its namespace, as it is called outside.
fn inner(outer: u32) -> Option<u32> {
    fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?.split_whitespace().next()?.parse().ok()
}

#[test]
fn as_the_first_process_of_a_container_it_stops_when_it_is_told_to() {
    let (workspace, mut truth) = follow("1d");
    let plain = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let is_allowed =
        |options: &[&str]| Command::new("unshare").args(options).arg("true").status().is_ok_and(|s| s.success());
    let mut options = plain.to_vec();
    if !is_allowed(&options) {
        options.splice(0..0, ["--user", "--map-root-user"]);
        assert!(is_allowed(&options), "no PID namespace can be made here, so PID 1 can't be tested");
    }
    for (name, fed) in [("TERM", 0..50), ("INT", 50..80)] {
        workspace.append("a.ndjson", lines(&mut truth, fed));
        let mut command = Command::new("unshare");
        command.args(&options).arg(env!("CARGO_BIN_EXE_auditlake")).args(["run", "--config"]).arg(workspace.config());
        let process = Process::start(&mut command);
        process.wait_until_caught_up("a.ndjson");
        signal(inner(process.id()).unwrap(), name);
        process.wait().expect(0);
        truth.assert_holds(&workspace.archived());
        workspace.verify();
    }
}

#[test]
fn a_line_without_its_end_is_waited_for() {
    let (workspace, mut truth) = follow("1s");
    let whole = lines(&mut truth, 0..2);
    let (first, second) = whole.split_at(whole.len() - 100);
    workspace.feed("a.ndjson", first);
    let process = workspace.start(&["run"]);
    wait_until("the whole line is archived", || workspace.archived_rows() == 1);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((workspace.archived_rows(), workspace.objects("rejected").len()), (1, 0));
    workspace.append("a.ndjson", second);
    wait_until("the other one too", || workspace.archived_rows() == 2);
    stop(process);
    truth.assert_holds(&workspace.archived());
    workspace.verify();
}

#[test]
fn a_line_without_its_end_that_was_stopped_upon_is_read_whole_the_next_time() {
    let (workspace, mut truth) = follow("1d");
    let whole = lines(&mut truth, 0..500);
    let (first, second) = whole.split_at(whole.len() - 100);
    workspace.feed("a.ndjson", first);
    let process = workspace.start(&["run"]);
    process.wait_until_caught_up("a.ndjson");
    stop(process);
    assert_eq!(workspace.archived_rows(), 499);
    workspace.append("a.ndjson", second);
    workspace.catch_up();
    truth.assert_holds(&workspace.archived());
    workspace.verify();
}

#[test]
fn catch_up_that_is_interrupted_ends_cleanly_and_the_next_one_completes() {
    for name in ["INT", "TERM"] {
        let mut workspace = Workspace::new();
        workspace.set("batch.max_records", "500");
        let corpus = Plan { seed: 30, lines: 60_000, files: 3, pad: 0 }.corpus();
        corpus.write_to(&workspace.input());
        let process = workspace.start(&["catch-up", "--json"]);
        wait_until("some batches are committed", || workspace.manifests() >= 3);
        process.signal(name);
        let stopped = process.wait().expect(1).json();
        assert_eq!(
            (&stopped["stopped"], &stopped["complete"], &stopped["failures"]),
            (&json!(true), &json!(false), &json!([]))
        );
        assert_eq!(stopped["archived"], workspace.archived_rows());
        assert_eq!(workspace.verify()["in_flight"], 0);

        let rest = workspace.catch_up();
        assert_eq!(stopped["archived"].as_u64().unwrap() + rest["archived"].as_u64().unwrap(), corpus.truth.archived());
        corpus.truth.assert_holds(&workspace.archived());
        workspace.verify();
    }
}

#[test]
fn a_file_that_was_replaced_stops_its_shard_alone_and_the_daemon_says_which() {
    let (workspace, mut truth) = follow("1s");
    workspace.feed("a.ndjson", lines(&mut truth, 0..5));
    let process = workspace.start(&["run"]);
    wait_until("the first file", || workspace.archived_rows() == 5);
    workspace.feed("a.ndjson", "{}\n");
    wait_until("it says so", || process.stderr().contains("a.ndjson: the file shrank or was replaced"));
    workspace.feed("b.ndjson", lines(&mut truth, 5..9));
    wait_until("another file", || workspace.archived_rows() == 9);
    process.signal("TERM");
    process.wait().expect(0);
    truth.assert_holds(&workspace.archived());
    workspace.verify();
}

#[test]
fn a_file_that_went_before_it_was_archived_is_a_gap_that_is_told_once() {
    let (workspace, mut truth) = follow("1d");
    let path = workspace.feed("a.ndjson", lines(&mut truth, 0..50));
    let process = workspace.start(&["run"]);
    process.wait_until_caught_up("a.ndjson");
    process.kill();
    let content = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();

    let done = workspace.run(&["catch-up", "--json"]).expect(3);
    assert_eq!((&done.json()["gaps"], &done.json()["complete"]), (&json!(1), &json!(false)));
    assert!(done.stderr.contains("the source no longer has this shard"), "{}", done.stderr);
    assert_eq!(workspace.run(&["catch-up", "--json"]).expect(0).json()["gaps"], 0);
    assert_eq!(workspace.verify()["gaps"].as_array().unwrap().len(), 1);

    workspace.feed("a.ndjson", content);
    workspace.catch_up();
    truth.assert_holds(&workspace.archived());
    workspace.verify();
}
