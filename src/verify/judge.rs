//! A shard's manifests, judged. Pure.
//!
//! A manifest is *sound* if it is the one that its successor or its lease row names by digest. One that is not is one
//! finding, and nothing is concluded from it: neither about its objects nor about its neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range as Numbers;

use super::bounds::Bounds;
use super::remade::Remade;
use super::report::{Finding, Kind, RecordedGap};
use crate::archive::chain::ManifestFault;
use crate::archive::chain::{Misfit, follows, runs_forward};
use crate::archive::manifest::{Counts, Manifest, ManifestObject, ObjectKind};
use crate::batch::Window;
use crate::digest::Digest;
use crate::encode::keys;
use crate::ops::words::counted;
use crate::source::{Checkpoint, Range, ShardId};

/// A manifest as it was read.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    /// As its key says.
    pub(super) number: u64,
    pub(super) digest: Digest,
    pub(super) parsed: Result<Manifest, ManifestFault>,
}

/// A batch whose manifest is sound: what its objects must be.
#[derive(Clone, Debug)]
#[allow(clippy::struct_field_names)] // the manifest's word
pub(super) struct Batch {
    pub(super) batch_seq: u64,
    pub(super) window: Window,
    pub(super) range: Range,
    pub(super) objects: Vec<ManifestObject>,
    /// How many rows carry the note; none where the counts are wrong anyway.
    pub(super) conflicts: Option<u64>,
}

/// What is known of a shard's chain.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) shard: ShardId,
    /// Its name in keys.
    pub(super) folder: String,
    pub(super) parents: Vec<ShardId>,
    pub(super) bounds: Bounds,
    pub(super) findings: Vec<Finding>,
    pub(super) batches: Vec<Batch>,
    pub(super) gaps: Vec<RecordedGap>,
    /// Batches that a finding speaks of already: their objects are not reported beside it.
    pub(super) excused: BTreeSet<u64>,
    /// The number behind the newest manifest that stands.
    pub(super) next: u64,
    /// Whether the newest manifest is sound and says that the shard has ended.
    pub(super) ended: bool,
    /// The digest of the newest manifest that stands.
    pub(super) head: Option<Digest>,
    /// The newest manifests of its parents, as its own first one names them.
    pub(super) parent_heads: BTreeMap<ShardId, Digest>,
    /// A child names its newest manifest.
    pub(super) vouched: bool,
    /// Its lease row was made anew from the archive.
    pub(super) remade: Option<Remade>,
    /// It does not go through where a report that was kept saw it end.
    pub(super) strays: bool,
}

impl Chain {
    /// Judges a shard by its manifests, in the order of their batches.
    pub(super) fn judge(shard: ShardId, folder: String, mut loaded: Vec<Loaded>, bounds: Bounds) -> Self {
        let mut chain = Self {
            parents: Vec::new(),
            findings: Vec::new(),
            batches: Vec::new(),
            gaps: Vec::new(),
            excused: BTreeSet::new(),
            next: 0,
            ended: false,
            head: None,
            parent_heads: BTreeMap::new(),
            vouched: false,
            remade: None,
            strays: false,
            bounds,
            folder,
            shard,
        };
        let beyond = loaded.partition_point(|manifest| !chain.bounds.forbids(manifest.number));
        let rogues = loaded.split_off(beyond);
        chain.report_rogues(loaded.last(), &rogues);
        chain.next = loaded.last().map_or(0, |newest| newest.number + 1);
        chain.head = loaded.last().map(|newest| newest.digest);
        chain.report_missing(&loaded);
        let sound = chain.sound(loaded);
        for pair in sound.windows(2).filter(|pair| pair[0].batch_seq + 1 == pair[1].batch_seq) {
            chain.judge_link(&pair[0], &pair[1]);
        }
        if let Some(first) = sound.first() {
            chain.parents.clone_from(&first.parents);
            chain.parent_heads.clone_from(&first.parent_heads);
        }
        chain.ended = sound.last().is_some_and(|newest| newest.shard_end && newest.batch_seq + 1 == chain.next);
        for manifest in sound {
            chain.judge_manifest(manifest);
        }
        chain
    }

    /// Whether what the chain says of its end can be believed.
    pub(super) fn tail_is_sound(&self) -> bool {
        let doubtful = [Kind::TruncatedTail, Kind::MissingManifest, Kind::BrokenChain];
        !self.findings.iter().any(|finding| doubtful.contains(&finding.kind))
    }

