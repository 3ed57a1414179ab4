//! One call for claims: what has to be written and read until all of it is answered. Pure.
//!
//! Nobody is expected to hold anything: an item is written before it is read, and read only where one stood in the way.
//! So a new record costs one write, and a copy one write that fails and one read.

use std::collections::HashMap;

use jiff::Timestamp;

use super::item::{Held, Item, answer, key};
use crate::dedupe::{Claim, Verdict};
use crate::source::ShardId;

/// The claims of one call, by the items that they go to.
pub(super) struct Call<'c> {
    shard: &'c ShardId,
    claims: &'c [Claim<'c>],
    /// Seconds since 1970.
    now: i64,
    /// When a claim that is made now expires, in seconds since 1970.
    expires_at: i64,
    groups: Vec<Group>,
}

/// The claims that go to one item, in their order.
struct Group {
    key: String,
    claims: Vec<usize>,
    verdicts: Vec<Verdict>,
    next: Next,
}

/// What a group waits for.
enum Next {
    Write(Write),
    Read,
    Nothing,
}

/// A write that lets a group's answers hold.
#[derive(Clone, Debug)]
pub(super) struct Write {
    /// The item's key.
    pub(super) key: String,
    /// All holders from now on.
    pub(super) holders: Vec<Held>,
    /// Seconds since 1970.
    pub(super) expires_at: i64,
    /// The revision, and `expires_at`, of the item that is replaced, and of no other; there must be none where there is
    /// none here. A revision alone would not do: an item that its time to live removed begins anew at 1.
    pub(super) replaces: Option<(u64, i64)>,
}

/// What came of a write or a read.
#[derive(Clone, Debug)]
pub(super) enum Done {
    /// The write holds.
    Written,
    /// Another item stands there than the condition says.
    Stands,
    /// This is what stands there.
    Found(Option<Item>),
}

