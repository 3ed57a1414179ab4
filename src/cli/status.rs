//! `status`: who reads what, how far they got, and what is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::open::{
    Lag, OpenSource, Part, find_archive, in_time, is_written, leases_place, look_at_leases, missing_leases, pages,
    refuse_lost_archive, state_is_in_use,
};
use super::{Failure, Reporting, block_on, output};
use crate::config::Config;
use crate::lease::{LeaseError, LeaseRow, Listing, Stop};
use crate::ops::clock::{Clock, SystemClock, between};
use crate::ops::words::{counted, roughly, to_the_second};
use crate::source::{Checkpoint, Shard, ShardId};
use crate::worker::Family;

/// One shard.
#[derive(Serialize)]
struct ShardStatus {
    shard: String,
    /// `waiting` (nothing read yet), `reading`, `unowned` (there is more to read, and nobody does), `caught up`, `ended`,
    /// `stopped` (at an error, and nobody reads it; it is tried again after a pause), `gone` (the source no longer has it), `damaged` (its row can't be read), or `unknown` (no row could be read).
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
    /// What it stopped at, where nothing of it was committed since.
    stopped: Option<Stop>,
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
    /// Whether that there is none is known.
    #[serde(skip)]
    archive_is_known: bool,
    /// What could not be read, and why: what this says of it, it does not know.
    unread: Vec<String>,
    shards: Vec<ShardStatus>,
    /// Rows that can't be read, and why.
    damaged: Vec<String>,
}

pub(super) fn run(reporting: &Reporting) -> Result<ExitCode, Failure> {
    let config = reporting.load()?;
    let status = block_on(status(&config))?;
    reporting.print(&status, Status::render)?;
    let wrong: Vec<&str> = status.unread.iter().chain(&status.damaged).map(String::as_str).collect();
    if wrong.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(anyhow!("{}", wrong.join("\nauditlake: ")).into()) }
}

/// What could be asked and what not. What is wrong in the configuration is no matter of the moment, and ends the look.
#[derive(Default)]
struct Unread(Vec<String>);

impl Unread {
    fn keep<T>(&mut self, read: Result<T, Failure>) -> Result<Option<T>, Failure> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(Failure::Failed(error)) => {
                self.0.push(format!("{error:#}"));
                Ok(None)
            }
            Err(configuration) => Err(configuration),
        }
    }
}

/// The rows of the archive that was found, or could not be asked which it is; of one that is not there, that it should be,
/// and of rows that are not, the same.
async fn look(config: &Config, clock: &Arc<dyn Clock>, archive: Known) -> Result<Option<Listing>, Failure> {
    if archive == Some(None) {
        refuse_lost_archive(config, clock.clone()).await?;
    }
    let listing = match look_at_leases(config, archive.flatten()).await? {
        Some(leases) => Some(leases.look().await?),
        None => None,
    };
    let has_rows = |listing: &Listing| !listing.rows.is_empty() || !listing.damaged.is_empty();
    // Before the first start there is neither archive nor table, and nothing is wrong.
    if listing.as_ref().is_some_and(has_rows) || archive == Some(None) {
        return Ok(listing);
    }
    if listing.is_none()
        && let Some(missing) = missing_leases(config).await?
    {
        let help = if config.state.dynamodb.create_tables {
            "a worker makes it anew from the archive when it starts"
        } else {
            "make it as `auditlake check` says: a worker makes its rows anew from the archive when it starts"
        };
        return Err(anyhow!("state.dynamodb.table_prefix: {missing}; {help}").into());
    }
    if archive.flatten().is_some() && is_written(config, clock.clone()).await? {
        let place = leases_place(config);
        return Err(anyhow!(
            "{place}: there are no lease rows, though the archive has batches; a worker makes them anew from it when it \
             starts, and `auditlake rebuild-state` does now"
        )
        .into());
    }
    Ok(listing)
}

/// Which archive there is, if there is one; none where it could not be asked.
type Known = Option<Option<Uuid>>;

