//! `config`: what is in force, what there is to set.

use std::process::ExitCode;

use clap::Subcommand;

use super::{Failure, Reporting, output};
use crate::config::{Config, schema};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    reporting: Reporting,
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
    let config = match arguments.what {
        Some(What::Schema) => {
            output::json(&schema())?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(What::Defaults) => Config::default(),
        None => arguments.reporting.load()?,
    };
    let text = toml::to_string_pretty(&config)?;
    arguments.reporting.print(&config, |_| text.trim_end().into())?;
    Ok(ExitCode::SUCCESS)
}
