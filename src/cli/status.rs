//! `status`: who reads what, how far they got, and what is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::open::{Lag, OpenSource, find_archive, look_at_leases, pages};
use super::{Failure, Reporting, block_on, output};
use crate::config::Config;
use crate::lease::LeaseRow;
use crate::ops::clock::{Clock, SystemClock};
use crate::ops::words::thousands;
use crate::source::{Checkpoint, ShardId};
use crate::worker::Family;

/// One shard.
#[derive(Serialize)]
struct ShardStatus {
    shard: String,
    /// `waiting` (nothing read yet), `reading`, `caught up`, `ended`, or `gone` (the source no longer has it).
    state: &'static str,
    owner: Option<String>,
    checkpoint: Checkpoint,
    /// Bytes that are not archived yet; null where the source can't tell (a compressed file that has been begun).
    lag_bytes: Option<u64>,
    /// How long ago the time is up to which the shard is known to be archived; null where it is not known, and for files.
    lag_ms: Option<u64>,
    batches: u64,
    /// The batch under way.
    pending: Option<PendingStatus>,
}

#[derive(Serialize)]
struct PendingStatus {
    batch_seq: u64,
    range: String,
    window_start: Timestamp,
}

#[derive(Serialize)]
struct Status {
    archive_id: Option<String>,
    shards: Vec<ShardStatus>,
}

pub(super) fn run(reporting: &Reporting) -> Result<ExitCode, Failure> {
    let config = reporting.load()?;
    let status = block_on(status(&config))?;
    reporting.print(&status, Status::render)?;
    Ok(ExitCode::SUCCESS)
}

async fn status(config: &Config) -> Result<Status, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let archive_id = find_archive(config, clock.clone()).await?;
    let rows = match look_at_leases(config, archive_id).await? {
        Some(leases) => leases.list().await?,
        None => Vec::new(),
    };
    let mut rows: BTreeMap<ShardId, LeaseRow> = rows.into_iter().map(|row| (row.shard.clone(), row)).collect();
    let source = OpenSource::open(config, clock.clone(), pages(config)).await?;
    let mut shards = Vec::new();
    let listed = source.port().shards().await?;
    // The rows of shards whose children have moved on are removed.
    let family = Family::of(&listed, &rows);
    let left: BTreeSet<ShardId> =
        listed.iter().map(|shard| &shard.id).filter(|shard| family.has_left(shard)).cloned().collect();
    for shard in listed {
        let ended = left.contains(&shard.id);
        let new = || LeaseRow { ended, ..LeaseRow::new(shard.id.clone(), shard.parents.clone()) };
        let row = rows.remove(&shard.id).unwrap_or_else(new);
        let lag = source.lag(&shard, &row, clock.now())?;
        shards.push(ShardStatus::of(&row, lag, true));
    }
    shards.extend(rows.values().map(|row| ShardStatus::of(row, Lag::default(), false)));
    shards.sort_by(|a, b| a.shard.cmp(&b.shard));
    Ok(Status { archive_id: archive_id.map(|id| id.to_string()), shards })
}

impl ShardStatus {
    fn of(row: &LeaseRow, lag: Lag, listed: bool) -> Self {
        let state = match row.checkpoint {
            _ if row.ended => "ended",
            _ if !listed => "gone",
            _ if lag.bytes == Some(0) => "caught up",
            Checkpoint::TrimHorizon | Checkpoint::Since(_) => "waiting",
            Checkpoint::Imported(_) | Checkpoint::At { .. } => "reading",
        };
        let pending = row.pending.as_ref().map(|pending| PendingStatus {
            batch_seq: pending.batch_seq,
            range: pending.range.to_string(),
            window_start: pending.window.start,
        });
        Self {
            shard: row.shard.to_string(),
            state,
            owner: row.owner.as_ref().map(ToString::to_string),
            checkpoint: row.checkpoint.clone(),
            lag_bytes: lag.bytes,
            lag_ms: lag.time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            batches: row.batch_seq,
            pending,
        }
    }
}

impl Status {
    fn render(&self) -> String {
        let id = self.archive_id.as_deref().unwrap_or("none yet");
        let header = ["shard", "state", "owner", "checkpoint", "lag", "batches", "under way"];
        let mut table = output::table(&header, &[4, 5]);
        for shard in &self.shards {
            let lag = match (shard.lag_bytes, shard.lag_ms) {
                (Some(bytes), _) => format!("{} bytes", thousands(bytes)),
                (None, Some(ms)) => humantime::format_duration(Duration::from_secs(ms / 1000)).to_string(),
                (None, None) => "-".into(),
            };
            let pending = shard
                .pending
                .as_ref()
                .map_or_else(|| "-".into(), |pending| format!("batch {} {}", pending.batch_seq, pending.range));
            table.add_row([
                shard.shard.clone(),
                shard.state.into(),
                shard.owner.clone().unwrap_or_else(|| "-".into()),
                shard.checkpoint.to_string(),
                lag,
                shard.batches.to_string(),
                pending,
            ]);
        }
        format!("archive {id}\n\n{table}")
    }
}
