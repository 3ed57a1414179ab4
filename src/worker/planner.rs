//! Which shards a worker takes, and whose it asks for. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::lease::{LeaseRow, WorkerId};
use crate::ops::planted::{Bug, planted};
use crate::source::{Shard, ShardId};

/// What a worker knows when it plans.
pub(super) struct View<'a> {
    /// Who plans.
    pub(super) me: &'a WorkerId,
    /// No other worker can be alive.
    pub(super) sole_worker: bool,
    /// What the source lists, parents before their children.
    pub(super) listed: &'a [Shard],
    /// The lease rows, as last seen.
    pub(super) rows: &'a BTreeMap<ShardId, LeaseRow>,
    /// Which of them have not moved for so long that their owners count as dead.
    pub(super) expired: BTreeSet<&'a ShardId>,
    /// What this worker reads.
    pub(super) busy: &'a BTreeSet<ShardId>,
    /// What stopped here with an error and rests.
    pub(super) resting: &'a BTreeSet<ShardId>,
}

/// What a worker does next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Takes the leases of these.
    pub(super) take: Vec<ShardId>,
    /// Another worker has more than its share; this one of its leases would make it even.
    pub(super) ask_for: Option<ShardId>,
    /// Removes the rows of these: their children have moved on.
    pub(super) forget: Vec<ShardId>,
}

