//! Files as a source: each file below a path is a shard, a position in it the byte offset of a payload in its content.
//!
//! A file may grow, new files may appear. A file that shrank, was replaced or was changed where it has been archived is
//! an error that names it: its checkpoint proves what stood there.

mod buffer;
mod content;
mod reader;

use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

use super::{Checkpoint, Reading, SequenceNumber, Shard, ShardId, ShardReader, Source, SourceError, Target};
use crate::ops::clock::Clock;
use crate::record::{Split, split};
use content::Content;
use reader::FileReader;

/// What positions in files belong to. A directory may be moved, and a file proves what stood in it.
const ORIGIN: &str = "file";

/// The longest end of a file that is looked at to see whether there is anything in it.
const TAIL_BYTES: u64 = 64 << 10;

/// How files are read.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// A file, or a directory of files.
    pub path: PathBuf,
    /// The length of a window. What is appended within one window has one arrival time, so that a batch which is read
    /// again has the times it had at first, though the file's modification time has moved on.
    pub window: Duration,
    /// How long a one-shot run waits, since the file's last modification, for the rest of a line that has no end yet.
    pub settle: Duration,
    /// The most bytes that one payload may have.
    pub max_payload_bytes: u64,
}

/// The files below a path.
pub struct FileSource {
    options: Arc<FileOptions>,
    clock: Arc<dyn Clock>,
}

impl FileSource {
    /// The files below `options.path`.
    pub fn new(options: FileOptions, clock: Arc<dyn Clock>) -> Self {
        Self { options: Arc::new(options), clock }
    }

    /// The bytes of a shard that lie behind `checkpoint`, without line breaks and separators at its end; `None` where a
    /// compressed file has been begun, whose content's length nobody knows without reading it. Of such a one `done_at`
    /// tells: when all that it held then was archived, where it was.
    pub fn lag(&self, shard: &Shard, checkpoint: &Checkpoint, done_at: Option<Timestamp>) -> io::Result<Option<u64>> {
        let (read, begun) = match checkpoint {
            Checkpoint::TrimHorizon | Checkpoint::Since(_) | Checkpoint::Imported(_) => (Some(0), false),
            Checkpoint::At { position, bytes, .. } => (position.sequence.as_u64().map(|offset| offset + bytes), true),
        };
        let path = self.path_of(&shard.id);
        let Some(stored) = shard.end.bytes() else { return Ok(None) };
        if !Content::open(&path, stored, 0)?.0.is_plain() {
            let changed_at = modified(&std::fs::metadata(&path)?);
            let is_done = done_at.is_some_and(|done_at| changed_at <= done_at);
            return Ok(if begun { is_done.then_some(0) } else { Some(stored) });
        }
        let Some(left) = read.and_then(|read| stored.checked_sub(read)) else { return Ok(None) };
        if left > TAIL_BYTES {
            return Ok(Some(left));
        }
        let mut tail = Vec::new();
        Content::open(&path, stored, stored - left)?.0.read_to_end(&mut tail)?;
        let blank = tail.is_empty() || split(&tail, true) == Split::Blank { len: tail.len() };
        Ok(Some(if blank { 0 } else { left }))
    }

    fn path_of(&self, shard: &ShardId) -> PathBuf {
        let root = &self.options.path;
        if root.is_file() { root.clone() } else { root.join(relative_path(shard)) }
    }
}

#[async_trait]
impl Source for FileSource {
    fn origin(&self) -> Option<&str> {
        Some(ORIGIN)
    }

    fn shards_just_go(&self) -> bool {
        true
    }

    async fn shards(&self) -> Result<Vec<Shard>, SourceError> {
        let root = self.options.path.clone();
        let listed = tokio::task::spawn_blocking(move || list(&root)).await;
        listed.unwrap_or_else(|panic| Err(stopped(&self.options.path, &panic)))
    }

    async fn open(&self, shard: &ShardId, reading: Reading) -> Result<Box<dyn ShardReader>, SourceError> {
        let path = self.path_of(shard);
        let (shard, options, clock) = (shard.clone(), self.options.clone(), self.clock.clone());
        Ok(Box::new(FileReader::open(shard, path, options, clock, reading).await?))
    }
}

/// Every file below `root`, in the order of their paths; hidden ones are passed over, links to directories not
/// followed.
fn list(root: &Path) -> Result<Vec<Shard>, SourceError> {
    let metadata = std::fs::metadata(root).map_err(|error| stopped(root, &error))?;
    let mut shards = Vec::new();
    if metadata.is_dir() {
        walk(root, Path::new(""), &mut shards)?;
        shards.sort_by(|a, b| a.id.cmp(&b.id));
    } else {
        let name = root.file_name().map_or(root, Path::new);
        shards.push(shard(name, metadata.len()));
    }
    Ok(shards)
}

/// What can't be looked at is listed as a shard: opening it fails, and it alone.
fn walk(root: &Path, below: &Path, shards: &mut Vec<Shard>) -> Result<(), SourceError> {
    let directory = root.join(below);
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if below.as_os_str().is_empty() => return Err(stopped(&directory, &error)),
        Err(_) => {
            shards.push(shard(below, 0));
            return Ok(());
        }
    };
    for entry in entries {
        let entry = entry.map_err(|error| stopped(&directory, &error))?;
        if entry.file_name().as_bytes().starts_with(b".") {
            continue;
        }
        let relative = below.join(entry.file_name());
        let kind = entry.file_type().map_err(|error| stopped(&entry.path(), &error))?;
        if kind.is_dir() {
            walk(root, &relative, shards)?;
            continue;
        }
        match std::fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_file() => shards.push(shard(&relative, metadata.len())),
            Ok(_) => {}
            // It went since its folder was read. A link that leads nowhere has lost what it led to.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !kind.is_symlink() => {}
            Err(_) => shards.push(shard(&relative, 0)),
        }
    }
    Ok(())
}

fn shard(relative: &Path, length: u64) -> Shard {
    let end = Target::Before { sequence: SequenceNumber::from(length), bytes: Some(length) };
    Shard::new(shard_id(relative), Vec::new(), end)
}

/// `%` escapes itself, so that every name of a file, UTF-8 or not, is the name of one shard.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

fn shard_id(relative: &Path) -> ShardId {
    match relative.to_str() {
        Some(text) => ShardId::new(text.replace('%', "%25")),
        None => ShardId::new(percent_encode(relative.as_os_str().as_bytes(), ESCAPED).to_string()),
    }
}

fn relative_path(shard: &ShardId) -> PathBuf {
    OsString::from_vec(percent_decode_str(shard.as_str()).collect()).into()
}

fn modified(metadata: &Metadata) -> Timestamp {
    metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn stopped(path: &Path, error: &dyn std::fmt::Display) -> SourceError {
    SourceError::Stopped { shard: shard_id(path), reason: error.to_string() }
}

/// What an I/O error means for the shard: a missing or forbidden file needs a human, anything else may pass.
fn io_error(shard: &ShardId, error: &io::Error) -> SourceError {
    let (shard, reason) = (shard.clone(), error.to_string());
    match error.kind() {
        io::ErrorKind::Interrupted | io::ErrorKind::TimedOut | io::ErrorKind::StaleNetworkFileHandle => {
            SourceError::Unavailable { shard, reason }
        }
        _ => SourceError::Stopped { shard, reason },
    }
}

#[cfg(test)]
mod tests;
