//! Bytes that grow without being moved: a vector that doubles holds up to twice its bytes, and copies them each time.

use std::io::{self, Write};

use bytes::Bytes;

use crate::digest::Digest;

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

    /// All of them, as they are.
    pub(super) fn into_pieces(self) -> Pieces {
        self.segments.into_iter().map(Bytes::from).collect()
    }
}

/// An object's bytes, in the pieces that they were made in: in one piece, they would stand in memory twice.
#[derive(Clone, Debug, Default)]
pub struct Pieces(Vec<Bytes>);

impl FromIterator<Bytes> for Pieces {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        Self(pieces.into_iter().collect())
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self(vec![bytes])
    }
}

impl From<Vec<u8>> for Pieces {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl Pieces {
    /// How many bytes there are.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|piece| piece.len() as u64).sum()
    }

    /// They themselves, in order.
    pub(crate) fn pieces(&self) -> &[Bytes] {
        &self.0
    }

    /// Their digest.
    pub fn digest(&self) -> Digest {
        Digest::of_pieces(&self.0)
    }

    /// All of them in one piece; a copy, where there are several.
    pub fn join(&self) -> Bytes {
        match &self.0[..] {
            [whole] => whole.clone(),
            pieces => pieces.concat().into(),
        }
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
            let pieces = segments.into_pieces();
            assert!(pieces.join() == written, "in pieces of {piece}");
            assert_eq!((pieces.bytes(), pieces.digest()), (written.len() as u64, Digest::of(&written)));
        }
        assert!(Segments::default().into_pieces().join().is_empty());
    }
}
