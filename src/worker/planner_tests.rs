use super::*;
use crate::source::{SequenceNumber, Target};

/// Shards, rows, and what a worker knows of them.
#[derive(Clone)]
struct World {
    listed: Vec<Shard>,
    rows: BTreeMap<ShardId, LeaseRow>,
    expired: BTreeSet<ShardId>,
    busy: BTreeSet<ShardId>,
    resting: BTreeSet<ShardId>,
    sole_worker: bool,
}

fn id(name: &str) -> ShardId {
    ShardId::new(name)
}

fn worker(name: &str) -> WorkerId {
    WorkerId::new(name)
}

/// Shards of these names, each with its parents behind a colon: `c:a,b`.
fn world(shards: &[&str]) -> World {
    let shard = |text: &&str| {
        let (name, parents) = text.split_once(':').unwrap_or((text, ""));
        let parents = parents.split(',').filter(|parent| !parent.is_empty()).map(id).collect();
        Shard::new(id(name), parents, Target::Before { sequence: SequenceNumber::from(0), bytes: None })
    };
    let listed: Vec<Shard> = shards.iter().map(shard).collect();
    let row = |shard: &Shard| (shard.id.clone(), LeaseRow::new(shard.id.clone(), shard.parents.clone()));
    World {
        rows: listed.iter().map(row).collect(),
        listed,
        expired: BTreeSet::new(),
        busy: BTreeSet::new(),
        resting: BTreeSet::new(),
        sole_worker: false,
    }
}

impl World {
    fn row(&mut self, name: &str, change: impl FnOnce(&mut LeaseRow)) -> &mut Self {
        change(self.rows.get_mut(&id(name)).unwrap());
        self
    }

    fn owned(&mut self, name: &str, owner: &str) -> &mut Self {
        self.row(name, |row| row.owner = Some(worker(owner)))
    }

    fn ended(&mut self, name: &str) -> &mut Self {
        self.row(name, |row| (row.ended, row.batch_seq) = (true, 1))
    }

    fn moved_on(&mut self, name: &str) -> &mut Self {
        self.row(name, |row| row.batch_seq = 1)
    }

