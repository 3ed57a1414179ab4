//! `rebuild-state`: leases, checkpoints and claims from the archive alone.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use jiff::Timestamp;
use serde::Serialize;

use super::against::Against;
use super::open::{State, claim_options, read_archive, remake_claims};
use super::{Failure, Reporting, block_on};
use crate::config::Config;
use crate::lease::{LeaseRow, LeaseStore, first_counter};
use crate::ops::clock::{Clock, SystemClock};
use crate::ops::words::counted;
use crate::verify::rebuild;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    reporting: Reporting,
    #[command(flatten)]
    against: Against,
}

#[derive(Serialize)]
struct Rebuilt {
    shards: u64,
    objects: u64,
    claims: u64,
    /// Records without `log_id` whose raw text the archive does not keep: a copy of one would be archived again.
    unclaimable: u64,
    /// When the earlier proof began whose chain heads were found again.
    against: Option<Timestamp>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let config = arguments.reporting.load()?;
    crate::ops::telemetry::start("info");
    let rebuilt = block_on(rebuild_state(&config, &arguments.against))?;
    arguments.reporting.print(&rebuilt, Rebuilt::render)?;
    Ok(ExitCode::SUCCESS)
}

async fn rebuild_state(config: &Config, against: &Against) -> Result<Rebuilt, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let (archive, archive_id) = read_archive(config, clock.clone()).await?;
    let archive = archive.as_ref();
    let kept = against.read(archive_id)?;
    if let Some(kept) = &kept {
        rebuild::compare(archive, kept).await?;
    }
    let state = State::open(config, clock.clone()).await?;
    state.bind(archive_id).await?;
    let mut rows = rebuild::lease_rows(archive, archive_id, &config.layout(), config.batch.window.get()).await?;
    for row in &mut rows {
        row.compared = kept.as_ref().map(|kept| kept.compared(&row.shard));
    }
    let done = match &state {
        // The lock of the state directory is what says that no worker holds a lease.
        State::Embedded(directory) => {
            let done = remake_claims(directory, claim_options(config), archive, archive_id, clock.now()).await?;
            directory.forget_leases()?;
            let leases = state.leases(archive_id)?;
            for row in &rows {
                leases.create(row).await?;
            }
            done
        }
        State::Dynamodb(tables) => {
            let leases = state.leases(archive_id)?;
            let standing = abandoned_rows(leases.as_ref(), config.lease.failover.get(), clock.as_ref()).await?;
            let anew = tables.remake_claims(archive, archive_id).await?;
            // First the rows, then the claims: a worker that only slept can commit nothing from then on, and what it has
            // committed meanwhile makes this fail before claims count that don't know it.
            replace_rows(leases.as_ref(), &standing, &rows).await?;
            tables.adopt_claims(anew).await?
        }
    };
    Ok(Rebuilt {
        shards: rows.len() as u64,
        objects: done.objects,
        claims: done.records,
        unclaimable: done.unclaimable,
        against: kept.map(|kept| kept.began),
    })
}

/// The rows of a table that no worker writes to: an owner who has not written for as long as a lease outlives its worker
/// is a dead one.
async fn abandoned_rows(
    leases: &dyn LeaseStore,
    failover: Duration,
    clock: &dyn Clock,
) -> Result<Vec<LeaseRow>, Failure> {
    let before = leases.list().await?;
    if before.iter().all(|row| row.owner.is_none()) {
        return Ok(before);
    }
    let watched = before.iter().filter_map(|row| row.failover).fold(failover, Duration::max);
    tracing::info!(for_s = watched.as_secs(), "leases have owners: watching whether any of them is alive");
    clock.sleep(watched).await;
    let after = leases.list().await?;
    let stood = |row: &&LeaseRow| before.iter().any(|old| old.shard == row.shard && old.counter == row.counter);
    if let Some(row) = after.iter().find(|row| !stood(row)) {
        let owner = row.owner.as_ref().map_or_else(|| "nobody any more".to_owned(), ToString::to_string);
        return Err(anyhow!("workers hold leases ({owner} that of {}): stop them first", row.shard).into());
    }
    Ok(after)
}

