//! What is read of a stream, and what is refused: gaps, live streams, other streams, wrong settings.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use auditlake_test_servers::Answer;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::{
    Cloud, Done, Feed, Worker, assert_all_is_archived_once, stop_all, wait_until, wait_until_balanced,
};

/// A stream that was not read for 30 hours and keeps its records for 24: what was archived last is gone, and so is what
/// came behind it; what came later is there. `refuses` as some streams do, and others begin at the oldest record they have.
fn a_checkpoint_behind_the_retention(refuses: bool) {
    let (cloud, mut feed) = (Cloud::new(1), Feed::new(51));
    cloud.put(&mut feed, 30);
    cloud.catch_up();
    let lost = cloud.put_these(&Feed::new(52).take(20));
    let last_lost = lost.last().unwrap().1.clone();
    cloud.put(&mut feed, 30);

    let shard = cloud.open_shards().remove(0);
    let read_through = Timestamp::try_from(SystemTime::now() - Duration::from_hours(30)).unwrap();
    cloud.edit_lease(&shard, "auditlake_read_through", &read_through.to_string());
    cloud.kinesis_faults.on("GetRecords").edit_answer(move |answer| {
        let mut body: Value = serde_json::from_slice(&answer.body).unwrap();
        let newer = |record: &Value| {
            let number = record["SequenceNumber"].as_str().unwrap();
            (number.len(), number) > (last_lost.len(), last_lost.as_str())
        };
        if let Some(records) = body["Records"].as_array_mut() {
            records.retain(newer);
        }
        answer.body = body.to_string().into();
    });
    if refuses {
        let at = cloud.kinesis_faults.on("GetShardIterator").body_has("AT_SEQUENCE_NUMBER");
        at.answer(Answer::kinesis("InvalidArgumentException"));
    }

    let summary = cloud.run(&["catch-up", "--json"]).expect(3).json();

    assert_eq!((&summary["gaps"], &summary["complete"]), (&json!(1), &json!(false)), "{summary:#}");
    let with_gap: Vec<Value> = cloud.manifests().into_iter().filter(|manifest| !manifest["gap"].is_null()).collect();
    let [manifest] = &with_gap[..] else { panic!("{with_gap:#?}") };
    let time = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{manifest:#}")).parse::<Timestamp>().unwrap();
    assert_eq!(time(&manifest["gap"]["from"]), read_through);
    assert!(time(&manifest["gap"]["until"]) > read_through);
    assert!(manifest["counts"]["records"].as_u64() > Some(0), "{manifest:#}");
    let report = cloud.verify();
    assert_eq!(report["gaps"].as_array().unwrap().len(), 1, "{report:#}");
    assert_eq!((&report["gaps"][0]["shard"], &report["gaps"][0]["gap"]), (&json!(shard), &manifest["gap"]));
    feed.truth.assert_holds(&cloud.archived());
    // It was said once, and what follows is read on.
    cloud.put(&mut feed, 10);
    cloud.catch_up();
    assert_all_is_archived_once(&cloud, &feed);
}

#[test]
fn a_checkpoint_that_the_stream_refuses_is_a_gap_with_its_time_range() {
    a_checkpoint_behind_the_retention(true);
}

#[test]
fn a_stream_that_silently_begins_at_its_oldest_record_has_a_gap_too() {
    a_checkpoint_behind_the_retention(false);
}

/// Runs `work` while records keep coming, as often as a thread can put them.
fn while_records_come<T>(cloud: &Cloud, feed: &mut Feed, work: impl FnOnce() -> T) -> T {
    let is_done = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let done = Arc::clone(&is_done);
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                cloud.put(feed, 5);
                thread::sleep(Duration::from_millis(50));
            }
        });
        // The thread must end, should the work panic.
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_done.store(true, Ordering::Relaxed);
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn a_catch_up_ends_though_records_keep_coming_and_has_all_that_stood_there() {
    let (cloud, mut feed) = (Cloud::new(2), Feed::new(53));
    cloud.put(&mut feed, 200);
    let children = cloud.split(&cloud.open_shards()[0]);
    cloud.put(&mut feed, 200);
    let stood = feed.truth.events.clone();
    let summary = while_records_come(&cloud, &mut feed, || cloud.catch_up());
    assert_eq!((&summary["complete"], &summary["shards"]), (&json!(true), &json!(4)), "{summary:#}");
    let archived = cloud.archived();
    assert!(stood.iter().all(|key| archived.events.contains_key(key)), "all that stood there at the start");
    for child in &children {
        assert!(cloud.manifests().iter().any(|manifest| manifest["shard"] == **child), "{child}");
    }
    cloud.verify();
    cloud.catch_up();
    assert_all_is_archived_once(&cloud, &feed);
}

