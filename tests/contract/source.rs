//! The contract of [`Source`]: what a reader of a shard may rely on.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use auditlake::ops::clock::{Clock as _, SystemClock};
use auditlake::source::file::{FileOptions, FileSource};
use auditlake::source::memory::MemorySource;
use auditlake::source::{
    Checkpoint, Next, Payload, Position, Reading, ShardId, ShardReader, Source, SourceError, Target, Until,
};
use jiff::Timestamp;

/// A source and the way to fill it.
#[async_trait]
pub(crate) trait Fixture: Send + Sync {
    fn source(&self) -> &dyn Source;
    /// The shard that everything happens in.
    fn shard(&self) -> ShardId {
        ShardId::new("shard-1")
    }
    /// Appends payloads to a shard, making it where it is missing.
    async fn append(&self, shard: &ShardId, payloads: &[String]);
    /// Makes the shard as if all of its payloads had been others.
    async fn replace(&mut self, shard: &ShardId, payloads: &[String]);
    /// Some more shards, in the order in which they are to be listed.
    async fn more_shards(&self) -> Vec<ShardId> {
        for name in ["c", "a", "b"] {
            self.append(&ShardId::new(name), &payloads(0..1)).await;
        }
        ["a", "b", "c"].map(ShardId::new).into()
    }
    /// Ends the shard. `false`: THE SHARDS OF THIS SOURCE NEVER END, so nothing is proved of their ends.
    async fn end(&self, shard: &ShardId) -> bool;
    /// Forgets the oldest payloads of the shard. `false`: THIS FIXTURE CAN'T FORGET, so nothing is proved here of gaps.
    async fn trim(&self, shard: &ShardId, payloads: usize) -> bool;
    /// Whether another program's checkpoint can be taken over. `false`: NOBODY ELSE READS SUCH A SOURCE BY POSITION.
    fn imports(&self) -> bool;
    /// Whether arrival times differ from payload to payload. `false`: NOTHING CAN BE LEFT OUT BY ITS TIME.
    fn has_times(&self) -> bool;
    /// Whether a listing says where a shard ends. `false`: IT CAN ONLY SAY WHEN, and what arrives within a minute of that
    /// may be read too, since clocks differ.
    fn has_exact_targets(&self) -> bool {
        true
    }
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

#[async_trait]
impl Fixture for Files {
    fn source(&self) -> &dyn Source {
        &self.source
    }

    async fn append(&self, shard: &ShardId, payloads: &[String]) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.path(shard)).unwrap();
        file.write_all((payloads.join("\n") + "\n").as_bytes()).unwrap();
    }

    async fn replace(&mut self, shard: &ShardId, payloads: &[String]) {
        fs::write(self.path(shard), payloads.join("\n") + "\n").unwrap();
    }

    async fn end(&self, _: &ShardId) -> bool {
        false
    }

    async fn trim(&self, _: &ShardId, _: usize) -> bool {
        false
    }

    fn imports(&self) -> bool {
        false
    }

    fn has_times(&self) -> bool {
        false
    }
}

/// The twin, and the time at which the next payload arrives.
struct Memory(MemorySource, AtomicI64);

impl Memory {
    fn new() -> Self {
        Self(MemorySource::new(), AtomicI64::new(1_795_254_660))
    }
}

#[async_trait]
impl Fixture for Memory {
    fn source(&self) -> &dyn Source {
        &self.0
    }

    async fn append(&self, shard: &ShardId, payloads: &[String]) {
        for payload in payloads {
            let second = self.1.fetch_add(1, Ordering::Relaxed);
            self.0.append(shard, payload.clone(), Timestamp::from_second(second).unwrap());
        }
    }

    async fn replace(&mut self, shard: &ShardId, payloads: &[String]) {
        self.0 = MemorySource::new();
        self.append(shard, payloads).await;
    }

    async fn end(&self, shard: &ShardId) -> bool {
        self.0.end(shard);
        true
    }

