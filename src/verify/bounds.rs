//! What the lease rows, read before and after the listing, say of a shard's chain. Pure.
//!
//! With `b` the number of batches in the earlier row and `a` that in the later one:
//!
//! | manifests | must stand | may stand |
//! |---|---|---|
//! | below `b` | yes: they were committed before the listing | yes |
//! | from `b` below `a`, and `a` if that row shows it as pending | no: they were put while we read | yes |
//! | beyond | no | no: nobody was told to put them |

use std::collections::BTreeMap;

use crate::archive::manifest::Manifest;
use crate::digest::Digest;
use crate::lease::{LeaseRow, Pending};
use crate::source::Checkpoint;

/// What a row says of the batch that it committed last.
#[derive(Clone, Debug)]
pub(super) struct Committed {
    pub(super) head: Option<Digest>,
    pub(super) checkpoint: Checkpoint,
    pub(super) ended: bool,
}

/// The limits of a shard's chain.
#[derive(Clone, Debug, Default)]
pub(super) struct Bounds {
    /// Every manifest below stands.
    required: u64,
    /// No manifest from here on stands; none where there are no rows to tell.
    allowed: Option<u64>,
    /// By batch.
    committed: BTreeMap<u64, Committed>,
    pending: Vec<Pending>,
    ended: bool,
}

impl Bounds {
    /// What these rows of one shard say.
    pub(super) fn of(before: Option<&LeaseRow>, after: Option<&LeaseRow>) -> Self {
        let mut bounds = Self { required: before.map_or(0, |row| row.batch_seq), ..Self::default() };
        for row in [before, after].into_iter().flatten() {
            let allowed = row.batch_seq + u64::from(row.pending.is_some() || row.left_over.is_some());
            bounds.allowed = bounds.allowed.max(Some(allowed));
            bounds.ended |= row.ended;
            bounds.pending.extend(row.pending.clone());
            if let Some(last) = row.batch_seq.checked_sub(1) {
                let checkpoint = row.checkpoint.clone();
                bounds.committed.insert(last, Committed { head: row.chain_head, checkpoint, ended: row.ended });
            }
        }
        bounds
    }

    /// Whether a row that was read names this manifest as the shard's newest.
    pub(super) fn names(&self, head: Digest) -> bool {
        self.committed.values().any(|committed| committed.head == Some(head))
    }

    /// Whether there is a row at all.
    pub(super) fn known(&self) -> bool {
        self.allowed.is_some()
    }

    /// How many manifests must stand at least.
    pub(super) fn required(&self) -> u64 {
        self.required
    }

    /// Whether the shard's end is committed.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Whether no worker can have put anything of this batch.
    pub(super) fn forbids(&self, batch_seq: u64) -> bool {
        self.allowed.is_some_and(|allowed| batch_seq >= allowed)
    }

    /// Whether a worker may have been at this batch while we read.
    pub(super) fn in_flight(&self, batch_seq: u64) -> bool {
        self.known() && batch_seq >= self.required && !self.forbids(batch_seq)
    }

    /// The batches that a row names as its newest, with what it says of them.
    pub(super) fn committed(&self, batch_seq: u64) -> Option<&Committed> {
        self.committed.get(&batch_seq)
    }

    /// How the manifest differs from what was prepared for its batch.
    pub(super) fn contradiction(&self, manifest: &Manifest) -> Option<String> {
        let prepared = self.pending.iter().find(|pending| pending.batch_seq == manifest.batch_seq)?;
        let same = prepared.range == manifest.range
            && prepared.window == manifest.window
            && prepared.shard_end == manifest.shard_end;
        (!same).then(|| format!("covers {}, its lease row has prepared {}", manifest.range, prepared.range))
    }
}
