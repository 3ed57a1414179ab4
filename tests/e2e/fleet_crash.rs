//! Killed at each step of the commit protocol, with another worker to take over (SCENARIOS.md, 38).

use crate::support::{Cloud, Feed, Process, assert_all_is_archived_once, wait_until};

/// The worker dies at these steps, one after the other, each time in another worker's place; one that lives goes on.
#[track_caller]
fn die_at(steps: &[&str]) {
    let (mut cloud, mut feed) = (Cloud::new(2), Feed::new(31));
    cloud.set("lease.failover", "\"1s\"").set("batch.window", "\"1s\"");
    for step in steps {
        cloud.put(&mut feed, 60);
        let mut command = cloud.command(&["run"]);
        let dying = Process::start(command.env("AUDITLAKE_FAILPOINT", step).env("AUDITLAKE__WORKER__ID", step));
        let done = dying.wait();
        assert_eq!((done.code, done.signal), (None, Some(6)), "it did not die at {step}: {done:#?}");
        cloud.verify();
    }
    let successor = cloud.worker("successor");
    cloud.put(&mut feed, 60);
    wait_until("it has both shards", || successor.leases_held(&cloud) == 2);
    assert_all_is_archived_once(&cloud, &feed);
    successor.stop();
    assert_all_is_archived_once(&cloud, &feed);
}

#[test]
fn killed_while_it_claims_another_worker_goes_on() {
    die_at(&["claimed", "claimed:2", "claims_flushed"]);
}

#[test]
fn killed_behind_its_intent_another_worker_goes_on() {
    die_at(&["prepared", "prepared:2"]);
}

#[test]
fn killed_while_it_puts_objects_another_worker_goes_on() {
    die_at(&["object_put", "object_put:2", "object_put:4"]);
}

#[test]
fn killed_behind_its_manifest_another_worker_goes_on() {
    die_at(&["manifest_put", "manifest_put:2"]);
}

#[test]
fn killed_behind_its_commit_another_worker_goes_on() {
    die_at(&["committed", "committed:2"]);
}

/// The other worker is there all the time, and takes over while the dead one's lease runs out.
#[test]
fn killed_at_any_step_beside_a_worker_that_lives() {
    let (mut cloud, mut feed) = (Cloud::new(2), Feed::new(32));
    cloud.set("lease.failover", "\"1s\"").set("batch.window", "\"1s\"");
    let survivor = cloud.worker("survivor");
    for step in ["claimed", "claims_flushed", "prepared", "object_put", "manifest_put", "committed"] {
        let mut command = cloud.command(&["run"]);
        let mut dying = Process::start(command.env("AUDITLAKE_FAILPOINT", step).env("AUDITLAKE__WORKER__ID", step));
        // It asks for its share, and gets it, before there is something to die of.
        let holds = |name: &str| {
            cloud.leases().values().any(|lease| lease.owner.as_ref().is_some_and(|owner| owner.starts_with(name)))
        };
        wait_until("it has its share", || holds(step));
        wait_until("it is dead", || {
            cloud.put(&mut feed, 5);
            !dying.runs()
        });
        assert_eq!(dying.wait().signal, Some(6), "{step}");
        cloud.verify();
    }
    assert_all_is_archived_once(&cloud, &feed);
    survivor.stop();
    assert_all_is_archived_once(&cloud, &feed);
}
