//! A segment of a spool: messages as they came, made to be read by somebody who knows nothing of who wrote them. Pure.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `AUDSPOOL` |
//! | 4 | the length of the header, little endian |
//! | any | the [`Header`], as JSON |
//! | any | the messages, in protocol buffers, compressed as the header says; of a seal none |
//! | 32 | the SHA-256 of all bytes before |

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::names::SpoolName;
use crate::digest::Digest;
use crate::ops::words::counted;

const MAGIC: &[u8; 8] = b"AUDSPOOL";
const DIGEST_BYTES: usize = 32;
/// Fast, and half of what JSON takes is gone at any level.
const LEVEL: i32 = 1;

/// A message as the subscription delivered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Pub/Sub's name for it.
    pub id: String,
    /// When it was published, which is when the service received it.
    pub arrival: Timestamp,
    /// What its publisher said of it.
    pub attributes: BTreeMap<String, String>,
    /// Messages of one key are delivered in order, where the subscription says so; empty for none.
    pub ordering_key: String,
    /// How often it has been delivered, where the subscription has a dead-letter topic.
    pub delivery_attempt: Option<u32>,
    /// Its bytes.
    pub data: Bytes,
}

/// What the archive keeps of a message in `source_message`. The fields stand in the order of their names.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    message_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    ordering_key: &'a str,
}

impl Message {
    /// Its id, attributes and ordering key as JSON text, keys sorted and what is empty left out; none where all are.
    /// How often it was delivered is no part of it, as that tells of the delivery and not of the message.
    pub(super) fn source_message(&self) -> Option<Arc<str>> {
        let Self { id, attributes, ordering_key, .. } = self;
        let told = Told { attributes, message_id: id, ordering_key };
        let text = serde_json::to_string(&told).expect("strings can be written as JSON");
        (text != "{}").then(|| text.into())
    }
}

/// What a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// It holds messages.
    Messages,
    /// It ends its spool: nothing is put behind it.
    Seal,
}

/// How a segment's messages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Codec {
    Zstd,
}

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// Its spool.
    pub(super) spool: SpoolName,
    /// Its number in the spool, from 0.
    pub(super) number: u64,
    /// What it is.
    pub(super) kind: Kind,
    /// How many messages it holds.
    pub(super) count: u64,
    /// How many bytes they have, in protocol buffers.
    pub(super) bytes: u64,
    codec: Codec,
    /// When it was made: what had been received by then stands in it or before it.
    pub(super) written: Timestamp,
    /// The program that made it.
    pub(super) writer: String,
}

/// A segment that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// What it says of itself.
    pub(super) header: Header,
    /// Its messages, in the order in which they came.
    pub(super) messages: Vec<Message>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Body {
    #[prost(message, repeated, tag = "1")]
    messages: Vec<Stored>,
}

/// A [`Message`] in protocol buffers.
#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(int64, tag = "2")]
    arrival_seconds: i64,
    #[prost(int32, tag = "3")]
    arrival_nanoseconds: i32,
    #[prost(btree_map = "string, string", tag = "4")]
    attributes: BTreeMap<String, String>,
    #[prost(string, tag = "5")]
    ordering_key: String,
    #[prost(uint32, optional, tag = "6")]
    delivery_attempt: Option<u32>,
    #[prost(bytes = "bytes", tag = "7")]
    data: Bytes,
}

impl From<&Message> for Stored {
    fn from(message: &Message) -> Self {
        Self {
            id: message.id.clone(),
            arrival_seconds: message.arrival.as_second(),
            arrival_nanoseconds: message.arrival.subsec_nanosecond(),
            attributes: message.attributes.clone(),
            ordering_key: message.ordering_key.clone(),
            delivery_attempt: message.delivery_attempt,
            data: message.data.clone(),
        }
    }
}

impl TryFrom<Stored> for Message {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        let arrival = Timestamp::new(stored.arrival_seconds, stored.arrival_nanoseconds);
        Ok(Self {
            arrival: arrival.map_err(|error| format!("a message has a time that is none: {error}"))?,
            id: stored.id,
            attributes: stored.attributes,
            ordering_key: stored.ordering_key,
            delivery_attempt: stored.delivery_attempt,
            data: stored.data,
        })
    }
}

/// The bytes of a segment of messages. The same messages, made at the same time, give the same bytes.
pub(super) fn encode(spool: &SpoolName, number: u64, messages: &[Message], now: Timestamp) -> Bytes {
    let body = Body { messages: messages.iter().map(Stored::from).collect() }.encode_to_vec();
    let compressed = zstd::bulk::compress(&body, LEVEL).expect("memory can be compressed into memory");
    let (count, bytes) = (messages.len() as u64, body.len() as u64);
    assemble(&Header { count, bytes, ..header(spool, number, Kind::Messages, now) }, &compressed)
}

/// The bytes of the seal that ends a spool.
pub(super) fn encode_seal(spool: &SpoolName, number: u64, now: Timestamp) -> Bytes {
    assemble(&header(spool, number, Kind::Seal, now), &[])
}

fn header(spool: &SpoolName, number: u64, kind: Kind, written: Timestamp) -> Header {
    let writer = concat!("auditlake ", env!("CARGO_PKG_VERSION")).into();
    Header { spool: spool.clone(), number, kind, count: 0, bytes: 0, codec: Codec::Zstd, written, writer }
}

fn assemble(header: &Header, body: &[u8]) -> Bytes {
    let header = serde_json::to_vec(header).expect("a header has no map keys but strings");
    let length = u32::try_from(header.len()).expect("a header is short");
    let mut segment = [MAGIC, &length.to_le_bytes()[..], &header, body].concat();
    let digest = Digest::of(&segment);
    segment.extend_from_slice(&digest.0);
    segment.into()
}

