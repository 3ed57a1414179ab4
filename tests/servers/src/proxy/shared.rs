//! What the test and the proxy's connections both see: faults, records, and whether the server is to be reached.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::message::Headers;
use super::rule::{Action, Rule};

/// A request that came through.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// When its head had come.
    pub at: Instant,
    /// By the name of the service's documentation: `PutItem`, `CompleteMultipartUpload`.
    pub operation: String,
    /// `GET`, `POST` and so on.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Its header, as the client sent it.
    pub headers: Headers,
    /// How many bytes of its body have come.
    pub body_length: u64,
    /// What the client was answered; none where it was not (yet) or the connection was cut.
    pub status: Option<u16>,
}

/// Whether the server is to be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) is_down: bool,
    /// How often everything was cut.
    pub(super) cuts: u64,
}

pub(super) struct Shared {
    pub(super) upstream: String,
    rules: Mutex<Vec<Rule>>,
    records: Mutex<BTreeMap<u64, Recorded>>,
    next: Mutex<u64>,
    healed: watch::Sender<()>,
    pub(super) line: watch::Sender<Line>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(upstream: String) -> Self {
        Self {
            upstream,
            rules: Mutex::default(),
            records: Mutex::default(),
            next: Mutex::new(1),
            healed: watch::Sender::new(()),
            line: watch::Sender::new(Line::default()),
        }
    }

    fn next_id(&self) -> u64 {
        let mut next = lock(&self.next);
        *next += 1;
        *next
    }

    pub(super) fn add_rule(&self, make: impl FnOnce(u64) -> Rule) -> u64 {
        let id = self.next_id();
        lock(&self.rules).push(make(id));
        id
    }

    pub(super) fn remove_rules(&self, which: impl Fn(&Rule) -> bool) {
        lock(&self.rules).retain(|rule| !which(rule));
        self.healed.send_replace(());
    }

    pub(super) fn wants_body(&self, operation: &str, target: &str) -> bool {
        lock(&self.rules).iter().any(|rule| rule.wants_body(operation, target))
    }

    /// What befalls a request, and by which rule.
    pub(super) fn strike(&self, operation: &str, target: &str, body: Option<&[u8]>) -> Option<(u64, Action)> {
        lock(&self.rules).iter_mut().find_map(|rule| Some((rule.id, rule.strike(operation, target, body)?)))
    }

    /// Waits until a rule is no more.
    pub(super) async fn healed(&self, id: u64) {
        let mut healed = self.healed.subscribe();
        while lock(&self.rules).iter().any(|rule| rule.id == id) {
            let _ = healed.changed().await;
        }
    }

    pub(super) fn record(&self, recorded: Recorded) -> u64 {
        let id = self.next_id();
        lock(&self.records).insert(id, recorded);
        id
    }

    pub(super) fn amend(&self, id: u64, change: impl FnOnce(&mut Recorded)) {
        if let Some(recorded) = lock(&self.records).get_mut(&id) {
            change(recorded);
        }
    }

    pub(super) fn forget(&self) {
        lock(&self.records).clear();
    }

    /// The records, in the order in which the requests came, as far as they are wanted.
    pub(super) fn records<T>(&self, pick: impl FnMut(&Recorded) -> Option<T>) -> Vec<T> {
        lock(&self.records).values().filter_map(pick).collect()
    }
}
