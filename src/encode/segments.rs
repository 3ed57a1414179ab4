//! Bytes that grow without being moved: a vector that doubles holds up to twice its bytes, and copies them each time.

use std::io::{self, Write};

/// Small enough that many objects may be open, large enough that few are made.
const SEGMENT_BYTES: usize = 256 << 10;

/// Bytes in segments, all full but the last.
#[derive(Debug, Default)]
pub(super) struct Segments {
    segments: Vec<Vec<u8>>,
}

impl Segments {
    /// What is held on the heap.
    pub(super) fn capacity(&self) -> usize {
        self.segments.iter().map(Vec::capacity).sum()
    }

    /// All of them in one piece; each goes as it is copied.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.segments.iter().map(Vec::len).sum());
        self.segments.into_iter().for_each(|segment| bytes.extend_from_slice(&segment));
        bytes
    }
}

impl Write for Segments {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let segment = match self.segments.last_mut() {
            Some(segment) if segment.len() < SEGMENT_BYTES => segment,
            _ => {
                // The first ones of a small object are small.
                let capacity = if self.segments.is_empty() { 0 } else { SEGMENT_BYTES };
                self.segments.push(Vec::with_capacity(capacity));
                self.segments.last_mut().expect("it was just made")
            }
        };
        let fitting = bytes.len().min(SEGMENT_BYTES - segment.len());
        segment.extend_from_slice(&bytes[..fitting]);
        Ok(fitting)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_pieces_comes_out_in_one() {
        let written: Vec<u8> = (0..3 * SEGMENT_BYTES + 17).map(|index| (index % 251) as u8).collect();
        for piece in [1_000, SEGMENT_BYTES, written.len()] {
            let mut segments = Segments::default();
            written.chunks(piece).for_each(|bytes| segments.write_all(bytes).unwrap());
            assert!(segments.capacity() <= written.len() + 2 * SEGMENT_BYTES);
            assert_eq!(segments.into_bytes(), written);
        }
        assert!(Segments::default().into_bytes().is_empty());
    }
}
