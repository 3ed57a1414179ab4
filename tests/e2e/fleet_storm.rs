//! Everything that befalls a fleet, at once; and the loss of all its state.

use std::thread;

use crate::support::{Cloud, Feed, Worker, assert_all_is_archived_once, stop_all, wait_until, wait_until_balanced};

/// Each lease of a shard that takes records has an owner, and it is not this one.
fn have_left(cloud: &Cloud, worker: &Worker) -> bool {
    let leases = cloud.leases();
    let mut open = leases.values().filter(|lease| !lease.has_ended());
    open.all(|lease| lease.owner.is_some() && !worker.holds(lease))
}

/// What the product does once its tables are gone: all workers end, and say that they are to be started again, which an
/// orchestrator does. Nobody looks at what batches that were under way have left in the bucket.
fn wait_and_restart_without_tables(cloud: &Cloud, workers: Vec<Worker>) -> Vec<Worker> {
    let names: Vec<String> = workers.iter().map(|worker| worker.name.clone()).collect();
    for worker in workers {
        let done = worker.process.wait();
        assert_eq!(done.code, Some(1), "{}", done.stderr);
        // One that was only starting had nothing to lose yet.
        let says_why = ["start it again", "a worker that starts makes it anew"];
        assert!(says_why.iter().any(|words| done.stderr.contains(words)), "{}", done.stderr);
    }
    names.iter().map(|name| cloud.worker(name)).collect()
}

#[test]
fn killed_slept_split_merged_joined_and_robbed_of_its_tables_a_fleet_archives_all_of_it_once() {
    let (cloud, mut feed) = (Cloud::new(8), Feed::new(11).dense(8));
    let workers = thread::scope(|scope| {
        let feeding = scope.spawn(|| cloud.put_at_rate(&mut feed, 2_100, 70));
        let [killed, sleeper, third] = ["a", "b", "c"].map(|name| cloud.worker(name));
        wait_until("all shards are held", || cloud.owners().values().all(Option::is_some));
        wait_until("something is archived", || !cloud.objects("_manifests/").is_empty());

        assert!(killed.kill());
        sleeper.pause();
        cloud.split(&cloud.open_shards()[0]);
        let open = cloud.open_shards();
        cloud.merge(&open[4], &open[5]);
        let fourth = cloud.worker("d");
        wait_until("the others have the sleeper's shards", || have_left(&cloud, &sleeper));
        // One that starts only when the tables are gone makes them anew, as it should, and would not end.
        wait_until("the fourth takes part", || cloud.leases().values().any(|lease| fourth.holds(lease)));
        sleeper.resume();
        cloud.split(cloud.open_shards().last().unwrap());

        let workers = vec![sleeper, third, fourth];
        cloud.drop_tables();
        let workers = wait_and_restart_without_tables(&cloud, workers);

        feeding.join().unwrap();
        wait_until_balanced(&cloud, &workers.iter().collect::<Vec<_>>());
        workers
    });
    cloud.wait_until_archived(&feed);
    stop_all(workers);
    assert!(feed.truth.records > 20_000, "{}", feed.truth.records);
    cloud.catch_up();
    assert_all_is_archived_once(&cloud, &feed);
    assert!(cloud.leases().values().all(|lease| lease.owner.is_none() && !lease.is_pending));
}

#[test]
fn without_its_tables_a_fleet_goes_on_from_the_archive_once_it_is_restarted() {
    let (cloud, mut feed) = (Cloud::new(4), Feed::new(12).dense(4));
    cloud.put(&mut feed, 300);
    let workers = Vec::from(["a", "b", "c"].map(|name| cloud.worker(name)));
    cloud.wait_until_archived(&feed);
    cloud.put(&mut feed, 200);
    cloud.drop_tables();
    let workers = wait_and_restart_without_tables(&cloud, workers);
    cloud.put(&mut feed, 300);
    cloud.wait_until_archived(&feed);
    stop_all(workers);
    assert_all_is_archived_once(&cloud, &feed);
}

/// Who sleeps through all of it remembers rows and claims that are gone: it may change nothing, and commit nothing.
#[test]
fn a_worker_that_slept_through_the_loss_of_its_tables_lets_nothing_in_twice() {
    let (cloud, mut feed) = (Cloud::new(2), Feed::new(13));
    cloud.put(&mut feed, 200);
    let (sleeper, other) = (cloud.worker("sleeper"), cloud.worker("other"));
    cloud.wait_until_archived(&feed);
    cloud.put(&mut feed, 100);
    sleeper.pause();
    cloud.drop_tables();
    let others = wait_and_restart_without_tables(&cloud, vec![other]);
    cloud.put(&mut feed, 100);
    assert_all_is_archived_once(&cloud, &feed);
    sleeper.resume();
    let done = sleeper.process.wait();
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    cloud.put(&mut feed, 100);
    stop_all(others);
    cloud.catch_up();
    assert_all_is_archived_once(&cloud, &feed);
}
