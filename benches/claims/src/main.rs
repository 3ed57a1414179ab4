//! What a claim costs in each store that could keep it: `cargo run --release -- [RECORDS]` (5,000,000 by default).
//!
//! Each store is measured in a process of its own: the program starts itself once for each, with the store's name
//! and a directory for the data.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use async_trait::async_trait;
use auditlake::dedupe::embedded::{EmbeddedClaims, Options};
use auditlake::dedupe::{Claim, Claims, Core, Identity, Verdict};
use auditlake::record::DetailsSource;
use auditlake::source::{Position, SequenceNumber, ShardId};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use futures_executor::block_on;
use jiff::Timestamp;
use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};
use siphasher::sip128::SipHasher13;

type Failure = Box<dyn std::error::Error>;

/// Claims a call: what a Kinesis page brings.
const CALL: u64 = 1000;
const CONTENDERS: [&str; 7] =
    ["auditlake 500k", "auditlake 10k", "redb 500k", "redb 10k", "fjall 500k", "fjall 10k", "index only"];

/// What is compared: claims come in, are answered, and at times made durable.
#[async_trait]
trait Store: Send {
    /// Claims records `first` to before `first + CALL` and says how many were new.
    async fn claim(&mut self, records: &Records, first: u64, by: u64) -> Result<u64, Failure>;
    async fn flush(&mut self) -> Result<(), Failure>;
}

/// The records: ids of 36 characters as Temporal's are, sequence numbers of 56 digits as Kinesis' are.
struct Records {
    hasher: SipHasher13,
}

impl Records {
    fn log_id(&self, number: u64) -> String {
        let hash = self.hasher.hash(&number.to_le_bytes());
        let (a, b) = (hash.h1, hash.h2);
        format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", a >> 32, a >> 16 & 0xffff, a & 0xffff, b >> 48, b & 0xffff_ffff_ffff)
    }

    fn position(&self, number: u64) -> Position {
        let digits = format!("4959033827149025660855969253836157{number:022}");
        Position { sequence: SequenceNumber::new(&digits), sub_sequence: 0 }
    }

    /// The key and value that a key-value store would keep: 16 and 29 bytes.
    fn pair(&self, number: u64, by: u64) -> ([u8; 16], [u8; 29]) {
        let key = self.hasher.hash(self.log_id(number).as_bytes()).as_bytes();
        let position = self.hasher.hash(self.position(number + by).sequence.as_str().as_bytes()).h1;
        let mut value = [1; 29];
        value[..8].copy_from_slice(&position.to_le_bytes());
        value[8..16].copy_from_slice(&number.to_le_bytes());
        (key, value)
    }
}

#[async_trait]
impl Store for EmbeddedClaims {
    async fn claim(&mut self, records: &Records, first: u64, by: u64) -> Result<u64, Failure> {
        let made: Vec<(String, Position)> =
            (first..first + CALL).map(|n| (records.log_id(n), records.position(n + by))).collect();
        let core = |number| Core { base: number, details_source: DetailsSource::RawDetails, details: 0 };
        let claims: Vec<Claim<'_>> = (first..)
            .zip(&made)
            .map(|(number, (log_id, position))| Claim {
                identity: Identity::LogId { log_id, version: 1 },
                position: position.record(0),
                core: core(number),
            })
            .collect();
        let answers = Claims::claim(self, &ShardId::new("shardId-000000000000"), &claims, now()).await?;
        Ok(answers.iter().filter(|&&answer| answer == Verdict::New).count() as u64)
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        Ok(Claims::flush(self).await?)
    }
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

const TABLE: TableDefinition<[u8; 16], [u8; 29]> = TableDefinition::new("claims");

struct Redb {
    database: redb::Database,
    /// One transaction from flush to flush, as the log has one seal.
    open: Option<redb::WriteTransaction>,
}

#[async_trait]
impl Store for Redb {
    async fn claim(&mut self, records: &Records, first: u64, by: u64) -> Result<u64, Failure> {
        if self.open.is_none() {
            self.open = Some(self.database.begin_write()?);
        }
        let transaction = self.open.as_ref().ok_or("no transaction")?;
        let mut table = transaction.open_table(TABLE)?;
        let mut new = 0;
        for number in first..first + CALL {
            let (key, value) = records.pair(number, by);
            let held = table.get(key)?.map(|held| held.value());
            match held {
                None => {
                    table.insert(key, value)?;
                    new += 1;
                }
                Some(held) => new += u64::from(held[..8] == value[..8]),
            }
        }
        Ok(new)
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.open.take().map_or(Ok(()), redb::WriteTransaction::commit)?)
    }
}

struct Fjall {
    database: Database,
    keyspace: Keyspace,
}