    fn with<T>(&self, me: &str, look: impl FnOnce(&View<'_>) -> T) -> T {
        let me = worker(me);
        let view = View {
            me: &me,
            sole_worker: self.sole_worker,
            listed: &self.listed,
            rows: &self.rows,
            expired: self.expired.iter().collect(),
            busy: &self.busy,
            resting: &self.resting,
        };
        look(&view)
    }

    fn startable(&self) -> String {
        self.with("me", |view| view.startable().iter().map(|shard| shard.as_str()).collect::<Vec<_>>().join(" "))
    }

    #[allow(clippy::redundant_closure_for_method_calls)] // the method itself is of one lifetime
    fn unowned(&self) -> usize {
        self.with("me", |view| view.unowned())
    }

    fn plan(&self, me: &str) -> Plan {
        self.with(me, |view| view.plan(false))
    }
}

#[test]
fn no_child_starts_before_both_parents_of_a_merge_have_ended() {
    let mut world = world(&["a", "b", "c:a,b"]);
    assert_eq!(world.startable(), "a b");
    world.ended("a");
    assert_eq!(world.startable(), "b");
    world.ended("b");
    assert_eq!(world.startable(), "c");
}

#[test]
fn an_end_that_is_not_committed_yet_holds_the_children_up() {
    let mut world = world(&["a", "c:a"]);
    let pending = || {
        let json = serde_json::json!({
            "batch_seq": 0, "range": {"after": "TRIM_HORIZON", "through": "TRIM_HORIZON"}, "shard_end": true,
            "window": {"start": "2026-11-21T09:30:00Z", "end": "2026-11-21T10:00:00Z"},
            "arrival": "2026-11-21T09:30:00Z", "layout": crate::config::Config::default().layout(), "gap": null,
        });
        serde_json::from_value(json).unwrap()
    };
    world.row("a", |row| (row.ended, row.pending) = (true, Some(pending())));
    assert_eq!(world.startable(), "a");
}

#[test]
fn a_parent_that_the_source_no_longer_has_holds_nothing_up_once_its_loss_is_written_down() {
    let mut world = world(&["gone", "c:gone,unknown"]);
    world.listed.remove(0);
    assert_eq!(world.startable(), "");
    world.row("gone", |row| row.caught_up = true);
    assert_eq!(world.startable(), "c");
    world.rows.remove(&id("gone"));
    assert_eq!(world.startable(), "c");
}

#[test]
fn a_listed_parent_without_a_row_holds_up_the_child_unless_that_has_moved_on() {
    let mut world = world(&["a", "c:a"]);
    world.rows.remove(&id("a"));
    assert_eq!(world.startable(), "");
    world.moved_on("c");
    assert_eq!(world.startable(), "c");
}

#[test]
fn what_runs_or_rests_or_has_ended_is_not_started() {
    let mut world = world(&["a", "b", "c"]);
    world.ended("b");
    world.busy.insert(id("a"));
    world.resting.insert(id("c"));
    assert_eq!(world.startable(), "");
}

#[test]
fn what_stopped_and_is_tried_again_is_not_unowned() {
    let mut world = world(&["a", "b", "c:a"]);
    assert_eq!(world.unowned(), 2);
    world.row("a", |row| row.stopped = Some(crate::lease::Stop::new(jiff::Timestamp::UNIX_EPOCH, &"why")));
    assert_eq!(world.unowned(), 1, "whoever it stopped at");
    world.resting.insert(id("b"));
    assert_eq!(world.unowned(), 0);
    world.owned("a", "other").expired.insert(id("a"));
    assert_eq!(world.unowned(), 1, "it was taken again, and its owner is dead");
}

#[test]
fn a_lease_is_free_if_nobody_alive_has_it_or_was_promised_it() {
    let mut world = world(&["a"]);
    world.owned("a", "other");
    assert_eq!(world.startable(), "");
    world.expired.insert(id("a"));
    assert_eq!(world.startable(), "a", "its owner is dead");
    world.expired.clear();
    world.row("a", |row| (row.owner, row.wanted_by) = (None, Some(worker("other"))));
    assert_eq!(world.startable(), "", "it was given up for another");
    world.expired.insert(id("a"));
    assert_eq!(world.startable(), "a", "who never came for it");
    world.expired.clear();
    world.row("a", |row| row.wanted_by = Some(worker("me")));
    assert_eq!(world.startable(), "a", "it was given up for this worker");
    world.row("a", |row| (row.owner, row.wanted_by) = (Some(worker("me")), None));
    assert_eq!(world.startable(), "a", "this worker held it, and reads it no more");
}

#[test]
fn a_sole_worker_finds_no_one_alive() {
    let mut world = world(&["a"]);
    world.owned("a", "other").sole_worker = true;
    assert_eq!(world.startable(), "a");
}

#[test]
fn the_first_worker_takes_everything_at_once() {
    let names: Vec<String> = (0..40).map(|n| format!("s{n:02}")).collect();
    let world = world(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut take = world.plan("me").take;
    take.sort();
    assert_eq!(take.iter().map(ShardId::as_str).collect::<Vec<_>>(), names);
}

#[test]
fn free_leases_are_taken_up_to_the_share() {
    let mut world = world(&["a", "b", "c", "d", "e"]);
    world.owned("a", "x").owned("b", "x");
    assert_eq!(world.plan("me").take.len(), 3);
    world.owned("c", "y");
    assert_eq!(world.plan("me").take.len(), 2);
}

#[test]
fn what_was_asked_for_is_taken_beyond_the_share() {
    let mut world = world(&["a", "b", "c"]);
    world.busy = [id("a"), id("b")].into();
    world.owned("a", "me").owned("b", "me").owned("c", "x");
    world.row("c", |row| (row.owner, row.wanted_by) = (None, Some(worker("me"))));
    assert_eq!(world.plan("me").take, [id("c")]);
}

#[test]
fn one_lease_at_a_time_is_asked_of_the_worker_that_has_two_more() {
    let mut world = world(&["a", "b", "c", "d"]);
    for (shard, taken_at) in
        [("a", "2026-11-21T09:00:00Z"), ("b", "2026-11-21T09:02:00Z"), ("c", "2026-11-21T09:01:00Z")]
    {
        world.owned(shard, "x").row(shard, |row| row.taken_at = Some(taken_at.parse().unwrap()));
    }
    world.owned("d", "me").busy.insert(id("d"));
    assert_eq!(world.plan("me").ask_for, Some(id("b")), "the one that moved last");
    assert_eq!(world.with("me", |view| view.plan(true)).ask_for, None, "it may pass by itself");
    world.row("b", |row| row.wanted_by = Some(worker("me")));
    assert_eq!(world.plan("me").ask_for, None, "one is on its way");
    world.row("b", |row| row.wanted_by = Some(worker("y")));
    assert_eq!(world.plan("me").ask_for, None, "what another was promised is not too many any more");
}

#[test]
fn a_worker_with_one_more_keeps_it() {
    let mut world = world(&["a", "b", "c"]);
    world.owned("a", "x").owned("b", "x").owned("c", "me").busy.insert(id("c"));
    assert_eq!(world.plan("me").ask_for, None);
}

#[test]
fn what_is_read_here_counts_as_read_here_though_the_row_that_was_seen_is_another_owners() {
    let mut world = world(&["a", "b", "c", "d"]);
    for (shard, owner) in [("a", "dead"), ("b", "dead"), ("c", "you"), ("d", "you")] {
        world.owned(shard, owner);
    }
    world.row("b", |row| row.wanted_by = Some(worker("other")));
    world.busy = [id("a"), id("b")].into();
    assert_eq!(world.plan("me").ask_for, None, "each has two");
}

#[test]
fn a_lease_that_another_worker_waits_for_leaves_room_for_one_that_is_free() {
    let mut world = world(&["a", "b", "c", "d"]);
    for shard in ["a", "b", "c"] {
        world.owned(shard, "me");
    }
    world.row("c", |row| row.wanted_by = Some(worker("you")));
    world.owned("d", "you");
    world.busy = [id("a"), id("b"), id("c")].into();
    world.listed.push(Shard::new(id("e"), Vec::new(), world.listed[0].end.clone()));
    world.rows.insert(id("e"), LeaseRow::new(id("e"), Vec::new()));
    assert_eq!(world.plan("me").take, [id("e")], "three of five");
}

#[test]
fn the_row_of_a_parent_whose_owner_is_dead_goes_too() {
    let mut world = world(&["p", "c:p"]);
    world.ended("p").owned("p", "dead").moved_on("c").owned("c", "you");
    assert_eq!(world.plan("me").forget, [], "it may be about to give it up");
    world.expired.insert(id("p"));
    assert_eq!(world.plan("me").forget, [id("p")]);
}

#[test]
fn the_row_of_a_parent_goes_when_all_of_its_children_have_moved_on() {
    let mut world = world(&["p", "a:p", "b:p"]);
    world.ended("p").moved_on("a");
    assert_eq!(world.plan("me").forget, []);
    world.moved_on("b");
    assert_eq!(world.plan("me").forget, [id("p")]);
    world.owned("p", "x");
    assert_eq!(world.plan("me").forget, []);
}

#[test]
fn a_child_that_nobody_has_begun_keeps_its_parents_row() {
    let mut world = world(&["p", "a:p", "b:p"]);
    world.ended("p").moved_on("a");
    world.rows.remove(&id("b"));
    assert_eq!(world.plan("me").forget, []);
    // It came and went: its own child has committed something.
    world.listed.extend(self::world(&["c:b"]).listed);
    world.rows.extend(self::world(&["c:b"]).rows);
    world.moved_on("c");
    assert_eq!(world.plan("me").forget, [id("p")]);
}

/// Who slept may plan by a list from before the split, and see the rows of those who know better: not of all children, for
/// one of them may have none.
#[test]
fn a_parent_whose_children_are_not_listed_yet_keeps_its_row() {
    let mut world = world(&["p", "a:p", "b:p"]);
    world.ended("p").moved_on("a");
    world.rows.remove(&id("b"));
    world.listed.truncate(1);
    assert_eq!(world.plan("me").forget, []);
}

/// Another worker may have made the child's row, by a listing that did not know its parents.
#[test]
fn a_parent_that_the_childs_row_does_not_name_keeps_its_row() {
    let mut world = world(&["p", "a:p"]);
    world.ended("p").moved_on("a");
    world.rows.get_mut(&id("a")).unwrap().parents.clear();
    assert_eq!(world.plan("me").forget, [], "nothing vouches for its end");
}

#[test]
fn an_ended_shard_without_children_keeps_its_row() {
    let mut world = world(&["p"]);
    world.ended("p");
    assert_eq!(world.plan("me").forget, []);
}

fn row(counter: u64) -> LeaseRow {
    LeaseRow { counter, owner: Some(worker("x")), ..LeaseRow::new(id("a"), Vec::new()) }
}

#[test]
fn a_lease_expires_when_its_counter_stands_still_for_the_failover() {
    let second = Duration::from_secs;
    let mut watch = Watch::new(second(10));
    watch.look([row(1)].iter(), second(100));
    assert!(!watch.is_expired(&row(1), second(100)));
    watch.look([row(1)].iter(), second(109));
    assert!(!watch.is_expired(&row(1), second(109)));
    watch.look([row(1)].iter(), second(110));
    assert!(watch.is_expired(&row(1), second(110)));
    watch.look([row(2)].iter(), second(111));
    assert!(!watch.is_expired(&row(2), second(111)));
}

#[test]
fn an_owner_whose_leases_last_longer_is_given_that_long() {
    let second = Duration::from_secs;
    let long = LeaseRow { failover: Some(second(30)), ..row(1) };
    let mut watch = Watch::new(second(10));
    for looked_at in (100..130).step_by(5) {
        watch.look([long.clone()].iter(), second(looked_at));
        assert!(!watch.is_expired(&long, second(looked_at)), "after {looked_at}");
    }
    watch.look([long.clone()].iter(), second(130));
    assert!(watch.is_expired(&long, second(130)));
}

#[test]
fn a_row_that_was_made_anew_is_free_once_whoever_had_the_lost_one_must_have_found_out() {
    let mut world = world(&["a", "b"]);
    let free = |world: &World| world.with("w", |view| view.startable().into_iter().cloned().collect::<Vec<_>>());
    world.row("a", |row| (row.remade_at, row.batch_seq) = (Some(4), 4));
    assert_eq!(free(&world), [id("b")]);
    world.expired.insert(id("a"));
    assert_eq!(free(&world), [id("a"), id("b")]);
    world.expired.clear();
    world.row("a", |row| row.taken_at = Some(jiff::Timestamp::UNIX_EPOCH));
    assert_eq!(free(&world), [id("a"), id("b")], "somebody has had it since");
}

#[test]
fn time_in_which_nobody_looked_does_not_count() {
    let second = Duration::from_secs;
    let mut watch = Watch::new(second(10));
    watch.look([row(1)].iter(), second(100));
    assert!(!watch.is_expired(&row(1), second(500)), "nobody has looked since");
    watch.look([row(1)].iter(), second(500));
    assert!(!watch.is_expired(&row(1), second(500)), "the table may have been away for the owner too");
    watch.look([row(1)].iter(), second(510));
    assert!(watch.is_expired(&row(1), second(510)));
}

/// Workers that plan in turns over one table, each lease moving as the plans say.
struct Fleet {
    world: World,
    workers: Vec<&'static str>,
    taken: i64,
    moves: BTreeMap<ShardId, u32>,
}

impl Fleet {
    fn new(shards: usize, workers: &[&'static str]) -> Self {
        let names: Vec<String> = (0..shards).map(|n| format!("s{n:03}")).collect();
        let world = world(&names.iter().map(String::as_str).collect::<Vec<_>>());
        Self { world, workers: workers.to_vec(), taken: 0, moves: BTreeMap::new() }
    }

    fn held(&self, name: &str) -> BTreeSet<ShardId> {
        let held = self.world.rows.values().filter(|row| row.owner == Some(worker(name)));
        held.map(|row| row.shard.clone()).collect()
    }

    fn take(&mut self, name: &str, shard: &ShardId) {
        self.taken += 1;
        let taken_at = jiff::Timestamp::from_second(self.taken).unwrap();
        self.world.row(shard.as_str(), |row| {
            row.owner = Some(worker(name));
            row.wanted_by = None;
            row.taken_at = Some(taken_at);
        });
        *self.moves.entry(shard.clone()).or_default() += 1;
    }

    /// Every worker plans once, and gives up what others ask for.
    fn cycle(&mut self) {
        for name in self.workers.clone() {
            self.world.busy = self.held(name);
            let plan = self.world.plan(name);
            for shard in &plan.take {
                self.take(name, shard);
            }
            if let Some(shard) = plan.ask_for {
                self.world.row(shard.as_str(), |row| row.wanted_by = Some(worker(name)));
            }
            let asked = |row: &&mut LeaseRow| row.owner == Some(worker(name)) && row.wanted_by.is_some();
            self.world.rows.values_mut().filter(asked).for_each(|row| row.owner = None);
        }
    }

    fn settle(&mut self) {
        for _ in 0..500 {
            self.cycle();
        }
        let counts: Vec<usize> = self.workers.iter().map(|name| self.held(name).len()).collect();
        assert_eq!(counts.iter().sum::<usize>(), self.world.rows.len(), "every shard has an owner");
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
    }

    fn stop(&mut self, name: &str) {
        self.workers.retain(|worker| *worker != name);
        let owned = |row: &&mut LeaseRow| row.owner == Some(worker(name));
        self.world.rows.values_mut().filter(owned).for_each(|row| row.owner = None);
    }
}

#[test]
fn workers_that_come_and_go_end_within_one_lease_of_each_other() {
    for shards in [1, 2, 7, 40, 41] {
        let mut fleet = Fleet::new(shards, &["u"]);
        fleet.cycle();
        assert_eq!(fleet.held("u").len(), shards, "all are taken in one cycle");
        fleet.workers.extend(["v", "w"]);
        fleet.settle();
        fleet.workers.push("x");
        fleet.settle();
        fleet.stop("v");
        fleet.settle();
        let before = fleet.moves.clone();
        fleet.settle();
        assert_eq!(fleet.moves, before, "nothing moves once they are even");
    }
}

#[test]
fn a_rolling_restart_moves_each_lease_at_most_twice() {
    // Where shards can't be shared out evenly, one that is left over may move once more.
    for (shards, left_over) in [(9, 0), (42, 0), (40, 1)] {
        let mut fleet = Fleet::new(shards, &["u1", "v1", "w1"]);
        fleet.settle();
        fleet.moves.clear();
        for (old, new) in [("u1", "u2"), ("v1", "v2"), ("w1", "w2")] {
            fleet.stop(old);
            fleet.settle();
            fleet.workers.push(new);
            fleet.settle();
        }
        let often = fleet.moves.values().filter(|&&moves| moves > 2).count();
        assert!(often <= left_over, "{:?}", fleet.moves);
    }
}

#[test]
fn the_row_of_an_end_that_no_manifest_tells_of_stays_while_the_shard_is_listed() {
    let mut world = world(&["a", "b:a"]);
    world.row("a", |row| row.ended = true).moved_on("b");
    assert_eq!(world.plan("me").forget, []);
    world.listed.remove(0);
    assert_eq!(world.plan("me").forget, [id("a")]);
}

#[test]
fn what_rests_here_is_not_asked_for() {
    let mut world = world(&["a", "b"]);
    for (at, shard) in (0..).zip(["a", "b"]) {
        world.owned(shard, "other").row(shard, |row| row.taken_at = Some(jiff::Timestamp::new(at, 0).unwrap()));
    }
    assert_eq!(world.plan("me").ask_for, Some(id("b")));
    world.resting.insert(id("b"));
    assert_eq!(world.plan("me").ask_for, Some(id("a")));
    world.resting.insert(id("a"));
    assert_eq!(world.plan("me").ask_for, None);
    assert_eq!(world.with("me", |view| view.plan(false).ask_for), None);
}
