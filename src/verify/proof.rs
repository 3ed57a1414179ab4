//! The loop that reads the objects, and what comes of all of them together.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::compare::compare_all;
use super::identities::{Hash, Identifier, Identities};
use super::inventory::Job;
use super::judge::Chain;
use super::reader::RowReader;
use super::reading::{AT_ONCE, Reading};
use super::report::{Finding, Kind, Report};
use super::rows::{Read, Strangers};
use super::{Options, Progress};
use crate::archive::{ArchiveError, ArchiveStore};
use crate::encode::keys;
use crate::ops::words::counted;
use crate::source::ShardId;

/// Pairs of objects with records in common that are read again to name one of these records. In an archive that is
/// doubled as a whole, a hundred examples are enough.
const EXAMPLES: usize = 100;

/// The reading of all objects, and what has come of it.
pub(super) struct Proof<'a> {
    chains: &'a BTreeMap<String, Chain>,
    jobs: &'a [Job],
    identifier: Identifier,
    reader: Arc<dyn RowReader>,
    report: Report,
    identities: Identities,
    /// By object, of those that have any.
    strangers: BTreeMap<usize, Strangers>,
    /// By object: its rows with the note `dedupe_conflict`; none where it was not read, or not as its manifest says.
    conflicts: Vec<Option<u64>>,
}

/// Rows of one object that stand in another, too.
#[derive(Default)]
struct Copies {
    count: u64,
    hashes: HashSet<Hash>,
}

impl<'a> Proof<'a> {
    pub(super) fn new(
        chains: &'a BTreeMap<String, Chain>,
        jobs: &'a [Job],
        reader: Arc<dyn RowReader>,
        report: Report,
    ) -> Self {
        Self {
            chains,
            jobs,
            identifier: Identifier::new(report.archive_id),
            reader,
            report,
            identities: Identities::new(),
            strangers: BTreeMap::new(),
            conflicts: vec![None; jobs.len()],
        }
    }

