//! The contract of the [`LeaseStore`] port.

#![allow(clippy::unwrap_used)] // clippy knows test functions, not what they call

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use auditlake::lease::embedded::EmbeddedLeases;
use auditlake::lease::memory::MemoryLeases;
use auditlake::lease::{Compared, LeaseError, LeaseRow, LeaseStore, LeftOver, Pending, Stop, WorkerId};
use auditlake::source::{Checkpoint, HashRange, Position, SequenceNumber, ShardId};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::dynamodb;

/// Runs one test of the suite against a new store of each kind.
pub(crate) async fn with_each_store<F: Future<Output = ()>>(test: impl Fn(Box<dyn LeaseStore>) -> F) {
    test(Box::new(MemoryLeases::shared())).await;
    let directory = TempDir::new().unwrap();
    test(Box::new(EmbeddedLeases::open(directory.path()).unwrap())).await;
    test(Box::new(dynamodb::leases().await)).await;
}

pub(crate) fn shard(name: &str) -> ShardId {
    ShardId::new(name)
}

pub(crate) fn row(name: &str, counter: u64) -> LeaseRow {
    LeaseRow { counter, ..LeaseRow::new(shard(name), Vec::new()) }
}

/// A row with something in every field.
pub(crate) fn full_row(name: &str) -> LeaseRow {
    let digest = auditlake::digest::Digest::of(b"payload");
    let sequence = SequenceNumber::new("49590338271490256608559692538361571095921575989136588898");
    let at = |sub_sequence| Checkpoint::at(Position { sequence: sequence.clone(), sub_sequence }, b"payload");
    let pending: Pending = serde_json::from_value(serde_json::json!({
        "batch_seq": 7,
        "range": { "after": at(1), "through": at(2) },
        "shard_end": true,
        "window": { "start": "2026-11-21T09:30:00Z", "end": "2026-11-21T10:00:00Z" },
        "arrival": "2026-11-21T09:30:00.123456Z",
        "layout": {
            "format": "parquet", "compression": "zstd", "compression_level": 3, "partition_by": ["dt"],
            "keep_raw": true, "source_label": "é", "source_kind": "kinesis",
            "rules": { "trusted_proxies": ["10.0.0.0/8"], "max_payload_bytes": 1_048_576 },
        },
        "gap": { "after": at(1), "from": null, "until": "2026-11-21T09:30:00Z" },
    }))
    .unwrap();
    let left_over = LeftOver {
        window: pending.window,
        through: Position { sequence: sequence.clone(), sub_sequence: 9 },
        layout: pending.layout.clone(),
        partitions: ["dt=2026-11-21".to_owned()].into(),
    };
    LeaseRow {
        parents: vec![shard("p/1"), shard("p/2")],
        owner: Some(WorkerId::new("worker é")),
        counter: 3,
        checkpoint: at(1),
        ended: true,
        batch_seq: u64::MAX,
        chain_head: Some(digest),
        pending: Some(pending),
        caught_up: true,
        read_through: Some("2026-11-21T09:30:00.123456789Z".parse().unwrap()),
        wanted_by: Some(WorkerId::new("another")),
        taken_at: Some("2026-11-21T09:00:00.5Z".parse().unwrap()),
        switches: 3,
        children: vec![shard("c/2"), shard("c/1")],
        hash_range: Some(HashRange { start: "0".into(), end: "340282366920938463463374607431768211455".into() }),
        origin: Some("arn:aws:kinesis:eu-west-1:1:stream/s 2026-11-01T00:00:00Z".into()),
        remade_at: Some(4),
        compared: Some(Compared { began: "2026-11-20T09:00:00Z".parse().unwrap(), batches: 3 }),
        stopped: Some(Stop::new("2026-11-21T10:00:00.25Z".parse().unwrap(), &"the source: \"no\"")),
        failover: Some(Duration::from_millis(10_500)),
        left_over: Some(left_over),
        shard: shard(name),
    }
}

pub(crate) fn assert_conflict(result: &Result<(), LeaseError>, name: &str) {
    assert!(matches!(result, Err(LeaseError::Conflict { shard: of }) if *of == shard(name)), "{result:?}");
}