    /// Whether its end was compared with what bears witness of it.
    pub(super) fn is_compared(&self) -> bool {
        self.vouched || self.bounds.known() && self.remade.as_ref().is_none_or(Remade::is_proved)
    }

    /// Whether its newest manifests are not there.
    pub(super) fn is_cut(&self) -> bool {
        self.findings.iter().any(|finding| finding.kind == Kind::TruncatedTail)
    }

    pub(super) fn report(&mut self, kind: Kind, batch_seq: u64, key: String, detail: String) {
        let shard = Some(self.shard.clone());
        self.findings.push(Finding { shard, batch_seq: Some(batch_seq), key, kind, detail });
    }

    pub(super) fn report_manifest(&mut self, kind: Kind, batch_seq: u64, detail: String) {
        self.report(kind, batch_seq, keys::manifest_key_in(&self.folder, batch_seq), detail);
    }

    /// Manifests that must stand and do not, a finding for each stretch of them.
    fn report_missing(&mut self, loaded: &[Loaded]) {
        let standing = loaded.iter().map(|manifest| manifest.number);
        let mut stretches: Vec<Numbers<u64>> = Vec::new();
        let mut from = 0;
        for batch_seq in standing.chain([self.next.max(self.bounds.required())]) {
            stretches.push(from..batch_seq);
            from = batch_seq + 1;
        }
        for mut missing in stretches {
            if self.bounds.known() {
                // What was committed while we read may have come behind our back.
                missing.end = missing.end.min(self.bounds.required());
            }
            if missing.is_empty() {
                continue;
            }
            let (kind, why) = if missing.start >= self.next {
                (Kind::TruncatedTail, format!("the lease row counts {}", counted(self.bounds.required(), "batch")))
            } else {
                (Kind::MissingManifest, format!("the chain goes on with {}", missing.end))
            };
            self.report_manifest(kind, missing.start, format!("{}: {why}", are_missing(&missing)));
            self.excused.extend(missing);
        }
    }

    /// The manifests that can be believed. From the newest to the oldest, since each is vouched for by the one behind.
    fn sound(&mut self, loaded: Vec<Loaded>) -> Vec<Manifest> {
        let mut sound = Vec::new();
        let mut foreign = BTreeMap::new();
        let mut expected: Option<(u64, Digest)> = None;
        for Loaded { number: batch_seq, digest, parsed } in loaded.into_iter().rev() {
            let vouched = expected.take().filter(|(by, _)| *by == batch_seq + 1);
            match parsed {
                Ok(manifest) => match self.fault(&manifest, digest, vouched) {
                    None => {
                        expected = manifest.previous.map(|previous| (batch_seq, previous));
                        sound.push(manifest);
                        continue;
                    }
                    Some(fault) => self.report_manifest(Kind::BrokenChain, batch_seq, fault),
                },
                Err(fault @ ManifestFault::OtherArchive(_)) => {
                    foreign.insert(batch_seq, fault);
                }
                Err(fault) => self.report_manifest(Kind::BrokenChain, batch_seq, format!("it {fault}")),
            }
            self.excused.insert(batch_seq);
        }
        self.report_foreign(&foreign);
        sound.reverse();
        sound
    }

    /// Why a manifest that can be read can't be believed.
    fn fault(&self, manifest: &Manifest, digest: Digest, vouched: Option<(u64, Digest)>) -> Option<String> {
        let batch_seq = manifest.batch_seq;
        if let Some(committed) = self.bounds.committed(batch_seq)
            && committed.head != Some(digest)
        {
            let head = committed.head.map_or_else(|| "none".to_owned(), |head| head.to_string());
            return Some(format!("its SHA-256 is {digest}, the chain head of its lease row is {head}"));
        }
        match vouched {
            Some((by, named)) if named != digest => {
                Some(format!("its SHA-256 is {digest}, manifest {by} names {named} as its predecessor"))
            }
            _ => self.bounds.contradiction(manifest),
        }
    }

    /// One finding, however many: a whole chain of another archive is one mistake.
    fn report_foreign(&mut self, foreign: &BTreeMap<u64, ManifestFault>) {
        if let Some((&first, fault)) = foreign.first_key_value() {
            let others = match foreign.len() - 1 {
                0 => String::new(),
                1 => "; so does another of this shard".to_owned(),
                n => format!("; so do {n} others of this shard"),
            };
            self.report_manifest(Kind::BrokenChain, first, format!("it {fault}{others}"));
        }
    }

