//! SIGTERM and SIGINT.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::clock::Clock;
use crate::worker::Shutdown;

/// The two signals that ask a process to stop.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches the signals from now on. As the first process of a container, a program that catches none can't be
    /// stopped by them.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for either.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Tells the worker to finish at the first signal, and to leave things as they are at the second one or when the
    /// grace is over. Never returns.
    pub async fn stop(mut self, shutdown: &Shutdown, grace: Duration, clock: &dyn Clock) {
        self.next().await;
        tracing::info!(
            grace_s = grace.as_secs(),
            "stopping: open batches are committed; a second signal stops at once"
        );
        shutdown.graceful.cancel();
        tokio::select! {
            () = self.next() => tracing::warn!("stopping at once: what is not committed is read again next time"),
            () = clock.sleep(grace) => tracing::warn!("the grace is over: what is not committed is read again next time"),
        }
        shutdown.abort.cancel();
        std::future::pending::<()>().await;
    }
}
