//! How a run ends: everything is healed, the workers get their time, and what stands is judged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use auditlake::encode::keys::{EVENTS_PREFIX, REJECTED_PREFIX};
use auditlake::encode::read::{Projection, read_rejects, read_rows};
use auditlake::lease::{LeaseRow, LeaseStore, WorkerId};
use auditlake::source::{Position, ShardId};
use auditlake::verify::{ObjectRows, Options, verify};

use super::faulty::all_objects;
use super::ledger::{Event, Kept};
use super::operation::Moment;
use super::random::below;
use super::seat::Strike;
use super::world::{CATCH_UP, WORKERS, World};

/// Within this time after everything is healed, all that is in the stream must be in the archive: a shard that stopped
/// with an error rests for five minutes at most, a window lasts five, and the leases of the dead run out.
const LAG_IS_GONE_WITHIN: Duration = Duration::from_mins(15);
/// Within this time after that the leases are shared out evenly.
const REST_WITHIN: Duration = Duration::from_mins(8);
/// A `catch-up` that nothing is in the way of ends within this time, a failover and a wait for every generation of shards.
const CATCH_UP_ENDS_WITHIN: Duration = Duration::from_mins(5);

impl World {
    /// Heals everything, and judges what comes of it.
    pub(crate) async fn end(&mut self) {
        self.log.add(|| "== the end: everything is healed".to_owned());
        self.heal();
        self.shared.state().faults.noise = false;
        match below(3) {
            // The daemons get there by themselves.
            0 | 1 => {
                self.start(below(WORKERS as u64) as usize);
                self.wait_until("invariant 8: there is still a lag", LAG_IS_GONE_WITHIN, Self::has_no_lag).await;
                self.wait_until("the leases are not at rest", REST_WITHIN, Self::is_at_rest).await;
            }
            // All are dead, and somebody catches up.
            _ => {
                for number in 0..WORKERS {
                    self.strike(number, Strike::Crash, Moment::Now, Duration::from_hours(1));
                }
            }
        }
        self.advance(Duration::from_secs(1)).await;
        for number in 0..=CATCH_UP {
            self.stop(number);
        }
        let nobody = |world: &Self| (0..=CATCH_UP).all(|number| !world.is_running(number));
        self.wait_until("somebody does not stop", Duration::from_mins(2), nobody).await;
        if self.spooled.is_some() {
            // A segment that a dead worker has sent is a new spool once it arrives: one that nobody could have caught up with.
            let has_arrived = |world: &Self| world.shared.state().in_flight == 0;
            self.wait_until("something stays on its way", Duration::from_mins(1), has_arrived).await;
        }
        let mut before = usize::MAX;
        for _ in 0..2 {
            before = all_objects(&self.archive, "").len();
            self.start(CATCH_UP);
            let is_done = |world: &Self| !world.is_running(CATCH_UP);
            self.wait_until("invariant 9: catch-up does not end", CATCH_UP_ENDS_WITHIN, is_done).await;
        }
        if !self.is_over() && all_objects(&self.archive, "").len() != before {
            self.violated("invariant 6: a second catch-up archives something".to_owned());
        }
        if !self.is_over() && !self.has_no_lag() {
            self.violated("invariant 9: catch-up ended and something is left".to_owned());
        }
        if !self.is_over() {
            self.judge_rows();
            self.judge_losses();
            self.judge_spools();
            self.prove().await;
        }
    }

    async fn wait_until(&mut self, what: &str, at_most: Duration, is_so: impl Fn(&Self) -> bool) {
        let until = self.now() + at_most;
        while !self.is_over() && !is_so(self) {
            if self.now() >= until {
                let rows: Vec<_> = self.rows().into_values().collect();
                let waiting = self.unacknowledged();
                return self.violated(format!("{what}; not acknowledged: {waiting:?}; the lease rows: {rows:#?}"));
            }
            self.advance(Duration::from_secs(1)).await;
        }
    }

    /// Whether all that was published is acknowledged, and all that the stream or the spools hold is committed.
    fn has_no_lag(&self) -> bool {
        if !self.unacknowledged().is_empty() {
            return false;
        }
        let rows = self.rows();
        let state = self.shared.state();
        state.ledger.shards.iter().filter(|(_, shard)| !shard.forgotten).all(|(id, shard)| {
            let last = shard.payloads.iter().rev().find(|put| !put.is_trimmed()).map(|put| &put.position);
            let is_read = |through: Option<&Position>| through >= last;
            let Some(row) = rows.get(id) else {
                // It went when its children had moved on.
                let through = state.judge.through(id);
                return state.judge.ended.contains(id) && is_read(through.and_then(|through| through.position()));
            };
            row.pending.is_none() && is_read(row.checkpoint.position()) && (row.ended || !shard.ended)
        })
    }

