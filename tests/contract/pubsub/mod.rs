//! Spools keep the contract of a source, and subscriptions that of what feeds them.

mod subscription;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use auditlake::archive::{ArchiveError, ArchiveStore, Listed, MemoryArchive, Put, Stat};
use auditlake::ops::clock::SystemClock;
use auditlake::ops::memory::MemoryBudget;
use auditlake::source::pubsub::{
    Appended, Cut, Message, PubsubOptions, PubsubSource, SpoolName, SpoolStore, SpoolWriter,
};
use auditlake::source::{Checkpoint, Next, Payload, ShardId, Source, Target, Until};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::source::{Fixture, drain, follow, keeps_the_contract, open, payloads, texts};

const OPTIONS: PubsubOptions = PubsubOptions {
    cut: Cut { flush_interval: Duration::from_secs(5), max_bytes: 1 << 20, max_messages: 1000 },
    seal_after: Duration::ZERO,
};

/// Spools in memory, each written by this process, and the time at which the next message arrives.
struct Spools {
    store: Arc<MemoryArchive>,
    source: PubsubSource,
    writers: Mutex<BTreeMap<ShardId, SpoolWriter>>,
    second: AtomicI64,
}

fn source_over(store: Arc<dyn SpoolStore>) -> PubsubSource {
    PubsubSource::new(store, OPTIONS, Arc::new(SystemClock::start()), MemoryBudget::new(1 << 20))
}

impl Spools {
    fn new() -> Self {
        let store = Arc::new(MemoryArchive::new());
        let (source, second) = (source_over(store.clone()), AtomicI64::new(1_795_254_660));
        Self { source, store, writers: Mutex::default(), second }
    }

    fn message(&self, data: &str) -> Message {
        let second = self.second.fetch_add(1, Ordering::Relaxed);
        Message {
            id: second.to_string(),
            arrival: Timestamp::from_second(second).unwrap(),
            attributes: BTreeMap::new(),
            ordering_key: String::new(),
            delivery_attempt: None,
            data: data.to_owned().into(),
        }
    }
}

#[async_trait]
impl Fixture for Spools {
    fn source(&self) -> &dyn Source {
        &self.source
    }

    async fn append(&self, shard: &ShardId, payloads: &[String]) {
        let mut writers = self.writers.lock().await;
        let begin = || self.source.write(SpoolName::new(shard.as_str()).unwrap());
        let writer = writers.entry(shard.clone()).or_insert_with(begin);
        for segment in payloads.chunks(7) {
            let messages: Vec<Message> = segment.iter().map(|data| self.message(data)).collect();
            let appended = writer.append(&messages, &CancellationToken::new()).await.unwrap();
            assert_eq!(appended, Appended::Durable);
        }
    }

    async fn replace(&mut self, shard: &ShardId, payloads: &[String]) {
        *self = Self::new();
        self.append(shard, payloads).await;
    }

    async fn end(&self, shard: &ShardId) -> bool {
        let writer = self.writers.lock().await.remove(shard).unwrap();
        writer.seal(&CancellationToken::new()).await.unwrap();
        true
    }

    async fn trim(&self, _: &ShardId, _: usize) -> bool {
        false
    }

    fn imports(&self) -> bool {
        true
    }

    fn has_times(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn spools_keep_the_contract_of_a_source() {
    keeps_the_contract(async || Spools::new()).await;
}

#[tokio::test]
async fn another_process_reads_what_this_one_writes_and_goes_on() {
    let spools = Spools::new();
    spools.append(&spools.shard(), &payloads(0..10)).await;
    let mut other = Spools { source: source_over(spools.store.clone()), ..Spools::new() };
    // It must not end a spool that is written to.
    let patient = PubsubOptions { seal_after: Duration::from_hours(1), ..OPTIONS };
    let clock = Arc::new(SystemClock::start());
    other.source = PubsubSource::new(spools.store.clone(), patient, clock, MemoryBudget::new(1 << 20));
    let mut reader = open(&other, Checkpoint::TrimHorizon, Until::Forever).await.unwrap();
    assert_eq!(texts(&follow(reader.as_mut(), 10).await), payloads(0..10));
    spools.append(&spools.shard(), &payloads(10..12)).await;
    assert_eq!(texts(&follow(reader.as_mut(), 2).await), payloads(10..12));
}

#[tokio::test]
async fn what_is_known_of_a_message_comes_with_it_whoever_reads_it_and_from_where() {
    let spools = Spools::new();
    let attributes = BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "\"1\"".to_owned())]);
    let message = |id: &str| Message { id: id.to_owned(), ..spools.message(id) };
    let full = Message { attributes, ordering_key: "k".into(), delivery_attempt: Some(2), ..message("7") };
    let mut writer = spools.source.write(SpoolName::new("shard-1").unwrap());
    writer.append(&[full, message("8")], &CancellationToken::new()).await.unwrap();
    let known =
        [r#"{"attributes":{"a":"\"1\"","b":"2"},"message_id":"7","ordering_key":"k"}"#, r#"{"message_id":"8"}"#];
    let told = |payloads: &[Payload]| -> Vec<String> {
        payloads.iter().map(|payload| payload.source_message.as_deref().unwrap().to_owned()).collect()
    };
    let mut reader = open(&spools, Checkpoint::TrimHorizon, Until::Forever).await.unwrap();
    let read = follow(reader.as_mut(), 2).await;
    assert_eq!(told(&read), known);
    assert_eq!(told(&read_to_the_end(&spools).await), known);
    let through = Until::Through(read[1].checkpoint());
    let mut reader = open(&spools, read[0].checkpoint(), through).await.unwrap();
    assert_eq!(told(&drain(reader.as_mut()).await.unwrap().0), known[1..]);
}

