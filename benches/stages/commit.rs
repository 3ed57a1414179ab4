//! One batch's commit, by the worker itself: it gathers all records, and is held where it makes their claims durable, the
//! first step of the protocol. What is measured comes behind: claims, prepare, put, manifest, commit, and the lease given up.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use auditlake::app::Ports;
use auditlake::archive::{ArchiveStore, LocalArchive, MemoryArchive};
use auditlake::batch::Limits;
use auditlake::dedupe::memory::MemoryClaims;
use auditlake::dedupe::{Claim, ClaimError, Claims, Verdict};
use auditlake::lease::embedded::EmbeddedLeases;
use auditlake::lease::memory::MemoryLeases;
use auditlake::lease::{LeaseStore, WorkerId};
use auditlake::ops::clock::SystemClock;
use auditlake::ops::retry::RetryPolicy;
use auditlake::source::memory::MemorySource;
use auditlake::source::{InitialPosition, ShardId, Source};
use auditlake::worker::{Settings, Shutdown, Summary, Totals, Worker, WorkerError};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::stages::{INPUT, KEY, LAYOUT, SHARD, Work, embedded_claims, work};

/// Payloads of so many lines, as an aggregating producer sends them.
const LINES: usize = 100;

/// On the local disk, with embedded state.
pub(crate) fn local() -> Work {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let archive = LocalArchive::open(directory.path().join("archive")).expect("an archive");
    let leases = EmbeddedLeases::open(directory.path().join("leases")).expect("leases");
    let committing = committing(embedded_claims(&directory), archive, leases);
    work(move || (committing(), directory))
}

/// In memory: what of it is ours alone.
pub(crate) fn memory() -> Work {
    committing(MemoryClaims::new(), MemoryArchive::new(), MemoryLeases::for_a_sole_worker())
}

/// A worker about to commit.
struct Held {
    runtime: Runtime,
    worker: Pin<Box<dyn Future<Output = Result<Summary, WorkerError>>>>,
    gate: Arc<Gate>,
    totals: Arc<Totals>,
    /// Kept to the end: to forget all claims is no part of a commit.
    ports: Ports,
}

/// Where the first flush waits.
#[derive(Default)]
struct Gate {
    reached: Notify,
    opened: Notify,
}

struct GatedClaims<C> {
    claims: C,
    gate: Arc<Gate>,
}

#[async_trait]
impl<C: Claims> Claims for GatedClaims<C> {
    async fn claim(&self, shard: &ShardId, claims: &[Claim<'_>], now: Timestamp) -> Result<Vec<Verdict>, ClaimError> {
        self.claims.claim(shard, claims, now).await
    }

    async fn flush(&self) -> Result<(), ClaimError> {
        self.gate.reached.notify_one();
        self.gate.opened.notified().await;
        // It stays open for the second one.
        self.gate.opened.notify_one();
        self.claims.flush().await
    }
}

fn committing(
    claims: impl Claims + 'static,
    archive: impl ArchiveStore + 'static,
    leases: impl LeaseStore + 'static,
) -> Work {
    let (gate, totals) = (Arc::<Gate>::default(), Arc::<Totals>::default());
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let source = source();
    let shards = runtime.block_on(source.shards()).expect("shards");
    let clock = runtime.block_on(async { SystemClock::start() });
    let ports = Ports {
        source: Arc::new(source),
        claims: Arc::new(GatedClaims { claims, gate: gate.clone() }),
        archive: Arc::new(archive),
        leases: Arc::new(leases),
        clock: Arc::new(clock),
    };
    let worker = Worker::new(ports.clone(), settings(), Shutdown::default(), totals.clone());
    let mut worker = Box::pin(worker.catch_up(shards));
    runtime.block_on(async {
        tokio::select! {
            ended = &mut worker => panic!("it ended before it committed: {:?}", ended.map(|summary| summary.failures)),
            () = gate.reached.notified() => {}
        }
    });
    let held = Held { runtime, worker, gate, totals, ports };
    work(move || held.commit())
}

impl Held {
    fn commit(self) -> impl Sized {
        let Self { runtime, worker, gate, totals, ports } = self;
        gate.opened.notify_one();
        let summary = runtime.block_on(worker).expect("a summary");
        assert_eq!((summary.failures.len(), totals.committed().batches), (0, 1), "one batch was committed");
        (runtime, ports)
    }
}

/// A stream of one shard.
fn source() -> MemorySource {
    let source = MemorySource::new();
    source.add_shard(&SHARD, Vec::new());
    for lines in INPUT.payloads.chunks(LINES) {
        let data = lines.iter().flat_map(|line| [line.data, b"\n"]).collect::<Vec<_>>().concat();
        source.append(&SHARD, Bytes::from(data), Timestamp::UNIX_EPOCH);
    }
    source
}

fn settings() -> Settings {
    let no_limit = u64::MAX;
    Settings {
        worker: WorkerId::new("bench"),
        archive_id: Uuid::from_u128(7),
        identity: *KEY,
        layout: LAYOUT.clone(),
        limits: Limits {
            window: Duration::from_mins(30),
            max_records: no_limit,
            max_bytes: no_limit,
            max_memory: no_limit,
        },
        memory: no_limit,
        concurrency: 1,
        poll: Duration::from_secs(1),
        failover: Duration::from_secs(10),
        initial: InitialPosition::TrimHorizon,
        archive_made_at: Timestamp::UNIX_EPOCH,
        retry: RetryPolicy { give_up_after: None },
    }
}
