//! Verifications that are kept beside what they verified, so that a worker's metrics and page can show the newest. They
//! prove nothing by themselves: whoever may write to the archive may write one.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Report;
use super::report::{ChainHeads, Covered, Finding};
use crate::archive::{ArchiveError, ArchiveStore, Put};
use crate::digest::Digest;
use crate::encode::keys::{VERIFICATIONS_PREFIX, verification_key};

/// The most findings that are kept.
const MOST_FINDINGS: usize = 100;
/// The most chain heads that are kept: workers read what is recorded.
const MOST_HEADS: usize = 1000;
/// So many verifications are looked at, for findings that none has cleared and for the last that was whole: where one is
/// made every hour, those of eight days.
const LOOK_BACK: usize = 192;

/// One verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Whose proof it is.
    pub archive_id: Uuid,
    /// When it began.
    pub began: Timestamp,
    /// How far it went.
    pub covered: Covered,
    /// Whether every chain's end was compared with a lease row. Older versions recorded neither this nor what follows.
    #[serde(default)]
    pub tail_compared: bool,
    /// Whether it was, and no chain is cut.
    #[serde(default)]
    pub tail_proved: bool,
    /// Objects that sound manifests list.
    #[serde(default)]
    pub objects: Option<u64>,
    /// Of these, how many were read.
    #[serde(default)]
    pub objects_read: Option<u64>,
    /// One digest over all chain heads.
    #[serde(default)]
    pub archive_digest: Option<Digest>,
    /// The chain heads themselves; none where there are more than a thousand.
    #[serde(default)]
    pub chain_heads: Option<ChainHeads>,
    /// When the earlier proof began whose chain heads had to be found again.
    #[serde(default)]
    pub against: Option<Timestamp>,
    /// How much it found.
    pub findings_total: u64,
    /// The first hundred findings.
    pub findings: Vec<Finding>,
}

/// What a worker shows of an archive's verifications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The newest.
    pub newest: Recorded,
    /// The last before it that found something, where the newest found nothing and none since then covered as much as this
    /// one and found nothing either: a quick look never clears what reading everything has found.
    pub uncleared: Option<Recorded>,
    /// When the last one began that read everything and proved every chain's end.
    pub whole_at: Option<Timestamp>,
}

impl Standing {
    /// The verification whose findings stand, if there are any.
    pub fn found(&self) -> &Recorded {
        self.uncleared.as_ref().unwrap_or(&self.newest)
    }
}

impl Recorded {
    /// What is kept of a verification.
    pub fn of(report: &Report) -> Self {
        let is_short = report.chain_heads.len() <= MOST_HEADS;
        Self {
            archive_id: report.archive_id,
            began: report.began,
            covered: report.covered.clone(),
            tail_compared: report.tail_compared,
            tail_proved: report.tail_proved,
            objects: Some(report.objects),
            objects_read: Some(report.objects_read),
            archive_digest: Some(report.archive_digest),
            chain_heads: is_short.then(|| report.chain_heads.clone()),
            against: report.against,
            findings_total: report.findings.len() as u64,
            findings: report.findings.iter().take(MOST_FINDINGS).cloned().collect(),
        }
    }

    /// Puts it into the archive; its key. Where another stands there, begun in the same second, the next free second names it.
    #[allow(clippy::missing_panics_doc)] // it cannot
    pub async fn put(&self, archive: &dyn ArchiveStore) -> Result<String, ArchiveError> {
        let mut recorded = self.clone();
        loop {
            let key = verification_key(recorded.began);
            let bytes = serde_json::to_vec_pretty(&recorded).expect("a record of plain values can be written");
            if archive.put_if_absent(&key, Bytes::from(bytes)).await? == Put::Created {
                return Ok(key);
            }
            recorded.began += Duration::from_secs(1);
        }
    }

    /// The keys of those that stand in the archive, the newest first.
    pub async fn keys(archive: &dyn ArchiveStore) -> Result<Vec<String>, ArchiveError> {
        let listed = archive.list(VERIFICATIONS_PREFIX).await?.into_iter();
        let mut keys: Vec<_> = listed.map(|listed| listed.key).collect();
        keys.sort_unstable_by(|a, b| b.cmp(a));
        Ok(keys)
    }

