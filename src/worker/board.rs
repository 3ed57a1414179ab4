//! What a worker shows of itself while it works: to metrics, to health, and to people. Nothing here decides anything.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::open_batch::{FinishedBatch, OpenBatch};
use super::outcome::{Outcome, ShardError};
use crate::archive::manifest::{Counts, ObjectKind};
use crate::batch::{CutReason, Window};
use crate::encode::FinishedObject;
use crate::lease::{LeaseRow, Stop, WorkerId};
use crate::ops::clock::{Clock, between};
use crate::source::{Checkpoint, ShardId};

/// How many of the newest commits are kept to be shown.
const RECENT: usize = 20;

/// All that a worker shows, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// The shards that it reads.
    pub held: BTreeMap<ShardId, HeldShard>,
    /// Shards that stopped here with an error, which is each one's last.
    pub stopped: BTreeMap<ShardId, StoppedShard>,
    /// Of those: all that arrived up to then is archived, as far as is known. What came since waits for somebody who can
    /// read on.
    pub stopped_through: BTreeMap<ShardId, Timestamp>,
    /// What it saw when it last looked around; `None` before the first time.
    pub look: Option<Look>,
    /// Since when, in monotonic time, there are shards to read that nobody alive holds.
    pub unowned_since: Option<Duration>,
    /// Since when, in monotonic time, looking around has failed, and why.
    pub failing: Option<(Duration, String)>,
    /// When the loop that looks around last turned, in monotonic time.
    pub turned_at: Option<Duration>,
    /// The newest commits, the newest first.
    pub recent: VecDeque<Committed>,
    /// When the newest commit was done.
    pub committed_at: Option<Timestamp>,
    /// Leases taken.
    pub taken: u64,
    /// Leases that are held no more, by what became of them.
    pub lost: BTreeMap<Ended, u64>,
    /// Batches committed, by why they were cut.
    pub batches: BTreeMap<CutReason, u64>,
    /// Objects put and their bytes, by what they hold.
    pub objects: BTreeMap<ObjectKind, (u64, u64)>,
    /// Steps of commits that failed and were tried again.
    pub retries: u64,
    /// How long commits took, from claims to checkpoint, in seconds.
    pub commit_seconds: Spread,
}

impl Shown {
    /// How long ago the time is up to which all that arrived on a shard is archived; `None` where that is not known, and
    /// where the shard is not this worker's to tell of.
    pub fn lag(&self, shard: &ShardId, now: Timestamp) -> Option<Duration> {
        let through = self.held.get(shard).and_then(HeldShard::waits_since);
        through.or_else(|| self.stopped_through.get(shard).copied()).map(|through| between(through, now))
    }
}

/// A shard whose lease this worker holds.
#[derive(Clone, Debug)]
pub struct HeldShard {
    /// How far it is archived.
    pub checkpoint: Checkpoint,
    /// Batches that its chain has.
    pub batches: u64,
    /// The batch that is being gathered.
    pub open: Option<OpenView>,
    /// How far the reader is behind the shard's tip, where the source says so.
    pub behind: Option<Duration>,
    /// All that arrived up to then is archived, as far as is known.
    pub archived_through: Option<Timestamp>,
    /// A step of its commit fails and is tried again: since when, in monotonic time, and why.
    pub failing: Option<(Duration, String)>,
    /// When its loop last turned, in monotonic time; `None` while it waits for its turn.
    pub turned_at: Option<Duration>,
}

impl HeldShard {
    /// A shard whose lease was just taken, by its row; `turned_at` as the field.
    pub fn of(row: &LeaseRow, turned_at: Option<Duration>) -> Self {
        Self {
            checkpoint: row.checkpoint.clone(),
            batches: row.batch_seq,
            open: None,
            behind: None,
            archived_through: row.read_through,
            failing: None,
            turned_at,
        }
    }

    /// The time up to which all that arrived is archived; `None` as long as that is not known.
    fn waits_since(&self) -> Option<Timestamp> {
        self.archived_through.or(self.open.map(|open| open.first_arrival))
    }
}

