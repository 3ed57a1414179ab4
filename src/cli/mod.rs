//! The commands, one file each. Data goes to stdout, everything else to stderr.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | it could not be done, `check` found something missing, or `verify` found damage |
//! | 2 | the configuration or the arguments are wrong |
//! | 3 | `catch-up` is done, but the source no longer had some of the records |

mod against;
mod catch_up;
mod check;
mod config;
mod ddl;
mod import_checkpoints;
mod open;
mod output;
mod progress;
mod rebuild_state;
mod run;
mod status;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::config::Config;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it could not be done, `check` found something missing, or `verify` found damage
  2  the configuration or the arguments are wrong
  3  `catch-up` is done, but the source no longer had some of the records";

/// Archives Temporal Cloud audit logs exactly once, and proves it.
#[derive(Parser)]
#[command(name = "auditlake", version, max_term_width = 110, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The daemon: archives what arrives, until SIGTERM or SIGINT.
    Run(ConfigFile),
    /// Archives all there is now, shows progress, prints a summary and exits.
    CatchUp(Reporting),
    /// Tries out everything that a worker will need, and says what is missing.
    ///
    /// Makes what a worker would make, but for the archive: the state directory, or the tables where they may be made. Leaves
    /// the object `audit-log-access-test` where the archive is, or will be. A state directory that a worker has is looked at
    /// only.
    Check(Reporting),
    /// Shows shards, owners, checkpoints, what is left to read, and batches under way.
    Status(Reporting),
    /// Reads the archive back and proves that nothing is missing, altered, added or doubled.
    Verify(verify::Arguments),
    /// Makes leases, checkpoints and claims anew from the archive alone.
    ///
    /// Stop all workers first: it refuses while they hold leases. Rows that were made anew bear no witness to what the archive
    /// had lost by then, unless it is compared with a report from before (`--against`).
    RebuildState(rebuild_state::Arguments),
    /// Takes over from a Kinesis Client Library application where it stopped, by its lease table.
    ///
    /// Before the first worker starts: shards that have a lease row or manifests already are not taken over.
    ImportCheckpoints(import_checkpoints::Arguments),
    /// Prints the SQL that opens the archive.
    Ddl(ddl::Arguments),
    /// Prints the effective configuration; `config schema` its JSON Schema, `config defaults` the defaults.
    Config(config::Arguments),
}

/// The configuration to use.
#[derive(Args)]
struct ConfigFile {
    /// The configuration, a TOML file. Every key can be set by an environment variable too:
    /// `AUDITLAKE__SECTION__KEY`.
    #[arg(long, short, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, Failure> {
        crate::config::load(self.config.as_deref(), std::env::vars()).map_err(Failure::configuration)
    }
}

/// The arguments of a command that reports, to people or to a program.
#[derive(Args)]
struct Reporting {
    #[command(flatten)]
    config: ConfigFile,
    /// Prints JSON.
    #[arg(long, global = true)]
    json: bool,
}

impl Reporting {
    fn load(&self) -> Result<Config, Failure> {
        self.config.load()
    }

    /// Writes the report as it was asked for.
    fn print<T: Serialize>(&self, report: &T, render: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        Ok(if self.json { output::json(report) } else { output::text(&render(report)) }?)
    }
}

/// Why a command failed, as its exit code tells it.
enum Failure {
    /// The configuration or an argument is wrong: exit 2.
    Configuration(anyhow::Error),
    /// It could not be done: exit 1.
    Failed(anyhow::Error),
}

impl Failure {
    /// The configuration or an argument is wrong.
    fn configuration(error: impl Into<anyhow::Error>) -> Self {
        Self::Configuration(error.into())
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The process: parses the arguments, runs the command, gives its exit code.
#[allow(clippy::print_stderr)] // the one line that says why
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Run(config) => run::run(&config),
        Command::CatchUp(reporting) => catch_up::run(&reporting),
        Command::Check(reporting) => check::run(&reporting),
        Command::Status(reporting) => status::run(&reporting),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::RebuildState(arguments) => rebuild_state::run(&arguments),
        Command::ImportCheckpoints(arguments) => import_checkpoints::run(&arguments),
        Command::Ddl(arguments) => ddl::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
    };
    match done {
        Ok(code) => code,
        Err(Failure::Configuration(error)) => {
            eprintln!("auditlake: {error:#}");
            ExitCode::from(2)
        }
        Err(Failure::Failed(error)) => {
            eprintln!("auditlake: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The runtime that a command's work runs on.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime?.block_on(work)
}
