//! What a running worker answers over HTTP: metrics, health, and the page.

use std::fs;
use std::net::TcpListener;

use crate::support::{Answer, Plan, Process, Workspace, get, served_at, wait_until};

/// A daemon that serves on a port of its own.
struct Served {
    workspace: Workspace,
    process: Process,
    address: String,
}

impl Served {
    fn start(mut workspace: Workspace) -> Self {
        workspace.set("metrics.listen", "\"127.0.0.1:0\"");
        let process = workspace.start(&["run"]);
        let address = served_at(&process);
        Self { workspace, process, address }
    }

    #[track_caller]
    fn get(&self, path: &str) -> Answer {
        get(&self.address, path)
    }

    /// The value of a series, written as it is served.
    #[track_caller]
    fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").body;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
        value.map(|value| value.parse().unwrap())
    }

    #[track_caller]
    fn wait_for_metric(&self, series: &str, value: f64) {
        wait_until(&format!("{series} is {value}"), || {
            self.metric(series).is_some_and(|found| (found - value).abs() < f64::EPSILON)
        });
    }
}

fn series(name: &str, shard: &str) -> String {
    format!("auditlake_{name}{{shard=\"{shard}\"}}")
}

#[test]
fn the_metrics_say_what_was_archived_and_what_was_not() {
    let mut workspace = Workspace::new();
    workspace.set("batch.window", "\"1s\"");
    let corpus = Plan { seed: 71, lines: 3_000, files: 2, pad: 0 }.corpus();
    corpus.write_to(&workspace.input());
    let served = Served::start(workspace);
    let truth = &corpus.truth;
    served.wait_for_metric("auditlake_records_archived_total", truth.archived() as f64);
    served.wait_for_metric("auditlake_records_read_total", truth.records as f64);
    served.wait_for_metric("auditlake_leases_held", 2.0);
    wait_until("it is ready", || served.get("/readyz").status == 200);
    assert_eq!(served.get("/livez").body, "alive\n");
    served.workspace.verify();

    let metrics = served.get("/metrics");
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    let rejected = metrics.body.lines().filter(|line| line.starts_with("auditlake_records_rejected_total{"));
    let rejected: f64 = rejected.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    let dropped = served.metric("auditlake_records_duplicate_total").unwrap();
    let all = rejected + dropped + truth.archived() as f64;
    assert!((all - truth.records as f64).abs() < f64::EPSILON, "{all} of {}", truth.records);
    let objects = served.workspace.objects("events").len() as f64;
    assert_eq!(served.metric("auditlake_objects_total{kind=\"events\"}"), Some(objects));
    let manifests = served.workspace.manifests() as f64;
    assert_eq!(served.metric("auditlake_commit_seconds_count"), Some(manifests));
    assert!(served.metric(&series("archive_lag_seconds", "part-0.ndjson")).unwrap() < 60.0);
}

#[test]
fn why_there_is_no_file_yet_has_an_answer() {
    let mut workspace = Workspace::new();
    workspace.set("batch.window", "\"1d\"");
    Plan { seed: 72, lines: 500, files: 1, pad: 0 }.corpus().write_to(&workspace.input());
    let served = Served::start(workspace);
    let shard = "part-0.ndjson";
    wait_until("it is read", || {
        served.metric(&series("buffered_records", shard)).is_some_and(|records| records > 400.0)
    });
    assert!(served.metric(&series("buffered_bytes", shard)).unwrap() > 10_000.0);
    assert!(served.metric(&series("window_age_seconds", shard)).is_some());
    let next = served.metric(&series("next_cut_seconds", shard)).unwrap();
    assert!(next > 0.0 && next <= 86_400.0, "{next}");
    let page = served.get("/").body;
    assert!(page.contains("window age") && page.contains("next cut") && page.contains(shard), "{page}");
}