/// Reads a segment, which must be the one of this number of this spool; what is wrong with it otherwise.
pub(super) fn decode(spool: &SpoolName, number: u64, segment: &Bytes) -> Result<Segment, String> {
    let sealed = segment.len().checked_sub(DIGEST_BYTES).filter(|end| *end >= MAGIC.len() + 4);
    let end = sealed.ok_or("it is too short to be a segment")?;
    if !segment.starts_with(MAGIC) {
        return Err("it is no segment of a spool".into());
    }
    if Digest::of(&segment[..end]).0 != segment[end..] {
        return Err("its bytes are not those that were put: its SHA-256 is another".into());
    }
    let start = MAGIC.len() + 4;
    let length = u32::from_le_bytes(segment[MAGIC.len()..start].try_into().unwrap_or_default()) as usize;
    let text = segment[start..end].get(..length).ok_or("its header is longer than it is")?;
    let header: Header = serde_json::from_slice(text).map_err(|error| format!("its header can't be read: {error}"))?;
    if (&header.spool, header.number) != (spool, number) {
        return Err(format!("it says that it is segment {} of {}", header.number, header.spool));
    }
    if header.kind == Kind::Seal {
        return Ok(Segment { header, messages: Vec::new() });
    }
    let body = &segment[start + length..end];
    let bytes = usize::try_from(header.bytes).map_err(|error| error.to_string())?;
    let body = zstd::bulk::decompress(body, bytes).map_err(|error| format!("it can't be decompressed: {error}"))?;
    let body = Body::decode(Bytes::from(body)).map_err(|error| format!("its messages can't be read: {error}"))?;
    let messages: Vec<Message> = body.messages.into_iter().map(Message::try_from).collect::<Result<_, _>>()?;
    if messages.len() as u64 != header.count {
        return Err(format!("it has {} and says {}", counted(messages.len() as u64, "message"), header.count));
    }
    Ok(Segment { header, messages })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T09:31:00.123456789Z".parse().unwrap()
    }

    fn spool() -> SpoolName {
        SpoolName::new("spool-1").unwrap()
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let attributes = proptest::collection::btree_map("[a-z]{1,4}", ".{0,4}", 0..3);
        let attempt = proptest::option::of(1u32..100);
        let data = proptest::collection::vec(any::<u8>(), 0..200);
        (".{0,9}", -1_000_000_000_000_i64..1_000_000_000_000, attributes, ".{0,3}", attempt, data).prop_map(
            |(id, micros, attributes, ordering_key, delivery_attempt, data)| Message {
                id,
                arrival: Timestamp::from_microsecond(micros).unwrap(),
                attributes,
                ordering_key,
                delivery_attempt,
                data: data.into(),
            },
        )
    }

    proptest! {
        #[test]
        fn messages_come_back_as_they_were(messages in proptest::collection::vec(any_message(), 0..20)) {
            let bytes = encode(&spool(), 7, &messages, now());
            prop_assert_eq!(&bytes, &encode(&spool(), 7, &messages, now()));
            let segment = decode(&spool(), 7, &bytes).unwrap();
            prop_assert_eq!(segment.header.count, messages.len() as u64);
            prop_assert_eq!(segment.messages, messages);
        }

        #[test]
        fn any_change_is_found_out(
            messages in proptest::collection::vec(any_message(), 0..4),
            place: prop::sample::Index,
            bit in 0u32..8,
        ) {
            let mut bytes = encode(&spool(), 7, &messages, now()).to_vec();
            let place = place.index(bytes.len());
            bytes[place] ^= 1u8 << bit;
            prop_assert!(decode(&spool(), 7, &bytes.into()).is_err());
        }

        #[test]
        fn a_part_of_a_segment_is_none(length in 0usize..200) {
            let whole = encode(&spool(), 7, &[], now());
            let part = whole.slice(..length.min(whole.len() - 1));
            prop_assert!(decode(&spool(), 7, &part).is_err());
        }
    }

    #[test]
    fn what_is_known_of_a_message_is_one_line_of_json_with_sorted_keys_and_nothing_empty() {
        let bare = Message {
            id: String::new(),
            arrival: now(),
            attributes: BTreeMap::new(),
            ordering_key: String::new(),
            delivery_attempt: Some(3),
            data: Bytes::new(),
        };
        assert_eq!(bare.source_message(), None);
        let named = Message { id: "17".into(), ..bare.clone() };
        assert_eq!(named.source_message().as_deref(), Some(r#"{"message_id":"17"}"#));
        let attributes =
            [("b", ""), ("a", "\"é\"\n"), ("B", "2")].map(|(key, value)| (key.into(), value.into())).into();
        let full = Message { attributes, ordering_key: "k".into(), ..named };
        let text = r#"{"attributes":{"B":"2","a":"\"é\"\n","b":""},"message_id":"17","ordering_key":"k"}"#;
        assert_eq!(full.source_message().as_deref(), Some(text));
        let again = Message { delivery_attempt: Some(4), ..full.clone() };
        assert_eq!(again.source_message(), full.source_message(), "how often it was delivered changes nothing");
    }

    #[test]
    fn a_segment_tells_what_it_is() {
        let seal = decode(&spool(), 3, &encode_seal(&spool(), 3, now())).unwrap();
        assert_eq!((seal.header.kind, seal.header.written, seal.messages.len()), (Kind::Seal, now(), 0));
        let other = SpoolName::new("spool-2").unwrap();
        let moved = encode_seal(&spool(), 3, now());
        assert!(decode(&other, 3, &moved).unwrap_err().contains("segment 3 of spool-1"));
        assert!(decode(&spool(), 4, &moved).unwrap_err().contains("segment 3 of spool-1"));
    }
}
