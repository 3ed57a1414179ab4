//! The one rule of all adapters: who holds an identity, and what becomes of another who claims it.

use super::{Core, Verdict};
use crate::ops::planted::{Bug, planted};

/// A claim that stands: one of those who hold an identity of the claimed `log_id` (or the claimed content).
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    /// Its version; 0 for content.
    pub version: i32,
    /// Whether it was made from the position that claims now.
    pub own: bool,
    /// What it says.
    pub core: Core,
    /// What it was answered when it was made.
    pub verdict: Verdict,
}

/// What a claim comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The claim changes nothing.
    Known(Verdict),
    /// The claim becomes the last holder, with this answer.
    Taken(Verdict),
}

/// Judges a claim to `version` by all `holders` of its `log_id`, in the order in which they came to hold it.
///
/// Holders are never taken away within the window, so the walk ends for a replay where it ended the first time: at its
/// own position, or at the holder whose copy it was. That is why an own position further down does not count before an
/// equal core further up.
pub(super) fn judge(version: i32, core: &Core, holders: impl IntoIterator<Item = Holder>) -> Judgement {
    let mut verdict = Verdict::New;
    for holder in holders {
        if holder.version == version {
            if holder.own && !planted(Bug::ClaimWithoutPosition) {
                return Judgement::Known(holder.verdict);
            }
            if holder.core.same_event(core) {
                return Judgement::Known(Verdict::Duplicate);
            }
            verdict = Verdict::Conflict;
        } else if verdict != Verdict::Conflict {
            let below = holder.version > version || verdict == Verdict::OlderVersion;
            verdict = if below { Verdict::OlderVersion } else { Verdict::NewerVersion };
        }
    }
    Judgement::Taken(verdict)
}

#[cfg(test)]
mod tests {
    use super::Judgement::{Known, Taken};
    use super::*;
    use crate::record::DetailsSource;

    fn core(base: u64) -> Core {
        Core { base, details_source: DetailsSource::RawDetails, details: 0 }
    }

    fn other(version: i32, base: u64) -> Holder {
        Holder { version, own: false, core: core(base), verdict: Verdict::New }
    }

    fn own(version: i32, base: u64, verdict: Verdict) -> Holder {
        Holder { version, own: true, core: core(base), verdict }
    }

    #[test]
    fn what_nobody_holds_is_new() {
        assert_eq!(judge(1, &core(1), []), Taken(Verdict::New));
    }

    #[test]
    fn a_version_is_newer_only_above_all_others() {
        assert_eq!(judge(3, &core(1), [other(1, 1), other(2, 1)]), Taken(Verdict::NewerVersion));
        assert_eq!(judge(2, &core(1), [other(1, 1), other(3, 1)]), Taken(Verdict::OlderVersion));
        assert_eq!(judge(2, &core(1), [other(3, 1), other(1, 1)]), Taken(Verdict::OlderVersion));
        assert_eq!(judge(-1, &core(1), [other(0, 1)]), Taken(Verdict::OlderVersion));
    }

    #[test]
    fn an_equal_core_at_any_holder_is_a_duplicate() {
        assert_eq!(judge(1, &core(1), [other(1, 1)]), Known(Verdict::Duplicate));
        assert_eq!(judge(1, &core(2), [other(1, 1), other(1, 2)]), Known(Verdict::Duplicate));
    }

    #[test]
    fn only_unequal_cores_are_a_conflict_whatever_versions_there_are() {
        for holders in [vec![other(1, 1)], vec![other(1, 1), other(9, 2)], vec![other(9, 2), other(1, 1)]] {
            assert_eq!(judge(1, &core(2), holders), Taken(Verdict::Conflict));
        }
    }

    #[test]
    fn the_own_position_gets_the_answer_it_got_first() {
        let held = [other(1, 7), own(2, 1, Verdict::NewerVersion), other(3, 7)];
        assert_eq!(judge(2, &core(1), held), Known(Verdict::NewerVersion));
        let second = [other(1, 1), own(1, 2, Verdict::Conflict)];
        assert_eq!(judge(1, &core(2), second), Known(Verdict::Conflict));
    }

    #[test]
    fn the_own_position_of_another_version_holds_nothing_of_this_one() {
        assert_eq!(judge(2, &core(1), [own(1, 1, Verdict::New)]), Taken(Verdict::NewerVersion));
    }

    #[test]
    fn details_of_different_fields_are_not_compared() {
        let holder = Core { base: 1, details_source: DetailsSource::RawDetails, details: 10 };
        let copy = |details_source, details| Core { base: 1, details_source, details };
        let judged =
            |core: Core| judge(1, &core, [Holder { version: 1, own: false, core: holder, verdict: Verdict::New }]);
        assert_eq!(judged(copy(DetailsSource::Details, 11)), Known(Verdict::Duplicate));
        assert_eq!(judged(copy(DetailsSource::RawDetails, 11)), Taken(Verdict::Conflict));
    }
}