impl<'c> Call<'c> {
    /// Nothing is known yet. A claim is kept for `window` seconds.
    pub(super) fn new(
        generation: &str,
        shard: &'c ShardId,
        claims: &'c [Claim<'c>],
        now: Timestamp,
        window: i64,
    ) -> Self {
        let mut places: HashMap<String, usize> = HashMap::with_capacity(claims.len());
        let mut groups: Vec<Group> = Vec::with_capacity(claims.len());
        for (index, claim) in claims.iter().enumerate() {
            let key = key(generation, &claim.identity);
            let place = *places.entry(key.clone()).or_insert_with(|| {
                groups.push(Group { key, claims: Vec::with_capacity(1), verdicts: Vec::new(), next: Next::Nothing });
                groups.len() - 1
            });
            groups[place].claims.push(index);
        }
        let now = now.as_second();
        let mut call = Self { shard, claims, now, expires_at: now.saturating_add(window).saturating_add(1), groups };
        (0..call.groups.len()).for_each(|group| call.judge(group, None));
        call
    }

    /// The writes to be made, each with its group.
    pub(super) fn writes(&self) -> Vec<(usize, Write)> {
        let write = |(index, group): (usize, &Group)| match &group.next {
            Next::Write(write) => Some((index, write.clone())),
            _ => None,
        };
        self.groups.iter().enumerate().filter_map(write).collect()
    }

    /// The keys to be read, each with its group.
    pub(super) fn reads(&self) -> Vec<(usize, String)> {
        let read =
            |(index, group): (usize, &Group)| matches!(group.next, Next::Read).then(|| (index, group.key.clone()));
        self.groups.iter().enumerate().filter_map(read).collect()
    }

    /// How many groups are not answered.
    pub(super) fn open(&self) -> usize {
        self.groups.iter().filter(|group| !matches!(group.next, Next::Nothing)).count()
    }

    /// Goes on with a group.
    pub(super) fn done(&mut self, group: usize, done: Done) {
        match done {
            Done::Written => self.groups[group].next = Next::Nothing,
            Done::Stands => self.groups[group].next = Next::Read,
            Done::Found(item) => self.judge(group, item),
        }
    }

    /// The answers, in the order of the claims, once nothing is open.
    pub(super) fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts = vec![Verdict::New; self.claims.len()];
        for group in &self.groups {
            for (&claim, &verdict) in group.claims.iter().zip(&group.verdicts) {
                verdicts[claim] = verdict;
            }
        }
        verdicts
    }

    fn judge(&mut self, group: usize, found: Option<Item>) {
        let group = &mut self.groups[group];
        let replaces = found.as_ref().map(|item| (item.revision, item.expires_at));
        // What has expired counts as absent: the table removes it when it pleases.
        let alive = found.filter(|item| item.expires_at > self.now);
        let expires_at = alive.as_ref().map_or(self.expires_at, |item| item.expires_at.max(self.expires_at));
        let mut holders = alive.map(|item| item.holders).unwrap_or_default();
        let mut is_changed = false;
        group.verdicts.clear();
        for &claim in &group.claims {
            let (verdict, holds) = answer(&mut holders, self.shard, &self.claims[claim]);
            group.verdicts.push(verdict);
            is_changed |= holds;
        }
        group.next = if is_changed {
            Next::Write(Write { key: group.key.clone(), holders, expires_at, replaces })
        } else {
            Next::Nothing
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedupe::{Core, Identity};
    use crate::record::DetailsSource;
    use crate::source::Position;

    const WINDOW: i64 = 100;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000).unwrap()
    }

    fn core(base: u64) -> Core {
        Core { base, details_source: DetailsSource::None, details: 0 }
    }

    fn claim<'a>(log_id: &'a str, position: &'a Position, base: u64) -> Claim<'a> {
        Claim { identity: Identity::LogId { log_id, version: 1 }, position: position.record(0), core: core(base) }
    }

    /// The item that a write leaves behind.
    fn item(write: &Write) -> Item {
        let revision = write.replaces.map_or(1, |(revision, _)| revision + 1);
        Item { holders: write.holders.clone(), revision, expires_at: write.expires_at }
    }

    #[test]
    fn new_records_are_written_unread_and_copies_in_one_call_share_their_write() {
        let (shard, at) = (ShardId::new("s"), [Position::new(1), Position::new(2), Position::new(3)]);
        let claims = [claim("x", &at[0], 1), claim("y", &at[1], 1), claim("x", &at[2], 1)];
        let mut call = Call::new("g", &shard, &claims, now(), WINDOW);
        assert!(call.reads().is_empty());
        let writes = call.writes();
        let shown: Vec<(&str, usize, bool)> = writes
            .iter()
            .map(|(_, write)| (write.key.as_str(), write.holders.len(), write.replaces.is_none()))
            .collect();
        assert_eq!(shown, [("g#L#x", 1, true), ("g#L#y", 1, true)]);
        for (group, _) in &writes {
            call.done(*group, Done::Written);
        }
        assert_eq!(call.open(), 0);
        assert_eq!(call.verdicts(), [Verdict::New, Verdict::New, Verdict::Duplicate]);
    }

    #[test]
    fn an_answer_that_was_lost_is_found_again() {
        let (shard, at) = (ShardId::new("s"), Position::new(1));
        let claims = [claim("x", &at, 1)];
        let mut call = Call::new("g", &shard, &claims, now(), WINDOW);
        let applied = item(&call.writes()[0].1);
        call.done(0, Done::Stands);
        assert_eq!(call.reads(), [(0, "g#L#x".to_owned())]);
        call.done(0, Done::Found(Some(applied)));
        assert_eq!((call.open(), call.verdicts()), (0, vec![Verdict::New]));
    }

    #[test]
    fn another_record_of_the_same_identity_claims_beside_the_first_on_its_revision() {
        let (shard, at) = (ShardId::new("s"), [Position::new(1), Position::new(2)]);
        let first = [claim("x", &at[0], 1)];
        let standing = Item { revision: 4, ..item(&Call::new("g", &shard, &first, now(), WINDOW).writes()[0].1) };
        let second = [claim("x", &at[1], 2)];
        let mut call = Call::new("g", &shard, &second, now(), WINDOW);
        call.done(0, Done::Stands);
        call.done(0, Done::Found(Some(standing.clone())));
        let (_, write) = call.writes().pop().unwrap();
        assert_eq!((write.holders.len(), write.replaces), (2, Some((4, standing.expires_at))));
        // Somebody else was faster: nothing of what was judged by the old item is left.
        call.done(0, Done::Stands);
        call.done(0, Done::Found(None));
        assert_eq!(call.verdicts(), [Verdict::New]);
        assert_eq!(call.writes()[0].1.replaces, None);
    }

    #[test]
    fn what_has_expired_counts_as_absent_and_is_replaced() {
        let (shard, at) = (ShardId::new("s"), [Position::new(1), Position::new(2)]);
        let first = [claim("x", &at[0], 1)];
        let standing = item(&Call::new("g", &shard, &first, now(), WINDOW).writes()[0].1);
        assert_eq!(standing.expires_at, 1_101);
        let judged = |second: i64| {
            let copy = [claim("x", &at[1], 1)];
            let mut call = Call::new("g", &shard, &copy, Timestamp::from_second(second).unwrap(), WINDOW);
            call.done(0, Done::Stands);
            call.done(0, Done::Found(Some(standing.clone())));
            (call.verdicts()[0], call.writes().pop().map(|(_, write)| write))
        };
        assert!(matches!(judged(1_100), (Verdict::Duplicate, None)));
        let (verdict, write) = judged(1_101);
        let write = write.unwrap();
        assert_eq!((verdict, write.holders.len(), write.replaces), (Verdict::New, 1, Some((1, 1_101))));
    }
}
