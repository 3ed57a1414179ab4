//! `status`: who reads what, how far they got, and what is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use jiff::Timestamp;
use serde::Serialize;

use super::open::{Lag, OpenSource, find_archive, look_at_leases, pages, state_is_in_use};
use super::{Failure, Reporting, block_on, output};
use crate::config::Config;
use crate::lease::{LeaseError, LeaseRow, Listing};
use crate::ops::clock::{Clock, SystemClock, between};
use crate::ops::words::{counted, roughly};
use crate::source::{Checkpoint, Shard, ShardId};
use crate::worker::Family;

/// One shard.
#[derive(Serialize)]
struct ShardStatus {
    shard: String,
    /// `waiting` (nothing read yet), `reading`, `unowned` (there is more to read, and nobody does), `caught up`, `ended`,
    /// `gone` (the source no longer has it), or `damaged` (its row can't be read).
    state: &'static str,
    owner: Option<String>,
    /// Whether the owner is at work; null where there is none, or where it can't be told from one look.
    owner_alive: Option<bool>,
    /// Null where the row can't be read, or is gone: the shard has ended, and its children have moved on.
    checkpoint: Option<Checkpoint>,
    /// Bytes that are not archived yet; null where the source can't tell (a compressed file that has been begun, or has
    /// changed since its end was archived).
    lag_bytes: Option<u64>,
    /// How long ago the time is up to which the shard is known to be archived; null where it is not known, and for files.
    lag_ms: Option<u64>,
    /// Null where the row can't be read, or is gone.
    batches: Option<u64>,
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
    /// There is an archive, and no lease rows of it: a worker makes them anew when it starts.
    state_is_missing: bool,
    shards: Vec<ShardStatus>,
    /// Rows that can't be read, and why.
    damaged: Vec<String>,
}

pub(super) fn run(reporting: &Reporting) -> Result<ExitCode, Failure> {
    let config = reporting.load()?;
    let status = block_on(status(&config))?;
    reporting.print(&status, Status::render)?;
    match &status.damaged[..] {
        [] => Ok(ExitCode::SUCCESS),
        [first, ..] => Err(anyhow!("{first}").into()),
    }
}

async fn status(config: &Config) -> Result<Status, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let archive_id = find_archive(config, clock.clone()).await?;
    let listing = match look_at_leases(config, archive_id).await? {
        Some(leases) => Some(leases.look().await?),
        None => None,
    };
    let state_is_missing = archive_id.is_some() && listing.is_none();
    let Listing { rows, damaged } = listing.unwrap_or_default();
    let mut rows: BTreeMap<ShardId, LeaseRow> = rows.into_iter().map(|row| (row.shard.clone(), row)).collect();
    // Asked after the rows were read: who begins in between is not called gone.
    let in_use = state_is_in_use(config);
    let source = OpenSource::open(config, clock.clone(), pages(config)).await?;
    let mut shards = Vec::new();
    let listed = source.port().shards().await?;
    // The rows of shards whose children have moved on are removed.
    let family = Family::of(&listed, &rows);
    let left: BTreeSet<ShardId> =
        listed.iter().map(|shard| &shard.id).filter(|shard| family.has_left(shard)).cloned().collect();
    let unreadable: BTreeSet<&ShardId> = damaged.iter().filter_map(LeaseError::shard).collect();
    for shard in listed.into_iter().filter(|shard| !unreadable.contains(&shard.id)) {
        let Some(row) = rows.remove(&shard.id).or_else(|| unread(&shard, &left)) else {
            shards.push(ShardStatus::without_row(&shard.id, "ended"));
            continue;
        };
        let lag = source.lag(&shard, &row, clock.now())?;
        shards.push(ShardStatus::of(&row, lag, owner_alive(&row, in_use, clock.now()), true));
    }
    let gone = |row| ShardStatus::of(row, Lag::default(), owner_alive(row, in_use, clock.now()), false);
    shards.extend(rows.values().map(gone));
    shards.extend(unreadable.into_iter().map(|shard| ShardStatus::without_row(shard, "damaged")));
    shards.sort_by(|a, b| a.shard.cmp(&b.shard));
    let damaged = damaged.iter().map(ToString::to_string).collect();
    Ok(Status { archive_id: archive_id.map(|id| id.to_string()), state_is_missing, shards, damaged })
}

