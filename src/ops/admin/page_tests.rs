use std::collections::VecDeque;

use super::*;
use crate::archive::manifest::Counts;
use crate::batch::CutReason;
use crate::lease::{LeaseRow, Stop};
use crate::source::{Checkpoint, ShardId};
use crate::verify::Kind;
use crate::worker::board::Look;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn moment() -> PageMoment {
    PageMoment {
        now: NOW,
        monotonic: Duration::ZERO,
        started: NOW - Duration::from_mins(90),
        worker: Some("this-one".into()),
        shown: Shown::default(),
        committed: Tally::default(),
        verified: None,
    }
}

fn rendered(moment: &PageMoment) -> String {
    moment.render(None).into_string()
}

fn object(kind: ObjectKind, number: usize) -> CommittedObject {
    CommittedObject { kind, key: format!("{}/{number}.parquet", kind.as_str()), bytes: 2_048 }
}

fn verified(findings: u64, named: usize) -> PageMoment {
    let first = (0..named).map(|number| (Kind::AlteredObject, format!("events/{number}"))).collect();
    let at = NOW - Duration::from_hours(3);
    let verified = Verified { at, limits: Vec::new(), whole_at: Some(at), findings, found_at: None, first };
    PageMoment { verified: Some(verified), ..moment() }
}

/// One batch of these objects was committed.
fn committed(objects: Vec<CommittedObject>) -> PageMoment {
    let batch = Committed {
        shard: ShardId::new("s"),
        batch_seq: 7,
        at: NOW,
        cut: CutReason::Window,
        counts: Counts::default(),
        objects,
    };
    PageMoment { shown: Shown { recent: VecDeque::from([batch]), ..Shown::default() }, ..moment() }
}

#[test]
fn a_rejected_object_is_named_first_however_many_others_there_are() {
    let mut objects: Vec<_> = (0..20).map(|number| object(ObjectKind::Events, number)).collect();
    objects.push(object(ObjectKind::Rejected, 20));
    let page = rendered(&committed(objects));
    let place = |word: &str| page.find(word).unwrap_or_else(|| panic!("no {word} in {page}"));
    assert!(place("rejected/20.parquet") < place("events/0.parquet"), "{page}");
    assert!(place("events/6.parquet") < place("and 13 more") && !page.contains("events/7.parquet"), "{page}");
}

#[test]
fn objects_stand_in_a_row_of_their_own_that_needs_no_click() {
    let page = rendered(&committed(vec![object(ObjectKind::Events, 0)]));
    let row = "</tr><tr><td class=\"keys\" colspan=\"8\"><div><code>events/0.parquet</code>";
    assert!(page.contains(row), "{page}");
    assert!(!rendered(&committed(Vec::new())).contains("colspan"));
}

#[test]
fn one_finding_is_named_as_one() {
    let page = rendered(&verified(1, 1));
    assert!(page.contains(">1 finding</b><span class=\"dim\">last verify, 3h ago</span>"), "{page}");
    assert!(page.contains("altered_object <code>events/0</code>") && !page.contains(" more; "), "{page}");
}

#[test]
fn a_finding_that_stands_from_before_is_not_the_last_verifys() {
    let mut moment = verified(1, 1);
    moment.verified.as_mut().unwrap().found_at = Some(NOW - Duration::from_hours(50));
    let page = rendered(&moment);
    assert!(page.contains(">1 finding</b><span class=\"dim\">found 2d 2h ago; last verify, 3h ago</span>"), "{page}");
    assert!(
        page.contains(">A verify 2d 2h ago found damage in the archive, and none since then looked at as much:"),
        "{page}"
    );
    assert!(page.contains("altered_object <code>events/0</code>") && !page.contains("The last verify"), "{page}");
}

#[test]
fn of_many_findings_the_first_are_named_and_the_others_counted() {
    let page = rendered(&verified(1_234, 5));
    assert!(page.contains(">1,234 findings</b>"), "{page}");
    assert!(page.contains("events/4") && page.contains("and 1,229 more; <code>auditlake verify</code>"), "{page}");
}

#[test]
fn where_nothing_is_damaged_no_damage_is_spoken_of() {
    let page = rendered(&verified(0, 0));
    assert!(page.contains(">intact</b><span class=\"dim\">last verify, 3h ago</span>"), "{page}");
    assert!(!page.contains("damage"), "{page}");
    assert!(rendered(&moment()).contains(">none yet</b><span class=\"dim\">last verify</span>"));
}

