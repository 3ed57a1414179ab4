//! Leases and claims in DynamoDB: what was lost is made anew, what is another's is left alone.

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use auditlake_test_servers::aws::{self, Endpoints};
use auditlake_test_servers::{FaultProxy, ministack};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use serde_json::{Value, json};

use crate::support::{Corpus, Done, Plan, Process, Workspace, finish};

type Item = HashMap<String, AttributeValue>;

/// A workspace whose state is in two tables behind a proxy.
struct InTables {
    workspace: Workspace,
    prefix: String,
    proxy: FaultProxy,
    /// What answers behind it, for `DynamoDB` and Kinesis.
    server: String,
    /// Past the proxy.
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl InTables {
    fn new() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let server = runtime.block_on(ministack());
        let prefix = aws::unique_name("e2e");
        let mut workspace = Workspace::new();
        workspace
            .set("state.kind", "\"dynamodb\"")
            .set("state.dynamodb.table_prefix", &format!("{prefix:?}"))
            .set("lease.failover", "\"1s\"")
            .set("batch.max_records", "200");
        let client = aws::dynamodb_client(&server.url);
        let (proxy, server) = (FaultProxy::start_blocking(&server.url), server.url);
        Self { workspace, prefix, proxy, server, client, runtime }
    }

    /// With a corpus that is archived.
    fn archived() -> (Self, Corpus) {
        let world = Self::new();
        let corpus = Plan { seed: 50, lines: 700, files: 2, pad: 0 }.corpus();
        corpus.write_to(&world.workspace.input());
        world.catch_up();
        (world, corpus)
    }

    /// What is read is a stream from now on.
    fn of_a_stream(mut self) -> Self {
        let (stream, kinesis) = (aws::unique_name("e2e"), aws::kinesis_client(&self.server));
        self.runtime.block_on(aws::create_stream(&kinesis, &stream, 1));
        self.workspace.set("source.kind", "\"kinesis\"").set("source.kinesis.stream", &format!("{stream:?}"));
        self
    }

    fn command(&self, workspace: &Workspace, arguments: &[&str]) -> Command {
        let mut command = workspace.command(arguments);
        let kinesis = Some(self.server.clone());
        Endpoints { dynamodb: Some(self.proxy.url().to_owned()), kinesis, s3: None }.set_for(&mut command);
        command
    }

    fn run(&self, arguments: &[&str]) -> Done {
        finish(&mut self.command(&self.workspace, arguments))
    }

    #[track_caller]
    fn catch_up(&self) -> Value {
        self.run(&["catch-up", "--json"]).expect(0).json()
    }

    /// The report of a proof that finds nothing.
    #[track_caller]
    fn verify(&self) -> Value {
        self.run(&["verify", "--json"]).proof()
    }

    /// Copies of all that is archived, in another file: none may get in.
    fn feed_copies(&self, corpus: &mut Corpus) {
        corpus.truth.rejects.values_mut().for_each(|times| *times *= 2);
        self.workspace.feed("copies.ndjson", corpus.files.concat());
    }

