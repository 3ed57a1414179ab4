//! `catch-up`: all there is now, once.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use serde::Serialize;

use super::open::{open, settings};
use super::progress::{Bar, Counted};
use super::{Failure, Reporting, block_on};
use crate::config::Config;
use crate::ops::clock::{Clock, SystemClock};
use crate::ops::retry::RetryPolicy;
use crate::ops::shutdown::Signals;
use crate::ops::telemetry;
use crate::ops::words::{counted, thousands};
use crate::source::pubsub::Receiver;
use crate::worker::{Shutdown, Summary, Tally, Totals, Worker};

/// For how long a one-shot run tries a step again that may succeed later. Somebody waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(reporting: &Reporting) -> Result<ExitCode, Failure> {
    let config = reporting.load()?;
    telemetry::start("warn");
    let report = block_on(catch_up(&config))?;
    reporting.print(&report, Report::render)?;
    report.judge()
}

pub(super) async fn catch_up(config: &Config) -> Result<Report, Failure> {
    let mut signals = Signals::catch()?;
    let stopped = || anyhow!("stopped before the start; run again");
    let mut opened = tokio::select! {
        opened = open(config, Arc::new(SystemClock::start())) => opened?,
        () = signals.next() => return Err(stopped().into()),
    };
    let clock = opened.ports.clock.clone();
    let started = clock.monotonic();
    let settings = settings(config, &opened.archive, RetryPolicy { give_up_after: Some(PATIENCE) });
    let (shutdown, totals) = (Shutdown::default(), Arc::new(Totals::default()));
    let stop = signals.stop(&shutdown, config.worker.shutdown_grace.get(), clock.as_ref());
    tokio::pin!(stop);
    let receiver = opened.receiver.clone();
    if let Some(receiver) = &receiver {
        let idle = config.source.pubsub.drain_idle.get();
        tokio::select! {
            filled = fill(receiver, idle, &shutdown) => filled?,
            () = &mut stop => unreachable!("never returns"),
        }
    }
    let shards = tokio::select! {
        shards = opened.ports.source.shards() => shards?,
        () = &mut stop => unreachable!("never returns"),
        () = shutdown.graceful.cancelled() => return Err(stopped().into()),
    };
    let bytes: Option<u64> = shards.iter().map(|shard| shard.end.bytes()).sum();
    let (bar, read, of) = if let Some(bytes) = bytes {
        (Bar::new(bytes), None, bytes)
    } else {
        let counted = Counted::new(opened.ports.source.clone());
        let (read, of) = (counted.read(), shards.len() as u64);
        opened.ports.source = Arc::new(counted);
        (Bar::of_shards(of), Some(read), of)
    };
    let worker = Worker::new(opened.ports.clone(), settings, shutdown.clone(), totals.clone());
    let summary = tokio::select! {
        summary = worker.catch_up(shards) => summary?,
        () = &mut stop => unreachable!("never returns"),
        () = bar.follow(totals.clone(), read, of, clock.as_ref()) => unreachable!("never returns"),
    };
    drop(bar);
    if let Some(receiver) = &receiver {
        receiver.tidy().await?;
    }
    Ok(Report::new(&summary, totals.committed(), seconds(clock.as_ref(), started)))
}

/// Receives all there is into the source, and has it look for what was left behind.
async fn fill(receiver: &Receiver, idle: Duration, shutdown: &Shutdown) -> Result<(), Failure> {
    receiver.drain(idle, &shutdown.graceful, &shutdown.abort).await?;
    Ok(receiver.tidy().await?)
}

fn seconds(clock: &dyn Clock, since: Duration) -> f64 {
    clock.monotonic().saturating_sub(since).as_secs_f64()
}

/// What a run came to, as it is printed.
#[derive(Serialize)]
pub(super) struct Report {
    /// Every shard was read to the end that it had at the start, and nothing was missing.
    complete: bool,
    /// It was told to stop before it was done.
    stopped: bool,
    shards: u64,
    #[serde(flatten)]
    tally: Tally,
    failures: Vec<ReportedFailure>,
    seconds: f64,
}