    /// Whether every worker is within one lease of every other, and the rows are gone that nobody needs.
    fn is_at_rest(&self) -> bool {
        let rows = self.rows();
        let state = self.shared.state();
        let mut held: BTreeMap<&WorkerId, usize> = BTreeMap::new();
        let seats: Vec<_> = (0..WORKERS).filter_map(|number| self.seat(number)).collect();
        held.extend(seats.iter().map(|seat| (&seat.worker, 0)));
        for row in rows.values().filter(|row| !row.ended) {
            if let Some(held) = row.owner.as_ref().and_then(|owner| held.get_mut(owner)) {
                *held += 1;
            }
        }
        let is_even = held.values().max().unwrap_or(&0) - held.values().min().unwrap_or(&0) <= 1;
        let moved_on = |child: &ShardId| rows.get(child).is_none_or(|row| row.batch_seq > 0 || row.ended);
        let is_needless = |row: &LeaseRow| {
            let children = state.children_of(&row.shard);
            // A spool's row waits for another spool that vouches for it, where the one that did has gone itself.
            let is_vouched_for = self.spooled.is_none() || children.iter().any(|child| rows.contains_key(child));
            row.ended && row.batch_seq > 0 && !children.is_empty() && children.iter().all(moved_on) && is_vouched_for
        };
        is_even && !rows.values().any(is_needless)
    }

    /// Invariant 6: everything stands exactly once, and nothing else does.
    fn judge_rows(&self) {
        let mut events: BTreeMap<Event, u64> = BTreeMap::new();
        let mut rejects: BTreeMap<(ShardId, Position), u64> = BTreeMap::new();
        for (key, body) in all_objects(&self.archive, EVENTS_PREFIX) {
            for row in read_rows(body, &key, Projection::Core).expect("it is an object of rows") {
                let row = row.expect("it is a row");
                let who = row.core.and_then(|core| core.principal_name).unwrap_or_default();
                *events.entry((row.log_id.unwrap_or_default(), row.version, who)).or_default() += 1;
            }
        }
        for (_, body) in all_objects(&self.archive, REJECTED_PREFIX) {
            for reject in read_rejects(body).expect("it is an object of rejects") {
                let reject = reject.expect("it is a reject");
                *rejects.entry((reject.shard, reject.payload)).or_default() += 1;
            }
        }
        let mut state = self.shared.state();
        // Known limit: a copy of what was claimed and then trimmed before it was archived is dropped.
        let mut expected: BTreeMap<Event, bool> = BTreeMap::new();
        let mut garbage: BTreeMap<(ShardId, Position), bool> = BTreeMap::new();
        for (id, shard) in &state.ledger.shards {
            for put in &shard.payloads {
                for event in &put.events {
                    *expected.entry(event.clone()).or_default() |= put.is_lost();
                }
                if put.is_garbage {
                    garbage.insert((id.clone(), put.position.clone()), put.is_lost());
                }
            }
        }
        let wrong_events = differences(&events, &expected);
        let wrong_rejects = differences(&rejects, &garbage);
        for wrong in [wrong_events, wrong_rejects].into_iter().flatten() {
            state.judge.violated(format!("invariant 6: {wrong}"));
        }
    }

    /// What was trimmed before anybody had archived it is said to be missing.
    fn judge_losses(&self) {
        let mut state = self.shared.state();
        let mut untold = Vec::new();
        for (id, shard) in &state.ledger.shards {
            let chain = state.judge.chains.get(id);
            let is_told = |at: &Position| chain.is_some_and(|chain| chain.gaps.iter().any(|gap| gap.covers(at)));
            let lost = shard
                .payloads
                .iter()
                .filter(|put| put.kept == Kept::Lost { can_be_told: true } && !is_told(&put.position));
            untold.extend(lost.map(|put| format!("{} of {id} is missing, and nothing tells", put.position)));
        }
        for what in untold {
            state.judge.violated(what);
        }
    }

    /// Invariant 7, by the product's own proof.
    async fn prove(&self) {
        let leases = Some(self.leases.as_ref() as &dyn LeaseStore);
        let options = Options::default();
        let report = verify(self.archive.as_ref(), leases, Arc::new(ObjectRows), &options, &mut |_| ()).await;
        let may_doubt = self.rows_were_lost || self.slept_for_weeks;
        match report {
            Ok(report) if !report.is_intact() || !(report.tail_proved || may_doubt) => {
                self.violated(format!("invariant 7: verify says {report:#?}"));
            }
            Ok(_) => {}
            Err(error) => self.violated(format!("invariant 7: verify fails: {error}")),
        }
    }
}

/// How what stands differs from what is to stand once each (where it may be missing: at most once).
fn differences<K: Ord + std::fmt::Debug>(stands: &BTreeMap<K, u64>, expected: &BTreeMap<K, bool>) -> Vec<String> {
    let mut found = Vec::new();
    for (what, times) in stands {
        if !expected.contains_key(what) {
            found.push(format!("{what:?} was invented"));
        } else if *times > 1 {
            found.push(format!("{what:?} stands {times} times"));
        }
    }
    let missing = expected.iter().filter(|(what, may_miss)| !**may_miss && !stands.contains_key(*what));
    found.extend(missing.map(|(what, _)| format!("{what:?} is missing")));
    found
}
