//! The contract of `Source`, kept by Kinesis in both ways of reading it; and what only Kinesis can do.

mod aggregates;
mod faults;
mod gaps;
mod shards;
mod subscriptions;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use auditlake::ops::clock::{Clock, SystemClock};
use auditlake::ops::memory::MemoryBudget;
use auditlake::source::kinesis::{KinesisOptions, KinesisSource};
use auditlake::source::{Checkpoint, Page, Reading, ShardId, ShardReader, Source, SourceError, Until};
use auditlake_test_servers::aws::{self, Put};
use auditlake_test_servers::{FaultProxy, kinesis};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use jiff::Timestamp;

use crate::source::{Fixture, keeps_the_contract, payloads, rest};

/// A clock on which an hour is over in a minute and a bit, for those who wait; the time of day is the real one.
struct Hasty(SystemClock);

const HASTE: u32 = 50;
const LIST_SHARDS: Duration = Duration::from_mins(10);

#[async_trait]
impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() * HASTE
    }

    async fn sleep(&self, duration: Duration) {
        self.0.sleep(duration / HASTE).await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Polling,
    FanOut,
}

const WAYS: [Way; 2] = [Way::Polling, Way::FanOut];

/// A stream of a test's own, the source that reads it, and faults between the two.
struct Stream {
    way: Way,
    name: String,
    /// Straight to the server.
    client: Client,
    proxy: FaultProxy,
    source: KinesisSource,
    pages: Arc<MemoryBudget>,
}

/// The reader's own client: it tries again by itself.
fn reading_client(url: &str) -> Client {
    let config =
        aws::kinesis_client(url).config().to_builder().retry_config(RetryConfig::standard().with_max_attempts(1));
    Client::from_conf(config.build())
}

impl Stream {
    async fn new(way: Way, shards: i32) -> Self {
        Self::with(way, shards, Arc::new(SystemClock::start()), LIST_SHARDS).await
    }

    async fn hasty(way: Way, shards: i32) -> Self {
        Self::with(way, shards, Arc::new(Hasty(SystemClock::start())), LIST_SHARDS).await
    }

    /// For a test that opens several readers of one shard: a subscription needs real seconds to be free again.
    async fn reopened(way: Way) -> Self {
        match way {
            Way::Polling => Self::hasty(way, 1).await,
            Way::FanOut => Self::new(way, 1).await,
        }
    }

    async fn with(way: Way, shards: i32, clock: Arc<dyn Clock>, list_shards: Duration) -> Self {
        let server = kinesis().await;
        let client = aws::kinesis_client(&server.url);
        let name = aws::unique_name("contract");
        aws::create_stream(&client, &name, shards).await;
        let proxy = FaultProxy::start(&server.url).await;
        let pages = MemoryBudget::new(64 << 20);
        let source = open(&proxy, options(&name, way, list_shards), clock, pages.clone()).await.unwrap();
        Self { way, name, client, proxy, source, pages }
    }

    async fn put(&self, payloads: &[impl AsRef<[u8]>]) {
        self.put_to(&first_shard(), payloads).await;
    }

    async fn put_to(&self, shard: &ShardId, payloads: &[impl AsRef<[u8]>]) {
        let shards = aws::shards(&self.client, &self.name).await;
        let shard = shards.iter().find(|known| known.shard_id() == shard.as_str()).unwrap();
        let puts: Vec<Put> = payloads.iter().map(|payload| Put::to_shard(shard, payload.as_ref())).collect();
        aws::put_records(&self.client, &self.name, &puts).await;
    }

    async fn delete(&self) {
        let delete = self.client.delete_stream().stream_name(&self.name).enforce_consumer_deletion(true);
        delete.send().await.unwrap();
        while self.client.describe_stream_summary().stream_name(&self.name).send().await.is_ok() {
            rest(Duration::from_millis(50)).await;
        }
    }

    async fn make_anew(&self) {
        self.delete().await;
        // A stream's creation is told to the second by some.
        rest(Duration::from_secs(1)).await;
        aws::create_stream(&self.client, &self.name, 1).await;
    }

    async fn read(&self, after: Checkpoint, until: Until) -> Box<dyn ShardReader> {
        let reading = Reading { after, read_through: None, until, arrival: None };
        self.source.open(&first_shard(), reading).await.unwrap()
    }

    async fn follow(&self, after: Checkpoint) -> Box<dyn ShardReader> {
        self.read(after, Until::Forever).await
    }
}

fn options(stream: &str, way: Way, list_shards: Duration) -> KinesisOptions {
    let consumer = (way == Way::FanOut).then(|| "auditlake".to_owned());
    KinesisOptions { stream: stream.into(), consumer, list_shards }
}

async fn open(
    proxy: &FaultProxy,
    options: KinesisOptions,
    clock: Arc<dyn Clock>,
    pages: Arc<MemoryBudget>,
) -> Result<KinesisSource, SourceError> {
    KinesisSource::open(reading_client(proxy.url()), options, clock, pages).await
}