#[test]
fn only_a_whole_proof_with_its_tail_is_green() {
    use crate::verify::Covered;
    use crate::verify::recorded::{Recorded, Standing};
    let proof = Recorded {
        archive_id: uuid::Uuid::nil(),
        began: NOW - Duration::from_hours(3),
        covered: Covered::default(),
        tail_compared: true,
        tail_proved: true,
        objects: Some(5),
        objects_read: Some(0),
        archive_digest: None,
        chain_heads: None,
        against: None,
        findings_total: 0,
        findings: Vec::new(),
    };
    let page = |newest: Recorded| {
        let verified = Verified::of(&Standing { newest, uncleared: None, whole_at: None });
        rendered(&PageMoment { verified: Some(verified), ..moment() })
    };
    assert!(page(proof.clone()).contains("<b class=\"good\">intact</b><span class=\"dim\">last verify, 3h ago</span>"));
    let since = Some("2027-01-01T00:00:00Z".parse().unwrap());
    for (weaker, said) in [
        (
            Recorded { covered: Covered { fast: true, ..Covered::default() }, ..proof.clone() },
            "fast: by size or checksum only",
        ),
        (
            Recorded { covered: Covered { since, ..Covered::default() }, ..proof.clone() },
            "since 2027-01-01T00:00:00Z: 0 of 5 objects read",
        ),
        (Recorded { tail_proved: false, ..proof.clone() }, "tail not proved"),
    ] {
        let page = page(weaker);
        let tile = format!("<b class=\"\">nothing found</b><span class=\"dim\">last verify, 3h ago; {said}</span>");
        assert!(page.contains(&tile) && !page.contains("intact"), "{page}");
    }
}

#[test]
fn one_shard_is_not_many() {
    let page = rendered(&moment());
    assert!(page.contains("<b class=\"\">0</b><span class=\"dim\">shards read here<"), "{page}");
    let shard = ShardId::new("s");
    let held = HeldShard::of(&LeaseRow::new(shard.clone(), Vec::new()), None);
    let shown = Shown { held: [(shard, held)].into(), ..Shown::default() };
    let page = rendered(&PageMoment { shown, ..moment() });
    assert!(page.contains("<b class=\"\">1</b><span class=\"dim\">shard read here<"), "{page}");
}

#[test]
fn totals_say_since_when_they_count() {
    let page = rendered(&moment());
    let (heading, total) = (page.find("Since this worker's start, 1h 30m ago"), page.find(">archived<"));
    assert!(heading.is_some() && heading < total, "{page}");
}

fn seen(shard: &str, owner: &str) -> SeenShard {
    SeenShard {
        shard: ShardId::new(shard),
        owner: Some(owner.into()),
        checkpoint: Checkpoint::TrimHorizon,
        batches: 1_000,
        ended: false,
        archived_through: None,
        pending: false,
        stopped: None,
    }
}

#[test]
fn a_shard_that_stopped_elsewhere_says_why_until_somebody_takes_it() {
    let stopped = Some(Stop::new(NOW - Duration::from_millis(119_500), &"the file was <replaced>"));
    let page = |owner: Option<&str>| {
        let archived_through = Some(NOW - Duration::from_secs(67));
        let owner = owner.map(Into::into);
        let shard = SeenShard { owner, stopped: stopped.clone(), archived_through, ..seen("a", "x") };
        let shown = Shown { look: Some(Look { shards: vec![shard], unowned: 0 }), ..moment().shown };
        rendered(&PageMoment { shown, ..moment() })
    };
    let waiting = page(None);
    assert!(
        waiting.contains(">stopped</td>")
            && waiting.contains("\"at 1969-12-31T23:58:00Z: the file was &lt;replaced&gt;\""),
        "{waiting}"
    );
    let most_behind = "<b class=\"\">1m 7s</b><span class=\"dim\">most behind<";
    assert!(waiting.contains(most_behind), "{waiting}");
    let taken = page(Some("another"));
    assert!(taken.contains(">read elsewhere</td>") && !taken.contains("replaced"), "{taken}");
}

#[test]
fn where_the_state_is_away_a_worker_knows_its_own_shards() {
    let read = |shard, owner, minutes| {
        let through = Some(NOW - Duration::from_mins(minutes));
        SeenShard { archived_through: through, ..seen(shard, owner) }
    };
    let ended = SeenShard { ended: true, ..read("c", "this-one", 50) };
    let shards = vec![read("a", "this-one", 7), read("b", "another-worker", 99), ended];
    let shown = Shown { look: Some(Look { shards, unowned: 0 }), ..Shown::default() };
    let away = Shown { failing: Some((Duration::from_mins(2), "away".into())), ..shown.clone() };
    let page = rendered(&PageMoment { shown: away, monotonic: Duration::from_mins(7), ..moment() });
    for said in [
        "data-is=\"state\">lease ran out<",
        "title=\"this worker\">this worker<",
        "title=\"another-worker\">another-worker<",
        "<b class=\"\">7m</b><span class=\"dim\">most behind<",
        "shown as it was 5m ago.",
    ] {
        assert_eq!(page.matches(said).count(), 1, "{said}: {page}");
    }
    let page = rendered(&PageMoment { shown, ..moment() });
    assert!(page.contains("data-is=\"state\">waiting<"), "its lease is about to be taken: {page}");
    assert!(!page.contains("ran out") && !page.contains("shown as it was"), "{page}");
}

#[test]
fn each_cell_says_what_it_is_where_the_head_is_not_shown() {
    let shown =
        Shown { look: Some(Look { shards: vec![seen("s", "another-worker")], unowned: 0 }), ..Shown::default() };
    let page = rendered(&PageMoment { shown, ..moment() });
    assert_eq!(page.matches("<td").count(), page.matches("data-is=\"").count(), "{page}");
    assert_eq!(page.matches("<td").count(), page.matches("<th").count() - page.matches("<thead").count(), "{page}");
    assert!(page.contains("data-is=\"owner\" title=\"another-worker\">another-worker<"), "{page}");
}
