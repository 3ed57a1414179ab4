//! The listing held against the chains: what is missing, what nobody listed, and what is to be read. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::judge::Chain;
use super::report::{Finding, Kind};
use crate::archive::Listed;
use crate::archive::identity::IDENTITY_KEY;
use crate::archive::manifest::ManifestObject;
use crate::batch::Window;
use crate::encode::keys::{self, BatchName};
use crate::ops::words::{counted, thousands};
use crate::source::{Range, ShardId};

/// An object that a sound manifest lists, and what it must be.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) shard: ShardId,
    pub(super) batch_seq: u64,
    pub(super) window: Window,
    pub(super) range: Range,
    pub(super) object: ManifestObject,
    /// Whether it stands and has its size: only then there is a point in reading it.
    pub(super) stands: bool,
}

impl Job {
    pub(super) fn finding(&self, kind: Kind, detail: String) -> Finding {
        let (shard, batch_seq) = (Some(self.shard.clone()), Some(self.batch_seq));
        Finding { shard, batch_seq, key: self.object.key.clone(), kind, detail }
    }
}

/// What the listing comes to.
#[derive(Debug, Default)]
pub(super) struct Stock {
    /// Every listed object, a batch's side by side, in the order of shards and batches.
    pub(super) jobs: Vec<Job>,
    pub(super) findings: Vec<Finding>,
    /// Objects of batches under way.
    pub(super) in_flight: u64,
}

/// Holds `listing` against the chains. `judged` are the manifests' keys that the chains were judged by; `listing` was
/// made later, so that every object of theirs is in it. Both are sorted.
pub(super) fn take_stock(chains: &mut BTreeMap<String, Chain>, judged: &[Listed], listing: &[Listed]) -> Stock {
    let mut stock = Stock::default();
    for chain in chains.values_mut() {
        for batch in &mut chain.batches {
            stock.jobs.extend(std::mem::take(&mut batch.objects).into_iter().map(|object| Job {
                shard: chain.shard.clone(),
                batch_seq: batch.batch_seq,
                window: batch.window,
                range: batch.range.clone(),
                object,
                stands: true,
            }));
        }
    }
    for job in &mut stock.jobs {
        if let Some((kind, detail)) = presence(&job.object, listing) {
            job.stands = false;
            stock.findings.push(job.finding(kind, detail));
        }
    }
    let claimed: HashSet<&str> = stock.jobs.iter().map(|job| job.object.key.as_str()).collect();
    let mut strays = BTreeMap::new();
    for Listed { key, .. } in listing.iter().filter(|object| !claimed.contains(object.key.as_str())) {
        match explain(key, chains, judged) {
            Explained::Expected => {}
            Explained::InFlight => stock.in_flight += 1,
            Explained::BehindTheTail(name) => {
                strays.entry(name.folder).or_insert_with(BTreeSet::new).insert((name.batch_seq, key.as_str()));
            }
            Explained::No(name, detail) => stock.findings.push(unlisted(key, name, detail, chains)),
        }
    }
    let truncated: Vec<_> = strays
        .iter()
        .filter_map(|(folder, strays)| Some((*folder, truncated(chains.get(*folder)?, strays)?)))
        .collect();
    for (folder, finding) in truncated {
        // Kept with the chain, since it says that the chain's end can't be believed.
        if let Some(chain) = chains.get_mut(folder) {
            chain.findings.push(finding);
        }
    }
    stock
}

/// What the listing says of an object that should stand.
fn presence(object: &ManifestObject, listing: &[Listed]) -> Option<(Kind, String)> {
    let Ok(found) = listing.binary_search_by(|listed| listed.key.as_str().cmp(&object.key)) else {
        let (rows, bytes) = (counted(object.rows, "row"), counted(object.bytes, "byte"));
        let detail = format!("its manifest lists it with {rows} and {bytes}; it is not there");
        return Some((Kind::MissingObject, detail));
    };
    let bytes = listing[found].bytes;
    (bytes != object.bytes).then(|| (Kind::AlteredObject, other_size(bytes, object)))
}

