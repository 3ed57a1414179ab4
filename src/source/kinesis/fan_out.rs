//! Records by subscribing: enhanced fan-out, `SubscribeToShard`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::config::{Builder, StalledStreamProtectionConfig};
use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::primitives::event_stream::EventReceiver;
use aws_sdk_kinesis::types::error::SubscribeToShardEventStreamError;
use aws_sdk_kinesis::types::{
    ConsumerStatus, ShardIteratorType, StartingPosition, SubscribeToShardEvent, SubscribeToShardEventStream,
};
use tokio::sync::OnceCell;

use super::cursor::{Answer, Place, Tip};
use super::fault::{Fault, fault, judge};
use super::polling::{RECORD_OVERHEAD, raws};
use super::reader::Feed;
use super::shards::Shards;
use super::stream::{Stream, date_time};
use crate::ops::memory::MemoryBudget;
use crate::source::{SequenceNumber, ShardId};

/// For how long a subscription may be silent. The service sends an event every few seconds, records or not.
const SILENCE: Duration = Duration::from_secs(30);
/// How many bytes of events make a page.
const PAGE_BYTES: u64 = 1 << 20;
/// How often a shard that is listed as ended must have had nothing more before that is believed.
const SILENT_ENDS: u32 = 3;
/// How often a consumer that is being registered is looked at, and for how long.
const REGISTERING: Duration = Duration::from_secs(1);
const LOOKS: u32 = 60;

/// A registered consumer of a stream; registered when it is first needed.
pub(super) struct Consumer {
    stream: Arc<Stream>,
    name: String,
    arn: OnceCell<String>,
}

impl Consumer {
    pub(super) fn new(stream: Arc<Stream>, name: String) -> Self {
        Self { stream, name, arn: OnceCell::new() }
    }

    /// The consumer's ARN.
    pub(super) async fn arn(&self) -> Result<&str, Fault> {
        self.arn.get_or_try_init(|| self.register()).await.map(String::as_str)
    }

    /// Registers the consumer if it is missing, and waits until it may subscribe.
    async fn register(&self) -> Result<String, Fault> {
        for _ in 0..LOOKS {
            let client = &self.stream.client;
            let look = client.describe_stream_consumer().stream_arn(&self.stream.arn).consumer_name(&self.name);
            match look.send().await.map_err(|error| fault("DescribeStreamConsumer", &error)) {
                Ok(answer) => {
                    let is = answer.consumer_description;
                    if let Some(is) = is.filter(|is| is.consumer_status == ConsumerStatus::Active) {
                        return Ok(is.consumer_arn);
                    }
                }
                Err(Fault::Missing(_)) => {
                    tracing::info!(stream = self.stream.arn, consumer = self.name, "registering the consumer");
                    let made = client.register_stream_consumer().stream_arn(&self.stream.arn);
                    let made = made.consumer_name(&self.name).send().await;
                    match made.map(drop).map_err(|error| fault("RegisterStreamConsumer", &error)) {
                        // Another worker was faster.
                        Ok(()) | Err(Fault::InUse(_)) => {}
                        Err(fault) => return Err(fault),
                    }
                }
                Err(fault) => return Err(fault),
            }
            self.stream.clock.sleep(REGISTERING).await;
        }
        Err(Fault::Passing(format!("the consumer {} is still not active", self.name)))
    }
}

type Receiver = EventReceiver<SubscribeToShardEventStream, SubscribeToShardEventStreamError>;

/// One shard, subscribed to.
pub(super) struct FanOut {
    stream: Arc<Stream>,
    shards: Arc<Shards>,
    consumer: Arc<Consumer>,
    shard: ShardId,
    pages: Arc<MemoryBudget>,
    subscription: Option<Receiver>,
    /// Where to subscribe again; it may be behind the last record that came.
    continuation: Option<SequenceNumber>,
    /// How often in a row nothing came of a shard that is listed as ended.
    silent_ends: u32,
}

impl FanOut {
    pub(super) fn new(
        stream: Arc<Stream>,
        shards: Arc<Shards>,
        consumer: Arc<Consumer>,
        shard: ShardId,
        pages: Arc<MemoryBudget>,
    ) -> Self {
        Self { stream, shards, consumer, shard, pages, subscription: None, continuation: None, silent_ends: 0 }
    }

    async fn subscribe(&mut self, place: &Place) -> Result<Receiver, Fault> {
        let consumer = self.consumer.arn().await?;
        let position = StartingPosition::builder();
        let position = match (&self.continuation, place) {
            (Some(sequence), _) | (None, Place::After(sequence)) => {
                position.r#type(ShardIteratorType::AfterSequenceNumber).sequence_number(sequence.as_str())
            }
            (None, Place::TrimHorizon) => position.r#type(ShardIteratorType::TrimHorizon),
            (None, Place::Since(time)) => position.r#type(ShardIteratorType::AtTimestamp).timestamp(date_time(*time)),
            (None, Place::At(sequence)) => {
                position.r#type(ShardIteratorType::AtSequenceNumber).sequence_number(sequence.as_str())
            }
        };
        let position = position.build().map_err(|error| Fault::Stopped(format!("SubscribeToShard: {error}")))?;
        let call = self.stream.client.subscribe_to_shard().consumer_arn(consumer).shard_id(self.shard.as_str());
        // An idle shard's subscription is slow, not stalled; its silence is watched here.
        let patient = Builder::new().stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        let answer = call.starting_position(position).customize().config_override(patient).send().await;
        Ok(answer.map_err(|error| fault("SubscribeToShard", &error))?.event_stream)
    }

