//! What is done with rows that were looked at, over every [`LeaseStore`]: none of it overwrites what came in between.

#![allow(clippy::unwrap_used)] // clippy knows test functions, not what they call

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use auditlake::lease::{Holding, Lease, LeaseRow, LeaseStore, WorkerId, ask_for};
use jiff::Timestamp;

use crate::dynamodb::clock;
use crate::lease_store::{assert_conflict, row, shard, with_each_store};

/// Runs a test against a store of each kind in which another worker has just written the row of `a`; it is handed the row
/// as it was before, and may change nothing.
async fn beside_another<F: Future<Output = ()>>(test: impl Fn(Arc<dyn LeaseStore>, LeaseRow) -> F) {
    with_each_store(async |store| {
        let store: Arc<dyn LeaseStore> = store.into();
        let seen = row("a", 5);
        store.create(&seen).await.unwrap();
        let theirs = LeaseRow { owner: Some(WorkerId::new("another")), batch_seq: 3, ..row("a", 6) };
        store.replace(&theirs).await.unwrap();
        test(Arc::clone(&store), seen).await;
        assert_eq!(store.get(&shard("a")).await.unwrap(), Some(theirs));
    })
    .await;
}

fn holding(store: Arc<dyn LeaseStore>) -> Holding {
    Holding { store, clock: clock(), worker: WorkerId::new("w"), failover: Duration::from_secs(10) }
}

#[tokio::test]
async fn a_lease_is_taken_of_the_row_that_was_seen_or_not_at_all() {
    beside_another(async |store, seen| {
        let taken = Lease::take(holding(store), seen, Timestamp::UNIX_EPOCH).await.map(drop);
        assert_conflict(&taken, "a");
    })
    .await;
}

#[tokio::test]
async fn a_lease_is_asked_for_in_the_row_that_was_seen_or_not_at_all() {
    beside_another(async |store, seen| {
        assert_conflict(&ask_for(store.as_ref(), &seen, &WorkerId::new("w")).await, "a");
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_was_lost_is_not_given_up() {
    with_each_store(async |store| {
        let store: Arc<dyn LeaseStore> = store.into();
        store.create(&row("a", 5)).await.unwrap();
        let mut lease = Lease::take(holding(Arc::clone(&store)), row("a", 5), Timestamp::UNIX_EPOCH).await.unwrap();
        let theirs = LeaseRow { owner: Some(WorkerId::new("another")), counter: 7, ..lease.row().clone() };
        store.replace(&theirs).await.unwrap();
        assert_conflict(&lease.release(true, None).await, "a");
        assert!(lease.lost().is_cancelled() && lease.is_taken());
        assert_eq!(store.get(&shard("a")).await.unwrap(), Some(theirs));
    })
    .await;
}
