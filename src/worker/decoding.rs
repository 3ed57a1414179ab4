//! Payloads to records and what these are known by, on as many threads as there are. Pure.

use rayon::prelude::*;

use crate::dedupe::{Claim, Core, Identity};
use crate::record::{Decoded, IdentityKey, Record, Rules, Unpacked, decode, identity_of};
use crate::source::Payload;

/// Fewer bytes than these are decoded before other threads are awake.
const WORTH_SHARING: usize = 64 << 10;
/// How many payloads a thread takes at least.
const SHARE: usize = 64;

/// What a payload came to.
#[derive(Default)]
pub(super) struct DecodedPayload<'a> {
    /// Its records and rejects, in order.
    pub(super) elements: Vec<Decoded<'a>>,
    /// What the records among them are known by.
    keys: Vec<Key>,
}

/// What is compared of a record; costs as much to find out as the record itself.
struct Key {
    /// The hash of its content, where it has no `log_id`.
    content: Option<[u8; 32]>,
    core: Core,
}

impl Key {
    fn of(record: &Record<'_>, key: &IdentityKey) -> Self {
        let content = match identity_of(record) {
            Identity::Content(content) => Some(content),
            Identity::LogId { .. } => None,
        };
        Self { content, core: key.core_of(record) }
    }

    fn identity<'r>(&self, record: &'r Record<'_>) -> Identity<'r> {
        self.content.map_or_else(|| identity_of(record), Identity::Content)
    }
}

impl<'a> DecodedPayload<'a> {
    fn of(unpacked: &'a Unpacked<'_>, rules: &Rules, key: &IdentityKey) -> Self {
        let elements: Vec<_> = decode(unpacked, rules).collect();
        let records = elements.iter().filter_map(|element| element.outcome.as_deref().ok());
        let keys = records.map(|record| Key::of(record, key)).collect();
        Self { elements, keys }
    }

    /// The records among its elements, with their indices.
    pub(super) fn records(&self) -> impl Iterator<Item = (u32, &Record<'a>)> {
        self.elements.iter().filter_map(|element| Some((element.index, element.outcome.as_deref().ok()?)))
    }
}

/// How many payloads to decode at once: few enough that a batch passes `max_bytes` by a small part of it.
pub(super) fn chunk_length(payloads: &[Payload], max_bytes: u64) -> usize {
    let most = (max_bytes / 16).clamp(16 << 10, 1 << 20);
    let mut bytes = 0;
    let fits = |payload: &&Payload| {
        bytes += payload.weight();
        bytes <= most
    };
    payloads.iter().take_while(fits).count().max(1)
}

/// What each payload came to, in order, and what `beside` did meanwhile: on other threads, where there is enough to do.
pub(super) fn decode_beside<'a, T: Send>(
    unpacked: &'a [Unpacked<'_>],
    rules: &Rules,
    key: &IdentityKey,
    beside: impl FnOnce() -> T + Send,
) -> (Vec<DecodedPayload<'a>>, T) {
    let decoded = |unpacked| DecodedPayload::of(unpacked, rules, key);
    if unpacked.iter().map(|unpacked| unpacked.text.len()).sum::<usize>() < WORTH_SHARING {
        return (unpacked.iter().map(decoded).collect(), beside());
    }
    rayon::join(|| unpacked.par_iter().with_min_len(SHARE).map(decoded).collect(), beside)
}

/// The claims of the records among what was decoded, in order.
pub(super) fn claims<'c>(payloads: &'c [Payload], decoded: &'c [DecodedPayload<'c>]) -> Vec<Claim<'c>> {
    let claims = payloads.iter().zip(decoded).flat_map(|(payload, decoded)| {
        decoded.records().zip(&decoded.keys).map(|((index, record), key)| Claim {
            identity: key.identity(record),
            position: payload.position.record(index),
            core: key.core,
        })
    });
    claims.collect()
}
