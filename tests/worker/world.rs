//! A worker over in-memory ports, with faults on order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use auditlake::app::Ports;
use auditlake::archive::manifest::Manifest;
use auditlake::archive::{ArchiveError, ArchiveStore, Listed, MemoryArchive, Put, Stat, identity};
use auditlake::dedupe::memory::MemoryClaims;
use auditlake::dedupe::{Claim, ClaimError, Claims, Verdict};
use auditlake::lease::memory::MemoryLeases;
use auditlake::lease::{LeaseError, LeaseRow, LeaseStore, Listing, WorkerId};
use auditlake::ops::clock::{Clock as _, PausedClock};
use auditlake::source::memory::MemorySource;
use auditlake::source::{ShardId, Source};
use auditlake::verify::rebuild::{RebuildError, lease_rows};
use auditlake::verify::{ObjectRows, Options, Report, verify};
use auditlake::worker::{Settings, Shutdown, Summary, Totals, Worker};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

pub(crate) use super::settings::{ARCHIVE_ID, record, record_at, settings};

/// What the faulty ports do to the next calls.
#[derive(Default)]
pub(crate) struct Faults {
    /// Puts of keys that begin so fail, for as long as it is set.
    pub(crate) refuse_puts: Mutex<Option<String>>,
    /// So do those of keys that have this in them.
    pub(crate) refuse_puts_with: Mutex<Option<String>>,
    /// Of this many puts, every other one takes effect and loses its answer.
    pub(crate) lost_puts: AtomicU64,
    /// Of this many lease writes, the same.
    pub(crate) lost_writes: AtomicU64,
    /// Before the write of this number (from 1), another worker takes the lease.
    pub(crate) steal_at: AtomicU64,
    pub(crate) writes: AtomicU64,
    /// How often all rows, or one, were read.
    pub(crate) scans: AtomicU64,
    pub(crate) reads: AtomicU64,
    /// The lease table can't be reached, for as long as it is set.
    pub(crate) leases_away: AtomicBool,
    /// The lease table is gone.
    pub(crate) no_lease_table: AtomicBool,
    /// The row of this shard can't be read.
    pub(crate) damaged_row: Mutex<Option<ShardId>>,
    /// It gives no answers at all.
    pub(crate) leases_mute: AtomicBool,
    /// The archive lists nothing: it gives no answer.
    pub(crate) listings_mute: AtomicBool,
    /// A put keeps its thread busy for more than a second.
    pub(crate) busy_puts: AtomicBool,
    /// So many times, the rows can't be listed.
    pub(crate) failing_scans: AtomicU64,
    /// The next batch that is prepared is, and nobody is ever told.
    pub(crate) mute_prepare: AtomicBool,
    /// Claims are answered over a network.
    pub(crate) slow_claims: AtomicBool,
    /// The flush of the claims of this number (from 1) finds that others count, and every one behind it.
    pub(crate) claims_lost_at: AtomicU64,
    pub(crate) flushes: AtomicU64,
    /// The next lease that is given up is taken at once by another worker, and who gave it up hears nothing of it.
    pub(crate) steal_released: AtomicBool,
    /// The next row that is to be removed is taken by another worker just before.
    pub(crate) steal_removed: AtomicBool,
}

/// Whether this call's answer is lost: every other one's, as long as there are any left to lose.
fn is_lost(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok_and(|left| left % 2 == 0)
}

impl Faults {
    fn damaged(&self, shard: &ShardId) -> Option<LeaseError> {
        let is_damaged = self.damaged_row.lock().unwrap().as_ref() == Some(shard);
        is_damaged.then(|| LeaseError::Damaged { shard: shard.clone(), reason: "it was edited".into() })
    }

    async fn reach_leases(&self) -> Result<(), LeaseError> {
        if self.leases_mute.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.no_lease_table.load(Ordering::SeqCst) {
            return Err(LeaseError::Lost { reason: "there is no table".into() });
        }
        let away = self.leases_away.load(Ordering::SeqCst);
        if away { Err(LeaseError::Unavailable { reason: "it is away".into() }) } else { Ok(()) }
    }
}

struct FaultyArchive(Arc<MemoryArchive>, Arc<Faults>);

