//! `status`: who reads what, how far they got, and what is under way.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::open::{find_archive, look_at_leases, open_source};
use super::{Failure, Reporting, block_on, output};
use crate::config::Config;
use crate::lease::LeaseRow;
use crate::ops::clock::SystemClock;
use crate::source::{Checkpoint, ShardId, Source as _};

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
    let clock = Arc::new(SystemClock::start());
    let archive_id = find_archive(config, clock.clone()).await?;
    let rows = match look_at_leases(config, archive_id).await? {
        Some(leases) => leases.list().await?,
        None => Vec::new(),
    };
    let mut rows: BTreeMap<ShardId, LeaseRow> = rows.into_iter().map(|row| (row.shard.clone(), row)).collect();
    let source = open_source(config, clock)?;
    let mut shards = Vec::new();
    for shard in source.shards().await? {
        let new = || LeaseRow::new(shard.id.clone(), shard.parents.clone());
        let row = rows.remove(&shard.id).unwrap_or_else(new);
        let lag = source.lag(&shard, &row.checkpoint)?;
        shards.push(ShardStatus::of(&row, lag, true));
    }
    shards.extend(rows.values().map(|row| ShardStatus::of(row, None, false)));
    shards.sort_by(|a, b| a.shard.cmp(&b.shard));
    Ok(Status { archive_id: archive_id.map(|id| id.to_string()), shards })
}

impl ShardStatus {
    fn of(row: &LeaseRow, lag_bytes: Option<u64>, listed: bool) -> Self {
        let state = match row.checkpoint {
            _ if row.ended => "ended",
            _ if !listed => "gone",
            _ if lag_bytes == Some(0) => "caught up",
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
            lag_bytes,
            batches: row.batch_seq,
            pending,
        }
    }
}

impl Status {
    fn render(&self) -> String {
        let id = self.archive_id.as_deref().unwrap_or("none yet");
        let header = ["shard", "state", "owner", "checkpoint", "lag (bytes)", "batches", "under way"];
        let mut table = output::table(&header, &[4, 5]);
        for shard in &self.shards {
            let lag = shard.lag_bytes.map_or_else(|| "-".into(), output::thousands);
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