/// A batch that is being gathered.
#[derive(Clone, Copy, Debug)]
pub struct OpenView {
    /// The window of arrival time that it takes.
    pub window: Window,
    /// When its first payload arrived.
    pub first_arrival: Timestamp,
    /// Records read into it.
    pub records: u64,
    /// The size of its objects if it were cut now.
    pub encoded_bytes: u64,
}

/// A shard that stopped with an error.
#[derive(Clone, Debug)]
pub struct StoppedShard {
    /// Why.
    pub error: String,
    /// When it stopped last.
    pub at: Timestamp,
    /// When it is tried again, in monotonic time.
    pub again_at: Duration,
}

/// What the coordinator saw.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Every shard that has a lease row.
    pub shards: Vec<SeenShard>,
    /// How many shards there are to read whose lease nobody alive holds.
    pub unowned: usize,
}

/// A shard by its lease row.
#[derive(Clone, Debug)]
pub struct SeenShard {
    /// The shard.
    pub shard: ShardId,
    /// Who reads it.
    pub owner: Option<String>,
    /// How far it is archived.
    pub checkpoint: Checkpoint,
    /// Batches that its chain has.
    pub batches: u64,
    /// All of it is archived.
    pub ended: bool,
    /// All that arrived up to then is archived, as far as is known.
    pub archived_through: Option<Timestamp>,
    /// A batch is under way.
    pub pending: bool,
    /// What it stopped at, whoever read it then.
    pub stopped: Option<Stop>,
}

impl SeenShard {
    /// The shard of this row.
    pub(super) fn of(row: &LeaseRow) -> Self {
        Self {
            shard: row.shard.clone(),
            owner: row.owner.as_ref().map(ToString::to_string),
            checkpoint: row.checkpoint.clone(),
            batches: row.batch_seq,
            ended: row.ended,
            archived_through: row.read_through,
            pending: row.pending.is_some(),
            stopped: row.stopped.clone(),
        }
    }

    /// What it stopped at, as long as nobody has begun again.
    pub fn stop(&self) -> Option<&Stop> {
        self.stopped.as_ref().filter(|_| self.owner.is_none())
    }
}

/// A batch that this worker committed.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its shard.
    pub shard: ShardId,
    /// Its number.
    pub batch_seq: u64,
    /// When.
    pub at: Timestamp,
    /// Why it was cut.
    pub cut: CutReason,
    /// What it came to.
    pub counts: Counts,
    /// Its objects.
    pub objects: Vec<CommittedObject>,
}

/// An object of a batch that this worker committed.
#[derive(Clone, Debug)]
pub struct CommittedObject {
    /// What it holds.
    pub kind: ObjectKind,
    /// Its key.
    pub key: String,
    /// Its size, in bytes.
    pub bytes: u64,
}

/// What became of a lease that was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// The worker stopped, or another one asked for it.
    GivenUp,
    /// All that was asked for is archived.
    Done,
    /// Another worker took it.
    Taken,
    /// It could not be renewed in time.
    Expired,
    /// The shard stopped with an error.
    Error,
}

impl Ended {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::GivenUp, Self::Done, Self::Taken, Self::Expired, Self::Error];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GivenUp => "given_up",
            Self::Done => "done",
            Self::Taken => "taken",
            Self::Expired => "expired",
            Self::Error => "error",
        }
    }

    pub(super) fn of(outcome: &Result<Outcome, ShardError>) -> Self {
        match outcome {
            Ok(Outcome::Done) => Self::Done,
            Ok(Outcome::Stopped { .. } | Outcome::NotTaken) => Self::GivenUp,
            Ok(Outcome::Lost { taken: true }) => Self::Taken,
            Ok(Outcome::Lost { taken: false }) => Self::Expired,
            Err(_) => Self::Error,
        }
    }
}

/// Durations, counted by how long they were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread {
    /// How many were at most [`Spread::BOUNDS`] seconds, bound by bound; each in the first that holds it.
    pub counts: [u64; Self::BOUNDS.len()],
    /// How many there were.
    pub count: u64,
    /// Their sum, in seconds.
    pub sum: f64,
}