#[async_trait]
impl ArchiveStore for FaultyArchive {
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<Put, ArchiveError> {
        let unavailable = |reason: &str| ArchiveError::Unavailable { key: key.into(), reason: reason.into() };
        let is_in_key = |part: &String| key.contains(part);
        if self.1.refuse_puts.lock().unwrap().as_ref().is_some_and(|prefix| key.starts_with(prefix))
            || self.1.refuse_puts_with.lock().unwrap().as_ref().is_some_and(is_in_key)
        {
            return Err(unavailable("refused"));
        }
        if self.1.busy_puts.load(Ordering::SeqCst) {
            #[allow(clippy::disallowed_methods)] // stands for a long compression
            tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(1500)));
        }
        let put = self.0.put_if_absent(key, body).await?;
        if is_lost(&self.1.lost_puts) { Err(unavailable("the answer was lost")) } else { Ok(put) }
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, ArchiveError> {
        self.0.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ArchiveError> {
        if self.1.listings_mute.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.0.list(prefix).await
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>, ArchiveError> {
        self.0.stat(key).await
    }
}

struct FaultyLeases(Arc<MemoryLeases>, Arc<Faults>);

#[async_trait]
impl LeaseStore for FaultyLeases {
    async fn look(&self) -> Result<Listing, LeaseError> {
        self.1.reach_leases().await?;
        self.1.scans.fetch_add(1, Ordering::SeqCst);
        let fails = |left: u64| left.checked_sub(1);
        if self.1.failing_scans.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails).is_ok() {
            return Err(LeaseError::Unavailable { reason: "the scan failed".into() });
        }
        let Listing { rows, mut damaged } = self.0.look().await?;
        let (rows, unreadable): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| self.1.damaged(&row.shard).is_none());
        damaged.extend(unreadable.iter().filter_map(|row| self.1.damaged(&row.shard)));
        Ok(Listing { rows, damaged })
    }

    async fn get(&self, shard: &ShardId) -> Result<Option<LeaseRow>, LeaseError> {
        self.1.reach_leases().await?;
        self.1.reads.fetch_add(1, Ordering::SeqCst);
        if let Some(damaged) = self.1.damaged(shard) {
            return Err(damaged);
        }
        self.0.get(shard).await
    }

    async fn create(&self, row: &LeaseRow) -> Result<(), LeaseError> {
        self.1.reach_leases().await?;
        self.0.create(row).await
    }

    async fn replace(&self, row: &LeaseRow) -> Result<(), LeaseError> {
        self.1.reach_leases().await?;
        let write = 1 + self.1.writes.fetch_add(1, Ordering::SeqCst);
        if write == self.1.steal_at.load(Ordering::SeqCst) {
            let mut stolen = self.0.get(&row.shard).await?.unwrap();
            stolen.counter += 1;
            stolen.owner = Some(WorkerId::new("thief"));
            self.0.replace(&stolen).await?;
        }
        self.0.replace(row).await?;
        if row.pending.is_some() && self.1.mute_prepare.swap(false, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if row.owner.is_none() && self.1.steal_released.swap(false, Ordering::SeqCst) {
            let thief = Some(WorkerId::new("thief"));
            self.0.replace(&LeaseRow { counter: row.counter + 1, owner: thief, ..row.clone() }).await?;
            return Err(LeaseError::Unavailable { reason: "the answer was lost".into() });
        }
        if is_lost(&self.1.lost_writes) {
            return Err(LeaseError::Unavailable { reason: "the answer was lost".into() });
        }
        Ok(())
    }

    async fn remove(&self, row: &LeaseRow) -> Result<(), LeaseError> {
        self.1.reach_leases().await?;
        if self.1.steal_removed.swap(false, Ordering::SeqCst) {
            let stored = self.0.get(&row.shard).await?.unwrap();
            let thief = Some(WorkerId::new("thief"));
            self.0.replace(&LeaseRow { counter: stored.counter + 1, owner: thief, ..stored }).await?;
        }
        self.0.remove(row).await
    }

    fn sole_worker(&self) -> bool {
        self.0.sole_worker()
    }
}

struct FaultyClaims(Arc<MemoryClaims>, Arc<Faults>);

#[async_trait]
impl Claims for FaultyClaims {
    async fn claim(&self, shard: &ShardId, claims: &[Claim<'_>], now: Timestamp) -> Result<Vec<Verdict>, ClaimError> {
        if self.1.slow_claims.load(Ordering::SeqCst) {
            #[allow(clippy::disallowed_methods)] // a client's own timer
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.0.claim(shard, claims, now).await
    }

    async fn flush(&self) -> Result<(), ClaimError> {
        let flush = 1 + self.1.flushes.fetch_add(1, Ordering::SeqCst);
        let lost_at = self.1.claims_lost_at.load(Ordering::SeqCst);
        if lost_at > 0 && flush >= lost_at {
            Err(ClaimError::Lost("others count".into()))
        } else {
            self.0.flush().await
        }
    }
}

/// Everything that outlives a worker.
pub(crate) struct World {
    pub(crate) source: MemorySource,
    pub(crate) archive: Arc<MemoryArchive>,
    pub(crate) leases: Arc<MemoryLeases>,
    pub(crate) claims: Arc<MemoryClaims>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) totals: Arc<Totals>,
    pub(crate) shutdown: Shutdown,
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<PausedClock>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let base: Timestamp = "2026-11-21T09:31:00Z".parse().unwrap();
        let archive = Arc::new(MemoryArchive::new());
        identity::open_or_create(archive.as_ref(), base, || ARCHIVE_ID).await.unwrap();
        Self {
            source: MemorySource::new(),
            archive,
            leases: Arc::new(MemoryLeases::for_a_sole_worker()),
            claims: Arc::new(MemoryClaims::new()),
            faults: Arc::default(),
            totals: Arc::default(),
            shutdown: Shutdown::default(),
            settings: settings(),
            clock: Arc::new(PausedClock::start(base)),
        }
    }

