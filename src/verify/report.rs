//! What a proof comes to, for people and for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::digest::Digest;
use crate::lease::Gap;
use crate::ops::words::{counted, thousands, to_the_second};
use crate::source::ShardId;

/// The kinds of damage. Each has one name, and each single damage is reported by one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A manifest lists an object that is not there.
    MissingObject,
    /// An object's bytes are not those that were put, or its rows are not those of its batch.
    AlteredObject,
    /// There is an object that no manifest lists and no batch under way explains.
    UnlistedObject,
    /// A manifest within a chain is not there.
    MissingManifest,
    /// A manifest is not the one that its successor or its lease row names, or not a manifest at all.
    BrokenChain,
    /// Payloads between two batches, or between a parent's end and its child, are in none.
    RangeGap,
    /// Payloads are in two batches.
    RangeOverlap,
    /// The numbers of a manifest contradict one another or the rows.
    CountMismatch,
    /// A record stands in the archive twice.
    DuplicateRecord,
    /// The newest manifests of a shard are not there.
    TruncatedTail,
    /// A lease row can't be read, so that nothing tells whether its shard's chain is cut.
    DamagedLeaseRow,
}

impl Kind {
    /// Its name, as `--json` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingObject => "missing_object",
            Self::AlteredObject => "altered_object",
            Self::UnlistedObject => "unlisted_object",
            Self::MissingManifest => "missing_manifest",
            Self::BrokenChain => "broken_chain",
            Self::RangeGap => "range_gap",
            Self::RangeOverlap => "range_overlap",
            Self::CountMismatch => "count_mismatch",
            Self::DuplicateRecord => "duplicate_record",
            Self::TruncatedTail => "truncated_tail",
            Self::DamagedLeaseRow => "damaged_lease_row",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One damage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// The shard, where the object tells.
    pub shard: Option<ShardId>,
    /// The batch, where the object tells.
    pub batch_seq: Option<u64>,
    /// The object concerned: there, altered, or missing.
    pub key: String,
    /// What it is.
    pub kind: Kind,
    /// One sentence: what was expected and what was found.
    pub detail: String,
}

/// A gap that a worker met and wrote down: the source had lost records before they were read. Not damage of the
/// archive, and said all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedGap {
    /// The shard.
    pub shard: ShardId,
    /// The batch behind it.
    pub batch_seq: u64,
    /// What is known of it.
    pub gap: Gap,
}

/// Where a shard's chain ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHead {
    /// The number of the newest manifest that stands, plus one.
    pub batches: u64,
    /// The SHA-256 of its bytes.
    pub head: Digest,
    /// Its key.
    pub manifest: String,
}

/// Where every chain ends, of shards that have a manifest.
pub type ChainHeads = BTreeMap<ShardId, ChainHead>;

/// One digest over all: the SHA-256 of the JSON of `chain_heads`, in UTF-8, shards in the order of their names' bytes,
/// fields too, no space anywhere. `jq -cj .chain_heads | sha256sum` makes the same of a report.
#[allow(clippy::missing_panics_doc)] // it cannot
pub fn digest_of(chain_heads: &ChainHeads) -> Digest {
    Digest::of(&serde_json::to_vec(chain_heads).expect("a map of plain values can be written"))
}

/// How far the proof went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covered {
    /// Objects of windows that end before this were not read.
    pub since: Option<Timestamp>,
    /// Objects of windows that start at or after this were not read.
    pub until: Option<Timestamp>,
    /// No object was read at all: manifests, presence, sizes, and the digests that the store keeps.
    pub fast: bool,
    /// The start of the earliest window whose objects were read.
    pub first_window: Option<Timestamp>,
    /// The end of the latest.
    pub last_window: Option<Timestamp>,
}

impl Covered {
    /// Whether every object's content was read.
    pub(super) fn is_whole(&self) -> bool {
        self.covers(&Self::default())
    }

    /// Whether what another proof would find is found by this one as well.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let since = self.since.is_none_or(|since| other.since.is_some_and(|others| since <= others));
        let until = self.until.is_none_or(|until| other.until.is_some_and(|others| until >= others));
        since && until && (!self.fast || other.fast)
    }
}

