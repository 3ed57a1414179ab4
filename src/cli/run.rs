//! `run`: the daemon.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use uuid::Uuid;

use super::open::{open, settings};
use super::{ConfigFile, Failure, block_on};
use crate::app::Ports;
use crate::archive::ArchiveError;
use crate::config::MetricsConfig;
use crate::ops::admin::{Admin, Opened as Known, Verified};
use crate::ops::clock::SystemClock;
use crate::ops::retry::RetryPolicy;
use crate::ops::shutdown::Signals;
use crate::ops::telemetry;
use crate::verify::recorded::Recorded;
use crate::worker::{Shutdown, Totals, Worker};

/// How often the archive is asked for the newest recorded verification.
const LOOK_FOR_VERIFICATIONS: Duration = Duration::from_mins(1);

pub(super) fn run(config: &ConfigFile) -> Result<ExitCode, Failure> {
    let config = config.load()?;
    telemetry::start("info");
    block_on(async {
        let mut signals = Signals::catch()?;
        let (clock, totals) = (Arc::new(SystemClock::start()), Arc::new(Totals::default()));
        let admin = Admin::new(clock.clone(), totals.clone());
        let served = serve(&admin, &config.metrics)?;
        let opened = tokio::select! {
            opened = open(&config, clock) => opened?,
            // Nothing is held yet; what was being made of the archive is made again next time.
            () = signals.next() => return Ok(ExitCode::SUCCESS),
        };
        // The daemon waits for as long as a disk is full or an archive is away.
        let settings = settings(&config, &opened.archive, RetryPolicy { give_up_after: None });
        let (worker, archive_id) = (&settings.worker, opened.archive.archive_id);
        tracing::info!(version = env!("CARGO_PKG_VERSION"), %worker, %archive_id, "started");
        tell_what_is_served(served, &config.metrics.listen);
        admin.opened(Known {
            worker: worker.to_string(),
            archive_id: archive_id.to_string(),
            archive: opened.location.clone(),
            source: opened.ports.source.clone(),
            reads: opened.reads.clone(),
            label: config.source.label.clone(),
            pages: opened.pages.clone(),
            receiver: opened.receiver.clone(),
            memory_limit: config.limits.memory.as_u64(),
        });
        let shutdown = Shutdown::default();
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
            () = follow_verifications(&admin, &opened.ports, archive_id) => unreachable!("never returns"),
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

/// Serves metrics, health and the page; where, and what is to be said if they are not served. An address that was asked for
/// must be free; where the default one is another worker's, this one works without.
fn serve(admin: &Arc<Admin>, config: &MetricsConfig) -> Result<Option<io::Result<SocketAddr>>, Failure> {
    let Some(address) = config.address() else { return Ok(None) };
    let served = TcpListener::bind(address).and_then(|listener| {
        let address = listener.local_addr()?;
        admin.clone().serve(listener).map(|()| address)
    });
    match served {
        Err(error) if !config.is_default() => {
            let no_address = error.kind() == io::ErrorKind::InvalidInput;
            let advice = if no_address { "; write an address with its port, as in `127.0.0.1:9464`" } else { "" };
            Err(Failure::configuration(anyhow!("metrics.listen: {address}: {error}{advice}")))
        }
        served => Ok(Some(served)),
    }
}

/// Said once the worker has started: a complaint about anything else stands alone.
fn tell_what_is_served(served: Option<io::Result<SocketAddr>>, asked: &str) {
    match served {
        None => {}
        Some(Ok(address)) => tracing::info!(%address, "serving /metrics, /livez, /readyz and a page"),
        Some(Err(error)) => {
            tracing::warn!(address = asked, %error, "nothing is served: set metrics.listen to another address, or to off");
        }
    }
}

/// Shows the newest recorded verification for as long as it is polled.
async fn follow_verifications(admin: &Admin, ports: &Ports, archive_id: Uuid) {
    let archive = ports.archive.as_ref();
    let mut known = None;
    loop {
        let looked = async {
            let keys = Recorded::keys(archive).await?;
            // None is ever changed: they are read once.
            if known.as_ref() != Some(&keys) {
                let standing = Recorded::standing(archive, archive_id, &keys).await?;
                admin.verified(standing.as_ref().map(Verified::of));
                known = Some(keys);
            }
            Ok::<(), ArchiveError>(())
        };
        if let Err(error) = looked.await {
            tracing::debug!(%error, "recorded verifications can't be looked for");
        }
        ports.clock.sleep(LOOK_FOR_VERIFICATIONS).await;
    }
}