#[test]
fn a_catch_up_asks_daemons_for_their_leases_and_gives_them_back() {
    let (mut cloud, mut feed) = (Cloud::new(4), Feed::new(54));
    cloud.set("batch.window", "\"1d\"");
    let workers = ["a", "b"].map(|name| cloud.worker(name));
    wait_until_balanced(&cloud, &workers.each_ref());
    cloud.put(&mut feed, 200);
    let stood = feed.truth.events.clone();
    let summary = while_records_come(&cloud, &mut feed, || cloud.catch_up());
    assert_eq!(summary["complete"], true, "{summary:#}");
    let archived = cloud.archived();
    assert!(stood.iter().all(|key| archived.events.contains_key(key)), "without waiting for the window's end");
    wait_until_balanced(&cloud, &workers.each_ref());
    stop_all(workers.into());
    cloud.catch_up();
    assert_all_is_archived_once(&cloud, &feed);
}

#[test]
fn two_workers_of_one_name_are_two() {
    let (cloud, mut feed) = (Cloud::new(4), Feed::new(55));
    let workers = [cloud.worker("same"), cloud.worker("same")];
    let owners = || cloud.owners().into_values().flatten().collect::<BTreeSet<_>>();
    wait_until("each has leases of its own", || owners().len() == 2 && cloud.owners().values().all(Option::is_some));
    assert!(owners().iter().all(|owner| owner.starts_with("same-")));
    cloud.put_at_rate(&mut feed, 200, 100);
    cloud.wait_until_archived(&feed);
    // A shard that both read would have lost its lease again and again.
    for worker in &workers {
        assert!(!worker.process.stderr().contains("the lease is lost"), "{}", worker.process.stderr());
    }
    stop_all(workers.into());
    assert_all_is_archived_once(&cloud, &feed);
}

/// Without a split: the server's subscriptions name no children, so no shard ends by one.
#[test]
fn with_enhanced_fan_out_records_come_by_themselves_and_are_archived_once() {
    let (mut cloud, mut feed) = (Cloud::new(2), Feed::new(56));
    cloud.set("source.kinesis.consumer", "\"fan_out\"");
    cloud.put(&mut feed, 100);
    cloud.catch_up();
    let worker = cloud.worker("a");
    cloud.put(&mut feed, 100);
    assert_all_is_archived_once(&cloud, &feed);
    let other = cloud.worker("b");
    wait_until_balanced(&cloud, &[&worker, &other]);
    cloud.put(&mut feed, 100);
    assert_all_is_archived_once(&cloud, &feed);
    stop_all(vec![worker, other]);
    assert_all_is_archived_once(&cloud, &feed);
    let counts = ["SubscribeToShard", "GetRecords"].map(|operation| cloud.kinesis_faults.count(operation));
    assert!(counts[0] > 0 && counts[1] == 0, "{counts:?}");
}

#[test]
fn a_stream_that_was_deleted_and_made_again_is_refused() {
    let (cloud, mut feed) = (Cloud::new(2), Feed::new(57));
    cloud.put(&mut feed, 50);
    cloud.catch_up();
    let (objects, rows) = (cloud.objects(""), cloud.leases());
    cloud.recreate_stream(2);
    cloud.put_these(&Feed::new(58).take(50));

    for command in ["catch-up", "run"] {
        let done = cloud.run(&[command]).expect(1);
        let words = "a stream that was deleted and made again under its name has other records";
        assert!(done.stderr.contains(words), "{command}: {}", done.stderr);
    }

    assert_eq!(cloud.objects(""), objects, "nothing of it is archived");
    for (shard, lease) in cloud.leases() {
        assert_eq!((&lease.checkpoint, &lease.owner), (&rows[&shard].checkpoint, &None), "{shard}");
    }
    feed.truth.assert_holds(&cloud.archived());
    cloud.verify();
}