    /// What these keys of the archive `archive_id` come to. `None` where the newest can't be read.
    pub async fn standing(
        archive: &dyn ArchiveStore,
        archive_id: Uuid,
        keys: &[String],
    ) -> Result<Option<Standing>, ArchiveError> {
        let mut keys = keys.iter().take(LOOK_BACK);
        let Some(key) = keys.next() else { return Ok(None) };
        let Some(newest) = Self::read(archive, archive_id, key).await? else { return Ok(None) };
        let mut whole_at = newest.is_whole().then_some(newest.began);
        let mut uncleared = None;
        let mut found_none = Vec::new();
        let mut is_settled = newest.findings_total > 0 || newest.is_whole();
        if !is_settled {
            found_none.push(newest.clone());
        }
        for key in keys {
            if is_settled && whole_at.is_some() {
                break;
            }
            let Some(older) = Self::read(archive, archive_id, key).await? else { break };
            if older.is_whole() {
                whole_at = whole_at.or(Some(older.began));
            }
            if is_settled {
                continue;
            }
            if older.findings_total > 0 {
                if !found_none.iter().any(|newer| newer.covers(&older)) {
                    uncleared = Some(older);
                    is_settled = true;
                }
            } else {
                is_settled = older.is_whole();
                found_none.push(older);
            }
        }
        Ok(Some(Standing { newest, uncleared, whole_at }))
    }

    /// Whether everything was read, and every chain's end proved.
    pub fn is_whole(&self) -> bool {
        self.covered.is_whole() && self.tail_proved
    }

    /// Whether this one looked at all that the other one did.
    fn covers(&self, other: &Self) -> bool {
        self.covered.covers(&other.covered) && (self.tail_compared || !other.tail_compared)
    }

