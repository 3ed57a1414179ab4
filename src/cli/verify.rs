//! `verify`: the proof.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;

use super::against::Against;
use super::open::{leases_place, look_at_leases, missing_leases, read_archive};
use super::progress::Bar;
use super::{Failure, Reporting, block_on};
use crate::ops::clock::{Clock as _, SystemClock};
use crate::verify::recorded::Recorded;
use crate::verify::{ObjectRows, Options, Progress, render, verify};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    reporting: Reporting,
    /// Reads no object of a window that ended before this: a date (`2026-11-01`) or a time (RFC 3339), UTC.
    /// Manifests are always judged whole.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Reads no object of a window that started at or after this.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Reads no object: manifests, chains, presence, sizes, and the SHA-256 that the store itself keeps (S3 does, a disk
    /// does not).
    #[arg(long)]
    fast: bool,
    /// Keeps what was found in the archive, under `_verify/`: the workers' metrics and page show the newest. Needs
    /// permission to write.
    #[arg(long)]
    record: bool,
    #[command(flatten)]
    against: Against,
}

/// A date, meaning its first instant, or a time.
fn moment(text: &str) -> Result<Timestamp, String> {
    let time = text.parse::<Timestamp>().or_else(|_| format!("{text}T00:00:00Z").parse());
    time.map_err(|_| "write a date such as 2026-11-01 or a time such as 2026-11-01T09:30:00Z".into())
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if let (Some(since), Some(until)) = (arguments.since, arguments.until)
        && since >= until
    {
        return Err(Failure::configuration(anyhow::anyhow!("--since {since} is not before --until {until}")));
    }
    let config = arguments.reporting.load()?;
    crate::ops::telemetry::start("warn");
    let mut kept = None;
    let report = block_on(async {
        let clock = Arc::new(SystemClock::start());
        let began = clock.now();
        let (archive, archive_id) = read_archive(&config, clock).await?;
        let against = arguments.against.read(archive_id)?;
        let leases = look_at_leases(&config, Some(archive_id)).await?;
        let no_rows = if leases.is_none() {
            let missing = missing_leases(&config).await?;
            Some(missing.unwrap_or_else(|| format!("{}: there are no lease rows", leases_place(&config))))
        } else {
            None
        };
        let (since, until, fast) = (arguments.since, arguments.until, arguments.fast);
        let options = Options { since, until, fast, began, against, no_rows };
        let bar = Bar::new(0);
        let mut show = |progress: Progress| {
            let message = format!("object {} of {}", progress.objects, progress.objects_total);
            bar.show(progress.bytes, progress.bytes_total, message);
        };
        let report = verify(archive.as_ref(), leases.as_deref(), Arc::new(ObjectRows), &options, &mut show).await?;
        if arguments.record {
            let recorded = Recorded::of(&report);
            kept = Some(recorded.put(archive.as_ref()).await.context("the verification can't be recorded")?);
        }
        Ok(report)
    })?;
    let recorded = kept.map(|key| format!("\nrecorded  {key}")).unwrap_or_default();
    arguments.reporting.print(&report, |report| format!("{}{recorded}", render(report).trim_end()))?;
    Ok(if report.is_intact() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::moment;

    #[test]
    fn a_date_is_its_first_instant() {
        assert_eq!(moment("2026-11-01").unwrap().to_string(), "2026-11-01T00:00:00Z");
        assert_eq!(moment("2026-11-01T09:30:00Z").unwrap().to_string(), "2026-11-01T09:30:00Z");
        assert!(moment("yesterday").unwrap_err().starts_with("write a date"));
    }
}
