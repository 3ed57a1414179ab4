//! The archive read back and proved, without trusting the writer.
//!
//! | step | judged by |
//! |---|---|
//! | 1. lease rows, manifests' listing, whole listing, lease rows again: in this order, so that a daemon that commits meanwhile is told from damage | `bounds` |
//! | 2. every shard's manifests: is the chain whole, does each range go on where the last ended, do the counts add up | `judge`, `rogue` |
//! | … and a report that was kept: does each chain still go through where it ended then; rows that were made anew | `kept`, `remade` |
//! | 3. the listing: does every object stand, is every object listed | `inventory` |
//! | 4. every object: digest, rows, positions, times; with `fast` what the store tells of it | `rows`, `compare` |
//! | 5. all rows: is none there twice | `identities` |
//!
//! Damage is told by the name of its [`Kind`], each single damage by one: what follows from a finding is not reported
//! beside it.

mod bounds;
mod compare;
mod identities;
mod inventory;
mod judge;
mod kept;
mod objects;
mod parents;
mod proof;
mod reader;
mod reading;
pub mod rebuild;
pub mod recorded;
mod remade;
mod report;
mod rogue;
mod rows;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;

use self::bounds::Bounds;
use self::inventory::{Job, take_stock};
use self::judge::{Chain, Loaded};
pub use self::kept::{Kept, KeptError};
pub use self::objects::ObjectRows;
use self::parents::judge_parents;
use self::proof::Proof;
pub use self::reader::{RowKey, RowReader, Rows};
use self::remade::Remade;
pub use self::report::{ChainHead, ChainHeads, Covered, Finding, Kind, RecordedGap, Report, digest_of, render};
use crate::archive::identity::{self, IdentityError};
use crate::archive::{ArchiveError, ArchiveStore, Listed, chain};
use crate::digest::Digest;
use crate::encode::keys;
use crate::lease::{LeaseError, LeaseRow, LeaseStore};
use crate::source::ShardId;

/// Manifests fetched at once. They are small, and a distant store answers many as fast as one.
const MANIFESTS_AT_ONCE: usize = 32;

/// How far to go. Manifests are judged whole whatever this says: there is no half a chain.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Read no object of a window that ends at or before this.
    pub since: Option<Timestamp>,
    /// Read no object of a window that starts at or after this.
    pub until: Option<Timestamp>,
    /// Read no object at all: the store is asked for the size of each, and for the digest that it keeps, if it does.
    pub fast: bool,
    /// When the proof begins, for the report.
    pub began: Timestamp,
    /// What an earlier proof found, to be found again.
    pub against: Option<Kept>,
    /// Why there are no lease rows, where that is known.
    pub no_rows: Option<String>,
}

impl Options {
    /// Whether the object is to be read, or asked about.
    fn cover(&self, job: &Job) -> bool {
        let since = self.since.is_none_or(|since| job.window.end > since);
        let until = self.until.is_none_or(|until| job.window.start < until);
        since && until
    }
}

/// How far the proof has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Objects read, or asked about.
    pub objects: u64,
    /// Objects to be read, or asked about.
    pub objects_total: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of all.
    pub bytes_total: u64,
}

/// Why there is no proof either way.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no archive, or not one of ours.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The archive could not be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The lease rows could not be read.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