/// What was read, and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whose proof it is.
    pub archive_id: Uuid,
    /// When the proof began.
    pub began: Timestamp,
    /// Shards with a manifest or a lease row.
    pub shards: u64,
    /// Manifests read.
    pub manifests: u64,
    /// Objects that sound manifests list.
    pub objects: u64,
    /// Of these, how many were read.
    pub objects_read: u64,
    /// Rows in them, rejects included.
    pub rows: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// With `--fast`: objects whose digest, as the store itself worked it out when they came, is their manifest's.
    pub by_checksum: u64,
    /// With `--fast`: objects of which only the size was compared, since the store keeps no digest of them.
    pub by_size_only: u64,
    /// Objects of batches under way, which no manifest lists yet.
    pub in_flight: u64,
    /// How far the proof went.
    pub covered: Covered,
    /// Whether every chain's end was compared with a lease row that can witness it. Where it was not, a missing tail
    /// leaves no trace.
    pub tail_compared: bool,
    /// Whether it was, and no chain is cut, nor strays from where the earlier report saw it end.
    pub tail_proved: bool,
    /// Where each chain ends. A copy that is kept where the archive's writers have no access tells later whether history
    /// was written anew since: the manifest of this number must still have this digest.
    pub chain_heads: ChainHeads,
    /// One digest over all of these ([`digest_of`]).
    pub archive_digest: Digest,
    /// When the earlier proof began whose chain heads had to be found again; none where none was given.
    #[serde(default)]
    pub against: Option<Timestamp>,
    /// What the reader of the report should know beside the findings.
    pub notes: Vec<String>,
    /// Gaps that workers recorded.
    pub gaps: Vec<RecordedGap>,
    /// All damage, in the order of shards and batches.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_intact(&self) -> bool {
        self.findings.is_empty()
    }
}

/// The report for people: several lines, the last of them the verdict.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = render_into(&mut text, report);
    text
}

fn render_into(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(out, "archive   {}", report.archive_id)?;
    writeln!(out, "began     {}", to_the_second(report.began))?;
    let (shards, manifests) = (counted(report.shards, "shard"), counted(report.manifests, "manifest"));
    writeln!(out, "chains    {shards}, {manifests}, {} listed", counted(report.objects, "object"))?;
    let size = bytesize::ByteSize(report.bytes);
    writeln!(out, "read      {}, {}, {size}", counted(report.objects_read, "object"), counted(report.rows, "row"))?;
    writeln!(out, "covered   {}", Coverage(&report.covered))?;
    if report.covered.fast {
        let (by_checksum, by_size) = (counted(report.by_checksum, "object"), thousands(report.by_size_only));
        writeln!(out, "compared  {by_checksum} by the SHA-256 that the store keeps, {by_size} by size only")?;
    }
    writeln!(out, "tail      {}", tail(report))?;
    let heads = counted(report.chain_heads.len() as u64, "chain head");
    writeln!(out, "digest    {} over {heads}", report.archive_digest)?;
    if let Some(began) = report.against {
        writeln!(out, "against   the report of {began}: what is not as it was then is named below")?;
    }
    if report.in_flight > 0 {
        writeln!(out, "in flight {} of batches under way", counted(report.in_flight, "object"))?;
    }
    for RecordedGap { shard, batch_seq, gap } in &report.gaps {
        let from = gap.from.map_or_else(|| "an unknown time".to_owned(), |from| from.to_string());
        writeln!(
            out,
            "gap       {shard}, before batch {batch_seq}: the source had lost what arrived from {from} until {}",
            gap.until
        )?;
    }
    for note in &report.notes {
        writeln!(out, "note      {note}")?;
    }
    for finding in &report.findings {
        writeln!(out, "{:<17} {}\n{:18}{}", finding.kind, finding.key, "", finding.detail)?;
    }
    match report.findings.len() {
        0 if report.covered.is_whole() => writeln!(out, "no damage found"),
        0 => writeln!(out, "no damage found in what was covered"),
        n => writeln!(out, "DAMAGED: {}", counted(n as u64, "finding")),
    }
}

/// What came of the comparison of the chains' ends.
fn tail(report: &Report) -> String {
    let is_cut = |finding: &&Finding| finding.kind == Kind::TruncatedTail;
    let cut: BTreeSet<_> = report.findings.iter().filter(is_cut).map(|finding| &finding.shard).collect();
    match (report.tail_compared, cut.len() as u64) {
        (true, 0) if report.tail_proved => "proved against the lease rows".to_owned(),
        (true, 0) => "NOT PROVED of chains that do not go through where the report saw them end (see below)".to_owned(),
        (true, n) => format!("compared with the lease rows: {} cut", counted(n, "shard")),
        (false, 0) => "NOT PROVED (see below)".to_owned(),
        (false, n) => format!("NOT PROVED of every shard (see below), {} cut", counted(n, "shard")),
    }
}

struct Coverage<'a>(&'a Covered);