    fn table(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn drop_table(&self, name: &str) {
        self.runtime.block_on(self.client.delete_table().table_name(self.table(name)).send()).unwrap();
    }

    fn items(&self, table: &str) -> Vec<Item> {
        let scan = self.client.scan().table_name(table).into_paginator().items().send();
        self.runtime.block_on(scan.collect::<Result<Vec<_>, _>>()).unwrap()
    }

    fn put(&self, table: &str, item: Item) {
        self.runtime.block_on(self.client.put_item().table_name(table).set_item(Some(item)).send()).unwrap();
    }

    /// The lease table of another application, in the Kinesis Client Library's layout.
    fn kcl_table(&self, rows: &[Item]) -> String {
        let table = self.table("kcl");
        let key = KeySchemaElement::builder().attribute_name("leaseKey").key_type(KeyType::Hash).build().unwrap();
        let typed = AttributeDefinition::builder().attribute_name("leaseKey").attribute_type(ScalarAttributeType::S);
        let create = self.client.create_table().table_name(&table).key_schema(key);
        let create = create.attribute_definitions(typed.build().unwrap()).billing_mode(BillingMode::PayPerRequest);
        self.runtime.block_on(create.send()).unwrap();
        for row in rows {
            self.put(&table, row.clone());
        }
        table
    }
}

fn kcl_row(shard: &str, counter: u64, checkpoint: &str, parent: Option<&str>) -> Item {
    let s = |text: &str| AttributeValue::S(text.to_owned());
    let n = |number: u64| AttributeValue::N(number.to_string());
    let mut row = HashMap::from([
        ("leaseKey".to_owned(), s(shard)),
        ("leaseOwner".to_owned(), s("kcl-worker-7")),
        ("leaseCounter".to_owned(), n(counter)),
        ("checkpoint".to_owned(), s(checkpoint)),
        ("checkpointSubSequenceNumber".to_owned(), n(2)),
        ("ownerSwitchesSinceCheckpoint".to_owned(), n(0)),
        ("throughputKBps".to_owned(), AttributeValue::N("3.5".to_owned())),
    ]);
    if let Some(parent) = parent {
        row.insert("parentShardId".to_owned(), AttributeValue::Ss(vec![parent.to_owned()]));
    }
    row
}

#[test]
fn state_in_tables_archives_once_and_shows_its_rows_to_those_who_know_the_library() {
    let (mut world, mut corpus) = InTables::archived();
    assert_eq!(world.catch_up()["batches"], json!(0));
    world.feed_copies(&mut corpus);
    assert_eq!(world.catch_up()["archived"], json!(0));
    corpus.truth.assert_holds(&world.workspace.archived());
    assert_eq!(world.verify()["tail_proved"], json!(true));

    let rows = world.items(&world.table("leases"));
    assert_eq!(rows.len(), 3);
    for row in &rows {
        assert!(row["leaseCounter"].is_n() && row["checkpoint"].is_s() && row["checkpointSubSequenceNumber"].is_n());
        assert!(!row.contains_key("leaseOwner"), "released: {row:?}");
    }
    let status = world.run(&["status", "--json"]).expect(0).json();
    let shown: Vec<&Value> = status["shards"].as_array().unwrap().iter().map(|shard| &shard["state"]).collect();
    assert_eq!(shown, ["caught up"; 3]);
    assert!(!world.workspace.state().exists(), "nothing is kept on the disk");
    world.workspace.set("state.dynamodb.table_prefix", &format!("{:?}", aws::unique_name("none")));
    let status = world.run(&["status", "--json"]).expect(1).json();
    assert!(status["unread"][0].as_str().unwrap().contains("-leases is not there"), "{status}");
    let shown: Vec<&Value> = status["shards"].as_array().unwrap().iter().map(|shard| &shard["state"]).collect();
    assert_eq!(shown, ["unknown"; 3]);
}

#[test]
fn tables_of_one_archive_are_not_used_for_another() {
    let (world, _) = InTables::archived();
    let ours = fs::read_to_string(world.workspace.archive().join("_auditlake.json")).unwrap();
    let ours: Value = serde_json::from_str(&ours).unwrap();
    let rows = world.items(&world.table("leases"));
    let other_workspace = {
        let mut other = Workspace::new();
        other.set("state.kind", "\"dynamodb\"").set("state.dynamodb.table_prefix", &format!("{:?}", world.prefix));
        other.feed("a.ndjson", "{\"log_id\":\"a\"}\n");
        other
    };
    // The archive of the tables is not there: a wrong bucket, or a disk that is not mounted.
    let done = finish(&mut world.command(&other_workspace, &["catch-up"])).expect(2);
    assert!(done.stderr.contains(ours["archive_id"].as_str().unwrap()), "{}", done.stderr);
    // Another one is.
    let mut theirs = ours.clone();
    theirs["archive_id"] = json!("00000000-0000-4000-8000-000000000001");
    fs::create_dir_all(other_workspace.archive()).unwrap();
    fs::write(other_workspace.archive().join("_auditlake.json"), theirs.to_string()).unwrap();
    for command in ["catch-up", "status", "verify", "rebuild-state"] {
        let done = finish(&mut world.command(&other_workspace, &[command])).expect(2);
        for archive in [&ours, &theirs] {
            let id = archive["archive_id"].as_str().unwrap();
            assert!(done.stderr.contains(id), "{command}: {}", done.stderr);
        }
    }
    assert_eq!(world.items(&world.table("leases")).len(), rows.len());
}

#[test]
fn without_its_tables_catch_up_goes_on_from_the_archive_and_archives_no_copy() {
    for dropped in [&["claims"][..], &["leases"], &["leases", "claims"]] {
        let (world, mut corpus) = InTables::archived();
        for table in dropped {
            world.drop_table(table);
        }
        world.feed_copies(&mut corpus);
        assert_eq!(world.catch_up()["archived"], json!(0), "{dropped:?}");
        corpus.truth.assert_holds(&world.workspace.archived());
        world.verify();
    }
}

#[test]
fn claims_that_were_half_made_are_completed_before_anything_claims() {
    let (world, mut corpus) = InTables::archived();
    let table = world.table("claims");
    world.drop_table("claims");
    world.feed_copies(&mut corpus);
    // Killed while it makes them anew.
    let held = world.proxy.on("BatchExecuteStatement").skip(1).hang();
    let process = Process::start(&mut world.command(&world.workspace, &["catch-up"]));
    crate::support::wait_until("claims are being made", || held.hits() > 0);
    assert!(process.kill());
    held.heal();
    let items = world.items(&table);
    let half = items.iter().find(|item| item["id"].as_s().unwrap() == "_auditlake").unwrap();
    assert_eq!(half["complete"], AttributeValue::Bool(false));

    // Several that find it so do it at the same time.
    let mut workers = [(); 3].map(|()| Process::start(&mut world.command(&world.workspace, &["run"])));
    crate::support::wait_until("the copies are read", || {
        workers.iter().any(|worker| worker.stderr().contains("\"caught up\"") && worker.stderr().contains("copies"))
    });
    assert!(workers.iter_mut().all(Process::runs));
    for worker in workers {
        worker.signal("TERM");
        worker.wait();
    }
    assert_eq!(world.catch_up()["archived"], json!(0));
    corpus.truth.assert_holds(&world.workspace.archived());
    world.verify();
}

#[test]
fn who_slept_while_it_made_claims_puts_them_in_the_place_of_no_others() {
    let (world, _) = InTables::archived();
    world.drop_table("claims");
    let held = world.proxy.on("BatchExecuteStatement").hang();
    let sleeper = Process::start(&mut world.command(&world.workspace, &["catch-up"]));
    crate::support::wait_until("claims are being made", || held.hits() > 0);
    sleeper.signal("STOP");
    held.heal();
    world.run(&["rebuild-state"]).expect(0);
    let marker = || {
        let items = world.items(&world.table("claims"));
        items.into_iter().find(|item| item["id"].as_s().unwrap() == "_auditlake").unwrap()
    };
    let standing = marker();
    sleeper.signal("CONT");
    let said = sleeper.wait().expect(1).stderr;
    assert!(said.contains("were made anew by another process meanwhile"), "{said}");
    assert_eq!(marker(), standing);
    assert_eq!(world.catch_up()["archived"], json!(0));
    world.verify();
}

#[test]
fn a_table_of_claims_that_vanishes_under_a_worker_lets_nothing_in_twice() {
    let (world, mut corpus) = InTables::archived();
    let process = Process::start(&mut world.command(&world.workspace, &["run"]));
    crate::support::wait_until("it runs", || process.stderr().contains("started"));
    world.drop_table("claims");
    world.feed_copies(&mut corpus);
    let table = world.table("claims");
    crate::support::wait_until("it says which table is gone", || {
        process.stderr().contains(&format!("the table {table} is not there"))
    });
    process.signal("TERM");
    process.wait();
    assert_eq!(world.catch_up()["archived"], json!(0));
    corpus.truth.assert_holds(&world.workspace.archived());
    world.verify();
}

#[test]
fn rebuild_state_makes_leases_and_claims_from_the_archive_alone() {
    let (world, mut corpus) = InTables::archived();
    let before = world.items(&world.table("leases"));
    // A row that the archive knows nothing of, and one that says too much.
    let stray = before[0].iter().map(|(name, value)| (name.clone(), value.clone()));
    let mut stray: Item = stray.collect();
    for name in ["leaseKey", "auditlake_shard"] {
        stray.insert(name.to_owned(), AttributeValue::S("stray".to_owned()));
    }
    world.put(&world.table("leases"), stray);

    let report = world.run(&["rebuild-state", "--json"]).expect(0).json();
    assert_eq!((&report["shards"], &report["claims"]), (&json!(2), &json!(corpus.truth.archived())));
    let rows = world.items(&world.table("leases"));
    assert_eq!(rows.len(), 2, "the stray row is gone");
    for row in &rows {
        let old = before.iter().find(|old| old["leaseKey"] == row["leaseKey"]).unwrap();
        assert_eq!(old["checkpoint"], row["checkpoint"]);
        let counter = |row: &Item| row["leaseCounter"].as_n().unwrap().parse::<u64>().unwrap();
        assert_eq!(counter(row), counter(old) + 1, "a counter never begins anew");
    }
    world.feed_copies(&mut corpus);
    assert_eq!(world.catch_up()["archived"], json!(0));
    corpus.truth.assert_holds(&world.workspace.archived());
    world.verify();
}

#[test]
fn tables_that_were_lost_bear_witness_again_once_they_were_compared_with_a_report_that_was_kept() {
    let (world, _) = InTables::archived();
    let kept = world.workspace.path("kept.json");
    fs::write(&kept, world.run(&["verify", "--json"]).expect(0).stdout).unwrap();
    for table in ["leases", "claims"] {
        world.drop_table(table);
    }
    world.catch_up();
    assert_eq!(world.verify()["tail_proved"], json!(false));
    world.run(&["rebuild-state", "--against", kept.to_str().unwrap()]).expect(0);
    world.catch_up();
    assert_eq!(world.verify()["tail_proved"], json!(true), "the rows say what they were compared with");
}

#[test]
fn a_lease_table_that_is_gone_is_named_and_nothing_is_said_of_its_shards() {
    let mut world = InTables::new();
    world.workspace.feed("a.ndjson", "{\"log_id\":\"a\"}\n");
    world.run(&["status"]).expect(0);
    world.catch_up();
    world.drop_table("leases");
    let missing = format!("the lease table {} is not there", world.table("leases"));
    let anew = "a worker makes it anew from the archive when it starts";
    let status = world.run(&["status"]).expect(1);
    assert!(status.stdout.contains("a.ndjson  unknown"), "{}", status.stdout);
    assert!(status.stdout.contains(&format!("{missing}; {anew}")), "{}", status.stdout);
    assert!(status.stdout.contains("\n\nnot read: "), "{}", status.stdout);
    assert!(status.stderr.contains(&missing), "{}", status.stderr);
    let report = world.verify();
    assert!(report["notes"][0].as_str().unwrap().starts_with(&format!("{missing}: ")), "{report:#}");

    world.workspace.set("state.dynamodb.create_tables", "false");
    let status = world.run(&["status"]).expect(1);
    assert!(status.stdout.contains(&missing) && !status.stdout.contains(anew), "{}", status.stdout);
}

#[test]
fn tables_that_are_not_ours_to_make_are_asked_for_by_command() {
    let mut world = InTables::new();
    world.workspace.set("state.dynamodb.create_tables", "false");
    world.workspace.feed("a.ndjson", "{\"log_id\":\"a\"}\n");
    let done = world.run(&["catch-up"]).expect(1);
    assert!(!world.workspace.archive().exists());
    assert!(done.stderr.contains("\"A table that is gone\" in docs/operations.md"), "{}", done.stderr);
    let checked = world.run(&["check", "--json"]).expect(1);
    for table in ["leases", "claims"] {
        let command = format!("aws dynamodb create-table --table-name {}", world.table(table));
        assert!(done.stderr.contains(&command), "{}", done.stderr);
        assert!(checked.stdout.contains(&command), "{}", checked.stdout);
    }
}

#[test]
fn checkpoints_of_a_stopped_application_are_taken_over_once_and_nothing_of_it_is_changed() {
    let world = InTables::new().of_a_stream();
    let child = kcl_row(
        "shardId-000000000002",
        5,
        "49590338271490256608559692538361571095921575989136588898",
        Some("shardId-000000000001"),
    );
    let rows = [
        child,
        kcl_row("shardId-000000000003", 9, "SHARD_END", None),
        kcl_row("shardId-000000000004", 1, "TRIM_HORIZON", None),
    ];
    let table = world.kcl_table(&rows);
    let arguments = ["import-checkpoints", "--from", &table, "--json"];

    let shown = world.run(&[&arguments[..], &["--dry-run"]].concat()).expect(0).json();
    assert_eq!(shown["shards"].as_array().unwrap().len(), 4);
    assert!(!world.workspace.archive().exists(), "a dry run makes nothing");

    let report = world.run(&arguments).expect(0).json();
    let taken = |report: &Value| -> Vec<Value> {
        let shards = report["shards"].as_array().unwrap().iter();
        shards.map(|shard| json!([shard["shard"], shard["ended"], shard["was_there"]])).collect()
    };
    let expected = |was_there: bool| {
        [("1", true), ("2", false), ("3", true), ("4", false)]
            .map(|(digit, ended)| json!([format!("shardId-00000000000{digit}"), ended, was_there]))
    };
    assert_eq!(taken(&report), expected(false));
    assert_eq!(report["shards"][1]["checkpoint"]["imported"]["sub_sequence"], json!(2));
    let ours: HashMap<String, Item> = world
        .items(&world.table("leases"))
        .into_iter()
        .map(|row| (row["leaseKey"].as_s().unwrap().clone(), row))
        .collect();
    let second = &ours["shardId-000000000002"];
    assert_eq!(second["checkpoint"], rows[0]["checkpoint"]);
    assert_eq!(second["checkpointSubSequenceNumber"], rows[0]["checkpointSubSequenceNumber"]);
    assert!(!second.contains_key("leaseOwner"));

    assert_eq!(taken(&world.run(&arguments).expect(0).json()), expected(true));
    assert_eq!(world.items(&table).len(), 3, "the application's table is as it was");
    // Once a worker has gone on from there, nothing is taken over any more.
    let mut moved = second.clone();
    moved.insert("auditlake_batch_seq".to_owned(), AttributeValue::N("1".to_owned()));
    world.put(&world.table("leases"), moved);
    let done = world.run(&arguments).expect(1);
    assert!(done.stderr.contains("shardId-000000000002 has a lease row already"), "{}", done.stderr);
}

#[test]
fn an_application_that_runs_is_not_taken_over() {
    let mut world = InTables::new().of_a_stream();
    world.workspace.set("lease.failover", "\"3s\"");
    let table = world.kcl_table(&[kcl_row("shardId-000000000000", 5, "123", None)]);
    let process = Process::start(&mut world.command(&world.workspace, &["import-checkpoints", "--from", &table]));
    crate::support::wait_until("it has looked", || world.proxy.count("Scan") > 0);
    thread::sleep(Duration::from_millis(500));
    world.put(&table, kcl_row("shardId-000000000000", 6, "123", None));
    let done = process.wait().expect(1);
    assert!(done.stderr.contains("is in use") && done.stderr.contains("kcl-worker-7"), "{}", done.stderr);
    let missing = world.run(&["import-checkpoints", "--from", "no-such-table"]).expect(1);
    assert!(missing.stderr.contains("there is no table no-such-table"), "{}", missing.stderr);
    assert!(!world.workspace.archive().exists());
}

#[test]
fn without_a_region_or_credentials_whoever_only_looks_says_so_as_well() {
    let world = InTables::new();
    world.run(&["catch-up"]).expect(0);
    let streaming = InTables::new().of_a_stream();
    let importing = &["import-checkpoints", "--from", "kcl"];
    for (world, command) in [(&world, &["verify"][..]), (&world, &["status"]), (&streaming, importing)] {
        let without = |variable: &str| {
            let mut command = world.command(&world.workspace, command);
            finish(command.env_remove(variable))
        };
        let said = without("AWS_REGION").expect(2).stderr;
        assert!(said.contains("state.dynamodb.region: is required: neither it nor AWS_REGION"), "{said}");
        let said = without("AWS_ACCESS_KEY_ID").expect(2).stderr;
        assert!(said.contains("state.dynamodb: there are no credentials (environment, profile"), "{said}");
    }
}

#[test]
fn checkpoints_of_a_stream_are_not_taken_over_for_another_source() {
    let world = InTables::new();
    let table = world.kcl_table(&[kcl_row("shardId-000000000000", 5, "123", None)]);
    for dry_run in [&[][..], &["--dry-run"]] {
        let done = world.run(&[&["import-checkpoints", "--from", &table], dry_run].concat()).expect(2);
        assert!(done.stderr.starts_with("auditlake: source.kind: is file; the checkpoints of a Kinesis"), "{done:?}");
    }
    assert!(!world.workspace.archive().exists());
    assert_eq!(world.proxy.count("Scan"), 0);
}

#[test]
fn of_tables_that_give_no_answer_it_is_said_who_was_asked() {
    let (mut files, mut stream) = (Workspace::new(), Workspace::new());
    files.set("state.kind", "\"dynamodb\"");
    stream.set("source.kind", "\"kinesis\"").set("source.kinesis.stream", "\"audit\"");
    // Nobody listens at this port.
    let nowhere = "http://127.0.0.1:9";
    let importing = &["import-checkpoints", "--from", "kcl"];
    for (workspace, command) in [(&files, &["catch-up"][..]), (&files, &["status"]), (&stream, importing)] {
        let mut asking = workspace.command(command);
        Endpoints { dynamodb: Some(nowhere.to_owned()), ..Endpoints::default() }.set_for(&mut asking);
        let done = finish(&mut asking).expect(1);
        let said = format!("state.dynamodb ({nowhere}): DynamoDB is unavailable: ");
        assert!(done.stderr.contains(&said), "{command:?}: {}", done.stderr);
    }
}
