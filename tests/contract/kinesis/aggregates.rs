//! Aggregates of the Kinesis Producer Library.

use auditlake::source::{Checkpoint, Next, Payload, Position, Reading, Source as _, Until};
use md5::{Digest as _, Md5};
use prost::encoding::{WireType, encode_key, encode_varint};

use super::{Stream, WAYS, Way, failure, first_shard};
use crate::source::{drain, follow, payloads, read_all, texts};

fn field(tag: u32, bytes: &[u8], into: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, into);
    encode_varint(bytes.len() as u64, into);
    into.extend_from_slice(bytes);
}

/// An aggregate as producers send it.
fn aggregate(records: &[String]) -> Vec<u8> {
    let mut message = Vec::new();
    field(1, b"some key", &mut message);
    // Outside every shard's hash range.
    field(2, b"99999999999999999999999999999999999999999999", &mut message);
    for data in records {
        let mut record = vec![0x08, 0x00, 0x10, 0x00];
        field(3, data.as_bytes(), &mut record);
        field(3, &record, &mut message);
    }
    let digest = Md5::digest(&message);
    [&[0xF3, 0x89, 0x9A, 0xC2][..], &message, &digest[..]].concat()
}

async fn with_aggregates(way: Way) -> (Stream, Vec<Payload>) {
    let stream = Stream::reopened(way).await;
    let plain = payloads(0..1)[0].clone().into_bytes();
    stream
        .put(&[
            plain,
            aggregate(&payloads(1..11)),
            aggregate(&payloads(11..13)),
            payloads(13..14)[0].clone().into_bytes(),
        ])
        .await;
    let all = read_all(&stream, Checkpoint::TrimHorizon).await;
    assert_eq!(texts(&all), payloads(0..14), "a key outside the shard's range loses nothing");
    (stream, all)
}

#[tokio::test]
async fn user_records_are_payloads_with_numbers_of_their_own() {
    for way in WAYS {
        let (_, all) = with_aggregates(way).await;
        let subs: Vec<u64> = all.iter().map(|payload| payload.position.sub_sequence).collect();
        assert_eq!(subs, [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 0]);
        assert!(all[1..11].iter().all(|payload| payload.position.sequence == all[1].position.sequence));
        assert!(all.windows(2).all(|pair| pair[0].position < pair[1].position));
    }
}

#[tokio::test]
async fn reading_resumes_within_an_aggregate() {
    for way in WAYS {
        let (stream, all) = with_aggregates(way).await;
        // A subscription needs seconds to be free again for the next reader.
        let indices = if way == Way::Polling { &[0, 1, 3, 4, 10, 11, 12][..] } else { &[3][..] };
        for &index in indices {
            let rest = follow(stream.follow(all[index].checkpoint()).await.as_mut(), 13 - index).await;
            assert_eq!(texts(&rest), payloads(index as u32 + 1..14), "{way:?} after {index}");
            let imported = Checkpoint::Imported(all[index].position.clone());
            let rest = follow(stream.follow(imported).await.as_mut(), 13 - index).await;
            assert_eq!(texts(&rest), payloads(index as u32 + 1..14), "{way:?} imported {index}");
        }
    }
}

#[tokio::test]
async fn a_range_begins_and_ends_within_aggregates() {
    for way in WAYS {
        let (stream, all) = with_aggregates(way).await;
        let ranges = if way == Way::Polling { &[(3, 7), (3, 11), (0, 1), (10, 12)][..] } else { &[(3, 11)][..] };
        for &(after, through) in ranges {
            let until = Until::Through(all[through].checkpoint());
            let (read, next) = drain(stream.read(all[after].checkpoint(), until).await.as_mut()).await.unwrap();
            assert_eq!((texts(&read), next), (texts(&all[after + 1..=through]), Next::Reached));
        }
    }
}

#[tokio::test]
async fn an_aggregate_that_is_shorter_than_the_checkpoint_is_not_what_was_archived() {
    let (stream, all) = with_aggregates(Way::Polling).await;
    let position = Position { sequence: all[11].position.sequence.clone(), sub_sequence: 2 };
    let after = Checkpoint::at(position, b"{}");
    let reading = Reading { after, read_through: None, until: Until::Forever, arrival: None };
    let error = failure(&stream.source, reading).await;
    assert!(error.to_string().contains("not the payload that was archived"), "{error}");
}

#[tokio::test]
async fn a_broken_aggregate_comes_whole() {
    for way in WAYS {
        let stream = Stream::reopened(way).await;
        let mut broken = aggregate(&payloads(0..3));
        *broken.last_mut().unwrap() ^= 1;
        let trailing = [&aggregate(&payloads(3..4))[..], b"\n"].concat();
        stream.put(&[&broken[..], &trailing[..]]).await;
        let reading =
            Reading { after: Checkpoint::TrimHorizon, read_through: None, until: Until::Forever, arrival: None };
        let mut reader = stream.source.open(&first_shard(), reading).await.unwrap();
        let read = follow(reader.as_mut(), 2).await;
        assert_eq!((&read[0].data[..], &read[1].data[..]), (&broken[..], &trailing[..]), "{way:?}");
        assert!(read.iter().all(|payload| payload.position.sub_sequence == 0));
    }
}