impl fmt::Display for Coverage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all manifests, every listed object's presence and size; ")?;
        match self.0 {
            Covered { fast: true, .. } => f.write_str("no object's content (fast)"),
            Covered { since: None, until: None, .. } => f.write_str("the content of all that stand"),
            Covered { since, until, .. } => {
                f.write_str("the content of objects of windows")?;
                since.map_or(Ok(()), |since| write!(f, " since {since}"))?;
                until.map_or(Ok(()), |until| write!(f, " until {until}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            archive_id: Uuid::nil(),
            began: Timestamp::UNIX_EPOCH,
            shards: 1,
            manifests: 2,
            objects: 3,
            objects_read: 3,
            rows: 4,
            bytes: 2048,
            by_checksum: 0,
            by_size_only: 0,
            in_flight: 0,
            covered: Covered::default(),
            tail_compared: true,
            tail_proved: true,
            archive_digest: digest_of(&ChainHeads::new()),
            chain_heads: ChainHeads::new(),
            against: None,
            notes: Vec::new(),
            gaps: Vec::new(),
            findings: Vec::new(),
        }
    }

    #[test]
    fn one_of_a_kind_is_not_many() {
        let text = render(&Report { manifests: 1, rows: 1_234, in_flight: 1, ..report() });
        for line in [
            "chains    1 shard, 1 manifest, 3 objects listed\n",
            "read      3 objects, 1,234 rows, 2.0 KiB\n",
            "in flight 1 object of batches under way\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn the_last_line_is_the_verdict() {
        assert!(render(&report()).ends_with("\nno damage found\n"));
        let finding = Finding {
            shard: None,
            batch_seq: None,
            key: "events/rogue".to_owned(),
            kind: Kind::UnlistedObject,
            detail: "no manifest lists it".to_owned(),
        };
        let text = render(&Report { findings: vec![finding], ..report() });
        assert!(text.contains("unlisted_object   events/rogue\n"), "{text}");
        assert!(text.ends_with("\nDAMAGED: 1 finding\n"), "{text}");
    }

    #[test]
    fn a_proof_that_went_less_far_says_so() {
        let covered = Covered { since: Some(Timestamp::UNIX_EPOCH), ..Covered::default() };
        let text = render(&Report { covered, tail_compared: false, tail_proved: false, ..report() });
        assert!(text.contains("windows since 1970-01-01T00:00:00Z"), "{text}");
        assert!(text.contains("NOT PROVED"), "{text}");
    }

    #[test]
    fn where_a_shard_is_cut_no_tail_is_called_proved() {
        let cut = |shard: &str| Finding {
            shard: Some(ShardId::new(shard)),
            batch_seq: Some(1),
            key: "_manifests/s/00000001.json".to_owned(),
            kind: Kind::TruncatedTail,
            detail: "manifest 1 is missing".to_owned(),
        };
        let damaged = Report { tail_proved: false, findings: vec![cut("a"), cut("b")], ..report() };
        let text = render(&damaged);
        assert!(text.contains("tail      compared with the lease rows: 2 shards cut\n"), "{text}");
        let text = render(&Report { tail_compared: false, ..damaged });
        assert!(text.contains("tail      NOT PROVED of every shard (see below), 2 shards cut\n"), "{text}");
    }

    #[test]
    fn the_digest_over_all_heads_is_of_their_json_and_the_only_one_that_people_see() {
        let head = |batches| ChainHead { batches, head: Digest::of(b"manifest"), manifest: "m".to_owned() };
        let chain_heads = ChainHeads::from([(ShardId::new("b"), head(7)), (ShardId::new("a \""), head(1))]);
        let sha256 = Digest::of(b"manifest");
        let json = format!(
            r#"{{"a \"":{{"batches":1,"head":"{sha256}","manifest":"m"}},"b":{{"batches":7,"head":"{sha256}","manifest":"m"}}}}"#
        );
        let archive_digest = digest_of(&chain_heads);
        assert_eq!(archive_digest, Digest::of(json.as_bytes()));
        let text = render(&Report { chain_heads, archive_digest, ..report() });
        assert!(text.contains(&format!("digest    {archive_digest} over 2 chain heads\n")), "{text}");
        assert!(text.contains("began     1970-01-01T00:00:00Z\n") && !text.contains(&sha256.to_string()), "{text}");
    }

    #[test]
    fn a_fast_proof_says_how_many_objects_it_knows_by_their_size_alone() {
        let covered = Covered { fast: true, ..Covered::default() };
        let text = render(&Report { covered, by_checksum: 2, by_size_only: 1, ..report() });
        assert!(text.contains("compared  2 objects by the SHA-256 that the store keeps, 1 by size only\n"), "{text}");
        assert!(text.ends_with("no damage found in what was covered\n"), "{text}");
        assert!(!render(&report()).contains("compared"));
    }

    #[test]
    fn json_and_people_read_the_same_names() {
        for kind in [Kind::MissingObject, Kind::TruncatedTail, Kind::DuplicateRecord, Kind::DamagedLeaseRow] {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
    }
}
