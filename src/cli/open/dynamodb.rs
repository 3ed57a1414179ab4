//! Opening the state in DynamoDB: two tables, shared by any number of workers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use aws_sdk_dynamodb::Client;
use uuid::Uuid;

use super::answers::service;
use super::require_region;
use crate::archive::{ArchiveStore, has_batches};
use crate::aws::dynamodb::{CLAIM_PATIENCE, LEASE_PATIENCE, TableError, TableOptions, client, exists, prepare};
use crate::aws::{Patience, check_credentials, dynamodb_client, sdk_config};
use crate::cli::Failure;
use crate::config::{Config, DynamodbConfig, StateChoice};
use crate::dedupe::dynamodb::{ClaimsTable, DynamoClaims, Marker, table as claims_table};
use crate::lease::dynamodb::{DynamoLeases, table as lease_table};
use crate::ops::clock::Clock;
use crate::ops::identity::random_bytes;
use crate::verify::rebuild;

/// The tables, there and ready.
pub(in crate::cli) struct DynamoState {
    leases: Client,
    claims: ClaimsTable,
    names: Names,
    /// The names of those that were not there before.
    made: Vec<String>,
    /// The dedupe window.
    window: Duration,
    clock: Arc<dyn Clock>,
}

/// Claims that were made anew and do not count yet.
pub(in crate::cli) struct NewClaims {
    /// The marker of those that do.
    standing: Marker,
    anew: Marker,
    done: rebuild::Progress,
}

/// The names of the tables.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Names {
    pub(super) leases: String,
    pub(super) claims: String,
}

impl Names {
    pub(in crate::cli) fn of(config: &DynamodbConfig) -> Self {
        let prefix = &config.table_prefix;
        Self { leases: format!("{prefix}-leases"), claims: format!("{prefix}-claims") }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the tables {} and {}", self.leases, self.claims)
    }
}

impl DynamoState {
    /// Makes the tables where they are missing, or sees that they are there.
    pub(super) async fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        let settings = &config.state.dynamodb;
        let names = Names::of(settings);
        let claims = found_client(settings, CLAIM_PATIENCE).await?;
        let leases = client(settings, LEASE_PATIENCE).await;
        let options = TableOptions {
            create: settings.create_tables,
            point_in_time_recovery: settings.point_in_time_recovery,
            tags: &settings.tags,
        };
        // With the claims' client: it waits longer.
        let (mut missing, mut made) = (Vec::new(), Vec::new());
        for table in [lease_table(&names.leases), claims_table(&names.claims)] {
            match prepare(&claims, table, options, clock.as_ref()).await {
                // Told together: whoever makes the one makes the other.
                Err(error @ TableError::Missing { .. }) => missing.push(error.to_string()),
                Err(error) => return Err(table_failure(settings, error).await),
                Ok(true) => made.push(table.name.to_owned()),
                Ok(false) => {}
            }
        }
        if !missing.is_empty() {
            return Err(anyhow!(missing.join("\n")).context("state.dynamodb.table_prefix").into());
        }
        let claims = ClaimsTable::new(claims, &names.claims);
        Ok(Self { leases, claims, names, made, window: config.dedupe.window.get(), clock })
    }

    /// The tables' names.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// The names of the tables that were made when they were opened.
    pub(super) fn made(&self) -> &[String] {
        &self.made
    }

    /// The archive that the tables belong to, if they do to any.
    pub(super) async fn bound(&self) -> Result<Option<Uuid>, Failure> {
        Ok(self.claims.marker().await?.map(|marker| marker.archive))
    }

    /// Makes sure that the tables are used for one archive only: of any number of workers that begin at the same time, one
    /// says which.
    pub(super) async fn bind(&self, archive_id: Uuid) -> Result<Marker, Failure> {
        let marker = self.claims.begin(&Marker::begun(archive_id, random_bytes())).await?;
        if marker.archive != archive_id {
            return Err(other_archive(&self.names, marker.archive, archive_id));
        }
        Ok(marker)
    }

    /// The lease rows.
    pub(super) fn leases(&self, archive_id: Uuid) -> DynamoLeases {
        DynamoLeases::new(self.leases.clone(), &self.names.leases, archive_id)
    }

    /// Claims of no archive, under a generation that never counts; what they leave expires.
    pub(super) fn trial_claims(&self) -> DynamoClaims {
        let marker = Marker::begun(Uuid::nil(), random_bytes());
        DynamoClaims::remaking(self.claims.clone(), &marker, self.window, self.clock.clone())
    }

    /// The claims. Those that are not complete are first made from the archive, by every worker that finds them so: an
    /// archived record claims from its own position, so that doing it twice, or at the same time, does what doing it once
    /// does.
    pub(super) async fn claims(&self, archive: &dyn ArchiveStore, archive_id: Uuid) -> Result<DynamoClaims, Failure> {
        let marker = self.bind(archive_id).await?;
        if !marker.complete {
            if has_batches(archive).await? {
                let done = self.make(&marker, archive).await?;
                let (records, objects) = (done.records, done.objects);
                tracing::warn!(records, objects, "claims were made anew from the archive");
            }
            self.complete(&marker, Some(&marker)).await?;
        }
        Ok(DynamoClaims::open(self.claims.clone(), &marker, self.window, self.clock.clone()))
    }

    /// Makes the claims anew from the archive, beside the old ones, which count until these are adopted.
    pub(in crate::cli) async fn remake_claims(
        &self,
        archive: &dyn ArchiveStore,
        archive_id: Uuid,
    ) -> Result<NewClaims, Failure> {
        let standing = self.bind(archive_id).await?;
        let anew = Marker::begun(archive_id, random_bytes());
        let done = self.make(&anew, archive).await?;
        Ok(NewClaims { standing, anew, done })
    }

    /// Lets claims that were made anew count in the place of the old ones.
    pub(in crate::cli) async fn adopt_claims(&self, claims: NewClaims) -> Result<rebuild::Progress, Failure> {
        self.complete(&claims.anew, Some(&claims.standing)).await?;
        Ok(claims.done)
    }

    /// Lets everything in the archive claim.
    async fn make(&self, marker: &Marker, archive: &dyn ArchiveStore) -> Result<rebuild::Progress, Failure> {
        let claims = DynamoClaims::remaking(self.claims.clone(), marker, self.window, self.clock.clone());
        Ok(super::state::claim_archive(&claims, archive, marker.archive, self.clock.now()).await?)
    }

    async fn complete(&self, marker: &Marker, seen: Option<&Marker>) -> Result<(), Failure> {
        let complete = Marker { complete: true, ..marker.clone() };
        if self.claims.put(&complete, seen).await? {
            return Ok(());
        }
        Err(anyhow!(
            "the claims in the table {} were made anew by another process meanwhile: try again",
            self.names.claims
        )
        .into())
    }
}

