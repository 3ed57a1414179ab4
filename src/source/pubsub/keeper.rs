//! Tidying up: segments go once they are archived, seals once no writer can sleep any longer, and what was put behind
//! the end of a spool is found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::names::{Part, SpoolName, parse_key};
use super::reader::unreadable;
use super::segment::{Kind, decode, encode_seal};
use super::{ORIGIN, Shared};
use crate::archive::ArchiveError;
use crate::lease::{LeaseRow, LeaseStore};
use crate::ops::planted::{Bug, planted};
use crate::source::{ShardId, SourceError};

/// For how long a seal is kept. A writer that wakes must find its number taken, and none sleeps for longer.
const SEALS_KEPT: SignedDuration = SignedDuration::from_hours(40 * 24);

/// How many shards a spool counts as its parents at most; the others wait for another one.
const MOST_PARENTS: usize = 50;

/// What a lease row tells of a spool's segments.
#[derive(Debug, Default, PartialEq, Eq)]
struct Judged {
    /// These are archived, and nobody will ask for them again.
    archived: Vec<u64>,
    /// The spool is archived to its end, and these stand behind that: its seal, or what should not be there.
    behind: Vec<u64>,
}

/// Judges the segments of a spool by its lease row. The one that the checkpoint lies in stays as long as the spool is read
/// on: reading resumes at the checkpoint's payload, and proves that it is there. Pure.
fn judge(numbers: &BTreeSet<u64>, row: &LeaseRow) -> Judged {
    let at = row.checkpoint.position().and_then(|position| position.sequence.as_u64());
    let ends_here = row.ended || planted(Bug::SegmentRemovedEarly);
    let is_archived = |number: &u64| at.is_some_and(|at| *number < at || (ends_here && *number == at));
    let (archived, rest): (Vec<u64>, Vec<u64>) = numbers.iter().partition(|number| is_archived(number));
    Judged { archived, behind: if row.ended { rest } else { Vec::new() } }
}

/// The shards that a row names as its parents: of those nothing stood any more, and all of it was archived.
fn named(rows: &BTreeMap<ShardId, LeaseRow>) -> BTreeSet<&ShardId> {
    rows.values().flat_map(|row| &row.parents).collect()
}

/// Judges the segments of a spool by the rows. Where its own is gone and another vouches for it, all that stands was put
/// behind its end. Where nobody knows it, its row is still to be made. Pure.
fn judge_by(rows: &BTreeMap<ShardId, LeaseRow>, spool: &SpoolName, numbers: &BTreeSet<u64>) -> Judged {
    let shard = Part::Whole(spool.clone()).shard();
    match rows.get(&shard) {
        Some(row) => judge(numbers, row),
        None if named(rows).contains(&shard) => {
            Judged { behind: numbers.iter().copied().collect(), ..Judged::default() }
        }
        None => Judged::default(),
    }
}

/// Shards that are archived to their end, of which nothing stands, and that no other names as a parent. Pure.
fn gone(rows: &BTreeMap<ShardId, LeaseRow>, standing: &BTreeMap<SpoolName, BTreeSet<u64>>) -> Vec<ShardId> {
    let named = named(rows);
    let is_gone = |shard: &ShardId| match Part::of(shard) {
        Some(Part::Whole(spool)) => !standing.contains_key(&spool),
        Some(Part::Late(spool, number)) => !standing.get(&spool).is_some_and(|numbers| numbers.contains(&number)),
        None => false,
    };
    let archived = |row: &&LeaseRow| row.ended && row.owner.is_none() && row.origin.as_deref() == Some(ORIGIN);
    let gone = rows.values().filter(archived).map(|row| &row.shard);
    gone.filter(|shard| is_gone(shard) && !named.contains(*shard)).take(MOST_PARENTS).cloned().collect()
}

/// Whether a seal of this age may go. Pure.
fn has_expired(written: Timestamp, now: Timestamp) -> bool {
    now.duration_since(written) > SEALS_KEPT
}

