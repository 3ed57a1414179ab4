//! Tables: made where they are missing, or only looked at.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, PointInTimeRecoverySpecification, ScalarAttributeType,
    TableDescription, TableStatus, Tag, TimeToLiveSpecification, TimeToLiveStatus,
};

use super::{Fault, GONE, explain, fault};
use crate::ops::clock::Clock;

/// How long a table that is being made may take.
const PATIENCE: Duration = Duration::from_mins(3);
const PAUSE: Duration = Duration::from_millis(500);

/// A table as it has to be: one key, a string.
#[derive(Clone, Copy, Debug)]
pub struct TableSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// The name of its key attribute.
    pub key: &'a str,
    /// The attribute that says when an item may be removed, in seconds since 1970.
    pub expires: Option<&'a str>,
}

/// What may be done about a table.
#[derive(Clone, Copy, Debug)]
pub struct TableOptions<'a> {
    /// Whether it is made where it is missing, and its time to live and its backups are turned on where they are off.
    pub create: bool,
    /// Whether it has to keep point-in-time backups.
    pub point_in_time_recovery: bool,
    /// The tags that it gets when it is made.
    pub tags: &'a BTreeMap<String, String>,
}

/// Why a table can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It is missing, and it is not ours to make it.
    #[error(
        "the table {name} is missing and state.dynamodb.create_tables is off; where it is gone, see \"{GONE}\" in \
         docs/operations.md; where it never was, make it with:\n{command}"
    )]
    Missing {
        /// The table.
        name: String,
        /// What makes it.
        command: String,
    },
    /// It is another table than the one that is needed.
    #[error("the table {name} is not auditlake's: its key is {found}, not {key} (a string)")]
    OtherShape {
        /// The table.
        name: String,
        /// Its key.
        found: String,
        /// The key that is needed.
        key: String,
    },
    /// The same call may succeed later.
    #[error("DynamoDB is unavailable: {0}")]
    Unavailable(String),
    /// A human is needed.
    #[error("{0}")]
    Refused(String),
}

impl TableError {
    fn of<E>(name: &str, operation: &str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        match fault(name, operation, error) {
            Fault::Unavailable { reason, .. } => Self::Unavailable(reason),
            Fault::Refused { reason } | Fault::NoTable { reason } => Self::Refused(reason),
            Fault::Condition => Self::Refused(format!("{operation} on the table {name} failed a condition")),
        }
    }
}

/// Whether the table is there.
pub async fn exists(client: &Client, name: &str) -> Result<bool, TableError> {
    Ok(describe(client, name).await?.is_some())
}

/// Sees to it that the table is there and can be written to; whether it was made now. Of any number of workers that do it
/// at the same time, all succeed.
pub async fn prepare(
    client: &Client,
    spec: TableSpec<'_>,
    options: TableOptions<'_>,
    clock: &dyn Clock,
) -> Result<bool, TableError> {
    let started = clock.monotonic();
    let mut made = false;
    loop {
        match describe(client, spec.name).await? {
            Some(table) if table.table_status() == Some(&TableStatus::Creating) => {}
            Some(table) => {
                check_key(&table, spec)?;
                break;
            }
            None if !options.create => {
                return Err(TableError::Missing { name: spec.name.to_owned(), command: command(spec) });
            }
            None if !made => {
                create(client, spec, options).await?;
                made = true;
            }
            // Descriptions lag behind.
            None => {}
        }
        if clock.monotonic().saturating_sub(started) > PATIENCE {
            return Err(TableError::Unavailable(format!("the table {} is still being made", spec.name)));
        }
        clock.sleep(PAUSE).await;
    }
    expire(client, spec, options).await?;
    if options.create && options.point_in_time_recovery {
        back_up(client, spec.name, clock).await;
    }
    Ok(made)
}

/// What makes the table from a shell.
fn command(spec: TableSpec<'_>) -> String {
    let TableSpec { name, key, expires } = spec;
    let mut command = format!(
        "aws dynamodb create-table --table-name {name} --billing-mode PAY_PER_REQUEST \
         --attribute-definitions AttributeName={key},AttributeType=S --key-schema AttributeName={key},KeyType=HASH"
    );
    if let Some(expires) = expires {
        let _ = write!(
            command,
            " && aws dynamodb wait table-exists --table-name {name} && aws dynamodb update-time-to-live --table-name \
             {name} --time-to-live-specification Enabled=true,AttributeName={expires}"
        );
    }
    command
}

async fn describe(client: &Client, name: &str) -> Result<Option<TableDescription>, TableError> {
    match client.describe_table().table_name(name).send().await {
        Ok(described) => Ok(described.table),
        Err(error) if has_code(&error, "ResourceNotFoundException") => Ok(None),
        Err(error) => Err(TableError::of(name, "DescribeTable", &error)),
    }
}

fn has_code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>, code: &str) -> bool {
    error.as_service_error().and_then(ProvideErrorMetadata::code) == Some(code)
}