    async fn trim(&self, shard: &ShardId, payloads: usize) -> bool {
        self.0.trim(shard, payloads);
        true
    }

    fn imports(&self) -> bool {
        true
    }

    fn has_times(&self) -> bool {
        true
    }
}

pub(crate) fn payloads(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("{{\"log_id\":\"{number}\"}}")).collect()
}

pub(crate) async fn open(
    fixture: &dyn Fixture,
    after: Checkpoint,
    until: Until,
) -> Result<Box<dyn ShardReader>, SourceError> {
    fixture.source().open(&fixture.shard(), Reading { after, read_through: None, until, arrival: None }).await
}

/// Lets real time pass, for servers that need it.
pub(crate) async fn rest(duration: Duration) {
    SystemClock::start().sleep(duration).await;
}

/// Reads until there is no more at once.
pub(crate) async fn drain(reader: &mut dyn ShardReader) -> Result<(Vec<Payload>, Next), SourceError> {
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

/// Reads until so many payloads have come, asking again where there is nothing yet.
pub(crate) async fn follow(reader: &mut dyn ShardReader, count: usize) -> Vec<Payload> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        let (more, next) = drain(reader).await.unwrap();
        assert_eq!(next, Next::CaughtUp);
        payloads.extend(more);
    }
    payloads
}

async fn target(fixture: &dyn Fixture) -> Target {
    let shards = fixture.source().shards().await.unwrap();
    shards.into_iter().find(|listed| listed.id == fixture.shard()).unwrap().end
}

pub(crate) async fn read_all(fixture: &dyn Fixture, after: Checkpoint) -> Vec<Payload> {
    let mut reader = open(fixture, after, Until::Target(target(fixture).await)).await.unwrap();
    let (payloads, next) = drain(reader.as_mut()).await.unwrap();
    assert_eq!(next, Next::Reached);
    payloads
}

pub(crate) fn texts(payloads: &[Payload]) -> Vec<String> {
    payloads.iter().map(|payload| String::from_utf8(payload.data.to_vec()).unwrap()).collect()
}

pub(crate) async fn keeps_the_contract<F: Fixture>(new: impl AsyncFn() -> F) {
    payloads_come_once_in_order_with_growing_positions(&new().await).await;
    a_reader_resumes_behind_any_checkpoint(&new().await).await;
    a_target_leaves_out_what_came_later(&new().await).await;
    a_range_is_read_again_exactly(&new().await).await;
    a_follower_waits_and_goes_on(&new().await).await;
    a_cancelled_call_loses_nothing(&new().await).await;
    another_payload_at_the_checkpoint_is_found_out(&mut new().await).await;
    a_shard_that_is_not_there_is_an_error(&new().await).await;
    shards_are_listed_in_order(&new().await).await;
    a_shard_ends_behind_its_last_payload(&new().await).await;
    what_was_forgotten_unread_is_a_gap(&new().await).await;
    what_arrived_before_a_time_may_be_left_out_and_nothing_else(&new().await).await;
    another_programs_checkpoint_is_read_on_from(&new().await).await;
}

async fn payloads_come_once_in_order_with_growing_positions(fixture: &dyn Fixture) {
    fixture.append(&fixture.shard(), &payloads(0..1234)).await;
    let read = read_all(fixture, Checkpoint::TrimHorizon).await;
    assert_eq!(texts(&read), payloads(0..1234));
    assert!(read.windows(2).all(|pair| pair[0].position < pair[1].position));
}

async fn a_reader_resumes_behind_any_checkpoint(fixture: &dyn Fixture) {
    fixture.append(&fixture.shard(), &payloads(0..250)).await;
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
    fixture.append(&fixture.shard(), &payloads(0..10)).await;
    let target = target(fixture).await;
    fixture.append(&fixture.shard(), &payloads(10..300)).await;
    let mut reader = open(fixture, Checkpoint::TrimHorizon, Until::Target(target)).await.unwrap();
    let (read, next) = drain(reader.as_mut()).await.unwrap();
    let read = texts(&read);
    assert_eq!((&read[..10], next), (&payloads(0..10)[..], Next::Reached));
    assert!(read.len() == 10 || !fixture.has_exact_targets(), "{}", read.len());
}

