//! Compressors of pages, shared by everything of one layout: who compresses takes an idle one, so that there are as many
//! as threads that compress at the same time.

use std::io::{ErrorKind, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flate2::write::GzEncoder;
use parquet::basic::{Compression as Codec, GzipLevel, ZstdLevel};

use super::{Compression, EncodeError, Layout};

/// Makes compressors and keeps those that are idle.
#[derive(Debug)]
pub(super) struct Compressors {
    codec: Codec,
    idle: Mutex<Vec<Compressor>>,
}

/// One compressor, and room for what it makes.
struct Compressor {
    state: State,
    out: Vec<u8>,
}

enum State {
    None,
    Snappy(Box<snap::raw::Encoder>),
    Gzip(flate2::Compression),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressors {
    pub(super) fn new(layout: &Layout) -> Result<Self, EncodeError> {
        let level = layout.level()?;
        let codec = match layout.compression {
            Compression::None => Codec::UNCOMPRESSED,
            Compression::Snappy => Codec::SNAPPY,
            Compression::Gzip => Codec::GZIP(GzipLevel::try_new(level.unsigned_abs())?),
            Compression::Zstd => Codec::ZSTD(ZstdLevel::try_new(level)?),
        };
        Ok(Self { codec, idle: Mutex::default() })
    }

    /// As the file's footer names it.
    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    /// Gives what `plain` is compressed to. Nothing but `plain` decides it, whichever compressor it is.
    pub(super) fn compress<T>(&self, plain: &[u8], take: impl FnOnce(&[u8]) -> T) -> std::io::Result<T> {
        let taken = self.idle().pop();
        let mut compressor = taken.map_or_else(|| Compressor::new(self.codec), Ok)?;
        let compressed = take(compressor.compress(plain)?);
        self.idle().push(compressor);
        Ok(compressed)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Compressor>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Compressor {
    fn new(codec: Codec) -> std::io::Result<Self> {
        let state = match codec {
            Codec::SNAPPY => State::Snappy(Box::new(snap::raw::Encoder::new())),
            Codec::GZIP(level) => State::Gzip(flate2::Compression::new(level.compression_level())),
            Codec::ZSTD(level) => State::Zstd(zstd::bulk::Compressor::new(level.compression_level())?),
            Codec::UNCOMPRESSED => State::None,
            other => return Err(std::io::Error::new(ErrorKind::Unsupported, format!("{other:?} is none of ours"))),
        };
        Ok(Self { state, out: Vec::new() })
    }

    fn compress<'c>(&'c mut self, plain: &'c [u8]) -> std::io::Result<&'c [u8]> {
        let out = &mut self.out;
        out.clear();
        match &mut self.state {
            State::None => return Ok(plain),
            State::Snappy(encoder) => {
                out.resize(snap::raw::max_compress_len(plain.len()), 0);
                let length = encoder.compress(plain, out)?;
                out.truncate(length);
            }
            State::Gzip(level) => {
                let mut encoder = GzEncoder::new(&mut *out, *level);
                encoder.write_all(plain)?;
                encoder.finish()?;
            }
            State::Zstd(compressor) => {
                out.reserve(zstd::zstd_safe::compress_bound(plain.len()));
                compressor.compress_to_buffer(plain, out)?;
            }
        }
        Ok(out)
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Compressor")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::samples::layout;

    #[test]
    fn a_compressor_is_taken_up_again() {
        let compressors = Compressors::new(&layout()).unwrap();
        let text = vec![b'a'; 1 << 20];
        let sizes: Vec<_> = (0..10).map(|_| compressors.compress(&text, <[u8]>::len).unwrap()).collect();
        assert!(sizes.iter().all(|size| *size == sizes[0] && *size < 1_000), "{sizes:?}");
        assert_eq!(compressors.idle().len(), 1);
    }
}
