//! What only claims in DynamoDB can do wrong, and what they cost.

#![allow(clippy::unwrap_used)] // clippy knows test functions, not what they call
#![allow(clippy::disallowed_methods, reason = "a real server is waited for in real time")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use auditlake::dedupe::dynamodb::{ClaimsTable, DynamoClaims, Marker};
use auditlake::dedupe::{Claim, ClaimError, Claims, Verdict};
use auditlake::ops::clock::PausedClock;
use auditlake::source::ShardId;
use auditlake_test_servers::{Answer, Fault, FaultProxy, ministack};
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::SignedDuration;

use crate::claims::{Arrival, ask, copy, now};
use crate::dynamodb::{ARCHIVE, WINDOW, claims_at, claims_table, client, clock};

use Verdict::{Conflict, Duplicate, New};

struct Bench {
    proxy: FaultProxy,
    table: (String, Marker),
    claims: DynamoClaims,
}

impl Bench {
    async fn new() -> Self {
        let (proxy, table) = (FaultProxy::start(&ministack().await.url).await, claims_table().await);
        let claims = claims_at(proxy.url(), &table);
        Self { proxy, table, claims }
    }

    /// All items but the marker, by their keys.
    async fn items(&self) -> HashMap<String, HashMap<String, AttributeValue>> {
        let scan = client(&ministack().await.url).scan().table_name(&self.table.0).into_paginator().items().send();
        let items = scan.collect::<Result<Vec<_>, _>>().await.unwrap();
        let keyed = items.into_iter().map(|item| (item["id"].as_s().unwrap().clone(), item));
        keyed.filter(|(key, _)| !key.starts_with('_')).collect()
    }

    /// Counts statements, whatever the number of calls.
    fn count_statements(&self) -> Arc<AtomicUsize> {
        let statements = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&statements);
        self.proxy.on("BatchExecuteStatement").edit_request(move |request| {
            let count = String::from_utf8_lossy(&request.body).matches("\"Statement\":").count();
            counter.fetch_add(count, Ordering::Relaxed);
        });
        statements
    }
}

fn copies(n: u64) -> Vec<Arrival> {
    (0..n).map(|n| copy(&format!("log-{n}"), n, n)).collect()
}

async fn claim(claims: &dyn Claims, shard: &str, copies: &[Arrival]) -> Result<Vec<Verdict>, ClaimError> {
    let call: Vec<Claim<'_>> = copies.iter().map(Arrival::claim).collect();
    claims.claim(&ShardId::new(shard), &call, now()).await
}

