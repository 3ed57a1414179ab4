//! The stages, each over the same records.

use std::any::Any;
use std::fmt;
use std::hint::black_box;
use std::sync::LazyLock;
use std::time::Duration;
use std::{env, fs};

use auditlake::config::Config;
use auditlake::dedupe::embedded::{EmbeddedClaims, Options};
use auditlake::dedupe::memory::MemoryClaims;
use auditlake::dedupe::{Claim, Claims};
use auditlake::encode::{Compression, Format, Layout, ObjectEncoder, Row};
use auditlake::record::{CoreHasher, Decoder, IdentityKey, Record, Split, decode, identity_of, split, unpack};
use auditlake::source::{Position, ShardId};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use tempfile::TempDir;
use uuid::Uuid;

use crate::commit;

/// Claims a call: what a page of a source brings.
const CALL: usize = 1_000;

const DEDUPE_WINDOW: Duration = Duration::from_hours(35 * 24);

/// One step of a record's way.
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    /// Whether it takes as many instructions each time.
    pub(crate) repeatable: bool,
    /// What is measured: the work on all records. Making it ready is not, and neither is dropping what comes of it.
    pub(crate) prepare: fn() -> Work,
}

pub(crate) type Work = Box<dyn FnOnce() -> Box<dyn Any>>;

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// In the order of the data's way.
pub(crate) static STAGES: [Stage; 13] = [
    stage("framing", || work(framing)),
    stage("decode", || work(decoding)),
    stage("identity", || work(identity)),
    // Its hash table is keyed anew each time.
    Stage { name: "claim-memory", repeatable: false, prepare: || claiming(MemoryClaims::new()) },
    stage("claim-embedded", claiming_embedded),
    stage("parquet-zstd1-lean", || encoding(Format::Parquet, Compression::Zstd, 1, false)),
    stage("parquet-zstd1", || encoding(Format::Parquet, Compression::Zstd, 1, true)),
    stage("parquet-zstd3", || encoding(Format::Parquet, Compression::Zstd, 3, true)),
    stage("parquet-snappy", || encoding(Format::Parquet, Compression::Snappy, 0, true)),
    stage("parquet-none", || encoding(Format::Parquet, Compression::None, 0, true)),
    stage("ndjson-zstd3", || encoding(Format::Ndjson, Compression::Zstd, 3, true)),
    stage("commit-memory", commit::memory),
    // Most of it is the disk's, on other threads.
    Stage { name: "commit-local", repeatable: false, prepare: commit::local },
];

const fn stage(name: &'static str, prepare: fn() -> Work) -> Stage {
    Stage { name, repeatable: true, prepare }
}

pub(crate) fn work<T: 'static>(work: impl FnOnce() -> T + 'static) -> Work {
    Box::new(|| Box::new(work()))
}

/// A file and what its stages make of it, each for the next; all of it lives as long as the program.
pub(crate) struct Input {
    text: &'static [u8],
    pub(crate) payloads: &'static [Payload],
    records: Vec<Placed>,
}

pub(crate) struct Payload {
    position: Position,
    pub(crate) data: &'static [u8],
}

/// A record and where it stands.
struct Placed {
    payload: &'static Position,
    index: u32,
    record: Record<'static>,
}

impl Placed {
    fn claim(&self, hasher: &mut CoreHasher) -> Claim<'_> {
        let position = self.payload.record(self.index);
        Claim { identity: identity_of(&self.record), position, core: hasher.core_of(&self.record) }
    }

    fn row(&self) -> Row<'_> {
        let position = self.payload.record(self.index);
        Row {
            record: &self.record,
            shard: &SHARD,
            position,
            arrival: Timestamp::UNIX_EPOCH,
            source_message: None,
            conflict: false,
        }
    }
}

pub(crate) static KEY: LazyLock<IdentityKey> = LazyLock::new(|| IdentityKey::of_archive(Uuid::from_u128(7)));
pub(crate) static SHARD: LazyLock<ShardId> = LazyLock::new(|| ShardId::new("audit.ndjson"));
pub(crate) static LAYOUT: LazyLock<Layout> = LazyLock::new(|| Config::default().layout());
pub(crate) static INPUT: LazyLock<Input> = LazyLock::new(Input::read);

