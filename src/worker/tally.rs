//! What has been done, counted.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::board::Board;
use crate::archive::manifest::Counts;
use crate::dedupe::Verdict;
use crate::record::RejectReason;

/// What one batch, or all of them, came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// The manifest's counts.
    #[serde(flatten)]
    pub counts: Counts,
    /// Of the archived: versions above all that were known of their `log_id`.
    pub newer_versions: u64,
    /// Of the archived: other versions below one that was known.
    pub older_versions: u64,
    /// The rejected, by reason.
    pub rejected_by_reason: BTreeMap<RejectReason, u64>,
    /// Batches committed.
    pub batches: u64,
    /// Objects put, manifests not counted.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Stretches that the source no longer had.
    pub gaps: u64,
}

impl Tally {
    /// Counts a record with this verdict.
    pub(super) fn count(&mut self, verdict: Verdict) {
        self.counts.records += 1;
        match verdict {
            Verdict::Duplicate => self.counts.duplicates += 1,
            Verdict::New => {}
            Verdict::NewerVersion => self.newer_versions += 1,
            Verdict::OlderVersion => self.older_versions += 1,
            Verdict::Conflict => self.counts.conflicts += 1,
        }
        self.counts.archived += u64::from(verdict.is_archived());
    }

    /// Counts a reject.
    pub(super) fn reject(&mut self, reason: RejectReason) {
        self.counts.records += 1;
        self.counts.rejected += 1;
        *self.rejected_by_reason.entry(reason).or_default() += 1;
    }
}

impl AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, other: &Tally) {
        let (mine, theirs) = (&mut self.counts, &other.counts);
        mine.payloads += theirs.payloads;
        mine.records += theirs.records;
        mine.archived += theirs.archived;
        mine.duplicates += theirs.duplicates;
        mine.conflicts += theirs.conflicts;
        mine.rejected += theirs.rejected;
        mine.empty += theirs.empty;
        self.newer_versions += other.newer_versions;
        self.older_versions += other.older_versions;
        for (reason, count) in &other.rejected_by_reason {
            *self.rejected_by_reason.entry(*reason).or_default() += count;
        }
        self.batches += other.batches;
        self.objects += other.objects;
        self.object_bytes += other.object_bytes;
        self.gaps += other.gaps;
    }
}

/// A worker's running totals, shared by its tasks.
#[derive(Debug, Default)]
pub struct Totals {
    /// Bytes read, as the source stores them.
    pub bytes_read: AtomicU64,
    /// Records read, those of batches that are not committed yet included.
    pub records_read: AtomicU64,
    /// Bytes that open batches hold in memory.
    pub memory: AtomicU64,
    /// Batches open.
    pub open_batches: AtomicU64,
    /// What is to be seen of the work while it is done.
    pub board: Board,
    committed: Mutex<Tally>,
}

impl Totals {
    /// All that this worker has committed.
    pub fn committed(&self) -> Tally {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn add(&self, batch: &Tally) {
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner) += batch;
    }

    /// Whether a batch that holds `bytes` must be cut to keep the process within `budget`: the budget is used up, and
    /// this batch holds no less than its fair share of it.
    pub(super) fn over_budget(&self, bytes: u64, budget: u64) -> bool {
        let open = self.open_batches.load(Ordering::Relaxed).max(1);
        self.memory.load(Ordering::Relaxed) >= budget && bytes >= budget / open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_archived_duplicates_and_rejects() {
        let mut tally = Tally::default();
        for verdict in [Verdict::New, Verdict::Duplicate, Verdict::Conflict, Verdict::NewerVersion] {
            tally.count(verdict);
        }
        tally.reject(RejectReason::NotUtf8);
        let mut sum = Tally::default();
        sum += &tally;
        sum += &tally;
        let counts = sum.counts;
        assert_eq!(counts.records, counts.archived + counts.duplicates + counts.rejected);
        assert_eq!((counts.records, counts.archived, counts.conflicts, sum.newer_versions), (10, 6, 2, 2));
        assert_eq!(sum.rejected_by_reason[&RejectReason::NotUtf8], 2);
    }

    #[test]
    fn the_batch_that_holds_its_fair_share_is_cut_when_memory_is_used_up() {
        let totals = Totals::default();
        totals.open_batches.store(4, Ordering::Relaxed);
        totals.memory.store(99, Ordering::Relaxed);
        assert!(!totals.over_budget(99, 100));
        totals.memory.store(100, Ordering::Relaxed);
        assert!(totals.over_budget(25, 100));
        assert!(!totals.over_budget(24, 100));
    }
}
