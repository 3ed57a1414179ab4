//! The table of claims, and the one item in it that is no claim.
//!
//! | attribute of `_auditlake` | what it is |
//! |---|---|
//! | `archive_id` S | the archive that the claims belong to |
//! | `generation` S | what the keys of the claims that count begin with |
//! | `complete` BOOL | whether everything in the archive has claimed; until then nothing new may |
//!
//! Claims that are made anew (`rebuild-state`) get a generation of their own, which takes the place of the old one at
//! once, by one conditional write of this item; what the old one leaves behind expires. A worker that still counts by the
//! old one, or whose table was removed and made again, finds that out before its next batch is prepared.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::AttributeValue;
use uuid::Uuid;

use crate::aws::dynamodb::{Fault, TableSpec, fault};
use crate::dedupe::ClaimError;

/// The key attribute.
pub(super) const KEY: &str = "id";
/// The time to live.
pub(super) const EXPIRES: &str = "expires_at";
/// No generation begins with an underscore.
const MARKER: &str = "_auditlake";

/// The table of claims of this name.
pub fn table(name: &str) -> TableSpec<'_> {
    TableSpec { name, key: KEY, expires: Some(EXPIRES) }
}

/// Which claims count, and whose they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The archive.
    pub archive: Uuid,
    /// The generation of the claims that count: 8 hexadecimal digits.
    pub generation: String,
    /// Everything in the archive has claimed.
    pub complete: bool,
}

impl Marker {
    /// Claims that are begun, under a generation made of these random bytes.
    pub fn begun(archive: Uuid, random: [u8; 4]) -> Self {
        Self { archive, generation: hex::encode(random), complete: false }
    }
}

/// A table of claims, which is there.
#[derive(Clone, Debug)]
pub struct ClaimsTable {
    pub(super) client: Client,
    pub(super) name: String,
}

impl ClaimsTable {
    /// The table of this name.
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        Self { client, name: name.into() }
    }

    /// The marker, if there is one.
    pub async fn marker(&self) -> Result<Option<Marker>, ClaimError> {
        let get = self.client.get_item().table_name(&self.name).key(KEY, AttributeValue::S(MARKER.to_owned()));
        let got = get.consistent_read(true).send().await.map_err(|error| self.failure("GetItem", &error))?;
        got.item().map(|item| self.parse(item)).transpose()
    }

    /// Writes the marker where there is none; the one that stands then, whoever wrote it.
    pub async fn begin(&self, marker: &Marker) -> Result<Marker, ClaimError> {
        // Most of the time it stands, and a read is cheaper than a write that fails.
        for _ in 0..3 {
            if let Some(standing) = self.marker().await? {
                return Ok(standing);
            }
            self.put(marker, None).await?;
        }
        Err(ClaimError::Unavailable(format!("the item `{MARKER}` of the table {} comes and goes", self.name)))
    }

    /// Writes the marker in the place of the one that was `seen` (or of none); whether that one still stood there.
    pub async fn put(&self, marker: &Marker, seen: Option<&Marker>) -> Result<bool, ClaimError> {
        let put = self.client.put_item().table_name(&self.name).set_item(Some(item(marker)));
        let put = match seen {
            None => put.condition_expression(format!("attribute_not_exists({KEY})")),
            Some(seen) => put
                .condition_expression("archive_id = :archive AND generation = :generation")
                .expression_attribute_values(":archive", AttributeValue::S(seen.archive.to_string()))
                .expression_attribute_values(":generation", AttributeValue::S(seen.generation.clone())),
        };
        match put.send().await {
            Ok(_) => Ok(true),
            Err(error) => match fault(&self.name, "PutItem", &error) {
                // It may be our own, of an attempt whose answer was lost.
                Fault::Condition => Ok(self.marker().await?.as_ref() == Some(marker)),
                _ => Err(self.failure("PutItem", &error)),
            },
        }
    }

    pub(super) fn failure<E>(&self, operation: &str, error: &SdkError<E, HttpResponse>) -> ClaimError
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        match fault(&self.name, operation, error) {
            Fault::Unavailable { reason, .. } => ClaimError::Unavailable(reason),
            Fault::Refused { reason } => ClaimError::Refused(reason),
            Fault::NoTable { reason } => ClaimError::Lost(reason),
            Fault::Condition => {
                ClaimError::Refused(format!("{operation} on the table {} failed a condition", self.name))
            }
        }
    }

    fn parse(&self, item: &HashMap<String, AttributeValue>) -> Result<Marker, ClaimError> {
        let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok());
        let archive = text("archive_id").and_then(|id| id.parse().ok());
        let complete = item.get("complete").and_then(|value| value.as_bool().ok());
        if let (Some(archive), Some(generation), Some(&complete)) = (archive, text("generation"), complete) {
            return Ok(Marker { archive, generation: generation.clone(), complete });
        }
        let reason = format!("the item `{MARKER}` of the table {} can't be read: remove the table", self.name);
        Err(ClaimError::Damaged(reason))
    }
}

fn item(marker: &Marker) -> HashMap<String, AttributeValue> {
    HashMap::from([
        (KEY.to_owned(), AttributeValue::S(MARKER.to_owned())),
        ("archive_id".to_owned(), AttributeValue::S(marker.archive.to_string())),
        ("generation".to_owned(), AttributeValue::S(marker.generation.clone())),
        ("complete".to_owned(), AttributeValue::Bool(marker.complete)),
    ])
}
