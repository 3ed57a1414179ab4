//! A batch that is being gathered. No I/O: it is handed payloads and verdicts, and says when it is over.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::board::OpenView;
use super::decoding::Part;
use super::{Settings, Tally, Totals};
use crate::archive::manifest::ArrivalRange;
use crate::batch::{CutReason, Limits, Load, Window};
use crate::dedupe::Verdict;
use crate::encode::{BatchEncoder, EncodeError, FinishedObject, Layout, RejectRow, Row};
use crate::lease::{Gap, LeftOver, Pending};
use crate::source::{Checkpoint, Range, ShardId};

/// Rows, rejects and counts of the payloads taken so far.
pub(super) struct OpenBatch {
    pub(super) window: Window,
    layout: Layout,
    after: Checkpoint,
    /// Behind the last payload taken. Not the payload: it would keep the buffer that it was read into.
    pub(super) through: Checkpoint,
    first_arrival: Timestamp,
    arrival: Option<ArrivalRange>,
    pub(super) read_through: Timestamp,
    pub(super) gap: Option<Gap>,
    encoder: BatchEncoder,
    tally: Tally,
    weight: Weight,
}

/// A batch that is over: nothing about it changes any more.
pub(super) struct FinishedBatch {
    pub(super) pending: Pending,
    pub(super) arrival: Option<ArrivalRange>,
    pub(super) read_through: Timestamp,
    pub(super) tally: Tally,
    pub(super) objects: Vec<FinishedObject>,
}

/// What the batch holds in the process's memory accounts; returned when it is dropped.
struct Weight {
    totals: Arc<Totals>,
    bytes: u64,
}

impl Weight {
    fn new(totals: Arc<Totals>) -> Self {
        totals.open_batches.fetch_add(1, Ordering::Relaxed);
        Self { totals, bytes: 0 }
    }

    fn set(&mut self, bytes: u64) {
        self.totals.memory.fetch_add(bytes, Ordering::Relaxed);
        let held = self.totals.memory.fetch_sub(self.bytes, Ordering::Relaxed);
        debug_assert!(held >= self.bytes, "more is given back than is held");
        self.bytes = bytes;
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.set(0);
        self.totals.open_batches.fetch_sub(1, Ordering::Relaxed);
    }
}

impl OpenBatch {
    /// A batch that begins after `after` with a payload that arrived at `arrival`.
    pub(super) fn new(
        after: Checkpoint,
        arrival: Timestamp,
        settings: &Settings,
        totals: Arc<Totals>,
    ) -> Result<Self, EncodeError> {
        let window = Window::holding(arrival, settings.limits.window);
        Self::with(after, window, arrival, settings.layout.clone(), totals)
    }

    /// A prepared batch, to be gathered again as it was at first.
    pub(super) fn again(pending: &Pending, totals: Arc<Totals>) -> Result<Self, EncodeError> {
        let (after, layout) = (pending.range.after.clone(), pending.layout.clone());
        let mut batch = Self::with(after, pending.window, pending.arrival, layout, totals)?;
        batch.gap.clone_from(&pending.gap);
        Ok(batch)
    }

    /// A batch of which objects stand, to be gathered anew.
    pub(super) fn taking_up(
        after: Checkpoint,
        left_over: &LeftOver,
        arrival: Timestamp,
        totals: Arc<Totals>,
    ) -> Result<Self, EncodeError> {
        Self::with(after, left_over.window, arrival, left_over.layout.clone(), totals)
    }

