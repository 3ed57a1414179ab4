//! The commit protocol: claims durable, prepare, put, manifest, commit. The only place that moves a checkpoint.
//!
//! | step | durable once done | a crash behind it |
//! |---|---|---|
//! | claims | which records are this batch's | the batch is read again; its claims hold, for they are claimed from the same positions |
//! | prepare | the batch's range, keys and layout (`pending` in the lease row) | whoever takes the lease reads exactly this range again and goes on here |
//! | put | each object, under a key that only this batch has | those that were put are found standing, with these rows, and adopted |
//! | manifest | the batch's proof, chained to the one before | the same |
//! | claims, again | nothing: claims that were made anew from the archive since, without the batch, are found out | the same |
//! | commit | `checkpoint`, `batch_seq`, `chain_head`; `pending` gone | the next batch begins |

use std::collections::BTreeMap;
use std::future::Future;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::board::Seat;
use super::open_batch::FinishedBatch;
use crate::app::Ports;
use crate::archive::chain::runs_forward;
use crate::archive::manifest::{Manifest, ManifestObject};
use crate::archive::{ArchiveError, Put};
use crate::dedupe::ClaimError;
use crate::digest::Digest;
use crate::encode::{FinishedObject, Pieces, keys, read};
use crate::lease::{Lease, LeaseError};
use crate::ops::blocking::long_work;
use crate::ops::failpoint;
use crate::ops::planted::{Bug, planted};
use crate::ops::retry::retry;
use crate::source::ShardId;

/// Why a batch could not be committed. Whatever it is, nothing is lost: the batch is finished or read again by whoever
/// takes the lease next.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The claims could not be made durable.
    #[error(transparent)]
    Claims(#[from] ClaimError),
    /// The lease row could not be written.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The archive did not take an object.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Something that this batch did not put stands under its key.
    #[error(
        "{key} stands in the archive already and is not of this batch ({reason}); nothing is overwritten: find out who \
         put it there (a batch whose state was lost, for one), move it out of the archive, and run again"
    )]
    Foreign {
        /// The object's key.
        key: String,
        /// How it was told.
        reason: String,
    },
    /// The batch's number is taken in the archive, and the lease row knows nothing of it.
    #[error(
        "{key} stands in the archive already, but the lease row knows nothing of that batch: the state is older than the \
         archive (was it restored from a backup? then run rebuild-state), or another state archives this shard too \
         (another directory, or tables of another state.dynamodb.table_prefix: stop one of the two), or somebody put it \
         there (verify names it; one that auditlake wrote has the SHA-256 of the manifest before it in `previous`): find out \
         which, first; nothing was changed"
    )]
    StateIsOlder {
        /// The manifest's key.
        key: String,
    },
    /// The range of a pending batch came out otherwise when it was read again.
    #[error("the pending batch covers {expected}, but reading it again gave {found}; nothing was changed")]
    OtherRange {
        /// What the lease row says.
        expected: String,
        /// What was read.
        found: String,
    },
}

/// How many objects are put at the same time: most of a put is waiting for a disk or a service.
const PUTS_AT_ONCE: usize = 4;

/// Commits one batch.
pub(super) struct Commit<'a> {
    pub(super) ports: &'a Ports,
    pub(super) settings: &'a Settings,
    pub(super) abort: &'a CancellationToken,
    pub(super) lease: &'a mut Lease,
    pub(super) seat: &'a Seat,
    /// The newest manifests of the shard's parents, for the shard's first.
    pub(super) parent_heads: &'a BTreeMap<ShardId, Digest>,
    /// The shards that came from this one, where it ends.
    pub(super) children: &'a [ShardId],
    pub(super) batch: &'a FinishedBatch,
}

