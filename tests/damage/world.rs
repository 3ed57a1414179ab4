//! A small world to do damage to: an archive made by hand, with its lease rows, in a trivial format.
//!
//! Damage comes in two ways. What an accident does is done to the objects. What a forger does, who can compute digests,
//! is done to the [`World`] before it is built: manifests, chain and lease rows then agree with one another.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use auditlake::archive::manifest::{Counts, Manifest, ManifestObject, ObjectKind};
use auditlake::archive::{ArchiveStore, LocalArchive, MemoryArchive};
use auditlake::batch::Window;
use auditlake::digest::Digest;
use auditlake::encode::keys;
use auditlake::encode::{Compression, Format, Layout, PartitionKey};
use auditlake::lease::{LeaseError, LeaseRow, LeaseStore, Listing, Pending};
use auditlake::record::Rules;
use auditlake::source::{Checkpoint, Position, Range, ShardId, SourceKind};
use auditlake::verify::{Kind, Options, Report, RowKey, RowReader, Rows, verify};
use bytes::Bytes;
use jiff::{Timestamp, ToSpan};
use uuid::Uuid;

/// The archive's id.
pub(crate) const ARCHIVE: Uuid = Uuid::from_u128(0xa0d1);

/// A row, as it is written: one JSON object a line.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Row {
    pub(crate) log_id: Option<String>,
    pub(crate) version: i32,
    pub(crate) emit_time: Timestamp,
    pub(crate) shard: String,
    pub(crate) sequence: u64,
    pub(crate) conflict: bool,
}

/// A batch to be written.
pub(crate) struct Batch {
    pub(crate) after: Option<u64>,
    pub(crate) through: Option<u64>,
    pub(crate) events: Vec<Row>,
    pub(crate) rejects: Vec<Row>,
    pub(crate) duplicates: u64,
    pub(crate) shard_end: bool,
    /// What a forger does to the manifest before it is hashed.
    pub(crate) forge: Box<dyn Fn(&mut Manifest)>,
}

/// A shard to be written.
pub(crate) struct Shard {
    pub(crate) name: String,
    pub(crate) parents: Vec<String>,
    pub(crate) batches: Vec<Batch>,
    /// Whether the last batch is only pending: its objects are put, its manifest is not.
    pub(crate) pending: bool,
}

/// All shards.
pub(crate) struct World {
    pub(crate) shards: Vec<Shard>,
}

/// What stands, and what the lease rows say before and after the listing.
#[derive(Clone)]
pub(crate) struct Archive {
    pub(crate) objects: BTreeMap<String, Bytes>,
    pub(crate) rows: Vec<LeaseRow>,
    pub(crate) rows_after: Vec<LeaseRow>,
}

pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
/// The child of both.
pub(crate) const C: usize = 2;

impl World {
    /// Two shards that merge into a third, with rejects, duplicates, conflicts, an empty batch and a pending one.
    pub(crate) fn new() -> Self {
        let long = format!("dir/{}", "c".repeat(150));
        let mut a = Shard::new("shard-a", &[]);
        a.batches = vec![a.batch(0, 10), a.batch(10, 20), a.batch(20, 30), a.batch(30, 30)];
        a.batches[1].rejects = vec![a.row(15), a.row(16)];
        a.batches[2].duplicates = 4;
        a.batches[3].shard_end = true;
        let mut b = Shard::new("shard-b", &[]);
        b.batches = vec![b.batch(0, 10), b.batch(10, 20)];
        b.batches[1].shard_end = true;
        // The second version of one record, a conflict with another, and two records without a log_id.
        let second = Row { version: 1, ..b.row(2) };
        let conflict = Row { conflict: true, sequence: 19, ..b.row(4) };
        let nameless = [15, 17].map(|sequence| Row { log_id: None, ..b.row(sequence) });
        b.batches[0].events.push(second);
        b.batches[1].events.push(conflict);
        b.batches[1].events.extend(nameless);
        let mut c = Shard::new(&long, &["shard-a", "shard-b"]);
        c.batches = vec![c.batch(0, 10), c.batch(10, 20), c.batch(20, 30), c.batch(30, 40)];
        c.pending = true;
        Self { shards: vec![a, b, c] }
    }

