//! Which shards a worker may start. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::lease::LeaseRow;
use crate::source::{Shard, ShardId};

/// The shards of which there is a lease row that this worker may take now, in the source's order.
///
/// A shard is read only after all of its parents have ended, so that no record is archived before those that came
/// before it; a parent without a row is one that the source no longer has. With a `sole_worker`, an owner in a row that
/// is not running here is a dead one; otherwise it may be alive, and its lease is left alone.
pub(super) fn startable<'s>(
    shards: impl Iterator<Item = &'s Shard>,
    rows: &BTreeMap<ShardId, LeaseRow>,
    running: &BTreeSet<ShardId>,
    sole_worker: bool,
) -> impl Iterator<Item = &'s Shard> {
    let parent_done = |parent: &ShardId| rows.get(parent).is_none_or(|row| row.ended);
    let may_start = move |shard: &&Shard| {
        rows.get(&shard.id).is_some_and(|row| {
            let free = row.owner.is_none() || sole_worker;
            let work_left = !row.ended || row.pending.is_some();
            free && work_left && !running.contains(&shard.id) && row.parents.iter().all(parent_done)
        })
    };
    shards.filter(may_start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::WorkerId;
    use crate::source::{SequenceNumber, Target};

    fn shard(name: &str, parents: &[&str]) -> Shard {
        let parents = parents.iter().map(ShardId::new).collect();
        Shard::new(ShardId::new(name), parents, Target::Before { sequence: SequenceNumber::from(0), bytes: None })
    }

    fn rows(shards: &[Shard], change: impl Fn(&mut LeaseRow)) -> BTreeMap<ShardId, LeaseRow> {
        let row = |shard: &Shard| {
            let mut row = LeaseRow::new(shard.id.clone(), shard.parents.clone());
            change(&mut row);
            (shard.id.clone(), row)
        };
        shards.iter().map(row).collect()
    }

    fn started(shards: &[Shard], rows: &BTreeMap<ShardId, LeaseRow>, running: &[&str], sole_worker: bool) -> String {
        let running = running.iter().map(ShardId::new).collect();
        let started = startable(shards.iter(), rows, &running, sole_worker).map(|shard| shard.id.as_str());
        started.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn no_child_starts_before_both_parents_of_a_merge_have_ended() {
        let shards = [shard("a", &[]), shard("b", &[]), shard("c", &["a", "b"])];
        let after = |ended: &[&str]| {
            let rows = rows(&shards, |row| row.ended = ended.contains(&row.shard.as_str()));
            started(&shards, &rows, &[], true)
        };
        assert_eq!(after(&[]), "a b");
        assert_eq!(after(&["a"]), "b");
        assert_eq!(after(&["a", "b"]), "c");
    }

    #[test]
    fn a_parent_that_the_source_no_longer_has_holds_nothing_up() {
        let shards = [shard("c", &["gone"])];
        assert_eq!(started(&shards, &rows(&shards, |_| {}), &[], true), "c");
    }

    #[test]
    fn what_runs_or_has_ended_is_not_started() {
        let shards = [shard("a", &[]), shard("b", &[])];
        let rows = rows(&shards, |row| row.ended = row.shard.as_str() == "b");
        assert_eq!(started(&shards, &rows, &["a"], true), "");
    }

    #[test]
    fn an_owner_is_dead_only_where_there_can_be_no_other_worker() {
        let shards = [shard("a", &[])];
        let rows = rows(&shards, |row| row.owner = Some(WorkerId::new("other")));
        assert_eq!(started(&shards, &rows, &[], false), "");
        assert_eq!(started(&shards, &rows, &[], true), "a");
    }
}