    fn worker(&self) -> Worker {
        self.worker_with(&self.faults, &self.shutdown, self.settings.clone())
    }

    /// A worker with faults, an end and a name of its own.
    pub(crate) fn worker_with(&self, faults: &Arc<Faults>, shutdown: &Shutdown, settings: Settings) -> Worker {
        self.worker_on(Arc::new(self.source.clone()), faults, shutdown, settings)
    }

    /// The same, on another source.
    pub(crate) fn worker_on(
        &self,
        source: Arc<dyn Source>,
        faults: &Arc<Faults>,
        shutdown: &Shutdown,
        settings: Settings,
    ) -> Worker {
        let ports = Ports {
            source,
            claims: Arc::new(FaultyClaims(self.claims.clone(), faults.clone())),
            archive: Arc::new(FaultyArchive(self.archive.clone(), faults.clone())),
            leases: Arc::new(FaultyLeases(self.leases.clone(), faults.clone())),
            clock: self.clock.clone(),
        };
        Worker::new(ports, settings, shutdown.clone(), self.totals.clone())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    pub(crate) async fn catch_up(&self) -> Summary {
        let shards = self.source.shards().await.unwrap();
        self.worker().catch_up(shards).await.unwrap()
    }

    /// Runs the daemon beside `meanwhile`, then stops it.
    pub(crate) async fn run_while(&self, meanwhile: impl Future<Output = ()>) -> Summary {
        let worker = self.worker();
        let stop = async {
            meanwhile.await;
            self.shutdown.graceful.cancel();
        };
        tokio::join!(worker.run(), stop).0.unwrap()
    }

    pub(crate) fn put(&self, shard: &str, record: &Value) {
        self.put_at(shard, record, self.now());
    }

    pub(crate) fn put_at(&self, shard: &str, record: &Value, arrival: Timestamp) {
        self.source.append(&ShardId::new(shard), record.to_string(), arrival);
    }

    pub(crate) async fn row(&self, shard: &str) -> LeaseRow {
        self.leases.get(&ShardId::new(shard)).await.unwrap().unwrap()
    }

    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        self.archive.list(prefix).await.unwrap().into_iter().map(|listed| listed.key).collect()
    }

    /// Every row of the objects under `prefix`, with how often each `log_id` (or position) stands there.
    pub(crate) async fn archived(&self) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        for key in self.keys("events/").await {
            let body = self.archive.get(&key).await.unwrap().unwrap();
            for line in String::from_utf8(body.to_vec()).unwrap().lines() {
                let row: Value = serde_json::from_str(line).unwrap();
                *found.entry(row["log_id"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
        found
    }

    /// How many records of a shard are archived, as its manifests tell.
    pub(crate) async fn archived_in(&self, shard: &str) -> u64 {
        let manifests = self.manifests().await;
        manifests.iter().filter(|found| found.shard.as_str() == shard).map(|found| found.counts.archived).sum()
    }

    pub(crate) async fn manifests(&self) -> Vec<Manifest> {
        let mut manifests = Vec::new();
        for key in self.keys("_manifests/").await {
            manifests.push(serde_json::from_slice(&self.archive.get(&key).await.unwrap().unwrap()).unwrap());
        }
        manifests
    }

    /// The rows that `rebuild-state` makes.
    pub(crate) async fn rows_from_the_archive(&self) -> Result<Vec<LeaseRow>, RebuildError> {
        let (layout, window) = (&self.settings.layout, self.settings.limits.window);
        lease_rows(self.archive.as_ref(), ARCHIVE_ID, layout, window).await
    }

    pub(crate) async fn proof(&self) -> Report {
        let options = Options::default();
        let leases = Some(self.leases.as_ref() as &dyn LeaseStore);
        verify(self.archive.as_ref(), leases, Arc::new(ObjectRows), &options, &mut |_| ()).await.unwrap()
    }

    pub(crate) async fn assert_proved(&self) {
        let report = self.proof().await;
        assert!(report.is_intact() && report.tail_proved, "{report:#?}");
    }
}
