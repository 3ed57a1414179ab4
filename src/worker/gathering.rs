//! What a shard's payloads become on their way into batches: decoded, claimed, taken, cut.

use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio::runtime::Handle;

use super::Settings;
use super::decoding::{Chunks, Part, Stretch, stretches};
use super::open_batch::OpenBatch;
use super::outcome::ShardError;
use super::shard_task::ShardTask;
use super::standing::Standing;
use crate::batch::CutReason;
use crate::dedupe::{ClaimError, Verdict};
use crate::encode::EncodeError;
use crate::ops::failpoint;
use crate::record::Rules;
use crate::source::Payload;

impl Settings {
    /// A stretch on its way to records, by the rules of the batch that it goes into.
    fn chunks<'s>(&'s self, stretch: &'s Stretch<'_>, rules: &'s Rules) -> Chunks<'s> {
        Chunks::new(stretch, rules, &self.identity, self.limits.max_bytes)
    }
}

impl ShardTask {
    /// Gathers payloads, committing each batch that is full; the batch that is still open.
    pub(super) async fn gather(
        &mut self,
        mut open: Option<OpenBatch>,
        payloads: &[Payload],
    ) -> Result<Option<OpenBatch>, ShardError> {
        let settings = self.settings.clone();
        for stretch in stretches(payloads, &settings.layout.rules) {
            let mut chunks = settings.chunks(&stretch, &settings.layout.rules);
            while let Some(chunk) = chunks.next() {
                let mut left = chunk.part();
                while let Some(first) = left.payloads.first() {
                    let mut batch = open.take().map_or_else(|| self.begin(first.arrival), Ok)?;
                    let (fitting, cut_before) = batch.fitting(&settings.limits, left);
                    let (part, others) = left.split_at(fitting);
                    left = others;
                    self.take(&mut batch, part, &mut chunks, None).await?;
                    match cut_before.or_else(|| self.cut_after(&batch)) {
                        Some(reason) => self.close(Some(batch), reason).await?,
                        None => open = Some(batch),
                    }
                }
                chunks.give_back(chunk);
                // A reader that never waits would keep the other tasks of this thread from running.
                tokio::task::yield_now().await;
            }
        }
        Ok(open)
    }

    /// Gathers all payloads into a batch whose range is settled, and where objects stood, whose records are.
    pub(super) async fn gather_all(
        &mut self,
        batch: &mut OpenBatch,
        payloads: &[Payload],
        standing: Option<&Standing>,
    ) -> Result<(), ShardError> {
        let (settings, layout) = (self.settings.clone(), batch.layout().clone());
        for stretch in stretches(payloads, &layout.rules) {
            let mut chunks = settings.chunks(&stretch, &layout.rules);
            while let Some(chunk) = chunks.next() {
                self.take(batch, chunk.part(), &mut chunks, standing).await?;
                chunks.give_back(chunk);
            }
        }
        Ok(())
    }

    /// Claims and takes what was decoded. What comes next is decoded beside it: both are half of the work.
    async fn take(
        &self,
        batch: &mut OpenBatch,
        part: Part<'_>,
        chunks: &mut Chunks<'_>,
        standing: Option<&Standing>,
    ) -> Result<(), ShardError> {
        let (claims, shard, now) = (self.ports.claims.as_ref(), self.shard(), self.ports.clock.now());
        let mut claiming = async move {
            match standing {
                Some(standing) => standing.claim(claims, shard, part, now).await,
                None => claims.claim(shard, &part.claims(), now).await,
            }
        }
        .boxed();
        let settle = |batch: &mut OpenBatch, verdicts: Result<Vec<Verdict>, ClaimError>| {
            let verdicts = verdicts?;
            failpoint::reach("claimed");
            batch.take(shard, part, &verdicts);
            Ok::<_, ShardError>(batch.encode()?)
        };
        // Claims in memory are answered at once. Those of a table are on their way while the next records are decoded.
        let runtime = Handle::current();
        let settled = chunks.decode_beside(|| {
            let _calls_go_out_of = runtime.enter();
            claiming.as_mut().now_or_never().map(|verdicts| settle(batch, verdicts))
        });
        match settled {
            Some(settled) => settled?,
            None => settle(batch, claiming.await)?,
        }
        let records = part.decoded.iter().map(|decoded| decoded.len() as u64).sum();
        self.totals.records_read.fetch_add(records, Ordering::Relaxed);
        Ok(())
    }

    /// Why the batch is over with what it has taken, if it is.
    fn cut_after(&self, batch: &OpenBatch) -> Option<CutReason> {
        let load = batch.load();
        let over_budget = || self.totals.over_budget(load.memory_bytes, self.settings.memory);
        self.settings.limits.cut_after(load).or_else(|| over_budget().then_some(CutReason::Memory))
    }

    pub(super) fn begin(&self, arrival: Timestamp) -> Result<OpenBatch, EncodeError> {
        let after = self.lease.row().checkpoint.clone();
        OpenBatch::new(after, arrival, &self.settings, self.totals.clone())
    }
}