async fn a_range_is_read_again_exactly(fixture: &dyn Fixture) {
    fixture.append(&fixture.shard(), &payloads(0..300)).await;
    let all = read_all(fixture, Checkpoint::TrimHorizon).await;
    fixture.append(&fixture.shard(), &payloads(300..310)).await;
    let arrival = all[51].arrival;
    let reading = Reading {
        after: all[50].checkpoint(),
        until: Until::Through(all[250].checkpoint()),
        read_through: None,
        arrival: Some(arrival),
    };
    let mut reader = fixture.source().open(&fixture.shard(), reading).await.unwrap();
    let (read, next) = drain(reader.as_mut()).await.unwrap();
    assert_eq!((texts(&read), next), (texts(&all[51..=250]), Next::Reached));
    let again = |(read, first): (&Payload, &Payload)| read.position == first.position && read.arrival == first.arrival;
    assert!(read.iter().zip(&all[51..]).all(again));
}

async fn a_follower_waits_and_goes_on(fixture: &dyn Fixture) {
    fixture.append(&fixture.shard(), &payloads(0..3)).await;
    let mut reader = open(fixture, Checkpoint::TrimHorizon, Until::Forever).await.unwrap();
    assert_eq!(texts(&follow(reader.as_mut(), 3).await), payloads(0..3));
    let (none, next) = drain(reader.as_mut()).await.unwrap();
    assert_eq!((none.len(), next), (0, Next::CaughtUp));
    fixture.append(&fixture.shard(), &payloads(3..5)).await;
    assert_eq!(texts(&follow(reader.as_mut(), 2).await), payloads(3..5));
}

