//! `import-checkpoints`: takes over from a Kinesis Client Library application where it stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::anyhow;
use serde::Serialize;
use smol_str::SmolStr;

use super::open::{
    State, archive_identity, find_archive, found_client, is_there, look_at_leases, open_archive, open_source, pages,
    read_archive,
};
use super::{Failure, Reporting, block_on, output};
use crate::archive::ArchiveStore;
use crate::aws::dynamodb::CLAIM_PATIENCE;
use crate::config::{Config, SourceChoice};
use crate::encode::keys;
use crate::lease::dynamodb::kcl::{Snapshot, take_over};
use crate::lease::{LeaseError, LeaseRow, LeaseStore};
use crate::ops::clock::{Clock, SystemClock};
use crate::source::{Checkpoint, InitialPosition, ShardId};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    reporting: Reporting,
    /// The application's lease table. It is looked at for as long as a lease outlives its worker (lease.failover): an
    /// application that still runs is refused.
    #[arg(long, value_name = "TABLE")]
    from: String,
    /// Shows what would be taken over, and writes nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Report {
    from: String,
    dry_run: bool,
    shards: Vec<Taken>,
}

#[derive(Serialize)]
struct Taken {
    shard: ShardId,
    parents: Vec<ShardId>,
    checkpoint: Checkpoint,
    ended: bool,
    /// An earlier run has taken it over.
    was_there: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let config = arguments.reporting.load()?;
    if config.source.kind != SourceChoice::Kinesis {
        return Err(Failure::configuration(anyhow!(
            "source.kind: is {}; the checkpoints of a Kinesis Client Library application are places in a stream: set it to \
             kinesis, and source.kinesis.stream to what the application read",
            config.layout().source_kind.as_str()
        )));
    }
    crate::ops::telemetry::start("warn");
    let report = block_on(import(&config, arguments))?;
    arguments.reporting.print(&report, Report::render)?;
    Ok(ExitCode::SUCCESS)
}

async fn import(config: &Config, arguments: &Arguments) -> Result<Report, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let rows = stopped_application(config, &arguments.from, clock.clone()).await?;
    let was_there = if arguments.dry_run {
        let archive = match find_archive(config, clock.clone()).await? {
            Some(_) => Some(read_archive(config, clock).await?),
            None => None,
        };
        let id = archive.as_ref().map(|(_, id)| *id);
        let leases = look_at_leases(config, id).await?;
        let standing = match &leases {
            Some(leases) => leases.list().await?,
            None => Vec::new(),
        };
        let archived = match &archive {
            Some((archive, _)) => archived_shards(archive.as_ref()).await?,
            None => BTreeSet::new(),
        };
        check(&rows, &standing, &archived)?
    } else {
        let (leases, archived) = open_target(config, clock).await?;
        let was_there = check(&rows, &leases.list().await?, &archived)?;
        for row in rows.iter().filter(|row| !was_there.contains(&row.shard)) {
            create(leases.as_ref(), row).await?;
        }
        was_there
    };
    let taken = |row: LeaseRow| Taken {
        was_there: was_there.contains(&row.shard),
        shard: row.shard,
        parents: row.parents,
        checkpoint: row.checkpoint,
        ended: row.ended,
    };
    let shards = rows.into_iter().map(taken).collect();
    Ok(Report { from: arguments.from.clone(), dry_run: arguments.dry_run, shards })
}

/// The rows that go on where the application stopped; refused while it has not.
async fn stopped_application(config: &Config, table: &str, clock: Arc<dyn Clock>) -> Result<Vec<LeaseRow>, Failure> {
    let client = found_client(&config.state.dynamodb, CLAIM_PATIENCE).await?;
    if !is_there(&config.state.dynamodb, &client, table).await? {
        return Err(anyhow!("--from: there is no table {table} in this region").into());
    }
    let first = Snapshot::read(&client, table).await?;
    // What is wrong with it is said at once.
    let leases = first.leases().map_err(|reason| anyhow!("--from {table}: {reason}"))?;
    clock.sleep(config.lease.failover.get()).await;
    if let Some(moved) = first.moved(&Snapshot::read(&client, table).await?) {
        return Err(anyhow!("the table {table} is in use: {moved}; stop the application first").into());
    }
    if leases.is_empty() {
        return Err(anyhow!("--from: the table {table} holds no lease").into());
    }
    let since = match config.source.kinesis.initial_position {
        InitialPosition::At(time) => Some(time),
        InitialPosition::TrimHorizon | InitialPosition::Latest => None,
    };
    let (lineage, origin) = stream(config, clock).await?;
    let mut rows = take_over(&leases, since, &lineage).map_err(|reason| anyhow!(reason))?;
    for row in &mut rows {
        row.origin.clone_from(&origin);
    }
    Ok(rows)
}

/// What the stream says of its shards' parents, and of itself.
async fn stream(
    config: &Config,
    clock: Arc<dyn Clock>,
) -> Result<(BTreeMap<ShardId, Vec<ShardId>>, Option<SmolStr>), Failure> {
    let source = open_source(config, clock, pages(config)).await?;
    let lineage = source.shards().await?.into_iter().map(|shard| (shard.id, shard.parents)).collect();
    Ok((lineage, source.origin().map(SmolStr::new)))
}

