//! Records that come from a subscription: one run, a fleet, and all that befalls it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use auditlake_test_servers::Answer;
use auditlake_test_servers::aws::{Put, unique_name};
use auditlake_test_servers::pubsub::{self, PROJECT, Publish, Stage, Topic};
use serde_json::{Value, json};

use crate::support::{
    Cloud, Feed, Workspace, assert_all_is_archived_once, files_below, finish, mix, rows, stop_all, wait_until,
};

/// For how long Google's client keeps a message from others, and so for how long one stays away whose receiver was killed.
const AWAY: Duration = Duration::from_secs(65);

/// A cloud whose records come from a subscription.
struct Subscribed {
    cloud: Cloud,
    topic: Topic,
}

fn message(put: &Put, number: usize) -> Publish {
    let data = String::from_utf8(put.data.clone()).unwrap();
    // One in four has a key, and all of them the same.
    let ordering_key = if number.is_multiple_of(4) { "key".to_owned() } else { String::new() };
    // One in three says something of itself.
    let attributes = number.is_multiple_of(3).then(|| ("number".to_owned(), number.to_string()));
    Publish { data, attributes: attributes.into_iter().collect(), ordering_key }
}

impl Subscribed {
    fn new() -> Self {
        Self::to(|_| json!({ "enableMessageOrdering": true }))
    }

    /// A subscription with the settings for this server.
    fn to(settings: impl FnOnce(Stage) -> Value) -> Self {
        let mut cloud = Cloud::for_many_records(1);
        let (server, stage) = cloud.wait(pubsub::server());
        let topic = Topic::create(&server.url, &unique_name("audit"), &settings(stage));
        for (key, value) in [
            ("source.kind", "pubsub"),
            ("source.pubsub.project", PROJECT),
            ("source.pubsub.subscription", &topic.name),
            ("source.pubsub.endpoint", &server.url),
            ("source.pubsub.drain_idle", "5s"),
            ("source.pubsub.spool.flush_interval", "300ms"),
            ("source.pubsub.spool.seal_after", "3s"),
        ] {
            cloud.set(key, &format!("{value:?}"));
        }
        Self { cloud, topic }
    }

    fn publish(&self, feed: &mut Feed, messages: u64) {
        let messages = feed.take(messages);
        let messages: Vec<Publish> = messages.iter().enumerate().map(|(number, put)| message(put, number)).collect();
        self.topic.publish(&messages);
    }

    /// Publishes so many a second, some of them twice. Blocks: let a thread do it.
    fn publish_at_rate(&self, feed: &mut Feed, messages: u64, a_second: u64) {
        let started = Instant::now();
        for published in 0..messages / a_second {
            let puts = feed.take(a_second);
            let mut messages: Vec<Publish> =
                puts.iter().enumerate().map(|(number, put)| message(put, number)).collect();
            messages.extend_from_within(..messages.len() / 20);
            self.topic.publish(&messages);
            thread::sleep(Duration::from_secs(published + 1).saturating_sub(started.elapsed()));
        }
    }

    /// Segments of messages that stand; seals are kept.
    fn segments(&self) -> Vec<String> {
        let is_seal = |key: &String| self.cloud.get(key).windows(6).any(|word| word == b"\"seal\"");
        self.cloud.objects("_spool/").into_iter().filter(|key| !is_seal(key)).collect()
    }

