//! Calls to the table of claims: many conditional writes in one (`PartiQL`, since `BatchWriteItem` knows no conditions),
//! many consistent reads in one.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{
    AttributeValue, BatchStatementError, BatchStatementErrorCodeEnum as Code, BatchStatementRequest, KeysAndAttributes,
};

use super::call::{Done, Write};
use super::item::{Item, blob, from_attributes};
use super::marker::{ClaimsTable, KEY};
use super::pace::Gate;
use crate::aws::dynamodb::{Fault, fault, is_no_table, refusal};
use crate::dedupe::ClaimError;

/// The most statements of one call.
pub(super) const STATEMENTS: usize = 25;
/// The most keys of one call.
pub(super) const READS: usize = 100;

/// What came of the reads of one call.
#[derive(Default)]
pub(super) struct Found {
    /// Those that were not read are not in it.
    items: HashMap<String, Option<Item>>,
    /// Why some were not read.
    pub(super) failure: Option<String>,
}

impl Found {
    /// What stands under the key, or `None` where that was not found out.
    #[allow(clippy::option_option)] // not read, and not there, are two things
    pub(super) fn take(&mut self, key: &str) -> Option<Option<Item>> {
        self.items.remove(key)
    }
}

impl ClaimsTable {
    /// Makes up to [`STATEMENTS`] writes. For each what came of it, or why it has to be sent again.
    pub(super) async fn write(
        &self,
        gate: &Gate,
        writes: impl Iterator<Item = &Write>,
    ) -> Result<Vec<Result<Done, String>>, ClaimError> {
        let statements: Vec<BatchStatementRequest> = writes.map(|write| self.statement(write)).collect();
        let asked = statements.len();
        let pass = gate.enter().await;
        let answer = match self.client.batch_execute_statement().set_statements(Some(statements)).send().await {
            Ok(answer) => answer,
            Err(error) => {
                return match fault(&self.name, "PartiQLInsert", &error) {
                    Fault::Unavailable { reason, .. } => {
                        pass.throttled();
                        Ok(vec![Err(reason); asked])
                    }
                    _ => Err(self.failure("PartiQLInsert", &error)),
                };
            }
        };
        let mut outcomes = Vec::with_capacity(asked);
        let mut is_throttled = false;
        for response in answer.responses() {
            outcomes.push(match response.error() {
                None => Ok(Done::Written),
                Some(error) => self.outcome(error)?,
            });
            is_throttled |= matches!(outcomes.last(), Some(Err(_)));
        }
        // What was not answered is not known.
        outcomes.resize(asked, Err("a statement was not answered".to_owned()));
        if is_throttled {
            pass.throttled();
        } else {
            pass.succeeded();
        }
        Ok(outcomes)
    }

    /// Reads up to [`READS`] items.
    pub(super) async fn read(&self, gate: &Gate, keys: impl Iterator<Item = &str>) -> Result<Found, ClaimError> {
        let keys: Vec<&str> = keys.collect();
        let key = |key: &&str| HashMap::from([(KEY.to_owned(), AttributeValue::S((*key).to_owned()))]);
        let request = KeysAndAttributes::builder().set_keys(Some(keys.iter().map(key).collect())).consistent_read(true);
        let request = request.build().map_err(|error| ClaimError::Refused(error.to_string()))?;
        let pass = gate.enter().await;
        let answer = match self.client.batch_get_item().request_items(&self.name, request).send().await {
            Ok(answer) => answer,
            Err(error) => {
                return match fault(&self.name, "BatchGetItem", &error) {
                    Fault::Unavailable { reason, .. } => {
                        pass.throttled();
                        Ok(Found { failure: Some(reason), ..Found::default() })
                    }
                    _ => Err(self.failure("BatchGetItem", &error)),
                };
            }
        };
        let mut found = Found::default();
        found.items.extend(keys.iter().map(|&key| (key.to_owned(), None)));
        for keys in answer.unprocessed_keys().into_iter().flat_map(HashMap::values) {
            for key in keys.keys() {
                found.items.remove(id(key));
            }
            found.failure = Some("the table did not read all it was asked for".to_owned());
        }
        for item in answer.responses().into_iter().flat_map(HashMap::values).flatten() {
            let read = from_attributes(item)
                .map_err(|reason| ClaimError::Damaged(format!("{reason} (table {}): run rebuild-state", self.name)))?;
            found.items.insert(id(item).to_owned(), Some(read));
        }
        if found.failure.is_some() {
            pass.throttled();
        } else {
            pass.succeeded();
        }
        Ok(found)
    }

    /// What the error of one statement means.
    fn outcome(&self, error: &BatchStatementError) -> Result<Result<Done, String>, ClaimError> {
        let code = error.code().map_or("", Code::as_str);
        let explained = || format!("{code}: {}", error.message().unwrap_or("no message"));
        match error.code() {
            Some(Code::DuplicateItem | Code::ConditionalCheckFailed) => Ok(Ok(Done::Stands)),
            Some(
                Code::ThrottlingError
                | Code::ProvisionedThroughputExceeded
                | Code::RequestLimitExceeded
                | Code::InternalServerError
                | Code::TransactionConflict,
            ) => Ok(Err(explained())),
            _ => {
                let reason = refusal(&self.name, "PartiQLInsert (and PartiQLUpdate)", Some(code), &explained());
                let lost = is_no_table(Some(code));
                Err(if lost { ClaimError::Lost(reason) } else { ClaimError::Refused(reason) })
            }
        }
    }

    fn statement(&self, write: &Write) -> BatchStatementRequest {
        let table = &self.name;
        let number = |number: &dyn ToString| AttributeValue::N(number.to_string());
        let key = AttributeValue::S(write.key.clone());
        let (holders, expires_at) = (blob(&write.holders), number(&write.expires_at));
        let (text, parameters) = match write.replaces {
            None => (
                format!("INSERT INTO \"{table}\" VALUE {{'id': ?, 'h': ?, 'r': ?, 'expires_at': ?}}"),
                vec![key, holders, number(&1), expires_at],
            ),
            Some((revision, seen)) => (
                format!("UPDATE \"{table}\" SET h=? SET r=? SET expires_at=? WHERE id=? AND r=? AND expires_at=?"),
                vec![holders, number(&(revision + 1)), expires_at, key, number(&revision), number(&seen)],
            ),
        };
        let built = BatchStatementRequest::builder().statement(text).set_parameters(Some(parameters)).build();
        built.expect("it has a statement")
    }
}

fn id(item: &HashMap<String, AttributeValue>) -> &str {
    item.get(KEY).and_then(|id| id.as_s().ok()).map_or("", String::as_str)
}