async fn status(config: &Config) -> Result<Status, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let shared = clock.as_ref();
    let open = in_time(config, shared, Part::Source, Box::pin(OpenSource::open(config, clock.clone(), pages(config))));
    let witnesses = async {
        let archive = in_time(config, shared, Part::Archive, Box::pin(find_archive(config, clock.clone()))).await;
        let known = archive.as_ref().ok().copied();
        (archive, in_time(config, shared, Part::State, Box::pin(look(config, &clock, known))).await)
    };
    // Together, so that of several that give no answer each is named within half a minute.
    let ((archive, listing), source) = tokio::join!(witnesses, open);
    let mut unread = Unread::default();
    let archive = unread.keep(archive)?;
    let listing = unread.keep(listing)?;
    let source = unread.keep(source)?;
    // Asked after the rows were read: who begins in between is not called gone.
    let in_use = state_is_in_use(config);
    let listed = match &source {
        Some(source) => {
            let shards = async { Ok(source.port().shards().await?) };
            unread.keep(in_time(config, shared, Part::Source, shards).await)?
        }
        None => None,
    };
    let look = Look { source: source.as_ref(), in_use, now: clock.now() };
    let archive_is_known = archive.is_some();
    let archive_id = archive.flatten().map(|id| id.to_string());
    let damaged = listing.iter().flatten().flat_map(|listing| &listing.damaged).map(ToString::to_string).collect();
    let shards = look.shards(listed, listing.map(Option::unwrap_or_default))?;
    Ok(Status { archive_id, archive_is_known, unread: unread.0, shards, damaged })
}

/// What shards are looked at with.
struct Look<'a> {
    source: Option<&'a OpenSource>,
    /// Whether a process works with the state directory.
    in_use: Option<bool>,
    now: Timestamp,
}

impl Look<'_> {
    /// Each shard, by the source's list and the lease rows, as far as these are known.
    fn shards(&self, listed: Option<Vec<Shard>>, listing: Option<Listing>) -> Result<Vec<ShardStatus>, Failure> {
        let Some(Listing { rows, damaged }) = listing else {
            let listed = listed.unwrap_or_default();
            return Ok(listed.iter().map(|shard| ShardStatus::without_row(&shard.id, "unknown")).collect());
        };
        let mut rows: BTreeMap<ShardId, LeaseRow> = rows.into_iter().map(|row| (row.shard.clone(), row)).collect();
        let is_listed = listed.is_some();
        let listed = listed.unwrap_or_default();
        let mut shards = Vec::new();
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
            let lag = self.source.map_or(Ok(Lag::default()), |source| source.lag(&shard, &row, self.now))?;
            shards.push(ShardStatus::of(&row, lag, self.owner_alive(&row), true));
        }
        // Where the source gave no list, none of them is known to be gone.
        let others = rows.values().map(|row| ShardStatus::of(row, Lag::default(), self.owner_alive(row), !is_listed));
        shards.extend(others);
        shards.extend(unreadable.into_iter().map(|shard| ShardStatus::without_row(shard, "damaged")));
        shards.sort_by(|a, b| a.shard.cmp(&b.shard));
        Ok(shards)
    }

    fn owner_alive(&self, row: &LeaseRow) -> Option<bool> {
        owner_alive(row, self.in_use, self.now)
    }
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
            stopped: None,
        }
    }

    fn of(row: &LeaseRow, lag: Lag, owner_alive: Option<bool>, listed: bool) -> Self {
        let is_idle = row.owner.is_none() || owner_alive == Some(false);
        let state = match row.checkpoint {
            _ if row.ended => "ended",
            _ if !listed => "gone",
            _ if is_idle && row.stopped.is_some() => "stopped",
            _ if lag.bytes == Some(0) => "caught up",
            Checkpoint::TrimHorizon | Checkpoint::Since(_) => "waiting",
            _ if is_idle => "unowned",
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
            stopped: row.stopped.clone(),
        }
    }
}

impl ShardStatus {
    /// What it stopped at, and whether somebody has begun again.
    fn why_stopped(&self) -> Option<String> {
        let Stop { at, error } = self.stopped.as_ref()?;
        let again = if self.state == "stopped" { "" } else { " (its lease was taken again since)" };
        Some(format!("{}, at {}{again}: {error}", self.shard, to_the_second(*at)))
    }
}

impl Status {
    fn render(&self) -> String {
        let none = if self.archive_is_known { "none yet" } else { "unknown" };
        let id = self.archive_id.as_deref().unwrap_or(none);
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
        let told = |what: &str, reasons: &[String]| -> String {
            reasons.iter().map(|reason| format!("\n{what}: {reason}")).collect()
        };
        let stopped: Vec<String> = self.shards.iter().filter_map(ShardStatus::why_stopped).collect();
        let stopped = told("stopped", &stopped);
        let told = [stopped, told("not read", &self.unread), told("damaged", &self.damaged)].concat();
        format!("archive {id}\n\n{table}{}{told}", if told.is_empty() { "" } else { "\n" })
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
