//! One shard: read, gather, commit, for as long as its lease is held.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument as _;

use super::board::Seat;
use super::commit::Commit;
use super::open_batch::OpenBatch;
use super::outcome::{Outcome, ShardError};
use super::standing::Standing;
use super::{Settings, Shutdown, Totals};
use crate::app::Ports;
use crate::batch::{CutReason, Window};
use crate::digest::Digest;
use crate::lease::{Gap, Lease, LeaseError, LeftOver, Pending, Stop};
use crate::ops::blocking::long_work;
use crate::ops::planted::{Bug, planted};
use crate::ops::retry::retry;
use crate::source::{Next, Page, Payload, Reading, ShardId, ShardReader, SourceError, Until};

/// What wakes the loop.
enum Wake {
    Page(Page),
    WindowOver,
    /// The worker stops, or another one asks for the lease.
    Stop(CutReason),
}

/// Reads one shard and commits its batches.
pub(super) struct ShardTask {
    pub(super) ports: Ports,
    pub(super) settings: Arc<Settings>,
    pub(super) shutdown: Shutdown,
    pub(super) totals: Arc<Totals>,
    /// Where others see how it does.
    pub(super) seat: Seat,
    pub(super) lease: Lease,
    pub(super) until: Until,
    /// The newest manifests of its parents, where it has none of its own yet.
    pub(super) parent_heads: BTreeMap<ShardId, Digest>,
    pub(super) turn: Turn,
    /// The shards that came from it, once it has ended.
    pub(super) children: Vec<ShardId>,
}

/// A shard's turn among those that are read at the same time. It is given up while the shard has nothing to do, so that
/// any number of shards can be followed with the memory of a few.
pub(super) struct Turn {
    turns: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// Waits for a turn.
    pub(super) async fn first(turns: Arc<Semaphore>) -> Self {
        let mut turn = Self { turns, held: None };
        turn.take().await;
        turn
    }

    async fn take(&mut self) {
        if self.held.is_none() {
            self.held = self.turns.clone().acquire_owned().await.ok();
        }
    }

    fn give_up(&mut self) {
        self.held = None;
    }
}

impl ShardTask {
    /// Finishes the batch under way, if there is one, then reads on; gives the lease up at the end, whatever it is.
    pub(super) async fn run(&mut self) -> Result<Outcome, ShardError> {
        let lost = self.lease.lost();
        let outcome = tokio::select! {
            biased;
            () = self.shutdown.abort.clone().cancelled_owned() => Ok(Outcome::Stopped { caught_up: false }),
            () = lost.clone().cancelled_owned(), if !self.is_sole() => Ok(self.lost()),
            outcome = self.work() => outcome,
        };
        if lost.is_cancelled() && !self.is_sole() {
            let checkpoint = &self.lease.row().checkpoint;
            tracing::warn!(shard = %self.shard(), %checkpoint, "the lease is lost; its next owner goes on from the last commit");
            return Ok(self.lost());
        }
        // A stream's shard ends before it goes: as long as its end is not archived, more may come and go unread.
        let may_just_go = self.ports.source.shards_just_go();
        let caught_up = may_just_go && matches!(outcome, Ok(Outcome::Done | Outcome::Stopped { caught_up: true }));
        let stopped = outcome.as_ref().err().map(|error| Stop::new(self.ports.clock.now(), error));
        match (outcome, self.release(caught_up, stopped.as_ref()).await) {
            // Whoever took the lease away has it now, and the reason is in the first error.
            (Err(error), _) => Err(error),
            (Ok(outcome), released) => released.map(|()| outcome).map_err(ShardError::from),
        }
    }

    fn lost(&self) -> Outcome {
        Outcome::Lost { taken: self.lease.is_taken() }
    }

    /// No other worker can be alive: a lease that is lost is a fault, and none is ever asked for.
    fn is_sole(&self) -> bool {
        self.ports.leases.sole_worker()
    }

    async fn release(&mut self, caught_up: bool, stopped: Option<&Stop>) -> Result<(), LeaseError> {
        let (policy, clock, abort) = (self.settings.retry, self.ports.clock.as_ref(), &self.shutdown.abort);
        let is_sole = self.is_sole();
        let lease = tokio::sync::Mutex::new(&mut self.lease);
        let release = || async { lease.lock().await.release(caught_up, stopped).await };
        match retry(policy, clock, abort, LeaseError::may_pass, release).await {
            // Another worker has it: it was given up before the answer came, or had run out.
            Err(LeaseError::Conflict { .. }) if !is_sole => Ok(()),
            released => released,
        }
    }

