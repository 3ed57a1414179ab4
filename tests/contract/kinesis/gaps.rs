//! What the stream no longer has: found out, told with its times, and never taken for nothing.
//!
//! No test server forgets. The proxy leaves records out of answers, as a stream does that has forgotten them.

use std::collections::BTreeSet;
use std::time::Duration;

use auditlake::ops::clock::{Clock as _, SystemClock};
use auditlake::source::{Checkpoint, Next, Page, Payload, Reading, Source as _, SourceError, Until};
use auditlake_test_servers::Answer;
use jiff::Timestamp;

use super::{Stream, Way, failure, first_shard, next_of_note};
use crate::source::{drain, payloads, read_all, texts};

/// A stream of ten records that has forgotten the first so many of them since they were read.
async fn forgetful(forgotten: usize) -> (Stream, Vec<Payload>) {
    let stream = Stream::hasty(Way::Polling, 1).await;
    for number in 0..10 {
        stream.put(&payloads(number..number + 1)).await;
    }
    let all = read_all(&stream, Checkpoint::TrimHorizon).await;
    assert_eq!(all.len(), 10);
    let gone: BTreeSet<String> = all[..forgotten].iter().map(|payload| payload.position.sequence.to_string()).collect();
    stream.proxy.on("GetRecords").edit_answer(move |answer| {
        let mut body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let records = body["Records"].as_array_mut().unwrap();
        records.retain(|record| !gone.contains(record["SequenceNumber"].as_str().unwrap()));
        answer.body = body.to_string().into();
    });
    (stream, all)
}

/// The service refuses a sequence number that it no longer has; or it takes it and begins with what it has.
fn refuse(stream: &Stream) {
    let at = stream.proxy.on("GetShardIterator").body_has("AT_SEQUENCE_NUMBER");
    at.answer(Answer::kinesis("InvalidArgumentException"));
}

async fn first(stream: &Stream, after: Checkpoint, read_through: Option<Timestamp>) -> Page {
    let reading = Reading { after, read_through, until: Until::Forever, arrival: None };
    next_of_note(stream.source.open(&first_shard(), reading).await.unwrap().as_mut()).await
}

#[tokio::test]
async fn a_checkpoint_that_was_forgotten_is_a_gap_however_the_service_says_so() {
    for refused in [false, true] {
        let (stream, all) = forgetful(6).await;
        if refused {
            refuse(&stream);
        }
        let page = first(&stream, all[2].checkpoint(), None).await;
        let gap = page.gap.unwrap();
        assert_eq!((gap.after, gap.from, gap.until), (all[2].checkpoint(), None, all[6].arrival));
        assert_eq!(texts(&page.payloads), payloads(6..10), "refused: {refused}");
    }
}

#[tokio::test]
async fn a_gap_begins_where_the_shard_is_known_to_be_read() {
    let (stream, all) = forgetful(6).await;
    let long_ago: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let gap = first(&stream, all[2].checkpoint(), Some(long_ago)).await.gap.unwrap();
    assert_eq!(gap.from, Some(long_ago));
}

#[tokio::test]
async fn nothing_is_missing_where_all_that_was_forgotten_is_known_to_be_read() {
    for refused in [false, true] {
        let (stream, all) = forgetful(6).await;
        if refused {
            refuse(&stream);
        }
        // The stream keeps a day, and it is known to be read up to a moment ago.
        let page = first(&stream, all[5].checkpoint(), Some(SystemClock::start().now())).await;
        assert_eq!((texts(&page.payloads), page.gap), (payloads(6..10), None), "refused: {refused}");
    }
}

#[tokio::test]
async fn a_gap_with_nothing_behind_it_is_told_once() {
    let (stream, all) = forgetful(10).await;
    let reading =
        |read_through| Reading { after: all[2].checkpoint(), read_through, until: Until::Forever, arrival: None };
    let mut reader = stream.source.open(&first_shard(), reading(None)).await.unwrap();
    let page = next_of_note(reader.as_mut()).await;
    let gap = page.gap.unwrap();
    assert!(page.payloads.is_empty() && gap.after == all[2].checkpoint() && gap.until > all[9].arrival);
    assert_eq!(page.next, Next::CaughtUp);
    assert_eq!(reader.next().await.unwrap().gap, None);
    // Nor by the next reader, which knows what the batch of the gap says.
    let mut reader = stream.source.open(&first_shard(), reading(Some(gap.until))).await.unwrap();
    assert_eq!(drain(reader.as_mut()).await.unwrap().0.len(), 0);
    stream.put(&payloads(10..11)).await;
    assert_eq!(texts(&next_of_note(reader.as_mut()).await.payloads), payloads(10..11));
}

#[tokio::test]
async fn a_shard_that_ended_and_was_forgotten_is_a_gap_and_an_end() {
    let (stream, all) = forgetful(10).await;
    auditlake_test_servers::aws::split_shard(&stream.client, &stream.name, first_shard().as_str()).await;
    let page = first(&stream, all[2].checkpoint(), None).await;
    assert_eq!(page.next, Next::ShardEnd);
    assert!(page.gap.is_some_and(|gap| gap.after == all[2].checkpoint()));
}