#[tokio::test]
async fn a_new_record_costs_one_write_and_a_copy_one_that_fails_and_one_read() {
    let bench = Bench::new().await;
    let (statements, copies) = (bench.count_statements(), copies(1_010));
    assert_eq!(claim(&bench.claims, "a", &copies).await.unwrap(), vec![New; 1_010]);
    assert_eq!((bench.proxy.count("BatchExecuteStatement"), bench.proxy.count("BatchGetItem")), (41, 0));
    assert_eq!(statements.load(Ordering::Relaxed), 1_010);
    let items = bench.items().await;
    assert!(items.len() == 1_010 && items.values().all(|item| item["r"] == AttributeValue::N("1".into())));

    bench.proxy.forget();
    assert_eq!(claim(&bench.claims, "b", &copies).await.unwrap(), vec![Duplicate; 1_010]);
    assert_eq!((bench.proxy.count("BatchExecuteStatement"), bench.proxy.count("BatchGetItem")), (41, 11));
    assert_eq!(bench.proxy.requests().len(), 52);
    assert_eq!(statements.load(Ordering::Relaxed), 2 * 1_010);
    assert_eq!(bench.items().await, items, "a copy has changed an item");
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_found_to_be_its_own() {
    let bench = Bench::new().await;
    let lost = bench.proxy.on("BatchExecuteStatement").next(2).lose_answer();
    assert_eq!(claim(&bench.claims, "a", &copies(50)).await.unwrap(), vec![New; 50]);
    assert_eq!(lost.hits(), 2);
    // The same where a record claims beside another.
    bench.proxy.on("BatchExecuteStatement").skip(1).next(1).lose_answer();
    let other = copy("log-1", 99, 1_000);
    assert_eq!(claim(&bench.claims, "a", std::slice::from_ref(&other)).await.unwrap(), [Conflict]);
    assert_eq!(bench.items().await["01020304#L#log-1"]["r"], AttributeValue::N("2".into()));
    assert_eq!(ask(&bench.claims, &other).await, Conflict);
}

#[tokio::test]
async fn throttling_is_waited_out_and_statements_that_fail_are_sent_again_by_themselves() {
    let bench = Bench::new().await;
    bench.proxy.on("BatchExecuteStatement").next(3).answer(Answer::dynamodb_throttled());
    // One statement of each of these answers says that it was not executed, and was not.
    for error in ["ThrottlingError", "ProvisionedThroughputExceeded", "InternalServerError", "TransactionConflict"] {
        bench.proxy.on("BatchExecuteStatement").next(1).edit_answer(move |answer| {
            let mut body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            body["Responses"][0] = serde_json::json!({ "Error": { "Code": error, "Message": "no" } });
            answer.body = body.to_string().into();
        });
    }
    assert_eq!(claim(&bench.claims, "a", &copies(100)).await.unwrap(), vec![New; 100]);
    bench.proxy.on("BatchGetItem").next(1).answer(Answer::dynamodb("InternalServerError"));
    assert_eq!(claim(&bench.claims, "b", &copies(100)).await.unwrap(), vec![Duplicate; 100]);
}

#[tokio::test]
async fn keys_that_were_not_read_are_asked_for_again() {
    let bench = Bench::new().await;
    claim(&bench.claims, "a", &copies(100)).await.unwrap();
    let name = bench.table.0.clone();
    bench.proxy.on("BatchGetItem").next(1).edit_answer(move |answer| {
        let mut body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let read = body["Responses"][&name].as_array_mut().unwrap();
        let keys: Vec<_> = read.drain(..60).map(|item| serde_json::json!({ "id": item["id"] })).collect();
        body["UnprocessedKeys"] = serde_json::json!({ &name: { "Keys": keys, "ConsistentRead": true } });
        answer.body = body.to_string().into();
    });
    bench.proxy.forget();
    assert_eq!(claim(&bench.claims, "b", &copies(100)).await.unwrap(), vec![Duplicate; 100]);
    assert_eq!(bench.proxy.count("BatchGetItem"), 2);
    assert_eq!(bench.proxy.count("BatchExecuteStatement"), 4);
}

#[tokio::test]
async fn items_in_the_way_and_the_marker_are_read_consistently() {
    let bench = Bench::new().await;
    let marker = bench.proxy.on("GetItem").body_has("\"ConsistentRead\":true").delay(Duration::ZERO);
    bench.claims.flush().await.unwrap();
    assert_eq!((marker.hits(), bench.proxy.count("GetItem")), (1, 1));
    let consistent = bench.proxy.on("BatchGetItem").body_has("\"ConsistentRead\":true").delay(Duration::ZERO);
    claim(&bench.claims, "a", &copies(1)).await.unwrap();
    claim(&bench.claims, "b", &copies(1)).await.unwrap();
    assert_eq!((consistent.hits(), bench.proxy.count("BatchGetItem")), (1, 1));
}

#[tokio::test]
async fn a_table_that_does_not_answer_for_a_minute_makes_claims_unavailable() {
    let bench = Bench::new().await;
    bench.proxy.on_any().answer(Answer::dynamodb_throttled());
    let paused = Arc::new(Hurried(auditlake::ops::clock::SystemClock::start()));
    let table = ClaimsTable::new(client(bench.proxy.url()), &bench.table.0);
    let claims = DynamoClaims::open(table, &bench.table.1, WINDOW, paused);
    let error = claim(&claims, "a", &copies(3)).await.unwrap_err();
    assert!(error.may_pass() && error.to_string().contains("3 claims not settled in "), "{error}");
    bench.proxy.heal();
    assert_eq!(claim(&claims, "a", &copies(3)).await.unwrap(), vec![New; 3]);
}

/// A clock that runs a hundred times as fast.
struct Hurried(auditlake::ops::clock::SystemClock);

#[async_trait::async_trait]
impl auditlake::ops::clock::Clock for Hurried {
    fn now(&self) -> jiff::Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() * 100
    }

    async fn sleep(&self, duration: Duration) {
        self.0.sleep(duration / 100).await;
    }
}

#[tokio::test]
async fn what_won_t_pass_is_told_at_once_a_missing_permission_from_a_table_that_is_lost() {
    let bench = Bench::new().await;
    bench.proxy.on("BatchExecuteStatement").next(1).edit_answer(|answer| {
        let mut body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        body["Responses"][0] = serde_json::json!({ "Error": { "Code": "AccessDenied", "Message": "no" } });
        answer.body = body.to_string().into();
    });
    let error = claim(&bench.claims, "a", &copies(3)).await.unwrap_err();
    assert!(matches!(&error, ClaimError::Refused(reason) if reason.contains("dynamodb:PartiQLInsert")), "{error}");
    let sdk = client(&ministack().await.url);
    sdk.delete_table().table_name(&bench.table.0).send().await.unwrap();
    for error in [claim(&bench.claims, "a", &copies(3)).await.unwrap_err(), bench.claims.flush().await.unwrap_err()] {
        assert!(matches!(&error, ClaimError::Lost(reason) if reason.contains(&bench.table.0)), "{error}");
    }
}

