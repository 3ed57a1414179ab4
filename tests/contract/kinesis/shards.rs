//! Which shards there are, and which stream it is.

use std::sync::Arc;
use std::time::Duration;

use auditlake::ops::clock::SystemClock;
use auditlake::ops::memory::MemoryBudget;
use auditlake::source::{Checkpoint, Next, ShardId, Source as _, SourceError, Until};
use auditlake_test_servers::{Answer, aws};
use serde_json::json;

use super::subscriptions::{event, events};
use super::{LIST_SHARDS, Stream, WAYS, Way, failure, first_shard, from_the_start, next_of_note, open, options};
use crate::source::{payloads, rest};

#[tokio::test]
async fn splits_and_merges_are_listed_with_all_parents_before_their_children() {
    let stream = Stream::new(Way::Polling, 1).await;
    let children = aws::split_shard(&stream.client, &stream.name, first_shard().as_str()).await;
    let merged = aws::merge_shards(&stream.client, &stream.name, &children[0], &children[1]).await;
    let listed = stream.source.shards().await.unwrap();
    let names: Vec<&str> = listed.iter().map(|shard| shard.id.as_str()).collect();
    assert_eq!(names, [first_shard().as_str(), &children[0], &children[1], &merged]);
    assert_eq!(listed[1].parents, [first_shard()]);
    assert_eq!(listed[3].parents, [ShardId::new(&children[0]), ShardId::new(&children[1])]);
    let range = listed[2].hash_range.as_ref().unwrap();
    assert_eq!(range.start, "170141183460469231731687303715884105728");
    assert_eq!(range.end, "340282366920938463463374607431768211455");
}

#[tokio::test]
async fn children_are_known_when_their_parent_has_ended_without_listing_again() {
    for way in WAYS {
        let stream = Stream::new(way, 1).await;
        stream.put(&payloads(0..3)).await;
        assert_eq!(stream.source.shards().await.unwrap().len(), 1);
        let mut reader = stream.follow(Checkpoint::TrimHorizon).await;
        assert_eq!(next_of_note(reader.as_mut()).await.payloads.len(), 3);
        aws::split_shard(&stream.client, &stream.name, first_shard().as_str()).await;
        if way == Way::FanOut {
            // As the service ends a subscription; the server does not.
            let children = [("1", "0", "9"), ("2", "10", "19")].map(|(number, first, last)| {
                json!({ "ShardId": format!("shardId-00000000000{number}"), "ParentShards": [first_shard()],
                        "HashKeyRange": { "StartingHashKey": first, "EndingHashKey": last } })
            });
            stream.proxy.on("SubscribeToShard").answer(events(&[event(&[], "", &json!(children))]));
            stream.proxy.cut_all();
        }
        assert_eq!(stream.source.shards().await.unwrap().len(), 1, "the list is good for ten minutes");
        assert_eq!(next_of_note(reader.as_mut()).await.next, Next::ShardEnd);
        let listed = stream.source.shards().await.unwrap();
        assert_eq!(listed.len(), 3, "{way:?}");
        assert!(listed[1..].iter().all(|child| child.parents == [first_shard()] && child.hash_range.is_some()));
        assert_eq!(stream.proxy.count("ListShards"), 1);
        // It stays at its end.
        assert_eq!(reader.next().await.unwrap().next, Next::ShardEnd);
    }
}

#[tokio::test]
async fn long_lists_of_shards_are_read_to_their_last_page() {
    let stream = Stream::new(Way::Polling, 7).await;
    stream.proxy.on("ListShards").edit_request(|request| {
        let mut body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        body["MaxResults"] = 2.into();
        request.body = body.to_string().into();
    });
    assert_eq!(stream.source.shards().await.unwrap().len(), 7);
    assert_eq!(stream.proxy.count("ListShards"), 4);
}

