//! Amazon Kinesis as a source: a shard of the stream is a shard, a position in it a sequence number and the place within
//! an aggregate of the Kinesis Producer Library.
//!
//! | file | what |
//! |---|---|
//! | `stream.rs` | which stream it is, and whether it still is that one |
//! | `shards.rs` | its shards, with their parents |
//! | `polling.rs`, `fan_out.rs` | the two ways by which records come |
//! | `pace.rs`, `outage.rs` | how often a shard is asked, and what happens when it does not answer (pure) |
//! | `cursor.rs`, `resume.rs`, `aggregate.rs` | from what it answers to pages (pure) |
//! | `reader.rs` | the loop that puts these together |
//! | `fault.rs` | what an error means |

mod aggregate;
mod cursor;
mod fan_out;
mod fault;
mod outage;
mod pace;
mod polling;
mod reader;
mod resume;
mod shards;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use tokio_util::sync::CancellationToken;

use super::{Reading, Shard, ShardId, ShardReader, Source, SourceError};
use crate::ops::clock::Clock;
use crate::ops::memory::MemoryBudget;
use crate::ops::retry::{RetryPolicy, retry};
use fan_out::{Consumer, FanOut};
use polling::Polling;
use reader::{Feed, ShardCursor};
use shards::Shards;
use stream::{CHECK_AGE, Stream};

/// For how long a stream is looked for that can't be looked up at the moment.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a stream is read.
#[derive(Clone, Debug)]
pub struct KinesisOptions {
    /// The stream's name or ARN.
    pub stream: String,
    /// The registered consumer to read as, with enhanced fan-out; none to ask for records.
    pub consumer: Option<String>,
    /// How often the stream is asked for its shards, beside those that a shard's end makes known.
    pub list_shards: Duration,
}

/// A stream of Amazon Kinesis.
pub struct KinesisSource {
    stream: Arc<Stream>,
    shards: Arc<Shards>,
    consumer: Option<Arc<Consumer>>,
    pages: Arc<MemoryBudget>,
}

impl KinesisSource {
    /// Looks the stream up. `pages` bounds what all of its readers hold together.
    pub async fn open(
        client: Client,
        options: KinesisOptions,
        clock: Arc<dyn Clock>,
        pages: Arc<MemoryBudget>,
    ) -> Result<Self, SourceError> {
        let name = ShardId::new(&options.stream);
        let find = || async {
            Stream::find(client.clone(), &options.stream, clock.clone()).await.map_err(|fault| fault.at(&name))
        };
        let policy = RetryPolicy { give_up_after: Some(PATIENCE) };
        let may_pass = |error: &SourceError| matches!(error, SourceError::Unavailable { .. });
        let stream = Arc::new(retry(policy, clock.as_ref(), &CancellationToken::new(), may_pass, find).await?);
        let shards = Arc::new(Shards::new(stream.clone(), options.list_shards));
        let consumer = options.consumer.map(|name| Arc::new(Consumer::new(stream.clone(), name)));
        Ok(Self { stream, shards, consumer, pages })
    }

    fn name(&self) -> ShardId {
        ShardId::new(&self.stream.arn)
    }
}

#[async_trait]
impl Source for KinesisSource {
    fn origin(&self) -> Option<&str> {
        Some(&self.stream.origin)
    }

    fn retention(&self) -> Option<Duration> {
        Some(self.stream.retention())
    }

    async fn shards(&self) -> Result<Vec<Shard>, SourceError> {
        self.shards.all().await.map_err(|fault| fault.at(&self.name()))
    }

    async fn open(&self, shard: &ShardId, reading: Reading) -> Result<Box<dyn ShardReader>, SourceError> {
        self.stream.check(CHECK_AGE).await.map_err(|fault| fault.at(shard))?;
        if !self.shards.has(shard).await.map_err(|fault| fault.at(shard))? {
            let reason = format!("the stream {} has no such shard", self.stream.arn);
            return Err(SourceError::Stopped { shard: shard.clone(), reason });
        }
        let (stream, shards, pages) = (self.stream.clone(), self.shards.clone(), self.pages.clone());
        let feed: Box<dyn Feed> = match &self.consumer {
            Some(consumer) => Box::new(FanOut::new(stream, shards, consumer.clone(), shard.clone(), pages)),
            None => Box::new(Polling::new(stream, shards, shard.clone(), pages)),
        };
        Ok(Box::new(ShardCursor::new(self.stream.clone(), shard.clone(), reading, feed)))
    }
}