fn check_key(table: &TableDescription, spec: TableSpec<'_>) -> Result<(), TableError> {
    let keys: Vec<&str> = table.key_schema().iter().map(KeySchemaElement::attribute_name).collect();
    let is_string = |definition: &AttributeDefinition| {
        definition.attribute_name() == spec.key && *definition.attribute_type() == ScalarAttributeType::S
    };
    if keys == [spec.key] && table.attribute_definitions().iter().any(is_string) {
        return Ok(());
    }
    let typed = |key: &&str| {
        let of = |definition: &&AttributeDefinition| definition.attribute_name() == *key;
        let definition = table.attribute_definitions().iter().find(of);
        format!("{key} ({})", definition.map_or("?", |definition| definition.attribute_type().as_str()))
    };
    let found = keys.iter().map(typed).collect::<Vec<_>>().join(" and ");
    Err(TableError::OtherShape { name: spec.name.to_owned(), found, key: spec.key.to_owned() })
}

async fn create(client: &Client, spec: TableSpec<'_>, options: TableOptions<'_>) -> Result<(), TableError> {
    let request = creation(client, spec, options).map_err(|error| TableError::Refused(error.to_string()))?;
    match request.send().await {
        Ok(_) => {
            tracing::info!(table = spec.name, "the table is made");
            Ok(())
        }
        // Another worker was faster.
        Err(error) if has_code(&error, "ResourceInUseException") => Ok(()),
        Err(error) => Err(TableError::of(spec.name, "CreateTable", &error)),
    }
}

fn creation(
    client: &Client,
    spec: TableSpec<'_>,
    options: TableOptions<'_>,
) -> Result<CreateTableFluentBuilder, BuildError> {
    let key = KeySchemaElement::builder().attribute_name(spec.key).key_type(KeyType::Hash).build()?;
    let attribute = AttributeDefinition::builder().attribute_name(spec.key).attribute_type(ScalarAttributeType::S);
    let tag = |(key, value): (&String, &String)| Tag::builder().key(key).value(value).build();
    let tags: Vec<Tag> = options.tags.iter().map(tag).collect::<Result<_, _>>()?;
    Ok(client
        .create_table()
        .table_name(spec.name)
        .key_schema(key)
        .attribute_definitions(attribute.build()?)
        .billing_mode(BillingMode::PayPerRequest)
        .set_tags((!tags.is_empty()).then_some(tags)))
}

/// Turns the time to live on where it is off. Without it nothing breaks: what has expired is not counted, but paid for.
async fn expire(client: &Client, spec: TableSpec<'_>, options: TableOptions<'_>) -> Result<(), TableError> {
    let (name, Some(attribute)) = (spec.name, spec.expires) else { return Ok(()) };
    let described = match client.describe_time_to_live().table_name(name).send().await {
        Ok(described) => described.time_to_live_description,
        Err(error) => {
            return match TableError::of(name, "DescribeTimeToLive", &error) {
                TableError::Refused(reason) => {
                    tracing::warn!(table = name, reason, "whether the table's time to live is on can't be told");
                    Ok(())
                }
                passing => Err(passing),
            };
        }
    };
    let status = described.as_ref().and_then(|described| described.time_to_live_status());
    if matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)) {
        return Ok(());
    }
    if !options.create {
        tracing::warn!(
            table = name,
            attribute,
            "the table's time to live is off: claims that have expired stay, and are paid for"
        );
        return Ok(());
    }
    let built = TimeToLiveSpecification::builder().enabled(true).attribute_name(attribute).build();
    let specification = built.map_err(|error| TableError::Refused(error.to_string()))?;
    let request = client.update_time_to_live().table_name(name).time_to_live_specification(specification);
    if let Err(error) = request.send().await {
        // Another worker may have been faster, which DynamoDB calls a mistake of the request.
        tracing::warn!(table = name, reason = explain(&error), "the table's time to live could not be turned on");
    }
    Ok(())
}

/// Turns point-in-time backups on. A table that was just made is not ready for it at first.
async fn back_up(client: &Client, name: &str, clock: &dyn Clock) {
    let on = PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true).build();
    let Ok(on) = on else { return };
    let started = clock.monotonic();
    loop {
        let request = client.update_continuous_backups().table_name(name);
        let Err(error) = request.point_in_time_recovery_specification(on.clone()).send().await else { return };
        let is_early = has_code(&error, "ContinuousBackupsUnavailableException");
        if !is_early || clock.monotonic().saturating_sub(started) > PATIENCE {
            let reason = explain(&error);
            tracing::warn!(table = name, reason, "the table's point-in-time backups could not be turned on");
            return;
        }
        clock.sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_makes_just_the_table_that_is_missing() {
        let leases = command(TableSpec { name: "a-leases", key: "leaseKey", expires: None });
        assert_eq!(
            leases,
            "aws dynamodb create-table --table-name a-leases --billing-mode PAY_PER_REQUEST \
             --attribute-definitions AttributeName=leaseKey,AttributeType=S \
             --key-schema AttributeName=leaseKey,KeyType=HASH"
        );
        let claims = command(TableSpec { name: "a-claims", key: "id", expires: Some("expires_at") });
        assert!(claims.ends_with("Enabled=true,AttributeName=expires_at"), "{claims}");
    }
}
