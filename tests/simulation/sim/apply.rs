//! What each operation does to the world.

use std::time::Duration;

use auditlake::ops::clock::Clock as _;
use auditlake::source::ShardId;

use super::faulty::LISTED_WITHIN;
use super::ledger::{Kept, Put};
use super::operation::{Content, Operation};
use super::random::up_to;
use super::seat::Strike;
use super::world::{CATCH_UP, WORKERS, World};

/// The most shards that are written to at the same time.
const OPEN_SHARDS: usize = 6;
/// The longest pause between two operations.
const PAUSE: Duration = Duration::from_secs(3);

fn pick<T: Clone>(of: &[T], number: u8) -> Option<T> {
    (!of.is_empty()).then(|| of[usize::from(number) % of.len()].clone())
}

impl World {
    /// Does one operation, and lets a moment pass.
    pub(crate) async fn apply(&mut self, operation: &Operation) {
        self.log.add(|| format!("{:?} == {operation:?}", self.clock.monotonic()));
        match operation {
            Operation::Put { payloads, .. } if self.publish(payloads) => {}
            Operation::Put { shard, payloads } => self.put(*shard, payloads),
            Operation::Split { shard } => self.split(*shard),
            Operation::Merge { first, second } => self.merge(*first, *second),
            Operation::Advance { seconds } => self.advance(Duration::from_secs(u64::from(*seconds))).await,
            Operation::Crash { worker, at, back_in } => {
                let back_in = Duration::from_secs(u64::from(*back_in));
                self.strike(usize::from(*worker) % WORKERS, Strike::Crash, *at, back_in);
            }
            Operation::Freeze { worker, at, seconds } => {
                let strike = Strike::Freeze(Duration::from_secs(u64::from(*seconds)));
                self.strike(usize::from(*worker) % WORKERS, strike, *at, Duration::ZERO);
            }
            Operation::Start { worker } => self.start(usize::from(*worker) % WORKERS),
            Operation::Stop { worker } => self.stop(usize::from(*worker) % WORKERS),
            Operation::CatchUp => self.start(CATCH_UP),
            Operation::Fault { port, worker, kind, seconds } => {
                let until = self.now() + Duration::from_secs(u64::from(*seconds));
                self.shared.state().faults.add(*port, worker.map(usize::from), *kind, until);
            }
            Operation::Heal => self.shared.state().faults.heal(),
            Operation::LoseLeases { table } => {
                // As long as there is no manifest, nobody can tell a lost row from a new shard's.
                let can_be_told = !self.shared.state().judge.chains.is_empty();
                if can_be_told {
                    self.lose_leases(*table);
                }
            }
            Operation::Configure { layout, window, records } => self.configure(*layout, *window, *records),
            Operation::Trim { shard, payloads, unread } => self.trim(*shard, usize::from(*payloads), *unread),
            Operation::ForgetShards => self.forget_shards(),
            Operation::Intrude { shard } => {
                let mut state = self.shared.state();
                let chosen = pick(&state.ledger.open_shards(), *shard);
                state.to_intrude.extend(chosen);
            }
            Operation::Redeliver { message } => self.redeliver(usize::from(*message)),
            Operation::Age { worker } => self.age(usize::from(*worker) % WORKERS).await,
            Operation::Skew { worker, seconds } => {
                if let Some(seat) = self.seat(usize::from(*worker) % WORKERS) {
                    seat.skew(*seconds);
                }
            }
            Operation::Unsteady { worker, seconds } => {
                if let Some(seat) = self.seat(usize::from(*worker) % WORKERS) {
                    seat.unsettle(*seconds);
                }
            }
        }
        self.advance(up_to(PAUSE)).await;
    }

    fn put(&mut self, shard: u8, payloads: &[Vec<Content>]) {
        let mut state = self.shared.state();
        let Some(shard) = pick(&state.ledger.open_shards(), shard) else { return };
        for contents in payloads {
            let written = state.ledger.write(contents);
            let position = self.source.append(&shard, written.body.clone(), self.clock.now());
            state.ledger.enter(&shard, written, position);
        }
    }

    /// The shards that can be resharded.
    fn settled_shards(&self) -> Vec<ShardId> {
        let state = self.shared.state();
        let mut open = state.ledger.open_shards();
        open.retain(|shard| state.is_older(shard, LISTED_WITHIN, self.now()));
        open
    }

    fn split(&mut self, shard: u8) {
        let open = self.settled_shards();
        if let (Some(shard), true) = (pick(&open, shard), open.len() < OPEN_SHARDS) {
            for side in ["left", "right"] {
                let child = self.child_name(side);
                self.add_shard(&child, vec![shard.clone()]);
            }
            self.end_shard(&shard);
        }
    }

    fn merge(&mut self, first: u8, second: u8) {
        let open = self.settled_shards();
        if let (Some(first), Some(second)) = (pick(&open, first), pick(&open, second))
            && first != second
        {
            let child = self.child_name("merged");
            self.add_shard(&child, vec![first.clone(), second.clone()]);
            self.end_shard(&first);
            self.end_shard(&second);
        }
    }

    /// Parents come before their children where shards are ordered by their names, as the source lists them.
    fn child_name(&self, kind: &str) -> ShardId {
        ShardId::new(format!("s{:03}-{kind}", self.shared.state().ledger.shards.len()))
    }

    fn end_shard(&mut self, shard: &ShardId) {
        self.source.end(shard);
        self.shared.state().ledger.shards.entry(shard.clone()).or_default().ended = true;
    }

    /// Retention never takes what a batch under way is made of: it is longer than any batch.
    fn trim(&mut self, shard: u8, payloads: usize, unread: bool) {
        let all: Vec<ShardId> = self.shared.state().ledger.shards.keys().cloned().collect();
        let Some(shard) = pick(&all, shard) else { return };
        let rows = self.rows();
        let Some(row) = rows.get(&shard) else { return };
        let mut state = self.shared.state();
        let is_quiet = row.owner.is_none() && row.left_over.is_none() && state.in_flight == 0 && !self.rows_were_lost;
        if row.pending.is_some() || (unread && !is_quiet) {
            return;
        }
        let archived = row.checkpoint.position().cloned();
        let entry = state.ledger.shards.get_mut(&shard).expect("it was picked");
        let may_go = |put: &&mut Put| unread || Some(&put.position) <= archived.as_ref();
        let oldest = entry.payloads.iter_mut().filter(|put| !put.is_trimmed()).take(payloads).take_while(may_go);
        let mut trimmed = 0;
        for put in oldest {
            let is_archived = Some(&put.position) <= archived.as_ref();
            put.kept = if is_archived { Kept::Trimmed } else { Kept::Lost { can_be_told: archived.is_some() } };
            trimmed += 1;
        }
        self.source.trim(&shard, trimmed);
    }

    /// By then every listing has long had the shards that came from it.
    fn forget_shards(&mut self) {
        let (mut state, now) = (self.shared.state(), self.clock.monotonic());
        let is_old = |id: &ShardId| state.children_of(id).iter().all(|child| state.is_older(child, LISTED_WITHIN, now));
        let old: Vec<ShardId> = state.judge.ended.iter().filter(|id| is_old(id)).cloned().collect();
        for id in old {
            state.ledger.shards.entry(id).or_default().forgotten = true;
        }
    }
}