fn first_shard() -> ShardId {
    ShardId::new("shardId-000000000000")
}

/// The next page that has payloads, a gap or an end.
async fn next_of_note(reader: &mut dyn ShardReader) -> Page {
    use auditlake::source::Next::{Reached, ShardEnd};
    loop {
        let page = reader.next().await.unwrap();
        if !page.payloads.is_empty() || page.gap.is_some() || matches!(page.next, Reached | ShardEnd) {
            return page;
        }
    }
}

/// The error that a reader ends with, whatever it brings before.
async fn failure(source: &KinesisSource, reading: Reading) -> SourceError {
    let mut reader = match source.open(&first_shard(), reading).await {
        Ok(reader) => reader,
        Err(error) => return error,
    };
    for _ in 0..50 {
        if let Err(error) = reader.next().await {
            return error;
        }
    }
    panic!("it goes on");
}

fn from_the_start() -> Reading {
    Reading { after: Checkpoint::TrimHorizon, read_through: None, until: Until::Forever, arrival: None }
}

#[async_trait]
impl Fixture for Stream {
    fn source(&self) -> &dyn Source {
        &self.source
    }

    fn shard(&self) -> ShardId {
        first_shard()
    }

    async fn append(&self, shard: &ShardId, payloads: &[String]) {
        self.put_to(shard, payloads).await;
    }

    async fn replace(&mut self, _: &ShardId, payloads: &[String]) {
        self.make_anew().await;
        self.put(payloads).await;
    }

    async fn more_shards(&self) -> Vec<ShardId> {
        let children = aws::split_shard(&self.client, &self.name, first_shard().as_str()).await;
        let mut expected = vec![first_shard()];
        expected.extend(children.iter().map(ShardId::new));
        expected
    }

    async fn end(&self, shard: &ShardId) -> bool {
        if self.way == Way::FanOut {
            // THE SERVER DOES NOT TELL SUBSCRIBERS THAT A SHARD HAS ENDED, as the service does. `subscriptions.rs` has
            // the service's events.
            return false;
        }
        aws::split_shard(&self.client, &self.name, shard.as_str()).await;
        true
    }

    // No server forgets before its retention is over. `gaps.rs` has answers that are as if it had.
    async fn trim(&self, _: &ShardId, _: usize) -> bool {
        false
    }

    fn imports(&self) -> bool {
        true
    }

    fn has_times(&self) -> bool {
        true
    }

    fn has_exact_targets(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn polling_keeps_the_contract() {
    keeps_the_contract(async || Stream::new(Way::Polling, 1).await).await;
}

#[tokio::test]
async fn fan_out_keeps_the_contract() {
    keeps_the_contract(async || Stream::new(Way::FanOut, 1).await).await;
}

#[tokio::test]
async fn pages_hold_what_they_weigh_until_they_are_dropped() {
    for way in WAYS {
        let stream = Stream::new(way, 1).await;
        stream.put(&payloads(0..100)).await;
        let mut reader = stream.follow(Checkpoint::TrimHorizon).await;
        let page = next_of_note(reader.as_mut()).await;
        let bytes: usize = page.payloads.iter().map(|payload| payload.data.len()).sum();
        assert_eq!(page.bytes, bytes as u64);
        assert!(stream.pages.held() >= page.bytes, "{way:?}");
        drop(page);
        drop(reader);
        while stream.pages.held() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_reader_waits_while_others_hold_all_memory() {
    for way in WAYS {
        let stream = Stream::new(way, 1).await;
        stream.put(&payloads(0..3)).await;
        let all = stream.pages.reserve(64 << 20).await;
        let mut reader = stream.follow(Checkpoint::TrimHorizon).await;
        let waits = async {
            while stream.pages.waiting() == 0 {
                rest(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            _ = next_of_note(reader.as_mut()) => panic!("{way:?}: it did not wait"),
            () = waits => {}
        }
        if way == Way::Polling {
            assert_eq!(stream.proxy.count("GetRecords"), 0, "memory comes before the call");
        }
        drop(all);
        assert_eq!(next_of_note(reader.as_mut()).await.payloads.len(), 3);
    }
}

#[tokio::test]
async fn a_page_that_is_caught_up_is_known_to_be_read_up_to_the_call() {
    for way in WAYS {
        let stream = Stream::new(way, 1).await;
        stream.put(&payloads(0..3)).await;
        let mut reader = stream.follow(Checkpoint::TrimHorizon).await;
        let page = next_of_note(reader.as_mut()).await;
        assert!(page.read_through >= page.payloads[2].arrival, "{way:?}");
        let before = SystemClock::start().now();
        let page = reader.next().await.unwrap();
        assert_eq!(page.behind, Some(Duration::ZERO));
        assert!(page.read_through >= before - Duration::from_secs(2), "{way:?}");
    }
}
