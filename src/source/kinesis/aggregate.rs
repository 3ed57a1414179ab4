//! Aggregates of the Kinesis Producer Library: one record of the stream that holds many of its user's. Pure.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `F3 89 9A C2` |
//! | any | an `AggregatedRecord`, in protocol buffers |
//! | 16 | the MD5 of the bytes between |

use bytes::{Buf, Bytes};
use md5::{Digest as _, Md5};
use prost::Message;

const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
const DIGEST_BYTES: usize = 16;

/// The producer library's `AggregatedRecord`, without the tables of partition keys: which shard a record was meant for
/// does not matter once it is here.
#[derive(Clone, PartialEq, Message)]
struct AggregatedRecord {
    #[prost(message, repeated, tag = "3")]
    records: Vec<UserRecord>,
}

/// The producer library's `Record`.
#[derive(Clone, PartialEq, Message)]
struct UserRecord {
    #[prost(bytes = "bytes", optional, tag = "3")]
    data: Option<Bytes>,
}

/// The user records of one record of the stream, in order; they share its memory. A record that is no aggregate, or a
/// broken one, is its only user record, whole: what it is, decoding will tell.
pub(super) fn unpack(record: Bytes) -> Vec<Bytes> {
    aggregated(&record).unwrap_or_else(|| vec![record])
}

/// `None` unless it is an aggregate in every respect, down to the last byte.
fn aggregated(record: &Bytes) -> Option<Vec<Bytes>> {
    let body = record.len().checked_sub(MAGIC.len() + DIGEST_BYTES)?;
    if !record.starts_with(&MAGIC) {
        return None;
    }
    let mut message = record.slice(MAGIC.len()..MAGIC.len() + body);
    if Md5::digest(&message)[..] != record[MAGIC.len() + body..] {
        return None;
    }
    let aggregate = AggregatedRecord::decode(&mut message).ok()?;
    let records: Option<Vec<Bytes>> = aggregate.records.into_iter().map(|record| record.data).collect();
    records.filter(|records| !message.has_remaining() && !records.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The whole message, as producers send it.
    #[derive(Clone, PartialEq, Message)]
    struct Sent {
        #[prost(string, repeated, tag = "1")]
        partition_keys: Vec<String>,
        #[prost(string, repeated, tag = "2")]
        explicit_hash_keys: Vec<String>,
        #[prost(message, repeated, tag = "3")]
        records: Vec<SentRecord>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct SentRecord {
        #[prost(uint64, required, tag = "1")]
        partition_key_index: u64,
        #[prost(uint64, optional, tag = "2")]
        explicit_hash_key_index: Option<u64>,
        #[prost(bytes = "vec", required, tag = "3")]
        data: Vec<u8>,
        #[prost(message, repeated, tag = "4")]
        tags: Vec<Tag>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Tag {
        #[prost(string, required, tag = "1")]
        key: String,
        #[prost(string, optional, tag = "2")]
        value: Option<String>,
    }

    fn sealed(message: &[u8]) -> Bytes {
        [&MAGIC[..], message, &Md5::digest(message)[..]].concat().into()
    }

    fn aggregate(records: &[Vec<u8>]) -> Bytes {
        let record = |(index, data): (usize, &Vec<u8>)| SentRecord {
            partition_key_index: index as u64 % 2,
            explicit_hash_key_index: (index % 3 == 0).then_some(0),
            data: data.clone(),
            tags: vec![Tag { key: "t".into(), value: None }],
        };
        let sent = Sent {
            partition_keys: vec!["a".into(), "b".into()],
            // Not a key of any shard.
            explicit_hash_keys: vec!["999999999999999999999999999999999999999999".into()],
            records: records.iter().enumerate().map(record).collect(),
        };
        sealed(&sent.encode_to_vec())
    }

    fn is_whole(record: &Bytes) -> bool {
        unpack(record.clone()) == [record.clone()]
    }

    #[test]
    fn what_is_no_aggregate_in_every_respect_is_delivered_whole() {
        let good = aggregate(&[b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(unpack(good.clone()), ["one", "two"]);
        let mut wrong_digest = good.to_vec();
        *wrong_digest.last_mut().unwrap() ^= 1;
        let trailing = [&good[..], b"\n"].concat();
        let cases = [
            ("plain", Bytes::from_static(b"{\"log_id\":\"1\"}")),
            ("empty", Bytes::new()),
            ("magic alone", Bytes::copy_from_slice(&MAGIC)),
            ("magic and less than a digest", [&MAGIC[..], &[0; 15]].concat().into()),
            ("magic by accident", [&MAGIC[..], b"{\"log_id\":\"1\"} and so on"].concat().into()),
            ("wrong digest", wrong_digest.into()),
            ("trailing bytes", trailing.into()),
            ("cut short", good.slice(..good.len() - 1)),
            ("no records", sealed(b"")),
            (
                "no records, but keys",
                sealed(&Sent { partition_keys: vec!["k".into()], ..Sent::default() }.encode_to_vec()),
            ),
            ("valid digest of no protocol buffer", sealed(&[0xFF; 40])),
            ("a record without data", sealed(&[0x1A, 0x02, 0x08, 0x00])),
        ];
        for (name, record) in cases {
            assert!(is_whole(&record), "{name}");
        }
    }

    #[test]
    fn a_key_that_is_no_text_loses_nothing() {
        // Field 1, two bytes that are not UTF-8, then a record.
        let message = [&[0x0A, 0x02, 0xFF, 0xFE][..], &[0x1A, 0x03, 0x1A, 0x01, b'x']].concat();
        assert_eq!(unpack(sealed(&message)), ["x"]);
    }

    proptest! {
        #[test]
        fn user_records_come_back_in_order(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 1..40)) {
            let unpacked = unpack(aggregate(&records));
            prop_assert_eq!(unpacked.iter().map(|data| data.to_vec()).collect::<Vec<_>>(), records);
        }

        #[test]
        fn any_change_of_an_aggregate_leaves_it_whole(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..16), 1..8),
            at in any::<prop::sample::Index>(),
            with in 1..=u8::MAX,
        ) {
            let mut changed = aggregate(&records).to_vec();
            let at = at.index(changed.len());
            changed[at] ^= with;
            prop_assert!(is_whole(&changed.into()));
        }

        #[test]
        fn no_bytes_are_lost_whatever_they_are(message in prop::collection::vec(any::<u8>(), 0..200), seal in any::<bool>()) {
            let record = if seal { sealed(&message) } else { [&MAGIC[..], &message].concat().into() };
            let unpacked = unpack(record.clone());
            prop_assert!(!unpacked.is_empty());
            let inside = |data: &Bytes| record.windows(data.len().max(1)).any(|window| window == &data[..] || data.is_empty());
            prop_assert!(unpacked.iter().all(inside));
        }
    }
}