#[tokio::test]
async fn of_claimants_at_once_each_record_has_one() {
    let bench = Bench::new().await;
    let workers: Vec<DynamoClaims> = (0..4).map(|_| claims_at(bench.proxy.url(), &bench.table)).collect();
    let (shards, copies) = (["a", "b", "c", "d"], copies(300));
    for round in 0..2 {
        let calls = workers.iter().zip(shards).map(|(claims, shard)| claim(claims, shard, &copies));
        let answers = futures_util::future::join_all(calls).await;
        let answers: Vec<Vec<Verdict>> = answers.into_iter().map(Result::unwrap).collect();
        for record in 0..copies.len() {
            let won = answers.iter().filter(|answers| answers[record] == New).count();
            assert_eq!(won, 1, "round {round}, record {record}");
        }
    }
}

#[tokio::test]
async fn of_different_records_that_claim_one_identity_at_once_none_is_lost() {
    let bench = Bench::new().await;
    let workers: Vec<DynamoClaims> = (0..6).map(|_| claims_at(bench.proxy.url(), &bench.table)).collect();
    let records: Vec<Arrival> = (0..6).map(|n| copy("x", n, n)).collect();
    let asked =
        futures_util::future::join_all(workers.iter().zip(&records).map(|(claims, record)| ask(claims, record)));
    let answers = asked.await;
    assert_eq!(answers.iter().filter(|&&answer| answer == New).count(), 1);
    assert_eq!(answers.iter().filter(|&&answer| answer == Conflict).count(), 5);
    for (record, answer) in records.iter().zip(answers) {
        // Its copy first: a claim that was lost would be made again by its own record.
        let elsewhere = Arrival { shard: "b", ..record.clone() };
        assert_eq!(ask(&bench.claims, &elsewhere).await, Duplicate);
        assert_eq!(ask(&bench.claims, record).await, answer);
    }
}

/// Waits until a request is held.
async fn held(fault: &Fault) {
    let hit = async {
        while fault.hits() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), hit).await.expect("nothing was held");
}

#[tokio::test]
async fn a_claim_beside_another_is_judged_again_where_a_third_was_faster() {
    let bench = Bench::new().await;
    let fast = claims_at(&ministack().await.url, &bench.table);
    let (first, second, third) = (copy("x", 1, 1), copy("x", 2, 2), copy("x", 3, 3));
    assert_eq!(ask(&bench.claims, &first).await, New);
    let update = bench.proxy.on("BatchExecuteStatement").body_has("UPDATE").next(1).hang();
    let meanwhile = async {
        held(&update).await;
        let answer = ask(&fast, &third).await;
        update.heal();
        answer
    };
    assert_eq!(tokio::join!(ask(&bench.claims, &second), meanwhile), (Conflict, Conflict));
    for record in [first, second, third] {
        assert_eq!(ask(&bench.claims, &Arrival { shard: "b", ..record }).await, Duplicate);
    }
    assert_eq!(bench.items().await["01020304#L#x"]["r"], AttributeValue::N("3".into()));
}

#[tokio::test]
async fn a_claim_that_has_expired_counts_no_more_though_the_table_still_has_it() {
    let bench = Bench::new().await;
    let table = ClaimsTable::new(client(bench.proxy.url()), &bench.table.0);
    let minute = Duration::from_mins(1);
    let claims = DynamoClaims::open(table, &bench.table.1, minute, Arc::new(PausedClock::start(now())));
    // As the server's clock has it, none of this has expired.
    let far = now() + SignedDuration::from_hours(24 * 3650);
    let at = async |record: &Arrival, time| {
        claims.claim(&ShardId::new(record.shard), &[record.claim()], time).await.unwrap()[0]
    };
    let (first, second, third) = (copy("x", 1, 1), copy("x", 1, 2), copy("x", 1, 3));
    assert_eq!(at(&first, far).await, New);
    assert_eq!(at(&second, far + SignedDuration::from_secs(59)).await, Duplicate);
    assert_eq!(at(&second, far + SignedDuration::from_secs(62)).await, New);
    assert_eq!(at(&third, far + SignedDuration::from_secs(62)).await, Duplicate);
    assert_eq!(at(&first, far + SignedDuration::from_secs(62)).await, Duplicate);
    assert_eq!(bench.items().await["01020304#L#x"]["r"], AttributeValue::N("2".into()));
}