    fn with(
        after: Checkpoint,
        window: Window,
        arrival: Timestamp,
        layout: Layout,
        totals: Arc<Totals>,
    ) -> Result<Self, EncodeError> {
        Ok(Self {
            window,
            encoder: BatchEncoder::new(&layout)?,
            layout,
            through: after.clone(),
            after,
            first_arrival: arrival,
            arrival: None,
            read_through: arrival,
            gap: None,
            tally: Tally::default(),
            weight: Weight::new(totals),
        })
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How many of the payloads belong to this batch before it must be cut.
    pub(super) fn fitting(&self, limits: &Limits, part: Part<'_>) -> (usize, Option<CutReason>) {
        let mut load = self.load();
        for (taken, (payload, decoded)) in part.iter().enumerate() {
            let records = decoded.len() as u64;
            if let Some(reason) = limits.cut_before(self.window, load, payload.arrival, records) {
                return (taken, Some(reason));
            }
            load.records += records;
        }
        (part.payloads.len(), None)
    }

    /// Takes payloads, with the verdicts of their records in order.
    pub(super) fn take(&mut self, shard: &ShardId, part: Part<'_>, verdicts: &[Verdict]) {
        let mut verdicts = verdicts.iter().copied();
        for (payload, decoded) in part.iter() {
            let (arrival, source_message) = (payload.arrival, payload.source_message.as_deref());
            self.tally.counts.payloads += 1;
            self.tally.counts.empty += u64::from(decoded.len() == 0);
            for element in decoded.elements() {
                let position = payload.position.record(element.index);
                match &element.outcome {
                    Ok(record) => {
                        let verdict = verdicts.next().expect("every record has claimed its identity");
                        self.tally.count(verdict);
                        if verdict.is_archived() {
                            let conflict = verdict == Verdict::Conflict;
                            self.encoder.append(&Row { record, shard, position, arrival, source_message, conflict });
                        }
                    }
                    Err(reject) => {
                        self.tally.reject(reject.reason);
                        let (reason, raw) = (reject.reason, reject.raw);
                        self.encoder.reject(&RejectRow { reason, shard, position, arrival, source_message, raw });
                    }
                }
            }
            self.arrived(arrival);
        }
        if let Some(last) = part.payloads.last() {
            self.through = last.checkpoint();
        }
        self.weight.set(self.encoder.memory_bytes());
    }

    /// Encodes the rows that were taken. When it is called changes nothing of what comes out.
    pub(super) fn encode(&mut self) -> Result<(), EncodeError> {
        self.encoder.encode()?;
        self.weight.set(self.encoder.memory_bytes());
        Ok(())
    }

    fn arrived(&mut self, arrival: Timestamp) {
        let range = self.arrival.get_or_insert(ArrivalRange { min: arrival, max: arrival });
        range.min = range.min.min(arrival);
        range.max = range.max.max(arrival);
    }

    /// What it weighs.
    pub(super) fn load(&self) -> Load {
        Load {
            records: self.tally.counts.records,
            encoded_bytes: self.encoder.encoded_bytes(),
            memory_bytes: self.encoder.memory_bytes(),
        }
    }

    /// What is to be seen of it.
    pub(super) fn view(&self) -> OpenView {
        let Load { records, encoded_bytes, .. } = self.load();
        OpenView { window: self.window, first_arrival: self.first_arrival, records, encoded_bytes }
    }

    /// Encodes the objects. `batch_seq` names them.
    pub(super) fn finish(self, shard: &ShardId, batch_seq: u64, shard_end: bool) -> Result<FinishedBatch, EncodeError> {
        let range = Range { after: self.after, through: self.through };
        let objects = self.encoder.finish(&self.window, shard, batch_seq)?;
        let mut tally = self.tally;
        tally.batches = 1;
        tally.objects = objects.len() as u64;
        tally.object_bytes = objects.iter().map(|object| object.object.bytes.bytes()).sum();
        tally.gaps = u64::from(self.gap.is_some());
        let pending = Pending {
            batch_seq,
            range,
            shard_end,
            window: self.window,
            arrival: self.first_arrival,
            layout: self.layout,
            gap: self.gap,
        };
        Ok(FinishedBatch { pending, arrival: self.arrival, read_through: self.read_through, tally, objects })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::decoding::DecodedPayload;
    use super::*;
    use crate::config::Config;
    use crate::source::{Payload, Position};

    struct Buffer {
        _held: Arc<()>,
    }

    impl AsRef<[u8]> for Buffer {
        fn as_ref(&self) -> &[u8] {
            b"{}\n{}"
        }
    }

    #[test]
    fn an_open_batch_holds_no_buffer_that_its_payloads_were_read_into() {
        let held = Arc::new(());
        let data = Bytes::from_owner(Buffer { _held: held.clone() }).slice(..2);
        let payload =
            Payload { position: Position::new(0), arrival: Timestamp::UNIX_EPOCH, source_message: None, data };
        let through = payload.checkpoint();
        let window = Window { start: Timestamp::UNIX_EPOCH, end: Timestamp::MAX };
        let (layout, totals) = (Config::default().layout(), Arc::default());
        let mut batch = OpenBatch::with(Checkpoint::TrimHorizon, window, payload.arrival, layout, totals).unwrap();
        let shard = ShardId::new("s");
        batch.take(&shard, Part { payloads: &[payload], decoded: &[DecodedPayload::default()] }, &[]);
        assert_eq!(Arc::strong_count(&held), 1, "the page is free");
        assert_eq!(batch.finish(&shard, 0, false).unwrap().pending.range.through, through);
    }
}
