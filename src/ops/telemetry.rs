//! Logs: one line an event that matters, on stderr; JSON where stderr is no terminal.
//!
//! What is true of all that happens within a task (its shard, the batch that it commits) is told by spans. It stands on each
//! line among the fields of the event, under the same names, wherever the line comes from.

mod lines;

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::ProgressBar;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::JsonFields;

use self::lines::{InJson, InText};

/// The progress bar on the terminal, if there is one: a log line written through it would tear it.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Lets log lines be written above `bar`, or plainly again.
pub fn set_bar(bar: Option<ProgressBar>) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// What the SDK tells of each place where it looked for a region or credentials in vain; that there are none is told once.
const QUIET: &str = "aws_config=error";

/// Starts logging. `RUST_LOG` decides what is logged; without it, `default` does (`info`, `warn`, …).
///
/// # Panics
///
/// Where it was started before.
pub fn start(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("{default},{QUIET}")));
    let started = if io::stderr().is_terminal() {
        tracing::subscriber::set_global_default(in_text(filter, Stderr))
    } else {
        tracing::subscriber::set_global_default(in_json(filter, Stderr))
    };
    started.expect("logging is started once");
}

/// Logs for people, as `filter` says, to `writer`.
pub fn in_text<W>(filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).event_format(InText).finish()
}

/// Logs for programs.
pub fn in_json<W>(filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    builder.fmt_fields(JsonFields::new()).event_format(InJson::default()).finish()
}

struct Stderr;

impl MakeWriter<'_> for Stderr {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(Vec::new())
    }
}

/// One log line, written whole when it is done.
struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let write = || io::stderr().write_all(&self.0);
        let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // A log that can't be written stops nothing.
        let _ = match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        };
    }
}

/// How often a fault that goes on is told again.
const AGAIN: Duration = Duration::from_mins(1);

/// A fault that may go on for long, and is not told each time that it shows.
#[derive(Debug)]
pub(crate) struct Complaint {
    every: Duration,
    told_at: Option<Duration>,
}

impl Default for Complaint {
    /// One that is told once a minute.
    fn default() -> Self {
        Self::every(AGAIN)
    }
}

impl Complaint {
    /// One that is told again so often.
    pub(crate) fn every(every: Duration) -> Self {
        Self { every, told_at: None }
    }

    /// Whether to tell of it at this monotonic time: when it begins, and then again and again.
    pub(crate) fn is_due(&mut self, now: Duration) -> bool {
        let due = self.told_at.is_none_or(|before| now.saturating_sub(before) >= self.every);
        if due {
            self.told_at = Some(now);
        }
        due
    }

    /// It is over.
    pub(crate) fn clear(&mut self) {
        self.told_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_when_it_begins_and_then_once_a_minute() {
        let mut complaint = Complaint::default();
        let told = |complaint: &mut Complaint, second| complaint.is_due(Duration::from_secs(second));
        let times: Vec<u64> = (0..130).filter(|&second| told(&mut complaint, second)).collect();
        assert_eq!(times, [0, 60, 120]);
        complaint.clear();
        assert!(told(&mut complaint, 131));
    }
}