#[derive(Serialize)]
struct ReportedFailure {
    shard: String,
    error: String,
}

impl Report {
    fn new(summary: &Summary, tally: Tally, seconds: f64) -> Self {
        let failure = |failure: &crate::worker::ShardFailure| ReportedFailure {
            shard: failure.shard.to_string(),
            error: failure.error.to_string(),
        };
        Self {
            complete: summary.failures.is_empty() && !summary.stopped && tally.gaps == 0,
            stopped: summary.stopped,
            shards: summary.shards,
            failures: summary.failures.iter().map(failure).collect(),
            tally,
            seconds,
        }
    }

    /// How the command ends.
    fn judge(&self) -> Result<ExitCode, Failure> {
        match &self.failures[..] {
            [] if self.stopped => Err(anyhow!("stopped before the end; run again to go on").into()),
            [] if self.tally.gaps > 0 => Ok(ExitCode::from(3)),
            [] => Ok(ExitCode::SUCCESS),
            [only] => Err(anyhow!("1 shard stopped with an error: {}", only.error_with_shard()).into()),
            [first, ..] => {
                let (failed, first) = (counted(self.failures.len() as u64, "shard"), first.error_with_shard());
                Err(anyhow!("{failed} stopped with an error, the first: {first}").into())
            }
        }
    }

    fn render(&self) -> String {
        let counts = &self.tally.counts;
        let mut rows: Vec<(&str, String)> = vec![
            ("shards", thousands(self.shards)),
            ("read", thousands(counts.records)),
            ("archived", thousands(counts.archived)),
            ("  newer versions", thousands(self.tally.newer_versions)),
            ("  older versions", thousands(self.tally.older_versions)),
            ("  conflicts", thousands(counts.conflicts)),
            ("duplicates", thousands(counts.duplicates)),
            ("rejected", thousands(counts.rejected)),
        ];
        let reasons: Vec<(String, u64)> =
            self.tally.rejected_by_reason.iter().map(|(reason, n)| (format!("  {}", reason.as_str()), *n)).collect();
        rows.extend(reasons.iter().map(|(reason, n)| (reason.as_str(), thousands(*n))));
        rows.extend([
            ("batches", thousands(self.tally.batches)),
            ("objects", thousands(self.tally.objects)),
            ("bytes", thousands(self.tally.object_bytes)),
            ("gaps", thousands(self.tally.gaps)),
            ("seconds", format!("{:.1}", self.seconds)),
        ]);
        let width = rows.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
        let lines = rows.iter().map(|(name, value)| format!("  {name:<22} {value:>width$}"));
        let failed = self.failures.iter().map(|failure| format!("failed: {}", failure.error_with_shard()));
        let all: Vec<String> = [self.headline().into()].into_iter().chain(lines).chain(failed).collect();
        all.join("\n")
    }

    fn headline(&self) -> &'static str {
        let counts = &self.tally.counts;
        match () {
            () if self.stopped => "stopped before the end; run again to go on",
            () if !self.failures.is_empty() => "incomplete: some shards stopped with an error",
            () if self.tally.gaps > 0 => "done, but the source no longer had some of the records",
            () if self.shards == 0 => "nothing to archive: the source holds nothing",
            () if self.tally.batches == 0 => "nothing new: everything there is has been archived before",
            () if counts.archived + counts.rejected == 0 => {
                "nothing new archived: all that was read had been archived before"
            }
            () if counts.archived == 0 => "nothing new archived: all that was read was a copy or was rejected",
            () => "done",
        }
    }
}

impl ReportedFailure {
    /// The errors of sources name the shard already.
    fn error_with_shard(&self) -> String {
        if self.error.starts_with(&self.shard) { self.error.clone() } else { format!("{}: {}", self.shard, self.error) }
    }
}
