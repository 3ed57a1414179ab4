//! The contract of [`Source`]: what a reader of a shard may rely on.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use auditlake::ops::clock::SystemClock;
use auditlake::source::file::{FileOptions, FileSource};
use auditlake::source::memory::MemorySource;
use auditlake::source::{
    Checkpoint, Next, Payload, Position, Reading, ShardId, ShardReader, Source, SourceError, Target, Until,
};

/// A source and the way to fill it.
trait Fixture {
    fn source(&self) -> &dyn Source;
    /// Appends payloads to a shard, making it where it is missing.
    fn append(&self, shard: &ShardId, payloads: &[String]);
    /// Makes the shard as if all of its payloads had been others.
    fn replace(&mut self, shard: &ShardId, payloads: &[String]);
}

struct Files {
    directory: tempfile::TempDir,
    source: FileSource,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = FileOptions {
            path: directory.path().into(),
            window: Duration::from_mins(30),
            settle: Duration::ZERO,
            max_payload_bytes: 1 << 20,
        };
        Self { source: FileSource::new(options, Arc::new(SystemClock::start())), directory }
    }

    fn path(&self, shard: &ShardId) -> PathBuf {
        self.directory.path().join(shard.as_str())
    }
}

impl Fixture for Files {
    fn source(&self) -> &dyn Source {
        &self.source
    }

    fn append(&self, shard: &ShardId, payloads: &[String]) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.path(shard)).unwrap();
        file.write_all((payloads.join("\n") + "\n").as_bytes()).unwrap();
    }

    fn replace(&mut self, shard: &ShardId, payloads: &[String]) {
        fs::write(self.path(shard), payloads.join("\n") + "\n").unwrap();
    }
}

struct Memory(MemorySource);

impl Fixture for Memory {
    fn source(&self) -> &dyn Source {
        &self.0
    }

    fn append(&self, shard: &ShardId, payloads: &[String]) {
        for payload in payloads {
            self.0.append(shard, payload.clone(), "2026-11-21T09:31:00Z".parse().unwrap());
        }
    }

    fn replace(&mut self, shard: &ShardId, payloads: &[String]) {
        self.0 = MemorySource::new();
        self.append(shard, payloads);
    }
}

fn payloads(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("{{\"log_id\":\"{number}\"}}")).collect()
}

fn shard() -> ShardId {
    ShardId::new("shard-1")
}

async fn open(fixture: &dyn Fixture, after: Checkpoint, until: Until) -> Result<Box<dyn ShardReader>, SourceError> {
    fixture.source().open(&shard(), Reading { after, read_through: None, until, arrival: None }).await
}

/// Reads until there is no more at once.
async fn drain(reader: &mut dyn ShardReader) -> Result<(Vec<Payload>, Next), SourceError> {
    let mut payloads = Vec::new();
    loop {
        let page = reader.next().await?;
        assert_eq!(page.gap, None);
        payloads.extend(page.payloads);
        if page.next != Next::More {
            return Ok((payloads, page.next));
        }
    }
}

async fn target(fixture: &dyn Fixture) -> Target {
    let shards = fixture.source().shards().await.unwrap();
    shards.into_iter().find(|listed| listed.id == shard()).unwrap().end
}

async fn read_all(fixture: &dyn Fixture, after: Checkpoint) -> Vec<Payload> {
    let mut reader = open(fixture, after, Until::Target(target(fixture).await)).await.unwrap();
    let (payloads, next) = drain(reader.as_mut()).await.unwrap();
    assert_eq!(next, Next::Reached);
    payloads
}

fn texts(payloads: &[Payload]) -> Vec<String> {
    payloads.iter().map(|payload| String::from_utf8(payload.data.to_vec()).unwrap()).collect()
}

async fn keeps_the_contract(new: impl Fn() -> Box<dyn Fixture>) {
    payloads_come_once_in_order_with_growing_positions(new().as_ref()).await;
    a_reader_resumes_behind_any_checkpoint(new().as_ref()).await;
    a_target_leaves_out_what_came_later(new().as_ref()).await;
    a_range_is_read_again_exactly(new().as_ref()).await;
    a_follower_waits_and_goes_on(new().as_ref()).await;
    a_cancelled_call_loses_nothing(new().as_ref()).await;
    another_payload_at_the_checkpoint_is_found_out(new().as_mut()).await;
    a_shard_that_is_not_there_is_an_error(new().as_ref()).await;
    shards_are_listed_in_order(new().as_ref()).await;
}

async fn payloads_come_once_in_order_with_growing_positions(fixture: &dyn Fixture) {
    fixture.append(&shard(), &payloads(0..1234));
    let read = read_all(fixture, Checkpoint::TrimHorizon).await;
    assert_eq!(texts(&read), payloads(0..1234));
    assert!(read.windows(2).all(|pair| pair[0].position < pair[1].position));
}

