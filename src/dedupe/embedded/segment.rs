//! One file of the log: a header of an entry's length, then entries.
//!
//! `00000001.log`; its header is `auditlake claims`, the format and the segment's number (u32 each, little-endian), then
//! zeros.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::entry::{ENTRY_BYTES, Entry};
use super::head::{FORMAT, Sealed};
use crate::dedupe::ClaimError;
use crate::ops::disk;

const MAGIC: &[u8; 16] = b"auditlake claims";
/// How much is read at a time when a segment is scanned: whole entries, about 1 MiB.
const CHUNK: usize = (1 << 20) / ENTRY_BYTES * ENTRY_BYTES;

/// An open segment, with what its file holds; entries that are still to be written are not its concern.
pub(super) struct Segment {
    pub number: u32,
    path: PathBuf,
    file: File,
    /// The entries that are in the file, sealed or not.
    pub written: u32,
    /// The CRC-32 of the header and these entries.
    pub crc32: u32,
    /// When the newest of its claims was made.
    pub newest: Timestamp,
}

impl Segment {
    /// The number of a segment's file, if it is one.
    pub(super) fn number_of(name: &str) -> Option<u32> {
        let number = name.strip_suffix(".log")?.parse().ok()?;
        (file_name(number) == name).then_some(number)
    }

    /// Removes a segment's file; nothing happens where there is none.
    pub(super) fn remove(directory: &Path, number: u32) -> Result<(), ClaimError> {
        let path = directory.join(file_name(number));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(unavailable(&path, &error)),
            _ => Ok(()),
        }
    }

    /// Creates a segment without entries, durable; one that an earlier attempt left is replaced.
    pub(super) fn create(directory: &Path, number: u32) -> Result<Self, ClaimError> {
        let path = directory.join(file_name(number));
        let header = header(number);
        let create = || -> io::Result<File> {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
            disk::write_all_at(&file, &header, 0)?;
            disk::sync(&file)?;
            disk::sync_directory(directory)?;
            Ok(file)
        };
        let file = create().map_err(|error| unavailable(&path, &error))?;
        Ok(Self { number, path, file, written: 0, crc32: crc32fast::hash(&header), newest: Timestamp::UNIX_EPOCH })
    }

    /// Opens a segment of which `sealed` is promised, hands each entry's bytes to `found`, and proves that they are what
    /// was sealed. What a crash left behind them in the `last` segment is cut off; elsewhere nothing can be.
    pub(super) fn open(
        directory: &Path,
        sealed: &Sealed,
        last: bool,
        mut found: impl FnMut(u32, &[u8; ENTRY_BYTES]),
    ) -> Result<Self, ClaimError> {
        let path = directory.join(file_name(sealed.number));
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => ClaimError::Damaged(format!("{}: the file is missing", path.display())),
            _ => unavailable(&path, &error),
        })?;
        let segment = Self {
            number: sealed.number,
            path,
            file,
            written: sealed.claims,
            crc32: sealed.crc32,
            newest: sealed.newest,
        };
        let end = offset(sealed.claims);
        let length = segment.file.metadata().map_err(|error| segment.unavailable(&error))?.len();
        if length < end {
            return Err(segment.damaged(format_args!("ends at byte {length}, although it was sealed up to byte {end}")));
        }
        if length > end && !last {
            return Err(segment.damaged(format_args!("goes on behind byte {end}, where it was finished")));
        }
        segment.prove(sealed, &mut found)?;
        if length > end {
            segment.file.set_len(end).map_err(|error| segment.unavailable(&error))?;
        }
        Ok(segment)
    }

    fn prove(&self, sealed: &Sealed, found: &mut impl FnMut(u32, &[u8; ENTRY_BYTES])) -> Result<(), ClaimError> {
        let mut bytes = [0; ENTRY_BYTES];
        self.read(&mut bytes, 0)?;
        if let Some(at) = header(self.number).iter().zip(&bytes).position(|(expected, found)| expected != found) {
            return Err(self.damaged(format_args!("byte {at} is not that of a header of format {FORMAT}")));
        }
        let mut crc = crc32fast::Hasher::new_with_initial(crc32fast::hash(&bytes));
        let mut next = 0;
        self.chunks(0, sealed.claims, |chunk| {
            crc.update(chunk);
            for entry in chunk.as_chunks::<ENTRY_BYTES>().0 {
                found(next, entry);
                next += 1;
            }
            Ok(())
        })?;
        if crc.finalize() == sealed.crc32 {
            return Ok(());
        }
        let (from, to) = (offset(0), offset(sealed.claims));
        Err(self.damaged(format_args!("somewhere from byte {from} to {to} it is not what was sealed")))
    }

    /// The entry at `index`, which must be in the file.
    pub(super) fn entry(&self, index: u32) -> Result<Entry, ClaimError> {
        let mut bytes = [0; ENTRY_BYTES];
        self.read(&mut bytes, offset(index))?;
        Entry::from_bytes(&bytes)
            .ok_or_else(|| self.damaged(format_args!("what stands at byte {} is no claim", offset(index))))
    }

    /// What a head says of it once all of it is synced.
    pub(super) fn as_sealed(&self) -> Sealed {
        Sealed { number: self.number, claims: self.written, crc32: self.crc32, newest: self.newest }
    }

    /// Writes whole entries behind those that are there. On an error none of them is.
    pub(super) fn append(&mut self, entries: &[u8]) -> Result<(), ClaimError> {
        let end = offset(self.written);
        if let Err(error) = disk::write_all_at(&self.file, entries, end) {
            // Should this fail too: the next attempt writes over it, and the next start cuts it off.
            let _ = self.file.set_len(end);
            return Err(self.unavailable(&error));
        }
        let mut crc = crc32fast::Hasher::new_with_initial(self.crc32);
        crc.update(entries);
        self.crc32 = crc.finalize();
        self.written += (entries.len() / ENTRY_BYTES) as u32;
        Ok(())
    }

    /// Makes what is written survive a crash.
    pub(super) fn sync(&self) -> Result<(), ClaimError> {
        disk::sync(&self.file).map_err(|error| self.unavailable(&error))
    }

    /// Writes again what was written since `sealed`: the kernel may hold it for clean although it never reached the
    /// disk. What it still shows is proved to be what was written before.
    pub(super) fn rewrite_since(&self, sealed: &Sealed) -> Result<(), ClaimError> {
        let mut crc = crc32fast::Hasher::new_with_initial(sealed.crc32);
        let mut at = offset(sealed.claims);
        self.chunks(sealed.claims, self.written, |chunk| {
            crc.update(chunk);
            disk::write_all_at(&self.file, chunk, at).map_err(|error| self.unavailable(&error))?;
            at += chunk.len() as u64;
            Ok(())
        })?;
        if crc.finalize() == self.crc32 {
            return Ok(());
        }
        let from = offset(sealed.claims);
        Err(self.damaged(format_args!("what was written from byte {from} on was lost by a disk that failed")))
    }

    /// The bytes of the entries from `first` to before `end`, some at a time.
    fn chunks(
        &self,
        first: u32,
        end: u32,
        mut each: impl FnMut(&[u8]) -> Result<(), ClaimError>,
    ) -> Result<(), ClaimError> {
        let mut left = (end - first) as usize * ENTRY_BYTES;
        let mut at = offset(first);
        let mut buffer = vec![0; CHUNK.min(left)];
        while left > 0 {
            let chunk = &mut buffer[..CHUNK.min(left)];
            self.read(chunk, at)?;
            each(chunk)?;
            at += chunk.len() as u64;
            left -= chunk.len();
        }
        Ok(())
    }

    fn read(&self, bytes: &mut [u8], at: u64) -> Result<(), ClaimError> {
        self.file.read_exact_at(bytes, at).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.damaged(format_args!("cut off behind byte {at}")),
            _ => self.unavailable(&error),
        })
    }

    /// How long its file is.
    pub(super) fn bytes(&self) -> u64 {
        offset(self.written)
    }

    fn unavailable(&self, error: &io::Error) -> ClaimError {
        unavailable(&self.path, error)
    }

    fn damaged(&self, what: std::fmt::Arguments<'_>) -> ClaimError {
        ClaimError::Damaged(format!("{}: {what}", self.path.display()))
    }
}