async fn open_target(
    config: &Config,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<dyn LeaseStore>, BTreeSet<String>), Failure> {
    let state = State::open(config, clock.clone()).await?;
    let archive = open_archive(config, clock.clone()).await?;
    let archive_id = archive_identity(&archive, &state, clock.as_ref()).await?.archive_id;
    state.bind(archive_id).await?;
    Ok((state.leases(archive_id)?, archived_shards(archive.store.as_ref()).await?))
}

/// The shards that have manifests, as their folders are called.
async fn archived_shards(archive: &dyn ArchiveStore) -> Result<BTreeSet<String>, Failure> {
    let listed = archive.list(keys::MANIFESTS_PREFIX).await?;
    let folder = |key: &str| keys::manifest_batch(key).map(|name| name.folder.to_owned());
    Ok(listed.iter().filter_map(|object| folder(&object.key)).collect())
}

/// The shards whose rows stand already, just as they would be made; nothing may be written where one stands otherwise, or
/// the archive has gone on by itself.
fn check(rows: &[LeaseRow], standing: &[LeaseRow], archived: &BTreeSet<String>) -> Result<BTreeSet<ShardId>, Failure> {
    let mut was_there = BTreeSet::new();
    for row in rows {
        let shard = &row.shard;
        if archived.contains(keys::encode_shard(shard).as_str()) {
            return Err(anyhow!(
                "nothing was taken over: the archive has batches of {shard} already, and goes on from them; checkpoints of \
                 another application would leave a gap or bring records twice"
            )
            .into());
        }
        match standing.iter().find(|standing| standing.shard == *shard) {
            None => {}
            Some(standing) if is_same(standing, row) => {
                was_there.insert(shard.clone());
            }
            Some(standing) => {
                return Err(anyhow!(
                    "nothing was taken over: {shard} has a lease row already, at {}; checkpoints are taken over before the \
                     first worker starts",
                    standing.checkpoint
                )
                .into());
            }
        }
    }
    Ok(was_there)
}

fn is_same(standing: &LeaseRow, row: &LeaseRow) -> bool {
    (standing.checkpoint == row.checkpoint && standing.ended == row.ended)
        && (standing.batch_seq == 0 && standing.pending.is_none())
}

async fn create(leases: &dyn LeaseStore, row: &LeaseRow) -> Result<(), Failure> {
    match leases.create(row).await {
        // An attempt whose answer was lost, or another run of this command.
        Err(LeaseError::Conflict { shard }) => match leases.get(&shard).await? {
            Some(standing) if is_same(&standing, row) => Ok(()),
            _ => Err(LeaseError::Conflict { shard }.into()),
        },
        created => Ok(created?),
    }
}

impl Report {
    fn render(&self) -> String {
        let mut table = output::table(&["shard", "goes on behind", "parents", ""], &[]);
        for shard in &self.shards {
            let checkpoint = if shard.ended { "SHARD_END".to_owned() } else { shard.checkpoint.to_string() };
            let parents: Vec<&str> = shard.parents.iter().map(ShardId::as_str).collect();
            let what = match (shard.was_there, self.dry_run) {
                (true, _) => "was taken over before",
                (false, true) => "would be taken over",
                (false, false) => "taken over",
            };
            table.add_row([shard.shard.to_string(), checkpoint, parents.join(" "), what.to_owned()]);
        }
        table.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::memory::MemoryLeases;
    use crate::source::Position;

    fn row(shard: &str, position: u64) -> LeaseRow {
        let checkpoint = Checkpoint::Imported(Position::new(position));
        LeaseRow { checkpoint, ..LeaseRow::new(ShardId::new(shard), Vec::new()) }
    }

    fn checked(standing: &[LeaseRow], archived: &[&str]) -> Result<Vec<String>, String> {
        let archived = archived.iter().map(|&folder| folder.to_owned()).collect();
        match check(&[row("a", 1), row("b", 2)], standing, &archived) {
            Ok(was_there) => Ok(was_there.iter().map(ToString::to_string).collect()),
            Err(Failure::Failed(error) | Failure::Configuration(error)) => Err(error.to_string()),
        }
    }

    #[test]
    fn what_an_earlier_run_has_taken_over_is_left_as_it_is() {
        assert_eq!(checked(&[], &[]), Ok(Vec::new()));
        let renewed = LeaseRow { counter: 9, ..row("a", 1) };
        assert_eq!(checked(&[renewed, row("z", 1)], &["z"]), Ok(vec!["a".to_owned()]));
    }

    #[test]
    fn a_row_or_an_archive_that_has_gone_on_by_itself_is_never_overwritten() {
        let began = LeaseRow::new(ShardId::new("b"), Vec::new());
        assert!(checked(&[began], &[]).unwrap_err().contains("b has a lease row already, at TRIM_HORIZON"));
        let committed = LeaseRow { batch_seq: 1, ..row("b", 2) };
        assert!(checked(&[committed], &[]).unwrap_err().contains("b has a lease row already"));
        assert!(checked(&[], &["b"]).unwrap_err().contains("the archive has batches of b already"));
    }

    #[tokio::test]
    async fn a_row_that_a_worker_made_meanwhile_is_left_alone_and_told() {
        let leases = MemoryLeases::shared();
        for _ in 0..2 {
            assert!(create(&leases, &row("a", 1)).await.is_ok(), "an attempt whose answer was lost is one's own");
        }
        assert!(create(&leases, &row("a", 2)).await.is_err());
        assert_eq!(leases.list().await.unwrap(), [row("a", 1)]);
    }
}