async fn a_reader_resumes_behind_any_checkpoint(fixture: &dyn Fixture) {
    fixture.append(&shard(), &payloads(0..250));
    let all = read_all(fixture, Checkpoint::TrimHorizon).await;
    for index in [0, 1, 99, 100, 101, 248, 249] {
        let rest = read_all(fixture, all[index].checkpoint()).await;
        assert_eq!(texts(&rest), texts(&all[index + 1..]), "after {index}");
        let positions = |payloads: &[Payload]| -> Vec<Position> {
            payloads.iter().map(|payload| payload.position.clone()).collect()
        };
        assert_eq!(positions(&rest), positions(&all[index + 1..]));
    }
}

async fn a_target_leaves_out_what_came_later(fixture: &dyn Fixture) {
    fixture.append(&shard(), &payloads(0..10));
    let target = target(fixture).await;
    fixture.append(&shard(), &payloads(10..300));
    let mut reader = open(fixture, Checkpoint::TrimHorizon, Until::Target(target)).await.unwrap();
    let (read, next) = drain(reader.as_mut()).await.unwrap();
    assert_eq!((texts(&read), next), (payloads(0..10), Next::Reached));
}

async fn a_range_is_read_again_exactly(fixture: &dyn Fixture) {
    fixture.append(&shard(), &payloads(0..300));
    let all = read_all(fixture, Checkpoint::TrimHorizon).await;
    fixture.append(&shard(), &payloads(300..310));
    let arrival = all[0].arrival;
    let reading = Reading {
        after: all[50].checkpoint(),
        until: Until::Through(all[250].checkpoint()),
        read_through: None,
        arrival: Some(arrival),
    };
    let mut reader = fixture.source().open(&shard(), reading).await.unwrap();
    let (read, next) = drain(reader.as_mut()).await.unwrap();
    assert_eq!((texts(&read), next), (texts(&all[51..=250]), Next::Reached));
    assert!(read.iter().all(|payload| payload.arrival == arrival));
}

async fn a_follower_waits_and_goes_on(fixture: &dyn Fixture) {
    fixture.append(&shard(), &payloads(0..3));
    let mut reader = open(fixture, Checkpoint::TrimHorizon, Until::Forever).await.unwrap();
    assert_eq!(texts(&drain(reader.as_mut()).await.unwrap().0), payloads(0..3));
    let (none, next) = drain(reader.as_mut()).await.unwrap();
    assert_eq!((none.len(), next), (0, Next::CaughtUp));
    fixture.append(&shard(), &payloads(3..5));
    assert_eq!(texts(&drain(reader.as_mut()).await.unwrap().0), payloads(3..5));
}

async fn a_cancelled_call_loses_nothing(fixture: &dyn Fixture) {
    fixture.append(&shard(), &payloads(0..1000));
    let mut reader = open(fixture, Checkpoint::TrimHorizon, Until::Target(target(fixture).await)).await.unwrap();
    let mut read = Vec::new();
    loop {
        // Polled once and dropped, as a `select!` does.
        let page = tokio::select! {
            biased;
            page = reader.next() => page.unwrap(),
            () = std::future::ready(()) => continue,
        };
        read.extend(page.payloads);
        if page.next != Next::More {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(texts(&read), payloads(0..1000));
}

async fn another_payload_at_the_checkpoint_is_found_out(fixture: &mut dyn Fixture) {
    fixture.append(&shard(), &payloads(0..5));
    let checkpoint = read_all(fixture, Checkpoint::TrimHorizon).await[3].checkpoint();
    let mut others = payloads(0..5);
    others[3] = others[3].replace('3', "x");
    fixture.replace(&shard(), &others);
    let error = match open(fixture, checkpoint, Until::Forever).await {
        Ok(mut reader) => drain(reader.as_mut()).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(&error, SourceError::Stopped { .. }) && error.to_string().starts_with("shard-1: "), "{error}");
}

async fn a_shard_that_is_not_there_is_an_error(fixture: &dyn Fixture) {
    let opened = open(fixture, Checkpoint::TrimHorizon, Until::Forever).await;
    assert!(matches!(opened.map(drop), Err(SourceError::Stopped { .. })));
}

async fn shards_are_listed_in_order(fixture: &dyn Fixture) {
    for name in ["c", "a", "b"] {
        fixture.append(&ShardId::new(name), &payloads(0..1));
    }
    let listed = fixture.source().shards().await.unwrap();
    assert_eq!(listed.iter().map(|shard| shard.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[tokio::test]
async fn files_keep_the_contract() {
    keeps_the_contract(|| Box::new(Files::new())).await;
}

#[tokio::test]
async fn the_twin_keeps_the_contract() {
    keeps_the_contract(|| Box::new(Memory(MemorySource::new()))).await;
}
