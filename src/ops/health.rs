//! Whether the worker is alive, and whether it does its work. Pure: one moment of it is judged.

use std::time::Duration;

use super::words::{counted, roughly, to_the_second};
use crate::worker::board::Shown;

/// A loop that has not turned for so long is stuck: every call that it waits for ends sooner.
const STUCK_AFTER: Duration = Duration::from_mins(5);

/// Leases change hands; a shard that is nobody's for so long is not about to.
const UNOWNED_FOR: Duration = Duration::from_mins(1);

/// What is stuck, a line each; nothing where all loops turn. `memory_waits`: reading waits for memory, as it does for as long
/// as the archive is away, and a restart would help nobody.
pub fn stuck(shown: &Shown, now: Duration, memory_waits: bool) -> Vec<String> {
    let mut stuck = Vec::new();
    let mut look_at = |what: String, turned_at: Option<Duration>| {
        let still = turned_at.map_or(Duration::ZERO, |at| now.saturating_sub(at));
        if still >= STUCK_AFTER {
            stuck.push(format!("{what} has not moved for {}", roughly(still)));
        }
    };
    look_at("the loop that looks after shards".into(), shown.turned_at);
    if !memory_waits {
        for (shard, held) in &shown.held {
            look_at(format!("the shard {shard}"), held.turned_at);
        }
    }
    stuck
}

/// What keeps the worker from its work, a line each; nothing where it does all that there is to do.
pub fn unready(shown: &Shown, now: Duration) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut fails = |what: String, failing: &Option<(Duration, String)>| {
        if let Some((since, error)) = failing {
            reasons.push(format!("{what} for {}: {error}", roughly(now.saturating_sub(*since))));
        }
    };
    fails("shards can't be looked after".into(), &shown.failing);
    for (shard, held) in &shown.held {
        fails(format!("the shard {shard} can't be committed"), &held.failing);
    }
    for (shard, stopped) in &shown.stopped {
        let at = to_the_second(stopped.at);
        reasons.push(format!("the shard {shard} stopped at {at}: {}", stopped.error));
    }
    let unowned_for = shown.unowned_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
    match &shown.look {
        None => reasons.push("starting".into()),
        Some(look) if unowned_for >= UNOWNED_FOR && shown.held.is_empty() => {
            reasons.push(format!("{} without a reader, and none is read here", counted(look.unowned as u64, "shard")));
        }
        Some(_) => {}
    }
    reasons
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::lease::LeaseRow;
    use crate::source::ShardId;
    use crate::worker::board::{HeldShard, Look, StoppedShard};

    fn held(turned_at: Option<Duration>) -> HeldShard {
        HeldShard::of(&LeaseRow::new(ShardId::new("held"), Vec::new()), turned_at)
    }

    fn working() -> Shown {
        let mut shown =
            Shown { turned_at: Some(Duration::from_secs(1)), look: Some(Look::default()), ..Shown::default() };
        shown.held.insert(ShardId::new("a"), held(Some(Duration::from_secs(2))));
        shown
    }

    #[test]
    fn a_loop_that_does_not_turn_is_stuck() {
        let mut shown = working();
        assert!(stuck(&shown, Duration::from_mins(5), false).is_empty());
        assert_eq!(
            stuck(&shown, Duration::from_secs(301), false),
            ["the loop that looks after shards has not moved for 5m"]
        );
        shown.turned_at = Some(Duration::from_mins(5));
        assert_eq!(stuck(&shown, Duration::from_secs(302), false), ["the shard a has not moved for 5m"]);
        assert!(stuck(&shown, Duration::from_secs(302), true).is_empty(), "reading waits for memory");
        shown.held.insert(ShardId::new("a"), held(None));
        assert!(stuck(&shown, Duration::from_secs(999), false).len() == 1, "one that waits for its turn is not stuck");
    }

    #[test]
    fn it_is_ready_when_it_has_looked_and_nothing_fails() {
        let now = Duration::from_secs(90);
        assert_eq!(unready(&Shown::default(), now), ["starting"]);
        let mut shown = working();
        assert!(unready(&shown, now).is_empty());
        shown.failing = Some((Duration::from_secs(30), "no answer".into()));
        assert_eq!(unready(&shown, now), ["shards can't be looked after for 1m: no answer"]);
        shown.failing = None;
        let bad = HeldShard { failing: Some((Duration::from_secs(80), "slow".into())), ..held(None) };
        shown.held.insert(ShardId::new("b"), bad);
        assert_eq!(unready(&shown, now), ["the shard b can't be committed for 10s: slow"]);
        shown.held.clear();
        let at = Timestamp::UNIX_EPOCH + Duration::from_millis(7);
        let stopped = StoppedShard { error: "foreign".into(), at, again_at: Duration::ZERO };
        shown.stopped.insert(ShardId::new("c"), stopped);
        shown.look = Some(Look { unowned: 2, ..Look::default() });
        shown.unowned_since = Some(Duration::from_secs(31));
        assert_eq!(unready(&shown, now).len(), 1, "they may be about to be taken");
        shown.unowned_since = Some(Duration::from_secs(30));
        assert_eq!(
            unready(&shown, now),
            [
                "the shard c stopped at 1970-01-01T00:00:00Z: foreign",
                "2 shards without a reader, and none is read here"
            ]
        );
    }
}
