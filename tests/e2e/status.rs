//! What `status` says where something does not answer, or is not there.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use auditlake_test_servers::aws::Endpoints;
use serde_json::{Value, json};

use crate::support::{Done, Process, Record, Workspace, finish, wait_until};

/// Takes connections and answers none of them; its address.
fn silent_server() -> (TcpListener, String) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    (server, url)
}

fn with_record() -> Workspace {
    let workspace = Workspace::new();
    workspace.feed("a.ndjson", Record::new(1).line(0) + "\n");
    workspace
}

/// What a command says of services that do not answer, and that it says so in time.
#[track_caller]
fn ask(workspace: &Workspace, arguments: &[&str], endpoints: &Endpoints) -> Done {
    let mut asking = workspace.command(arguments);
    endpoints.set_for(&mut asking);
    let began = Instant::now();
    let done = finish(&mut asking).expect(1);
    assert!(began.elapsed() < Duration::from_secs(35), "{:?}", began.elapsed());
    done
}

fn in_bucket(workspace: &mut Workspace) {
    workspace.set("archive.kind", "\"s3\"").set("archive.s3.bucket", "\"b\"");
}

#[test]
fn a_bucket_that_does_not_answer_is_named_and_the_rest_is_shown() {
    let mut workspace = with_record();
    workspace.catch_up();
    in_bucket(&mut workspace);
    let (_server, url) = silent_server();
    let endpoints = Endpoints { s3: Some(url.clone()), ..Endpoints::default() };
    let done = ask(&workspace, &["status"], &endpoints);
    let said = format!("archive.s3 ({url}): no answer within 15 s");
    assert_eq!(done.stderr, format!("auditlake: {said}\n"));
    assert!(done.stdout.contains("archive unknown\n") && done.stdout.contains(&format!("\nnot read: {said}\n")));
    assert!(done.stdout.contains("a.ndjson  caught up"), "{}", done.stdout);
}

#[test]
fn who_is_waited_for_at_a_start_is_named() {
    let mut workspace = with_record();
    in_bucket(&mut workspace);
    let (_server, url) = silent_server();
    let endpoints = Endpoints { s3: Some(url.clone()), ..Endpoints::default() };
    let begun = ["verify", "rebuild-state", "catch-up"].map(|command| {
        let mut asking = workspace.command(&[command]);
        endpoints.set_for(&mut asking);
        asking.env("AUDITLAKE__STATE__EMBEDDED__PATH", command);
        (command, Process::start(&mut asking))
    });
    let said = format!("archive.s3 ({url}): not ready after 15 s; still trying");
    for (command, process) in begun {
        wait_until(&format!("{command} says whom it waits for"), || process.stderr().contains(&said));
        assert!(process.kill());
    }
}

#[test]
fn an_endpoint_of_the_bucket_that_refuses_is_named() {
    let mut workspace = with_record();
    in_bucket(&mut workspace);
    let endpoints = Endpoints { s3: Some("http://127.0.0.1:1".into()), ..Endpoints::default() };
    let done = ask(&workspace, &["verify"], &endpoints);
    assert!(done.stderr.contains("archive.s3 (http://127.0.0.1:1): s3://b: "), "{}", done.stderr);
}

#[test]
fn of_many_that_do_not_answer_each_is_named() {
    let mut workspace = Workspace::new();
    in_bucket(&mut workspace);
    workspace.set("state.kind", "\"dynamodb\"").set("source.kind", "\"kinesis\"").set("source.kinesis.stream", "\"s\"");
    let (_server, url) = silent_server();
    let (s3, dynamodb, kinesis) = (Some(url.clone()), Some(url.clone()), Some(url.clone()));
    let done = ask(&workspace, &["status", "--json"], &Endpoints { s3, dynamodb, kinesis });
    let status: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&status["archive_id"], &status["shards"]), (&Value::Null, &json!([])));
    let unread = status["unread"].as_array().unwrap();
    assert_eq!(unread.len(), 3, "{status:#}");
    for part in ["archive.s3", "state.dynamodb", "source.kinesis"] {
        let named = |said: &&Value| said.as_str().unwrap().starts_with(&format!("{part} ({url}): "));
        assert_eq!(unread.iter().filter(named).count(), 1, "{status:#}");
        assert!(done.stderr.contains(&format!("auditlake: {part} ({url}): ")), "{}", done.stderr);
    }
}

#[test]
fn shards_whose_rows_could_not_be_read_are_not_called_waiting() {
    let mut workspace = with_record();
    workspace.catch_up();
    workspace.set("state.kind", "\"dynamodb\"");
    let (_server, url) = silent_server();
    let done = ask(&workspace, &["status"], &Endpoints { dynamodb: Some(url.clone()), ..Endpoints::default() });
    assert!(done.stderr.starts_with(&format!("auditlake: state.dynamodb ({url}): ")), "{}", done.stderr);
    assert!(done.stdout.contains("a.ndjson  unknown"), "{}", done.stdout);
}

