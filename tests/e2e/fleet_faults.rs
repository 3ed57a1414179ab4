//! Services that are away, slow, throttled, or lose their answers: a fleet gets slower and no more.

use std::fs;
use std::thread;
use std::time::Duration;

use auditlake_test_servers::Answer;

use crate::support::{
    Cloud, Feed, Worker, assert_all_is_archived_once, get, served_at, stop_all, wait_until, wait_until_balanced,
};

fn errors(worker: &Worker) -> usize {
    worker.process.stderr().lines().filter(|line| line.contains(r#""level":"ERROR""#)).count()
}

/// What a process holds in memory, in mebibytes.
fn memory(worker: &Worker) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", worker.process.id())).unwrap();
    let held = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    held.trim().split(' ').next().unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn a_lease_table_that_is_away_for_long_makes_no_lease_wander() {
    let (mut cloud, mut feed) = (Cloud::new(6), Feed::new(41));
    cloud.set("lease.failover", "\"2s\"");
    let listen = [("AUDITLAKE__METRICS__LISTEN", "127.0.0.1:0")];
    let workers = ["a", "b", "c"].map(|name| cloud.worker_with(name, &listen));
    wait_until_balanced(&cloud, &workers.each_ref());
    cloud.put(&mut feed, 100);
    cloud.wait_until_archived(&feed);
    let before = (cloud.owners(), cloud.leases());

    cloud.dynamodb_faults.down();
    cloud.put(&mut feed, 100);
    thread::sleep(Duration::from_mins(1));
    let page = get(&served_at(&workers[0].process), "/").body;
    let own = ["data-is=\"state\">lease ran out<", "data-is=\"owner\" title=\"this worker\">"];
    assert_eq!(own.map(|said| page.matches(said).count()), [2, 2], "{page}");
    for said in ["the state can't be reached: ", "What is not read here is shown as it was ", "read elsewhere"] {
        assert!(page.contains(said), "no {said}: {page}");
    }
    assert!(!page.contains(">-</b><span class=\"dim\">most behind"), "{page}");
    cloud.dynamodb_faults.up();

    let is_renewed = || cloud.leases().iter().all(|(shard, lease)| lease.counter > before.1[shard].counter);
    wait_until("all leases are renewed", is_renewed);
    cloud.put(&mut feed, 100);
    cloud.wait_until_archived(&feed);
    wait_until_balanced(&cloud, &workers.each_ref());
    let after = cloud.owners();
    let moved = after.iter().filter(|(shard, owner)| before.0[*shard] != **owner).count();
    assert!(moved <= 2, "{:?} {after:?}", before.0);
    stop_all(workers.into());
    assert_all_is_archived_once(&cloud, &feed);
}

/// Two minutes: each step's pauses grow to their longest.
#[test]
fn a_bucket_that_asks_for_patience_is_given_it_and_nothing_is_dropped() {
    let (mut cloud, mut feed) = (Cloud::new(2), Feed::new(42).dense(4));
    cloud.set("limits.memory", "\"32MiB\"");
    let worker = cloud.worker("a");
    cloud.put(&mut feed, 100);
    cloud.wait_until_archived(&feed);
    let (manifests, before) = (cloud.manifests().len(), memory(&worker));

    let slow = cloud.s3_faults.on_any().answer(Answer::s3_slow_down());
    for _ in 0..24 {
        cloud.put(&mut feed, 50);
        thread::sleep(Duration::from_secs(5));
    }
    assert!(slow.hits() > 4, "{slow:?}");
    assert_eq!(cloud.manifests().len(), manifests);
    let held = memory(&worker);
    assert!(held < before + 64, "it held {before} MiB before and {held} MiB after two minutes");
    slow.heal();

    cloud.wait_until_archived(&feed);
    assert!(errors(&worker) <= 4, "{}", worker.process.stderr());
    assert_all_is_archived_once(&cloud, &feed);
    worker.stop();
}

#[test]
fn answers_that_are_lost_everywhere_lose_and_double_nothing() {
    let (cloud, mut feed) = (Cloud::new(4), Feed::new(43).dense(2));
    for write in ["PutItem", "UpdateItem", "DeleteItem", "BatchExecuteStatement", "CreateTable"] {
        cloud.dynamodb_faults.on(write).every(7).lose_answer();
    }
    for put in ["PutObject", "CompleteMultipartUpload"] {
        cloud.s3_faults.on(put).every(5).lose_answer();
    }
    cloud.kinesis_faults.on("GetRecords").every(6).cut_answer_after(300);
    cloud.kinesis_faults.on("GetRecords").every(11).cut();
    let workers = ["a", "b"].map(|name| cloud.worker(name));
    cloud.put_at_rate(&mut feed, 900, 150);
    assert!(feed.truth.records > 2_000, "{}", feed.truth.records);
    cloud.wait_until_archived(&feed);
    stop_all(workers.into());
    // The proof itself is to be had without faults.
    for proxy in [&cloud.kinesis_faults, &cloud.dynamodb_faults, &cloud.s3_faults] {
        proxy.heal();
    }
    cloud.catch_up();
    assert_all_is_archived_once(&cloud, &feed);
}

#[test]
fn throttling_slows_it_down_and_is_not_told_each_second() {
    let (cloud, mut feed) = (Cloud::new(2), Feed::new(44).dense(2));
    cloud.kinesis_faults.on("GetRecords").every(2).answer(Answer::kinesis_throttled());
    let throttled =
        |operation: &str, nth| cloud.dynamodb_faults.on(operation).every(nth).answer(Answer::dynamodb_throttled());
    let claims = [throttled("BatchExecuteStatement", 2), throttled("BatchGetItem", 2)];
    throttled("PutItem", 3);
    let worker = cloud.worker("a");
    cloud.put_at_rate(&mut feed, 600, 60);
    cloud.wait_until_archived(&feed);
    assert!(claims[0].hits() > 10, "{claims:?}");
    assert!(errors(&worker) <= 2, "{}", worker.process.stderr());
    worker.stop();
    assert_all_is_archived_once(&cloud, &feed);
}

#[test]
fn a_record_in_an_open_window_is_committed_when_its_worker_is_told_to_stop() {
    let (mut cloud, mut feed) = (Cloud::new(2), Feed::new(45));
    cloud.set("batch.window", "\"1d\"");
    let worker = cloud.worker("a");
    wait_until("it has both shards", || worker.leases_held(&cloud) == 2);
    cloud.put(&mut feed, 20);
    wait_until("it has read them", || cloud.dynamodb_faults.count("BatchExecuteStatement") > 0);
    for shard in cloud.open_shards() {
        worker.process.wait_until_caught_up(&shard);
    }
    assert!(cloud.manifests().is_empty(), "the window is open");
    worker.stop();
    // Whatever it had not read is read now.
    assert!(!cloud.manifests().is_empty());
    assert!(cloud.leases().values().all(|lease| lease.owner.is_none() && !lease.is_pending));
    cloud.catch_up();
    assert_all_is_archived_once(&cloud, &feed);
}

#[test]
fn a_bucket_that_hangs_holds_up_no_end_and_what_was_open_is_read_again() {
    let (mut cloud, mut feed) = (Cloud::new(2), Feed::new(46));
    cloud.set("batch.window", "\"1d\"").set("worker.shutdown_grace", "\"2s\"");
    let worker = cloud.worker("a");
    wait_until("it has both shards", || worker.leases_held(&cloud) == 2);
    cloud.put(&mut feed, 40);
    for shard in cloud.open_shards() {
        worker.process.wait_until_caught_up(&shard);
    }
    wait_until("it has read something", || cloud.dynamodb_faults.count("BatchExecuteStatement") > 0);
    let hanging = cloud.s3_faults.on("PutObject").hang();

    let done = worker.end();

    assert!(hanging.hits() > 0);
    assert!(done.stderr.contains("the grace is over"), "{}", done.stderr);
    assert_eq!((done.code, done.signal), (Some(0), None), "{}", done.stderr);
    assert!(cloud.manifests().is_empty());
    hanging.heal();
    let successor = cloud.worker_with("b", &[("AUDITLAKE__BATCH__WINDOW", "1s")]);
    assert_all_is_archived_once(&cloud, &feed);
    successor.stop();
    assert_all_is_archived_once(&cloud, &feed);
}

#[test]
fn a_rolling_restart_moves_every_lease_and_loses_none() {
    let (cloud, mut feed) = (Cloud::new(6), Feed::new(47).dense(4));
    thread::scope(|scope| {
        let names = ["a", "b", "c"];
        let mut workers = names.map(|name| cloud.worker(name));
        wait_until_balanced(&cloud, &workers.each_ref());
        let before = cloud.owners();
        let feeding = scope.spawn(|| cloud.put_at_rate(&mut feed, 800, 40));
        for (worker, name) in workers.iter_mut().zip(names) {
            let old = std::mem::replace(worker, cloud.worker(name));
            old.stop();
            wait_until("no lease is without an owner", || cloud.owners().values().all(Option::is_some));
        }
        wait_until_balanced(&cloud, &workers.each_ref());
        let after = cloud.owners();
        assert!(after.iter().all(|(shard, owner)| before[shard] != *owner), "{before:?} {after:?}");
        feeding.join().unwrap();
        stop_all(workers.into());
    });
    cloud.catch_up();
    assert_all_is_archived_once(&cloud, &feed);
}
