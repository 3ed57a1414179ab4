//! [`LeaseStore`] in a DynamoDB table, laid out as the Kinesis Client Library does (the `item` module), for any number of
//! workers.
//!
//! Every write is one call on condition of the stored counter. A failed condition may be our own doing, where the SDK
//! sent a call again whose answer was lost: [`super::Lease`] reads the row again, which is why `get` reads consistently.

mod item;
pub mod kcl;

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::AttributeValue;
use uuid::Uuid;

use self::item::{ARCHIVE, COUNTER, Item, KEY, Unfit, from_item, key, to_item};
use super::{LeaseError, LeaseRow, LeaseStore, Listing, TRIAL_SHARD};
use crate::aws::dynamodb::{Fault, TableSpec, fault};
use crate::source::ShardId;

/// The lease table of this name.
pub fn table(name: &str) -> TableSpec<'_> {
    TableSpec { name, key: KEY, expires: None }
}

/// The lease rows of one archive, in a table.
#[derive(Clone, Debug)]
pub struct DynamoLeases {
    client: Client,
    table: String,
    archive: Uuid,
    /// Whether a row that is not this archive's is told beside the others; else all are refused with it.
    looking: bool,
}

impl DynamoLeases {
    /// The rows of this archive in the table, which is there.
    pub fn new(client: Client, table: impl Into<String>, archive: Uuid) -> Self {
        Self { client, table: table.into(), archive, looking: false }
    }

    /// The same for those who only look: a row that another program has written, or whose archive's id was altered, hides
    /// none of the others from them.
    pub fn to_look_at(client: Client, table: impl Into<String>, archive: Uuid) -> Self {
        Self { looking: true, ..Self::new(client, table, archive) }
    }

    fn row(&self, item: &Item) -> Result<LeaseRow, LeaseError> {
        from_item(item, self.archive).map_err(|unfit| {
            let key = item.get(KEY).and_then(|key| key.as_s().ok()).map_or("?", String::as_str);
            match unfit {
                Unfit::Damaged(reason) => LeaseError::Damaged {
                    shard: ShardId::new(key),
                    reason: format!(
                        "{reason}; once all workers are stopped the row can be removed from the table {}: it is made anew \
                         from the archive",
                        self.table
                    ),
                },
                Unfit::Foreign(reason) if self.looking => LeaseError::Damaged {
                    shard: ShardId::new(key),
                    reason: format!("it {reason}, in the table {}", self.table),
                },
                Unfit::Foreign(reason) => LeaseError::Refused {
                    reason: format!(
                        "the row `{key}` of the table {} {reason}; give auditlake a table of its own \
                         (state.dynamodb.table_prefix), and take a Kinesis Client Library application's checkpoints over \
                         with `auditlake import-checkpoints`",
                        self.table
                    ),
                },
            }
        })
    }

    fn failure<E>(&self, operation: &str, shard: &ShardId, error: &SdkError<E, HttpResponse>) -> LeaseError
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        match fault(&self.table, operation, error) {
            Fault::Condition => LeaseError::Conflict { shard: shard.clone() },
            Fault::Unavailable { reason, .. } => LeaseError::Unavailable { reason },
            Fault::Refused { reason } => LeaseError::Refused { reason },
            Fault::NoTable { reason } => LeaseError::Lost { reason },
        }
    }

    /// The values of the condition that the stored row is this archive's and has this counter.
    fn stored(&self, counter: u64) -> HashMap<String, AttributeValue> {
        HashMap::from([
            (":stored".to_owned(), AttributeValue::N(counter.to_string())),
            (":archive".to_owned(), AttributeValue::S(self.archive.to_string())),
        ])
    }

    fn key_of(shard: &ShardId) -> AttributeValue {
        AttributeValue::S(key(shard))
    }
}

fn stored_condition() -> String {
    format!("{COUNTER} = :stored AND {ARCHIVE} = :archive")
}

#[async_trait]
impl LeaseStore for DynamoLeases {
    async fn look(&self) -> Result<Listing, LeaseError> {
        let mut listing = Listing::default();
        let mut after = None;
        loop {
            let scan = self.client.scan().table_name(&self.table).set_exclusive_start_key(after);
            let page = scan.send().await.map_err(|error| self.failure("Scan", &ShardId::new("*"), &error))?;
            let is_trial = |item: &&HashMap<String, AttributeValue>| {
                item.get(KEY).and_then(|key| key.as_s().ok()).is_some_and(|key| key == TRIAL_SHARD)
            };
            for item in page.items().iter().filter(|item| !is_trial(item)) {
                match self.row(item) {
                    Ok(row) => listing.rows.push(row),
                    Err(damaged @ LeaseError::Damaged { .. }) => listing.damaged.push(damaged),
                    Err(error) => return Err(error),
                }
            }
            after = page.last_evaluated_key.filter(|key| !key.is_empty());
            if after.is_none() {
                break;
            }
        }
        listing.rows.sort_by(|a, b| a.shard.cmp(&b.shard));
        Ok(listing)
    }

    async fn get(&self, shard: &ShardId) -> Result<Option<LeaseRow>, LeaseError> {
        let get = self.client.get_item().table_name(&self.table).key(KEY, Self::key_of(shard)).consistent_read(true);
        let got = get.send().await.map_err(|error| self.failure("GetItem", shard, &error))?;
        got.item().map(|item| self.row(item)).transpose()
    }

    async fn create(&self, row: &LeaseRow) -> Result<(), LeaseError> {
        let put = self.client.put_item().table_name(&self.table).set_item(Some(to_item(row, self.archive)));
        let put = put.condition_expression(format!("attribute_not_exists({KEY})"));
        put.send().await.map(drop).map_err(|error| self.failure("PutItem", &row.shard, &error))
    }

    async fn replace(&self, row: &LeaseRow) -> Result<(), LeaseError> {
        let Some(stored) = row.counter.checked_sub(1) else {
            return Err(LeaseError::Conflict { shard: row.shard.clone() });
        };
        let put = self.client.put_item().table_name(&self.table).set_item(Some(to_item(row, self.archive)));
        let put = put.condition_expression(stored_condition());
        let put = put.set_expression_attribute_values(Some(self.stored(stored)));
        put.send().await.map(drop).map_err(|error| self.failure("PutItem", &row.shard, &error))
    }

    async fn remove(&self, row: &LeaseRow) -> Result<(), LeaseError> {
        let delete = self.client.delete_item().table_name(&self.table).key(KEY, Self::key_of(&row.shard));
        let delete = delete.condition_expression(stored_condition());
        let delete = delete.set_expression_attribute_values(Some(self.stored(row.counter)));
        delete.send().await.map(drop).map_err(|error| self.failure("DeleteItem", &row.shard, &error))
    }

    fn sole_worker(&self) -> bool {
        false
    }
}
