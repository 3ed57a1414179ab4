//! An NDJSON archive read back, by nothing of the product.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::record::Record;

/// What tells one archived content from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Temporal's name for it.
    pub log_id: Option<String>,
    /// The version.
    pub version: i64,
    /// [`Record::tag`].
    pub tag: String,
}

impl Key {
    /// The row that must come of a record.
    pub fn of(record: Record) -> Self {
        Self { log_id: record.log_id(), version: record.version.into(), tag: record.tag() }
    }
}

/// The rows of an archive.
#[derive(Debug, Default)]
pub struct Archived {
    /// How often each content stands there.
    pub events: BTreeMap<Key, u64>,
    /// The same of rejects, by reason and bytes.
    pub rejects: BTreeMap<(String, Vec<u8>), u64>,
    /// Rows with the note `dedupe_conflict`.
    pub conflicts: u64,
}

#[derive(Deserialize)]
struct Row {
    log_id: Option<String>,
    version: i64,
    details: Details,
    notes: Vec<String>,
}

#[derive(Deserialize)]
struct Details {
    tag: String,
}

#[derive(Deserialize)]
struct Reject {
    reason: String,
    raw_base64: String,
}

impl Archived {
    /// Reads every NDJSON object below `events/` and `rejected/`, listed by a manifest or not.
    pub fn read(archive: &Path) -> Self {
        let mut archived = Self::default();
        for row in rows::<Row>(archive, "events") {
            archived.conflicts += u64::from(row.notes.iter().any(|note| note == "dedupe_conflict"));
            let key = Key { log_id: row.log_id, version: row.version, tag: row.details.tag };
            *archived.events.entry(key).or_default() += 1;
        }
        for reject in rows::<Reject>(archive, "rejected") {
            let raw = STANDARD.decode(reject.raw_base64).unwrap();
            *archived.rejects.entry((reject.reason, raw)).or_default() += 1;
        }
        archived
    }
}

/// The lines of every NDJSON object below a folder of the archive.
pub fn rows<T: serde::de::DeserializeOwned>(archive: &Path, folder: &str) -> Vec<T> {
    files_below(&archive.join(folder)).iter().flat_map(|path| lines(path)).collect()
}

fn lines<T: serde::de::DeserializeOwned>(path: &Path) -> Vec<T> {
    let bytes = fs::read(path).unwrap();
    let mut text = String::new();
    let read = match path.extension().and_then(|extension| extension.to_str()) {
        Some("ndjson") => (&bytes[..]).read_to_string(&mut text),
        Some("gz") => flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text),
        Some("zst") => zstd::Decoder::new(&bytes[..]).unwrap().read_to_string(&mut text),
        other => panic!("{} is no NDJSON ({other:?})", path.display()),
    };
    read.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}: {line}", path.display())))
        .collect()
}

/// Every file below a directory, sorted; none where there is no directory.
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return files };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The JSON document in a file.
pub fn read_json(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The SHA-256 of bytes, as manifests write it.
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
