//! Payloads as they come to text: gzip and zstd by their first bytes, bounded.

use std::borrow::Cow;
use std::io::{self, BufReader, Read};

use super::RejectReason;

/// A payload, decompressed where it was compressed.
#[derive(Clone, Debug)]
pub struct Unpacked<'p> {
    /// What is to be decoded.
    pub text: Cow<'p, [u8]>,
    /// Why the text is not all of the payload: rejects the payload as it came, beside what the text still gives.
    pub fault: Option<RejectReason>,
    /// The payload as it came.
    pub payload: &'p [u8],
}

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Decompresses a payload that begins as gzip or zstd does, to at most `max_bytes`.
///
/// What could be read of a damaged or too large one is its text, so that good records survive.
pub fn unpack(payload: &[u8], max_bytes: u64) -> Unpacked<'_> {
    let inflated = if payload.starts_with(GZIP) {
        inflate(
            max_bytes,
            || Ok(flate2::bufread::MultiGzDecoder::new(payload)),
            || Ok(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(SIP, payload))),
        )
    } else if payload.starts_with(ZSTD) {
        inflate(
            max_bytes,
            || zstd::stream::read::Decoder::with_buffer(payload),
            || zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(SIP, payload)),
        )
    } else if payload.len() as u64 > max_bytes {
        (Vec::new(), Some(RejectReason::PayloadTooLarge))
    } else {
        return Unpacked { text: Cow::Borrowed(payload), fault: None, payload };
    };
    Unpacked { text: Cow::Owned(inflated.0), fault: inflated.1, payload }
}

/// Small enough that a decoder which fails has handed out nearly all that it could read before.
const SIP: usize = 16;

/// Reads it all; where that fails, again in sips, since a decoder that fails keeps what the same call produced.
fn inflate<A: Read, B: Read>(
    max_bytes: u64,
    whole: impl FnOnce() -> io::Result<A>,
    sips: impl FnOnce() -> io::Result<B>,
) -> (Vec<u8>, Option<RejectReason>) {
    let (text, fault) = read_bounded(whole(), max_bytes);
    if fault != Some(RejectReason::DecompressionFailed) {
        return (text, fault);
    }
    let (again, _) = read_bounded(sips(), max_bytes);
    (if again.len() > text.len() { again } else { text }, fault)
}

fn read_bounded(reader: io::Result<impl Read>, max_bytes: u64) -> (Vec<u8>, Option<RejectReason>) {
    let mut text = Vec::new();
    let fault = match reader.and_then(|reader| reader.take(max_bytes.saturating_add(1)).read_to_end(&mut text)) {
        Ok(length) if length as u64 > max_bytes => {
            text.pop();
            Some(RejectReason::PayloadTooLarge)
        }
        Ok(_) => None,
        Err(_) => Some(RejectReason::DecompressionFailed),
    };
    (text, fault)
}