#[test]
fn check_names_who_does_not_answer_and_asks_no_more_of_it() {
    let mut workspace = with_record();
    in_bucket(&mut workspace);
    let (_server, url) = silent_server();
    let done = ask(&workspace, &["check"], &Endpoints { s3: Some(url.clone()), ..Endpoints::default() });
    assert!(done.stdout.contains(&format!("archive.s3 ({url}): no answer within 30 s\n")), "{}", done.stdout);
    assert!(done.stdout.contains("- list objects  (s3:ListBucket)  not tried"), "{}", done.stdout);
}

#[test]
fn an_archive_whose_identity_is_gone_is_not_called_none_yet() {
    let workspace = with_record();
    assert!(workspace.run(&["status"]).expect(0).stdout.starts_with("archive none yet\n"));
    workspace.catch_up();
    fs::remove_file(workspace.archive().join("_auditlake.json")).unwrap();
    let said = workspace.run(&["status"]).expect(2).stderr;
    assert!(
        said.contains("not an archive: there are other objects (") && said.contains("but no _auditlake.json"),
        "{said}"
    );
    workspace.run(&["verify"]).expect(2);

    // And where nothing is left of it but the state.
    fs::remove_dir_all(workspace.archive()).unwrap();
    let said = workspace.run(&["status"]).expect(2).stderr;
    assert!(said.contains(", whose state is in the directory `"), "{said}");
    assert!(said.ends_with("is not there; is its disk mounted?\n"), "{said}");
    fs::create_dir(workspace.archive()).unwrap();
    fs::write(workspace.archive().join("_auditlake.json"), "{").unwrap();
    let done = workspace.run(&["status"]).expect(1);
    assert!(done.stderr.contains("_auditlake.json is damaged: "), "{}", done.stderr);
    assert!(done.stdout.contains("a.ndjson  caught up"), "{}", done.stdout);
}

#[test]
fn an_archive_whose_state_is_gone_is_not_called_new() {
    let workspace = with_record();
    workspace.run(&["check"]).expect(0);
    fs::remove_dir_all(workspace.state()).unwrap();
    let text = workspace.run(&["status"]).expect(0).stdout;
    assert!(text.contains("a.ndjson  waiting") && !text.contains("not read"), "nothing was archived yet: {text}");

    workspace.catch_up();
    fs::remove_dir_all(workspace.state()).unwrap();
    let done = workspace.run(&["status"]).expect(1);
    let said = format!(
        "state.embedded.path: the directory `{}`: there are no lease rows, though",
        workspace.state().display()
    );
    assert!(done.stderr.contains(&said) && done.stderr.contains("`auditlake rebuild-state`"), "{}", done.stderr);
    assert!(done.stdout.contains("a.ndjson  unknown"), "{}", done.stdout);
    assert!(done.stdout.contains(&format!("not read: {said}")), "{}", done.stdout);

    fs::create_dir_all(workspace.state().join("leases")).unwrap();
    workspace.run(&["status"]).expect(1);
    workspace.run(&["rebuild-state"]).expect(0);
    assert!(workspace.run(&["status"]).expect(0).stdout.contains("a.ndjson  caught up"));
}

#[test]
fn a_shard_that_stopped_says_at_what_until_it_is_past_it() {
    let workspace = with_record();
    let path = workspace.input().join("a.ndjson");
    workspace.catch_up();
    let sound = fs::read(&path).unwrap();
    fs::write(&path, Record::new(2).line(0).repeat(2) + "\n").unwrap();
    let summary = workspace.run(&["catch-up", "--json"]).expect(1);
    let summary: Value = serde_json::from_str(&summary.stdout).unwrap();
    let error = summary["failures"][0]["error"].as_str().unwrap();

    let status = workspace.run(&["status", "--json"]).expect(0).json();
    let shard = &status["shards"][0];
    assert_eq!((&shard["state"], &shard["stopped"]["error"]), (&json!("stopped"), &json!(error)));
    let text = workspace.run(&["status"]).expect(0).stdout;
    assert!(text.contains("\nstopped: a.ndjson, at 20") && text.contains(&format!("Z: {error}\n")), "{text}");

    fs::write(&path, [&sound[..], (Record::new(3).line(0) + "\n").as_bytes()].concat()).unwrap();
    workspace.catch_up();
    let shard = workspace.run(&["status", "--json"]).expect(0).json()["shards"][0].clone();
    assert_eq!((&shard["state"], &shard["stopped"]), (&json!("caught up"), &Value::Null));
}
