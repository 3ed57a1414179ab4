//! A shard's manifests as a chain: what it means that one follows another, and where the newest one leaves off.
//!
//! Pure, but for [`newest_manifest`]. The archive is the authority: a lease row that was lost is made anew from the
//! newest manifest ([`Newest::lease_row`]).

use std::cmp::Ordering;

use super::manifest::Manifest;
use super::{ArchiveError, ArchiveStore};
use crate::digest::Digest;
use crate::encode::keys;
use crate::lease::LeaseRow;
use crate::source::{Checkpoint, Range, ShardId};

/// How a range fails to go on from the checkpoint before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// It begins behind it: payloads between the two are in no batch.
    Gap,
    /// It begins in front of it: payloads are in two batches.
    Overlap,
    /// It begins at the same position, where there was another payload.
    OtherPayload,
}

/// Whether a batch that begins after `after` goes on exactly where the archive has been read `through`.
pub fn follows(through: &Checkpoint, after: &Checkpoint) -> Result<(), Misfit> {
    match after.compare(through) {
        Ordering::Greater => Err(Misfit::Gap),
        Ordering::Less => Err(Misfit::Overlap),
        Ordering::Equal if after == through => Ok(()),
        Ordering::Equal => Err(Misfit::OtherPayload),
    }
}

/// Whether `range` runs forward, or stands still (a batch without payloads).
pub fn runs_forward(range: &Range) -> bool {
    range.after == range.through || range.after.compare(&range.through) == Ordering::Less
}

/// The manifest of these bytes, if it is the one that its key and its archive say; else what is wrong with it. The key
/// gives the shard encoded ([`keys::encode_shard`]), as the `folder`.
pub fn parse(bytes: &[u8], archive_id: uuid::Uuid, folder: &str, batch_seq: u64) -> Result<Manifest, ManifestFault> {
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|error| ManifestFault::Unreadable(error.to_string()))?;
    if manifest.archive_id != archive_id {
        return Err(ManifestFault::OtherArchive(manifest.archive_id));
    }
    if keys::encode_shard(&manifest.shard) != folder || manifest.batch_seq != batch_seq {
        return Err(ManifestFault::OtherBatch { shard: manifest.shard, batch_seq: manifest.batch_seq });
    }
    if manifest.previous.is_some() != (batch_seq > 0) {
        return Err(ManifestFault::Predecessor);
    }
    Ok(manifest)
}

/// Why bytes are not the manifest that should stand under their key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestFault {
    /// They are no manifest.
    #[error("cannot be read as a manifest: {0}")]
    Unreadable(String),
    /// It belongs to another archive.
    #[error("belongs to the archive {0}, not to this one")]
    OtherArchive(uuid::Uuid),
    /// It is another batch's.
    #[error("says that it is batch {batch_seq} of {shard}")]
    OtherBatch {
        /// Whose.
        shard: ShardId,
        /// Which.
        batch_seq: u64,
    },
    /// The first of a shard names no manifest before it; every other does.
    #[error("is the first of its shard and names one before it, or is not the first and names none")]
    Predecessor,
}

/// The newest manifest of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// The manifest.
    pub manifest: Manifest,
    /// The SHA-256 of its bytes.
    pub digest: Digest,
}

impl Newest {
    /// The row of a shard that goes on from here: nobody's, with nothing under way.
    pub fn lease_row(&self) -> LeaseRow {
        LeaseRow {
            checkpoint: self.manifest.range.through.clone(),
            ended: self.manifest.shard_end,
            batch_seq: self.manifest.batch_seq + 1,
            chain_head: Some(self.digest),
            read_through: Some(self.manifest.read_through),
            origin: self.manifest.origin.clone(),
            remade_at: Some(self.manifest.batch_seq + 1),
            // That the shard is lost is told already, where it is.
            caught_up: self.manifest.gap.is_some() && self.manifest.range.after == self.manifest.range.through,
            ..LeaseRow::new(self.manifest.shard.clone(), self.manifest.parents.clone())
        }
    }
}

