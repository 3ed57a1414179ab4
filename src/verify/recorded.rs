//! Verifications that are kept beside what they verified, so that a worker's metrics and page can show the newest. They
//! prove nothing by themselves: whoever may write to the archive may write one.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Report;
use super::report::{Covered, Finding};
use crate::archive::{ArchiveError, ArchiveStore};
use crate::encode::keys::{VERIFICATIONS_PREFIX, verification_key};

/// The most findings that are kept.
const MOST_FINDINGS: usize = 100;

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

    /// Puts it into the archive; its key. One that stands there already, begun in the same second, is left as it is.
    #[allow(clippy::missing_panics_doc)] // it cannot
    pub async fn put(&self, archive: &dyn ArchiveStore) -> Result<String, ArchiveError> {
        let key = verification_key(self.began);
        let bytes = serde_json::to_vec_pretty(self).expect("a record of plain values can be written");
        archive.put_if_absent(&key, Bytes::from(bytes)).await?;
        Ok(key)
    }

    /// The newest of the archive `archive_id`; `None` where there is none that can be read.
    pub async fn newest(archive: &dyn ArchiveStore, archive_id: Uuid) -> Result<Option<Self>, ArchiveError> {
        let listed = archive.list(VERIFICATIONS_PREFIX).await?;
        let Some(newest) = listed.into_iter().map(|listed| listed.key).max() else { return Ok(None) };
        let bytes = archive.get(&newest).await?.unwrap_or_default();
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
            covered: Covered::default(),
            findings_total: 0,
            findings: Vec::new(),
        }
    }

    #[tokio::test]
    async fn the_newest_is_found_and_another_archives_is_not_taken_for_it() {
        let archive = MemoryArchive::default();
        assert_eq!(Recorded::newest(&archive, Uuid::nil()).await.unwrap(), None);
        for began in ["2026-11-02T00:00:00Z", "2026-11-10T00:00:00Z", "2026-11-09T00:00:00Z"] {
            recorded(began).put(&archive).await.unwrap();
        }
        let newest = Recorded::newest(&archive, Uuid::nil()).await.unwrap();
        assert_eq!(newest, Some(recorded("2026-11-10T00:00:00Z")));
        assert_eq!(Recorded::newest(&archive, Uuid::max()).await.unwrap(), None);
    }
}