    /// One of the archive; `None` where it can't be read, or is another's.
    async fn read(archive: &dyn ArchiveStore, archive_id: Uuid, key: &str) -> Result<Option<Self>, ArchiveError> {
        let bytes = archive.get(key).await?.unwrap_or_default();
        Ok(serde_json::from_slice(&bytes).ok().filter(|recorded: &Self| recorded.archive_id == archive_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::MemoryArchive;

    fn recorded(began: &str) -> Recorded {
        Recorded {
            archive_id: Uuid::nil(),
            began: began.parse().unwrap(),
            covered: Covered { fast: true, ..Covered::default() },
            tail_compared: false,
            tail_proved: false,
            objects: None,
            objects_read: None,
            archive_digest: None,
            chain_heads: None,
            against: None,
            findings_total: 0,
            findings: Vec::new(),
        }
    }

    async fn standing(archive: &MemoryArchive, archive_id: Uuid) -> Option<Standing> {
        let keys = Recorded::keys(archive).await.unwrap();
        Recorded::standing(archive, archive_id, &keys).await.unwrap()
    }

    #[tokio::test]
    async fn the_newest_is_found_and_another_archives_is_not_taken_for_it() {
        let archive = MemoryArchive::default();
        assert_eq!(standing(&archive, Uuid::nil()).await, None);
        for began in ["2026-11-02T00:00:00Z", "2026-11-10T00:00:00Z", "2026-11-09T00:00:00Z"] {
            recorded(began).put(&archive).await.unwrap();
        }
        archive.put_if_absent("_verify/20261108T000000Z.json", Bytes::from_static(b"no JSON")).await.unwrap();
        let newest = recorded("2026-11-10T00:00:00Z");
        assert_eq!(standing(&archive, Uuid::nil()).await, Some(Standing { newest, uncleared: None, whole_at: None }));
        assert_eq!(standing(&archive, Uuid::max()).await, None);
    }

    #[tokio::test]
    async fn two_that_began_in_the_same_second_are_both_kept() {
        let archive = MemoryArchive::default();
        let keys = [
            recorded("2026-11-02T00:00:00Z").put(&archive).await.unwrap(),
            recorded("2026-11-02T00:00:00Z").put(&archive).await.unwrap(),
        ];
        assert_eq!(keys, ["_verify/20261102T000000Z.json", "_verify/20261102T000001Z.json"]);
    }

    #[tokio::test]
    async fn what_was_found_stands_until_a_proof_that_covers_as_much_finds_nothing() {
        let fast = Covered { fast: true, ..Covered::default() };
        let late = Covered { since: Some("2026-11-01T00:00:00Z".parse().unwrap()), ..Covered::default() };
        let (fast_found, all_found, late_found) = (4, 3, 2);
        // What each covered and found, what stands then, and on which day that was found.
        let steps = [
            (fast.clone(), fast_found, fast_found, 1),
            (fast.clone(), 0, 0, 2),
            (Covered::default(), all_found, all_found, 3),
            (fast.clone(), 0, all_found, 3),
            (late.clone(), 0, all_found, 3),
            (late.clone(), late_found, late_found, 6),
            (Covered::default(), 0, 0, 7),
            (fast, 0, 0, 8),
            (late.clone(), late_found, late_found, 9),
            (late, 0, 0, 10),
        ];
        let archive = MemoryArchive::default();
        for (day, (covered, findings_total, stands, found_on)) in (1..).zip(steps) {
            let began = format!("2026-11-{day:02}T00:00:00Z");
            Recorded { covered, findings_total, ..recorded(&began) }.put(&archive).await.unwrap();
            let standing = standing(&archive, Uuid::nil()).await.unwrap();
            let found = standing.found();
            assert_eq!((standing.newest.began, found.findings_total), (began.parse().unwrap(), stands), "day {day}");
            let found_on = format!("2026-11-{found_on:02}T00:00:00Z");
            assert_eq!(found.began, found_on.parse::<Timestamp>().unwrap(), "day {day}");
        }
    }

    #[tokio::test]
    async fn the_last_that_was_whole_is_known_however_many_weaker_ones_came_since() {
        let archive = MemoryArchive::default();
        let whole = Covered::default;
        let put = async |day: u32, covered, tail_proved, findings_total| {
            let began = format!("2026-11-{day:02}T00:00:00Z");
            let tail_compared = tail_proved;
            let recorded = Recorded { covered, tail_compared, tail_proved, findings_total, ..recorded(&began) };
            recorded.put(&archive).await.unwrap();
            let whole_at = standing(&archive, Uuid::nil()).await.unwrap().whole_at;
            whole_at.map(|at| at.strftime("%-d").to_string())
        };
        assert_eq!(put(1, whole(), false, 0).await, None, "its tail was not proved");
        assert_eq!(put(2, whole(), true, 0).await.as_deref(), Some("2"));
        assert_eq!(put(3, Covered { fast: true, ..whole() }, true, 0).await.as_deref(), Some("2"));
        assert_eq!(
            put(4, Covered { since: Some(Timestamp::UNIX_EPOCH), ..whole() }, true, 1).await.as_deref(),
            Some("2")
        );
        assert_eq!(put(5, whole(), false, 1).await.as_deref(), Some("2"));
        assert_eq!(put(6, whole(), true, 1).await.as_deref(), Some("6"));
    }

    #[tokio::test]
    async fn what_was_found_against_the_lease_rows_is_not_cleared_without_them() {
        let archive = MemoryArchive::default();
        let cut = Recorded {
            covered: Covered::default(),
            tail_compared: true,
            findings_total: 1,
            ..recorded("2026-11-01T00:00:00Z")
        };
        cut.put(&archive).await.unwrap();
        let blind = Recorded { covered: Covered::default(), ..recorded("2026-11-02T00:00:00Z") };
        blind.put(&archive).await.unwrap();
        assert_eq!(standing(&archive, Uuid::nil()).await.unwrap().uncleared, Some(cut));
        let proved = Recorded {
            tail_compared: true,
            tail_proved: true,
            began: "2026-11-03T00:00:00Z".parse().unwrap(),
            ..blind
        };
        proved.put(&archive).await.unwrap();
        assert_eq!(standing(&archive, Uuid::nil()).await.unwrap().uncleared, None);
    }

    #[test]
    fn what_older_versions_recorded_is_still_read() {
        let old = br#"{"archive_id": "00000000-0000-0000-0000-000000000000", "began": "2026-11-02T00:00:00Z",
            "covered": {"since": null, "until": null, "fast": true, "first_window": null, "last_window": null},
            "findings_total": 0, "findings": []}"#;
        assert_eq!(serde_json::from_slice::<Recorded>(old).unwrap(), recorded("2026-11-02T00:00:00Z"));
    }
}