/// Why there is no going on from the newest manifest.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The archive could not be asked.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The chain's end can't be trusted; `verify` tells all that is wrong, and a human is needed.
    #[error("{key} {reason}")]
    Damaged {
        /// The manifest's key.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// Where a shard's chain ends in the archive; none where there is none of its manifests.
///
/// The newest must follow its predecessor: going on from a manifest that does not would skip records or bring them
/// twice. That the rest of the chain is whole is for `verify` to prove.
pub async fn newest_manifest(
    store: &dyn ArchiveStore,
    archive_id: uuid::Uuid,
    shard: &ShardId,
) -> Result<Option<Newest>, ChainError> {
    let listing = store.list(&keys::manifest_prefix(shard)).await?;
    let sequences = listing.iter().filter_map(|object| keys::manifest_batch(&object.key));
    let Some(last) = sequences.map(|name| name.batch_seq).max() else { return Ok(None) };

    let newest = fetch(store, archive_id, shard, last).await?;
    if last > 0 {
        let before = fetch(store, archive_id, shard, last - 1).await?;
        let chained = newest.manifest.previous == Some(before.digest);
        let fits = follows(&before.manifest.range.through, &newest.manifest.range.after).is_ok();
        if !chained || !fits || before.manifest.shard_end {
            let reason = format!("does not go on from {}", keys::manifest_key(shard, last - 1));
            return Err(ChainError::Damaged { key: keys::manifest_key(shard, last), reason });
        }
    }
    Ok(Some(newest))
}

async fn fetch(
    store: &dyn ArchiveStore,
    archive_id: uuid::Uuid,
    shard: &ShardId,
    batch_seq: u64,
) -> Result<Newest, ChainError> {
    let key = keys::manifest_key(shard, batch_seq);
    let Some(bytes) = store.get(&key).await? else {
        return Err(ChainError::Damaged { key, reason: "is missing".to_owned() });
    };
    match parse(&bytes, archive_id, &keys::encode_shard(shard), batch_seq) {
        Ok(manifest) => Ok(Newest { manifest, digest: Digest::of(&bytes) }),
        Err(fault) => Err(ChainError::Damaged { key, reason: fault.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::archive::MemoryArchive;
    use crate::archive::manifest::Counts;
    use crate::batch::Window;
    use crate::source::Position;

    const ARCHIVE: Uuid = Uuid::from_u128(1);

    fn at(position: u64) -> Checkpoint {
        Checkpoint::at(Position::new(position), &position.to_le_bytes())
    }

    fn manifest(batch_seq: u64, after: Checkpoint, through: Checkpoint, previous: Option<Digest>) -> Manifest {
        Manifest {
            archive_id: ARCHIVE,
            shard: ShardId::new("s"),
            parent_heads: std::collections::BTreeMap::new(),
            origin: None,
            parents: vec![ShardId::new("p")],
            batch_seq,
            window: Window { start: Timestamp::UNIX_EPOCH, end: Timestamp::UNIX_EPOCH },
            range: Range { after, through },
            shard_end: batch_seq == 1,
            arrival: None,
            read_through: Timestamp::UNIX_EPOCH,
            counts: Counts::default(),
            objects: Vec::new(),
            gap: None,
            previous,
            writer: String::new(),
        }
    }

    fn put(store: &MemoryArchive, manifest: &Manifest) -> Digest {
        store.overwrite(&keys::manifest_key(&manifest.shard, manifest.batch_seq), manifest.to_bytes());
        Digest::of(&manifest.to_bytes())
    }

    async fn newest(store: &MemoryArchive) -> Result<Option<Newest>, ChainError> {
        newest_manifest(store, ARCHIVE, &ShardId::new("s")).await
    }

    #[test]
    fn a_range_follows_only_where_the_one_before_it_ended() {
        assert_eq!(follows(&at(5), &at(5)), Ok(()));
        assert_eq!(follows(&at(5), &at(6)), Err(Misfit::Gap));
        assert_eq!(follows(&at(5), &at(4)), Err(Misfit::Overlap));
        assert_eq!(follows(&at(5), &Checkpoint::TrimHorizon), Err(Misfit::Overlap));
        let other = Checkpoint::at(Position::new(5), b"other");
        assert_eq!(follows(&at(5), &other), Err(Misfit::OtherPayload));
    }

    #[test]
    fn a_range_may_stand_still_but_not_run_backwards() {
        assert!(runs_forward(&Range { after: at(1), through: at(1) }));
        assert!(runs_forward(&Range { after: Checkpoint::TrimHorizon, through: at(1) }));
        assert!(!runs_forward(&Range { after: at(2), through: at(1) }));
    }

    #[tokio::test]
    async fn a_lost_lease_row_goes_on_from_the_newest_manifest() {
        let store = MemoryArchive::new();
        assert_eq!(newest(&store).await.unwrap(), None);
        let first = put(&store, &manifest(0, Checkpoint::TrimHorizon, at(5), None));
        let second = put(&store, &manifest(1, at(5), at(9), Some(first)));

        let row = newest(&store).await.unwrap().unwrap().lease_row();
        assert_eq!(row.checkpoint, at(9));
        assert_eq!((row.batch_seq, row.chain_head, row.ended), (2, Some(second), true));
        assert_eq!(row.parents, [ShardId::new("p")]);
        assert_eq!((row.owner, row.pending, row.counter), (None, None, 0));
    }

    #[tokio::test]
    async fn there_is_no_going_on_from_a_manifest_that_follows_nothing() {
        let store = MemoryArchive::new();
        let first = put(&store, &manifest(0, Checkpoint::TrimHorizon, at(5), None));
        for (what, rogue) in [
            ("an omitted range", manifest(1, at(7), at(9), Some(first))),
            ("another predecessor", manifest(1, at(5), at(9), Some(Digest::of(b"")))),
            ("a hole in the chain", manifest(3, at(5), at(9), Some(first))),
            ("another archive", Manifest { archive_id: Uuid::nil(), ..manifest(3, at(5), at(9), Some(first)) }),
        ] {
            put(&store, &rogue);
            assert!(matches!(newest(&store).await, Err(ChainError::Damaged { .. })), "{what}");
        }
    }
}