    /// Every record has its message's id, which no record of another payload has.
    fn assert_the_records_of_a_message_tell_of_it(&self) {
        let mut payloads: BTreeMap<String, Value> = BTreeMap::new();
        for row in rows::<Value>(&self.cloud.download(), "events") {
            let (payload, _) = row["source_position"].as_str().unwrap().rsplit_once('/').unwrap();
            let payload = format!("{} {payload}", row["source_shard"]);
            let known = payloads.entry(payload).or_insert_with(|| row["source_message"].clone());
            assert_eq!(*known, row["source_message"]);
        }
        let ids: BTreeSet<&str> = payloads.values().map(|known| known["message_id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), payloads.len());
    }

    /// Takes what is left, and holds all that came of it against what was published.
    fn assert_all_is_archived_once_and_nothing_left(&self, feed: &Feed) {
        self.cloud.catch_up();
        assert_all_is_archived_once(&self.cloud, feed);
        self.assert_the_records_of_a_message_tell_of_it();
        assert_eq!(self.topic.waiting(), 0, "all is acknowledged");
        assert_eq!(self.segments(), Vec::<String>::new());
        let leases = self.cloud.leases();
        assert!(
            leases.values().all(|lease| lease.owner.is_none() && !lease.is_pending && lease.has_ended()),
            "{leases:?}"
        );
    }
}

#[test]
fn what_is_in_a_subscription_is_archived_once_and_the_second_run_archives_nothing() {
    let (subscribed, mut feed) = (Subscribed::new(), Feed::new(31));
    subscribed.publish(&mut feed, 1_500);
    let first = subscribed.cloud.catch_up();
    assert_eq!(first["archived"], feed.truth.archived(), "{first:#}");
    subscribed.assert_all_is_archived_once_and_nothing_left(&feed);
    assert_eq!(subscribed.cloud.catch_up()["archived"], 0);
    let checked = subscribed.cloud.run(&["check", "--json"]).expect(0).json();
    assert_eq!(checked["ok"], true, "{checked:#}");
    let status = subscribed.cloud.status();
    let shards = status["shards"].as_array().unwrap();
    assert!(!shards.is_empty() && shards.iter().all(|shard| shard["state"] == "ended"), "{status:#}");

    // Leases and claims can be made anew from the archive alone.
    subscribed.cloud.drop_tables();
    subscribed.cloud.run(&["rebuild-state"]).expect(0);
    subscribed.cloud.verify();
    subscribed.publish(&mut feed, 100);
    subscribed.assert_all_is_archived_once_and_nothing_left(&feed);
}

/// Google's fake refuses the very setting, as the test's output says: there it is one more ordinary subscription.
#[test]
fn what_exactly_once_delivery_brings_is_archived_once() {
    let of_emulator =
        |stage| if stage == Stage::Emulator { json!({ "enableExactlyOnceDelivery": true }) } else { json!({}) };
    let subscribed = Subscribed::to(of_emulator);
    let mut feed = Feed::new(36);
    subscribed.publish(&mut feed, 1_500);
    subscribed.assert_all_is_archived_once_and_nothing_left(&feed);
}

#[test]
fn what_is_known_of_a_message_is_archived_with_each_of_its_records() {
    let subscribed = Subscribed::new();
    let attributes = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let record = |log_id: &str| json!({ "log_id": log_id, "operation": "UserLogin" }).to_string();
    let two = format!("{}\n{}", record("a"), record("b"));
    let messages = [
        Publish { attributes: attributes("origin", "\"größer\"\n"), ordering_key: "key".into(), ..Publish::new(two) },
        Publish::new(record("c")),
        // What says nothing new of another message's record but its own name.
        Publish { attributes: attributes("origin", "again"), ..Publish::new(record("a")) },
        Publish { attributes: attributes("origin", "elsewhere"), ..Publish::new("{") },
    ];
    let ids = subscribed.topic.publish(&messages[..2]);
    subscribed.cloud.catch_up();
    let more = subscribed.topic.publish(&messages[2..]);
    let second = subscribed.cloud.run(&["catch-up", "--json"]).expect(0).json();
    assert_eq!((&second["duplicates"], &second["conflicts"]), (&json!(1), &json!(0)), "{second:#}");

    let root = subscribed.cloud.download();
    let of = |row: &Value| (row["log_id"].as_str().unwrap().to_owned(), row["source_message"].clone());
    let found: BTreeMap<String, Value> = rows::<Value>(&root, "events").iter().map(of).collect();
    let first = json!({ "attributes": messages[0].attributes, "message_id": ids[0], "ordering_key": "key" });
    assert_eq!(found["a"], first);
    assert_eq!(found["b"], first);
    assert_eq!((found.len(), &found["c"]), (3, &json!({ "message_id": ids[1] })));
    let rejects = rows::<Value>(&root, "rejected");
    let told = json!({ "attributes": messages[3].attributes, "message_id": more[1] });
    assert_eq!((rejects.len(), &rejects[0]["source_message"]), (1, &told));
    subscribed.cloud.verify();
}

#[test]
fn three_workers_of_one_subscription_killed_and_slept_archive_ten_thousand_messages_once() {
    let (subscribed, mut feed) = (Subscribed::new(), Feed::new(32));
    let cloud = &subscribed.cloud;
    let (workers, last_death) = thread::scope(|scope| {
        let feeding = scope.spawn(|| subscribed.publish_at_rate(&mut feed, 10_000, 250));
        let mut workers: Vec<_> = ["a", "b", "c"].map(|name| cloud.worker(name)).into();
        wait_until("something is archived", || !cloud.objects("_manifests/").is_empty());
        let mut last_death = Instant::now();
        for round in 0.. {
            thread::sleep(Duration::from_millis(1_000 + mix(round) % 2_000));
            if feeding.is_finished() {
                break;
            }
            let victim = workers.remove((mix(round) % 3) as usize);
            if round % 3 == 1 {
                // Long enough for others to take what it reads, and to seal what it writes.
                victim.pause();
                thread::sleep(Duration::from_secs(12));
                victim.resume();
                workers.push(victim);
            } else {
                assert!(victim.kill());
                workers.push(cloud.worker(&format!("worker-{round}")));
            }
            last_death = Instant::now();
        }
        (workers, last_death)
    });
    thread::sleep(AWAY.saturating_sub(last_death.elapsed()));
    cloud.wait_until_archived(&feed);
    stop_all(workers);
    assert!(feed.truth.records > 11_000, "{}", feed.truth.records);
    subscribed.assert_all_is_archived_once_and_nothing_left(&feed);
}

#[cfg(feature = "failpoints")]
#[test]
fn killed_between_a_segments_put_and_its_acknowledgement_nothing_is_lost_or_doubled() {
    let (subscribed, mut feed) = (Subscribed::new(), Feed::new(33));
    for step in ["segment_put:1", "segment_put:3", "claimed:2", "object_put:1", "committed:1"] {
        let worker = subscribed.cloud.worker_with("victim", &[("AUDITLAKE_FAILPOINT", step)]);
        // It dies of one of these.
        for _ in 0..8 {
            subscribed.publish(&mut feed, 20);
            thread::sleep(Duration::from_millis(600));
        }
        assert!(!worker.kill(), "it has died at {step}");
    }
    thread::sleep(AWAY);
    subscribed.assert_all_is_archived_once_and_nothing_left(&feed);
}

/// Beside the archive, and in a directory of its own.
#[test]
fn one_machine_needs_nothing_but_a_disk() {
    for (number, store) in [(34, "archive"), (35, "local")] {
        let (subscribed, mut feed) = (Subscribed::new(), Feed::new(number));
        let mut workspace = Workspace::new();
        let spool = workspace.path("spool");
        for (key, value) in [
            ("source.kind", "pubsub"),
            ("source.pubsub.project", PROJECT),
            ("source.pubsub.subscription", &subscribed.topic.name),
            ("source.pubsub.drain_idle", "3s"),
            ("source.pubsub.spool.store", store),
            ("batch.window", "1s"),
        ] {
            workspace.set(key, &format!("{value:?}"));
        }
        workspace.set_path("source.pubsub.spool.path", &spool);
        let host = subscribed.topic.url.trim_start_matches("http://").to_owned();
        subscribed.publish(&mut feed, 300);
        let done = finish(workspace.command(&["catch-up", "--json"]).env("PUBSUB_EMULATOR_HOST", &host));
        assert_eq!(done.expect(0).json()["archived"], feed.truth.archived());
        feed.truth.assert_holds(&workspace.archived());
        workspace.verify();
        let folder = if store == "local" { spool } else { workspace.archive().join("_spool") };
        let standing = files_below(&folder);
        assert_eq!(standing.len(), 1, "its seal: {standing:?}");
        assert!(fs::read(&standing[0]).unwrap().windows(6).any(|word| word == b"\"seal\""));
    }
}

#[test]
fn what_is_wrong_with_a_subscription_is_said_by_its_name() {
    let mut subscribed = Subscribed::new();
    subscribed.cloud.set("source.pubsub.subscription", "\"nowhere\"");
    for command in ["catch-up", "run"] {
        let done = subscribed.cloud.run(&[command]).expect(1);
        assert!(done.stderr.contains("projects/audit-tests/subscriptions/nowhere"), "{}", done.stderr);
        assert!(done.stderr.contains("make it, or correct source.pubsub.project and subscription"), "{}", done.stderr);
    }
    subscribed.cloud.set("source.pubsub.subscription", "\"\"");
    let done = subscribed.cloud.run(&["catch-up"]).expect(2);
    assert!(done.stderr.contains("source.pubsub.subscription: is required"), "{}", done.stderr);
    // What only looks asks Google nothing.
    assert_eq!(subscribed.cloud.status()["shards"], json!([]));
}

const IS_ANOTHER: &str = " is read now: that is another source, and an archive has one; set source.kind";

/// Each command says no, and leaves all as it was.
#[track_caller]
fn assert_refused(subscribed: &Subscribed, said: &[&str]) {
    let standing = || ["events/", "_manifests/", "_spool/"].map(|folder| subscribed.cloud.objects(folder));
    let (objects, rows) = (standing(), subscribed.cloud.leases().into_keys().collect::<Vec<_>>());
    for command in ["check", "catch-up", "run"] {
        let done = subscribed.cloud.run(&[command]).expect(1);
        let output = done.stdout + &done.stderr;
        let row = format!("the table {}: the row of ", subscribed.cloud.table("leases"));
        for said in said.iter().chain([&row.as_str()]) {
            assert_eq!(output.matches(said).count(), 1, "{command}, {said}: {output}");
        }
    }
    assert_eq!(standing(), objects, "nothing of it is archived");
    assert_eq!(subscribed.cloud.leases().into_keys().collect::<Vec<_>>(), rows);
    subscribed.cloud.verify();
}

#[test]
fn a_subscription_is_not_received_into_a_streams_archive() {
    let (mut subscribed, mut feed) = (Subscribed::new(), Feed::new(38));
    subscribed.cloud.set("source.kind", "\"kinesis\"");
    subscribed.cloud.put(&mut feed, 20);
    subscribed.cloud.catch_up();
    subscribed.cloud.set("source.kind", "\"pubsub\"");
    subscribed.publish(&mut Feed::new(39), 20);
    assert_refused(&subscribed, &["it was archived from arn:aws:kinesis:", &format!("spool{IS_ANOTHER}")]);
    assert_eq!(subscribed.topic.waiting(), 20, "nothing is received");
}

#[test]
fn a_stream_is_not_read_into_a_subscriptions_archive() {
    let (mut subscribed, mut feed) = (Subscribed::new(), Feed::new(40));
    subscribed.publish(&mut feed, 20);
    subscribed.cloud.catch_up();
    subscribed.cloud.set("source.kind", "\"kinesis\"");
    subscribed.cloud.put(&mut Feed::new(41), 20);
    assert_refused(&subscribed, &["it was archived from spool, and arn:aws:kinesis:", IS_ANOTHER]);
    subscribed.cloud.set("source.kind", "\"pubsub\"");
    subscribed.publish(&mut feed, 20);
    subscribed.assert_all_is_archived_once_and_nothing_left(&feed);
}

#[test]
fn files_and_a_subscription_are_not_archived_into_one_another() {
    let (mut files, mut feed) = (Subscribed::new(), Feed::new(44));
    let examples = format!("{:?}", concat!(env!("CARGO_MANIFEST_DIR"), "/examples/audit"));
    files.cloud.set("source.kind", "\"file\"").set("source.file.path", &examples);
    files.cloud.catch_up();
    files.cloud.set("source.kind", "\"pubsub\"");
    files.publish(&mut feed, 20);
    assert_refused(
        &files,
        &["the row of 2023-10-documented.ndjson: it was archived from file,", &format!("spool{IS_ANOTHER}")],
    );
    assert_eq!(files.topic.waiting(), 20, "nothing is received");

    let (mut subscribed, mut feed) = (Subscribed::new(), Feed::new(45));
    subscribed.publish(&mut feed, 20);
    subscribed.cloud.catch_up();
    subscribed.cloud.set("source.kind", "\"file\"").set("source.file.path", &examples);
    assert_refused(&subscribed, &["it was archived from spool", &format!("file{IS_ANOTHER}")]);
}

#[test]
fn rows_of_two_sources_in_one_table_are_refused_until_those_of_one_are_taken_out() {
    let (mut subscribed, mut feed) = (Subscribed::new(), Feed::new(42));
    subscribed.cloud.set("source.kind", "\"kinesis\"");
    subscribed.cloud.put(&mut Feed::new(43), 20);
    subscribed.cloud.catch_up();
    // As where both begin at the same moment: neither sees the other's rows.
    let of_the_stream = subscribed.cloud.lease_items();
    subscribed.cloud.drop_tables();
    subscribed.cloud.set("source.kind", "\"pubsub\"");
    subscribed.publish(&mut feed, 20);
    subscribed.cloud.catch_up();
    subscribed.cloud.put_items(&subscribed.cloud.table("leases"), of_the_stream);
    let shards: Vec<String> =
        subscribed.cloud.leases().into_keys().filter(|shard| shard.starts_with("shardId")).collect();

    let of_two = "which is read now: an archive has one source; stop the workers of both";
    let (stream, spool) = ("it was archived from arn:aws:kinesis:", "it was archived from spool, other rows from arn:");
    assert_refused(&subscribed, &["the row of shardId-", stream, "other rows from spool", of_two]);
    subscribed.cloud.set("source.kind", "\"kinesis\"");
    assert_refused(&subscribed, &["the row of spool-", spool, of_two]);

    for shard in shards {
        subscribed.cloud.remove_lease(&shard);
    }
    subscribed.cloud.set("source.kind", "\"pubsub\"");
    subscribed.publish(&mut feed, 20);
    assert_eq!(subscribed.cloud.catch_up()["payloads"], 20);
    subscribed.cloud.verify();
}

#[test]
fn check_tries_the_subscription_and_where_its_messages_are_kept() {
    let mut subscribed = Subscribed::new();
    let check = |subscribed: &Subscribed, code| subscribed.cloud.run(&["check", "--json"]).expect(code).json();
    let tried = check(&subscribed, 0);
    assert_eq!(tried["steps"].as_array().unwrap().len(), 14, "{tried:#}");
    assert!(subscribed.segments().is_empty(), "{:?}", subscribed.segments());
    let denied = subscribed.cloud.s3_faults.on("DeleteObject").answer(Answer::s3_access_denied());
    let report = check(&subscribed, 1);
    let failed = report["steps"].as_array().unwrap().iter().find(|step| step["ok"] == false).unwrap();
    assert_eq!(failed["what"], "put into a spool once, and remove it");
    assert!(failed["error"].as_str().unwrap().contains("allow s3:DeleteObject on "), "{failed}");
    denied.heal();

    subscribed.cloud.set("archive.s3.bucket", "\"no-such-bucket-of-ours\"");
    let report = check(&subscribed, 1);
    let failed = report["steps"].as_array().unwrap().iter().filter(|step| step["ok"] == false);
    let failed: Vec<_> = failed.map(|step| step["what"].as_str().unwrap()).collect();
    assert_eq!(failed, ["put into a spool once, and remove it", "open it"], "{report:#}");
}