#[tokio::test]
async fn a_batch_that_was_forgotten_before_it_was_finished_stops_the_shard() {
    let (stream, all) = forgetful(6).await;
    let again = |after: Checkpoint, first: usize| Reading {
        after,
        read_through: None,
        until: Until::Through(all[8].checkpoint()),
        arrival: Some(all[first].arrival),
    };
    for after in [all[2].checkpoint(), Checkpoint::TrimHorizon] {
        let begins = after.position().map_or(0, |_| 3);
        let error = failure(&stream.source, again(after, begins)).await;
        assert!(matches!(error, SourceError::Stopped { .. }), "{error}");
        assert!(error.to_string().contains("no longer has its first records"), "{error}");
    }
    // A batch that began behind a gap is there as it was.
    for after in [all[2].checkpoint(), Checkpoint::TrimHorizon] {
        let mut reader = stream.source.open(&first_shard(), again(after, 6)).await.unwrap();
        let page = next_of_note(reader.as_mut()).await;
        assert_eq!((texts(&page.payloads), page.next), (payloads(6..9), Next::Reached));
    }
}

#[tokio::test]
async fn a_batch_whose_end_was_forgotten_is_never_reached() {
    let (stream, all) = forgetful(9).await;
    let reading = Reading {
        after: Checkpoint::TrimHorizon,
        read_through: None,
        until: Until::Through(all[8].checkpoint()),
        arrival: None,
    };
    let mut reader = stream.source.open(&first_shard(), reading).await.unwrap();
    let (read, next) = drain(reader.as_mut()).await.unwrap();
    assert_eq!((read.len(), next), (0, Next::CaughtUp));
}

#[tokio::test]
async fn a_place_that_is_refused_while_reading_is_looked_for_from_the_oldest_record_on() {
    let stream = Stream::hasty(Way::Polling, 1).await;
    stream.put(&payloads(0..10)).await;
    let mut reader = stream.follow(Checkpoint::TrimHorizon).await;
    let mut read = crate::source::follow(reader.as_mut(), 10).await;
    stream.put(&payloads(10..30)).await;
    stream.proxy.on("GetRecords").next(1).answer(Answer::kinesis("ExpiredIteratorException"));
    let refused = stream.proxy.on("GetShardIterator").body_has("AFTER_SEQUENCE_NUMBER");
    let refused = refused.next(1).answer(Answer::kinesis("InvalidArgumentException"));
    // It is there after all: nothing is read twice, and no gap is told.
    read.extend(crate::source::follow(reader.as_mut(), 20).await);
    assert_eq!((texts(&read), refused.hits()), (payloads(0..30), 1));
}

#[tokio::test]
async fn a_checkpoint_of_another_stream_is_no_gap() {
    let (stream, all) = forgetful(0).await;
    refuse(&stream);
    let strange = auditlake::source::Position { sequence: all[4].position.sequence.clone(), sub_sequence: 0 };
    let between = format!("{}", strange.sequence);
    let between = between[..between.len() - 1].to_owned() + if between.ends_with('9') { "8" } else { "9" };
    let position = auditlake::source::Position::new(auditlake::source::SequenceNumber::new(&between));
    let after = Checkpoint::at(position, b"x");
    let reading = Reading { after, read_through: None, until: Until::Forever, arrival: None };
    let error = failure(&stream.source, reading).await;
    assert!(matches!(error, SourceError::Stopped { .. }) && error.to_string().contains("another stream"), "{error}");
}

#[tokio::test]
async fn another_payload_under_the_same_number_is_found_out() {
    for way in super::WAYS {
        let stream = Stream::reopened(way).await;
        stream.put(&payloads(0..5)).await;
        let all = read_all(&stream, Checkpoint::TrimHorizon).await;
        let after = Checkpoint::at(all[2].position.clone(), b"not what was there");
        let reading = Reading { after, read_through: None, until: Until::Forever, arrival: None };
        let error = failure(&stream.source, reading).await;
        assert!(error.to_string().contains("not the payload that was archived"), "{error}");
        // The same at the end of a batch.
        let through = Checkpoint::at(all[3].position.clone(), b"nor here");
        let after = all[1].checkpoint();
        let reading = Reading { after, read_through: None, until: Until::Through(through), arrival: None };
        let error = failure(&stream.source, reading).await;
        assert!(error.to_string().contains("batch under way ended with"), "{error}");
    }
}

#[tokio::test]
async fn a_target_stops_before_what_arrives_long_after_it() {
    for way in super::WAYS {
        let stream = Stream::reopened(way).await;
        stream.put(&payloads(0..5)).await;
        let all = read_all(&stream, Checkpoint::TrimHorizon).await;
        let end = |before: Duration| auditlake::source::Target::Arrival(all[0].arrival - before);
        let long_ago = Until::Target(end(Duration::from_mins(2)));
        let (read, next) = drain(stream.read(Checkpoint::TrimHorizon, long_ago).await.as_mut()).await.unwrap();
        assert_eq!((read.len(), next), (0, Next::Reached), "{way:?}");
        let within = Until::Target(end(Duration::from_secs(50)));
        let (read, next) = drain(stream.read(Checkpoint::TrimHorizon, within).await.as_mut()).await.unwrap();
        assert_eq!((read.len(), next), (5, Next::Reached), "{way:?}");
    }
}
