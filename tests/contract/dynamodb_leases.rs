//! What only a lease table of DynamoDB can do wrong.

#![allow(clippy::unwrap_used)] // clippy knows test functions, not what they call

use std::time::Duration;

use auditlake::lease::dynamodb::DynamoLeases;
use auditlake::lease::{LeaseError, LeaseRow, LeaseStore as _, WorkerId};
use auditlake_test_servers::{Answer, FaultProxy, aws, ministack};
use aws_sdk_dynamodb::types::AttributeValue;
use uuid::Uuid;

use crate::dynamodb::{ARCHIVE, client, lease_table};
use crate::lease_store::{assert_conflict, full_row, row, shard};

async fn behind_a_proxy() -> (FaultProxy, String, DynamoLeases) {
    let proxy = FaultProxy::start(&ministack().await.url).await;
    let table = lease_table().await;
    let leases = DynamoLeases::new(client(proxy.url()), &table, ARCHIVE);
    (proxy, table, leases)
}

#[tokio::test]
async fn a_listing_of_more_than_a_megabyte_and_a_thousand_rows_is_whole() {
    let (proxy, _, leases) = behind_a_proxy().await;
    let name = |n: usize| format!("shard-{n:05}");
    for chunk in (0..1_100).collect::<Vec<_>>().chunks(50) {
        let creations = chunk.iter().map(|&n| {
            let row = LeaseRow { origin: Some("o".repeat(300).into()), ..full_row(&name(n)) };
            let leases = &leases;
            async move { leases.create(&row).await.unwrap() }
        });
        futures_util::future::join_all(creations).await;
    }
    let listed = leases.list().await.unwrap();
    assert!(proxy.count("Scan") > 1, "one page held it all");
    assert!(listed.iter().map(|row| row.shard.as_str()).eq((0..1_100).map(name)));
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_told_apart_by_reading_again() {
    let (proxy, _, leases) = behind_a_proxy().await;
    leases.create(&row("a", 0)).await.unwrap();
    proxy.on("PutItem").next(1).lose_answer();
    let ours = LeaseRow { owner: Some(WorkerId::new("w")), ..row("a", 1) };
    assert!(matches!(leases.replace(&ours).await, Err(LeaseError::Unavailable { .. })));
    assert_conflict(&leases.replace(&ours).await, "a");
    assert_eq!(leases.get(&shard("a")).await.unwrap(), Some(ours));
}

#[tokio::test]
async fn a_read_that_settles_a_lost_answer_is_consistent() {
    let (proxy, _, leases) = behind_a_proxy().await;
    let stale = proxy.on("GetItem").body_has("\"ConsistentRead\":true").delay(Duration::ZERO);
    leases.get(&shard("a")).await.unwrap();
    assert_eq!((stale.hits(), proxy.count("GetItem")), (1, 1));
}

#[tokio::test]
async fn throttling_and_faults_of_the_service_may_pass_and_refusals_do_not() {
    let (proxy, table, leases) = behind_a_proxy().await;
    leases.create(&row("a", 0)).await.unwrap();
    for error in ["ProvisionedThroughputExceededException", "ThrottlingException", "InternalServerError"] {
        proxy.on_any().next(1).answer(Answer::dynamodb(error));
        let error = leases.replace(&row("a", 1)).await.unwrap_err();
        assert!(matches!(&error, LeaseError::Unavailable { .. }) && error.may_pass(), "{error}");
    }
    for (error, expected) in [
        ("AccessDeniedException", format!("grant dynamodb:PutItem on the table {table}")),
        ("ResourceNotFoundException", format!("the table {table} is not there")),
        ("ValidationException", format!("PutItem on the table {table} was refused")),
    ] {
        proxy.on_any().next(1).answer(Answer::dynamodb(error));
        let error = leases.replace(&row("a", 1)).await.unwrap_err();
        assert!(!error.may_pass() && error.to_string().contains(&expected), "{error}");
    }
    leases.replace(&row("a", 1)).await.unwrap();
}

#[tokio::test]
async fn a_table_that_is_not_there_is_lost_and_named() {
    let table = aws::unique_name("nowhere");
    let leases = DynamoLeases::new(client(&ministack().await.url), &table, ARCHIVE);
    for error in [
        leases.list().await.unwrap_err(),
        leases.get(&shard("a")).await.unwrap_err(),
        leases.create(&row("a", 0)).await.unwrap_err(),
        leases.remove(&row("a", 0)).await.unwrap_err(),
    ] {
        assert!(matches!(&error, LeaseError::Lost { reason } if reason.contains(&table)), "{error}");
    }
}

#[tokio::test]
async fn a_row_that_was_edited_hides_none_of_the_others() {
    let (_proxy, table, leases) = behind_a_proxy().await;
    for name in ["a", "b", "c"] {
        leases.create(&row(name, 0)).await.unwrap();
    }
    let edit =
        client(&ministack().await.url).update_item().table_name(&table).key("leaseKey", AttributeValue::S("b".into()));
    let edit = edit.update_expression("SET checkpoint = :latest");
    edit.expression_attribute_values(":latest", AttributeValue::S("LATEST".into())).send().await.unwrap();
    let listing = leases.look().await.unwrap();
    assert_eq!(listing.rows, [row("a", 0), row("c", 0)]);
    assert!(matches!(&listing.damaged[..], [LeaseError::Damaged { shard: of, .. }] if *of == shard("b")));
    assert!(matches!(leases.list().await, Err(LeaseError::Damaged { .. })));
}

#[tokio::test]
async fn rows_of_another_program_or_another_archive_are_refused_and_left_alone() {
    let (_proxy, table, leases) = behind_a_proxy().await;
    let sdk = client(&ministack().await.url);
    let kcl = sdk.put_item().table_name(&table).item("leaseKey", AttributeValue::S("a".into()));
    let kcl = kcl.item("leaseCounter", AttributeValue::N("4".into()));
    kcl.item("checkpoint", AttributeValue::S("TRIM_HORIZON".into())).send().await.unwrap();
    for error in [leases.get(&shard("a")).await.unwrap_err(), leases.list().await.unwrap_err()] {
        assert!(matches!(&error, LeaseError::Refused { reason } if reason.contains("import-checkpoints")), "{error}");
    }
    assert_conflict(&leases.create(&row("a", 0)).await, "a");
    assert_conflict(&leases.replace(&row("a", 5)).await, "a");
    assert_conflict(&leases.remove(&row("a", 4)).await, "a");

    let others = DynamoLeases::new(sdk, &table, Uuid::from_u128(8));
    others.create(&row("b", 0)).await.unwrap();
    let error = leases.get(&shard("b")).await.unwrap_err().to_string();
    assert!(error.contains(&Uuid::from_u128(8).to_string()) && error.contains(&ARCHIVE.to_string()), "{error}");
    assert_conflict(&leases.replace(&row("b", 1)).await, "b");
    assert_eq!(others.get(&shard("b")).await.unwrap(), Some(row("b", 0)));
}
