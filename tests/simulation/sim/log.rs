//! The event log: everything that crossed a port and everything that the product said, in order. And from what the product
//! says, what it should not have to say.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// What was logged, and what was complained of.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    text: Option<String>,
    complaints: Vec<String>,
}

impl Log {
    /// A log that keeps its lines, or only complaints.
    pub(crate) fn new(keeps: bool) -> Self {
        Self(Arc::new(Mutex::new(Lines { text: keeps.then(String::new), complaints: Vec::new() })))
    }

    /// Adds a line, if lines are kept.
    pub(crate) fn add(&self, line: impl FnOnce() -> String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = &mut lines.text {
            text.push_str(&line());
            text.push('\n');
        }
    }

    /// What the product complained of since the last time.
    pub(crate) fn take_complaints(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).complaints)
    }

    /// All lines.
    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).text.clone().unwrap_or_default()
    }

    fn keeps(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).text.is_some()
    }

    /// What takes the product's events in.
    pub(crate) fn subscriber(&self) -> impl Subscriber + use<> {
        Listener { log: self.clone(), keeps: self.keeps() }
    }
}

struct Listener {
    log: Log,
    keeps: bool,
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let wanted = if self.keeps { Level::DEBUG } else { Level::ERROR };
        *metadata.level() <= wanted && metadata.target().starts_with("auditlake")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut words = Words(String::new());
        event.record(&mut words);
        self.log.add(|| format!("    {} {}", event.metadata().level(), words.0));
        if *event.metadata().level() == Level::ERROR {
            self.log.0.lock().unwrap_or_else(PoisonError::into_inner).complaints.push(words.0);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        } else {
            let _ = write!(self.0, " {}={value:?}", field.name());
        }
    }
}
