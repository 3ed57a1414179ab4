//! `ddl`: the SQL that opens the archive.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::ValueEnum;

use super::{ConfigFile, Failure, output};
use crate::encode::ddl::{DdlInput, athena, duckdb, trino};

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
    let local = config.archive.local.path.to_string_lossy().into_owned();
    let root = arguments.location.clone().unwrap_or(local);
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
