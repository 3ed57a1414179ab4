//! Records by asking for them: `GetRecords`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::types::ShardIteratorType;
use bytes::Bytes;

use super::cursor::{Answer, Place, Raw, Tip};
use super::fault::{Fault, fault};
use super::pace::Pace;
use super::reader::Feed;
use super::shards::Shards;
use super::stream::{Stream, date_time, timestamp};
use crate::ops::memory::MemoryBudget;
use crate::source::{SequenceNumber, ShardId};

/// The most records that a call may bring, by the API's documentation.
const MOST_RECORDS: u16 = 10_000;
/// What a page is thought to weigh before it is here: as much as the last one, within these bounds. The upper one is
/// what a call may bring.
const LEAST_ESTIMATE: u64 = 64 << 10;
const MOST_ESTIMATE: u64 = 10 << 20;
/// What a record weighs beside its data.
pub(super) const RECORD_OVERHEAD: u64 = 256;
/// How often a shard that names no next iterator and no children is asked again, and how long to wait in between.
const DOUBTS: u32 = 3;
const DOUBT: Duration = Duration::from_secs(1);

/// One shard, asked.
pub(super) struct Polling {
    stream: Arc<Stream>,
    shards: Arc<Shards>,
    shard: ShardId,
    pages: Arc<MemoryBudget>,
    pace: Pace,
    iterator: Option<String>,
    estimate: u64,
    /// How often in a row there was neither a next iterator nor a child.
    doubts: u32,
}

impl Polling {
    pub(super) fn new(stream: Arc<Stream>, shards: Arc<Shards>, shard: ShardId, pages: Arc<MemoryBudget>) -> Self {
        let pace = Pace::new(stream.clock.monotonic());
        Self { stream, shards, shard, pages, pace, iterator: None, estimate: LEAST_ESTIMATE, doubts: 0 }
    }

    /// Waits until the shard's budget allows another call.
    async fn pace(&mut self) {
        while let Err(wait) = self.pace.call(self.stream.clock.monotonic()) {
            self.stream.clock.sleep(wait).await;
        }
    }

    async fn iterator(&mut self, place: &Place) -> Result<String, Fault> {
        self.pace().await;
        let call = self.stream.client.get_shard_iterator().stream_arn(&self.stream.arn).shard_id(self.shard.as_str());
        let call = match place {
            Place::TrimHorizon => call.shard_iterator_type(ShardIteratorType::TrimHorizon),
            Place::Since(time) => call.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(date_time(*time)),
            Place::At(sequence) => call
                .shard_iterator_type(ShardIteratorType::AtSequenceNumber)
                .starting_sequence_number(sequence.as_str()),
            Place::After(sequence) => call
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(sequence.as_str()),
        };
        let answer = call.send().await.map_err(|error| fault("GetShardIterator", &error))?;
        answer.shard_iterator.ok_or_else(|| Fault::Passing("GetShardIterator: an empty answer".into()))
    }

    /// Whether a shard without a next iterator has ended: it has if it names its children, or if the list of shards
    /// says so. Else it is asked again: the answer may come from a server that knows less than another.
    async fn has_ended(&mut self, answer: &GetRecordsOutput) -> Result<bool, Fault> {
        let children = answer.child_shards();
        if !children.is_empty() {
            self.shards.announce(children);
            return Ok(true);
        }
        if self.shards.has_ended(&self.shard).await? {
            return Ok(true);
        }
        if self.doubts == DOUBTS {
            return Err(Fault::Passing(
                "GetRecords: no next iterator, though the shard has no children and is listed as open".into(),
            ));
        }
        self.doubts += 1;
        tracing::debug!(shard = %self.shard, "no next iterator, though the shard has no children; asking again");
        self.stream.clock.sleep(DOUBT).await;
        Ok(false)
    }
}

#[async_trait]
impl Feed for Polling {
    async fn fetch(&mut self, place: &Place) -> Result<Answer, Fault> {
        let iterator = match self.iterator.take() {
            Some(iterator) => iterator,
            None => self.iterator(place).await?,
        };
        self.pace().await;
        let mut held = self.pages.reserve(self.estimate).await;
        let asked = self.stream.clock.now();
        let call = self.stream.client.get_records().stream_arn(&self.stream.arn).shard_iterator(&iterator);
        let mut answer = match call.limit(i32::from(MOST_RECORDS)).send().await {
            Ok(answer) => answer,
            Err(error) => {
                let fault = fault("GetRecords", &error);
                // The same iterator may be asked again, so nothing is skipped.
                self.iterator = (fault != Fault::Expired).then_some(iterator);
                return Err(fault);
            }
        };
        let records = raws(std::mem::take(&mut answer.records));
        let bytes: u64 = records.iter().map(|record| record.data.len() as u64).sum();
        let weight = bytes + records.len() as u64 * RECORD_OVERHEAD;
        held.resize(weight);
        self.pace.brought(bytes);
        self.estimate = weight.clamp(LEAST_ESTIMATE, MOST_ESTIMATE);
        self.iterator = answer.next_shard_iterator.take().filter(|iterator| !iterator.is_empty());
        let ended = self.iterator.is_none() && self.has_ended(&answer).await?;
        if self.iterator.is_some() {
            self.doubts = 0;
        }
        let behind =
            answer.millis_behind_latest.and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis);
        let tip = match behind {
            Some(Duration::ZERO) if records.is_empty() && self.iterator.is_some() => Tip::Reached,
            Some(Duration::ZERO) if records.len() < usize::from(MOST_RECORDS) && self.iterator.is_some() => Tip::Near,
            _ => Tip::Behind,
        };
        Ok(Answer { records, behind, tip, ended, asked, held: Some(held) })
    }

    fn forget(&mut self) {
        self.iterator = None;
    }
}

/// The records as the SDK gives them, without copying their data.
pub(super) fn raws(records: Vec<aws_sdk_kinesis::types::Record>) -> Vec<Raw> {
    let raw = |record: aws_sdk_kinesis::types::Record| Raw {
        sequence: SequenceNumber::new(&record.sequence_number),
        arrival: record.approximate_arrival_timestamp.as_ref().map(timestamp).unwrap_or_default(),
        data: Bytes::from(record.data.into_inner()),
    };
    records.into_iter().map(raw).collect()
}
