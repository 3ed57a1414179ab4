//! A file's content as a stream of bytes: plain, gzip or zstd by its first bytes.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::MultiGzDecoder;

/// A file's stored bytes, up to a limit.
pub(super) struct Stored {
    file: File,
    taken: u64,
    limit: u64,
}

impl Read for Stored {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let allowed = usize::try_from(self.limit - self.taken).unwrap_or(usize::MAX).min(into.len());
        let read = self.file.read(&mut into[..allowed])?;
        self.taken += read as u64;
        Ok(read)
    }
}

/// A file's content, decompressed. A file is compressed if its first bytes say so (RFC 1952, RFC 8878): its name is
/// no proof of what it holds.
pub(super) enum Content {
    Plain(Stored),
    Gzip(Box<MultiGzDecoder<BufReader<Stored>>>),
    Zstd(Box<zstd::Decoder<'static, BufReader<Stored>>>),
}

impl Content {
    /// Opens the content from byte `skip` on, reading no more than the first `limit` stored bytes. Returns how many
    /// bytes were skipped: fewer where the content is shorter.
    pub(super) fn open(path: &Path, limit: u64, skip: u64) -> io::Result<(Self, u64)> {
        let mut file = File::open(path)?;
        let mut first = Vec::with_capacity(4);
        (&mut file).take(4.min(limit)).read_to_end(&mut first)?;
        file.rewind()?;
        let mut stored = Stored { file, taken: 0, limit };
        let mut content = match first[..] {
            [0x1f, 0x8b, ..] => Self::Gzip(Box::new(MultiGzDecoder::new(BufReader::new(stored)))),
            [0x28, 0xb5, 0x2f, 0xfd] => Self::Zstd(Box::new(zstd::Decoder::with_buffer(BufReader::new(stored))?)),
            _ => {
                let length = stored.file.metadata()?.len().min(limit);
                stored.taken = skip.min(length);
                stored.file.seek(SeekFrom::Start(stored.taken))?;
                let skipped = stored.taken;
                return Ok((Self::Plain(stored), skipped));
            }
        };
        let skipped = io::copy(&mut (&mut content).take(skip), &mut io::sink())?;
        Ok((content, skipped))
    }

    /// Whether bytes of the file are bytes of the content.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// How many of the file's bytes have been taken, those skipped included.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored().taken
    }

    /// Moves the limit.
    pub(super) fn set_limit(&mut self, limit: u64) {
        if let Self::Plain(stored) = self {
            stored.limit = limit;
        }
    }

    fn stored(&self) -> &Stored {
        match self {
            Self::Plain(stored) => stored,
            Self::Gzip(decoder) => decoder.get_ref().get_ref(),
            Self::Zstd(decoder) => decoder.get_ref().get_ref(),
        }
    }
}

impl Read for Content {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stored) => stored.read(into),
            Self::Gzip(decoder) => decoder.read(into),
            Self::Zstd(decoder) => decoder.read(into),
        }
    }
}
