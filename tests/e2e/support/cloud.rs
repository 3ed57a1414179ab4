//! What an operator, or an accident, does to a stream, its tables and its bucket; and what must be true afterwards.

use std::collections::{BTreeMap, HashMap};

use auditlake_test_servers::aws::create_stream;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use serde_json::Value;

use super::archived::read_json;
use super::aws::{Cloud, Worker};
use super::feed::Feed;
use super::process::wait_until;

impl Cloud {
    /// A table's whole name: `leases` or `claims`.
    pub fn table(&self, name: &str) -> String {
        format!("{}-{name}", self.tables)
    }

    /// Removes leases and claims, tables and all.
    pub fn drop_tables(&self) {
        for name in ["leases", "claims"] {
            self.wait(self.dynamodb.delete_table().table_name(self.table(name)).send()).unwrap();
        }
    }

    /// Sets an attribute of a shard's lease row, whoever holds it.
    pub fn edit_lease(&self, shard: &str, attribute: &str, value: &str) {
        let update = self.dynamodb.update_item().table_name(self.table("leases"));
        let update =
            update.key("leaseKey", AttributeValue::S(shard.to_owned())).update_expression("SET #name = :value");
        let update = update.expression_attribute_names("#name", attribute);
        let update = update.expression_attribute_values(":value", AttributeValue::S(value.to_owned()));
        self.wait(update.send()).unwrap();
    }

    /// The lease rows, as they stand in the table.
    pub fn lease_items(&self) -> Vec<HashMap<String, AttributeValue>> {
        let scan = self.dynamodb.scan().table_name(self.table("leases")).consistent_read(true);
        self.wait(scan.into_paginator().items().send().collect::<Result<_, _>>()).unwrap()
    }

    /// Puts rows into a table.
    pub fn put_items(&self, table: &str, rows: Vec<HashMap<String, AttributeValue>>) {
        for row in rows {
            self.wait(self.dynamodb.put_item().table_name(table).set_item(Some(row)).send()).unwrap();
        }
    }

    /// Removes a shard's lease row, whoever holds it.
    pub fn remove_lease(&self, shard: &str) {
        let delete = self.dynamodb.delete_item().table_name(self.table("leases"));
        self.wait(delete.key("leaseKey", AttributeValue::S(shard.to_owned())).send()).unwrap();
    }

    /// The lease table of another application, in the Kinesis Client Library's layout; its name.
    pub fn kcl_table(&self, rows: Vec<HashMap<String, AttributeValue>>) -> String {
        let table = self.table("kcl");
        let key = KeySchemaElement::builder().attribute_name("leaseKey").key_type(KeyType::Hash).build().unwrap();
        let typed = AttributeDefinition::builder().attribute_name("leaseKey").attribute_type(ScalarAttributeType::S);
        let create = self.dynamodb.create_table().table_name(&table).key_schema(key);
        let create = create.attribute_definitions(typed.build().unwrap()).billing_mode(BillingMode::PayPerRequest);
        self.wait(create.send()).unwrap();
        self.put_items(&table, rows);
        table
    }

    /// Deletes the stream and makes another one of its name.
    pub fn recreate_stream(&self, shards: i32) {
        self.wait(self.kinesis.delete_stream().stream_name(&self.stream).send()).unwrap();
        let is_gone = || self.wait(self.kinesis.describe_stream_summary().stream_name(&self.stream).send()).is_err();
        wait_until("the stream is gone", is_gone);
        self.wait(create_stream(&self.kinesis, &self.stream, shards));
    }

    /// All manifests, in the order of shards and batches.
    pub fn manifests(&self) -> Vec<Value> {
        let root = self.download();
        // What was downloaded, and not what is listed now: a worker may have put another one meanwhile.
        let mirrored = self.mirrored.lock().unwrap();
        mirrored.keys().filter(|key| key.starts_with("_manifests/")).map(|key| read_json(&root.join(key))).collect()
    }

    /// Of each shard that takes records, who holds its lease.
    pub fn owners(&self) -> BTreeMap<String, Option<String>> {
        let leases = self.leases();
        let owner = |shard: String| {
            let owner = leases.get(&shard).and_then(|lease| lease.owner.clone());
            (shard, owner)
        };
        self.open_shards().into_iter().map(owner).collect()
    }
}

/// What must be true in the end, whatever happened on the way.
#[track_caller]
pub fn assert_all_is_archived_once(cloud: &Cloud, feed: &Feed) {
    cloud.wait_until_archived(feed);
    feed.truth.assert_holds(&cloud.archived());
    cloud.verify();
}

/// Waits until every shard that takes records is held by one of these workers, and none of them has two more than another.
#[track_caller]
pub fn wait_until_balanced(cloud: &Cloud, workers: &[&Worker]) {
    let is_even = || {
        let owners = cloud.owners();
        let held = |worker: &&Worker| owners.values().flatten().filter(|owner| owner.starts_with(&worker.name)).count();
        let counts: Vec<usize> = workers.iter().map(held).collect();
        counts.iter().sum::<usize>() == owners.len()
            && counts.iter().max() <= counts.iter().min().map(|min| min + 1).as_ref()
    };
    wait_until("every shard has an owner, and each worker its share", is_even);
}

/// Tells all of them to stop, one after the other; each must end well.
pub fn stop_all(workers: Vec<Worker>) {
    for worker in workers {
        worker.stop();
    }
}
