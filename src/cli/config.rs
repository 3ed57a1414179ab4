//! `config`: what is in force, what there is to set.

use std::process::ExitCode;

use clap::Subcommand;

use super::{ConfigFile, Failure, output};
use crate::config::{Config, schema};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Prints it as JSON.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// The JSON Schema of the configuration: every key, its type and its meaning.
    Schema,
    /// The configuration as it is when nothing is set.
    Defaults,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match arguments.what {
        Some(What::Schema) => output::json(&schema())?,
        Some(What::Defaults) => print(&Config::default(), arguments.json)?,
        None => print(&arguments.config.load()?, arguments.json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(config: &Config, json: bool) -> anyhow::Result<()> {
    if json { output::json(config) } else { output::text(toml::to_string_pretty(config)?.trim_end()) }
}