    /// Whether `next` goes on where `before` ended.
    fn judge_link(&mut self, before: &Manifest, next: &Manifest) {
        let batch_seq = next.batch_seq;
        if before.shard_end {
            let detail = format!("it follows batch {}, with which the shard ended", before.batch_seq);
            return self.report_manifest(Kind::BrokenChain, batch_seq, detail);
        }
        if let Err(misfit) = follows(&before.range.through, &next.range.after) {
            let detail = format!(
                "batch {} ends at {}, it begins after {}",
                before.batch_seq, before.range.through, next.range.after
            );
            self.report_manifest(misfit_kind(misfit), batch_seq, detail);
        }
    }

    /// What a sound manifest says of itself, and its lease row of it.
    fn judge_manifest(&mut self, manifest: Manifest) {
        let batch_seq = manifest.batch_seq;
        if !runs_forward(&manifest.range) {
            let detail = format!("its range {} runs backwards", manifest.range);
            self.report_manifest(Kind::RangeOverlap, batch_seq, detail);
        }
        if let Some((kind, detail)) = self.disagreement(&manifest) {
            self.report_manifest(kind, batch_seq, detail);
        }
        let miscounts = miscounts(&manifest.counts, &manifest.objects);
        if let Some(gap) = manifest.gap {
            self.gaps.push(RecordedGap { shard: self.shard.clone(), batch_seq, gap });
        }
        self.batches.push(Batch {
            batch_seq,
            window: manifest.window,
            range: manifest.range,
            objects: manifest.objects,
            conflicts: miscounts.is_empty().then_some(manifest.counts.conflicts),
        });
        if !miscounts.is_empty() {
            self.report_manifest(Kind::CountMismatch, batch_seq, miscounts.join("; "));
        }
    }

    /// How the lease row differs from the manifest that is its newest.
    fn disagreement(&self, manifest: &Manifest) -> Option<(Kind, String)> {
        let committed = self.bounds.committed(manifest.batch_seq)?;
        let through: &Checkpoint = &manifest.range.through;
        if let Err(misfit) = follows(through, &committed.checkpoint) {
            let detail = format!("it ends at {through}, the checkpoint of its lease row is {}", committed.checkpoint);
            return Some((misfit_kind(misfit), detail));
        }
        let ends = |ended| if ended { "the shard's end" } else { "not the shard's end" };
        (committed.ended != manifest.shard_end).then(|| {
            let detail = format!("it is {}, its lease row says {}", ends(manifest.shard_end), ends(committed.ended));
            (Kind::BrokenChain, detail)
        })
    }
}

/// Which manifests are.
pub(super) fn are_missing(numbers: &Numbers<u64>) -> String {
    match numbers.end.saturating_sub(numbers.start) {
        1 => format!("manifest {} is missing", numbers.start),
        _ => format!("manifests {} to {} are missing", numbers.start, numbers.end - 1),
    }
}

fn misfit_kind(misfit: Misfit) -> Kind {
    match misfit {
        Misfit::Gap => Kind::RangeGap,
        Misfit::Overlap => Kind::RangeOverlap,
        Misfit::OtherPayload => Kind::BrokenChain,
    }
}

/// How a manifest's numbers contradict one another.
fn miscounts(counts: &Counts, objects: &[ManifestObject]) -> Vec<String> {
    let rows = |kind: ObjectKind| objects.iter().filter(|o| o.kind == kind).fold(0u64, |n, o| n.saturating_add(o.rows));
    let Counts { records, archived, duplicates, rejected, conflicts, .. } = *counts;
    let mut found = Vec::new();
    if archived.saturating_add(duplicates).saturating_add(rejected) != records {
        found.push(format!(
            "it counts {}, but {archived} archived, {} and {rejected} rejected",
            counted(records, "record"),
            counted(duplicates, "duplicate")
        ));
    }
    for (kind, word, said) in [(ObjectKind::Events, "archived", archived), (ObjectKind::Rejected, "rejected", rejected)]
    {
        let listed = rows(kind);
        if listed != said {
            found.push(format!("it counts {said} {word}, its objects list {}", counted(listed, "row")));
        }
    }
    if conflicts > archived {
        found.push(format!("it counts {} among {archived} archived", counted(conflicts, "conflict")));
    }
    found
}