impl View<'_> {
    /// The shards whose leases may be taken now, in the source's order.
    ///
    /// A shard is read only after all of its parents have ended, so that no record is archived before those that came
    /// before it. With a sole worker, an owner in a row that is not read here is a dead one.
    pub(super) fn startable(&self) -> Vec<&ShardId> {
        let listed: BTreeSet<&ShardId> = self.listed.iter().map(|shard| &shard.id).collect();
        let startable = self.listed.iter().map(|shard| &shard.id).filter(|shard| {
            let may_start = |row: &LeaseRow| work_left(row) && self.is_free(row) && self.parents_done(row, &listed);
            !self.busy.contains(*shard)
                && !self.resting.contains(*shard)
                && self.rows.get(*shard).is_some_and(may_start)
        });
        startable.collect()
    }

    /// The shards whose leases others hold, or are about to.
    pub(super) fn held_by_others(&self) -> Vec<&ShardId> {
        let listed = self.listed.iter().map(|shard| &shard.id).filter(|shard| !self.busy.contains(*shard));
        listed.filter(|shard| self.rows.get(*shard).is_some_and(|row| work_left(row) && !self.is_free(row))).collect()
    }

    /// Whether nobody alive holds the lease, nor has it been given up for another who asked for it. A row that was made
    /// anew is left alone for as long as a lease lasts: whoever had the one that was lost finds that out by then.
    fn is_free(&self, row: &LeaseRow) -> bool {
        let mine = |worker: &WorkerId| worker == self.me;
        let theirs = row.owner.as_ref().or(row.wanted_by.as_ref());
        let is_free = theirs.is_none_or(mine) && !row.is_untouched();
        self.sole_worker || is_free || self.expired.contains(&row.shard)
    }

    /// A parent without a row is one that the source no longer has, or whose row was removed because this child has moved
    /// on; one that the source no longer has is done once its loss is written down.
    fn parents_done(&self, row: &LeaseRow, listed: &BTreeSet<&ShardId>) -> bool {
        row.parents.iter().all(|parent| match self.rows.get(parent) {
            _ if planted(Bug::ChildBeforeParents) => true,
            Some(row) if listed.contains(parent) => !work_left(row),
            Some(row) => !work_left(row) || (row.caught_up && row.pending.is_none()),
            None => !listed.contains(parent) || row.batch_seq > 0,
        })
    }

    /// How many shards there are to read whose lease nobody alive holds, those not counted that wait for their parents, or
    /// that somebody has stopped at and will try again.
    pub(super) fn unowned(&self) -> usize {
        let listed: BTreeSet<&ShardId> = self.listed.iter().map(|shard| &shard.id).collect();
        let rows = self
            .listed
            .iter()
            .filter(|shard| !self.busy.contains(&shard.id))
            .filter_map(|shard| self.rows.get(&shard.id));
        let pauses =
            |row: &LeaseRow| self.resting.contains(&row.shard) || (row.owner.is_none() && row.stopped.is_some());
        let is_unowned =
            |row: &&LeaseRow| work_left(row) && self.is_free(row) && self.parents_done(row, &listed) && !pauses(row);
        rows.filter(is_unowned).count()
    }

    /// What to do so that every worker ends up within one lease of every other. `patient` as long as an imbalance may
    /// still pass by itself.
    pub(super) fn plan(&self, patient: bool) -> Plan {
        let held = self.held();
        let (reserved, open): (Vec<_>, Vec<_>) =
            self.startable().into_iter().partition(|shard| self.rows[*shard].wanted_by.as_ref() == Some(self.me));
        let total = held.values().map(Vec::len).sum::<usize>() + reserved.len() + open.len();
        let share = total.div_ceil(held.len());
        let room = share.saturating_sub(held[self.me].len() + reserved.len()).min(open.len());
        // Each worker begins elsewhere, so that those that start together don't run for the same leases.
        let first = if open.is_empty() { 0 } else { self.number() % open.len() };
        let open = open.iter().cycle().skip(first).take(room).copied();
        let take: Vec<ShardId> = reserved.into_iter().chain(open).cloned().collect();
        let ask_for = if take.is_empty() && !patient { self.surplus(&held) } else { None };
        Plan { take, ask_for, forget: self.finished() }
    }

    /// Whether another worker has so many leases more than this one that one of them should change hands.
    pub(super) fn is_uneven(&self) -> bool {
        self.surplus(&self.held()).is_some()
    }

    /// The leases that are held, by who holds them or is about to: a lease that was asked for counts as the asker's.
    /// This worker is always there, and so is one that has no lease yet and asks for its first. What this worker reads was
    /// taken by it: a row that says otherwise was seen before that.
    fn held(&self) -> BTreeMap<&WorkerId, Vec<&LeaseRow>> {
        let mut held = BTreeMap::from([(self.me, Vec::new())]);
        let is_held = |row: &&LeaseRow| self.busy.contains(&row.shard) || (work_left(row) && !self.is_free(row));
        for row in self.rows.values().filter(is_held) {
            let is_old = self.busy.contains(&row.shard) && row.owner.as_ref() != Some(self.me);
            let holder = row.wanted_by.as_ref().or(row.owner.as_ref()).filter(|_| !is_old).unwrap_or(self.me);
            held.entry(holder).or_default().push(row);
        }
        held
    }

    /// A lease of the worker that has most of them, if it has two more than this one: the one that moved last, so that
    /// what a restart has scattered comes back, and the rest stays where it is. None while one is on its way already, and
    /// none of a shard that rests here: nobody would read it.
    fn surplus(&self, held: &BTreeMap<&WorkerId, Vec<&LeaseRow>>) -> Option<ShardId> {
        let mine = &held[self.me];
        if mine.iter().any(|row| !self.busy.contains(&row.shard)) {
            return None;
        }
        let most = held.values().max_by_key(|rows| rows.len())?;
        if most.len() < mine.len() + 2 {
            return None;
        }
        let settled = most.iter().filter(|row| row.wanted_by.is_none() && !self.resting.contains(&row.shard));
        settled.max_by_key(|row| (row.taken_at, &row.shard)).map(|row| row.shard.clone())
    }

    /// Rows that nobody needs any more: the shard has ended, and all of its children have committed something, which
    /// proves its end as well. Its owner is about to give it up, or died before it could.
    fn finished(&self) -> Vec<ShardId> {
        if self.sole_worker {
            return Vec::new();
        }
        // By the rows and by the list: a row that only one of them has done with would be made anew at once. All children
        // of a shard come at once; a list without one that has a row is from before they were there.
        let families = [Family::vouched(self.listed, self.rows), Family::of(self.listed, self.rows)];
        let listed: BTreeSet<&ShardId> = self.listed.iter().map(|shard| &shard.id).collect();
        let unlisted = self.rows.values().filter(|row| !listed.contains(&row.shard));
        let split_since: BTreeSet<&ShardId> = unlisted.flat_map(|row| &row.parents).collect();
        let has_left = |shard: &ShardId| {
            let is_old = listed.contains(shard) && split_since.contains(shard);
            !is_old && families.iter().all(|family| family.has_left(shard))
        };
        // That a shard ended which another program read stands nowhere but in its row.
        let is_needed = |row: &LeaseRow| row.batch_seq == 0 && listed.contains(&row.shard);
        let is_left = |row: &LeaseRow| row.owner.is_none() || self.expired.contains(&row.shard);
        let done = |row: &&LeaseRow| !work_left(row) && is_left(row) && !is_needed(row) && has_left(&row.shard);
        self.rows.values().filter(done).map(|row| row.shard.clone()).collect()
    }

    /// A number of this worker's own.
    fn number(&self) -> usize {
        let mut hasher = SipHasher13::new();
        hasher.write(self.me.as_str().as_bytes());
        hasher.finish() as usize
    }
}