#[tokio::test]
async fn a_store_begins_empty() {
    with_each_store(async |store| {
        assert_eq!(store.list().await.unwrap(), []);
        assert_eq!(store.get(&shard("a")).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_row_is_read_as_it_was_written() {
    with_each_store(async |store| {
        store.create(&full_row("a")).await.unwrap();
        assert_eq!(store.get(&shard("a")).await.unwrap(), Some(full_row("a")));
        assert_eq!(store.list().await.unwrap(), [full_row("a")]);
        let bare = row("a", 4);
        store.replace(&bare).await.unwrap();
        assert_eq!(store.get(&shard("a")).await.unwrap(), Some(bare));
        // The same fields, without their like in another program's words.
        let time = "2026-11-21T00:00:00Z".parse().unwrap();
        let imported = Checkpoint::Imported(Position { sequence: SequenceNumber::new("9"), sub_sequence: 7 });
        for (counter, checkpoint) in [(5, Checkpoint::Since(time)), (6, imported)] {
            let row = LeaseRow { checkpoint, ended: counter == 6, ..row("a", counter) };
            store.replace(&row).await.unwrap();
            assert_eq!(store.get(&shard("a")).await.unwrap(), Some(row));
        }
    })
    .await;
}

#[tokio::test]
async fn a_row_is_created_once() {
    with_each_store(async |store| {
        store.create(&row("a", 0)).await.unwrap();
        assert_conflict(&store.create(&row("a", 0)).await, "a");
        assert_conflict(&store.create(&row("a", 1)).await, "a");
        assert_eq!(store.get(&shard("a")).await.unwrap(), Some(row("a", 0)));
    })
    .await;
}

#[tokio::test]
async fn a_row_is_replaced_only_by_its_successor() {
    with_each_store(async |store| {
        store.create(&row("a", 5)).await.unwrap();
        for counter in [0, 4, 5, 7, u64::MAX] {
            assert_conflict(&store.replace(&row("a", counter)).await, "a");
        }
        let next = LeaseRow { owner: Some(WorkerId::new("w")), ..row("a", 6) };
        store.replace(&next).await.unwrap();
        assert_conflict(&store.replace(&row("a", 6)).await, "a");
        assert_eq!(store.get(&shard("a")).await.unwrap(), Some(next));
    })
    .await;
}

#[tokio::test]
async fn a_row_that_is_not_there_is_not_replaced() {
    with_each_store(async |store| {
        for counter in [0, 1, 2] {
            assert_conflict(&store.replace(&row("a", counter)).await, "a");
        }
        assert_eq!(store.list().await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn a_row_is_removed_only_as_it_was_seen() {
    with_each_store(async |store| {
        assert_conflict(&store.remove(&row("a", 0)).await, "a");
        store.create(&row("a", 5)).await.unwrap();
        for counter in [0, 4, 6] {
            assert_conflict(&store.remove(&row("a", counter)).await, "a");
        }
        assert_eq!(store.get(&shard("a")).await.unwrap(), Some(row("a", 5)));
        store.remove(&row("a", 5)).await.unwrap();
        assert_eq!(store.get(&shard("a")).await.unwrap(), None);
        assert_conflict(&store.remove(&row("a", 5)).await, "a");
        store.create(&row("a", 0)).await.unwrap();
    })
    .await;
}

/// Makes one write of each of eight workers at once; the rows of those that it was granted to.
async fn at_once<W: Future<Output = Result<(), LeaseError>> + Send + 'static>(
    store: &Arc<dyn LeaseStore>,
    counter: u64,
    write: impl Fn(Arc<dyn LeaseStore>, LeaseRow) -> W,
) -> Vec<LeaseRow> {
    let mut writes = JoinSet::new();
    for worker in 0..8 {
        let row = LeaseRow { owner: Some(WorkerId::new(format!("w{worker}"))), ..row("a", counter) };
        let written = write(Arc::clone(store), row.clone());
        writes.spawn(async move { (written.await, row) });
    }
    let (won, lost): (Vec<_>, Vec<_>) = writes.join_all().await.into_iter().partition(|(written, _)| written.is_ok());
    for (written, _) in lost {
        assert_conflict(&written, "a");
    }
    won.into_iter().map(|(_, row)| row).collect()
}

// On threads of their own: a store that takes no turns by itself shows it only there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_one_wins() {
    with_each_store(async |store| {
        let store = Arc::from(store);
        for round in 0..5 {
            let created = at_once(&store, 0, |store, row| async move { store.create(&row).await }).await;
            assert_eq!(store.list().await.unwrap(), created, "round {round}");
            let replaced = at_once(&store, 1, |store, row| async move { store.replace(&row).await }).await;
            assert_eq!(store.list().await.unwrap(), replaced, "round {round}");
            let removed = at_once(&store, 1, |store, row| async move { store.remove(&row).await }).await;
            assert_eq!((removed.len(), store.list().await.unwrap()), (1, Vec::new()), "round {round}");
        }
    })
    .await;
}

#[tokio::test]
async fn rows_are_listed_in_the_order_of_their_shards() {
    with_each_store(async |store| {
        // In the order of their files' names these would stand otherwise: `/` is written as `%2F`.
        let names = ["a", "a!", "a-1", "a/1", "a1", "b", "é", "ü"];
        for name in ["é", "b", "a1", "a/1", "a-1", "ü", "a!", "a"] {
            store.create(&row(name, 0)).await.unwrap();
        }
        let listed: Vec<String> = store.list().await.unwrap().iter().map(|row| row.shard.to_string()).collect();
        assert_eq!(listed, names);
    })
    .await;
}

#[tokio::test]
async fn any_name_is_a_shards_name() {
    with_each_store(async |store| {
        let long = "2026/11/21/audit-".repeat(18);
        let (long_a, long_b, long_unicode) = (format!("{long}a"), format!("{long}b"), "日".repeat(300));
        let names = [
            "",
            " ",
            ".",
            "..",
            "../escape",
            "/",
            "a/b",
            "a%2Fb",
            "a b",
            "a\\b",
            "a\nb",
            "a\0b",
            "~",
            "x.json",
            "x.json.tmp",
            ".hidden",
            "shardId-000000000000",
            "日本",
            &long_a,
            &long_b,
            &long_unicode,
        ];
        for (name, owner) in names.iter().zip(0..) {
            let owner: i32 = owner;
            let created = LeaseRow { owner: Some(WorkerId::new(owner.to_string())), ..row(name, 0) };
            store.create(&created).await.unwrap_or_else(|error| panic!("{name:?}: {error}"));
            assert_conflict(&store.create(&created).await, name);
            assert_eq!(store.get(&shard(name)).await.unwrap(), Some(created));
        }
        for name in names {
            store.replace(&row(name, 1)).await.unwrap();
        }
        let mut sorted = names.map(shard);
        sorted.sort();
        let listed: Vec<ShardId> = store.list().await.unwrap().into_iter().map(|row| row.shard).collect();
        assert_eq!(listed, sorted);
    })
    .await;
}

#[tokio::test]
async fn a_store_says_whether_other_workers_can_be_alive() {
    let directory = TempDir::new().unwrap();
    assert!(EmbeddedLeases::open(directory.path()).unwrap().sole_worker());
    assert!(MemoryLeases::for_a_sole_worker().sole_worker());
    assert!(!MemoryLeases::shared().sole_worker());
}