/// Writes the rows in the place of those that stand, on condition that nobody has written them since: a counter that began
/// anew could meet what a worker that only slept remembers.
async fn replace_rows(leases: &dyn LeaseStore, standing: &[LeaseRow], rows: &[LeaseRow]) -> Result<(), Failure> {
    for row in rows {
        match standing.iter().find(|standing| standing.shard == row.shard) {
            Some(old) => leases.replace(&LeaseRow { counter: old.counter + 1, ..row.clone() }).await?,
            None => leases.create(&LeaseRow { counter: first_counter(), ..row.clone() }).await?,
        }
    }
    for old in standing.iter().filter(|old| rows.iter().all(|row| row.shard != old.shard)) {
        leases.remove(old).await?;
    }
    Ok(())
}

impl Rebuilt {
    fn render(&self) -> String {
        let against = self.against.map(|began| format!("; the archive has all that the report of {began} found"));
        format!(
            "state made anew: {}, {} from {}, {} that could not claim{}",
            counted(self.shards, "shard"),
            counted(self.claims, "claim"),
            counted(self.objects, "object"),
            counted(self.unclaimable, "record"),
            against.unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::WorkerId;
    use crate::lease::memory::MemoryLeases;
    use crate::ops::clock::PausedClock;
    use crate::source::ShardId;

    const FAILOVER: Duration = Duration::from_secs(10);

    fn row(shard: &str, counter: u64, owner: Option<&str>) -> LeaseRow {
        LeaseRow { counter, owner: owner.map(WorkerId::new), ..LeaseRow::new(ShardId::new(shard), Vec::new()) }
    }

    fn clock() -> PausedClock {
        PausedClock::start(jiff::Timestamp::UNIX_EPOCH)
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_that_moves_within_the_failover_has_a_living_owner() {
        let leases = MemoryLeases::shared();
        leases.create(&row("a", 3, Some("alive"))).await.unwrap();
        let renew = async {
            clock().sleep(FAILOVER / 3).await;
            leases.replace(&row("a", 4, Some("alive"))).await.unwrap();
        };
        let clock = clock();
        let (rows, ()) = tokio::join!(abandoned_rows(&leases, FAILOVER, &clock), renew);
        let Err(Failure::Failed(error)) = rows else { panic!("taken from the living") };
        assert_eq!(error.to_string(), "workers hold leases (alive that of a): stop them first");
    }

    #[tokio::test(start_paused = true)]
    async fn the_rows_of_the_dead_are_replaced_on_their_counters_and_what_the_archive_has_not_is_removed() {
        let leases = MemoryLeases::shared();
        for row in [row("a", 3, Some("dead")), row("b", 7, None)] {
            leases.create(&row).await.unwrap();
        }
        let Ok(standing) = abandoned_rows(&leases, FAILOVER, &clock()).await else { panic!("all are dead") };
        let made = [row("a", 0, None), row("c", 0, None)];
        assert!(replace_rows(&leases, &standing, &made).await.is_ok());
        let replaced = leases.list().await.unwrap();
        // A row that is new begins anywhere, so that nobody remembers its counter.
        let begun = replaced.last().unwrap().counter;
        assert!(begun > 1000, "{begun}");
        assert_eq!(replaced, [row("a", 4, None), row("c", begun, None)]);
        // Somebody has begun to work since they were looked at.
        assert!(replace_rows(&leases, &standing, &made).await.is_err());
        assert_eq!(leases.list().await.unwrap(), replaced);
    }

    #[tokio::test]
    async fn a_row_that_somebody_wrote_since_it_was_looked_at_is_neither_replaced_nor_removed() {
        let alive = row("a", 8, Some("alive"));
        let looked = row("a", 7, None);
        let made = row("a", 0, None);
        // To be replaced, to be removed, and to be made where none stood.
        for (standing, rows) in
            [(vec![looked.clone()], vec![made.clone()]), (vec![looked], vec![]), (vec![], vec![made])]
        {
            let leases = MemoryLeases::shared();
            leases.create(&alive).await.unwrap();
            assert!(replace_rows(&leases, &standing, &rows).await.is_err(), "{standing:?}, {rows:?}");
            assert_eq!(leases.list().await.unwrap(), std::slice::from_ref(&alive));
        }
    }
}
