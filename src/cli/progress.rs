//! Progress on a terminal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use indicatif::{ProgressBar, ProgressStyle};

use crate::ops::clock::Clock;
use crate::ops::telemetry;
use crate::ops::words::{counted, thousands};
use crate::source::{Next, Page, Reading, Shard, ShardId, ShardReader, Source, SourceError};
use crate::worker::Totals;

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(200);

/// A bar on stderr for as long as it lives, where stderr is a terminal; nothing elsewhere.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// An empty bar that is full at `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        Self::with(bytes, "{bar:28} {percent:>3}%  {binary_bytes} of {binary_total_bytes}  {msg}  {eta} left")
    }

    /// An empty bar that is full when so many shards are read, for a source that does not know how much they hold.
    pub(super) fn of_shards(shards: u64) -> Self {
        let template = format!("{{bar:28}} {{pos}} of {} read  {{msg}}", counted(shards, "shard"));
        Self::with(shards, &template)
    }

    fn with(length: u64, template: &str) -> Self {
        let bar = ProgressBar::new(length);
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        telemetry::set_bar(Some(bar.clone()));
        Self(bar)
    }

    /// Draws it full to `position` of `of`.
    pub(super) fn show(&self, position: u64, of: u64, message: String) {
        self.0.set_length(of);
        self.0.set_position(position);
        self.0.set_message(message);
    }

    /// Draws how far a worker has come, for as long as it is polled: `read`, or else the bytes of its totals, of `of`.
    pub(super) async fn follow(&self, totals: Arc<Totals>, read: Option<Arc<AtomicU64>>, of: u64, clock: &dyn Clock) {
        let started = clock.monotonic();
        loop {
            clock.sleep(TICK).await;
            let records = totals.records_read.load(Ordering::Relaxed);
            let milliseconds = clock.monotonic().saturating_sub(started).as_millis().max(1) as u64;
            let pace = thousands(records.saturating_mul(1000) / milliseconds);
            let message = match &read {
                Some(_) => format!("{}  {pace} records/s", counted(records, "record")),
                None => format!("{pace} records/s"),
            };
            let position = read.as_deref().unwrap_or(&totals.bytes_read).load(Ordering::Relaxed);
            self.show(position, of, message);
        }
    }
}

/// A source that counts the shards which have been read to where they were to be read to.
pub(super) struct Counted {
    source: Arc<dyn Source>,
    read: Arc<AtomicU64>,
}

impl Counted {
    /// Counts those of `source`.
    pub(super) fn new(source: Arc<dyn Source>) -> Self {
        Self { source, read: Arc::default() }
    }

    /// How many shards have been read.
    pub(super) fn read(&self) -> Arc<AtomicU64> {
        self.read.clone()
    }
}

#[async_trait]
impl Source for Counted {
    fn origin(&self) -> Option<&str> {
        self.source.origin()
    }

    fn shards_just_go(&self) -> bool {
        self.source.shards_just_go()
    }

    async fn shards(&self) -> Result<Vec<Shard>, SourceError> {
        self.source.shards().await
    }

    async fn has(&self, shard: &ShardId) -> Result<bool, SourceError> {
        self.source.has(shard).await
    }

    async fn open(&self, shard: &ShardId, reading: Reading) -> Result<Box<dyn ShardReader>, SourceError> {
        // A batch that is read again is a part of its shard.
        let counts = matches!(reading.until, crate::source::Until::Target(_));
        let reader = self.source.open(shard, reading).await?;
        Ok(if counts { Box::new(CountedReader { reader, read: self.read.clone() }) } else { reader })
    }
}

struct CountedReader {
    reader: Box<dyn ShardReader>,
    read: Arc<AtomicU64>,
}

#[async_trait]
impl ShardReader for CountedReader {
    async fn next(&mut self) -> Result<Page, SourceError> {
        let page = self.reader.next().await?;
        if matches!(page.next, Next::Reached | Next::ShardEnd) {
            self.read.fetch_add(1, Ordering::Relaxed);
        }
        Ok(page)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        telemetry::set_bar(None);
        self.0.finish_and_clear();
    }
}
