//! Holding a lease: taking it, renewing it, writing its row, giving it up, and knowing when it is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::CancellationToken;

use super::{LeaseError, LeaseRow, LeaseStore, Stop, WorkerId};
use crate::ops::clock::Clock;
use crate::ops::telemetry::Complaint;

/// How often a lease is renewed before it would expire.
const RENEWALS: u32 = 3;

/// How leases are held: the same for all of a worker's.
#[derive(Clone)]
pub struct Holding {
    /// Where the rows are.
    pub store: Arc<dyn LeaseStore>,
    /// Tells how long ago a lease was renewed.
    pub clock: Arc<dyn Clock>,
    /// Who holds them.
    pub worker: WorkerId,
    /// How long a lease lasts without being renewed.
    pub failover: Duration,
}

/// A lease that this worker holds: the row as it last wrote it, and the right to write it again for as long as nobody
/// else has.
pub struct Lease {
    /// As the holder of the lease knows it: what only it changes is up to date, what renewals change may be older.
    row: LeaseRow,
    shared: Arc<Shared>,
}

/// What the holder of a lease and its renewal share.
struct Shared {
    holding: Holding,
    /// Held while the row is written.
    stored: AsyncMutex<Stored>,
    /// When the last write that succeeded was sent, by the monotonic clock.
    renewed_at: Mutex<Duration>,
    /// Up to when all is archived, if nothing is open.
    idle_through: Mutex<Option<Timestamp>>,
    lost: CancellationToken,
    /// Another has written the row.
    taken: AtomicBool,
    wanted: CancellationToken,
}

/// The row in the store, as far as is known.
struct Stored {
    row: LeaseRow,
    /// Writes on top of `row` that were not answered, or not yet: any one of them may stand there, or may come to. The
    /// call that sent one may have been cancelled.
    unanswered: Vec<LeaseRow>,
}

impl Lease {
    /// Takes the lease of the row that was looked at, whoever owned it; [`LeaseError::Conflict`] where the row has been
    /// written since. `now` is when it is taken; a take whose answer was lost can be tried again with the same.
    pub async fn take(holding: Holding, seen: LeaseRow, now: Timestamp) -> Result<Self, LeaseError> {
        let (worker, failover) = (holding.worker.clone(), holding.failover);
        let renewed_at = Mutex::new(holding.clock.monotonic());
        let shared = Arc::new(Shared {
            holding,
            stored: AsyncMutex::new(Stored { row: seen.clone(), unanswered: Vec::new() }),
            renewed_at,
            idle_through: Mutex::new(None),
            lost: CancellationToken::new(),
            taken: AtomicBool::new(false),
            wanted: CancellationToken::new(),
        });
        let mut lease = Self { row: seen, shared };
        let take = |row: &mut LeaseRow| {
            if row.owner.as_ref() != Some(&worker) {
                row.switches += 1;
            }
            row.owner = Some(worker.clone());
            row.caught_up = false;
            row.wanted_by = None;
            row.failover = Some(failover);
            row.taken_at = Some(now);
        };
        lease.write(take).await?;
        Ok(lease)
    }

    /// The row, as far as this worker alone changes it.
    pub fn row(&self) -> &LeaseRow {
        &self.row
    }

    /// Cancelled once the lease is known to be lost: someone else wrote the row, or it could not be renewed in time.
    /// Nothing that is written afterwards takes effect.
    pub fn lost(&self) -> CancellationToken {
        self.shared.lost.clone()
    }

    /// Whether another was seen to have written the row. Where the lease is lost and it is not, it could not be renewed.
    pub fn is_taken(&self) -> bool {
        self.shared.taken.load(Ordering::Relaxed)
    }

    /// Cancelled once another worker asks for the lease.
    pub fn wanted(&self) -> CancellationToken {
        self.shared.wanted.clone()
    }

    /// Tells the next renewals that everything up to `through` is archived; `None` while a batch is open.
    pub fn idle_through(&self, through: Option<Timestamp>) {
        *self.shared.idle_through.lock().unwrap_or_else(PoisonError::into_inner) = through;
    }

    /// Renews the lease for as long as it is held. Ends when it is given up or lost.
    pub fn keep(&self) -> impl Future<Output = ()> + Send + use<> {
        let shared = self.shared.clone();
        async move { shared.keep().await }
    }

    /// Gives the lease up, so that another worker need not wait for it to expire; `caught_up` where all that the shard
    /// held is in the archive, `stopped` where it is given up because of an error.
    pub async fn release(&mut self, caught_up: bool, stopped: Option<&Stop>) -> Result<(), LeaseError> {
        let release = |row: &mut LeaseRow| {
            row.owner = None;
            row.caught_up = caught_up;
            if caught_up || stopped.is_some() {
                row.stopped = stopped.cloned();
            }
        };
        self.write(release).await
    }

    /// Writes the row, changed, on condition that nobody else has written it. After [`LeaseError::Unavailable`] the same
    /// change can be asked for again: it must come to the same when it is made twice.
    pub(crate) async fn write(&mut self, change: impl Fn(&mut LeaseRow)) -> Result<(), LeaseError> {
        let mut stored = self.shared.stored.lock().await;
        self.shared.write(&mut stored, change).await?;
        self.row = stored.row.clone();
        Ok(())
    }
}

