//! Progress on a terminal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::thousands;
use crate::ops::clock::Clock;
use crate::ops::telemetry;
use crate::worker::Totals;

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(200);

/// A bar on stderr for as long as it lives, where stderr is a terminal; nothing elsewhere.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// An empty bar that is full at `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        let bar = ProgressBar::new(bytes);
        let template = "{bar:28} {percent:>3}%  {binary_bytes} of {binary_total_bytes}  {msg}  {eta} left";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        telemetry::set_bar(Some(bar.clone()));
        Self(bar)
    }

    /// Draws it full to `bytes` of `of`.
    pub(super) fn show(&self, bytes: u64, of: u64, message: String) {
        self.0.set_length(of);
        self.0.set_position(bytes);
        self.0.set_message(message);
    }

    /// Draws what a worker's totals say, for as long as it is polled.
    pub(super) async fn follow(&self, totals: Arc<Totals>, of: u64, clock: &dyn Clock) {
        let started = clock.monotonic();
        loop {
            clock.sleep(TICK).await;
            let records = totals.records_read.load(Ordering::Relaxed);
            let milliseconds = clock.monotonic().saturating_sub(started).as_millis().max(1) as u64;
            let pace = thousands(records.saturating_mul(1000) / milliseconds);
            self.show(totals.bytes_read.load(Ordering::Relaxed), of, format!("{pace} records/s"));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        telemetry::set_bar(None);
        self.0.finish_and_clear();
    }
}
