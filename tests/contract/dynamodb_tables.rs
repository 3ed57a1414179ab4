//! Tables: made by many at once, or only looked at.

#![allow(clippy::unwrap_used)] // clippy knows test functions, not what they call

use std::collections::BTreeMap;

use auditlake::aws::dynamodb::{TableError, TableOptions, TableSpec, exists, prepare};
use auditlake_test_servers::{Answer, FaultProxy, aws, ministack};
use aws_sdk_dynamodb::types::{BillingMode, TimeToLiveStatus};

use crate::dynamodb::{client, clock, create};

#[tokio::test]
async fn workers_that_make_a_table_at_once_all_find_it_made() {
    let (url, name) = (ministack().await.url, aws::unique_name("claims"));
    let tags = BTreeMap::from([("team".to_owned(), "security".to_owned())]);
    let options = TableOptions { point_in_time_recovery: true, ..create(&tags) };
    let sdk = client(&url);
    let prepared = (0..8).map(async |_| {
        prepare(&client(&url), auditlake::dedupe::dynamodb::table(&name), options, clock().as_ref()).await
    });
    for prepared in futures_util::future::join_all(prepared).await {
        prepared.unwrap();
    }
    let table = sdk.describe_table().table_name(&name).send().await.unwrap().table.unwrap();
    let billing = table.billing_mode_summary().and_then(|billing| billing.billing_mode().cloned());
    assert_eq!(billing, Some(BillingMode::PayPerRequest));
    let tagged = sdk.list_tags_of_resource().resource_arn(table.table_arn().unwrap()).send().await.unwrap();
    assert_eq!(tagged.tags().iter().map(|tag| (tag.key(), tag.value())).collect::<Vec<_>>(), [("team", "security")]);
    let ttl = sdk.describe_time_to_live().table_name(&name).send().await.unwrap().time_to_live_description.unwrap();
    assert_eq!(
        (ttl.time_to_live_status(), ttl.attribute_name()),
        (Some(&TimeToLiveStatus::Enabled), Some("expires_at"))
    );
    let backups = sdk.describe_continuous_backups().table_name(&name).send().await.unwrap();
    let recovery = backups.continuous_backups_description.unwrap().point_in_time_recovery_description.unwrap();
    assert_eq!(recovery.point_in_time_recovery_status().unwrap().as_str(), "ENABLED");
}

#[tokio::test]
async fn a_table_that_is_not_ours_to_make_is_asked_for_with_the_command_that_makes_it() {
    let (url, name) = (ministack().await.url, aws::unique_name("leases"));
    let tags = BTreeMap::new();
    let options = TableOptions { create: false, ..create(&tags) };
    let leases = auditlake::lease::dynamodb::table(&name);
    let error = prepare(&client(&url), leases, options, clock().as_ref()).await.unwrap_err();
    let TableError::Missing { command, .. } = error else { panic!("{error}") };
    assert!(command.starts_with(&format!("aws dynamodb create-table --table-name {name} ")), "{command}");
    assert!(!exists(&client(&url), &name).await.unwrap());
    // Once it stands it is taken as it is.
    prepare(&client(&url), leases, create(&tags), clock().as_ref()).await.unwrap();
    prepare(&client(&url), leases, options, clock().as_ref()).await.unwrap();
}

#[tokio::test]
async fn a_table_of_another_shape_is_refused() {
    let (url, name) = (ministack().await.url, aws::unique_name("other"));
    let tags = BTreeMap::new();
    let other = TableSpec { name: &name, key: "wid", expires: None };
    prepare(&client(&url), other, create(&tags), clock().as_ref()).await.unwrap();
    let leases = auditlake::lease::dynamodb::table(&name);
    let error = prepare(&client(&url), leases, create(&tags), clock().as_ref()).await.unwrap_err().to_string();
    assert!(error.contains("its key is wid (S), not leaseKey"), "{error}");
}

#[tokio::test]
async fn without_the_permission_to_turn_it_on_a_table_is_used_without_its_time_to_live() {
    let (proxy, name) = (FaultProxy::start(&ministack().await.url).await, aws::unique_name("claims"));
    let tags = BTreeMap::new();
    let denied = proxy.on("UpdateTimeToLive").answer(Answer::dynamodb("AccessDeniedException"));
    let table = auditlake::dedupe::dynamodb::table(&name);
    prepare(&client(proxy.url()), table, create(&tags), clock().as_ref()).await.unwrap();
    assert_eq!(denied.hits(), 1);
}
