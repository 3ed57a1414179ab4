//! Payloads to records and what these are known by, on as many threads as there are. Pure.

use rayon::prelude::*;

use crate::dedupe::{Claim, Core, Identity};
use crate::record::{CoreHasher, Decoded, Decoder, IdentityKey, Record, Rules, Unpacked, identity_of, unpack};
use crate::source::Payload;

/// Fewer bytes than these are decoded before it pays to have woken other threads, who look for more work for a while: most
/// of what comes live is less.
const WORTH_SHARING: usize = 256 << 10;
/// So many bytes of text are unpacked at once.
const STRETCH_BYTES: usize = 4 << 20;
/// So many of them are decoded at once, at most: what they become stays in a core's cache until it is taken.
const CHUNK_BYTES: u64 = 512 << 10;
/// How many payloads a thread takes at least.
const SHARE: usize = 64;

/// What a payload came to: its records and rejects, in order.
#[derive(Default)]
pub(super) struct DecodedPayload<'a> {
    /// Most payloads hold one, for which nothing has to be asked for.
    first: Option<Keyed<'a>>,
    others: Vec<Keyed<'a>>,
}

/// A record with what it is known by, or a reject.
struct Keyed<'a> {
    decoded: Decoded<'a>,
    key: Option<Key>,
}

/// What is compared of a record; costs as much to find out as the record itself.
struct Key {
    /// The hash of its content, where it has no `log_id`: few have none.
    content: Option<Box<[u8; 32]>>,
    core: Core,
}

impl Key {
    fn of(record: &Record<'_>, hasher: &mut CoreHasher) -> Self {
        let content = match identity_of(record) {
            Identity::Content(content) => Some(Box::new(content)),
            Identity::LogId { .. } => None,
        };
        Self { content, core: hasher.core_of(record) }
    }

    fn identity<'r>(&self, record: &'r Record<'_>) -> Identity<'r> {
        self.content.as_deref().map_or_else(|| identity_of(record), |content| Identity::Content(*content))
    }
}

/// What payloads are decoded in, one after the other.
struct Room<'a> {
    decoder: Decoder<'a>,
    hasher: CoreHasher,
}

impl<'a> DecodedPayload<'a> {
    fn of(unpacked: &'a Unpacked<'a>, rules: &Rules, room: &mut Room<'a>) -> Self {
        let Room { decoder, hasher } = room;
        let mut elements = decoder.decode(unpacked, rules).map(|decoded| {
            let key = decoded.outcome.as_deref().ok().map(|record| Key::of(record, hasher));
            Keyed { decoded, key }
        });
        Self { first: elements.next(), others: elements.collect() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    /// In order.
    pub(super) fn elements(&self) -> impl Iterator<Item = &Decoded<'a>> {
        self.keyed().map(|keyed| &keyed.decoded)
    }

    /// The records among them, with their indices.
    pub(super) fn records(&self) -> impl Iterator<Item = (u32, &Record<'a>)> {
        self.elements().filter_map(|element| Some((element.index, element.outcome.as_deref().ok()?)))
    }

    fn keyed(&self) -> impl Iterator<Item = &Keyed<'a>> {
        self.first.iter().chain(&self.others)
    }
}

/// Some payloads in a row, unpacked.
pub(super) struct Stretch<'p> {
    payloads: &'p [Payload],
    unpacked: Vec<Unpacked<'p>>,
}

/// The payloads in stretches.
pub(super) fn stretches<'p>(mut payloads: &'p [Payload], rules: &Rules) -> impl Iterator<Item = Stretch<'p>> {
    let max_bytes = rules.max_payload_bytes;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let texts = payloads.iter().map_while(|payload| {
            (bytes < STRETCH_BYTES).then(|| {
                let unpacked = unpack(&payload.data, max_bytes);
                bytes += unpacked.text.len();
                unpacked
            })
        });
        let unpacked: Vec<_> = texts.collect();
        let stretch = payloads.split_off(..unpacked.len())?;
        (!unpacked.is_empty()).then_some(Stretch { payloads: stretch, unpacked })
    })
}

/// Payloads that were decoded at once.
pub(super) struct Chunk<'s> {
    payloads: &'s [Payload],
    decoded: Vec<DecodedPayload<'s>>,
}

impl Chunk<'_> {
    /// All of it.
    pub(super) fn part(&self) -> Part<'_> {
        Part { payloads: self.payloads, decoded: &self.decoded }
    }
}

