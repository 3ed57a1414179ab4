//! The stream's shards: what `ListShards` says, and what shards that end say of their children before it does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_kinesis::types::{ChildShard, HashKeyRange};
use jiff::Timestamp;

use super::fault::{Fault, fault};
use super::stream::Stream;
use crate::source::{HashRange, Shard, ShardId, Target};

/// For how long a shard that is known to be open is kept though a listing leaves it out. An open shard can't vanish: it
/// ends first, and is listed for as long as the stream keeps its records. So the listing is behind.
const TRUST: Duration = Duration::from_hours(1);
/// How long to rest after a listing that failed, while an older one serves.
const REST: Duration = Duration::from_secs(5);
/// How often that is told.
const TELL: Duration = Duration::from_mins(1);

/// A shard as it was last heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) parents: Vec<ShardId>,
    pub(super) hash_range: Option<HashRange>,
    /// It takes no more records.
    pub(super) ended: bool,
}

/// The shards that are known. Pure; times are monotonic.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    known: BTreeMap<ShardId, (Entry, Duration)>,
}

impl Catalogue {
    /// Takes a whole listing. What it leaves out has gone, except shards that can't have.
    pub(super) fn listed(&mut self, listing: BTreeMap<ShardId, Entry>, now: Duration) {
        let can_not_have_gone = |entry: &Entry, heard: Duration| !entry.ended && now < heard + TRUST;
        self.known.retain(|id, (entry, heard)| listing.contains_key(id) || can_not_have_gone(entry, *heard));
        self.known.extend(listing.into_iter().map(|(id, entry)| (id, (entry, now))));
    }

    /// Takes the children that a shard named at its end.
    pub(super) fn announced(&mut self, children: Vec<(ShardId, Entry)>, now: Duration) {
        for (id, entry) in children {
            self.known.entry(id).or_insert((entry, now));
        }
    }

    fn get(&self, shard: &ShardId) -> Option<&Entry> {
        self.known.get(shard).map(|(entry, _)| entry)
    }

    /// Every shard, parents before their children, those that are as old as each other by name.
    pub(super) fn shards(&self, now: Timestamp) -> Vec<Shard> {
        let mut placed = BTreeSet::new();
        let mut order = Vec::with_capacity(self.known.len());
        for id in self.known.keys() {
            self.place(id, &mut placed, &mut order);
        }
        let shard = |id: ShardId| {
            let entry = &self.known[&id].0;
            let (parents, hash_range) = (entry.parents.clone(), entry.hash_range.clone());
            Shard { id, parents, end: Target::Arrival(now), hash_range }
        };
        order.into_iter().map(shard).collect()
    }

    /// Puts a shard behind its parents. Walks with a stack of its own: a stream may have been split any number of times.
    fn place(&self, id: &ShardId, placed: &mut BTreeSet<ShardId>, order: &mut Vec<ShardId>) {
        let mut path = vec![(id, false)];
        while let Some((id, parents_are_placed)) = path.pop() {
            let Some((entry, _)) = self.known.get(id) else { continue };
            if parents_are_placed {
                order.push(id.clone());
            } else if placed.insert(id.clone()) {
                path.push((id, true));
                path.extend(entry.parents.iter().map(|parent| (parent, false)));
            }
        }
    }
}

/// The catalogue of a stream, kept up to date.
pub(super) struct Shards {
    stream: Arc<Stream>,
    every: Duration,
    catalogue: Mutex<Catalogue>,
    /// When to list next, in monotonic time, and when a failure was last told. Held while listing: one asks for all.
    next: tokio::sync::Mutex<Schedule>,
}

#[derive(Debug, Default)]
struct Schedule {
    listed: Option<Duration>,
    due: Duration,
    told: Option<Duration>,
}

impl Shards {
    /// The shards of `stream`, listed at most once in `every`.
    pub(super) fn new(stream: Arc<Stream>, every: Duration) -> Self {
        Self { stream, every, catalogue: Mutex::default(), next: tokio::sync::Mutex::default() }
    }

