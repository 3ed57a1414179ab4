//! `ddl`: the SQL that opens the archive.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::anyhow;
use clap::ValueEnum;

use super::open::{bucket_endpoint, open_archive};
use super::{ConfigFile, Failure, block_on, output};
use crate::config::{ArchiveChoice, Config};
use crate::encode::ddl::{Bucket, DdlInput, athena, duckdb, trino};
use crate::encode::{Layout, keys};
use crate::ops::clock::SystemClock;
use crate::ops::words::counted;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Whose SQL.
    engine: Engine,
    #[command(flatten)]
    config: ConfigFile,
    /// Where the engine finds the archive, if not where the configuration has it: `s3://bucket/prefix`, or a path.
    #[arg(long, value_name = "URI")]
    location: Option<String>,
    /// The database (Athena) or schema (Trino) to make the tables in.
    #[arg(long, default_value = "default")]
    database: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    /// Views over the files, for DuckDB.
    Duckdb,
    /// External tables for Amazon Athena.
    Athena,
    /// External tables for Trino's Hive connector.
    Trino,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let config = arguments.config.load()?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if arguments.database.is_empty() || !arguments.database.chars().all(is_name) {
        return Err(Failure::configuration(anyhow!("--database: take letters, digits and underscores")));
    }
    let layout = config.layout();
    let standing = block_on(look(&config, &layout))?;
    let root = arguments.location.clone().unwrap_or(standing);
    let s3 = &config.archive.s3;
    let endpoint = match config.archive.kind {
        ArchiveChoice::Local => None,
        ArchiveChoice::S3 => block_on(async { Ok(bucket_endpoint(s3).await) })?,
    };
    let bucket = match config.archive.kind {
        ArchiveChoice::Local => Bucket::default(),
        ArchiveChoice::S3 => {
            Bucket { region: s3.region.as_deref(), endpoint_url: endpoint.as_deref(), path_style: s3.force_path_style }
        }
    };
    let input = DdlInput { root: &root, database: &arguments.database, bucket, layout: &layout };
    let sql = match arguments.engine {
        Engine::Duckdb => duckdb(&input),
        Engine::Athena | Engine::Trino if !root.contains("://") => {
            let message = "--location: this engine reads object stores, not local disks; give `s3://bucket/prefix`";
            return Err(Failure::configuration(anyhow!(message)));
        }
        Engine::Athena => athena(&input),
        Engine::Trino => trino(&input),
    };
    output::text(sql.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Where the archive is, for an engine. Objects from before a change of format, compression or partitions are not
/// opened by the SQL; a short answer to a query must not come unannounced.
#[allow(clippy::print_stderr)] // warnings beside the data
async fn look(config: &Config, layout: &Layout) -> Result<String, Failure> {
    let archive = open_archive(config, Arc::new(SystemClock::start())).await?;
    let location = match config.archive.kind {
        // Whole, so that the SQL opens the same files wherever it is run.
        ArchiveChoice::Local => std::path::absolute(&config.archive.local.path)?.to_string_lossy().into_owned(),
        ArchiveChoice::S3 => archive.place.location.clone(),
    };
    let listed = match archive.store.list(keys::EVENTS_PREFIX).await {
        Ok(listed) => listed,
        // The SQL is the same for those who can't reach the bucket from here.
        Err(error) if config.archive.kind == ArchiveChoice::S3 => {
            eprintln!("auditlake: whether there are objects of another format is not known: {error}");
            return Ok(location);
        }
        Err(error) => return Err(error.into()),
    };
    let others = listed.iter().filter(|object| !keys::is_of_layout(&object.key, layout)).count();
    if others > 0 {
        eprintln!(
            "auditlake: this SQL opens all but {others} of {}, for another format, compression or partitions than the \
             configuration's",
            counted(listed.len() as u64, "object")
        );
    }
    Ok(location)
}
