//! State made anew from the archive alone: every row carries its position, so that it can claim its identity again.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;

use super::{ChainHead, Kept};
use crate::archive::chain::{self, ChainError, ManifestFault};
use crate::archive::left_over::{self, left_over_keys};
use crate::archive::manifest::{Manifest, ObjectKind};
use crate::archive::{ArchiveError, ArchiveStore, Listed};
use crate::dedupe::{Claim, ClaimError, Claims};
use crate::digest::Digest;
use crate::encode::read::{ArchivedRow, Projection, ReadError, read_rows};
use crate::encode::{Layout, keys};
use crate::lease::LeaseRow;
use crate::record::{IdentityKey, identity_of};
use crate::source::ShardId;

/// How many rows claim at once.
const CHUNK: usize = 4096;

/// Why state could not be made from the archive.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The archive could not be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A shard's chain has no sound end.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A manifest is none.
    #[error("{key} {fault}; `verify` tells all that is wrong")]
    Manifest {
        /// The manifest's key.
        key: String,
        /// What is wrong with it.
        fault: ManifestFault,
    },
    /// A listed object is not there.
    #[error("{key} is missing; `verify` tells all that is wrong")]
    Missing {
        /// The object's key.
        key: String,
    },
    /// An object can't be read.
    #[error("{key}: {error}; `verify` tells all that is wrong")]
    Unreadable {
        /// The object's key.
        key: String,
        /// Why.
        error: ReadError,
    },
    /// The archive has no longer what an earlier proof found.
    #[error(
        "{key} {found} in the report of {began}: the archive was cut or written anew since; `verify --against` tells all"
    )]
    NotAsKept {
        /// The manifest's key.
        key: String,
        /// How it differs.
        found: &'static str,
        /// When that proof began.
        began: Timestamp,
    },
    /// The claims could not be made.
    #[error(transparent)]
    Claims(#[from] ClaimError),
}

/// How far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Objects of events read.
    pub objects: u64,
    /// Rows that have claimed their identity.
    pub records: u64,
    /// Rows that can't: they have no `log_id`, and the archive does not keep their raw text.
    pub unclaimable: u64,
}

/// Every manifest of the archive, in the order of shards and batches.
async fn manifests(archive: &dyn ArchiveStore, archive_id: uuid::Uuid) -> Result<Vec<Manifest>, RebuildError> {
    let mut manifests = Vec::new();
    let listing = archive.list(keys::MANIFESTS_PREFIX).await?;
    let fetch = |listed: Listed| async move { (archive.get(&listed.key).await, listed.key) };
    let mut fetched = stream::iter(listing).map(fetch).buffered(super::MANIFESTS_AT_ONCE);
    while let Some((bytes, key)) = fetched.next().await {
        let bytes = bytes?.ok_or_else(|| RebuildError::Missing { key: key.clone() })?;
        let Some(name) = keys::manifest_batch(&key) else { continue };
        let manifest = chain::parse(&bytes, archive_id, name.folder, name.batch_seq);
        manifests.push(manifest.map_err(|fault| RebuildError::Manifest { key: key.clone(), fault })?);
    }
    Ok(manifests)
}

/// Refuses an archive in which a chain no longer goes through where it ended when `kept` was made.
pub async fn compare(archive: &dyn ArchiveStore, kept: &Kept) -> Result<(), RebuildError> {
    let fetch = |(shard, head): (&ShardId, &ChainHead)| {
        let (key, head) = (keys::manifest_key(shard, head.batches.saturating_sub(1)), head.head);
        async move { (archive.get(&key).await, key, head) }
    };
    let mut fetched = stream::iter(kept.chain_heads()).map(fetch).buffered(super::MANIFESTS_AT_ONCE);
    while let Some((bytes, key, head)) = fetched.next().await {
        let found = match bytes?.map(|bytes| Digest::of(&bytes)) {
            Some(digest) if digest == head => continue,
            Some(_) => "has another SHA-256 than",
            None => "is missing, and stands",
        };
        return Err(RebuildError::NotAsKept { key, found, began: kept.began });
    }
    Ok(())
}