    /// Proves that the lease is held still, before a loss is told. Who slept while others archived the shard may find that
    /// the source has let it go since.
    async fn renew(&mut self) -> Result<(), LeaseError> {
        let (policy, clock, abort) = (self.settings.retry, self.ports.clock.as_ref(), &self.shutdown.abort);
        let lease = tokio::sync::Mutex::new(&mut self.lease);
        let renew = || async { lease.lock().await.write(|_| ()).await };
        retry(policy, clock, abort, LeaseError::may_pass, renew).await
    }

    /// Writes down that the source no longer has this shard, though it was not archived to its end: a batch of nothing
    /// but the gap. Should the shard come back, it is read on from where it was.
    pub(super) async fn record_loss(&mut self) -> Result<Outcome, ShardError> {
        if let Some(pending) = self.lease.row().pending.clone() {
            // It was told, or the shard's end was, by a worker that did not live to see it.
            self.finish_pending(&pending).await?;
            self.release(true, None).await?;
            return Ok(Outcome::Done);
        }
        let now = self.ports.clock.now();
        let gap = Gap { after: self.lease.row().checkpoint.clone(), from: None, until: now };
        let mut batch = self.begin(now)?;
        tracing::error!(shard = %self.shard(), after = %gap.after,
            "the source no longer has this shard, and it was not archived to its end: find out what removed it");
        batch.gap = Some(gap);
        self.commit(batch, false, CutReason::Gap).await?;
        self.release(true, None).await?;
        Ok(Outcome::Done)
    }

    async fn work(&mut self) -> Result<Outcome, ShardError> {
        if planted(Bug::PendingDropped) {
            self.lease.write(|row| row.pending = None).await?;
        }
        if let Some(pending) = self.lease.row().pending.clone() {
            self.finish_pending(&pending).await?;
        }
        if let Some(left_over) = self.lease.row().left_over.clone() {
            self.take_up(&left_over).await?;
        }
        if self.lease.row().ended {
            return Ok(Outcome::Done);
        }
        self.read_on().await
    }

    /// Reads exactly the range of a prepared batch again and commits it.
    async fn finish_pending(&mut self, pending: &Pending) -> Result<(), ShardError> {
        let shard = self.shard().clone();
        tracing::info!(%shard, batch_seq = pending.batch_seq, range = %pending.range, "finishing a batch under way");
        let mut batch = OpenBatch::again(pending, self.totals.clone())?;
        let standing = Standing::of(self.ports.archive.as_ref(), self.lease.row()).await?;
        if pending.range.after != pending.range.through {
            let mut reader = self
                .open(Reading {
                    after: pending.range.after.clone(),
                    read_through: None,
                    until: Until::Through(pending.range.through.clone()),
                    arrival: Some(pending.arrival),
                })
                .await?;
            loop {
                let page = reader.next().await?;
                self.account(&page);
                self.gather_all(&mut batch, &page.payloads, standing.as_ref()).await?;
                batch.read_through = page.read_through;
                match page.next {
                    Next::More => {}
                    Next::Reached => break,
                    Next::CaughtUp | Next::ShardEnd => return Err(ShardError::batch_lost(self.lease.row())),
                }
            }
        }
        self.commit(batch, pending.shard_end, CutReason::Resumed).await
    }

