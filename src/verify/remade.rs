//! Lease rows that were made anew from the archive, and what bears witness in their stead. Pure.
//!
//! Such a row can't tell that nothing had been taken away by then. Two things together can: a proof from before, whose
//! chain heads somebody kept and found again; and that the shard was read on since. What came after that proof and was
//! taken away is then archived again from where the chain ended, or is a gap with its time.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::judge::{Chain, Loaded};
use super::kept::Kept;
use super::report::Finding;
use crate::lease::{Compared, LeaseRow};
use crate::ops::words::counted;
use crate::source::ShardId;

/// What is known of a row that was made anew.
#[derive(Clone, Debug)]
pub(super) struct Remade {
    /// The shard's next batch, then.
    at: u64,
    /// What the archive was compared with: now, or before the row was made.
    compared: Option<Compared>,
    /// Whether the shard was read since, or has nothing more to be read.
    read_on: bool,
}

impl Remade {
    /// Of a row that was made anew; `loaded` are the shard's manifests.
    pub(super) fn of(row: &LeaseRow, loaded: &[Loaded], against: Option<&Kept>) -> Option<Self> {
        let at = row.remade_at?;
        let newest = loaded.iter().find(|manifest| manifest.number + 1 == row.batch_seq);
        let archived = newest.and_then(|newest| newest.parsed.as_ref().ok()).map(|manifest| manifest.read_through);
        // A renewal writes until when an idle shard was seen to have no more than what is archived.
        let was_idle = row.read_through > archived;
        let compared = against.map(|kept| kept.compared(&row.shard)).into_iter().chain(row.compared.clone());
        Some(Self {
            at,
            compared: compared.max_by_key(|compared| compared.began),
            read_on: row.batch_seq > at || row.ended || row.caught_up || was_idle,
        })
    }

    /// Whether the row's word for the chain's end counts like that of one that was never lost.
    pub(super) fn is_proved(&self) -> bool {
        self.compared.as_ref().is_some_and(|compared| self.read_on || compared.batches == self.at)
    }
}

/// What the reader should know of rows that were made anew. Of a chain with any of the `findings` nothing good is said: they
/// tell how it is.
pub(super) fn notes(chains: &BTreeMap<String, Chain>, findings: &[Finding]) -> Vec<String> {
    let damaged: BTreeSet<&ShardId> = findings.iter().filter_map(|finding| finding.shard.as_ref()).collect();
    let mut notes = Vec::new();
    let mut proved: BTreeMap<Timestamp, u64> = BTreeMap::new();
    for chain in chains.values().filter(|chain| !chain.vouched) {
        let Some(remade) = &chain.remade else { continue };
        let made = format!("the lease row of {} was made anew from the archive at batch {}", chain.shard, remade.at);
        match &remade.compared {
            Some(_) if remade.is_proved() && damaged.contains(&chain.shard) => {}
            Some(compared) if remade.is_proved() => *proved.entry(compared.began).or_default() += 1,
            Some(compared) => notes.push(format!(
                "{made}: that none of the manifests that came after the report of {} had been taken away by then is not \
                 proved before the shard is read on",
                compared.began
            )),
            None => notes.push(format!(
                "{made}: that no manifest had been taken away by then is not proved, unless it is compared with a report \
                 from before (--against)"
            )),
        }
    }
    notes.sort();
    notes.extend(proved.into_iter().map(|(began, rows)| {
        let rows = counted(rows, "lease row");
        format!(
            "{rows} made anew from the archive: all that the report of {began} found is there, and what came after it was \
             read on from there"
        )
    }));
    notes
}