impl Shared {
    /// A failed condition may be our own doing, a write that took effect though its answer was lost; or another worker's
    /// who only asked for the lease. So the row is read once more, and it is ours for as long as it says what one of our
    /// own writes meant to say.
    async fn write(&self, stored: &mut Stored, change: impl Fn(&mut LeaseRow)) -> Result<(), LeaseError> {
        loop {
            let mut row = stored.row.clone();
            change(&mut row);
            row.counter += 1;
            let sent = self.holding.clock.monotonic();
            let is_sent_again = stored.unanswered.contains(&row);
            if !is_sent_again {
                stored.unanswered.push(row.clone());
            }
            match self.holding.store.replace(&row).await {
                Ok(()) => {
                    self.wrote(stored, row, sent);
                    return Ok(());
                }
                Err(LeaseError::Conflict { shard }) => {
                    let found = self.holding.store.get(&shard).await?;
                    if found.as_ref() == Some(&row) {
                        if is_sent_again {
                            // An earlier attempt wrote it: nobody knows how long ago the others saw that.
                            *stored = Stored { row, unanswered: Vec::new() };
                        } else {
                            self.wrote(stored, row, sent);
                        }
                        return Ok(());
                    }
                    let Some(found) = found.filter(|found| stored.is_ours(found, &self.holding.worker)) else {
                        self.taken.store(true, Ordering::Relaxed);
                        self.lost.cancel();
                        return Err(LeaseError::Conflict { shard });
                    };
                    if found.wanted_by.is_some() {
                        self.wanted.cancel();
                    }
                    *stored = Stored { row: found, unanswered: Vec::new() };
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn wrote(&self, stored: &mut Stored, row: LeaseRow, sent: Duration) {
        *stored = Stored { row, unanswered: Vec::new() };
        *self.renewed_at.lock().unwrap_or_else(PoisonError::into_inner) = sent;
    }

    fn renewed_at(&self) -> Duration {
        *self.renewed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the lease is lost if it is not renewed until then. Counted from when the last renewal was *sent*: whoever
    /// waits for the lease to expire has seen it later.
    fn deadline(&self) -> Duration {
        self.renewed_at() + self.holding.failover
    }

    async fn keep(&self) {
        let clock = &self.holding.clock;
        let every = self.holding.failover / RENEWALS;
        let mut complaint = Complaint::default();
        loop {
            let left = (self.renewed_at() + every).saturating_sub(clock.monotonic());
            clock.sleep(left.max(every / 10)).await;
            if clock.monotonic() < self.renewed_at() + every {
                // A commit has written the row meanwhile, which renews the lease as well.
                continue;
            }
            let renewed = tokio::select! {
                biased;
                renewed = self.renew() => renewed,
                () = clock.sleep(self.deadline().saturating_sub(clock.monotonic())) => Ok(Kept::Held),
            };
            match renewed {
                Ok(Kept::GivenUp) => return,
                Ok(Kept::Held) => complaint.clear(),
                Err(LeaseError::Lost { .. }) => self.lost.cancel(),
                // Whether it can pass or not: it is tried again until the lease has run out.
                Err(error) if complaint.is_due(clock.monotonic()) => {
                    tracing::warn!(%error, "the lease could not be renewed; it is tried again until the lease has run out, and another worker may take it");
                }
                Err(_) => {}
            }
            if clock.monotonic() >= self.deadline() {
                self.lost.cancel();
            }
            if self.lost.is_cancelled() {
                return;
            }
        }
    }

    async fn renew(&self) -> Result<Kept, LeaseError> {
        let mut stored = self.stored.lock().await;
        if stored.row.owner.as_ref() != Some(&self.holding.worker) {
            return Ok(Kept::GivenUp);
        }
        let through = *self.idle_through.lock().unwrap_or_else(PoisonError::into_inner);
        let renew = |row: &mut LeaseRow| {
            row.read_through = row.read_through.max(through);
            if through.is_some() {
                // Whatever it had stopped at, it was read to its end since.
                row.stopped = None;
            }
        };
        self.write(&mut stored, renew).await?;
        Ok(Kept::Held)
    }
}

enum Kept {
    Held,
    GivenUp,
}

impl Stored {
    /// Whether what stands in the store is what we wrote, or meant to, with nothing new but that someone asks for it. A row
    /// that is about to be taken is not: where it moves, its owner is alive.
    fn is_ours(&self, found: &LeaseRow, me: &WorkerId) -> bool {
        let same = |ours: &LeaseRow| {
            *found == LeaseRow { counter: found.counter, wanted_by: found.wanted_by.clone(), ..ours.clone() }
        };
        found.owner.as_ref() == Some(me)
            && found.counter > self.row.counter
            && std::iter::once(&self.row).chain(&self.unanswered).any(same)
    }
}

/// Asks the owner of the row that was looked at for its lease; [`LeaseError::Conflict`] where the row has been written
/// since.
pub async fn ask_for(store: &dyn LeaseStore, seen: &LeaseRow, worker: &WorkerId) -> Result<(), LeaseError> {
    let asked = LeaseRow { counter: seen.counter + 1, wanted_by: Some(worker.clone()), ..seen.clone() };
    store.replace(&asked).await
}
