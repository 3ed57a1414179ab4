//! Content that was read and is not taken yet, in memory that is used again.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::{Deref, DerefMut};

use bytes::BytesMut;

/// The page that is worked on, and the one before, of which the open batch still knows the last payload.
const BUFFERS_KEPT: usize = 2;

/// Bytes at whose end more are read, and from whose begin payloads are split off.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: BytesMut,
    /// Buffers of pages before, to be used again once nobody needs the payloads in them. Oldest first.
    spent: VecDeque<BytesMut>,
}

impl Buffer {
    /// Reads up to `most` bytes more; 0 at the end.
    pub(super) fn fill(&mut self, content: &mut impl Read, most: usize) -> io::Result<usize> {
        self.make_room(most);
        let held = self.bytes.len();
        self.bytes.resize(held + most, 0);
        let read = content.read(&mut self.bytes[held..]);
        self.bytes.truncate(held + *read.as_ref().unwrap_or(&0));
        read
    }

    /// Makes room for so many bytes more. New memory is slow: the kernel clears it, and no cache has it.
    fn make_room(&mut self, more: usize) {
        if self.bytes.try_reclaim(more) {
            return;
        }
        let needed = self.bytes.len() + more;
        let is_free = |buffer: &mut BytesMut| buffer.try_reclaim(needed);
        let mut roomy = match self.spent.iter_mut().position(is_free) {
            Some(free) => self.spent.remove(free).unwrap_or_default(),
            // What is held over from one page to the next differs a little.
            None => BytesMut::with_capacity(needed + needed / 8),
        };
        roomy.extend_from_slice(&self.bytes);
        let mut spent = std::mem::replace(&mut self.bytes, roomy);
        spent.clear();
        self.spent.push_back(spent);
        if self.spent.len() > BUFFERS_KEPT {
            self.spent.pop_front();
        }
    }
}

impl Deref for Buffer {
    type Target = BytesMut;

    fn deref(&self) -> &BytesMut {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }
}
