//! `ddl`: the SQL that opens the archive.

use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::ValueEnum;

use super::{ConfigFile, Failure, block_on, output};
use crate::archive::{ArchiveStore as _, LocalArchive};
use crate::encode::ddl::{DdlInput, athena, duckdb, trino};
use crate::encode::{Layout, keys};

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
    // Whole, so that the SQL opens the same files wherever it is run.
    let local = std::path::absolute(&config.archive.local.path)?;
    block_on(warn_of_others(&local, &config.layout()))?;
    let root = arguments.location.clone().unwrap_or_else(|| local.to_string_lossy().into_owned());
    let layout = config.layout();
    let input = DdlInput { root: &root, database: &arguments.database, layout: &layout };
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

/// Objects from before a change of format, compression or partitions are not opened by the SQL; a short answer to a
/// query must not come unannounced.
#[allow(clippy::print_stderr)] // a warning beside the data
async fn warn_of_others(root: &Path, layout: &Layout) -> Result<(), Failure> {
    let listed = LocalArchive::open(root)?.list(keys::EVENTS_PREFIX).await?;
    let others = listed.iter().filter(|object| !keys::is_of_layout(&object.key, layout)).count();
    if others > 0 {
        eprintln!(
            "auditlake: {others} of {} objects have another format, compression or partitions than the configuration; \
             this SQL does not open them",
            listed.len()
        );
    }
    Ok(())
}