#[tokio::test]
async fn a_spool_that_nobody_writes_is_sealed_and_its_writer_finds_its_number_taken() {
    let spools = Spools::new();
    spools.append(&spools.shard(), &payloads(0..10)).await;
    let other = Spools { source: source_over(spools.store.clone()), ..Spools::new() };
    for until in [Until::Forever, Until::Target(Target::Before { sequence: 2.into(), bytes: None })] {
        let mut reader = open(&other, Checkpoint::TrimHorizon, until).await.unwrap();
        let (read, next) = drain(reader.as_mut()).await.unwrap();
        assert_eq!((texts(&read), next), (payloads(0..10), Next::ShardEnd));
    }
    let mut writers = spools.writers.lock().await;
    let writer = writers.get_mut(&spools.shard()).unwrap();
    let late = [spools.message("late")];
    for _ in 0..2 {
        assert_eq!(writer.append(&late, &CancellationToken::new()).await.unwrap(), Appended::Taken);
    }
    let mut reader = open(&other, Checkpoint::TrimHorizon, Until::Forever).await.unwrap();
    assert_eq!(texts(&drain(reader.as_mut()).await.unwrap().0), payloads(0..10), "nothing was added");
}

/// A store that shows one object only once something is put: the writer and a reader meet in that moment.
struct Meeting {
    store: Arc<MemoryArchive>,
    hidden: std::sync::Mutex<Option<&'static str>>,
}

impl Meeting {
    fn shows(&self, key: &str) -> bool {
        *self.hidden.lock().unwrap() != Some(key)
    }
}