impl Spread {
    /// In seconds.
    pub const BOUNDS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

    fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        if let Some(bucket) = Self::BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.counts[bucket] += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }
}

/// Where a worker and its tasks write what they show.
#[derive(Debug, Default)]
pub struct Board {
    shown: Mutex<Shown>,
}

impl Board {
    /// All there is to see now.
    pub fn shown(&self) -> Shown {
        self.lock().clone()
    }

    /// The coordinator's loop turns.
    pub(super) fn turn(&self, now: Duration) {
        self.lock().turned_at = Some(now);
    }

    /// The coordinator of `me` looked around. Shards that stopped here may be read by others since, or be gone.
    pub(super) fn looked(&self, now: Duration, me: &WorkerId, look: Look) {
        let mut shown = self.lock();
        shown.unowned_since = (look.unowned > 0).then(|| shown.unowned_since.unwrap_or(now));
        let is_ours = |shard: &ShardId| {
            let seen = look.shards.iter().find(|seen| seen.shard == *shard);
            seen.is_none_or(|seen| seen.owner.as_ref().is_none_or(|owner| owner == me.as_str()))
        };
        shown.stopped.retain(|shard, _| is_ours(shard));
        shown.stopped_through.retain(|shard, _| is_ours(shard));
        shown.look = Some(look);
        shown.failing = None;
    }

    /// The coordinator could not look around.
    pub(super) fn could_not_look(&self, now: Duration, error: &dyn std::fmt::Display) {
        still_failing(&mut self.lock().failing, now, error);
    }

    /// A shard has stopped with an error; by its row, all that arrived up to `through` is archived.
    pub(super) fn stopped(&self, shard: &ShardId, stopped: StoppedShard, through: Option<Timestamp>) {
        let mut shown = self.lock();
        shown.stopped.insert(shard.clone(), stopped);
        if let Some(through) = through {
            shown.stopped_through.entry(shard.clone()).or_insert(through);
        }
    }

