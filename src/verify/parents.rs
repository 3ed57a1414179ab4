//! What children say of their parents: that they ended before, and with which manifest. Pure.

use std::collections::BTreeMap;

use super::judge::Chain;
use super::report::Kind;
use crate::digest::Digest;
use crate::encode::keys;
use crate::source::ShardId;

/// Judges each chain by what its children's first manifests say of it.
pub(super) fn judge_parents(chains: &mut BTreeMap<String, Chain>) {
    let named: Vec<(String, ShardId, Digest)> = chains
        .values()
        .flat_map(|chain| chain.parent_heads.iter().map(|(parent, head)| (chain.folder.clone(), parent.clone(), *head)))
        .collect();
    for (child, parent, head) in named {
        if let Some(chain) = chains.get_mut(&keys::encode_shard(&parent)) {
            judge_head(chain, &child, head);
        } else if let Some(chain) = chains.get_mut(&child) {
            let detail = format!("{child} names the newest manifest of {parent}, of which none stands");
            chain.report(Kind::TruncatedTail, 0, keys::manifest_key(&parent, 0), detail);
        }
    }
    // Last: of a chain whose end is missing, nothing is concluded.
    judge_order(chains);
}

/// Whether parents ended before their children were read. Both parents of a merge count; one that the archive does not
/// know was gone before it was begun, and one that the source lost says so itself.
fn judge_order(chains: &mut BTreeMap<String, Chain>) {
    let mut early = Vec::new();
    for chain in chains.values() {
        let parents = chain.parents.iter().filter_map(|parent| chains.get(&keys::encode_shard(parent)));
        let mut unfinished = parents
            .filter(|parent| parent.tail_is_sound() && !parent.ended && !parent.bounds.ended() && !parent.is_lost());
        if let (Some(first), Some(parent)) = (chain.batches.first(), unfinished.next()) {
            let detail = format!("its parent {} has not ended: what is left of it is in no batch", parent.shard);
            early.push((chain.folder.clone(), first.batch_seq, detail));
        }
    }
    for (folder, batch_seq, detail) in early {
        if let Some(chain) = chains.get_mut(&folder) {
            chain.report_manifest(Kind::RangeGap, batch_seq, detail);
        }
    }
}

/// Whether the chain's newest manifest is the one that a child names. A lease row that was read later may know of one
/// that was put since the listing.
fn judge_head(chain: &mut Chain, child: &str, named: Digest) {
    if chain.head == Some(named) || chain.bounds.names(named) {
        chain.vouched = true;
        return;
    }
    if !chain.tail_is_sound() {
        // It is told already.
        return;
    }
    let newest = chain.next.saturating_sub(1);
    if chain.ended {
        let detail = format!("its SHA-256 is not {named}, which {child} names as the newest of its parent");
        chain.report_manifest(Kind::BrokenChain, newest, detail);
    } else {
        let detail = format!("manifest {} is missing: {child} names {named} as the newest of its parent", chain.next);
        chain.report_manifest(Kind::TruncatedTail, chain.next, detail);
    }
}

impl Chain {
    /// Whether the last that is known of the shard is that the source no longer had it.
    fn is_lost(&self) -> bool {
        let last = self.batches.last().filter(|batch| batch.range.after == batch.range.through);
        last.is_some_and(|last| self.gaps.iter().any(|gap| gap.batch_seq == last.batch_seq))
    }
}
