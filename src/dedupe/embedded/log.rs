//! The log: all claims that hold, in the order in which they were made.
//!
//! | step | what is on the disk if it ends there |
//! |---|---|
//! | entries are appended to the last segment, a mebibyte at a time | the sealed claims, and a tail that was never promised |
//! | seal 1: the segment is synced | the same |
//! | seal 2: the head is replaced | all claims so far |
//! | a full segment is sealed and a new one created | all claims so far, and perhaps a file that the head doesn't name |
//! | a segment is too old: the head is replaced, its file deleted | all but its claims, and perhaps its file |
//!
//! So opening cuts off what lies behind the sealed claims of the last segment, deletes the files before the first
//! segment and after the last, and calls anything else that differs from the head damage.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::entry::{ENTRY_BYTES, Entry, IdentityHash};
use super::head::{Head, Sealed};
use super::index::Location;
use super::segment::Segment;
use crate::dedupe::ClaimError;
use crate::ops::disk;

/// How much is kept in memory before it is written: whole entries, about 1 MiB.
const TAIL_BYTES: usize = (1 << 20) / ENTRY_BYTES * ENTRY_BYTES;

pub(super) struct Log {
    directory: PathBuf,
    /// What is on the disk for certain; names every segment.
    head: Head,
    /// Oldest first; entries are appended to the last. There is always one.
    segments: VecDeque<Segment>,
    /// The newest entries, not written yet.
    tail: Vec<u8>,
    /// A sync has failed since the last seal.
    doubtful: bool,
}

impl Log {
    /// Opens the log of a directory, or begins one under `secret`. Hands every claim to `found`.
    pub(super) fn open(
        directory: &Path,
        secret: [u8; 16],
        mut found: impl FnMut(&IdentityHash, Location),
    ) -> Result<Self, ClaimError> {
        let unavailable = |error| ClaimError::Unavailable(disk::explain(directory, &error));
        disk::create_directory(directory).map_err(unavailable)?;
        disk::remove_unfinished(directory).map_err(unavailable)?;
        let names = disk::file_names(directory).map_err(unavailable)?;
        let files: Vec<u32> = names.iter().filter_map(|name| Segment::number_of(name)).collect();
        let head = match Head::read(directory)? {
            Some(head) => head,
            None if files.is_empty() => {
                let head = Head::new(secret);
                head.write(directory)?;
                head
            }
            None => {
                let path = Head::path(directory);
                return Err(ClaimError::Damaged(format!("{}: the file is missing", path.display())));
            }
        };
        remove_leftovers(directory, &head, &files)?;
        let mut segments = VecDeque::new();
        for (index, sealed) in head.segments.iter().enumerate() {
            let last = index + 1 == head.segments.len();
            segments.push_back(Segment::open(directory, sealed, last, |entry, bytes| {
                if let Some(identity) = bytes.first_chunk() {
                    found(identity, Location::new(sealed.number, entry));
                }
            })?);
        }
        let mut log = Self { directory: directory.to_owned(), head, segments, tail: Vec::new(), doubtful: false };
        if log.segments.is_empty() {
            log.begin_segment(1)?;
        }
        Ok(log)
    }

    /// The secret of the directory's hashes.
    pub(super) fn secret(&self) -> &[u8; 16] {
        &self.head.secret
    }