#[tokio::test]
async fn a_list_that_can_not_be_had_is_served_from_the_last_one() {
    let stream = Stream::hasty(Way::Polling, 2).await;
    let throttled = stream.proxy.on("ListShards").answer(Answer::kinesis("LimitExceededException"));
    assert!(matches!(stream.source.shards().await, Err(SourceError::Unavailable { .. })), "there is none yet");
    throttled.heal();
    assert_eq!(stream.source.shards().await.unwrap().len(), 2);
    let throttled = stream.proxy.on("ListShards").answer(Answer::kinesis("LimitExceededException"));
    // Ten minutes of the hasty clock.
    while throttled.hits() == 0 {
        assert_eq!(stream.source.shards().await.unwrap().len(), 2);
        rest(Duration::from_secs(1)).await;
    }
    assert_eq!(stream.source.shards().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_stream_made_anew_under_its_name_is_refused() {
    for way in WAYS {
        let stream = Stream::hasty(way, 1).await;
        stream.put(&payloads(0..3)).await;
        let origin = stream.source.origin().unwrap().to_owned();
        assert!(origin.contains(&format!(":stream/{}@20", stream.name)), "{origin}");
        let mut reader = stream.follow(Checkpoint::TrimHorizon).await;
        next_of_note(reader.as_mut()).await;
        stream.make_anew().await;
        stream.put(&payloads(0..3)).await;
        let error = failure(&stream.source, from_the_start()).await;
        assert!(matches!(error, SourceError::Stopped { .. }) && error.to_string().contains("made anew"), "{error}");
        // Whoever is reading finds out too, and takes nothing for an end.
        let error = loop {
            match reader.next().await {
                Ok(page) => assert!(page.payloads.is_empty() && page.next != Next::ShardEnd),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, SourceError::Stopped { .. }) && error.to_string().contains("made anew"), "{error}");
        assert!(reader.next().await.is_err(), "it does not go on");
    }
}

#[tokio::test]
async fn a_stream_that_is_gone_is_no_end_of_a_shard() {
    for way in WAYS {
        let stream = Stream::hasty(way, 1).await;
        let mut reader = stream.follow(Checkpoint::TrimHorizon).await;
        reader.next().await.unwrap();
        stream.delete().await;
        let error = loop {
            match reader.next().await {
                Ok(page) => assert_ne!(page.next, Next::ShardEnd, "{way:?}"),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(error, SourceError::Stopped { .. }) && error.to_string().contains("not there any more"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_resource_that_is_not_found_is_never_an_end() {
    for (way, operation) in
        [(Way::Polling, "GetRecords"), (Way::Polling, "GetShardIterator"), (Way::FanOut, "SubscribeToShard")]
    {
        let stream = Stream::hasty(way, 1).await;
        stream.proxy.on(operation).answer(Answer::kinesis("ResourceNotFoundException"));
        for until in [Until::Forever, Until::Target(stream.source.shards().await.unwrap().remove(0).end)] {
            let error = stream.read(Checkpoint::TrimHorizon, until).await.next().await.unwrap_err();
            assert!(matches!(error, SourceError::Stopped { .. }), "{operation}: {error}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_can_not_be_looked_up_is_named_with_the_reason() {
    let stream = Stream::hasty(Way::Polling, 1).await;
    let try_to_open = async |name: &str| {
        let clock = Arc::new(SystemClock::start());
        open(&stream.proxy, options(name, Way::Polling, LIST_SHARDS), clock, MemoryBudget::new(1)).await.err().unwrap()
    };
    let error = try_to_open("no-such-stream").await;
    assert!(
        matches!(error, SourceError::Stopped { .. }) && error.to_string().starts_with("no-such-stream: "),
        "{error}"
    );
    for (code, says) in
        [("AccessDeniedException", "kinesis:DescribeStreamSummary"), ("UnrecognizedClientException", "credentials")]
    {
        let fault = stream.proxy.on("DescribeStreamSummary").answer(Answer::kinesis(code));
        let error = try_to_open(&stream.name).await;
        assert!(matches!(error, SourceError::Stopped { .. }) && error.to_string().contains(says), "{error}");
        fault.heal();
    }
    // By its ARN it is the same.
    let arn = stream.source.origin().unwrap().split('@').next().unwrap().to_owned();
    let clock = Arc::new(SystemClock::start());
    let by_arn =
        open(&stream.proxy, options(&arn, Way::Polling, LIST_SHARDS), clock, MemoryBudget::new(1)).await.unwrap();
    assert_eq!(by_arn.origin(), stream.source.origin());
    assert_eq!(by_arn.retention(), Some(Duration::from_hours(24)));
}