#[async_trait]
impl Store for Fjall {
    async fn claim(&mut self, records: &Records, first: u64, by: u64) -> Result<u64, Failure> {
        let mut new = 0;
        for number in first..first + CALL {
            let (key, value) = records.pair(number, by);
            match self.keyspace.get(key)? {
                None => {
                    self.keyspace.insert(key, value)?;
                    new += 1;
                }
                Some(held) => new += u64::from(held[..8] == value[..8]),
            }
        }
        Ok(new)
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}

fn open(name: &str, directory: &Path) -> Result<Box<dyn Store>, Failure> {
    Ok(match name {
        "auditlake" | "index" => {
            let options = Options::new(Duration::from_secs(35 * 86_400), *b"sixteen octets!!");
            Box::new(EmbeddedClaims::open(directory, options, now())?)
        }
        "redb" => {
            // The cache is on the bill like all memory; 64 MiB is what the log's index takes at 5 million claims.
            let database = redb::Builder::new().set_cache_size(64 << 20).create(directory.join("claims.redb"))?;
            // Reading makes the opening complete.
            let _ = database.begin_read()?;
            Box::new(Redb { database, open: None })
        }
        "fjall" => {
            let database = Database::builder(directory).cache_size(64 << 20).open()?;
            let keyspace = database.keyspace("claims", KeyspaceCreateOptions::default)?;
            Box::new(Fjall { database, keyspace })
        }
        other => return Err(format!("no store is called {other}").into()),
    })
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare(5_000_000),
        [records] => compare(records.replace('_', "").parse()?),
        [contender, records, directory] => measure(contender, records.parse()?, Path::new(directory)),
        _ => Err("usage: claims-bench [RECORDS]".into()),
    }
}

fn compare(records: u64) -> Result<(), Failure> {
    println!("{records} records");
    println!(
        "| {:<14} | {:>9} | {:>11} | {:>9} | {:>9} | {:>8} |",
        "flushed every", "ns/claim", "ns/replay", "disk B", "memory B", "reopen s"
    );
    println!("|---|--:|--:|--:|--:|--:|");
    for contender in CONTENDERS {
        // Beside the program, not in /tmp: that may be memory.
        let beside = env::current_exe()?.parent().ok_or("no directory")?.to_owned();
        let directory = tempfile::tempdir_in(beside)?;
        for _phase in 0..2 {
            // The first run fills, the second finds what is there and measures the opening.
            let status = Command::new(env::current_exe()?)
                .args([contender, &records.to_string(), &directory.path().to_string_lossy()])
                .status()?;
            if !status.success() {
                return Err(format!("{contender} failed").into());
            }
            if contender == "index only" {
                break;
            }
        }
    }
    Ok(())
}

fn measure(contender: &str, records: u64, directory: &Path) -> Result<(), Failure> {
    let (name, every) = contender.split_once(' ').ok_or("a contender has two words")?;
    let generator = Records { hasher: SipHasher13::new_with_key(b"the benchmark's!") };
    let empty = fs::read_dir(directory)?.next().is_none();
    let before = resident()?;
    if name == "index" {
        let mut store = open(name, directory)?;
        fill(&mut *store, &generator, records, 500_000, 0)?;
        drop(store);
        let started = Instant::now();
        let _store = open(name, directory)?;
        let took = started.elapsed();
        println!("| {contender:<14} | {:>9.0} | | | | {:>8.2} |", took.as_nanos() as f64 / records as f64, took.as_secs_f64());
        return Ok(());
    }
    let every = if every == "10k" { 10_000 } else { 500_000 };
    if empty {
        let generation = generation(name, &generator, records)?;
        let mut store = open(name, directory)?;
        let started = Instant::now();
        assert_eq!(fill(&mut *store, &generator, records, every, 0)?, records);
        let each = started.elapsed().saturating_sub(generation).as_nanos() as f64 / records as f64;
        // Replays of one in ten: all must hold.
        let started = Instant::now();
        let replayed = records / 10 / CALL * CALL;
        assert_eq!(fill(&mut *store, &generator, replayed, every, 0)?, replayed);
        let replay = started.elapsed().saturating_sub(generation / 10).as_nanos() as f64 / replayed as f64;
        let memory = resident()?.saturating_sub(before) as f64 / records as f64;
        print!("| {contender:<14} | {each:>9.0} | {replay:>11.0} ");
        drop(store);
        println!("| {:>9.1} | {memory:>9.1} ", disk(directory)? as f64 / records as f64);
    } else {
        let started = Instant::now();
        let mut store = open(name, directory)?;
        let took = started.elapsed();
        // From other positions nothing is new.
        assert_eq!(fill(&mut *store, &generator, CALL, every, 1 << 40)?, 0);
        let memory = resident()?.saturating_sub(before) as f64 / records as f64;
        println!("| {contender:<14} | reopened | | | {memory:>9.1} | {:>8.2} |", took.as_secs_f64());
    }
    Ok(())
}

/// Claims `records` records from positions `by` further on than the first ones; returns how many hold.
fn fill(store: &mut dyn Store, generator: &Records, records: u64, every: u64, by: u64) -> Result<u64, Failure> {
    let mut held = 0;
    for first in (0..records).step_by(CALL as usize) {
        held += block_on(store.claim(generator, first, by))?;
        if (first + CALL) % every == 0 {
            block_on(store.flush())?;
        }
    }
    block_on(store.flush())?;
    Ok(held)
}

/// How long it takes to make up the records: not the store's time. (Hashing them is: the log does it too.)
fn generation(_name: &str, generator: &Records, records: u64) -> Result<Duration, Failure> {
    let started = Instant::now();
    for first in (0..records).step_by(CALL as usize) {
        let made: Vec<(String, Position)> =
            (first..first + CALL).map(|n| (generator.log_id(n), generator.position(n))).collect();
        std::hint::black_box(made);
    }
    Ok(started.elapsed())
}

/// The process's resident memory in bytes.
fn resident() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<u64>()? * 1024)
}

/// The bytes that a directory's files take on the disk.
fn disk(directory: &Path) -> Result<u64, Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