    /// Whether nothing was ever sealed here.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.head.segments[..], [] | [Sealed { number: 1, claims: 0, .. }])
    }

    /// Orders locations by when their claims were made.
    pub(super) fn age(&self, location: Location) -> (u32, u32) {
        (self.index_of(location), location.entry())
    }

    fn index_of(&self, location: Location) -> u32 {
        let first = self.segments.front().map_or(0, |segment| segment.number);
        location.segment().wrapping_sub(first) % Location::SEGMENTS
    }

    /// The claim at a location that [`Self::append`] or [`Self::open`] gave.
    pub(super) fn entry(&self, location: Location) -> Result<Entry, ClaimError> {
        let index = self.index_of(location) as usize;
        let lost = || ClaimError::Damaged(format!("{}: the index and the log disagree", self.directory.display()));
        let segment = self.segments.get(index).ok_or_else(lost)?;
        match location.entry().checked_sub(segment.written) {
            None => segment.entry(location.entry()),
            Some(unwritten) => {
                let bytes = self.tail.as_chunks::<ENTRY_BYTES>().0.get(unwritten as usize).ok_or_else(lost)?;
                Entry::from_bytes(bytes).ok_or_else(lost)
            }
        }
    }

    /// How many claims the last segment has.
    pub(super) fn last_claims(&self) -> u32 {
        let written = self.segments.back().map_or(0, |last| last.written);
        written + (self.tail.len() / ENTRY_BYTES) as u32
    }

    /// Appends a claim made at `now`. On an error it is as if it had not been tried. The caller keeps the segments
    /// short enough.
    pub(super) fn append(&mut self, entry: &Entry, now: Timestamp) -> Result<Location, ClaimError> {
        if self.tail.len() >= TAIL_BYTES {
            self.write_tail()?;
        }
        let claims = self.last_claims();
        let last = self.last()?;
        last.newest = last.newest.max(now);
        let location = Location::new(last.number, claims);
        self.tail.extend_from_slice(&entry.to_bytes());
        Ok(location)
    }

    fn write_tail(&mut self) -> Result<(), ClaimError> {
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            let appended = self.last()?.append(&tail);
            self.tail = tail;
            appended?;
            self.tail.clear();
        }
        Ok(())
    }

    /// Makes every claim so far survive a crash. On an error none is lost, and the next call tries again.
    pub(super) fn seal(&mut self) -> Result<(), ClaimError> {
        let sealed = self.sealed()?;
        if self.last_claims() == sealed.claims {
            return Ok(());
        }
        self.write_tail()?;
        if self.doubtful {
            self.last()?.rewrite_since(&sealed)?;
        }
        self.doubtful = true;
        self.last()?.sync()?;
        self.doubtful = false;
        let sealed = self.last()?.as_sealed();
        self.replace_head(|segments| {
            segments.pop();
            segments.push(sealed);
        })
    }

    /// On an error either of the heads is on the disk. Both are true: what they name is there.
    fn replace_head(&mut self, change: impl FnOnce(&mut Vec<Sealed>)) -> Result<(), ClaimError> {
        let mut head = self.head.clone();
        change(&mut head.segments);
        head.write(&self.directory)?;
        self.head = head;
        Ok(())
    }

    fn begin_segment(&mut self, number: u32) -> Result<(), ClaimError> {
        let segment = Segment::create(&self.directory, number)?;
        let sealed = segment.as_sealed();
        self.replace_head(|segments| segments.push(sealed))?;
        self.segments.push_back(segment);
        Ok(())
    }

    /// Seals the last segment and begins the next.
    pub(super) fn roll(&mut self) -> Result<(), ClaimError> {
        self.seal()?;
        let number = self.last()?.number.checked_add(1).filter(|_| self.segments.len() < Location::SEGMENTS as usize);
        let Some(number) = number else {
            let path = self.directory.display();
            return Err(ClaimError::Unavailable(format!("{path}: full, with as many segments as there can be")));
        };
        self.begin_segment(number)
    }

    /// Deletes the segments, but the last, all of whose claims were made before `horizon`, up to the first that is not
    /// such a one. Returns their numbers.
    pub(super) fn expire(&mut self, horizon: Timestamp) -> Result<Vec<u32>, ClaimError> {
        let finished = self.segments.len() - 1;
        let old = self.segments.iter().take(finished).take_while(|segment| segment.newest < horizon).count();
        if old == 0 {
            return Ok(Vec::new());
        }
        self.replace_head(|segments| drop(segments.drain(..old)))?;
        let numbers: Vec<u32> = self.segments.drain(..old).map(|segment| segment.number).collect();
        for &number in &numbers {
            // No claim depends on it any more: the next start deletes what stays behind.
            let _ = Segment::remove(&self.directory, number);
        }
        Ok(numbers)
    }

    fn last(&mut self) -> Result<&mut Segment, ClaimError> {
        self.segments.back_mut().ok_or_else(no_segment)
    }

    /// What is sealed of the last segment.
    fn sealed(&self) -> Result<Sealed, ClaimError> {
        self.head.segments.last().copied().ok_or_else(no_segment)
    }

    pub(super) fn segments(&self) -> usize {
        self.segments.len()
    }

    /// The bytes of its files.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// The claims that a crash would lose.
    pub(super) fn unsealed(&self) -> u32 {
        self.last_claims() - self.head.segments.last().map_or(0, |sealed| sealed.claims)
    }

    /// The memory that entries take before they are written.
    pub(super) fn tail_bytes(&self) -> usize {
        self.tail.capacity()
    }
}

/// There is always one: opening begins it.
fn no_segment() -> ClaimError {
    ClaimError::Damaged("the log of claims has no segment".to_owned())
}

/// Deletes what a crash can have left of files that the head doesn't name, and refuses other such files.
fn remove_leftovers(directory: &Path, head: &Head, files: &[u32]) -> Result<(), ClaimError> {
    let first = head.segments.first().map_or(1, |sealed| sealed.number);
    let next = head.segments.last().map_or(1, |sealed| sealed.number.saturating_add(1));
    for &number in files {
        if number < first || number == next {
            Segment::remove(directory, number)?;
        } else if number > next {
            let path = directory.join(format!("{number:08}.log"));
            return Err(ClaimError::Damaged(format!("{}: the head knows nothing of this file", path.display())));
        }
    }
    Ok(())
}