    /// Reads to where the objects end that stand of a batch which nothing else tells of, and commits a batch of that: its
    /// objects are the very ones.
    async fn take_up(&mut self, left_over: &LeftOver) -> Result<(), ShardError> {
        let standing = Standing::of(self.ports.archive.as_ref(), self.lease.row()).await?;
        let (after, read_through) = (self.lease.row().checkpoint.clone(), self.lease.row().read_through);
        let mut reader =
            self.open(Reading { after: after.clone(), read_through, until: Until::Forever, arrival: None }).await?;
        let mut open: Option<OpenBatch> = None;
        loop {
            let page = reader.next().await?;
            self.account(&page);
            let within = page.payloads.partition_point(|payload| payload.position <= left_over.through);
            let payloads = &page.payloads[..within];
            if let (Some(gap), true) = (&page.gap, open.is_none()) {
                self.renew().await?;
                tracing::error!(shard = %self.shard(), after = %gap.after, "records are missing in front of a batch under way");
            }
            if let Some(first) = payloads.first() {
                let totals = self.totals.clone();
                let begun = || OpenBatch::taking_up(after.clone(), left_over, first.arrival, totals);
                let mut batch = open.take().map_or_else(begun, Ok)?;
                batch.gap = batch.gap.take().or_else(|| page.gap.clone());
                self.gather_all(&mut batch, payloads, standing.as_ref()).await?;
                batch.read_through = payloads.last().map_or(page.read_through, |last| last.arrival);
                open = Some(batch);
            }
            let is_reached = payloads.last().is_some_and(|last| last.position == left_over.through);
            match open.take_if(|_| is_reached) {
                Some(batch) => return self.commit(batch, false, CutReason::Resumed).await,
                None if page.next == Next::More && within == page.payloads.len() => {}
                None => return Err(ShardError::batch_lost(self.lease.row())),
            }
        }
    }

    async fn read_on(&mut self) -> Result<Outcome, ShardError> {
        let (after, read_through) = (self.lease.row().checkpoint.clone(), self.lease.row().read_through);
        let mut reader = self.open(Reading { after, read_through, until: self.until.clone(), arrival: None }).await?;
        let mut open: Option<OpenBatch> = None;
        let mut idle = false;
        loop {
            self.seat.turn(open.as_ref());
            let window = open.as_ref().map(|batch| batch.window);
            let wake = match self.wait(reader.as_mut(), window, idle).await {
                Ok(wake) => wake,
                Err(error) => {
                    // What was read before the fault has claimed its identities: archived, it holds up no copy of it.
                    self.close(open, CutReason::Fault).await?;
                    return Err(error.into());
                }
            };
            match wake {
                Wake::Page(page) => {
                    self.account(&page);
                    self.seat.reads_on();
                    if let Some(gap) = &page.gap {
                        open = self.meet_gap(open, gap, &page.payloads).await?;
                    }
                    open = self.gather(open, &page.payloads).await?;
                    if let Some(batch) = &mut open {
                        batch.read_through = page.read_through;
                    }
                    match page.next {
                        Next::More => idle = false,
                        Next::CaughtUp => {
                            let moves = planted(Bug::EmptyPageMovesCheckpoint) && page.payloads.is_empty();
                            if let Some(through) = open.as_ref().filter(|_| moves).map(|batch| batch.through.clone()) {
                                self.lease.write(|row| row.checkpoint = through.clone()).await?;
                            }
                            if open.is_none() {
                                self.lease.idle_through(Some(page.read_through));
                                self.seat.idle_through(page.read_through);
                            }
                            if !std::mem::replace(&mut idle, true) {
                                tracing::debug!(shard = %self.shard(), "caught up");
                            }
                        }
                        Next::Reached => return self.close(open, CutReason::Target).await.map(|()| Outcome::Done),
                        Next::ShardEnd => return self.end(open, &page).await.map(|()| Outcome::Done),
                    }
                }
                Wake::WindowOver => {
                    self.close(open.take(), CutReason::Window).await?;
                }
                Wake::Stop(reason) => {
                    self.close(open, reason).await?;
                    return Ok(Outcome::Stopped { caught_up: idle });
                }
            }
        }
    }

    /// The next page, or that the clock has closed the window, or that the worker stops. A shard that is caught up is
    /// asked again after a pause; only then does the clock close its window: before, there may be more of it to read.
    async fn wait(
        &mut self,
        reader: &mut dyn ShardReader,
        open: Option<Window>,
        idle: bool,
    ) -> Result<Wake, SourceError> {
        let clock = self.ports.clock.clone();
        let closes_in = open.map(|window| self.settings.limits.closes_in(window, clock.now()));
        if idle && closes_in == Some(Duration::ZERO) {
            self.turn.take().await;
            return Ok(Wake::WindowOver);
        }
        let (graceful, wanted) = (self.shutdown.graceful.clone(), self.lease.wanted());
        // Who reads up to a target is done soon, and gives the lease to whoever asked for it then.
        let yields = self.until == Until::Forever && !self.is_sole();
        let next = async {
            if idle {
                self.turn.give_up();
                clock.sleep(closes_in.map_or(self.settings.poll, |left| left.min(self.settings.poll))).await;
                self.seat.rest();
                self.turn.take().await;
                self.seat.turns_again();
            }
            reader.next().await.map(Wake::Page)
        };
        tokio::select! {
            biased;
            () = graceful.cancelled() => Ok(Wake::Stop(CutReason::Stop)),
            () = wanted.cancelled(), if yields => Ok(Wake::Stop(CutReason::Handover)),
            page = next => page,
        }
    }

