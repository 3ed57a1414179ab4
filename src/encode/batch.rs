//! All objects of a batch: one of events for each partition, one of rejects for each date of arrival.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use super::keys::{object_key, rejected_key, rejected_partition, write_partition_path};
use super::object::Settings;
use super::reject::write_reject;
use super::{EncodeError, EncodedObject, Layout, ObjectEncoder, RejectRow, Row};
use crate::archive::manifest::{ManifestObject, ObjectKind};
use crate::batch::Window;
use crate::digest::Digest;
use crate::source::ShardId;

/// An object of a batch, ready to be put.
#[derive(Clone, Debug)]
pub struct FinishedObject {
    /// Its key, below the archive's root.
    pub key: String,
    /// What it holds.
    pub kind: ObjectKind,
    /// The SHA-256 of its bytes.
    pub sha256: Digest,
    /// Its bytes and what they hold.
    pub object: EncodedObject,
}

impl FinishedObject {
    /// Its line in the manifest.
    pub fn manifest_object(&self) -> ManifestObject {
        ManifestObject {
            key: self.key.clone(),
            kind: self.kind,
            rows: self.object.rows,
            bytes: self.object.bytes.bytes(),
            sha256: self.sha256,
            min_emit_time: self.object.min_emit_time,
            max_emit_time: self.object.max_emit_time,
        }
    }
}

/// Writes the objects of one batch, each row into its partition's.
pub struct BatchEncoder {
    settings: Settings,
    /// In the order in which the partitions came.
    events: Vec<Events>,
    /// Where in it each partition's are.
    places: HashMap<String, usize>,
    /// The partition of the row before: that of most rows.
    last: usize,
    rejects: BTreeMap<String, Rejects>,
    /// How many rows it has taken, rejects not among them.
    rows: u64,
    sizes: Sizes,
    path: String,
}

/// A partition of which no chunk has been filled while the batch took so many rows is idle, and its row group ends: an
/// open one holds some mebibytes of pages that are not full. So whoever catches up with months holds a few days open,
/// and up to a hundred partitions that all are written to keep their row groups whole.
const IDLE_ROWS: u64 = 128 * 1_024;

/// What all partitions' objects come to, in bytes.
#[derive(Default)]
struct Sizes {
    encoded: u64,
    memory: u64,
}

impl Sizes {
    fn update(&mut self, events: &mut Events) {
        let (encoded, memory) = (events.object.encoded_bytes(), events.object.memory_bytes());
        self.encoded = self.encoded - events.encoded_bytes + encoded;
        self.memory = self.memory - events.memory_bytes + memory;
        (events.encoded_bytes, events.memory_bytes) = (encoded, memory);
    }
}

/// A partition's object and what it last told about itself.
struct Events {
    partition: String,
    object: ObjectEncoder,
    encoded_bytes: u64,
    memory_bytes: u64,
    /// How many rows the batch had when a chunk of this partition was last filled.
    filled_at: u64,
}

impl Events {
    /// Whether its row group is over, when the batch has so many rows.
    fn is_idle(&self, rows: u64) -> bool {
        rows - self.filled_at > IDLE_ROWS
    }
}

#[derive(Default)]
struct Rejects {
    lines: Vec<u8>,
    rows: u64,
}

impl BatchEncoder {
    /// An empty batch. Fails on a layout that can't be written.
    pub fn new(layout: &Layout) -> Result<Self, EncodeError> {
        Ok(Self {
            settings: Settings::new(layout)?,
            events: Vec::new(),
            places: HashMap::new(),
            last: 0,
            rejects: BTreeMap::new(),
            rows: 0,
            sizes: Sizes::default(),
            path: String::new(),
        })
    }

