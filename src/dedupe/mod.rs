//! 4. Each record claims its identity: the [`Claims`] port (RECORDS.md N11, N12).
//!
//! | a record arrives whose identity | verdict |
//! |---|---|
//! | nobody has claimed | [`Verdict::New`], or [`Verdict::NewerVersion`] / [`Verdict::OlderVersion`] where its `log_id` is known with other versions |
//! | was claimed from its own position (a replay) | the verdict it would have got the first time |
//! | was claimed from another position, by an equal core | [`Verdict::Duplicate`] |
//! | was claimed from other positions, by other cores only | [`Verdict::Conflict`]: it is kept, and its own core is claimed beside theirs |

pub mod dynamodb;
pub mod embedded;
pub mod memory;
mod verdict;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::record::DetailsSource;
use crate::source::{RecordPosition, ShardId};

/// What a record is known by: `dedupe_key` of RECORDS.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity<'a> {
    /// `log_id#version`.
    LogId {
        /// Verbatim.
        log_id: &'a str,
        /// 0 where the record has none.
        version: i32,
    },
    /// A record without `log_id`: the SHA-256 of its canonical JSON (RFC 8785).
    Content([u8; 32]),
}

/// The identity core: two records of one identity are the same event when their cores are equal.
///
/// Keyed hashes (see [`crate::record`]'s identity module), stable for the life of an archive. Not an equivalence:
/// details count only when both come from the same field, so a chain of equal cores may have unequal ends.
#[derive(Clone, Copy, Debug)]
pub struct Core {
    /// Hash of all that is compared always.
    pub base: u64,
    /// Which field the details came from.
    pub details_source: DetailsSource,
    /// Hash of the details, blind to key order, white space and spelling of numbers.
    pub details: u64,
}

impl Core {
    /// Whether these are two copies of one event (RECORDS.md N11).
    pub fn same_event(&self, other: &Self) -> bool {
        self.base == other.base && (self.details_source != other.details_source || self.details == other.details)
    }
}

/// One record's claim to its identity.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The identity claimed.
    pub identity: Identity<'a>,
    /// From where; a claim from the position that already holds it holds.
    pub position: RecordPosition<'a>,
    /// What the record says.
    pub core: Core,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Archived.
    New,
    /// Archived: the greatest version of its `log_id` so far.
    NewerVersion,
    /// Archived: another version, below one that is known.
    OlderVersion,
    /// Dropped and counted.
    Duplicate,
    /// Archived with the note `dedupe_conflict`, counted and alarmed.
    Conflict,
}

impl Verdict {
    /// Whether the record goes into the archive.
    pub fn is_archived(self) -> bool {
        self != Self::Duplicate
    }

    /// RECORDS.md's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::NewerVersion => "newer_version",
            Self::OlderVersion => "older_version",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
        }
    }
}

/// Why claims could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The same call may succeed later; no claim of the call may be taken as answered.
    #[error("claims are unavailable: {0}")]
    Unavailable(String),
    /// What is stored contradicts itself; a human is needed.
    #[error("claims are damaged: {0}")]
    Damaged(String),
    /// The claims do not do as they are told, and won't by themselves: a permission. A human is needed.
    #[error("claims are refused: {0}")]
    Refused(String),
    /// The claims that were counted by are gone, or others count now. Who starts anew finds those that do.
    #[error("claims are lost: {0}")]
    Lost(String),
}

impl ClaimError {
    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Who was first to bring a record. Shared by all shards of an archive.
#[async_trait]
pub trait Claims: Send + Sync {
    /// Answers the claims of one shard, in order; later ones of the call see the earlier ones. `now` is the time of
    /// the claim, from which the dedupe window counts.
    ///
    /// Claiming again from the same position gives the same answer for as long as the window lasts.
    async fn claim(&self, shard: &ShardId, claims: &[Claim<'_>], now: Timestamp) -> Result<Vec<Verdict>, ClaimError>;

    /// Makes every answer given so far survive a crash, and makes sure that it counts: [`ClaimError::Lost`] where others
    /// count by now.
    ///
    /// Called before a batch is prepared, since from then on the objects' rows are fixed, and they follow from the
    /// answers; and again before it is committed: claims that were made anew from the archive meanwhile do not know the
    /// objects that were put behind their back.
    async fn flush(&self) -> Result<(), ClaimError>;
}
