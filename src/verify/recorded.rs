//! Verifications that are kept beside what they verified, so that a worker's metrics and page can show the newest. They
//! prove nothing by themselves: whoever may write to the archive may write one.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Report;
use super::report::{Covered, Finding};
use crate::archive::{ArchiveError, ArchiveStore, Put};
use crate::encode::keys::{VERIFICATIONS_PREFIX, verification_key};

/// The most findings that are kept.
const MOST_FINDINGS: usize = 100;
/// So many verifications are looked at for findings that none has cleared.
const LOOK_BACK: usize = 32;

/// One verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Whose proof it is.
    pub archive_id: Uuid,
    /// When it began.
    pub began: Timestamp,
    /// How far it went.
    pub covered: Covered,
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
}

impl Standing {
    /// The verification whose findings stand, if there are any.
    pub fn found(&self) -> &Recorded {
        self.uncleared.as_ref().unwrap_or(&self.newest)
    }
}

impl Recorded {
    /// What is kept of a verification that began at `began`.
    pub fn of(report: &Report, began: Timestamp) -> Self {
        Self {
            archive_id: report.archive_id,
            began,
            covered: report.covered.clone(),
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

    /// The newest of the archive `archive_id`, and what stands beside it. `None` where the newest can't be read.
    pub async fn standing(archive: &dyn ArchiveStore, archive_id: Uuid) -> Result<Option<Standing>, ArchiveError> {
        let listed = archive.list(VERIFICATIONS_PREFIX).await?.into_iter();
        let mut keys: Vec<_> = listed.map(|listed| listed.key).collect();
        keys.sort_unstable_by(|a, b| b.cmp(a));
        let mut keys = keys.iter().take(LOOK_BACK);
        let Some(key) = keys.next() else { return Ok(None) };
        let Some(newest) = Self::read(archive, archive_id, key).await? else { return Ok(None) };
        if newest.findings_total > 0 {
            return Ok(Some(Standing { newest, uncleared: None }));
        }
        let mut found_none = vec![newest.covered.clone()];
        for key in keys {
            if found_none.iter().any(Covered::is_whole) {
                break;
            }
            let Some(older) = Self::read(archive, archive_id, key).await? else { break };
            if older.findings_total == 0 {
                found_none.push(older.covered);
            } else if !found_none.iter().any(|newer| newer.covers(&older.covered)) {
                return Ok(Some(Standing { newest, uncleared: Some(older) }));
            }
        }
        Ok(Some(Standing { newest, uncleared: None }))
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
            findings_total: 0,
            findings: Vec::new(),
        }
    }

    #[tokio::test]
    async fn the_newest_is_found_and_another_archives_is_not_taken_for_it() {
        let archive = MemoryArchive::default();
        assert_eq!(Recorded::standing(&archive, Uuid::nil()).await.unwrap(), None);
        for began in ["2026-11-02T00:00:00Z", "2026-11-10T00:00:00Z", "2026-11-09T00:00:00Z"] {
            recorded(began).put(&archive).await.unwrap();
        }
        archive.put_if_absent("_verify/20261108T000000Z.json", Bytes::from_static(b"no JSON")).await.unwrap();
        let newest = Recorded::standing(&archive, Uuid::nil()).await.unwrap();
        assert_eq!(newest, Some(Standing { newest: recorded("2026-11-10T00:00:00Z"), uncleared: None }));
        assert_eq!(Recorded::standing(&archive, Uuid::max()).await.unwrap(), None);
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
            let standing = Recorded::standing(&archive, Uuid::nil()).await.unwrap().unwrap();
            let found = standing.found();
            assert_eq!((standing.newest.began, found.findings_total), (began.parse().unwrap(), stands), "day {day}");
            let found_on = format!("2026-11-{found_on:02}T00:00:00Z");
            assert_eq!(found.began, found_on.parse::<Timestamp>().unwrap(), "day {day}");
        }
    }
}