/// The words for an object that has so many bytes, and not as many as its manifest says.
pub(super) fn other_size(bytes: u64, object: &ManifestObject) -> String {
    let (has, said) = (counted(bytes, "byte"), thousands(object.bytes));
    format!("it has {has}, its manifest says {said}, with SHA-256 {}", object.sha256)
}

/// Why an object stands that no sound manifest lists.
enum Explained<'a> {
    /// It has its place, or another finding speaks of its batch.
    Expected,
    /// Its batch is under way.
    InFlight,
    /// Its batch is behind the newest manifest, and there is no lease row to tell whether it is under way.
    BehindTheTail(BatchName<'a>),
    /// Not at all.
    No(Option<BatchName<'a>>, String),
}

fn explain<'a>(key: &'a str, chains: &BTreeMap<String, Chain>, judged: &[Listed]) -> Explained<'a> {
    if key.starts_with(keys::MANIFESTS_PREFIX) {
        return explain_manifest(key, chains, judged);
    }
    // Folders with an underscore are a program's own, and no query engine reads them: spools, for one.
    if key == IDENTITY_KEY || key == keys::ACCESS_TEST_KEY || key.starts_with('_') {
        return Explained::Expected;
    }
    let Some(name) = keys::data_batch(key) else {
        return Explained::No(None, "it is not an object of this archive: its key names no batch".to_owned());
    };
    let Some(chain) = chains.get(name.folder) else {
        let detail = format!("its key names {}, a shard with neither manifests nor a lease row", name.folder);
        return Explained::No(Some(name), detail);
    };
    let batch_seq = name.batch_seq;
    if chain.batches.binary_search_by_key(&batch_seq, |batch| batch.batch_seq).is_ok() {
        return Explained::No(Some(name), format!("the manifest of batch {batch_seq} does not list it"));
    }
    if chain.excused.contains(&batch_seq) {
        Explained::Expected
    } else if chain.bounds.in_flight(batch_seq) {
        Explained::InFlight
    } else if !chain.bounds.known() && batch_seq >= chain.next {
        Explained::BehindTheTail(name)
    } else {
        Explained::No(Some(name), format!("no manifest lists it, and batch {batch_seq} is not under way"))
    }
}

/// A manifest's key that was not judged is one that came while we read, or never was one.
fn explain_manifest<'a>(key: &'a str, chains: &BTreeMap<String, Chain>, judged: &[Listed]) -> Explained<'a> {
    let Some(name) = keys::manifest_batch(key) else {
        return Explained::No(None, "it is not the key of a manifest".to_owned());
    };
    let known = judged.binary_search_by(|manifest| manifest.key.as_str().cmp(key)).is_ok();
    let forbidden = chains.get(name.folder).is_some_and(|chain| chain.bounds.forbids(name.batch_seq));
    if known || !forbidden {
        return Explained::Expected;
    }
    Explained::No(Some(name), "its lease row shows no such batch under way".to_owned())
}

fn unlisted(key: &str, name: Option<BatchName<'_>>, detail: String, chains: &BTreeMap<String, Chain>) -> Finding {
    let shard = name.as_ref().and_then(|name| chains.get(name.folder)).map(|chain| chain.shard.clone());
    let batch_seq = name.map(|name| name.batch_seq);
    Finding { shard, batch_seq, key: key.to_owned(), kind: Kind::UnlistedObject, detail }
}

/// Objects behind the newest manifest: with no lease row, the trace of manifests that were taken away.
fn truncated(chain: &Chain, strays: &BTreeSet<(u64, &str)>) -> Option<Finding> {
    let (first, example) = strays.first()?;
    let detail = format!(
        "{} of batches that no manifest tells of ({example}, for one): either the chain's end is missing or a batch was \
         under way, and there is no lease row to tell which",
        counted(strays.len() as u64, "object")
    );
    let key = keys::manifest_key_in(&chain.folder, *first);
    Some(Finding { shard: Some(chain.shard.clone()), batch_seq: Some(*first), key, kind: Kind::TruncatedTail, detail })
}
