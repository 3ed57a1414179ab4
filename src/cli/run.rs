//! `run`: the daemon.

use std::process::ExitCode;
use std::sync::Arc;

use super::open::{open, settings};
use super::{ConfigFile, Failure, block_on};
use crate::ops::retry::RetryPolicy;
use crate::ops::shutdown::Signals;
use crate::ops::telemetry;
use crate::worker::{Shutdown, Totals, Worker};

pub(super) fn run(config: &ConfigFile) -> Result<ExitCode, Failure> {
    let config = config.load()?;
    telemetry::start("info");
    block_on(async {
        let mut signals = Signals::catch()?;
        let opened = tokio::select! {
            opened = open(&config) => opened?,
            // Nothing is held yet; what was being made of the archive is made again next time.
            () = signals.next() => return Ok(ExitCode::SUCCESS),
        };
        // The daemon waits for as long as a disk is full or an archive is away.
        let settings = settings(&config, &opened.archive, RetryPolicy { give_up_after: None });
        if config.metrics.listen.is_some() {
            tracing::warn!("metrics.listen is set, but this version serves no metrics yet");
        }
        let (worker, archive_id) = (&settings.worker, opened.archive.archive_id);
        tracing::info!(version = env!("CARGO_PKG_VERSION"), %worker, %archive_id, "started");
        let (shutdown, totals) = (Shutdown::default(), Arc::new(Totals::default()));
        let worker = Worker::new(opened.ports.clone(), settings, shutdown.clone(), totals.clone());
        let grace = config.worker.shutdown_grace.get();
        let clock = opened.ports.clock.clone();
        let receive = async {
            if let Some(receiver) = &opened.receiver {
                receiver.run(&shutdown.graceful, &shutdown.abort).await;
            }
        };
        // Where the worker ends by itself, it tells the receiver, which is not waited for any longer than at a stop.
        let late = async {
            shutdown.graceful.cancelled().await;
            clock.sleep(grace).await;
            shutdown.abort.cancel();
            std::future::pending::<()>().await;
        };
        let summary = tokio::select! {
            (summary, ()) = async { tokio::join!(worker.run(), receive) } => summary?,
            () = late => unreachable!("never returns"),
            () = signals.stop(&shutdown, grace, clock.as_ref()) => unreachable!("never returns"),
        };
        for failure in &summary.failures {
            tracing::error!(shard = %failure.shard, error = %failure.error, "the shard stopped where it is");
        }
        let committed = totals.committed();
        let (batches, archived) = (committed.batches, committed.counts.archived);
        tracing::info!(batches, archived, "stopped");
        Ok(if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}