/// Keeps the folder of spools tidy. Any number of processes may.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    leases: Arc<dyn LeaseStore>,
    /// The seals that have been read, and when they were put: each is read once, as long as it is of use.
    seals: tokio::sync::Mutex<BTreeMap<(SpoolName, u64), Timestamp>>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, leases: Arc<dyn LeaseStore>) -> Self {
        Self { shared, leases, seals: tokio::sync::Mutex::default() }
    }

    /// Removes what is archived, and finds what came late.
    pub(super) async fn tidy(&self) -> Result<(), SourceError> {
        let spools = ShardId::new("spools");
        let unavailable = |reason: String| SourceError::Unavailable { shard: spools.clone(), reason };
        let listing = self.leases.look().await.map_err(|error| unavailable(error.to_string()))?;
        let rows: BTreeMap<ShardId, LeaseRow> = listing.rows.into_iter().map(|row| (row.shard.clone(), row)).collect();
        let objects = self.shared.store.list("").await.map_err(|error| unreadable(&spools, &error))?;
        let mut standing: BTreeMap<SpoolName, BTreeSet<u64>> = BTreeMap::new();
        for (spool, number) in objects.iter().filter_map(|object| parse_key(&object.key)) {
            standing.entry(spool).or_default().insert(number);
        }
        let (mut late, mut done) = (BTreeSet::new(), Vec::new());
        for (spool, numbers) in &standing {
            let Judged { archived, behind } = judge_by(&rows, spool, numbers);
            done.extend(archived.iter().map(|number| (spool.clone(), *number)));
            for number in behind {
                match self.look_behind(spool, number, numbers, &rows).await? {
                    Behind::Seal => {}
                    Behind::Late => drop(late.insert((spool.clone(), number))),
                    Behind::Done => done.push((spool.clone(), number)),
                }
            }
        }
        self.shared.found_late(late);
        self.shared.found_gone(gone(&rows, &standing));
        if let Err(error) = self.remove(&done).await {
            tracing::warn!(%error, "what is archived can't be removed from the spools now, and only takes up room; it is tried again");
        }
        Ok(())
    }

    /// Looks at an object behind the end of a spool.
    async fn look_behind(
        &self,
        spool: &SpoolName,
        number: u64,
        numbers: &BTreeSet<u64>,
        rows: &BTreeMap<ShardId, LeaseRow>,
    ) -> Result<Behind, SourceError> {
        let now = self.shared.clock.now();
        let part = Part::Late(spool.clone(), number);
        let place = (spool.clone(), number);
        let mut seals = self.seals.lock().await;
        // One that is of use is where it was. One that is not may be gone by now, and messages stand in its place.
        if seals.get(&place).is_some_and(|written| !has_expired(*written, now)) {
            return Ok(Behind::Seal);
        }
        seals.remove(&place);
        let found = self.shared.store.get(&spool.key(number)).await;
        let Some(bytes) = found.map_err(|error| unreadable(&part.shard(), &error))? else { return Ok(Behind::Seal) };
        match decode(spool, number, &bytes) {
            Ok(segment) if segment.header.kind == Kind::Seal => {
                if has_expired(segment.header.written, now) {
                    return Ok(Behind::Done);
                }
                seals.insert(place, segment.header.written);
                Ok(Behind::Seal)
            }
            _ if planted(Bug::LateSegmentIgnored) => Ok(Behind::Seal),
            // Archived or not, whole or not: reading it as a shard tells.
            _ if rows.get(&part.shard()).is_some_and(|row| row.ended) => Ok(Behind::Done),
            _ => {
                self.turn_away(spool, number, numbers).await?;
                Ok(Behind::Late)
            }
        }
    }

    /// Messages were put behind the end of a spool, by a writer that slept for longer than its seal was kept. They are
    /// archived as a shard of their own, and the writer finds its next number taken.
    async fn turn_away(&self, spool: &SpoolName, number: u64, numbers: &BTreeSet<u64>) -> Result<(), SourceError> {
        let next = number + 1;
        if numbers.contains(&next) {
            return Ok(());
        }
        let shard = Part::Late(spool.clone(), number).shard();
        tracing::warn!(%shard, "messages stand behind the end of a spool that was archived; they are archived by themselves");
        let seal = encode_seal(spool, next, self.shared.clock.now());
        let put = self.shared.store.put_if_absent(&spool.key(next), seal).await;
        put.map(drop).map_err(|error| unreadable(&Part::Whole(spool.clone()).shard(), &error))
    }

    /// Removes them, up to the first that can't be: what holds for one holds for the others.
    async fn remove(&self, done: &[(SpoolName, u64)]) -> Result<(), ArchiveError> {
        for (spool, number) in done {
            self.shared.store.remove(&spool.key(*number)).await?;
            self.shared.counters.removed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// What an object behind the end of a spool is.
enum Behind {
    /// The seal, still of use.
    Seal,
    /// Messages that nobody has archived.
    Late,
    /// Messages that are archived by themselves, or a seal that is of no use any more.
    Done,
}

/// How often it is tidied up.
pub(super) const TIDY_EVERY: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::super::{Cut, PubsubOptions, PubsubSource};
    use super::*;
    use crate::archive::{ArchiveStore as _, MemoryArchive};
    use crate::lease::memory::MemoryLeases;
    use crate::ops::clock::SystemClock;
    use crate::ops::memory::MemoryBudget;
    use crate::source::{Checkpoint, Position};

    fn row(at: Option<u64>, ended: bool) -> LeaseRow {
        let position = |number: u64| Position { sequence: number.into(), sub_sequence: 3 };
        let checkpoint = at.map_or(Checkpoint::TrimHorizon, |number| Checkpoint::at(position(number), b"x"));
        LeaseRow { checkpoint, ended, ..LeaseRow::new(ShardId::new("spool-1"), Vec::new()) }
    }

    fn judged(numbers: &[u64], at: Option<u64>, ended: bool) -> (Vec<u64>, Vec<u64>) {
        let Judged { archived, behind } = judge(&numbers.iter().copied().collect(), &row(at, ended));
        (archived, behind)
    }

    #[tokio::test]
    async fn a_writer_that_put_one_more_while_it_was_turned_away_is_not_overwritten() {
        let store = Arc::new(MemoryArchive::new());
        let cut = Cut { flush_interval: Duration::ZERO, max_bytes: 1, max_messages: 1 };
        let options = PubsubOptions { cut, seal_after: Duration::ZERO };
        let source = PubsubSource::new(store.clone(), options, Arc::new(SystemClock::start()), MemoryBudget::new(1));
        let keeper = Keeper::new(source.shared, Arc::new(MemoryLeases::shared()));
        let spool = SpoolName::new("spool-1").unwrap();
        // It was not there yet when the store was listed.
        store.put_if_absent(&spool.key(3), "one more".into()).await.unwrap();
        keeper.turn_away(&spool, 2, &[2].into()).await.unwrap();
        assert_eq!(store.get(&spool.key(3)).await.unwrap().unwrap(), "one more");
    }

    #[test]
    fn only_what_lies_before_the_checkpoint_goes() {
        assert_eq!(judged(&[0, 1, 2, 3], None, false), (vec![], vec![]));
        assert_eq!(judged(&[0, 1, 2, 3], Some(2), false), (vec![0, 1], vec![]));
        assert_eq!(judged(&[5], Some(2), false), (vec![], vec![]));
    }

    #[test]
    fn with_its_end_all_of_a_spool_goes_but_what_stands_behind() {
        assert_eq!(judged(&[1, 2, 3], Some(2), true), (vec![1, 2], vec![3]));
        assert_eq!(judged(&[0], None, true), (vec![], vec![0]));
        assert_eq!(judged(&[3, 4], Some(2), true), (vec![], vec![3, 4]));
    }

    #[test]
    fn what_stands_of_a_spool_whose_row_is_gone_stands_behind_its_end_if_another_vouches_for_it() {
        let (spool, numbers) = (SpoolName::new("spool-1").unwrap(), BTreeSet::from([4, 5]));
        let rows = |rows: [LeaseRow; 1]| rows.into_iter().map(|row| (row.shard.clone(), row)).collect();
        let other = LeaseRow::new(ShardId::new("spool-2"), Vec::new());
        assert_eq!(judge_by(&rows([other.clone()]), &spool, &numbers), Judged::default());
        let child = LeaseRow { parents: vec![ShardId::new("spool-1")], ..other };
        assert_eq!(judge_by(&rows([child]), &spool, &numbers), Judged { archived: vec![], behind: vec![4, 5] });
        assert_eq!(judge_by(&rows([row(Some(5), false)]), &spool, &numbers).archived, [4]);
    }

    #[test]
    fn what_is_gone_is_named_once() {
        let row = |shard: &str, ended, parents: &[&str]| LeaseRow {
            ended,
            origin: Some(ORIGIN.into()),
            ..LeaseRow::new(ShardId::new(shard), parents.iter().map(ShardId::new).collect())
        };
        let held = LeaseRow { owner: Some(crate::lease::WorkerId::new("w")), ..row("spool-held", true, &[]) };
        let foreign = LeaseRow { origin: None, ..row("spool-foreign", true, &[]) };
        let rows = [
            row("spool-1", true, &[]),
            row("spool-1-late-00000007", true, &[]),
            row("spool-2", true, &["spool-1"]),
            row("spool-3", false, &[]),
            row("spool-4", true, &[]),
            row("spool-4-late-00000007", true, &[]),
            held,
            foreign,
        ];
        let rows = rows.into_iter().map(|row| (row.shard.clone(), row)).collect();
        let standing = BTreeMap::from([(SpoolName::new("spool-4").unwrap(), BTreeSet::from([7]))]);
        let gone = gone(&rows, &standing);
        assert_eq!(gone, ["spool-1-late-00000007", "spool-2"].map(ShardId::new));
    }

    #[test]
    fn a_seal_is_kept_for_forty_days() {
        let written: Timestamp = "2026-11-21T09:31:00Z".parse().unwrap();
        assert!(!has_expired(written, "2026-12-31T09:31:00Z".parse().unwrap()));
        assert!(has_expired(written, "2026-12-31T09:31:01Z".parse().unwrap()));
        assert!(!has_expired(written, "2020-01-01T00:00:00Z".parse().unwrap()), "clocks differ");
    }
}