    pub(crate) fn batch(&mut self, shard: usize, batch_seq: usize) -> &mut Batch {
        &mut self.shards[shard].batches[batch_seq]
    }

    /// Writes everything down.
    pub(crate) fn build(&self) -> Archive {
        let identity = format!(
            r#"{{"archive_id": "{ARCHIVE}", "schema_version": 1, "created_at": "2026-11-21T09:00:00Z", "created_by": "test"}}"#
        );
        let mut objects = BTreeMap::from([("_auditlake.json".to_owned(), identity.into())]);
        let mut rows: Vec<LeaseRow> = Vec::new();
        for shard in &self.shards {
            let row = shard.build(&mut objects, &rows);
            rows.push(row);
        }
        Archive { objects, rows_after: rows.clone(), rows }
    }
}

impl Shard {
    fn new(name: &str, parents: &[&str]) -> Self {
        let parents = parents.iter().map(|&parent| parent.to_owned()).collect();
        Self { name: name.to_owned(), parents, batches: Vec::new(), pending: false }
    }

    pub(crate) fn id(&self) -> ShardId {
        ShardId::new(&self.name)
    }

    pub(crate) fn row(&self, sequence: u64) -> Row {
        Row {
            log_id: Some(format!("{}-{sequence}", &self.name[self.name.len() - 7..])),
            version: 0,
            emit_time: "2026-11-20T23:59:58.123456789Z".parse::<Timestamp>().unwrap()
                + sequence.cast_signed().seconds(),
            shard: self.name.clone(),
            sequence,
            conflict: false,
        }
    }

    /// A batch with a row for each even position; some on either side of midnight, so in two objects.
    fn batch(&self, after: u64, through: u64) -> Batch {
        Batch {
            after: (after > 0).then_some(after),
            through: Some(through),
            events: (after + 1..=through).filter(|n| n % 2 == 0).map(|n| self.row(n)).collect(),
            rejects: Vec::new(),
            duplicates: 0,
            shard_end: false,
            forge: Box::new(|_| {}),
        }
    }

    /// Puts all batches and gives the lease row.
    fn build(&self, objects: &mut BTreeMap<String, Bytes>, before: &[LeaseRow]) -> LeaseRow {
        let mut row = LeaseRow::new(self.id(), self.parents.iter().map(ShardId::new).collect());
        for (batch_seq, batch) in self.batches.iter().enumerate() {
            let mut manifest = self.manifest(batch, batch_seq as u64, row.chain_head, objects);
            if batch_seq == 0 {
                let parents = before.iter().filter(|row| manifest.parents.contains(&row.shard));
                manifest.parent_heads = parents.filter_map(|row| Some((row.shard.clone(), row.chain_head?))).collect();
            }
            if self.pending && batch_seq + 1 == self.batches.len() {
                row.pending = Some(pending(&manifest));
                continue;
            }
            let bytes = manifest.to_bytes();
            row.batch_seq = batch_seq as u64 + 1;
            row.chain_head = Some(Digest::of(&bytes));
            row.checkpoint = manifest.range.through;
            row.ended = manifest.shard_end;
            objects.insert(keys::manifest_key(&self.id(), batch_seq as u64), bytes.into());
        }
        row
    }