    fn catalogue<T>(&self, act: impl FnOnce(&mut Catalogue) -> T) -> T {
        act(&mut self.catalogue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every shard that is known. An older listing serves where a new one fails for reasons that may pass.
    pub(super) async fn all(&self) -> Result<Vec<Shard>, Fault> {
        self.refresh(None).await?;
        Ok(self.catalogue(|catalogue| catalogue.shards(self.stream.clock.now())))
    }

    /// Whether the stream has such a shard.
    pub(super) async fn has(&self, shard: &ShardId) -> Result<bool, Fault> {
        let known = || self.catalogue(|catalogue| catalogue.get(shard).is_some());
        if !known() {
            self.refresh(Some(Duration::from_secs(1))).await?;
        }
        Ok(known())
    }

    /// Whether a new listing says that the shard has ended.
    pub(super) async fn has_ended(&self, shard: &ShardId) -> Result<bool, Fault> {
        self.refresh(Some(Duration::ZERO)).await?;
        Ok(self.is_known_to_have_ended(shard))
    }

    /// Whether the last listing said that the shard has ended.
    pub(super) fn is_known_to_have_ended(&self, shard: &ShardId) -> bool {
        self.catalogue(|catalogue| catalogue.get(shard).is_some_and(|entry| entry.ended))
    }

    /// The children that a shard named at its end.
    pub(super) fn announce(&self, children: &[ChildShard]) {
        let entry = |child: &ChildShard| {
            let parents = child.parent_shards.iter().map(ShardId::new).collect();
            let hash_range = child.hash_key_range.as_ref().map(hash_range);
            (ShardId::new(&child.shard_id), Entry { parents, hash_range, ended: false })
        };
        let (children, now) = (children.iter().map(entry).collect(), self.stream.clock.monotonic());
        self.catalogue(|catalogue| catalogue.announced(children, now));
    }

    /// Lists if it is time to, or if the last listing is older than `at_most`.
    async fn refresh(&self, at_most: Option<Duration>) -> Result<(), Fault> {
        let asked = self.stream.clock.monotonic();
        let mut next = self.next.lock().await;
        let fresh = match at_most {
            Some(age) => next.listed.is_some_and(|listed| listed + age > asked),
            None => asked < next.due,
        };
        if fresh {
            return Ok(());
        }
        let listing = self.list().await;
        let now = self.stream.clock.monotonic();
        match listing {
            Ok(listing) => {
                self.catalogue(|catalogue| catalogue.listed(listing, now));
                *next = Schedule { listed: Some(now), due: now + self.every, told: next.told };
                Ok(())
            }
            Err(Fault::Passing(reason)) if next.listed.is_some() && at_most.is_none() => {
                next.due = now + REST;
                if next.told.is_none_or(|told| told + TELL <= now) {
                    next.told = Some(now);
                    tracing::warn!(reason, "the shards can't be listed; those that are known will do for now");
                }
                Ok(())
            }
            Err(Fault::Missing(words)) => Err(self.stream.explain_missing("the list of shards", &words).await),
            Err(fault) => Err(fault),
        }
    }

    /// All pages of a listing.
    async fn list(&self) -> Result<BTreeMap<ShardId, Entry>, Fault> {
        let (mut listing, mut token) = (BTreeMap::new(), None::<String>);
        loop {
            let call = self.stream.client.list_shards();
            // A token stands for the stream: the service refuses both together.
            let call = match token.take() {
                Some(token) => call.next_token(token),
                None => call.stream_arn(&self.stream.arn),
            };
            let answer = call.send().await.map_err(|error| fault("ListShards", &error))?;
            for shard in answer.shards.unwrap_or_default() {
                let parents = [shard.parent_shard_id, shard.adjacent_parent_shard_id];
                let entry = Entry {
                    parents: parents.into_iter().flatten().map(ShardId::new).collect(),
                    hash_range: shard.hash_key_range.as_ref().map(hash_range),
                    ended: shard.sequence_number_range.is_some_and(|range| range.ending_sequence_number.is_some()),
                };
                listing.insert(ShardId::new(shard.shard_id), entry);
            }
            token = answer.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(listing);
            }
        }
    }
}

fn hash_range(range: &HashKeyRange) -> HashRange {
    HashRange { start: range.starting_hash_key.as_str().into(), end: range.ending_hash_key.as_str().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(parents: &[&str], ended: bool) -> Entry {
        Entry { parents: parents.iter().map(ShardId::new).collect(), hash_range: None, ended }
    }

    fn listing(shards: &[(&str, &[&str], bool)]) -> BTreeMap<ShardId, Entry> {
        shards.iter().map(|(id, parents, ended)| (ShardId::new(id), entry(parents, *ended))).collect()
    }

    fn names(catalogue: &Catalogue) -> String {
        let shards = catalogue.shards(Timestamp::UNIX_EPOCH);
        shards.iter().map(|shard| shard.id.as_str()).collect::<Vec<_>>().join(" ")
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn parents_stand_before_their_children_whatever_they_are_called() {
        let mut catalogue = Catalogue::default();
        // "a" came from "x" and "b"; "x" from "z", which is gone.
        catalogue.listed(listing(&[("a", &["x", "b"], false), ("b", &[], true), ("x", &["z"], true)]), SECOND);
        let order = names(&catalogue);
        assert!(order == "x b a" || order == "b x a", "{order}");
    }

    #[test]
    fn a_listing_that_is_behind_drops_no_child() {
        let mut catalogue = Catalogue::default();
        catalogue.listed(listing(&[("0", &[], false)]), SECOND);
        let child = |id| (ShardId::new(id), entry(&["0"], false));
        catalogue.announced(vec![child("1"), child("2")], SECOND * 2);
        catalogue.listed(listing(&[("0", &[], false)]), SECOND * 60);
        assert_eq!(names(&catalogue), "0 1 2");
        // One listing has them, the next is behind again.
        catalogue.listed(listing(&[("0", &[], true), ("1", &["0"], false), ("2", &["0"], false)]), SECOND * 120);
        catalogue.listed(listing(&[("0", &[], false)]), SECOND * 180);
        assert_eq!(names(&catalogue), "0 1 2");
    }

    #[test]
    fn what_ended_and_is_listed_no_more_has_gone() {
        let mut catalogue = Catalogue::default();
        catalogue.listed(listing(&[("0", &[], true), ("1", &["0"], false)]), SECOND);
        catalogue.listed(listing(&[("1", &["0"], false)]), SECOND * 2);
        assert_eq!(names(&catalogue), "1");
    }

    #[test]
    fn an_open_shard_that_no_listing_has_for_an_hour_has_gone_too() {
        let mut catalogue = Catalogue::default();
        catalogue.listed(listing(&[("0", &[], false)]), SECOND);
        catalogue.listed(listing(&[]), SECOND * 3600);
        assert_eq!(names(&catalogue), "0");
        catalogue.listed(listing(&[]), SECOND * 3601);
        assert_eq!(names(&catalogue), "");
    }

    #[test]
    fn what_an_announcement_says_does_not_undo_what_a_listing_said() {
        let mut catalogue = Catalogue::default();
        catalogue.listed(listing(&[("1", &["0"], true)]), SECOND);
        catalogue.announced(vec![(ShardId::new("1"), entry(&["0"], false))], SECOND);
        assert!(catalogue.get(&ShardId::new("1")).unwrap().ended);
    }

    #[test]
    fn a_long_history_of_splits_is_walked() {
        let mut catalogue = Catalogue::default();
        let names: Vec<String> = (0..20_000).map(|number| format!("{:05}", 19_999 - number)).collect();
        let known = names.iter().enumerate().map(|(index, name)| {
            let parents = index.checked_sub(1).map(|before| ShardId::new(&names[before])).into_iter().collect();
            (ShardId::new(name), Entry { parents, hash_range: None, ended: true })
        });
        catalogue.listed(known.collect(), SECOND);
        let shards = catalogue.shards(Timestamp::UNIX_EPOCH);
        assert_eq!(shards.len(), 20_000);
        assert_eq!(shards[0].id.as_str(), names[0]);
    }
}