#[async_trait]
impl ArchiveStore for Meeting {
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<Put, ArchiveError> {
        self.hidden.lock().unwrap().take();
        self.store.put_if_absent(key, body).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ArchiveError> {
        if self.shows(key) { self.store.get(key).await } else { Ok(None) }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ArchiveError> {
        Ok(self.store.list(prefix).await?.into_iter().filter(|object| self.shows(&object.key)).collect())
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>, ArchiveError> {
        if self.shows(key) { self.store.stat(key).await } else { Ok(None) }
    }
}

#[async_trait]
impl SpoolStore for Meeting {
    async fn remove(&self, key: &str) -> Result<(), ArchiveError> {
        SpoolStore::remove(self.store.as_ref(), key).await
    }
}

#[tokio::test]
async fn a_segment_that_is_put_while_its_spool_is_sealed_is_neither_replaced_nor_left_out() {
    let second = Target::Before { sequence: 1.into(), bytes: None };
    for (until, met) in
        [(Until::Forever, (payloads(0..14), Next::ShardEnd)), (Until::Target(second), (payloads(0..7), Next::Reached))]
    {
        let spools = Spools::new();
        spools.append(&spools.shard(), &payloads(0..14)).await;
        let hidden = std::sync::Mutex::new(Some("shard-1/00000001"));
        let store = Arc::new(Meeting { store: spools.store.clone(), hidden });
        let other = Spools { source: source_over(store.clone()), ..Spools::new() };
        let mut reader = open(&other, Checkpoint::TrimHorizon, until).await.unwrap();
        let (read, next) = drain(reader.as_mut()).await.unwrap();
        assert!(store.hidden.lock().unwrap().is_none(), "nobody tried to seal the spool");
        assert_eq!((texts(&read), next), met);
        assert_eq!(texts(&read_to_the_end(&spools).await), payloads(0..14));
    }
}

async fn read_to_the_end(spools: &Spools) -> Vec<Payload> {
    let other = Spools { source: source_over(spools.store.clone()), ..Spools::new() };
    let mut reader = open(&other, Checkpoint::TrimHorizon, Until::Forever).await.unwrap();
    let (read, next) = drain(reader.as_mut()).await.unwrap();
    assert_eq!(next, Next::ShardEnd);
    read
}

#[tokio::test]
async fn a_writer_that_ends_its_spool_replaces_no_segment_whose_answer_was_lost() {
    let (spools, elsewhere) = (Spools::new(), Spools::new());
    spools.append(&spools.shard(), &payloads(0..7)).await;
    elsewhere.append(&elsewhere.shard(), &payloads(0..14)).await;
    let segment = elsewhere.store.get("shard-1/00000001").await.unwrap().unwrap();
    spools.store.put_if_absent("shard-1/00000001", segment).await.unwrap();
    spools.end(&spools.shard()).await;
    assert_eq!(texts(&read_to_the_end(&spools).await), payloads(0..14));
}

#[tokio::test]
async fn segments_that_somebody_removed_are_a_gap() {
    let spools = Spools::new();
    spools.append(&spools.shard(), &payloads(0..35)).await;
    let mut reader = open(&spools, Checkpoint::TrimHorizon, Until::Forever).await.unwrap();
    let first = reader.next().await.unwrap();
    for number in [1, 2] {
        MemoryArchive::remove(&spools.store, &format!("shard-1/{number:08}")).unwrap();
    }
    let behind = reader.next().await.unwrap();
    let gap = behind.gap.unwrap();
    assert_eq!(gap.after, first.payloads[6].checkpoint());
    assert_eq!((gap.until, texts(&behind.payloads)), (behind.payloads[0].arrival, payloads(21..28)));
    assert_eq!(reader.next().await.unwrap().gap, None, "it is told once");
    // The checkpoint's own segment, with something behind it and without.
    let checkpoint = behind.payloads[3].checkpoint();
    MemoryArchive::remove(&spools.store, "shard-1/00000003").unwrap();
    let mut reader = open(&spools, checkpoint.clone(), Until::Forever).await.unwrap();
    let page = reader.next().await.unwrap();
    assert_eq!((page.gap.unwrap().after, texts(&page.payloads)), (checkpoint.clone(), payloads(28..35)));
    MemoryArchive::remove(&spools.store, "shard-1/00000004").unwrap();
    spools.end(&spools.shard()).await;
    let mut reader = open(&spools, checkpoint.clone(), Until::Forever).await.unwrap();
    let page = reader.next().await.unwrap();
    assert_eq!((page.gap.unwrap().after, page.next), (checkpoint, Next::More));
    assert_eq!(reader.next().await.unwrap().next, Next::ShardEnd);
}

#[tokio::test]
async fn a_damaged_segment_stops_its_shard_and_is_named() {
    let spools = Spools::new();
    spools.append(&spools.shard(), &payloads(0..7)).await;
    spools.store.overwrite("shard-1/00000000", "AUDSPOOL, but not really: it has been overwritten by somebody else");
    let mut reader = open(&spools, Checkpoint::TrimHorizon, Until::Forever).await.unwrap();
    let error = reader.next().await.unwrap_err().to_string();
    assert!(error.starts_with("shard-1: ") && error.contains("shard-1/00000000"), "{error}");
}

/// Removes through the port that spools have, as the keeper does.
async fn removes(store: &dyn SpoolStore) {
    let put = async |key: &str| store.put_if_absent(key, key.to_owned().into()).await.unwrap();
    put("spool-1/00000000").await;
    put("spool-1/00000001").await;
    for _ in 0..2 {
        store.remove("spool-1/00000000").await.unwrap();
        assert_eq!(store.get("spool-1/00000000").await.unwrap(), None);
    }
    assert_eq!(store.list("").await.unwrap().len(), 1);
    store.remove("spool-1/00000001").await.unwrap();
    assert_eq!(store.list("").await.unwrap(), []);
    put("spool-1/00000000").await;
    assert!(store.remove("../spool-1").await.is_err());
    assert!(store.get("spool-1/00000000").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_can_be_removed_from_every_store() {
    removes(&MemoryArchive::new()).await;
    let directory = tempfile::tempdir().unwrap();
    removes(&auditlake::archive::LocalArchive::open(directory.path()).unwrap()).await;
    let bucket = crate::s3::Bucket::new().await;
    removes(&bucket.archive()).await;
}