    /// A gap begins a batch of its own, so that the manifest says what is missing in front of it. Where nothing stands
    /// behind the gap, it is committed at once, as a batch of nothing else: told now, and not in front of a payload that
    /// comes long after it.
    async fn meet_gap(
        &mut self,
        open: Option<OpenBatch>,
        gap: &Gap,
        payloads: &[Payload],
    ) -> Result<Option<OpenBatch>, ShardError> {
        self.close(open, CutReason::Gap).await?;
        self.renew().await?;
        tracing::error!(shard = %self.shard(), after = %gap.after, from = ?gap.from, until = %gap.until,
            "records are missing: the source no longer had them when they were asked for; Temporal Cloud keeps them for \
             30 days: archive that time as files");
        let mut batch = self.begin(payloads.first().map_or(gap.until, |first| first.arrival))?;
        batch.gap = Some(gap.clone());
        if payloads.is_empty() {
            self.commit(batch, false, CutReason::Gap).await?;
            return Ok(None);
        }
        Ok(Some(batch))
    }

    /// Commits the open batch, if there is one.
    pub(super) async fn close(&mut self, open: Option<OpenBatch>, reason: CutReason) -> Result<(), ShardError> {
        let Some(batch) = open else { return Ok(()) };
        self.commit(batch, false, reason).await
    }

    /// Commits the shard's end, with what was open.
    async fn end(&mut self, open: Option<OpenBatch>, page: &Page) -> Result<(), ShardError> {
        let batch = open.map_or_else(|| self.begin(page.read_through), Ok)?;
        self.children = self.children_of_shard().await;
        self.commit(batch, true, CutReason::ShardEnd).await
    }

    /// What the source knows of the shards that came from this one. They are written into its row for people to see; they
    /// are found and read without that, so not knowing them holds up nothing.
    async fn children_of_shard(&self) -> Vec<ShardId> {
        let listed = self.ports.source.shards().await.unwrap_or_default();
        let children = listed.into_iter().filter(|shard| shard.parents.contains(self.shard()));
        children.map(|shard| shard.id).collect()
    }

    async fn commit(&mut self, batch: OpenBatch, shard_end: bool, cut: CutReason) -> Result<(), ShardError> {
        let row = self.lease.row();
        let batch = long_work(|| batch.finish(&row.shard, row.batch_seq, shard_end))?;
        let started = self.ports.clock.monotonic();
        let commit = Commit {
            ports: &self.ports,
            settings: &self.settings,
            abort: &self.shutdown.abort,
            lease: &mut self.lease,
            seat: &self.seat,
            parent_heads: &self.parent_heads,
            children: &self.children,
            batch: &batch,
        };
        let pending = &batch.pending;
        let span = tracing::error_span!("commit", batch_seq = pending.batch_seq, range = %pending.range);
        commit.run().instrument(span).await?;
        self.totals.add(&batch.tally);
        let took = self.ports.clock.monotonic().saturating_sub(started);
        self.seat.committed(self.lease.row(), &batch, cut, took);
        let counts = &batch.tally.counts;
        tracing::info!(
            shard = %self.lease.row().shard,
            batch_seq = batch.pending.batch_seq,
            range = %batch.pending.range,
            cut = cut.as_str(),
            records = counts.records,
            archived = counts.archived,
            duplicates = counts.duplicates,
            conflicts = counts.conflicts,
            rejected = counts.rejected,
            objects = batch.objects.len(),
            bytes = batch.tally.object_bytes,
            commit_ms = took.as_millis() as u64,
            "batch committed"
        );
        Ok(())
    }

    async fn open(&self, reading: Reading) -> Result<Box<dyn ShardReader>, SourceError> {
        self.ports.source.open(self.shard(), reading).await
    }

    fn account(&self, page: &Page) {
        self.seat.read(page.behind);
        self.totals.bytes_read.fetch_add(page.bytes, Ordering::Relaxed);
    }

    pub(super) fn shard(&self) -> &ShardId {
        &self.lease.row().shard
    }
}