/// The row that a shard without one would get; none where it had one.
fn unread(shard: &Shard, left: &BTreeSet<ShardId>) -> Option<LeaseRow> {
    (!left.contains(&shard.id)).then(|| LeaseRow::new(shard.id.clone(), shard.parents.clone()))
}

/// Whether the row's owner is at work. Of a state directory its lock tells. Rows in a table have no time of their last
/// renewal: that the shard was read to its end within the failover shows that its owner was there; that it was not shows
/// nothing.
fn owner_alive(row: &LeaseRow, in_use: Option<bool>, now: Timestamp) -> Option<bool> {
    row.owner.as_ref()?;
    in_use.or_else(|| {
        let (through, failover) = (row.read_through?, row.failover?);
        (through <= now && between(through, now) < failover).then_some(true)
    })
}

impl ShardStatus {
    /// Of a shard whose row is gone, or can't be read.
    fn without_row(shard: &ShardId, state: &'static str) -> Self {
        Self {
            shard: shard.to_string(),
            state,
            owner: None,
            owner_alive: None,
            checkpoint: None,
            lag_bytes: None,
            lag_ms: None,
            batches: None,
            pending: None,
        }
    }

    fn of(row: &LeaseRow, lag: Lag, owner_alive: Option<bool>, listed: bool) -> Self {
        let state = match row.checkpoint {
            _ if row.ended => "ended",
            _ if !listed => "gone",
            _ if lag.bytes == Some(0) => "caught up",
            Checkpoint::TrimHorizon | Checkpoint::Since(_) => "waiting",
            _ if row.owner.is_none() || owner_alive == Some(false) => "unowned",
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
            owner_alive,
            checkpoint: Some(row.checkpoint.clone()),
            lag_bytes: lag.bytes,
            lag_ms: lag.time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            batches: Some(row.batch_seq),
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
                (Some(bytes), _) => counted(bytes, "byte"),
                (None, Some(ms)) => roughly(Duration::from_millis(ms)),
                (None, None) => "-".into(),
            };
            let pending = shard
                .pending
                .as_ref()
                .map_or_else(|| "-".into(), |pending| format!("batch {} {}", pending.batch_seq, pending.range));
            let owner = match (&shard.owner, shard.owner_alive) {
                (None, _) => "-".into(),
                (Some(owner), Some(false)) => format!("{owner} (gone)"),
                (Some(owner), _) => owner.clone(),
            };
            table.add_row([
                shard.shard.clone(),
                shard.state.into(),
                owner,
                shard.checkpoint.as_ref().map_or_else(|| "-".into(), ToString::to_string),
                lag,
                shard.batches.map_or_else(|| "-".into(), |batches| batches.to_string()),
                pending,
            ]);
        }
        let missing = "\nthere are no lease rows: a worker makes them anew from the archive when it starts\n";
        let damaged: String = self.damaged.iter().map(|reason| format!("\ndamaged: {reason}")).collect();
        format!("archive {id}\n{}\n{table}{damaged}", if self.state_is_missing { missing } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::WorkerId;

    #[test]
    fn a_table_shows_that_an_owner_is_there_and_never_that_it_is_gone() {
        let now: Timestamp = "2026-11-05T10:00:00Z".parse().unwrap();
        let owned = LeaseRow {
            owner: Some(WorkerId::new("w")),
            failover: Some(Duration::from_secs(10)),
            ..LeaseRow::new(ShardId::new("s"), Vec::new())
        };
        let read = |through: &str| LeaseRow { read_through: Some(through.parse().unwrap()), ..owned.clone() };
        for (row, alive) in [
            (read("2026-11-05T09:59:55Z"), Some(true)),
            (read("2026-11-05T09:59:45Z"), None),
            (read("2026-11-05T10:00:05Z"), None), // by a clock that is ahead
            (owned.clone(), None),
            (LeaseRow { owner: None, ..read("2026-11-05T09:59:55Z") }, None),
        ] {
            assert_eq!(owner_alive(&row, None, now), alive, "{row:?}");
        }
        assert_eq!(owner_alive(&read("2026-11-05T09:59:55Z"), Some(false), now), Some(false));
    }
}
