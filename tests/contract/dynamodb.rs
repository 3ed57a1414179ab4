//! Tables of DynamoDB for the tests.

#![allow(clippy::unwrap_used)] // clippy knows test functions, not what they call

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use auditlake::aws::dynamodb::{TableOptions, prepare};
use auditlake::dedupe::dynamodb::{ClaimsTable, DynamoClaims, Marker};
use auditlake::lease::dynamodb::DynamoLeases;
use auditlake::ops::clock::{Clock, SystemClock};
use auditlake_test_servers::{aws, ministack};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use uuid::Uuid;

/// The archive of all these tables.
pub(crate) const ARCHIVE: Uuid = Uuid::from_u128(7);

/// Longer than any machine that runs these tests is wrong about the date: the server removes what has expired.
pub(crate) const WINDOW: Duration = Duration::from_hours(24 * 36_500);

/// A client that sends nothing twice.
pub(crate) fn client(url: &str) -> Client {
    let config = aws::dynamodb_client(url).config().to_builder().retry_config(RetryConfig::disabled()).build();
    Client::from_conf(config)
}

/// What may be done about tables: all of it.
pub(crate) fn create(tags: &BTreeMap<String, String>) -> TableOptions<'_> {
    TableOptions { create: true, point_in_time_recovery: false, tags }
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::start())
}

/// The name of a new lease table.
pub(crate) async fn lease_table() -> String {
    let name = aws::unique_name("leases");
    let client = aws::dynamodb_client(&ministack().await.url);
    let table = auditlake::lease::dynamodb::table(&name);
    prepare(&client, table, create(&BTreeMap::new()), clock().as_ref()).await.unwrap();
    name
}

/// The rows of a new table.
pub(crate) async fn leases() -> DynamoLeases {
    DynamoLeases::new(aws::dynamodb_client(&ministack().await.url), lease_table().await, ARCHIVE)
}

/// The name of a new table of claims, whose marker stands.
pub(crate) async fn claims_table() -> (String, Marker) {
    let name = aws::unique_name("claims");
    let client = aws::dynamodb_client(&ministack().await.url);
    let table = auditlake::dedupe::dynamodb::table(&name);
    prepare(&client, table, create(&BTreeMap::new()), clock().as_ref()).await.unwrap();
    let marker = Marker { complete: true, ..Marker::begun(ARCHIVE, [1, 2, 3, 4]) };
    let marker = ClaimsTable::new(client, &name).begin(&marker).await.unwrap();
    (name, marker)
}

/// The claims of a table that is reached at `url`.
pub(crate) fn claims_at(url: &str, (name, marker): &(String, Marker)) -> DynamoClaims {
    DynamoClaims::open(ClaimsTable::new(client(url), name), marker, WINDOW, clock())
}

/// The claims of a new table.
pub(crate) async fn claims() -> DynamoClaims {
    claims_at(&ministack().await.url, &claims_table().await)
}