/// Some payloads in a row, each with what it came to.
#[derive(Clone, Copy)]
pub(super) struct Part<'c> {
    pub(super) payloads: &'c [Payload],
    pub(super) decoded: &'c [DecodedPayload<'c>],
}

impl<'c> Part<'c> {
    /// The first so many, and the others.
    pub(super) fn split_at(self, count: usize) -> (Self, Self) {
        let (payloads, decoded) = (self.payloads.split_at(count), self.decoded.split_at(count));
        (Self { payloads: payloads.0, decoded: decoded.0 }, Self { payloads: payloads.1, decoded: decoded.1 })
    }

    /// Each payload with what it came to.
    pub(super) fn iter(self) -> impl Iterator<Item = (&'c Payload, &'c DecodedPayload<'c>)> {
        self.payloads.iter().zip(self.decoded)
    }

    /// The claims of its records, in order.
    pub(super) fn claims(self) -> Vec<Claim<'c>> {
        let claims = self.iter().flat_map(|(payload, decoded)| {
            decoded.keyed().filter_map(|Keyed { decoded, key }| {
                let (record, key) = (decoded.outcome.as_deref().ok()?, key.as_ref()?);
                let position = payload.position.record(decoded.index);
                Some(Claim { identity: key.identity(record), position, core: key.core })
            })
        });
        claims.collect()
    }
}

/// A stretch on its way to records, decoded a chunk ahead of who takes them.
pub(super) struct Chunks<'s> {
    payloads: &'s [Payload],
    unpacked: &'s [Unpacked<'s>],
    rules: &'s Rules,
    key: &'s IdentityKey,
    chunk_bytes: usize,
    ahead: Option<Chunk<'s>>,
    /// Nobody needs it any more. To free what it holds is work as well, and done beside the next.
    spent: Option<Chunk<'s>>,
}

impl<'s> Chunks<'s> {
    /// A batch of at most `max_bytes` passes them by a small part of it: a chunk is no more than that.
    pub(super) fn new(stretch: &'s Stretch<'_>, rules: &'s Rules, key: &'s IdentityKey, max_bytes: u64) -> Self {
        let chunk_bytes = (max_bytes / 16).clamp(16 << 10, CHUNK_BYTES) as usize;
        let Stretch { payloads, unpacked } = stretch;
        Self { payloads, unpacked, rules, key, chunk_bytes, ahead: None, spent: None }
    }

    /// The next chunk; `None` after the last.
    pub(super) fn next(&mut self) -> Option<Chunk<'s>> {
        self.decode_beside(|| ());
        self.ahead.take()
    }

    /// Takes back a chunk that is done with.
    pub(super) fn give_back(&mut self, chunk: Chunk<'s>) {
        self.spent = Some(chunk);
    }

    /// Decodes the next chunk, unless it is, while `work` is done: on other threads, where there is enough to do.
    pub(super) fn decode_beside<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> T {
        if self.ahead.is_some() || self.payloads.is_empty() {
            return work();
        }
        let (length, bytes) = self.chunk_length();
        let (payloads, unpacked) = (self.payloads.split_at(length), self.unpacked.split_at(length));
        (self.payloads, self.unpacked) = (payloads.1, unpacked.1);
        let (rules, key, spent) = (self.rules, self.key, self.spent.take());
        let work = || {
            drop(spent);
            work()
        };
        let room = || Room { decoder: Decoder::default(), hasher: key.hasher() };
        let decode = |room: &mut Room<'s>, unpacked| DecodedPayload::of(unpacked, rules, room);
        let (decoded, done) = if bytes < WORTH_SHARING {
            let mut room = room();
            (unpacked.0.iter().map(|unpacked| decode(&mut room, unpacked)).collect(), work())
        } else {
            rayon::join(|| unpacked.0.par_iter().with_min_len(SHARE).map_init(room, decode).collect(), work)
        };
        self.ahead = Some(Chunk { payloads: payloads.0, decoded });
        done
    }

    /// How many payloads the next chunk has, and how many bytes; the last one may pass the measure.
    fn chunk_length(&self) -> (usize, usize) {
        let (mut length, mut bytes) = (0, 0);
        for (payload, unpacked) in self.payloads.iter().zip(self.unpacked) {
            if bytes >= self.chunk_bytes {
                break;
            }
            length += 1;
            // What is known of a message beside its text goes into the row of each of its records.
            bytes += unpacked.text.len() + payload.source_message_length();
        }
        (length, bytes)
    }
}
