//! What befalls a reader, and that it loses no place by it.

use std::time::Duration;

use auditlake::source::{Checkpoint, Next, Payload, Source as _, SourceError, Until};
use auditlake_test_servers::{Answer, Fault, Matching, aws};

use super::{Stream, WAYS, Way, failure, from_the_start, next_of_note};
use crate::source::{follow, payloads, read_all, texts};

/// A page without records, that is not at the tip; `iterator` leads on.
fn empty_page(iterator: &str) -> Answer {
    let body = serde_json::json!({ "Records": [], "MillisBehindLatest": 5000, "NextShardIterator": iterator });
    Answer::new(200).header("content-type", "application/x-amz-json-1.1").body(body.to_string())
}

fn edit_json(answer: &mut Answer, edit: impl FnOnce(&mut serde_json::Value)) {
    let mut body = serde_json::from_slice(&answer.body).unwrap();
    edit(&mut body);
    answer.body = body.to_string().into();
}

#[tokio::test]
async fn an_expired_iterator_is_replaced_behind_the_last_record_read() {
    let stream = Stream::new(Way::Polling, 1).await;
    stream.put(&payloads(0..10)).await;
    let mut reader = stream.follow(Checkpoint::TrimHorizon).await;
    let mut read = follow(reader.as_mut(), 10).await;
    stream.put(&payloads(10..40)).await;
    let expired = stream.proxy.on("GetRecords").next(2).answer(Answer::kinesis("ExpiredIteratorException"));
    let behind = stream.proxy.on("GetShardIterator").body_has("AFTER_SEQUENCE_NUMBER").body_has(sequence(&read[9]));
    let behind = behind.delay(Duration::ZERO);
    read.extend(follow(reader.as_mut(), 30).await);
    assert_eq!(texts(&read), payloads(0..40));
    assert_eq!((expired.hits(), behind.hits()), (2, 2));
    assert_eq!(stream.proxy.count("GetShardIterator"), 3);
}

fn sequence(payload: &Payload) -> String {
    payload.position.sequence.to_string()
}

#[tokio::test]
async fn an_iterator_that_expires_before_anything_was_read_is_replaced_at_the_checkpoint() {
    let stream = Stream::new(Way::Polling, 1).await;
    stream.put(&payloads(0..10)).await;
    let all = read_all(&stream, Checkpoint::TrimHorizon).await;
    stream.proxy.forget();
    stream.proxy.on("GetRecords").next(1).answer(Answer::kinesis("ExpiredIteratorException"));
    let at = stream.proxy.on("GetShardIterator").body_has("AT_SEQUENCE_NUMBER").body_has(sequence(&all[6]));
    let at = at.delay(Duration::ZERO);
    let rest = follow(stream.follow(all[6].checkpoint()).await.as_mut(), 3).await;
    assert_eq!((texts(&rest), at.hits()), (payloads(7..10), 2));
}