/// The claims that each record makes, as a worker hands them over.
static CLAIMS: LazyLock<Vec<Claim<'_>>> = LazyLock::new(|| {
    let mut hasher = KEY.hasher();
    INPUT.records.iter().map(|placed| placed.claim(&mut hasher)).collect()
});

impl Input {
    /// `AUDITLAKE_BENCH_DATA`, as benches/data.py writes it; without it one of the example logs, so that a test of the
    /// benches needs nothing.
    fn read() -> Self {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/audit/stream-2026-11-06.ndjson");
        let path = env::var("AUDITLAKE_BENCH_DATA").unwrap_or_else(|_| example.to_owned());
        let text = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}")).leak();
        let units = units(text).map(|(start, data)| Payload { position: Position::new(start as u64), data });
        let payloads: &'static [Payload] = units.collect::<Vec<_>>().leak();
        let records: Vec<Placed> = payloads
            .iter()
            .flat_map(|payload| {
                let unpacked = Box::leak(Box::new(unpack(payload.data, LAYOUT.rules.max_payload_bytes)));
                decode(unpacked, &LAYOUT.rules).filter_map(|decoded| {
                    let record = *decoded.outcome.ok()?;
                    Some(Placed { payload: &payload.position, index: decoded.index, record })
                })
            })
            .collect();
        assert!(!records.is_empty(), "{path} holds no record");
        Self { text, payloads, records }
    }
}

/// How many records there are; rejects are none.
pub(crate) fn records() -> usize {
    CLAIMS.len()
}

/// The payloads of a file, and where each begins.
fn units(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || match split(&text[at..], true) {
        Split::Unit { skip, len } => {
            let start = at + skip;
            at = start + len;
            Some((start, &text[start..at]))
        }
        Split::Blank { .. } | Split::NeedMore => None,
    })
}

fn framing() -> usize {
    units(INPUT.text).count()
}

fn decoding() {
    let payloads = INPUT.payloads.iter();
    let unpacked: Vec<_> = payloads.map(|payload| unpack(payload.data, LAYOUT.rules.max_payload_bytes)).collect();
    let mut decoder = Decoder::default();
    for unpacked in &unpacked {
        for decoded in decoder.decode(unpacked, &LAYOUT.rules) {
            let _ = black_box(decoded);
        }
    }
}

fn identity() {
    let mut hasher = KEY.hasher();
    for placed in &INPUT.records {
        black_box(placed.claim(&mut hasher));
    }
}

fn claiming_embedded() -> Work {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let claiming = claiming(embedded_claims(&directory));
    work(move || (claiming(), directory))
}

/// New claims in a directory.
pub(crate) fn embedded_claims(directory: &TempDir) -> EmbeddedClaims {
    let options = Options::new(DEDUPE_WINDOW, [7; 16]);
    EmbeddedClaims::open(directory.path().join("claims"), options, Timestamp::UNIX_EPOCH).expect("claims")
}

/// Nothing is flushed: that is the disk's time.
fn claiming(claims: impl Claims + 'static) -> Work {
    let calls = CLAIMS.chunks(CALL);
    work(move || {
        for call in calls {
            // Claims of this process never wait.
            let answer = claims.claim(&SHARD, call, Timestamp::UNIX_EPOCH).now_or_never().expect("an answer at once");
            let _ = black_box(answer.expect("verdicts"));
        }
        claims
    })
}

/// All records into one object, as if all were of one day.
fn encoding(format: Format, compression: Compression, compression_level: i32, keep_raw: bool) -> Work {
    let layout = Layout { format, compression, compression_level, keep_raw, ..LAYOUT.clone() };
    let mut object = ObjectEncoder::new(&layout).expect("a layout that can be written");
    work(move || {
        for placed in &INPUT.records {
            object.append(&placed.row());
        }
        object.finish().expect("an object")
    })
}