    /// Reads and reports.
    pub(super) async fn run(
        mut self,
        store: &dyn ArchiveStore,
        options: &Options,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Report, ArchiveError> {
        self.read_all(store, options, progress).await?;
        self.count_conflicts();
        self.report_duplicates(store).await?;
        Ok(self.report)
    }

    /// Reads every object that is covered and stands, a few at a time, and accounts for them in their order. With
    /// `--fast` the store is asked about each instead.
    async fn read_all(
        &mut self,
        store: &dyn ArchiveStore,
        options: &Options,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), ArchiveError> {
        let jobs = self.jobs;
        let wanted: Vec<usize> = (0..jobs.len()).filter(|n| jobs[*n].stands && options.cover(&jobs[*n])).collect();
        let bytes_total = wanted.iter().map(|n| jobs[*n].object.bytes).sum();
        let mut done = Progress { objects_total: wanted.len() as u64, bytes_total, ..Progress::default() };
        let mut next = |number: usize| {
            done.objects += 1;
            done.bytes += jobs[number].object.bytes;
            progress(done);
        };
        if options.fast {
            return compare_all(store, jobs, wanted, &mut self.report, &mut next).await;
        }
        let reading = Reading::new(store, jobs, Arc::clone(&self.reader), self.identifier);
        let mut reads = stream::iter(wanted).map(|number| reading.read(number)).buffered(AT_ONCE);
        while let Some((number, read)) = reads.try_next().await? {
            self.account(number, read);
            next(number);
        }
        Ok(())
    }

    fn account(&mut self, number: usize, read: Read) {
        let job = &self.jobs[number];
        self.report.objects_read += 1;
        self.report.rows += read.rows;
        self.report.bytes += job.object.bytes;
        let covered = &mut self.report.covered;
        covered.first_window = [covered.first_window, Some(job.window.start)].into_iter().flatten().min();
        covered.last_window = covered.last_window.max(Some(job.window.end));
        if read.faults.is_empty() && read.strangers.count == 0 {
            self.conflicts[number] = Some(read.conflicts);
        }
        self.report.findings.extend(read.faults.into_iter().map(|(kind, detail)| job.finding(kind, detail)));
        for (hash, stranger) in read.identities {
            self.identities.add(hash, number, stranger);
        }
        if read.strangers.count > 0 {
            self.strangers.insert(number, read.strangers);
        }
    }

    /// Holds the conflicts of each batch that was read whole against its manifest.
    fn count_conflicts(&mut self) {
        let mut first = 0;
        for jobs in self.jobs.chunk_by(|a, b| a.shard == b.shard && a.batch_seq == b.batch_seq) {
            let read = &self.conflicts[first..first + jobs.len()];
            first += jobs.len();
            let (shard, batch_seq) = (&jobs[0].shard, jobs[0].batch_seq);
            let found = read.iter().try_fold(0, |sum: u64, conflicts| conflicts.map(|n| sum + n));
            let (Some(said), Some(found)) = (self.conflicts_said(shard, batch_seq), found) else { continue };
            if said != found {
                self.report.findings.push(Finding {
                    shard: Some(shard.clone()),
                    batch_seq: Some(batch_seq),
                    key: keys::manifest_key(shard, batch_seq),
                    kind: Kind::CountMismatch,
                    detail: format!(
                        "it counts {}, and of its rows {found} are noted as such",
                        counted(said, "conflict")
                    ),
                });
            }
        }
    }

    fn conflicts_said(&self, shard: &ShardId, batch_seq: u64) -> Option<u64> {
        let batches = &self.chains.get(&keys::encode_shard(shard))?.batches;
        batches[batches.binary_search_by_key(&batch_seq, |batch| batch.batch_seq).ok()?].conflicts
    }

    /// Reports records that stand in the archive twice, and rows that are not where they belong and no copies either.
    async fn report_duplicates(&mut self, store: &dyn ArchiveStore) -> Result<(), ArchiveError> {
        let mut pairs: BTreeMap<(usize, usize), Copies> = BTreeMap::new();
        let mut misplaced: BTreeMap<usize, Copies> = BTreeMap::new();
        for duplicate in std::mem::replace(&mut self.identities, Identities::new()).duplicates() {
            let pair = pairs.entry((duplicate.copy, duplicate.original)).or_default();
            let as_strangers = duplicate.stranger.then(|| misplaced.entry(duplicate.copy).or_default());
            for copies in std::iter::once(pair).chain(as_strangers) {
                copies.count += 1;
                copies.hashes.insert(duplicate.hash);
            }
        }
        for (turn, ((copy, original), copies)) in pairs.iter().enumerate() {
            let example =
                if turn < EXAMPLES { self.example(store, *copy, &copies.hashes).await? } else { String::new() };
            let (copy, n) = (&self.jobs[*copy], copies.count);
            let detail = match &self.jobs[*original].object.key {
                key if *key == copy.object.key => format!("{n} of its records stand in it more than once{example}"),
                key => format!("{n} of its records stand in {key} too{example}"),
            };
            self.report.findings.push(copy.finding(Kind::DuplicateRecord, detail));
        }
        for (number, strangers) in &self.strangers {
            let none = Copies::default();
            let copies = misplaced.get(number).unwrap_or(&none);
            if let Some(detail) = strangers.explain(copies.count, &copies.hashes) {
                self.report.findings.push(self.jobs[*number].finding(Kind::AlteredObject, detail));
            }
        }
        Ok(())
    }

    /// Names one of the rows with these hashes: only the hashes were kept.
    async fn example(
        &self,
        store: &dyn ArchiveStore,
        number: usize,
        hashes: &HashSet<Hash>,
    ) -> Result<String, ArchiveError> {
        let object = &self.jobs[number].object;
        let Some(bytes) = store.get(&object.key).await? else { return Ok(String::new()) };
        let Ok(mut rows) = self.reader.rows(object.kind, &object.key, bytes) else { return Ok(String::new()) };
        let found = rows.find_map(|row| row.ok().filter(|row| hashes.contains(&self.identifier.hash(row))));
        Ok(found.map_or_else(String::new, |row| {
            let place = row.position.record(row.index);
            let log_id = row.log_id.as_deref().unwrap_or("none");
            format!(": log_id {log_id}, version {}, from {} {place}, for one", row.version, row.shard)
        }))
    }
}