    /// A shard that had stopped works again, or is somebody else's by now.
    pub(super) fn recovered(&self, shard: &ShardId) {
        let mut shown = self.lock();
        shown.stopped.remove(shard);
        shown.stopped_through.remove(shard);
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// It fails, since now or since it did before, and for this reason by now.
fn still_failing(failing: &mut Option<(Duration, String)>, now: Duration, error: &dyn std::fmt::Display) {
    let since = failing.as_ref().map_or(now, |(since, _)| *since);
    *failing = Some((since, error.to_string()));
}

/// A held shard's place on the board; it goes with the lease.
pub(super) struct Seat {
    totals: Arc<super::Totals>,
    clock: Arc<dyn Clock>,
    shard: ShardId,
}

impl Seat {
    /// A place for the shard of this row, whose lease was just taken.
    pub(super) fn take(totals: Arc<super::Totals>, clock: Arc<dyn Clock>, row: &LeaseRow) -> Self {
        let held = HeldShard::of(row, Some(clock.monotonic()));
        let mut shown = totals.board.lock();
        shown.held.insert(row.shard.clone(), held);
        shown.taken += 1;
        drop(shown);
        Self { totals, clock, shard: row.shard.clone() }
    }

    /// The task has ended; its place goes when this is dropped.
    pub(super) fn ended(&self, ended: Ended) {
        let mut shown = self.totals.board.lock();
        *shown.lost.entry(ended).or_default() += 1;
        let through = shown.held.get(&self.shard).and_then(HeldShard::waits_since);
        if let (Ended::Error, Some(through)) = (ended, through) {
            shown.stopped_through.insert(self.shard.clone(), through);
        }
    }

    /// The loop turns, with this batch open.
    pub(super) fn turn(&self, open: Option<&OpenBatch>) {
        let open = open.map(OpenBatch::view);
        self.change(|held| held.open = open);
    }

    /// The loop waits for its turn, which may take as long as the others need.
    pub(super) fn rest(&self) {
        let mut shown = self.totals.board.lock();
        if let Some(held) = shown.held.get_mut(&self.shard) {
            held.turned_at = None;
        }
    }

    /// The loop has its turn again.
    pub(super) fn turns_again(&self) {
        self.change(|_| {});
    }

    /// A page was read; it says how far the reader is behind the shard's tip, where the source knows.
    pub(super) fn read(&self, behind: Option<Duration>) {
        self.change(|held| held.behind = behind);
    }

    /// The shard is read on: whatever it stopped at is behind it.
    pub(super) fn reads_on(&self) {
        self.totals.board.recovered(&self.shard);
    }

    /// Nothing is open, and all that arrived up to then is archived.
    pub(super) fn idle_through(&self, through: Timestamp) {
        self.change(|held| held.archived_through = held.archived_through.max(Some(through)));
    }

    /// A step of the commit failed; whether it may succeed later, and is tried again.
    pub(super) fn bears<E: std::fmt::Display>(&self, error: &E, may_pass: impl Fn(&E) -> bool) -> bool {
        if !may_pass(error) {
            return false;
        }
        let now = self.clock.monotonic();
        self.change(|held| still_failing(&mut held.failing, now, error));
        self.totals.board.lock().retries += 1;
        true
    }

    /// A batch is committed; the row says where the shard is now.
    pub(super) fn committed(&self, row: &LeaseRow, batch: &FinishedBatch, cut: CutReason, took: Duration) {
        self.change(|held| {
            held.checkpoint = row.checkpoint.clone();
            held.batches = row.batch_seq;
            held.archived_through = held.archived_through.max(row.read_through);
            held.open = None;
            held.failing = None;
        });
        let now = self.clock.now();
        let committed = |object: &FinishedObject| CommittedObject {
            kind: object.kind,
            key: object.key.clone(),
            bytes: object.object.bytes.bytes(),
        };
        let put: Vec<_> = batch.objects.iter().map(committed).collect();
        let mut shown = self.totals.board.lock();
        shown.committed_at = Some(now);
        shown.commit_seconds.add(took);
        *shown.batches.entry(cut).or_default() += 1;
        for object in &put {
            let (objects, bytes) = shown.objects.entry(object.kind).or_default();
            *objects += 1;
            *bytes += object.bytes;
        }
        shown.recent.truncate(RECENT - 1);
        shown.recent.push_front(Committed {
            shard: self.shard.clone(),
            batch_seq: batch.pending.batch_seq,
            at: now,
            cut,
            counts: batch.tally.counts,
            objects: put,
        });
    }

    fn change(&self, change: impl FnOnce(&mut HeldShard)) {
        let now = self.clock.monotonic();
        let mut shown = self.totals.board.lock();
        if let Some(held) = shown.held.get_mut(&self.shard) {
            held.turned_at = Some(now);
            change(held);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.totals.board.lock().held.remove(&self.shard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stopped_here_is_told_of_until_another_worker_has_it() {
        let (board, shard) = (Board::default(), ShardId::new("s"));
        let (me, now) = (WorkerId::new("me"), Timestamp::UNIX_EPOCH + Duration::from_mins(9));
        let stopped = || StoppedShard { error: "why".into(), at: now, again_at: Duration::ZERO };
        let look = |owner: Option<&str>| {
            let row = LeaseRow { owner: owner.map(WorkerId::new), ..LeaseRow::new(shard.clone(), Vec::new()) };
            board.looked(Duration::ZERO, &me, Look { shards: vec![SeenShard::of(&row)], unowned: 0 });
            board.shown().lag(&shard, now)
        };
        board.stopped(&shard, stopped(), Some(Timestamp::UNIX_EPOCH));
        assert_eq!(look(None), Some(Duration::from_mins(9)));
        assert_eq!(look(Some("me")), Some(Duration::from_mins(9)));
        assert_eq!(look(Some("another")), None);
        board.stopped(&shard, stopped(), Some(Timestamp::UNIX_EPOCH));
        board.recovered(&shard);
        assert_eq!(look(None), None);
    }
}