/// Which shards came from which.
pub(crate) struct Family<'a> {
    rows: &'a BTreeMap<ShardId, LeaseRow>,
    children: BTreeMap<&'a ShardId, BTreeSet<&'a ShardId>>,
}

impl<'a> Family<'a> {
    /// As the source and the rows tell.
    pub(crate) fn of(listed: &'a [Shard], rows: &'a BTreeMap<ShardId, LeaseRow>) -> Self {
        Self::linked(listed.iter(), rows)
    }

    /// As the rows tell, where there are any: what a shard's row names as its parents, its first manifest vouches for.
    fn vouched(listed: &'a [Shard], rows: &'a BTreeMap<ShardId, LeaseRow>) -> Self {
        Self::linked(listed.iter().filter(|shard| !rows.contains_key(&shard.id)), rows)
    }

    fn linked(listed: impl Iterator<Item = &'a Shard>, rows: &'a BTreeMap<ShardId, LeaseRow>) -> Self {
        let mut children: BTreeMap<&ShardId, BTreeSet<&ShardId>> = BTreeMap::new();
        let listed = listed.map(|shard| (&shard.id, &shard.parents));
        for (child, parents) in listed.chain(rows.values().map(|row| (&row.shard, &row.parents))) {
            for parent in parents {
                children.entry(parent).or_default().insert(child);
            }
        }
        Self { rows, children }
    }

    /// Whether all of the shard's children have moved on from it: have committed a batch, or have left in their turn.
    pub(crate) fn has_left(&self, shard: &ShardId) -> bool {
        let moved_on = |child: &&ShardId| match self.rows.get(*child) {
            // One that ended has left its parents, though another program may have read it.
            Some(row) => row.batch_seq > 0 || row.ended,
            None => self.has_left(child),
        };
        self.children.get(shard).is_some_and(|children| children.iter().all(moved_on))
    }
}

fn work_left(row: &LeaseRow) -> bool {
    !row.ended || row.pending.is_some()
}

/// How long each row has stood still, by this worker's own monotonic clock: no two clocks are ever compared.
#[derive(Debug)]
pub(super) struct Watch {
    failover: Duration,
    /// The counter of each row, and since when it has been that.
    seen: BTreeMap<ShardId, (u64, Duration)>,
    looked_at: Option<Duration>,
}

impl Watch {
    pub(super) fn new(failover: Duration) -> Self {
        Self { failover, seen: BTreeMap::new(), looked_at: None }
    }

    /// Takes note of all rows. Who could not look for long knows nothing of the time between: then everybody gets a whole
    /// `failover` to show that they are alive.
    pub(super) fn look<'r>(&mut self, rows: impl Iterator<Item = &'r LeaseRow>, now: Duration) {
        let blind = self.looked_at.is_none_or(|before| now.saturating_sub(before) >= self.failover * 2);
        self.looked_at = Some(now);
        let before = std::mem::take(&mut self.seen);
        self.seen = rows
            .map(|row| {
                let unmoved = before.get(&row.shard).filter(|(counter, _)| *counter == row.counter && !blind);
                (row.shard.clone(), unmoved.copied().unwrap_or((row.counter, now)))
            })
            .collect();
    }

    /// The rows could not be looked at: whoever does not write to them need not be dead.
    pub(super) fn look_away(&mut self) {
        self.looked_at = None;
    }

    /// Takes note of one row.
    pub(super) fn look_at(&mut self, row: &LeaseRow, now: Duration) {
        let seen = self.seen.entry(row.shard.clone()).or_insert((row.counter, now));
        if seen.0 != row.counter {
            *seen = (row.counter, now);
        }
    }

    /// Whether the row had not moved for as long as its lease lasts when it was last looked at: by this worker's
    /// configuration or its owner's, whichever is longer.
    pub(super) fn is_expired(&self, row: &LeaseRow, now: Duration) -> bool {
        let unmoved = |(counter, since): &(u64, Duration)| {
            let unmoved_for = self.looked_at.map_or(Duration::ZERO, |look| look.min(now).saturating_sub(*since));
            *counter == row.counter && unmoved_for >= self.failover.max(row.failover.unwrap_or_default())
        };
        self.seen.get(&row.shard).is_some_and(unmoved)
    }
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