async fn a_cancelled_call_loses_nothing(fixture: &dyn Fixture) {
    fixture.append(&fixture.shard(), &payloads(0..1000)).await;
    let mut reader = open(fixture, Checkpoint::TrimHorizon, Until::Target(target(fixture).await)).await.unwrap();
    let mut read = Vec::new();
    loop {
        // Polled and dropped, as a `select!` does.
        let page = tokio::select! {
            biased;
            page = reader.next() => page.unwrap(),
            () = tokio::task::yield_now() => continue,
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
    fixture.append(&fixture.shard(), &payloads(0..5)).await;
    let checkpoint = read_all(fixture, Checkpoint::TrimHorizon).await[3].checkpoint();
    let mut others = payloads(0..5);
    others[3] = others[3].replace('3', "x");
    let shard = fixture.shard();
    fixture.replace(&shard, &others).await;
    let error = match open(fixture, checkpoint, Until::Forever).await {
        Ok(mut reader) => drain(reader.as_mut()).await.unwrap_err(),
        Err(error) => error,
    };
    let names_the_shard = error.to_string().starts_with(&format!("{}: ", fixture.shard()));
    assert!(matches!(&error, SourceError::Stopped { .. }) && names_the_shard, "{error}");
}

async fn a_shard_that_is_not_there_is_an_error(fixture: &dyn Fixture) {
    let reading = Reading { after: Checkpoint::TrimHorizon, read_through: None, until: Until::Forever, arrival: None };
    let opened = fixture.source().open(&ShardId::new("shardId-000000004711"), reading).await;
    assert!(matches!(opened.map(drop), Err(SourceError::Stopped { .. })));
}

async fn shards_are_listed_in_order(fixture: &dyn Fixture) {
    let expected = fixture.more_shards().await;
    let listed = fixture.source().shards().await.unwrap();
    assert_eq!(listed.into_iter().map(|shard| shard.id).collect::<Vec<_>>(), expected);
}

async fn a_shard_ends_behind_its_last_payload(fixture: &dyn Fixture) {
    fixture.append(&fixture.shard(), &payloads(0..5)).await;
    let all = read_all(fixture, Checkpoint::TrimHorizon).await;
    let target = target(fixture).await;
    if !fixture.end(&fixture.shard()).await {
        return;
    }
    for (after, rest) in [(Checkpoint::TrimHorizon, 0), (all[2].checkpoint(), 3), (all[4].checkpoint(), 5)] {
        for until in [Until::Forever, Until::Target(target.clone())] {
            let mut reader = open(fixture, after.clone(), until).await.unwrap();
            let (read, next) = drain(reader.as_mut()).await.unwrap();
            assert_eq!((texts(&read), next), (texts(&all[rest..]), Next::ShardEnd), "after {after}");
        }
    }
    // A range ends where it ended, though its shard has no more.
    let mut reader = open(fixture, all[1].checkpoint(), Until::Through(all[4].checkpoint())).await.unwrap();
    let (read, next) = drain(reader.as_mut()).await.unwrap();
    assert_eq!((texts(&read), next), (texts(&all[2..]), Next::Reached));
}

async fn what_was_forgotten_unread_is_a_gap(fixture: &dyn Fixture) {
    fixture.append(&fixture.shard(), &payloads(0..10)).await;
    let all = read_all(fixture, Checkpoint::TrimHorizon).await;
    let first = async |after: usize, read_through| {
        let reading = Reading { after: all[after].checkpoint(), read_through, until: Until::Forever, arrival: None };
        fixture.source().open(&fixture.shard(), reading).await.unwrap().next().await.unwrap()
    };
    if !fixture.trim(&fixture.shard(), 5).await {
        return;
    }
    let page = first(2, None).await;
    let gap = page.gap.unwrap();
    assert_eq!((gap.after, gap.from, gap.until), (all[2].checkpoint(), None, all[5].arrival));
    assert_eq!(texts(&page.payloads), payloads(5..10));
    // What was forgotten had been read.
    assert_eq!(first(4, None).await.gap, None);
    assert_eq!(first(2, Some(all[5].arrival)).await.gap, None);
    // Nothing is left behind the gap.
    fixture.trim(&fixture.shard(), 5).await;
    let page = first(2, Some(all[2].arrival)).await;
    let gap = page.gap.unwrap();
    assert_eq!((gap.after, gap.from, page.payloads.len()), (all[2].checkpoint(), Some(all[2].arrival), 0));
    assert!(gap.until > all[9].arrival);
    assert_eq!(first(2, Some(gap.until)).await.gap, None, "it is told once");
}

async fn what_arrived_before_a_time_may_be_left_out_and_nothing_else(fixture: &dyn Fixture) {
    fixture.append(&fixture.shard(), &payloads(0..5)).await;
    rest(Duration::from_millis(50)).await;
    fixture.append(&fixture.shard(), &payloads(5..10)).await;
    let all = read_all(fixture, Checkpoint::TrimHorizon).await;
    let read = texts(&read_all(fixture, Checkpoint::Since(all[5].arrival)).await);
    let expected = if fixture.has_times() { payloads(5..10) } else { payloads(0..10) };
    assert_eq!(read, expected);
}

async fn another_programs_checkpoint_is_read_on_from(fixture: &dyn Fixture) {
    fixture.append(&fixture.shard(), &payloads(0..10)).await;
    let all = read_all(fixture, Checkpoint::TrimHorizon).await;
    if !fixture.imports() {
        return;
    }
    for index in [0, 4, 9] {
        let rest = read_all(fixture, Checkpoint::Imported(all[index].position.clone())).await;
        assert_eq!(texts(&rest), texts(&all[index + 1..]), "after {index}");
    }
}

#[tokio::test]
async fn files_keep_the_contract() {
    keeps_the_contract(async || Files::new()).await;
}

#[tokio::test]
async fn the_twin_keeps_the_contract() {
    keeps_the_contract(async || Memory::new()).await;
}