    fn manifest(
        &self,
        batch: &Batch,
        batch_seq: u64,
        previous: Option<Digest>,
        objects: &mut BTreeMap<String, Bytes>,
    ) -> Manifest {
        let start = "2026-11-21T09:30:00Z".parse::<Timestamp>().unwrap() + (30 * batch_seq.cast_signed()).minutes();
        let mut by_key: BTreeMap<String, (ObjectKind, Vec<&Row>)> = BTreeMap::new();
        let named = |root: &str, row: &Row, ext: &str| {
            let (date, window) = (row.emit_time.strftime("%F"), start.strftime("%Y%m%dT%H%M%SZ"));
            format!("{root}/dt={date}/{window}-{}-{batch_seq:08}.{ext}", keys::encode_shard(&self.id()))
        };
        for row in &batch.events {
            by_key.entry(named("events", row, "ndjson")).or_insert((ObjectKind::Events, Vec::new())).1.push(row);
        }
        for row in &batch.rejects {
            by_key.entry(named("rejected", row, "ndjson")).or_insert((ObjectKind::Rejected, Vec::new())).1.push(row);
        }
        let listed = by_key.into_iter().map(|(key, (kind, rows))| put(key, kind, &rows, objects)).collect();
        let (archived, rejected) = (batch.events.len() as u64, batch.rejects.len() as u64);
        let mut manifest = Manifest {
            archive_id: ARCHIVE,
            shard: self.id(),
            parent_heads: std::collections::BTreeMap::new(),
            origin: None,
            parents: self.parents.iter().map(ShardId::new).collect(),
            batch_seq,
            window: Window { start, end: start + 30.minutes() },
            range: Range { after: checkpoint(batch.after), through: checkpoint(batch.through) },
            shard_end: batch.shard_end,
            arrival: None,
            read_through: start,
            counts: Counts {
                payloads: 1,
                records: archived + rejected + batch.duplicates,
                archived,
                duplicates: batch.duplicates,
                conflicts: batch.events.iter().filter(|row| row.conflict).count() as u64,
                rejected,
                empty: 0,
            },
            objects: listed,
            gap: None,
            previous,
            writer: "test".to_owned(),
        };
        (batch.forge)(&mut manifest);
        manifest
    }
}

fn put(key: String, kind: ObjectKind, rows: &[&Row], objects: &mut BTreeMap<String, Bytes>) -> ManifestObject {
    let body: Bytes = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect::<String>().into();
    objects.insert(key.clone(), body.clone());
    let times = || rows.iter().map(|row| row.emit_time).filter(|_| kind == ObjectKind::Events);
    ManifestObject {
        kind,
        rows: rows.len() as u64,
        bytes: body.len() as u64,
        sha256: Digest::of(&body),
        min_emit_time: times().min(),
        max_emit_time: times().max(),
        key,
    }
}

pub(crate) fn checkpoint(position: Option<u64>) -> Checkpoint {
    position
        .map_or(Checkpoint::TrimHorizon, |position| Checkpoint::at(Position::new(position), &position.to_le_bytes()))
}

fn pending(manifest: &Manifest) -> Pending {
    Pending {
        batch_seq: manifest.batch_seq,
        range: manifest.range.clone(),
        shard_end: manifest.shard_end,
        window: manifest.window,
        arrival: manifest.window.start,
        layout: Layout {
            format: Format::Ndjson,
            compression: Compression::None,
            compression_level: 0,
            partition_by: vec![PartitionKey::Dt],
            keep_raw: false,
            source_label: String::new(),
            source_kind: SourceKind::Kinesis,
            rules: Rules { trusted_proxies: Vec::new(), max_payload_bytes: 0 },
        },
        gap: None,
    }
}

/// Reads the trivial format.
struct Lines;

impl RowReader for Lines {
    fn rows(&self, _kind: ObjectKind, key: &str, bytes: Bytes) -> Result<Rows, String> {
        assert!(key.ends_with(".ndjson"), "{key} is not an object to be read");
        let text = String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())?;
        let parse = |line: &str| {
            let row: Row = serde_json::from_str(line).map_err(|error| error.to_string())?;
            Ok(RowKey {
                log_id: row.log_id,
                version: row.version,
                // As Parquet keeps it.
                emit_time: Timestamp::from_microsecond(row.emit_time.as_microsecond()).ok(),
                shard: ShardId::new(row.shard),
                position: Position::new(row.sequence),
                index: 0,
                conflict: row.conflict,
            })
        };
        let rows: Vec<_> = text.lines().map(parse).collect();
        Ok(Box::new(rows.into_iter()))
    }
}

/// Lease rows that are other ones whenever they are asked for.
struct Snapshots(Mutex<VecDeque<Vec<LeaseRow>>>);