    /// Takes one row. Rows of a partition stay in the order in which they come. Most of the work is left to
    /// [`BatchEncoder::encode`].
    pub fn append(&mut self, row: &Row<'_>) {
        write_partition_path(&mut self.path, row, &self.settings.layout);
        self.rows += 1;
        self.last = self.place();
        let events = &mut self.events[self.last];
        if events.is_idle(self.rows) {
            events.object.begin_group();
        }
        if events.object.append(row) {
            events.filled_at = self.rows;
        }
        // Only this partition has changed: with hundreds open, asking all of them for each row would cost more than
        // the encoding.
        self.sizes.update(events);
    }

    /// Encodes the rows that have come, on as many threads as there are. When it is called changes no byte; who never
    /// calls it holds all rows in memory.
    pub fn encode(&mut self) -> Result<(), EncodeError> {
        let rows = self.rows;
        let is_due =
            |events: &&mut Events| events.object.has_waiting() || (events.object.is_open() && events.is_idle(rows));
        let mut due: Vec<&mut Events> = self.events.iter_mut().filter(is_due).collect();
        due.par_iter_mut().with_max_len(1).try_for_each(|events| {
            // What would begin a row group later may find the one before closed.
            if events.is_idle(rows) { events.object.end_group() } else { events.object.encode() }
        })?;
        for events in due {
            self.sizes.update(events);
        }
        Ok(())
    }

    /// Where the events of the partition at `path` are, with an object that is made if its first row comes. The path is
    /// copied only then.
    fn place(&mut self) -> usize {
        if self.events.get(self.last).is_some_and(|last| last.partition == self.path) {
            return self.last;
        }
        if let Some(place) = self.places.get(&self.path) {
            return *place;
        }
        let (partition, object) = (self.path.clone(), ObjectEncoder::with(&self.settings));
        self.places.insert(partition.clone(), self.events.len());
        self.events.push(Events { partition, object, encoded_bytes: 0, memory_bytes: 0, filled_at: self.rows });
        self.events.len() - 1
    }

    /// Takes one reject.
    pub fn reject(&mut self, row: &RejectRow<'_>) {
        let rejects = self.rejects.entry(rejected_partition(row.arrival)).or_default();
        write_reject(&mut rejects.lines, row, &self.settings.layout);
        rejects.rows += 1;
    }

    /// How many rows it has taken, rejects not among them.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// What all objects would come to, in bytes, if they ended now.
    pub fn encoded_bytes(&self) -> u64 {
        self.sizes.encoded + self.rejects.values().map(|rejects| rejects.lines.len() as u64).sum::<u64>()
    }

    /// What all objects hold on the heap, in bytes. The caller cuts the batch before it passes its budget.
    pub fn memory_bytes(&self) -> u64 {
        self.sizes.memory + self.rejects.values().map(|rejects| rejects.lines.capacity() as u64).sum::<u64>()
    }

    /// The objects, in the order of their keys.
    pub fn finish(self, window: &Window, shard: &ShardId, batch_seq: u64) -> Result<Vec<FinishedObject>, EncodeError> {
        let layout = &self.settings.layout;
        let finish = |mut events: Events| {
            if events.is_idle(self.rows) {
                events.object.begin_group();
            }
            let key = object_key(&events.partition, window, shard, batch_seq, layout);
            Ok(finished(key, ObjectKind::Events, events.object.finish()?))
        };
        let events = self.events.into_par_iter().with_max_len(1).map(finish);
        let mut objects = events.collect::<Result<Vec<_>, EncodeError>>()?;
        for (partition, Rejects { lines, rows }) in self.rejects {
            let object = EncodedObject { bytes: lines.into(), rows, min_emit_time: None, max_emit_time: None };
            objects.push(finished(rejected_key(&partition, window, shard, batch_seq), ObjectKind::Rejected, object));
        }
        // One folder's name may begin with another's, so keys don't sort as folders do.
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }
}

fn finished(key: String, kind: ObjectKind, object: EncodedObject) -> FinishedObject {
    FinishedObject { key, kind, sha256: object.bytes.digest(), object }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
