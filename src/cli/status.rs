//! `status`: who reads what, how far they got, and what is under way.

use std::process::ExitCode;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::open::{look_at_leases, read_archive};
use super::{ConfigFile, Failure, block_on, output};
use crate::config::Config;
use crate::lease::{LeaseRow, LeaseStore as _};
use crate::ops::clock::SystemClock;
use crate::source::file::{FileOptions, FileSource};
use crate::source::{Checkpoint, Shard, Source};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Prints it as JSON.
    #[arg(long)]
    json: bool,
}

/// One shard.
#[derive(Serialize)]
struct ShardStatus {
    shard: String,
    /// `waiting` (nothing read yet), `reading`, `ended`, or `gone` (the source no longer has it).
    state: &'static str,
    owner: Option<String>,
    checkpoint: Checkpoint,
    /// Bytes that are not archived yet, where the source can tell.
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

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let config = arguments.config.load()?;
    block_on(async {
        let status = status(&config).await?;
        if arguments.json {
            output::json(&status)?;
        } else {
            output::text(&status.render())?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn status(config: &Config) -> Result<Status, Failure> {
    let rows = match look_at_leases(config)? {
        Some(leases) => leases.list().await?,
        None => Vec::new(),
    };
    let archive_id = read_archive(config).await.ok().map(|(_, id)| id.to_string());
    let shards = listed(config).await?;
    let known = rows.iter().map(|row| ShardStatus::of(row, shards.iter().find(|shard| shard.id == row.shard)));
    let mut known: Vec<ShardStatus> = known.collect();
    let unread = shards.iter().filter(|shard| rows.iter().all(|row| row.shard != shard.id));
    known.extend(unread.map(|shard| {
        let row = LeaseRow::new(shard.id.clone(), shard.parents.clone());
        ShardStatus::of(&row, Some(shard))
    }));
    known.sort_by(|a, b| a.shard.cmp(&b.shard));
    Ok(Status { archive_id, shards: known })
}

async fn listed(config: &Config) -> Result<Vec<Shard>, Failure> {
    let options = FileOptions {
        path: config.source.file.path.clone().unwrap_or_default(),
        window: config.batch.window.get(),
        settle: config.source.file.settle.get(),
        max_payload_bytes: config.limits.max_payload_bytes.as_u64(),
    };
    Ok(FileSource::new(options, Arc::new(SystemClock::start())).shards().await?)
}

impl ShardStatus {
    fn of(row: &LeaseRow, listed: Option<&Shard>) -> Self {
        let state = match (&row.checkpoint, listed) {
            _ if row.ended => "ended",
            (_, None) => "gone",
            (Checkpoint::TrimHorizon, _) => "waiting",
            (Checkpoint::At { .. }, _) => "reading",
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
            lag_bytes: listed.and_then(|shard| lag(row, shard)),
            batches: row.batch_seq,
            pending,
        }
    }
}

/// What lies behind the checkpoint, in bytes. A compressed file's checkpoint lies in its content, so nothing can be told
/// once that is beyond what is stored.
fn lag(row: &LeaseRow, shard: &Shard) -> Option<u64> {
    match &row.checkpoint {
        Checkpoint::TrimHorizon => shard.end.bytes,
        Checkpoint::At { position, bytes, .. } => {
            let read = position.sequence.as_u64()? + bytes;
            // The line break behind the last record is no part of it.
            shard.end.bytes?.checked_sub(read).map(|left| if left <= 2 { 0 } else { left })
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