/// A client for the tables, where there is a region and there are credentials to be found.
pub(in crate::cli) async fn found_client(settings: &DynamodbConfig, patience: Patience) -> Result<Client, Failure> {
    let sdk = sdk_config(settings.access(), patience).await;
    require_region(sdk.region(), "state.dynamodb", "the tables'")?;
    let refuse = |reason| Failure::configuration(anyhow!("state.dynamodb: {reason}"));
    check_credentials(&sdk).await.map_err(refuse)?;
    Ok(dynamodb_client(&sdk))
}

/// The lease rows, to be looked at; none where there is no table, or nobody knows whose it is.
pub(super) async fn look(config: &Config, archive_id: Option<Uuid>) -> Result<Option<DynamoLeases>, Failure> {
    let settings = &config.state.dynamodb;
    let names = Names::of(settings);
    let client = found_client(settings, LEASE_PATIENCE).await?;
    if !is_there(settings, &client, &names.leases).await? {
        return Ok(None);
    }
    let bound = bound_to(settings, &client, &names).await?;
    match (bound, archive_id) {
        (Some(bound), Some(asked)) if bound != asked => Err(other_archive(&names, bound, asked)),
        _ => Ok(archive_id.or(bound).map(|id| DynamoLeases::to_look_at(client, names.leases, id))),
    }
}

/// That the lease table is not there, in words, where it is not.
pub(in crate::cli) async fn missing_leases(config: &Config) -> Result<Option<String>, Failure> {
    let settings = &config.state.dynamodb;
    if config.state.kind != StateChoice::Dynamodb {
        return Ok(None);
    }
    let leases = Names::of(settings).leases;
    let is_there = is_there(settings, &found_client(settings, LEASE_PATIENCE).await?, &leases).await?;
    Ok((!is_there).then(|| format!("the lease table {leases} is not there")))
}

/// The archive that the tables belong to, if they are there and do to any.
pub(super) async fn bound(config: &Config) -> Result<Option<Uuid>, Failure> {
    let settings = &config.state.dynamodb;
    bound_to(settings, &found_client(settings, LEASE_PATIENCE).await?, &Names::of(settings)).await
}

async fn bound_to(settings: &DynamodbConfig, client: &Client, names: &Names) -> Result<Option<Uuid>, Failure> {
    if !is_there(settings, client, &names.claims).await? {
        return Ok(None);
    }
    Ok(ClaimsTable::new(client.clone(), &names.claims).marker().await?.map(|marker| marker.archive))
}

fn other_archive(names: &Names, bound: Uuid, asked: Uuid) -> Failure {
    Failure::configuration(anyhow!(
        "{names} belong to the archive {bound}, not to {asked}; a pair of tables goes with one archive: give each archive a \
         state.dynamodb.table_prefix of its own"
    ))
}

/// Whether the table is there.
pub(in crate::cli) async fn is_there(settings: &DynamodbConfig, client: &Client, name: &str) -> Result<bool, Failure> {
    match exists(client, name).await {
        Ok(is_there) => Ok(is_there),
        Err(error) => Err(table_failure(settings, error).await),
    }
}

/// That a table is another's is a matter of configuration, everything else of the moment.
async fn table_failure(settings: &DynamodbConfig, error: TableError) -> Failure {
    match error {
        TableError::OtherShape { .. } => Failure::configuration(anyhow!(error).context("state.dynamodb.table_prefix")),
        // Whoever gives no answer does not say who was asked.
        TableError::Unavailable(_) => {
            let asked = service("state.dynamodb", settings.access(), "DynamoDB").await;
            Failure::Failed(anyhow!(error).context(asked))
        }
        TableError::Missing { .. } | TableError::Refused(_) => Failure::Failed(error.into()),
    }
}