#[test]
fn a_shard_that_stops_makes_the_worker_unready_until_it_works_again() {
    let workspace = Workspace::new();
    let corpus = Plan { seed: 73, lines: 200, files: 1, pad: 0 }.corpus();
    corpus.write_to(&workspace.input());
    let mut workspace = workspace;
    workspace.set("batch.window", "\"1s\"");
    let foreign = workspace.archive().join("_manifests/part-0.ndjson/00000000.json");
    fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    workspace.run(&["catch-up", "--json"]).expect(0);
    fs::remove_dir_all(workspace.archive().join("_manifests")).unwrap();
    fs::remove_dir_all(workspace.state()).unwrap();

    // Objects of a batch that nothing tells of any more, and that come out otherwise: somebody has to look.
    for key in workspace.objects("events") {
        let path = workspace.archive().join(key);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let served = Served::start(workspace);
    served.wait_for_metric("auditlake_shards_stopped", 1.0);
    let unready = served.get("/readyz");
    assert_eq!(unready.status, 503);
    assert!(unready.body.contains("the shard part-0.ndjson stopped"), "{}", unready.body);
    assert_eq!(served.get("/livez").status, 200, "a restart would help nobody");
    assert!(served.get("/").body.contains("not ready"));

    for key in served.workspace.objects("events") {
        fs::remove_file(served.workspace.archive().join(key)).unwrap();
    }
    wait_until("it works again", || served.get("/readyz").status == 200);
    served.wait_for_metric("auditlake_shards_stopped", 0.0);
}

#[test]
fn the_page_shows_names_as_text_and_no_record() {
    let mut workspace = Workspace::new();
    workspace.set("batch.window", "\"1s\"");
    let record = r#"{"log_id":"secret-log-id","emit_time":"2026-11-20T00:00:00Z","operation":"DeleteUser","principal":{"name":"someone@example.com"}}"#;
    workspace.feed("<script>alert(1)<b>.ndjson", format!("{record}\n"));
    let served = Served::start(workspace);
    served.wait_for_metric("auditlake_records_archived_total", 1.0);
    let page = served.get("/");
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    assert!(page.body.contains("&lt;script&gt;") && !page.body.contains("<script"), "{}", page.body);
    for secret in ["secret-log-id", "someone@example.com"] {
        assert!(!page.body.contains(secret) && !served.get("/metrics").body.contains(secret));
    }
}

#[test]
fn a_recorded_verification_is_shown() {
    let workspace = Workspace::new();
    Plan { seed: 74, lines: 100, files: 1, pad: 0 }.corpus().write_to(&workspace.input());
    workspace.catch_up();
    workspace.run(&["verify", "--record"]).expect(0);
    assert_eq!(workspace.objects("_verify").len(), 1);
    workspace.verify();
    let served = Served::start(workspace);
    served.wait_for_metric("auditlake_verify_last_findings", 0.0);
    assert!(served.metric("auditlake_verify_last_timestamp_seconds").unwrap() > 1.7e9);
    let whole = served.metric("auditlake_verify_last_whole_timestamp_seconds").unwrap();
    let page = served.get("/").body;
    assert!(page.contains("<b class=\"good\">intact</b>") && !page.contains("found damage"), "{page}");

    served.process.signal("TERM");
    served.process.wait().expect(0);
    served.workspace.run(&["verify", "--record", "--fast"]).expect(0);
    let served = Served::start(served.workspace);
    served.wait_for_metric("auditlake_verify_last_findings", 0.0);
    assert!(served.metric("auditlake_verify_last_timestamp_seconds").unwrap() > whole);
    assert_eq!(served.metric("auditlake_verify_last_whole_timestamp_seconds"), Some(whole));
    let page = served.get("/").body;
    assert!(page.contains("nothing found</b>") && page.contains("fast: by size or checksum only"), "{page}");
    assert!(!page.contains("intact"), "{page}");
}

#[test]
fn damage_that_a_weaker_verification_could_not_see_is_shown_as_what_was_found_before() {
    let workspace = Workspace::new();
    Plan { seed: 75, lines: 100, files: 1, pad: 0 }.corpus().write_to(&workspace.input());
    workspace.catch_up();
    let damaged = workspace.objects("events").swap_remove(0);
    let path = workspace.archive().join(&damaged);
    let mut bytes = fs::read(&path).unwrap();
    bytes[10] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    workspace.run(&["verify", "--record"]).expect(1);
    workspace.run(&["verify", "--record", "--fast"]).expect(0);
    let served = Served::start(workspace);
    served.wait_for_metric("auditlake_verify_last_findings", 1.0);
    let page = served.get("/").body;
    for said in ["ago found damage in the archive, and none since then looked at as much:", "; last verify, ", &damaged]
    {
        assert!(page.contains(said), "no {said}: {page}");
    }
}

#[test]
fn the_page_says_what_is_read_where_it_goes_and_since_when_it_counts() {
    let workspace = Workspace::new();
    let (input, archive) = (workspace.input().display().to_string(), workspace.archive().display().to_string());
    let served = Served::start(workspace);
    wait_until("all is open", || served.get("/").body.contains("<dt>source</dt>"));
    let page = served.get("/").body;
    for said in [input, archive, "labelled <code>test</code>".into(), "Since this worker's start, ".into()] {
        assert!(page.contains(&said), "no {said}: {page}");
    }
}

#[test]
fn an_address_that_was_asked_for_must_be_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut workspace = Workspace::new();
    workspace.set("metrics.listen", &format!("\"{address}\""));
    let done = workspace.run(&["run"]).expect(2);
    assert!(done.stderr.contains(&format!("metrics.listen: {address}: ")), "{}", done.stderr);
    workspace.set("metrics.listen", "\"9464\"");
    let done = workspace.run(&["run"]).expect(2);
    assert!(
        done.stderr.trim_end().ends_with("; write an address with its port, as in `127.0.0.1:9464`"),
        "{}",
        done.stderr
    );
    workspace.set("metrics.listen", "\"nowhere\"");
    let done = workspace.run(&["run"]).expect(2);
    assert!(done.stderr.contains("metrics.listen: nowhere: "), "{}", done.stderr);
}

#[test]
fn where_the_usual_address_is_taken_a_worker_works_without() {
    // Somebody has it from here on, this test or another process.
    let _taken = TcpListener::bind("127.0.0.1:9464");
    let mut workspace = Workspace::new();
    workspace.set("metrics.listen", "\"127.0.0.1:9464\"").set("batch.window", "\"1s\"");
    workspace.feed("a.ndjson", "{\"log_id\":\"a\"}\n");
    let process = workspace.start(&["run"]);
    wait_until("it is archived", || workspace.archived_rows() == 1);
    let said = process.stderr();
    let warning = said.lines().find(|line| line.contains("nothing is served: set metrics.listen"));
    assert!(warning.is_some_and(|line| line.contains("127.0.0.1:9464")), "{said}");
}
