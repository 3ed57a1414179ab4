//! Many workers, one stream, one table, one bucket.

use std::thread;
use std::time::Duration;

use auditlake_test_servers::Answer;
use auditlake_test_servers::aws::Put;

use crate::support::{Cloud, Feed, Worker, assert_all_is_archived_once, mix, stop_all, wait_until};

#[test]
fn what_a_feed_puts_is_what_its_truth_says() {
    let (cloud, mut feed) = (Cloud::new(2), Feed::new(1));
    cloud.put(&mut feed, 700);
    cloud.put_at_rate(&mut feed, 30, 300);
    assert_eq!(cloud.open_shards().len(), 2);
    let truth = &feed.truth;
    assert!(truth.records > 730 && truth.duplicates() > 50 && truth.conflicts == 0, "{truth:?}");
    let mut again = Feed::new(1);
    assert_eq!(again.take(730).len(), 730);
    assert_eq!(again.truth.events, feed.truth.events);
}

#[test]
fn an_archive_is_brought_to_a_disk_as_it_stands() {
    let cloud = Cloud::for_many_records(1);
    for (key, text) in [("events/a.ndjson", "a"), ("_manifests/s/1.json", "{}"), ("events/b.ndjson", "b")] {
        cloud.put_object(key, text.into());
    }
    let root = cloud.download();
    assert_eq!(std::fs::read(root.join("events/b.ndjson")).unwrap(), b"b");
    cloud.put_object("events/a.ndjson", "changed".into());
    cloud.download();
    assert_eq!(std::fs::read(root.join("events/a.ndjson")).unwrap(), b"changed");
    assert_eq!(cloud.objects("events/"), ["events/a.ndjson", "events/b.ndjson"]);
    assert!(cloud.leases().is_empty(), "there is no table");
}

#[test]
fn what_stands_in_a_stream_is_archived_once_and_the_second_run_archives_nothing() {
    let (cloud, mut feed) = (Cloud::new(4), Feed::new(2).padded(200));
    cloud.put(&mut feed, 1_000);
    let first = cloud.catch_up();
    assert_eq!(first["archived"], feed.truth.archived(), "{first:#}");
    assert_all_is_archived_once(&cloud, &feed);
    assert_eq!(cloud.catch_up()["archived"], 0);
    assert_eq!(cloud.status()["shards"].as_array().unwrap().len(), 4);
}

#[test]
fn workers_that_are_killed_again_and_again_lose_and_double_nothing() {
    let (cloud, mut feed) = (Cloud::for_many_records(4), Feed::new(3));
    thread::scope(|scope| {
        let feeding = scope.spawn(|| cloud.put_at_rate(&mut feed, 3_000, 100));
        let mut workers: Vec<Worker> = (0..3).map(|number| cloud.worker(&format!("worker-{number}"))).collect();
        for round in 0.. {
            thread::sleep(Duration::from_millis(500 + mix(round) % 2_000));
            if feeding.is_finished() {
                break;
            }
            let victim = workers.remove((mix(round) % 3) as usize);
            let name = victim.name.clone();
            assert!(victim.kill(), "{name} had ended by itself");
            workers.push(cloud.worker(&name));
        }
        feeding.join().unwrap();
        wait_until("all shards have an owner", || cloud.leases().values().all(|lease| lease.owner.is_some()));
        stop_all(workers);
    });
    cloud.catch_up();
    assert_all_is_archived_once(&cloud, &feed);
}

#[test]
fn a_worker_that_slept_longer_than_its_lease_changes_nothing_of_its_successors() {
    let (mut cloud, mut feed) = (Cloud::new(2), Feed::new(4));
    // What it has read is still open when it falls asleep.
    cloud.set("batch.window", "\"1h\"");
    let sleeper = cloud.worker("sleeper");
    wait_until("it has both shards", || sleeper.leases_held(&cloud) == 2);
    cloud.put(&mut feed, 50);
    sleeper.pause();
    let successor = cloud.worker_with("successor", &[("AUDITLAKE__BATCH__WINDOW", "1s")]);
    wait_until("its successor has both", || successor.leases_held(&cloud) == 2);
    cloud.put(&mut feed, 50);
    cloud.wait_until_archived(&feed);
    sleeper.resume();
    cloud.put(&mut feed, 50);
    assert_all_is_archived_once(&cloud, &feed);
    stop_all(vec![sleeper, successor]);
    assert_all_is_archived_once(&cloud, &feed);
}

#[test]
fn shards_that_split_and_merge_while_they_are_read_are_read_in_order() {
    let (cloud, mut feed) = (Cloud::new(2), Feed::new(5));
    let workers = vec![cloud.worker("a"), cloud.worker("b")];
    cloud.put(&mut feed, 100);
    let children = cloud.split(&cloud.open_shards()[0]);
    cloud.put(&mut feed, 100);
    cloud.merge(&children[0], &children[1]);
    cloud.put(&mut feed, 100);
    // Told by manifests: the rows of ended shards go once their children have moved on.
    let ended = || cloud.manifests().iter().filter(|manifest| manifest["shard_end"] == true).count();
    wait_until("three shards have ended", || ended() == 3);
    assert_all_is_archived_once(&cloud, &feed);
    stop_all(workers);
    assert!(cloud.leases().values().all(|lease| lease.owner.is_none() && !lease.is_pending));
}

#[test]
fn services_that_throttle_and_lose_answers_slow_it_down_and_no_more() {
    let (cloud, mut feed) = (Cloud::new(2), Feed::new(6));
    cloud.kinesis_faults.on("GetRecords").every(3).answer(Answer::kinesis_throttled());
    cloud.dynamodb_faults.on_any().every(4).answer(Answer::dynamodb_throttled());
    cloud.dynamodb_faults.on("PutItem").every(5).lose_answer();
    cloud.s3_faults.on("PutObject").every(3).lose_answer();
    let worker = cloud.worker("a");
    cloud.put(&mut feed, 200);
    cloud.put_these(&[Put::new("key", "\n")]);
    cloud.wait_until_archived(&feed);
    cloud.dynamodb_faults.down();
    thread::sleep(Duration::from_secs(5));
    cloud.dynamodb_faults.heal();
    cloud.put(&mut feed, 50);
    assert_all_is_archived_once(&cloud, &feed);
    worker.stop();
    assert!(!cloud.get(&cloud.objects("_manifests/")[0]).is_empty());
}