#[tokio::test]
async fn whatever_passes_is_borne_without_losing_the_place() {
    type Befall = fn(Matching<'_>) -> Fault;
    let faults: [(&str, Befall); 8] = [
        ("throttled", |matching| matching.answer(Answer::kinesis_throttled())),
        ("limit", |matching| matching.answer(Answer::kinesis("LimitExceededException"))),
        ("KMS throttled", |matching| matching.answer(Answer::kinesis("KMSThrottlingException"))),
        ("500", |matching| matching.answer(Answer::kinesis("InternalFailure"))),
        ("503", |matching| matching.answer(Answer::kinesis("ServiceUnavailable"))),
        ("cut", |matching| matching.cut()),
        ("answer lost", |matching| matching.lose_answer()),
        ("answer torn", |matching| matching.cut_answer_after(100)),
    ];
    for (operations, way) in
        [(&["GetShardIterator", "GetRecords"][..], Way::Polling), (&["SubscribeToShard"][..], Way::FanOut)]
    {
        let stream = Stream::reopened(way).await;
        let mut after = Checkpoint::TrimHorizon;
        let mut reader = stream.follow(after.clone()).await;
        for ((name, befall), round) in faults.iter().zip(0..) {
            if way == Way::FanOut {
                // A subscription that stands meets nothing.
                reader = stream.follow(after.clone()).await;
            }
            let numbers = round * 20..(round + 1) * 20;
            stream.put(&payloads(numbers.clone())).await;
            let hits: Vec<_> = operations.iter().map(|operation| befall(stream.proxy.on(operation).next(3))).collect();
            let read = follow(reader.as_mut(), 20).await;
            assert_eq!(texts(&read), payloads(numbers), "{name}");
            after = read[19].checkpoint();
            let befell: u64 = hits.iter().map(Fault::hits).sum();
            assert!(befell > 0, "{name} befell nobody");
            hits.iter().for_each(Fault::heal);
        }
    }
}

#[tokio::test]
async fn an_outage_of_more_than_a_minute_is_told_and_heals_without_a_new_reader() {
    for way in WAYS {
        let stream = Stream::hasty(way, 1).await;
        stream.put(&payloads(0..3)).await;
        let mut reader = stream.follow(Checkpoint::TrimHorizon).await;
        let mut read = follow(reader.as_mut(), 3).await;
        stream.proxy.down();
        let error = loop {
            match reader.next().await {
                // Nobody says that there is nothing more while nobody can know.
                Ok(page) => assert!(page.payloads.is_empty()),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, SourceError::Unavailable { .. }), "{error}");
        stream.put(&payloads(3..6)).await;
        stream.proxy.up();
        read.extend(follow(reader.as_mut(), 3).await);
        assert_eq!(texts(&read), payloads(0..6), "{way:?}");
    }
}

#[tokio::test]
async fn what_a_human_must_allow_stops_the_reader_and_names_the_action() {
    for (way, operation) in [(Way::Polling, "GetRecords"), (Way::FanOut, "SubscribeToShard")] {
        for (code, says) in [
            ("AccessDeniedException", format!("kinesis:{operation}")),
            ("KMSAccessDeniedException", "kms:Decrypt".into()),
            ("KMSDisabledException", "key is enabled".into()),
        ] {
            let stream = Stream::hasty(way, 1).await;
            stream.proxy.on(operation).answer(Answer::kinesis(code));
            let error = failure(&stream.source, from_the_start()).await;
            assert!(matches!(error, SourceError::Stopped { .. }) && error.to_string().contains(&says), "{error}");
        }
    }
}

#[tokio::test]
async fn an_empty_page_behind_the_tip_is_no_end_and_loses_no_place() {
    let stream = Stream::new(Way::Polling, 1).await;
    stream.put(&payloads(0..30)).await;
    let all = read_all(&stream, Checkpoint::TrimHorizon).await;
    let iterator = stream.client.get_shard_iterator().stream_name(&stream.name).shard_id("shardId-000000000000");
    let iterator = iterator.shard_iterator_type(aws_sdk_kinesis::types::ShardIteratorType::AfterSequenceNumber);
    let iterator = iterator.starting_sequence_number(sequence(&all[8])).send().await.unwrap().shard_iterator.unwrap();
    stream.proxy.on("GetRecords").next(3).answer(empty_page(&iterator));
    let listed = stream.source.shards().await.unwrap().remove(0);
    let mut reader = stream.read(all[9].checkpoint(), Until::Target(listed.end)).await;
    for _ in 0..3 {
        let page = reader.next().await.unwrap();
        assert_eq!((page.payloads.len(), page.next, page.gap), (0, Next::More, None));
        assert_eq!(page.behind, Some(Duration::from_secs(5)));
    }
    let page = next_of_note(reader.as_mut()).await;
    assert_eq!((texts(&page.payloads), page.gap), (payloads(10..30), None));
}

#[tokio::test]
async fn an_empty_last_page_keeps_the_place_of_what_came_before_it() {
    let stream = Stream::new(Way::Polling, 1).await;
    stream.put(&payloads(0..5)).await;
    let mut reader = stream.follow(Checkpoint::TrimHorizon).await;
    let mut read = follow(reader.as_mut(), 5).await;
    assert!(reader.next().await.unwrap().payloads.is_empty());
    stream.put(&payloads(5..8)).await;
    stream.proxy.on("GetRecords").next(1).answer(Answer::kinesis("ExpiredIteratorException"));
    read.extend(follow(reader.as_mut(), 3).await);
    assert_eq!(texts(&read), payloads(0..8));
}

#[tokio::test]
async fn a_missing_next_iterator_without_children_is_asked_again() {
    let stream = Stream::hasty(Way::Polling, 1).await;
    stream.put(&payloads(0..10)).await;
    let without = |answer: &mut Answer| {
        edit_json(answer, |body| {
            body.as_object_mut().unwrap().remove("NextShardIterator");
        });
    };
    let lost = stream.proxy.on("GetRecords").next(2).edit_answer(without);
    let mut reader = stream.follow(Checkpoint::TrimHorizon).await;
    let mut read = texts(&next_of_note(reader.as_mut()).await.payloads);
    stream.put(&payloads(10..30)).await;
    read.extend(texts(&follow(reader.as_mut(), 20).await));
    assert_eq!(read, payloads(0..30));
    assert_eq!(lost.hits(), 2);
    // For as long as nothing else says that the shard has ended, it has not.
    stream.proxy.on("GetRecords").edit_answer(without);
    let error = loop {
        match reader.next().await {
            Ok(page) => assert_ne!(page.next, Next::ShardEnd),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SourceError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_next_iterator_counts_where_the_list_of_shards_agrees() {
    let stream = Stream::hasty(Way::Polling, 1).await;
    stream.put(&payloads(0..3)).await;
    aws::split_shard(&stream.client, &stream.name, "shardId-000000000000").await;
    stream.proxy.on("GetRecords").edit_answer(|answer| {
        edit_json(answer, |body| {
            body.as_object_mut().unwrap().remove("ChildShards");
        });
    });
    let page = next_of_note(stream.follow(Checkpoint::TrimHorizon).await.as_mut()).await;
    assert_eq!((texts(&page.payloads), page.next), (payloads(0..3), Next::ShardEnd));
}

#[tokio::test]
async fn a_time_that_has_not_come_yet_is_waited_for() {
    // A clock that is ahead of the service's: `initial_position = "latest"` asks for what arrives from now on.
    let stream = Stream::new(Way::Polling, 1).await;
    stream.put(&payloads(0..3)).await;
    let soon = "2099-01-01T00:00:00Z".parse().unwrap();
    let refused = stream.proxy.on("GetShardIterator").next(2).answer(Answer::kinesis("InvalidArgumentException"));
    let mut reader = stream.follow(Checkpoint::Since(soon)).await;
    let asked = tokio::time::timeout(Duration::from_secs(3), reader.next()).await;
    assert!(asked.is_err() || asked.unwrap().is_ok(), "it is no error");
    assert_eq!(refused.hits(), 2);
}

#[tokio::test]
async fn a_subscription_that_another_reader_holds_is_waited_for() {
    let stream = Stream::hasty(Way::FanOut, 1).await;
    stream.put(&payloads(0..3)).await;
    let in_use = stream.proxy.on("SubscribeToShard").next(3).answer(Answer::kinesis("ResourceInUseException"));
    let mut reader = stream.follow(Checkpoint::TrimHorizon).await;
    assert_eq!(texts(&follow(reader.as_mut(), 3).await), payloads(0..3));
    assert_eq!(in_use.hits(), 3);
}
