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
const CONTENDERS: [&str; 6] = ["auditlake 500k", "auditlake 10k", "redb 500k", "redb 10k", "fjall 500k", "fjall 10k"];

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
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xffff,
            b >> 48,
            b & 0xffff_ffff_ffff
        )
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
        "auditlake" => {
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
        [contender, phase, records, directory] => measure(contender, phase, records.parse()?, Path::new(directory)),
        _ => Err("usage: claims-bench [RECORDS]".into()),
    }
}

fn compare(records: u64) -> Result<(), Failure> {
    println!("{records} records; CPU time is that of all threads of the process");
    println!(
        "| store, flushed every | ns a claim | CPU ns a claim | CPU ns a replay | disk B | memory B | reopened: memory B | s |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for contender in CONTENDERS {
        // Beside the program, not in /tmp: that may be memory.
        let beside = env::current_exe()?.parent().ok_or("no directory")?.to_owned();
        let directory = tempfile::tempdir_in(beside)?;
        // The first run fills, the second measures the opening.
        let phases = ["fill", "reopen"].map(|phase| {
            Command::new(env::current_exe()?)
                .args([contender, phase, &records.to_string(), &directory.path().to_string_lossy()])
                .output()
        });
        let mut row = format!("| {contender} ");
        for output in phases {
            let output = output?;
            if !output.status.success() {
                return Err(format!("{contender}: {}", String::from_utf8_lossy(&output.stderr)).into());
            }
            row = row + std::str::from_utf8(&output.stdout)?.trim_end() + " ";
        }
        println!("{row}|");
    }
    Ok(())
}

fn measure(contender: &str, phase: &str, records: u64, directory: &Path) -> Result<(), Failure> {
    let (name, every) = contender.split_once(' ').ok_or("a contender has two words")?;
    let every = if every == "10k" { 10_000 } else { 500_000 };
    let generator = Records { hasher: SipHasher13::new_with_key(b"the benchmark's!") };
    let per = |quantity: u64, count: u64| quantity as f64 / count as f64;
    if phase == "fill" {
        let made = Stopwatch::start()?;
        generate(&generator, records);
        let made = made.stop()?;
        let before = resident()?;
        let mut store = open(name, directory)?;
        let first = Stopwatch::start()?;
        assert_eq!(fill(&mut *store, &generator, records, every, 0)?, records);
        let first = first.stop()?.less(made);
        // Replays of one in ten: all must hold.
        let replayed = records / 10 / CALL * CALL;
        let again = Stopwatch::start()?;
        assert_eq!(fill(&mut *store, &generator, replayed, every, 0)?, replayed);
        let again = again.stop()?.less(Spent { wall: made.wall / 10, processor: made.processor / 10 });
        let memory = resident()?.saturating_sub(before);
        drop(store);
        print!("| {:.0} | {:.0} ", per(first.wall, records), per(first.processor, records));
        print!("| {:.0} | {:.1} ", per(again.processor, replayed), per(disk(directory)?, records));
        println!("| {:.1} ", per(memory, records));
    } else {
        let before = resident()?;
        let opening = Stopwatch::start()?;
        let mut store = open(name, directory)?;
        let opening = opening.stop()?;
        // From other positions nothing is new.
        assert_eq!(fill(&mut *store, &generator, CALL, every, 1 << 40)?, 0);
        let memory = resident()?.saturating_sub(before);
        println!("| {:.1} | {:.2}", per(memory, records), opening.wall as f64 / 1e9);
    }
    Ok(())
}

/// Nanoseconds.
#[derive(Clone, Copy)]
struct Spent {
    wall: u64,
    processor: u64,
}

impl Spent {
    fn less(self, other: Self) -> Self {
        Self { wall: self.wall.saturating_sub(other.wall), processor: self.processor.saturating_sub(other.processor) }
    }
}

struct Stopwatch {
    started: Instant,
    processor: u64,
}

impl Stopwatch {
    fn start() -> Result<Self, Failure> {
        Ok(Self { started: Instant::now(), processor: processor()? })
    }

    fn stop(self) -> Result<Spent, Failure> {
        Ok(Spent { wall: self.started.elapsed().as_nanos() as u64, processor: processor()? - self.processor })
    }
}

/// The processor time of all threads so far, in nanoseconds; counted in hundredths of a second (proc(5)).
fn processor() -> Result<u64, Failure> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The command's name, in parentheses, may hold spaces.
    let (_, fields) = stat.rsplit_once(')').ok_or("no stat")?;
    let ticks: Vec<u64> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<u64>() * 10_000_000)
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

/// Makes up the records: what the store's time is less by. (Hashing them is part of it: the log does that too.)
fn generate(generator: &Records, records: u64) {
    for first in (0..records).step_by(CALL as usize) {
        let made: Vec<(String, Position)> =
            (first..first + CALL).map(|n| (generator.log_id(n), generator.position(n))).collect();
        std::hint::black_box(made);
    }
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