impl Commit<'_> {
    /// Takes the batch through all steps. Failures that may pass are tried again under the settings' policy.
    pub(super) async fn run(mut self) -> Result<(), CommitError> {
        let claims = &self.ports.claims;
        if !planted(Bug::ClaimAfterPut) {
            self.try_again(ClaimError::may_pass, || claims.flush()).await?;
        }
        failpoint::reach("claims_flushed");
        self.prepare().await?;
        failpoint::reach("prepared");
        let manifest = self.manifest(self.put_objects().await?);
        if planted(Bug::ManifestAfterCommit) {
            self.commit(Digest::of(&manifest.to_bytes())).await?;
            return self.put_manifest(manifest).await.map(drop);
        }
        let chain_head = self.put_manifest(manifest).await?;
        failpoint::reach("manifest_put");
        self.try_again(ClaimError::may_pass, || claims.flush()).await?;
        self.commit(chain_head).await?;
        failpoint::reach("committed");
        Ok(())
    }

    /// Fixes the batch in the lease row, or finds that it is the one fixed there.
    async fn prepare(&mut self) -> Result<(), CommitError> {
        let pending = &self.batch.pending;
        if planted(Bug::PrepareSkipped) {
            return Ok(());
        }
        if let Some(standing) = &self.lease.row().pending {
            if standing == pending {
                return Ok(());
            }
            let (expected, found) = (standing.range.to_string(), pending.range.to_string());
            return Err(CommitError::OtherRange { expected, found });
        }
        debug_assert_eq!(pending.range.after, self.lease.row().checkpoint, "batches chain");
        // Nobody puts a manifest before its batch is prepared.
        let key = keys::manifest_key(&self.lease.row().shard, pending.batch_seq);
        let archive = &self.ports.archive;
        if self.try_again(ArchiveError::may_pass, || archive.get(&key)).await?.is_some() {
            // Who slept through the loss of its lease finds what its successor put. Only a row that is still ours is old.
            self.write(|_| ()).await?;
            return Err(CommitError::StateIsOlder { key });
        }
        self.write(|row| row.pending = Some(pending.clone())).await
    }

    async fn commit(&mut self, chain_head: Digest) -> Result<(), CommitError> {
        let pending = &self.batch.pending;
        let (read_through, children) = (self.batch.read_through, self.children);
        self.write(|row| {
            row.checkpoint = pending.range.through.clone();
            row.ended = pending.shard_end;
            row.batch_seq = pending.batch_seq + 1;
            row.chain_head = Some(chain_head);
            row.pending = None;
            row.left_over = None;
            row.read_through = row.read_through.max(Some(read_through));
            row.switches = 0;
            row.stopped = None;
            if row.ended {
                row.children = children.to_vec();
            }
        })
        .await
    }

    async fn write(&mut self, change: impl Fn(&mut crate::lease::LeaseRow)) -> Result<(), CommitError> {
        let clock = self.ports.clock.as_ref();
        let lease = tokio::sync::Mutex::new(&mut *self.lease);
        let write = || async { lease.lock().await.write(&change).await };
        let may_pass = |error: &LeaseError| self.seat.bears(error, LeaseError::may_pass);
        Ok(retry(self.settings.retry, clock, self.abort, may_pass, write).await?)
    }

    /// Puts all objects, some at the same time; what the manifest lists, in its order.
    async fn put_objects(&self) -> Result<Vec<ManifestObject>, CommitError> {
        let puts: Vec<BoxFuture<'_, _>> =
            self.batch.objects.iter().map(|object| self.put_object(object).boxed()).collect();
        stream::iter(puts).buffered(PUTS_AT_ONCE).try_collect().await
    }

    /// Puts one object, or adopts what an earlier attempt at this very batch put.
    async fn put_object(&self, object: &FinishedObject) -> Result<ManifestObject, CommitError> {
        let listed = object.manifest_object();
        let bytes = &object.object.bytes;
        let standing = self.put(&object.key, bytes).await?;
        failpoint::reach("object_put");
        let Some(standing) = standing else { return Ok(listed) };
        let sha256 = long_work(|| Digest::of(&standing));
        if sha256 != object.sha256 && !planted(Bug::AnyObjectAdopted) {
            // Another version of this program may have encoded the same rows differently; what counts is the rows.
            let found = standing.clone();
            let same = long_work(|| read::same_rows(found, bytes.join(), &object.key));
            let foreign = |reason| CommitError::Foreign { key: object.key.clone(), reason };
            if !same.map_err(|error| foreign(error.to_string()))? {
                return Err(foreign("it holds other records".into()));
            }
        }
        tracing::info!(key = object.key, "an earlier attempt had put this object; it is adopted");
        Ok(ManifestObject { bytes: standing.len() as u64, sha256, ..listed })
    }

    fn manifest(&self, objects: Vec<ManifestObject>) -> Manifest {
        let (row, pending, counts) = (self.lease.row(), &self.batch.pending, self.batch.tally.counts);
        debug_assert!(runs_forward(&pending.range), "{:?} runs backwards", pending.range);
        debug_assert_eq!(counts.records, counts.archived + counts.duplicates + counts.rejected, "the counts add up");
        Manifest {
            archive_id: self.settings.archive_id,
            shard: row.shard.clone(),
            parents: row.parents.clone(),
            parent_heads: if pending.batch_seq == 0 { self.parent_heads.clone() } else { BTreeMap::new() },
            origin: row.origin.clone(),
            batch_seq: pending.batch_seq,
            window: pending.window,
            range: pending.range.clone(),
            shard_end: pending.shard_end,
            arrival: self.batch.arrival,
            read_through: self.batch.read_through,
            counts,
            objects,
            gap: pending.gap.clone(),
            previous: row.chain_head,
            writer: concat!("auditlake ", env!("CARGO_PKG_VERSION")).into(),
        }
    }

    /// Puts the manifest, or finds the one that an earlier attempt put; the digest of what stands.
    async fn put_manifest(&self, manifest: Manifest) -> Result<Digest, CommitError> {
        let key = keys::manifest_key(&manifest.shard, manifest.batch_seq);
        let bytes = Pieces::from(manifest.to_bytes());
        let Some(standing) = self.put(&key, &bytes).await? else { return Ok(bytes.digest()) };
        match serde_json::from_slice::<Manifest>(&standing) {
            Ok(found) if found.same_batch(&manifest) => Ok(Digest::of(&standing)),
            Ok(_) => Err(CommitError::Foreign { key, reason: "it describes another batch".into() }),
            Err(error) => Err(CommitError::Foreign { key, reason: error.to_string() }),
        }
    }

    /// Puts `bytes` under `key`; what stands there already, if anything does.
    async fn put(&self, key: &str, bytes: &Pieces) -> Result<Option<Bytes>, CommitError> {
        let archive = &self.ports.archive;
        let put = self.try_again(ArchiveError::may_pass, || archive.put_pieces_if_absent(key, bytes)).await?;
        if put == Put::Created {
            return Ok(None);
        }
        let standing = self.try_again(ArchiveError::may_pass, || archive.get(key)).await?;
        let vanished = || CommitError::Foreign { key: key.into(), reason: "it came and went".into() };
        standing.ok_or_else(vanished).map(Some)
    }

    async fn try_again<T, E, F>(&self, may_pass: impl Fn(&E) -> bool, step: impl FnMut() -> F) -> Result<T, E>
    where
        E: std::fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        let may_pass = |error: &E| self.seat.bears(error, &may_pass);
        retry(self.settings.retry, self.ports.clock.as_ref(), self.abort, may_pass, step).await
    }
}
