//! What the adapters of DynamoDB share: clients, tables, and what a failed call means to its caller.

mod tables;

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use super::{Patience, dynamodb_client, explain, is_throttling, may_pass, sdk_config};
use crate::config::DynamodbConfig;

pub use tables::{TableError, TableOptions, TableSpec, exists, prepare};

/// The section of the operations guide that says whose a lost table is to make, and what else there is to do.
const GONE: &str = "A table that is gone";

/// For the lease table: a renewal must fail, and be tried again, well within a failover of 10 seconds.
pub const LEASE_PATIENCE: Patience = Patience { attempt: Duration::from_secs(2), attempts: 2 };

/// For the claims, which wait and try again by themselves, 25 at a time.
pub const CLAIM_PATIENCE: Patience = Patience { attempt: Duration::from_secs(5), attempts: 2 };

/// A client for the tables of this configuration.
pub async fn client(config: &DynamodbConfig, patience: Patience) -> Client {
    dynamodb_client(&sdk_config(config.access(), patience).await)
}

/// Why a call failed, by what its caller can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The item is not as the condition says.
    Condition,
    /// The same call may succeed later; whether it took effect is unknown.
    Unavailable {
        /// What happened.
        reason: String,
        /// The service asks for fewer calls.
        throttled: bool,
    },
    /// A human is needed: a permission, a request that the service does not understand.
    Refused {
        /// What happened, and what can be done.
        reason: String,
    },
    /// The table is not there.
    NoTable {
        /// What happened, and what can be done.
        reason: String,
    },
}

/// What the error of one call of `operation` (the API's name, such as `PutItem`) on `table` means.
pub fn fault<E>(table: &str, operation: &str, error: &SdkError<E, HttpResponse>) -> Fault
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    if code == Some("ConditionalCheckFailedException") {
        return Fault::Condition;
    }
    if may_pass(error) {
        return Fault::Unavailable { reason: explain(error), throttled: is_throttling(code) };
    }
    let reason = refusal(table, operation, code, &explain(error));
    if is_no_table(code) { Fault::NoTable { reason } } else { Fault::Refused { reason } }
}

/// Whether the code says that the table is not there.
pub fn is_no_table(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.starts_with("ResourceNotFound"))
}

/// The words for what won't pass by itself: the table, the permission, and what can be done.
pub fn refusal(table: &str, operation: &str, code: Option<&str>, explained: &str) -> String {
    if is_no_table(code) {
        return format!(
            "the table {table} is not there: if it is gone, see \"{GONE}\" in docs/operations.md (with \
             state.dynamodb.create_tables a worker that starts makes it anew from the archive); if it never was, look at \
             the region, the endpoint and state.dynamodb.table_prefix ({explained})"
        );
    }
    let code = code.unwrap_or_default();
    if code.starts_with("AccessDenied") {
        return format!("not allowed: grant dynamodb:{operation} on the table {table} ({explained})");
    }
    format!("{operation} on the table {table} was refused: {explained}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_table_the_permission_and_the_way_out() {
        let gone = refusal("t-leases", "PutItem", Some("ResourceNotFoundException"), "no such table");
        assert!(gone.contains("t-leases is not there") && gone.contains("makes it anew"), "{gone}");
        let guide = include_str!("../../../docs/operations.md");
        assert!(gone.contains(GONE) && guide.contains(&format!("\n## {GONE}\n")), "{gone}");
        let denied = refusal("t-claims", "PartiQLInsert", Some("AccessDenied"), "no");
        assert!(denied.contains("grant dynamodb:PartiQLInsert on the table t-claims"), "{denied}");
        let other = refusal("t-claims", "Scan", None, "what?");
        assert!(other.contains("Scan on the table t-claims was refused: what?"), "{other}");
    }
}
