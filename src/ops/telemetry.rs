//! Logs: one line an event that matters, on stderr; JSON where stderr is no terminal.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The progress bar on the terminal, if there is one: a log line written through it would tear it.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Lets log lines be written above `bar`, or plainly again.
pub fn set_bar(bar: Option<ProgressBar>) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// Starts logging. `RUST_LOG` decides what is logged; without it, `default` does (`info`, `warn`, …).
pub fn start(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Stderr);
    if io::stderr().is_terminal() {
        builder.with_target(false).init();
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    }
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
