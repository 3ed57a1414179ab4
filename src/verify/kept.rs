//! A report that was kept where the archive's writers have no access: what it found, the archive must still hold. Pure.

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::judge::{Chain, Loaded, are_missing};
use super::report::{ChainHead, ChainHeads, Kind, digest_of};
use crate::digest::Digest;
use crate::lease::Compared;
use crate::ops::words::counted;
use crate::source::ShardId;

/// Where each chain ended when an earlier proof began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// When it did.
    pub began: Timestamp,
    chain_heads: ChainHeads,
}

/// Why a file bears no witness.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// It is something else.
    #[error("is not what `verify --json` prints: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// It is about something else.
    #[error("is a report of the archive {found}, and this one is {asked}")]
    OtherArchive {
        /// Whose report it is.
        found: Uuid,
        /// Whose is needed.
        asked: Uuid,
    },
    /// That proof did not know itself what it would witness now.
    #[error(
        "does not say that the end of every chain was proved (tail_proved), and nothing found: it bears no witness; take the \
         newest that does"
    )]
    Doubtful,
    /// The heads were too many to be recorded.
    #[error("has no chain_heads: `verify --json` prints all, `--record` keeps no more than a thousand")]
    NoHeads,
    /// Somebody has changed it.
    #[error("has an archive_digest that is not that of its chain_heads: it was changed since")]
    Altered,
}

/// What counts of a report, printed or recorded.
#[derive(Deserialize)]
struct Told {
    archive_id: Uuid,
    began: Timestamp,
    #[serde(default)]
    tail_proved: bool,
    chain_heads: Option<ChainHeads>,
    archive_digest: Option<Digest>,
    findings: Vec<IgnoredAny>,
}

impl Kept {
    /// Reads what `verify --json` has printed of the archive `asked`, or `--record` has kept.
    pub fn parse(bytes: &[u8], asked: Uuid) -> Result<Self, KeptError> {
        let Told { archive_id, began, tail_proved, chain_heads, archive_digest, findings } =
            serde_json::from_slice(bytes)?;
        if archive_id != asked {
            return Err(KeptError::OtherArchive { found: archive_id, asked });
        }
        if !tail_proved || !findings.is_empty() {
            return Err(KeptError::Doubtful);
        }
        let chain_heads = chain_heads.ok_or(KeptError::NoHeads)?;
        if archive_digest != Some(digest_of(&chain_heads)) {
            return Err(KeptError::Altered);
        }
        Ok(Self { began, chain_heads })
    }

    /// Where every chain ended.
    pub fn chain_heads(&self) -> &ChainHeads {
        &self.chain_heads
    }

    /// That a shard's chain holds what it held then. One that is not named had no manifest.
    pub fn compared(&self, shard: &ShardId) -> Compared {
        let batches = self.chain_heads.get(shard).map_or(0, |head| head.batches);
        Compared { began: self.began, batches }
    }

    /// Where the shard's chain ended, and the digest of the manifest that stands there now.
    pub(super) fn standing(&self, shard: &ShardId, loaded: &[Loaded]) -> Option<(&ChainHead, Option<Digest>)> {
        let kept = self.chain_heads.get(shard)?;
        let standing = loaded.iter().find(|manifest| manifest.number + 1 == kept.batches);
        Some((kept, standing.map(|manifest| manifest.digest)))
    }
}

impl Chain {
    /// Judges whether the chain still goes through where it ended when the proof of `began` was made.
    pub(super) fn judge_kept(&mut self, began: Timestamp, kept: &ChainHead, standing: Option<Digest>) {
        let newest = kept.batches.saturating_sub(1);
        self.strays = standing != Some(kept.head);
        if !self.strays || self.excused.contains(&newest) {
            return;
        }
        if let Some(digest) = standing {
            let detail = format!(
                "its SHA-256 is {digest}, the report of {began} has {}: this manifest, or one before it, was written anew",
                kept.head
            );
            return self.report_manifest(Kind::BrokenChain, newest, detail);
        }
        let missing = self.next..kept.batches;
        if !self.is_cut() {
            let counted = counted(kept.batches, "batch");
            let detail = format!("{}: the report of {began} counts {counted}", are_missing(&missing));
            self.report_manifest(Kind::TruncatedTail, missing.start, detail);
        }
        self.excused.extend(missing);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn report() -> Value {
        let head = ChainHead { batches: 7, head: Digest::of(b"manifest"), manifest: "m".to_owned() };
        let chain_heads = ChainHeads::from([(ShardId::new("a"), head)]);
        json!({
            "archive_id": Uuid::nil(),
            "began": "2026-11-02T00:00:00Z",
            "tail_proved": true,
            "archive_digest": digest_of(&chain_heads),
            "chain_heads": chain_heads,
            "findings": [],
        })
    }

    #[test]
    fn what_was_proved_is_told_of_shards_that_were_there_and_of_those_that_were_not() {
        let kept = Kept::parse(report().to_string().as_bytes(), Uuid::nil()).unwrap();
        assert_eq!(kept.compared(&ShardId::new("a")).batches, 7);
        assert_eq!(kept.compared(&ShardId::new("b")), Compared { began: kept.began, batches: 0 });
    }

    #[test]
    fn a_report_that_bears_no_witness_is_refused() {
        for (field, value, words) in [
            ("began", json!("yesterday"), "is not what `verify --json` prints"),
            ("archive_id", json!(Uuid::max()), "is a report of the archive ffffffff"),
            ("tail_proved", json!(false), "bears no witness"),
            ("findings", json!([{"kind": "missing_object"}]), "bears no witness"),
            ("chain_heads", Value::Null, "has no chain_heads"),
            ("archive_digest", Value::Null, "it was changed"),
            ("archive_digest", json!(Digest::of(b"another")), "it was changed"),
            ("chain_heads", json!({}), "it was changed"),
        ] {
            let mut report = report();
            report[field] = value;
            let error = Kept::parse(report.to_string().as_bytes(), Uuid::nil()).unwrap_err().to_string();
            assert!(error.contains(words), "{field}: {error}");
        }
    }
}