/// Proves the archive, or tells what is wrong with it. Writes nothing, and may run beside daemons.
///
/// Without `leases` (the state is lost, or elsewhere) everything is proved but that the chains' ends are not missing.
/// `progress` is called whenever an object has been read. Eight objects at most are in memory at a time, of 64 MiB
/// together (a larger one alone), and twenty bytes a row.
///
/// # Errors
/// [`VerifyError`] where the archive or the lease rows can't be read: then nothing is proved. Damage is no error, nor is a
/// single lease row that can't be understood: whoever can write one must not be able to switch the proof off.
pub async fn verify(
    store: &dyn ArchiveStore,
    leases: Option<&dyn LeaseStore>,
    reader: Arc<dyn RowReader>,
    options: &Options,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report, VerifyError> {
    let archive_id = identity::read(store).await?.archive_id;
    let mut before = Witnesses::look(leases).await?;
    let manifests = store.list(keys::MANIFESTS_PREFIX).await?;
    let listing = store.list("").await?;
    let mut after = Witnesses::look(leases).await?;
    let damaged: BTreeMap<String, LeaseError> = before.damaged.drain().chain(after.damaged.drain()).collect();
    for folder in damaged.keys() {
        // What one look could read and the other could not says too little of what was committed in between.
        before.rows.remove(folder);
        after.rows.remove(folder);
    }

    let against = options.against.as_ref();
    let mut chains = judge_chains(store, archive_id, &manifests, (&before.rows, &after.rows), against).await?;
    let stock = take_stock(&mut chains, &manifests, &listing);
    judge_parents(&mut chains);

    let tail_compared = damaged.is_empty() && chains.values().all(Chain::is_compared);
    let chain_heads = chain_heads(&chains);
    let report = Report {
        archive_id,
        began: options.began,
        shards: chains.len() as u64,
        manifests: manifests.len() as u64,
        objects: stock.jobs.len() as u64,
        objects_read: 0,
        rows: 0,
        bytes: 0,
        by_checksum: 0,
        by_size_only: 0,
        in_flight: stock.in_flight,
        covered: Covered { since: options.since, until: options.until, fast: options.fast, ..Covered::default() },
        tail_compared,
        tail_proved: tail_compared && !chains.values().any(|chain| chain.is_cut() || chain.strays),
        archive_digest: digest_of(&chain_heads),
        chain_heads,
        against: against.map(|kept| kept.began),
        notes: notes(&chains, leases.is_some(), options.no_rows.as_deref(), &damaged),
        gaps: Vec::new(),
        findings: stock.findings,
    };
    let mut report = Proof::new(&chains, &stock.jobs, reader, report).run(store, options, progress).await?;
    for chain in chains.values_mut() {
        report.findings.append(&mut chain.findings);
        report.gaps.append(&mut chain.gaps);
    }
    report.findings.extend(damaged.values().filter_map(damaged_row));
    report.notes.extend(remade::notes(&chains, &report.findings));
    report.findings.sort();
    Ok(report)
}

/// The lease rows of one look, by their shards' names in keys.
#[derive(Default)]
struct Witnesses {
    rows: HashMap<String, LeaseRow>,
    /// What is wrong with those that can't be read.
    damaged: HashMap<String, LeaseError>,
}

impl Witnesses {
    async fn look(leases: Option<&dyn LeaseStore>) -> Result<Self, LeaseError> {
        let Some(leases) = leases else { return Ok(Self::default()) };
        let listing = leases.look().await?;
        let damaged = |error: LeaseError| Some((keys::encode_shard(error.shard()?), error));
        Ok(Self {
            rows: listing.rows.into_iter().map(|row| (keys::encode_shard(&row.shard), row)).collect(),
            damaged: listing.damaged.into_iter().filter_map(damaged).collect(),
        })
    }
}

/// The finding that a row can't be read.
fn damaged_row(error: &LeaseError) -> Option<Finding> {
    let shard = error.shard()?;
    Some(Finding {
        shard: Some(shard.clone()),
        batch_seq: None,
        key: keys::manifest_prefix(shard),
        kind: Kind::DamagedLeaseRow,
        detail: format!("that nothing is cut off at the end of this chain is not proved: {error}"),
    })
}

/// Where each chain ends.
fn chain_heads(chains: &BTreeMap<String, Chain>) -> ChainHeads {
    let head = |chain: &Chain| {
        let manifest = keys::manifest_key_in(&chain.folder, chain.next.checked_sub(1)?);
        Some((chain.shard.clone(), ChainHead { batches: chain.next, manifest, head: chain.head? }))
    };
    chains.values().filter_map(head).collect()
}

/// Reads and judges every shard's manifests, one shard at a time.
async fn judge_chains(
    store: &dyn ArchiveStore,
    archive_id: uuid::Uuid,
    manifests: &[Listed],
    (before, after): (&HashMap<String, LeaseRow>, &HashMap<String, LeaseRow>),
    against: Option<&Kept>,
) -> Result<BTreeMap<String, Chain>, ArchiveError> {
    let kept: BTreeMap<String, &ShardId> = against
        .into_iter()
        .flat_map(|kept| kept.chain_heads().keys().map(|shard| (keys::encode_shard(shard), shard)))
        .collect();
    let told = before.keys().chain(after.keys()).chain(kept.keys());
    let mut shards: BTreeMap<&str, BTreeSet<u64>> = told.map(|folder| (folder.as_str(), BTreeSet::new())).collect();
    for name in manifests.iter().filter_map(|listed| keys::manifest_batch(&listed.key)) {
        shards.entry(name.folder).or_default().insert(name.batch_seq);
    }
    let mut chains = BTreeMap::new();
    for (folder, numbers) in shards {
        let mut loaded = Vec::with_capacity(numbers.len());
        let fetch = |number| async move { (number, store.get(&keys::manifest_key_in(folder, number)).await) };
        let mut fetched = stream::iter(numbers).map(fetch).buffered(MANIFESTS_AT_ONCE);
        while let Some((number, bytes)) = fetched.next().await {
            // One that has vanished since is as missing as one that was not listed.
            if let Some(bytes) = bytes? {
                let parsed = chain::parse(&bytes, archive_id, folder, number);
                loaded.push(Loaded { number, digest: Digest::of(&bytes), parsed });
            }
        }
        let (before, after) = (before.get(folder), after.get(folder));
        let row = before.or(after).map(|row| &row.shard);
        let shard = shard_of(folder, row.or(kept.get(folder).copied()), &loaded);
        let remade = after.and_then(|row| Remade::of(row, &loaded, against));
        let head = against.and_then(|kept| Some((kept.began, kept.standing(&shard, &loaded)?)));
        let mut chain = Chain::judge(shard, folder.to_owned(), loaded, Bounds::of(before, after));
        if let Some((began, (kept, standing))) = head {
            chain.judge_kept(began, kept, standing);
        }
        chain.remade = remade;
        chains.insert(folder.to_owned(), chain);
    }
    Ok(chains)
}

/// The shard of this folder: an encoded name may have been shortened, so somebody has to tell.
fn shard_of(folder: &str, known: Option<&ShardId>, loaded: &[Loaded]) -> ShardId {
    let told = loaded.iter().find_map(|manifest| manifest.parsed.as_ref().ok()).map(|manifest| &manifest.shard);
    known.or(told).cloned().unwrap_or_else(|| ShardId::new(folder))
}

/// What the chains' ends were compared with.
fn notes(
    chains: &BTreeMap<String, Chain>,
    leases: bool,
    no_rows: Option<&str>,
    damaged: &BTreeMap<String, LeaseError>,
) -> Vec<String> {
    if !leases {
        let why = no_rows.unwrap_or("no lease rows were given");
        return vec![format!(
            "{why}: a chain whose newest manifests were taken away can't be told from one that is whole"
        )];
    }
    let is_told = |chain: &Chain| chain.bounds.known() || chain.vouched || damaged.contains_key(&chain.folder);
    let unknown = chains.values().filter(|chain| !is_told(chain));
    unknown.map(|chain| format!("{} has no lease row: the end of its chain is not proved", chain.shard)).collect()
}
