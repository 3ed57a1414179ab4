//! The head: what of the log is sealed.
//!
//! `head.json` is replaced as a whole, after what it names has reached the disk. So there is nothing to guess after a
//! crash: what the head names must be there and must be whole, and what lies beyond it was never promised. (Seals within
//! the log would leave a torn last flush looking like a damaged one, and a log that lost its end like a shorter log.)
//!
//! Its first line is JSON, its second the CRC-32 of the first in hexadecimal.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dedupe::ClaimError;
use crate::ops::disk;

/// The format of the head, the segments and the entries.
pub(super) const FORMAT: u32 = 1;

/// What of the log is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    format: u32,
    /// The secret of the directory's hashes.
    pub secret: [u8; 16],
    /// Oldest first, without a gap between their numbers.
    pub segments: Vec<Sealed>,
}

/// How much of a segment is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sealed {
    /// The segment's number.
    pub number: u32,
    /// The claims in it.
    pub claims: u32,
    /// The CRC-32 of the segment's header and these claims.
    pub crc32: u32,
    /// When the newest of them was made.
    pub newest: Timestamp,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Head {
    /// The head of an empty log.
    pub(super) fn new(secret: [u8; 16]) -> Self {
        Self { format: FORMAT, secret, segments: Vec::new() }
    }

    pub(super) fn path(directory: &Path) -> PathBuf {
        directory.join("head.json")
    }

    /// The head of a directory, or `None` where there is none.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, ClaimError> {
        let path = Self::path(directory);
        let damaged = |what: &str| ClaimError::Damaged(format!("{}: {what}", path.display()));
        let bytes =
            disk::read_if_there(&path).map_err(|error| ClaimError::Unavailable(disk::explain(&path, &error)))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged("not text"))?;
        let Some((json, rest)) = text.split_once('\n') else { return Err(damaged("cut off")) };
        if rest != format!("{:08x}\n", crc32fast::hash(json.as_bytes())) {
            return Err(damaged("its checksum is not that of its content"));
        }
        let Format { format } = serde_json::from_str(json).map_err(|error| damaged(&error.to_string()))?;
        if format != FORMAT {
            return Err(damaged(&format!("has format {format}; this auditlake knows format {FORMAT}")));
        }
        let head: Self = serde_json::from_str(json).map_err(|error| damaged(&error.to_string()))?;
        if head.segments.windows(2).any(|pair| pair[0].number.checked_add(1) != Some(pair[1].number)) {
            return Err(damaged("its segments do not follow each other"));
        }
        Ok(Some(head))
    }

    /// Puts this head in place of the directory's. On an error either of them stands there.
    pub(super) fn write(&self, directory: &Path) -> Result<(), ClaimError> {
        let path = Self::path(directory);
        let json = serde_json::to_string(self).map_err(|error| ClaimError::Damaged(error.to_string()))?;
        let text = format!("{json}\n{:08x}\n", crc32fast::hash(json.as_bytes()));
        disk::replace_file(&path, text.as_bytes())
            .map_err(|error| ClaimError::Unavailable(disk::explain(&path, &error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(numbers: &[u32]) -> Head {
        let sealed = |&number| Sealed { number, claims: 7, crc32: 9, newest: Timestamp::UNIX_EPOCH };
        Head { segments: numbers.iter().map(sealed).collect(), ..Head::new([0xab; 16]) }
    }

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Head::read(directory.path()).unwrap(), None);
        for written in [head(&[]), head(&[3, 4, 5])] {
            written.write(directory.path()).unwrap();
            assert_eq!(Head::read(directory.path()).unwrap(), Some(written));
        }
    }

    #[test]
    fn the_text_of_a_head_is_stable() {
        let directory = tempfile::tempdir().unwrap();
        head(&[3]).write(directory.path()).unwrap();
        let text = std::fs::read_to_string(Head::path(directory.path())).unwrap();
        let json = concat!(
            r#"{"format":1,"secret":[171,171,171,171,171,171,171,171,171,171,171,171,171,171,171,171],"#,
            r#""segments":[{"number":3,"claims":7,"crc32":9,"newest":"1970-01-01T00:00:00Z"}]}"#
        );
        assert_eq!(text, format!("{json}\n{:08x}\n", crc32fast::hash(json.as_bytes())));
    }

    #[test]
    fn any_changed_or_missing_byte_is_damage() {
        let directory = tempfile::tempdir().unwrap();
        head(&[1, 2]).write(directory.path()).unwrap();
        let path = Head::path(directory.path());
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            for bytes in [&changed, &good[..at]] {
                std::fs::write(&path, bytes).unwrap();
                let error = Head::read(directory.path()).unwrap_err();
                assert!(matches!(&error, ClaimError::Damaged(what) if what.contains("head.json")), "{at}: {error}");
            }
        }
    }

    #[test]
    fn a_gap_between_segments_and_a_later_format_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        head(&[1, 3]).write(directory.path()).unwrap();
        assert!(matches!(Head::read(directory.path()), Err(ClaimError::Damaged(_))));
        Head { format: 2, ..head(&[]) }.write(directory.path()).unwrap();
        let error = Head::read(directory.path()).unwrap_err().to_string();
        assert!(error.ends_with("has format 2; this auditlake knows format 1"), "{error}");
    }
}