#[tokio::test]
async fn an_expired_claim_that_vanished_and_was_made_again_meanwhile_is_not_overwritten() {
    let bench = Bench::new().await;
    let open = |url: &str| {
        let table = ClaimsTable::new(client(url), &bench.table.0);
        DynamoClaims::open(table, &bench.table.1, Duration::from_mins(1), clock())
    };
    let (slow, fast) = (open(bench.proxy.url()), open(&ministack().await.url));
    let far = now() + SignedDuration::from_hours(24 * 3650);
    let later = far + SignedDuration::from_secs(90);
    let (first, second, third) = (copy("x", 1, 1), copy("x", 1, 2), copy("x", 1, 3));
    let shard = ShardId::new("a");
    slow.claim(&shard, &[first.claim()], far).await.unwrap();
    let update = bench.proxy.on("BatchExecuteStatement").body_has("UPDATE").next(1).hang();
    let meanwhile = async {
        held(&update).await;
        // As the time to live does it, at any time.
        let id = AttributeValue::S("01020304#L#x".into());
        client(&ministack().await.url).delete_item().table_name(&bench.table.0).key("id", id).send().await.unwrap();
        let answer = fast.claim(&shard, &[third.claim()], later).await.unwrap()[0];
        update.heal();
        answer
    };
    let asked = [second.claim()];
    let (slow, fast) = tokio::join!(slow.claim(&shard, &asked, later), meanwhile);
    assert_eq!((slow.unwrap()[0], fast), (Duplicate, New));
}

#[tokio::test]
async fn an_identity_that_everything_claims_neither_grows_without_bound_nor_holds_anything_up() {
    let bench = Bench::new().await;
    let records: Vec<Arrival> = (0..1_100).map(|n| copy("x", n, n)).collect();
    for _ in 0..2 {
        let answers = claim(&bench.claims, "a", &records).await.unwrap();
        assert!(answers[0] == New && answers[1..].iter().all(|&answer| answer == Conflict));
    }
    assert_eq!(claim(&bench.claims, "b", &records[..1_024]).await.unwrap(), vec![Duplicate; 1_024]);
    assert_eq!(claim(&bench.claims, "b", &records[1_024..]).await.unwrap(), vec![Conflict; 76]);
    let item = &bench.items().await["01020304#L#x"];
    assert!(item["h"].as_b().unwrap().as_ref().len() < 40_000);
}

#[tokio::test]
async fn answers_do_not_count_once_the_table_was_made_anew() {
    let bench = Bench::new().await;
    bench.claims.flush().await.unwrap();
    let table = ClaimsTable::new(client(bench.proxy.url()), &bench.table.0);
    let anew = Marker { complete: true, ..Marker::begun(ARCHIVE, [9; 4]) };
    assert!(table.put(&anew, Some(&bench.table.1)).await.unwrap());
    let error = bench.claims.flush().await.unwrap_err();
    assert!(matches!(&error, ClaimError::Lost(reason) if reason.contains("made anew")), "{error}");
    // What it claims from now on, nobody sees.
    let later = DynamoClaims::open(table, &anew, WINDOW, clock());
    assert_eq!(ask(&bench.claims, &copy("x", 1, 1)).await, New);
    assert_eq!(ask(&later, &copy("x", 1, 2)).await, New);
    later.flush().await.unwrap();
}

#[tokio::test]
async fn a_marker_is_written_once_and_replaced_by_who_has_seen_it() {
    let bench = Bench::new().await;
    let table = ClaimsTable::new(client(bench.proxy.url()), &bench.table.0);
    let other = Marker::begun(uuid::Uuid::from_u128(9), [5; 4]);
    assert_eq!(table.begin(&other).await.unwrap(), bench.table.1);
    assert!(!table.put(&other, None).await.unwrap());
    // Who has seen one half of it has not seen it.
    let standing = bench.table.1.clone();
    let other_archive = Marker { archive: other.archive, ..standing.clone() };
    let other_generation = Marker { generation: other.generation.clone(), ..standing.clone() };
    for seen in [&other, &other_archive, &other_generation] {
        assert!(!table.put(&other, Some(seen)).await.unwrap(), "{seen:?}");
    }
    assert_eq!(table.marker().await.unwrap(), Some(standing));
    // A write that took effect though its answer was lost is known as one's own.
    bench.proxy.on("PutItem").next(1).lose_answer();
    let anew = Marker::begun(ARCHIVE, [6; 4]);
    assert!(table.put(&anew, Some(&bench.table.1)).await.is_err_and(|error| error.may_pass()));
    assert!(table.put(&anew, Some(&bench.table.1)).await.unwrap());
}
