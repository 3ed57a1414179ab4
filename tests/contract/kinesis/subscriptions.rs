//! What only subscriptions do.

use std::sync::Arc;
use std::time::Duration;

use auditlake::ops::clock::SystemClock;
use auditlake::source::{Checkpoint, Next, ShardId, Source as _};
use auditlake_test_servers::{Answer, aws};
use aws_sdk_kinesis::types::ShardIteratorType;
use base64::Engine as _;
use serde_json::{Value, json};

use super::{Stream, Way, first_shard, from_the_start, next_of_note};
use crate::source::{follow, payloads, read_all, rest, texts};

/// A frame of an event stream: lengths, their checksum, headers, payload, the checksum of all.
fn frame(kind: &str, name: &str, payload: &Value) -> Vec<u8> {
    let mut headers = Vec::new();
    let kind_of = format!(":{kind}-type");
    for (header, value) in [(":message-type", kind), (&kind_of, name), (":content-type", "application/json")] {
        headers.push(header.len() as u8);
        headers.extend(header.as_bytes());
        headers.push(7);
        headers.extend((value.len() as u16).to_be_bytes());
        headers.extend(value.as_bytes());
    }
    let payload = payload.to_string();
    let mut frame = Vec::new();
    frame.extend((16 + headers.len() as u32 + payload.len() as u32).to_be_bytes());
    frame.extend((headers.len() as u32).to_be_bytes());
    frame.extend(crc32fast::hash(&frame).to_be_bytes());
    frame.extend(headers);
    frame.extend(payload.as_bytes());
    frame.extend(crc32fast::hash(&frame).to_be_bytes());
    frame
}

/// An event as the service sends it.
pub(super) fn event(records: &[(&str, &str)], continuation: &str, children: &Value) -> Vec<u8> {
    let record = |(sequence, data): &(&str, &str)| {
        json!({ "SequenceNumber": sequence, "Data": base64::prelude::BASE64_STANDARD.encode(data),
                "ApproximateArrivalTimestamp": 1_795_254_660.123, "PartitionKey": "k" })
    };
    let records: Vec<Value> = records.iter().map(record).collect();
    let event = json!({ "Records": records, "ContinuationSequenceNumber": continuation, "MillisBehindLatest": 0,
                        "ChildShards": children });
    frame("event", "SubscribeToShardEvent", &event)
}

/// A subscription that brings this, and is over then.
pub(super) fn events(frames: &[Vec<u8>]) -> Answer {
    Answer::new(200).header("content-type", "application/vnd.amazon.eventstream").body(frames.concat())
}

#[tokio::test]
async fn a_subscription_that_is_over_goes_on_where_it_continues() {
    let stream = Stream::new(Way::FanOut, 1).await;
    stream.put(&payloads(0..6)).await;
    let all = read_all(&stream, Checkpoint::TrimHorizon).await;
    let sequences: Vec<String> = all.iter().map(|payload| payload.position.sequence.to_string()).collect();
    let texts_of = texts(&all);
    let records: Vec<_> = (0..3).map(|index| (sequences[index].as_str(), texts_of[index].as_str())).collect();
    // The second event has no records, but leads on.
    let over =
        events(&[event(&records[..2], records[1].0, &Value::Null), event(&records[2..], records[2].0, &Value::Null)]);
    stream.proxy.on("SubscribeToShard").next(1).answer(over);
    let behind = stream.proxy.on("SubscribeToShard").body_has("AFTER_SEQUENCE_NUMBER").body_has(records[2].0);
    let behind = behind.delay(Duration::ZERO);
    let read = follow(stream.follow(Checkpoint::TrimHorizon).await.as_mut(), 6).await;
    assert_eq!((texts(&read), behind.hits() > 0), (payloads(0..6), true));
}

#[tokio::test]
async fn an_event_that_is_an_exception_means_what_it_says() {
    let stream = Stream::new(Way::FanOut, 1).await;
    stream.put(&payloads(0..3)).await;
    for passes in ["InternalFailureException", "ResourceInUseException", "KMSThrottlingException"] {
        let exception = frame("exception", passes, &json!({ "message": "so it is" }));
        let fault = stream.proxy.on("SubscribeToShard").next(2).answer(events(&[exception]));
        let read = follow(stream.follow(Checkpoint::TrimHorizon).await.as_mut(), 3).await;
        assert_eq!((texts(&read), fault.hits()), (payloads(0..3), 2), "{passes}");
    }
    for (stops, says) in [("KMSAccessDeniedException", "kms:Decrypt"), ("ResourceNotFoundException", "is not there")] {
        let exception = frame("exception", stops, &json!({ "message": "so it is" }));
        let fault = stream.proxy.on("SubscribeToShard").next(1).answer(events(&[exception]));
        let error = super::failure(&stream.source, from_the_start()).await;
        assert!(matches!(error, auditlake::source::SourceError::Stopped { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
        fault.heal();
    }
}

#[tokio::test]
async fn a_subscription_to_a_shard_that_is_listed_as_ended_ends() {
    let every = Duration::from_secs(10);
    let stream = Stream::with(Way::FanOut, 1, Arc::new(SystemClock::start()), every).await;
    stream.put(&payloads(0..3)).await;
    assert_eq!(stream.source.shards().await.unwrap().len(), 1);
    let mut reader = stream.follow(Checkpoint::TrimHorizon).await;
    assert_eq!(texts(&follow(reader.as_mut(), 3).await), payloads(0..3));
    aws::split_shard(&stream.client, &stream.name, first_shard().as_str()).await;
    for _ in 0..4 {
        assert_eq!(reader.next().await.unwrap().next, Next::CaughtUp, "nobody has said that it has ended");
    }
    while stream.source.shards().await.unwrap().len() < 3 {
        rest(Duration::from_millis(200)).await;
    }
    assert_eq!(next_of_note(reader.as_mut()).await.next, Next::ShardEnd);
}

#[tokio::test]
async fn an_iterator_type_of_each_place_is_asked_for() {
    let stream = Stream::new(Way::FanOut, 1).await;
    stream.put(&payloads(0..3)).await;
    let all = read_all(&stream, Checkpoint::TrimHorizon).await;
    for (after, kind) in [
        (Checkpoint::TrimHorizon, ShardIteratorType::TrimHorizon),
        (Checkpoint::Since(all[0].arrival), ShardIteratorType::AtTimestamp),
        (all[0].checkpoint(), ShardIteratorType::AtSequenceNumber),
    ] {
        let asked = stream.proxy.on("SubscribeToShard").body_has(kind.as_str()).delay(Duration::ZERO);
        follow(stream.follow(after).await.as_mut(), 2).await;
        assert!(asked.hits() > 0, "{}", kind.as_str());
        asked.heal();
    }
}

#[tokio::test]
async fn a_consumer_is_registered_once_however_many_need_it() {
    let stream = Stream::new(Way::FanOut, 3).await;
    let shards = aws::shards(&stream.client, &stream.name).await;
    assert_eq!(stream.proxy.count("RegisterStreamConsumer"), 0, "looking at a stream registers nothing");
    let mut readers = Vec::new();
    for shard in &shards {
        let shard = ShardId::new(shard.shard_id());
        readers.push(stream.source.open(&shard, from_the_start()).await.unwrap());
    }
    for reader in &mut readers {
        reader.next().await.unwrap();
    }
    assert_eq!(stream.proxy.count("RegisterStreamConsumer"), 1);
}