    /// The next event of the subscription; none when it is over.
    async fn wait(&mut self) -> Result<Option<SubscribeToShardEvent>, Fault> {
        let Some(subscription) = &mut self.subscription else { return Ok(None) };
        let silence = self.stream.clock.sleep(SILENCE);
        tokio::select! {
            biased;
            event = event(subscription) => event,
            () = silence => Err(Fault::Passing("SubscribeToShard: the subscription is silent".into())),
        }
    }

    /// An event that is here already.
    async fn try_next(&mut self) -> Result<Option<SubscribeToShardEvent>, Fault> {
        let Some(subscription) = &mut self.subscription else { return Ok(None) };
        tokio::select! {
            biased;
            event = event(subscription) => {
                let event = event?;
                if event.is_none() {
                    self.subscription = None;
                }
                Ok(event)
            }
            // Dropping the call loses nothing: it waits only for more bytes, and before it has taken any.
            () = std::future::ready(()) => Ok(None),
        }
    }

    /// Whether a shard has ended though its subscription does not say so: it was listed as ended before it was asked,
    /// and had nothing more, again and again.
    fn ends_silently(&mut self, was_listed_as_ended: bool, had_nothing: bool) -> bool {
        self.silent_ends = if was_listed_as_ended && had_nothing { self.silent_ends + 1 } else { 0 };
        self.silent_ends > SILENT_ENDS
    }

    fn note(&mut self, event: &SubscribeToShardEvent) -> bool {
        if !event.continuation_sequence_number.is_empty() {
            self.continuation = Some(SequenceNumber::new(&event.continuation_sequence_number));
        }
        let children = event.child_shards();
        if !children.is_empty() {
            self.shards.announce(children);
        }
        !children.is_empty()
    }
}

/// The next event that holds anything.
async fn event(subscription: &mut Receiver) -> Result<Option<SubscribeToShardEvent>, Fault> {
    loop {
        let received = subscription.recv().await.map_err(|error| {
            let service = error.as_service_error();
            let code = service.and_then(code_of);
            let words = service.and_then(ProvideErrorMetadata::message).map_or_else(|| error.to_string(), Into::into);
            // What breaks a subscription without the service saying why is the network.
            let passes = service.is_none() || code.is_none_or(|code| code.starts_with("Internal"));
            judge("SubscribeToShard", code, &format!("{}: {words}", code.unwrap_or("the connection broke")), passes)
        })?;
        match received {
            Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)) => return Ok(Some(event)),
            Some(_) => {}
            None => return Ok(None),
        }
    }
}

/// The error's name: from its kind where the service has put it nowhere else.
fn code_of(error: &SubscribeToShardEventStreamError) -> Option<&str> {
    use SubscribeToShardEventStreamError as E;
    let code = match error {
        E::ResourceNotFoundException(_) => "ResourceNotFoundException",
        E::ResourceInUseException(_) => "ResourceInUseException",
        E::KmsDisabledException(_) => "KMSDisabledException",
        E::KmsInvalidStateException(_) => "KMSInvalidStateException",
        E::KmsAccessDeniedException(_) => "KMSAccessDeniedException",
        E::KmsNotFoundException(_) => "KMSNotFoundException",
        E::KmsOptInRequired(_) => "KMSOptInRequired",
        E::KmsThrottlingException(_) => "KMSThrottlingException",
        E::InternalFailureException(_) => "InternalFailureException",
        other => return other.code(),
    };
    Some(code)
}

#[async_trait]
impl Feed for FanOut {
    async fn fetch(&mut self, place: &Place) -> Result<Answer, Fault> {
        let was_listed_as_ended = self.shards.is_known_to_have_ended(&self.shard);
        let first = loop {
            if self.subscription.is_none() {
                self.subscription = match self.subscribe(place).await {
                    // The place itself may still do.
                    Err(Fault::Invalid(_)) if self.continuation.take().is_some() => continue,
                    subscribed => Some(subscribed?),
                };
            }
            match self.wait().await {
                Ok(Some(event)) => break event,
                // The five minutes of a subscription are over.
                Ok(None) => self.subscription = None,
                Err(fault) => {
                    self.subscription = None;
                    return Err(fault);
                }
            }
        };
        let mut ended = self.note(&first);
        let mut behind = first.millis_behind_latest;
        let mut records = raws(first.records);
        let mut asked = self.stream.clock.now();
        let mut drained = false;
        while !ended && !drained && weight(&records) < PAGE_BYTES {
            // From here on nothing waits to be taken: what had been sent is here.
            asked = self.stream.clock.now();
            match self.try_next().await {
                Ok(Some(event)) => {
                    ended = self.note(&event);
                    behind = event.millis_behind_latest;
                    records.extend(raws(event.records));
                }
                Ok(None) => drained = true,
                Err(fault) => {
                    tracing::debug!(shard = %self.shard, ?fault, "the subscription broke; what came before it counts");
                    self.subscription = None;
                    break;
                }
            }
        }
        // Events are here before their size is known: they are let in one by one, and none is taken while they wait.
        let held = self.pages.reserve(weight(&records)).await;
        let behind = u64::try_from(behind).ok().map(Duration::from_millis);
        let tip = if drained && behind == Some(Duration::ZERO) { Tip::Reached } else { Tip::Behind };
        let ended = ended || self.ends_silently(was_listed_as_ended, tip == Tip::Reached && records.is_empty());
        Ok(Answer { records, behind, tip, ended, asked, held: Some(held) })
    }

    fn forget(&mut self) {
        self.subscription = None;
        self.continuation = None;
    }
}

fn weight(records: &[super::cursor::Raw]) -> u64 {
    records.iter().map(|record| record.data.len() as u64 + RECORD_OVERHEAD).sum()
}