/// Runs the daemon, which must end by itself before it leases anything; what it said last.
#[track_caller]
fn complaint(cloud: &Cloud) -> String {
    let done: Done = cloud.run(&["run"]);
    assert!(matches!(done.code, Some(1 | 2)), "{done:#?}");
    assert!(cloud.leases().is_empty(), "no lease was taken: {:?}", cloud.leases());
    done.stderr.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn what_is_wrong_is_said_before_the_first_lease() {
    let mut cloud = Cloud::new(1);
    cloud.put(&mut Feed::new(59), 10);
    for (key, wrong) in [("source.kinesis.stream", cloud.stream.clone()), ("archive.s3.bucket", cloud.bucket.clone())] {
        cloud.set(key, "\"no-such-thing\"");
        let said = complaint(&cloud);
        let section = key.rsplit_once('.').unwrap().0;
        assert!(said.contains("no-such-thing") && said.contains(section), "{key}: {said}");
        cloud.set(key, &format!("{wrong:?}"));
    }
    let denied = cloud.kinesis_faults.on("DescribeStreamSummary").answer(Answer::kinesis("AccessDeniedException"));
    let said = complaint(&cloud);
    assert!(said.contains("kinesis:DescribeStreamSummary"), "{said}");
    denied.heal();
    for (operation, permission) in [("PutObject", "s3:PutObject"), ("ListObjectsV2", "s3:ListBucket")] {
        let denied = cloud.s3_faults.on(operation).answer(Answer::s3_access_denied());
        let said = complaint(&cloud);
        assert!(said.contains(permission) && said.contains(&cloud.bucket), "{operation}: {said}");
        denied.heal();
    }
    for operation in ["DescribeTable", "GetItem", "PutItem"] {
        let denied = cloud.dynamodb_faults.on(operation).answer(Answer::dynamodb("AccessDeniedException"));
        let said = complaint(&cloud);
        assert!(said.contains(&format!("dynamodb:{operation}")) && said.contains(&cloud.tables), "{operation}: {said}");
        denied.heal();
    }
    cloud.catch_up();
}

#[test]
fn status_shows_shards_owners_and_lag() {
    let (cloud, mut feed) = (Cloud::new(2), Feed::new(60));
    let before = cloud.status();
    assert_eq!(before["shards"].as_array().unwrap().len(), 2, "{before:#}");
    cloud.put(&mut feed, 40);
    let worker = cloud.worker("a");
    cloud.wait_until_archived(&feed);
    wait_until("nothing is under way", || cloud.leases().values().all(|lease| !lease.is_pending));
    let status = cloud.status();
    let shards = status["shards"].as_array().unwrap();
    for (shard, (name, lease)) in shards.iter().zip(cloud.leases()) {
        assert_eq!((&shard["shard"], &shard["owner"]), (&json!(name), &json!(lease.owner)), "{status:#}");
        assert!(shard["owner"].as_str().unwrap().starts_with("a-"), "{status:#}");
        assert_eq!((&shard["state"], shard["lag_ms"].is_u64()), (&json!("reading"), true), "{status:#}");
    }
    let table = cloud.run(&["status"]).expect(0).stdout;
    assert!(cloud.open_shards().iter().all(|shard| table.contains(shard)), "{table}");
    let split = cloud.split(&cloud.open_shards()[0]);
    let state = |status: &Value, shard: &str| {
        let shards = status["shards"].as_array().unwrap().iter();
        shards.filter(|known| known["shard"] == *shard).map(|known| known["state"].clone()).next()
    };
    wait_until("the split is shown", || {
        split.iter().all(|child| state(&cloud.status(), child).is_some())
            && cloud.status()["shards"].as_array().unwrap().iter().any(|shard| shard["state"] == "ended")
    });
    worker.stop();
    let status = cloud.status();
    assert!(status["shards"].as_array().unwrap().iter().all(|shard| shard["owner"].is_null()), "{status:#}");
}

#[test]
fn a_catch_up_goes_on_from_the_checkpoints_of_a_kinesis_client_library_application() {
    let (cloud, mut done, mut feed) = (Cloud::new(2), Feed::new(61), Feed::new(62));
    let mut places: HashMap<String, String> = HashMap::new();
    // What the application has processed, and its last place in each shard.
    places.extend(cloud.put_these(&done.take(60)));
    cloud.put(&mut feed, 60);
    let row = |(shard, sequence): (&String, &String)| {
        let s = |text: &str| AttributeValue::S(text.to_owned());
        let n = |number: &str| AttributeValue::N(number.to_owned());
        HashMap::from([
            ("leaseKey".to_owned(), s(shard)),
            ("leaseOwner".to_owned(), s("kcl-worker-7")),
            ("leaseCounter".to_owned(), n("17")),
            ("checkpoint".to_owned(), s(sequence)),
            ("checkpointSubSequenceNumber".to_owned(), n("0")),
            ("ownerSwitchesSinceCheckpoint".to_owned(), n("0")),
        ])
    };
    let table = cloud.kcl_table(places.iter().map(row).collect());
    let report = cloud.run(&["import-checkpoints", "--from", &table, "--json"]).expect(0).json();
    assert_eq!(report["shards"].as_array().unwrap().len(), 2, "{report:#}");
    for (shard, lease) in cloud.leases() {
        assert_eq!(lease.checkpoint, places[&shard]);
    }
    cloud.catch_up();
    assert_all_is_archived_once(&cloud, &feed);
    cloud.put(&mut feed, 20);
    let worker: Worker = cloud.worker("a");
    assert_all_is_archived_once(&cloud, &feed);
    worker.stop();
}