#[async_trait]
impl LeaseStore for Snapshots {
    async fn look(&self) -> Result<Listing, LeaseError> {
        let rows = self.0.lock().unwrap().pop_front().expect("rows are read twice");
        Ok(Listing { rows, damaged: Vec::new() })
    }

    async fn get(&self, _: &ShardId) -> Result<Option<LeaseRow>, LeaseError> {
        unreachable!("verify lists")
    }
    async fn create(&self, _: &LeaseRow) -> Result<(), LeaseError> {
        unreachable!("verify writes nothing")
    }
    async fn replace(&self, _: &LeaseRow) -> Result<(), LeaseError> {
        unreachable!("verify writes nothing")
    }
    async fn remove(&self, row: &LeaseRow) -> Result<(), LeaseError> {
        unreachable!("{} is looked at only", row.shard)
    }

    fn sole_worker(&self) -> bool {
        false
    }
}

impl Archive {
    /// The key of a manifest.
    pub(crate) fn manifest(&self, shard: usize, batch_seq: u64) -> String {
        keys::manifest_key(&self.rows[shard].shard, batch_seq)
    }

    /// The keys of a batch's objects below `root`.
    pub(crate) fn data(&self, root: &str, shard: usize, batch_seq: u64) -> Vec<String> {
        let end = format!("-{}-{batch_seq:08}.ndjson", keys::encode_shard(&self.rows[shard].shard));
        self.objects.keys().filter(|key| key.starts_with(root) && key.ends_with(&end)).cloned().collect()
    }

    /// Changes an object's bytes.
    pub(crate) fn edit(&mut self, key: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.objects[key].to_vec();
        edit(&mut bytes);
        self.objects.insert(key.to_owned(), bytes.into());
    }

    /// Changes a word in an object.
    pub(crate) fn replace(&mut self, key: &str, from: &str, to: &str) {
        self.edit(key, |bytes| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.contains(from), "{text} has no {from}");
            *bytes = text.replacen(from, to, 1).into();
        });
    }

    /// Verifies the archive in memory and on a disk, and finds the same.
    pub(crate) async fn verify_with(&self, leases: bool, options: Options) -> Report {
        let memory = MemoryArchive::new();
        let root = tempfile::tempdir().unwrap();
        let local = LocalArchive::open(root.path()).unwrap();
        for (key, body) in &self.objects {
            memory.overwrite(key, body.clone());
            local.put_if_absent(key, body.clone()).await.unwrap();
        }
        let in_memory = self.verify_in(&memory, leases, &options).await;
        let on_disk = self.verify_in(&local, leases, &options).await;
        assert_eq!(in_memory, on_disk);
        in_memory
    }

    async fn verify_in(&self, store: &dyn ArchiveStore, leases: bool, options: &Options) -> Report {
        let snapshots = Snapshots(Mutex::new([self.rows.clone(), self.rows_after.clone()].into()));
        let leases: Option<&dyn LeaseStore> = if leases { Some(&snapshots) } else { None };
        let mut last = None;
        let report =
            verify(store, leases, Arc::new(Lines), options, &mut |progress| last = Some(progress)).await.unwrap();
        let (read, total) = last.map_or((0, 0), |progress| (progress.objects, progress.objects_total));
        let known = report.objects_read + report.by_checksum + report.by_size_only;
        assert_eq!((read, total), (known, known), "progress ends when everything is read");
        report
    }

    pub(crate) async fn verify(&self) -> Report {
        self.verify_with(true, Options::default()).await
    }

    /// Asserts that this and nothing else is found, and that it names the object.
    pub(crate) async fn assert_only(&self, kind: Kind, key: &str) -> String {
        only(&self.verify().await, kind, key)
    }

    /// The same without lease rows.
    pub(crate) async fn assert_only_without_leases(&self, kind: Kind, key: &str) -> String {
        only(&self.verify_with(false, Options::default()).await, kind, key)
    }
}

fn only(report: &Report, kind: Kind, key: &str) -> String {
    let found: Vec<_> = report.findings.iter().map(|finding| (finding.kind, finding.key.as_str())).collect();
    assert_eq!(found, [(kind, key)], "{:#?}", report.findings);
    report.findings[0].detail.clone()
}