fn unavailable(path: &Path, error: &io::Error) -> ClaimError {
    ClaimError::Unavailable(disk::explain(path, error))
}

fn file_name(number: u32) -> String {
    format!("{number:08}.log")
}

/// Where an entry begins in its file; the header takes the place of one.
fn offset(index: u32) -> u64 {
    (u64::from(index) + 1) * ENTRY_BYTES as u64
}

fn header(number: u32) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..16].copy_from_slice(MAGIC);
    bytes[16..20].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[20..24].copy_from_slice(&number.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_segment_gets_are_names_of_segments() {
        assert_eq!(Segment::number_of("00000042.log"), Some(42));
        assert_eq!(Segment::number_of("123456789.log"), Some(123_456_789));
        for name in ["42.log", "00000042", "00000042.log.tmp", "+0000042.log", "head.json", ".log"] {
            assert_eq!(Segment::number_of(name), None, "{name}");
        }
    }

    #[test]
    fn the_header_is_stable() {
        let mut expected = b"auditlake claims\x01\x00\x00\x00\x02\x01\x00\x00".to_vec();
        expected.resize(45, 0);
        assert_eq!(header(258).as_slice(), expected);
    }

    #[test]
    fn chunks_hold_whole_entries() {
        assert_eq!(CHUNK % ENTRY_BYTES, 0);
    }
}
