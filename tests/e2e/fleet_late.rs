//! A worker that is stopped in the middle of a write: what arrives late changes nothing of its successor's. The proxy
//! holds the write back while the worker sleeps, and lets it through once its successor has gone on.

use auditlake_test_servers::Fault;

use crate::support::{Cloud, Feed, assert_all_is_archived_once, stop_all, wait_until};

fn a_late_write_changes_nothing(held_back: impl Fn(&Cloud) -> Fault) {
    let (cloud, mut feed) = (Cloud::new(1), Feed::new(21));
    let fault = held_back(&cloud);
    let sleeper = cloud.worker("sleeper");
    wait_until("it has the shard", || sleeper.leases_held(&cloud) == 1);
    cloud.put(&mut feed, 40);
    wait_until("its write is on the way", || fault.hits() == 1);
    sleeper.pause();
    let successor = cloud.worker("successor");
    wait_until("its successor has the shard", || successor.leases_held(&cloud) == 1);
    cloud.put(&mut feed, 40);
    cloud.wait_until_archived(&feed);
    let before = (cloud.manifests(), cloud.objects("events/"));

    // The server gets the write now, and the worker wakes to what comes of it.
    fault.heal();
    sleeper.resume();

    cloud.put(&mut feed, 40);
    assert_all_is_archived_once(&cloud, &feed);
    let after = (cloud.manifests(), cloud.objects("events/"));
    assert!(before.0.iter().all(|manifest| after.0.contains(manifest)), "a manifest was changed");
    assert!(before.1.iter().all(|key| after.1.contains(key)));
    stop_all(vec![sleeper, successor]);
    assert_all_is_archived_once(&cloud, &feed);
    assert!(cloud.leases().values().all(|lease| lease.owner.is_none() && !lease.is_pending));
}

#[test]
fn a_late_claim_changes_nothing_of_the_successors() {
    a_late_write_changes_nothing(|cloud| cloud.dynamodb_faults.on("BatchExecuteStatement").next(1).hang());
}

#[test]
fn a_late_prepare_changes_nothing_of_the_successors() {
    a_late_write_changes_nothing(|cloud| {
        cloud.dynamodb_faults.on("PutItem").body_has("pendingCheckpointState").next(1).hang()
    });
}

#[test]
fn a_late_object_changes_nothing_of_the_successors() {
    a_late_write_changes_nothing(|cloud| cloud.s3_faults.on("PutObject").target_has("/events/").next(1).hang());
}

#[test]
fn a_late_manifest_changes_nothing_of_the_successors() {
    a_late_write_changes_nothing(|cloud| cloud.s3_faults.on("PutObject").target_has("/_manifests/").next(1).hang());
}

#[test]
fn a_late_commit_changes_nothing_of_the_successors() {
    a_late_write_changes_nothing(|cloud| {
        cloud.dynamodb_faults.on("PutItem").body_has(r#""auditlake_batch_seq":{"N":"1"}"#).next(1).hang()
    });
}
