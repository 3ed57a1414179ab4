//! The invariants that are held to at every step. Whoever breaks one is written down, and the run is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use auditlake::archive::chain;
use auditlake::archive::manifest::Manifest;
use auditlake::digest::Digest;
use auditlake::encode::keys;
use auditlake::lease::{LeaseRow, WorkerId};
use auditlake::source::{Checkpoint, ShardId};

use super::ledger::{Kept, Ledger, Put};

/// An object of somebody else's.
pub(crate) const INTRUDER: &str = "{\"log_id\":\"intruder\"}\n";

#[derive(Default)]
pub(crate) struct Judge {
    pub(crate) violations: Vec<String>,
    /// The manifests, by their shards.
    pub(crate) chains: BTreeMap<ShardId, Chain>,
    /// The shards whose end is committed.
    pub(crate) ended: BTreeSet<ShardId>,
    /// When the owner of each lease last wrote its row.
    renewed: BTreeMap<ShardId, Duration>,
    objects: BTreeMap<String, Digest>,
}

/// What a shard's manifests say.
pub(crate) struct Chain {
    /// How many there are.
    pub(crate) next: u64,
    pub(crate) through: Checkpoint,
    head: Digest,
    ended: bool,
    /// The ranges in front of which something is missing.
    pub(crate) gaps: Vec<Lack>,
}

/// A gap, and the batch behind it.
pub(crate) struct Lack {
    after: Checkpoint,
    through: Checkpoint,
    /// The batch holds nothing but the gap.
    is_bare: bool,
}

impl Lack {
    /// Whether what stood at `at` is said to be missing, or may be.
    pub(crate) fn covers(&self, at: &auditlake::source::Position) -> bool {
        Some(at) > self.after.position() && (self.is_bare || Some(at) <= self.through.position())
    }
}

impl Judge {
    /// Something is as it must never be.
    pub(crate) fn violated(&mut self, what: String) {
        self.violations.push(what);
    }

    fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violated(what());
        }
    }

    /// Whether an object stands under the key.
    pub(crate) fn stands(&self, key: &str) -> bool {
        self.objects.contains_key(key)
    }

    /// Whether what stands under the key is what somebody else put there.
    pub(crate) fn is_intruder(&self, key: &str) -> bool {
        self.objects.get(key) == Some(&Digest::of(INTRUDER.as_bytes()))
    }

    /// The operator took an object away that was nobody's.
    pub(crate) fn taken_away(&mut self, key: &str) {
        self.objects.remove(key);
    }

    /// How far the shard is archived, as its manifests tell.
    pub(crate) fn through(&self, shard: &ShardId) -> Option<&Checkpoint> {
        self.chains.get(shard).map(|chain| &chain.through)
    }

    /// An object was put where none stood.
    pub(crate) fn object_put(&mut self, key: &str, body: &[u8], ledger: &Ledger) {
        let before = self.objects.insert(key.to_owned(), Digest::of(body));
        self.require(before.is_none(), || format!("invariant 5: {key} was overwritten"));
        if key.starts_with(keys::MANIFESTS_PREFIX) {
            match serde_json::from_slice(body) {
                Ok(manifest) => self.manifest_put(key, &manifest, Digest::of(body), ledger),
                Err(error) => self.violated(format!("invariant 7: {key} is no manifest: {error}")),
            }
        }
    }

    fn manifest_put(&mut self, key: &str, manifest: &Manifest, digest: Digest, ledger: &Ledger) {
        let shard = &manifest.shard;
        let goes_on = match self.chains.get(shard) {
            Some(chain) => {
                let is_next = chain.next == manifest.batch_seq && manifest.previous == Some(chain.head) && !chain.ended;
                is_next && chain::follows(&chain.through, &manifest.range.after).is_ok()
            }
            None => manifest.batch_seq == 0 && manifest.range.after.position().is_none(),
        };
        self.require(goes_on, || format!("invariant 7: {key} does not go on from the one before it"));
        self.require(chain::runs_forward(&manifest.range), || format!("invariant 7: {key} runs backwards"));
        for object in &manifest.objects {
            let stands = self.objects.get(&object.key) == Some(&object.sha256);
            self.require(stands, || {
                format!("invariant 2: {key} names {}, which does not stand as it says", object.key)
            });
        }
        self.count(key, manifest, ledger);
        let chain = self.chains.entry(shard.clone()).or_insert_with(|| Chain {
            next: 0,
            through: Checkpoint::TrimHorizon,
            head: digest,
            ended: false,
            gaps: Vec::new(),
        });
        chain.next = manifest.batch_seq + 1;
        chain.through = manifest.range.through.clone();
        chain.head = digest;
        chain.ended |= manifest.shard_end;
        if let Some(gap) = &manifest.gap {
            let (after, through) = (gap.after.clone(), manifest.range.through.clone());
            chain.gaps.push(Lack { after, through, is_bare: manifest.range.after == manifest.range.through });
        }
    }

    /// Invariant 1: what a batch covers it has read, but for what the stream had no more, of which it tells.
    fn count(&mut self, key: &str, manifest: &Manifest, ledger: &Ledger) {
        let (after, through) = (manifest.range.after.position(), manifest.range.through.position());
        let within = |put: &&Put| Some(&put.position) > after && Some(&put.position) <= through;
        let puts: Vec<_> = ledger.shards[&manifest.shard].payloads.iter().filter(within).collect();
        // Where nothing stood behind a gap, a batch of its own has told of it.
        let chain = self.chains.get(&manifest.shard);
        let is_told = |put: &Put| {
            let before = chain.is_some_and(|chain| chain.gaps.iter().any(|gap| gap.covers(&put.position)));
            before || manifest.gap.is_some() || put.kept == Kept::Lost { can_be_told: false }
        };
        let is_lost = |put: &&&Put| put.is_trimmed() && is_told(put);
        let lost = puts.iter().filter(is_lost).count() as u64;
        let (all, counts) = (puts.len() as u64, manifest.counts);
        self.require(counts.payloads <= all && counts.payloads + lost >= all, || {
            format!("invariant 1: {key} covers {all} payloads and has read {}", counts.payloads)
        });
        if lost == 0 {
            let records: usize = puts.iter().map(|put| put.events.len().max(1)).sum();
            self.require(counts.records == records as u64, || {
                format!("invariant 1: {key} covers {records} records and has read {}", counts.records)
            });
        }
        let sums = counts.records == counts.archived + counts.duplicates + counts.rejected;
        self.require(sums, || format!("invariant 7: the counts of {key} don't add up"));
    }

    /// A reader was opened on a shard that came from `parents`.
    pub(crate) fn opened(&mut self, shard: &ShardId, parents: &[ShardId]) {
        for parent in parents {
            let has_ended = self.ended.contains(parent);
            self.require(has_ended, || format!("invariant 4: {shard} is read before the end of {parent} is committed"));
        }
    }

    pub(crate) fn row_created(&mut self, row: &LeaseRow) {
        let shard = &row.shard;
        let fits = match self.chains.get(shard) {
            // Whoever had the row that was lost may have gone on meanwhile; who takes this one looks again.
            Some(chain) => is_at(row, chain) || ((row.is_untouched() || row.is_new()) && row.batch_seq < chain.next),
            None => row.batch_seq == 0 && row.checkpoint.position().is_none(),
        };
        self.require(fits, || format!("invariant 2: the new row of {shard} is not where its manifests end: {row:?}"));
        self.renewed.remove(shard);
        self.note_end(row);
    }

    /// A row was written over another by `writer`.
    pub(crate) fn row_replaced(&mut self, writer: &WorkerId, before: &LeaseRow, after: &LeaseRow, now: Duration) {
        let shard = &after.shard;
        let same = |what: &LeaseRow| {
            // What only the holder of the lease may change.
            let row = what.clone();
            (row.checkpoint, row.ended, row.batch_seq, row.chain_head, row.pending, row.left_over, row.children)
        };
        let is_owner = before.owner.as_ref() == Some(writer);
        let takes = !is_owner && after.owner.as_ref() == Some(writer);
        if takes {
            // Of a row that was made anew, the archive may have come to say more since: where it ends is looked at below.
            let catches_up = before.is_untouched() && after.pending.is_none();
            let kept = same(before) == same(after) || catches_up;
            self.require(kept, || {
                format!("invariant 3: {writer} took {shard} and changed it: {before:?} -> {after:?}")
            });
            let lasts = before.failover.unwrap_or_default();
            let idle = self.renewed.get(shard).map_or(Duration::MAX, |at| now.saturating_sub(*at));
            let is_free = before.owner.is_none() || idle >= lasts;
            self.require(is_free, || {
                format!("invariant 3: {writer} took {shard} from {:?}, who wrote its row {idle:?} ago", before.owner)
            });
        } else if !is_owner {
            let asked = LeaseRow { counter: after.counter, wanted_by: after.wanted_by.clone(), ..before.clone() };
            self.require(asked == *after, || {
                format!(
                    "invariant 3: {writer} has not the lease of {shard} and changed its row: {before:?} -> {after:?}"
                )
            });
        }
        if is_owner || takes {
            self.renewed.insert(shard.clone(), now);
        }
        let place = |row: &LeaseRow| (row.checkpoint.clone(), row.batch_seq, row.chain_head, row.ended);
        if place(before) != place(after) {
            let stands = self.chains.get(shard).is_some_and(|chain| is_at(after, chain));
            self.require(stands, || format!("invariant 2: the row of {shard} is ahead of the archive: {after:?}"));
            let forward = before.checkpoint.compare(&after.checkpoint).is_le();
            self.require(forward, || {
                format!("invariant 2: the checkpoint of {shard} went back: {before:?} -> {after:?}")
            });
        }
        self.note_end(after);
    }

    fn note_end(&mut self, row: &LeaseRow) {
        if row.ended {
            self.ended.insert(row.shard.clone());
        }
    }
}

fn is_at(row: &LeaseRow, chain: &Chain) -> bool {
    row.batch_seq == chain.next
        && row.checkpoint == chain.through
        && row.chain_head == Some(chain.head)
        && row.ended == chain.ended
}
