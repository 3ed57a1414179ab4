//! What a worker answers over HTTP: metrics, health, and a page to look at. From a thread of its own, so that it answers
//! while work is heavy, and tells when the work hangs.

mod page;

use std::io;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use jiff::Timestamp;

use super::clock::Clock;
use super::health;
use super::memory::MemoryBudget;
use super::metrics::{LastVerify, Moment};
use super::words::{counted, thousands};
use crate::source::Source;
use crate::source::pubsub::Receiver;
use crate::verify::Kind;
use crate::verify::recorded::{Recorded, Standing};
use crate::worker::Totals;

/// What is known of a worker once all that it needs is open.
pub struct Opened {
    /// Its name.
    pub worker: String,
    /// The archive's id.
    pub archive_id: String,
    /// Where the archive is, as people write it.
    pub archive: String,
    /// What it reads.
    pub source: Arc<dyn Source>,
    /// What that is, as people write it.
    pub reads: String,
    /// The source's label.
    pub label: String,
    /// What is read ahead.
    pub pages: Arc<MemoryBudget>,
    /// What fills the source, where something has to.
    pub receiver: Option<Arc<Receiver>>,
    /// The most that records may hold in memory, in bytes.
    pub memory_limit: u64,
}

/// The newest recorded verification of an archive, and the findings that stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// When it began.
    pub at: Timestamp,
    /// Why that it found nothing is not the same as that all is intact, in a few words each; empty where it was whole.
    pub limits: Vec<String>,
    /// When the last one began that was whole and proved every chain's end.
    pub whole_at: Option<Timestamp>,
    /// How much was found that stands.
    pub findings: u64,
    /// When the verification that found it began, where it is an older one.
    pub found_at: Option<Timestamp>,
    /// The first of these: what each is, and the key that it is about.
    pub first: Vec<(Kind, String)>,
}

impl Verified {
    /// The most findings that are named.
    const MOST_NAMED: usize = 5;

    /// What is shown of what stands.
    pub fn of(standing: &Standing) -> Self {
        let found = standing.found();
        let named = found.findings.iter().take(Self::MOST_NAMED);
        Self {
            at: standing.newest.began,
            limits: limits(&standing.newest),
            whole_at: standing.whole_at,
            findings: found.findings_total,
            found_at: standing.uncleared.as_ref().map(|older| older.began),
            first: named.map(|finding| (finding.kind, finding.key.clone())).collect(),
        }
    }
}

/// How a verification fell short of a whole one.
fn limits(recorded: &Recorded) -> Vec<String> {
    let mut limits = Vec::new();
    let (covered, mut read) = (&recorded.covered, String::new());
    if covered.fast {
        limits.push("fast: by size or checksum only".to_owned());
    } else if let (Some(objects), Some(objects_read)) = (recorded.objects, recorded.objects_read) {
        read = format!(": {} of {} read", thousands(objects_read), counted(objects, "object"));
    }
    let bounds = [("since", covered.since), ("until", covered.until)];
    let bounds = bounds.into_iter().filter_map(|(word, time)| Some(format!("{word} {}", time?)));
    let bounds = bounds.collect::<Vec<_>>().join(" ");
    if !bounds.is_empty() {
        limits.push(bounds + &read);
    }
    if !recorded.tail_proved {
        limits.push("tail not proved".to_owned());
    }
    limits
}

/// What is answered.
pub struct Admin {
    clock: Arc<dyn Clock>,
    started: Timestamp,
    totals: Arc<Totals>,
    opened: OnceLock<Opened>,
    verified: Mutex<Option<Verified>>,
}

impl Admin {
    /// Of a process that begins, whose work will be counted in `totals`.
    pub fn new(clock: Arc<dyn Clock>, totals: Arc<Totals>) -> Arc<Self> {
        let started = clock.now();
        Arc::new(Self { clock, started, totals, opened: OnceLock::new(), verified: Mutex::new(None) })
    }

    /// Everything that the worker needs is open. Said once.
    pub fn opened(&self, opened: Opened) {
        let is_first = self.opened.set(opened).is_ok();
        debug_assert!(is_first, "a process opens its ports once");
    }

    /// What the newest verification of the archive found.
    pub fn verified(&self, verified: Option<Verified>) {
        *self.verified.lock().unwrap_or_else(PoisonError::into_inner) = verified;
    }

    fn last_verified(&self) -> Option<Verified> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers on `listener` until the process ends.
    pub fn serve(self: Arc<Self>, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let serve = move || {
            let served = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(listener, self.router()).await
            });
            if let Err(error) = served {
                tracing::error!(%error, "metrics and health are not served any more");
            }
        };
        std::thread::Builder::new().name("admin".into()).spawn(serve).map(drop)
    }

    fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/", get(page::page))
            .route("/metrics", get(metrics))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .with_state(self)
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let (totals, opened) = (&admin.totals, admin.opened.get());
    let ahead = opened.map_or(0, |opened| opened.pages.held());
    let moment = Moment {
        now: admin.clock.now(),
        started: admin.started,
        shown: &totals.board.shown(),
        committed: &totals.committed(),
        records_read: totals.records_read.load(Ordering::Relaxed),
        bytes_read: totals.bytes_read.load(Ordering::Relaxed),
        memory_used: totals.memory.load(Ordering::Relaxed) + ahead,
        memory_limit: opened.map_or(0, |opened| opened.memory_limit),
        retention: opened.and_then(|opened| opened.source.retention()),
        received: opened.and_then(|opened| opened.receiver.as_ref()).map(|receiver| receiver.counters()),
        verified: admin.last_verified().map(|verified| LastVerify {
            at: verified.at,
            whole_at: verified.whole_at,
            findings: verified.findings,
        }),
    };
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], moment.render())
}

async fn livez(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let memory_waits = admin.opened.get().is_some_and(|opened| opened.pages.waiting() > 0);
    verdict("alive", &health::stuck(&admin.totals.board.shown(), admin.clock.monotonic(), memory_waits))
}

async fn readyz(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    verdict("ready", &health::unready(&admin.totals.board.shown(), admin.clock.monotonic()))
}

/// 200 and one word, or 503 and what is wrong, a line each.
fn verdict(well: &str, reasons: &[String]) -> (StatusCode, String) {
    if reasons.is_empty() {
        return (StatusCode::OK, format!("{well}\n"));
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.iter().map(|reason| format!("{reason}\n")).collect())
}