/// The lease row of every shard that has a manifest: nobody's, going on from the newest, and from what is left of a batch
/// behind it. `layout` and `window` are the configured ones.
pub async fn lease_rows(
    archive: &dyn ArchiveStore,
    archive_id: uuid::Uuid,
    layout: &Layout,
    window: Duration,
) -> Result<Vec<LeaseRow>, RebuildError> {
    let mut rows = Vec::new();
    let mut shards: Vec<_> = manifests(archive, archive_id).await?.into_iter().map(|manifest| manifest.shard).collect();
    shards.dedup();
    for shard in shards {
        if let Some(newest) = chain::newest_manifest(archive, archive_id, &shard).await? {
            rows.push(newest.lease_row());
        }
    }
    let unreadable = left_over::find(archive, &mut rows, layout, window).await?;
    unreadable.into_iter().next().map_or(Ok(rows), |(_, error)| Err(error.into()))
}

/// Lets every archived record claim its identity from its own position, as it did when it was archived, and makes the
/// claims durable. Claims count from `now`: a window longer than needed loses nothing.
pub async fn claims(
    archive: &dyn ArchiveStore,
    archive_id: uuid::Uuid,
    claims: &dyn Claims,
    now: Timestamp,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Progress, RebuildError> {
    let key = IdentityKey::of_archive(archive_id);
    let mut done = Progress::default();
    let manifests = manifests(archive, archive_id).await?;
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    for manifest in &manifests {
        next.insert(keys::encode_shard(&manifest.shard), manifest.batch_seq + 1);
        for object in manifest.objects.iter().filter(|object| object.kind == ObjectKind::Events) {
            claim_object(archive, &object.key, claims, &key, now, &mut done).await?;
            progress(done);
        }
    }
    // What stands of a batch under way has claimed what it holds, too: a copy elsewhere is not the first.
    let listing = archive.list(keys::EVENTS_PREFIX).await?;
    let next = |folder: &str| Some(next.get(folder).copied().unwrap_or(0));
    for key_under_way in left_over_keys(&listing, next).into_values().flatten() {
        claim_object(archive, key_under_way, claims, &key, now, &mut done).await?;
        progress(done);
    }
    claims.flush().await?;
    Ok(done)
}

/// Lets every row of an object claim.
async fn claim_object(
    archive: &dyn ArchiveStore,
    object: &str,
    claims: &dyn Claims,
    key: &IdentityKey,
    now: Timestamp,
    done: &mut Progress,
) -> Result<(), RebuildError> {
    let missing = || RebuildError::Missing { key: object.to_owned() };
    let bytes = archive.get(object).await?.ok_or_else(missing)?;
    let unreadable = |error| RebuildError::Unreadable { key: object.to_owned(), error };
    let mut rows = read_rows(bytes, object, Projection::Core).map_err(unreadable)?;
    loop {
        let chunk: Result<Vec<ArchivedRow>, ReadError> = rows.by_ref().take(CHUNK).collect();
        let chunk = chunk.map_err(unreadable)?;
        if chunk.is_empty() {
            break;
        }
        claim_rows(&chunk, claims, key, now, done).await?;
    }
    done.objects += 1;
    Ok(())
}

async fn claim_rows(
    rows: &[ArchivedRow],
    claims: &dyn Claims,
    key: &IdentityKey,
    now: Timestamp,
    done: &mut Progress,
) -> Result<(), ClaimError> {
    let Some(shard) = rows.first().map(|row| &row.shard) else { return Ok(()) };
    let records: Vec<_> = rows.iter().map(|row| (row, row.record())).collect();
    let (claimable, lost): (Vec<_>, Vec<_>) =
        records.iter().partition(|(_, record)| record.log_id.is_some() || !record.raw.is_empty());
    let mut batch = Vec::with_capacity(claimable.len());
    let mut hasher = key.hasher();
    for (row, record) in &claimable {
        batch.push(Claim { identity: identity_of(record), position: row.position(), core: hasher.core_of(record) });
    }
    claims.claim(shard, &batch, now).await?;
    done.records += claimable.len() as u64;
    done.unclaimable += lost.len() as u64;
    Ok(())
}
