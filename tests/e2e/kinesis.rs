//! A stream of Kinesis, archived by the real binary.

use std::process::Command;

use auditlake_test_servers::aws::{self, Endpoints, Put};
use auditlake_test_servers::kinesis;
use serde_json::Value;

use crate::support::{Process, Record, Workspace, finish, wait_until};

/// A workspace whose source is a stream of this test's own.
struct Streamed {
    workspace: Workspace,
    endpoints: Endpoints,
    client: aws_sdk_kinesis::Client,
    stream: String,
}

impl Streamed {
    async fn new(shards: i32) -> Self {
        let url = kinesis().await.url;
        let (client, stream) = (aws::kinesis_client(&url), aws::unique_name("e2e"));
        aws::create_stream(&client, &stream, shards).await;
        let mut workspace = Workspace::new();
        workspace.set("source.kind", "\"kinesis\"").set("source.kinesis.stream", &format!("\"{stream}\""));
        workspace.set("source.kinesis.list_shards", "\"1s\"").set("source.kinesis.poll", "\"200ms\"");
        let endpoints = Endpoints { kinesis: Some(url), ..Endpoints::default() };
        Self { workspace, endpoints, client, stream }
    }

    async fn put(&self, numbers: std::ops::Range<u64>) {
        let puts: Vec<Put> =
            numbers.map(|number| Put::new(format!("key {number}"), Record::new(number).line(0))).collect();
        aws::put_records(&self.client, &self.stream, &puts).await;
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.workspace.command(arguments);
        command.envs(self.endpoints.environment());
        command
    }

    fn json(&self, arguments: &[&str]) -> Value {
        finish(&mut self.command(arguments)).expect(0).json()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_archived_and_nothing_twice() {
    let streamed = Streamed::new(2).await;
    streamed.put(0..300).await;
    let report = streamed.json(&["catch-up", "--json"]);
    assert_eq!((&report["shards"], &report["records"], &report["complete"]), (&2.into(), &300.into(), &true.into()));
    let again = streamed.json(&["catch-up", "--json"]);
    assert_eq!((&again["records"], &again["complete"]), (&0.into(), &true.into()));
    streamed.put(300..400).await;
    // The shards end; their children and what is in them come after them.
    for shard in aws::shards(&streamed.client, &streamed.stream).await {
        aws::split_shard(&streamed.client, &streamed.stream, shard.shard_id()).await;
    }
    streamed.put(400..500).await;
    assert_eq!(streamed.json(&["catch-up", "--json"])["records"], 200);
    assert_eq!(streamed.workspace.archived_rows(), 500);
    streamed.workspace.verify();

    let status = streamed.json(&["status", "--json"]);
    let shards = status["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 6);
    assert_eq!(shards.iter().filter(|shard| shard["state"] == "ended").count(), 2, "{status:#}");
    assert!(shards.iter().all(|shard| shard["lag_bytes"].is_null()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_follows_a_stream_through_a_split() {
    let mut streamed = Streamed::new(1).await;
    streamed.workspace.set("batch.window", "\"1s\"");
    streamed.put(0..50).await;
    let daemon = Process::start(&mut streamed.command(&["run"]));
    wait_until("the first shard is archived", || streamed.workspace.archived_rows() == 50);
    let parent = aws::shards(&streamed.client, &streamed.stream).await.remove(0);
    aws::split_shard(&streamed.client, &streamed.stream, parent.shard_id()).await;
    streamed.put(50..100).await;
    wait_until("its children are archived, without a restart", || streamed.workspace.archived_rows() == 100);
    daemon.signal("TERM");
    daemon.wait().expect(0);
    assert_eq!(streamed.workspace.archived_rows(), 100);
    streamed.workspace.verify();
    assert_eq!(streamed.workspace.lease(parent.shard_id())["ended"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_named_or_not_there_is_told() {
    let mut streamed = Streamed::new(1).await;
    streamed.workspace.set("source.kinesis.stream", "\"no-such-stream\"");
    let done = finish(&mut streamed.command(&["catch-up"])).expect(1);
    assert!(done.stderr.contains("source.kinesis.stream: no-such-stream: "), "{}", done.stderr);
    let mut workspace = Workspace::new();
    workspace.set("source.kind", "\"kinesis\"");
    let done = workspace.run(&["catch-up"]).expect(2);
    assert!(done.stderr.contains("source.kinesis.stream: is required"), "{}", done.stderr);
    let nothing = finish(&mut Streamed::new(1).await.command(&["catch-up"])).expect(0);
    assert!(nothing.stdout.contains("nothing new"), "{}", nothing.stdout);
}
