//! The page: what an operator looks at first. Made anew for each request; it refreshes itself. Shows numbers, names and
//! positions, never a record.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Admin, Opened, Verified};
use crate::ops::clock::between;
use crate::ops::health;
use crate::ops::metrics::MOST_SHARDS;
use crate::ops::words::{roughly, thousands};
use crate::worker::Tally;
use crate::worker::board::{Committed, HeldShard, SeenShard, Shown};

/// How often it refreshes itself, in seconds.
const REFRESH: u32 = 5;

/// Styles stand in the page itself, and nothing else may be loaded or run.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// `GET /`
pub(super) async fn page(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let moment = PageMoment {
        now: admin.clock.now(),
        monotonic: admin.clock.monotonic(),
        started: admin.started,
        shown: admin.totals.board.shown(),
        committed: admin.totals.committed(),
        verified: admin.last_verified(),
    };
    let headers = [(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")];
    (headers, Html(moment.render(admin.opened.get()).into_string()))
}

/// What the page shows.
struct PageMoment {
    now: Timestamp,
    monotonic: Duration,
    started: Timestamp,
    shown: Shown,
    committed: Tally,
    verified: Option<Verified>,
}

impl PageMoment {
    fn render(&self, opened: Option<&Opened>) -> Markup {
        let reasons = health::unready(&self.shown, self.monotonic);
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta http-equiv="refresh" content=(REFRESH);
                    title { "auditlake" }
                    style { (PreEscaped(include_str!("page.css"))) }
                }
                body {
                    (self.head(opened, reasons.is_empty()))
                    @if !reasons.is_empty() {
                        div.reasons { @for reason in &reasons { div { (reason) } } }
                    }
                    (self.tiles())
                    h2 { "Shards" }
                    (self.shards())
                    h2 { "Batches committed here" }
                    (self.batches())
                }
            }
        }
    }

    fn head(&self, opened: Option<&Opened>, ready: bool) -> Markup {
        html! {
            header {
                h1 { "auditlake" }
                @if ready { span.good { "ready" } } @else { span.bad { "not ready" } }
                @if let Some(opened) = opened {
                    span { "worker " code { (opened.worker) } }
                    span { "source " code { (opened.label) } }
                    span { "archive " code { (opened.archive) } " " code.dim { (opened.archive_id) } }
                }
            }
            div.dim {
                "version " (env!("CARGO_PKG_VERSION")) " · up " (ago(self.started, self.now)) " · as of " (clock(self.now))
            }
        }
    }

    fn tiles(&self) -> Markup {
        let lag = self.shown.held.values().filter_map(|held| held.lag(self.now)).max();
        let warns = |count: u64| if count > 0 { "warn" } else { "" };
        html! {
            div.tiles {
                (tile("shards read here", &self.shown.held.len().to_string(), ""))
                (tile("most behind", &lag.map_or_else(|| "-".into(), roughly), ""))
                (tile("archived", &thousands(self.committed.counts.archived), ""))
                (tile("duplicates", &thousands(self.committed.counts.duplicates), ""))
                (tile("rejected", &thousands(self.committed.counts.rejected), warns(self.committed.counts.rejected)))
                (tile("conflicts", &thousands(self.committed.counts.conflicts), warns(self.committed.counts.conflicts)))
                (tile("gaps", &self.committed.gaps.to_string(), if self.committed.gaps > 0 { "bad" } else { "" }))
                (self.verification())
            }
        }
    }

    fn verification(&self) -> Markup {
        match self.verified {
            None => tile("last verify", "none yet", "dim"),
            Some(Verified { at, findings: 0 }) => {
                tile("last verify", &format!("intact, {} ago", ago(at, self.now)), "good")
            }
            Some(Verified { at, findings }) => {
                tile("last verify", &format!("{findings} findings, {} ago", ago(at, self.now)), "bad")
            }
        }
    }

    fn shards(&self) -> Markup {
        let seen = self.shown.look.as_ref().map_or(&[][..], |look| &look.shards);
        if seen.is_empty() {
            return html! { div.dim { "none yet" } };
        }
        html! {
            div.table { table {
                tr {
                    th { "shard" } th { "state" } th { "owner" } th { "archived through" } th.n { "behind" }
                    th.n { "batches" } th.n { "window age" } th.n { "buffered" } th.n { "next cut" }
                }
                @for shard in seen.iter().take(MOST_SHARDS) { (self.shard(shard)) }
            } }
            @if seen.len() > MOST_SHARDS { div.dim { "and " (seen.len() - MOST_SHARDS) " more" } }
        }
    }

    fn shard(&self, seen: &SeenShard) -> Markup {
        let held = self.shown.held.get(&seen.shard);
        let (checkpoint, batches) =
            held.map_or((&seen.checkpoint, seen.batches), |held| (&held.checkpoint, held.batches));
        let lag = match held {
            Some(held) => held.lag(self.now),
            None if seen.ended => None,
            None => seen.archived_through.map(|through| between(through, self.now)),
        };
        let open = held.and_then(|held| held.open);
        html! {
            tr {
                td.long title=(seen.shard) { code { (seen.shard) } }
                (self.state(seen, held))
                td.long { (if held.is_some() { "this worker" } else { seen.owner.as_deref().unwrap_or("-") }) }
                td.long title=(checkpoint) { code { (checkpoint) } }
                td.n { (lag.map_or_else(|| "-".into(), roughly)) }
                td.n { (batches) }
                @if let Some(open) = open {
                    td.n { (ago(open.first_arrival, self.now)) }
                    td.n { (thousands(open.records)) " · " (bytesize::ByteSize::b(open.encoded_bytes)) }
                    td.n { (roughly(between(self.now, open.window.end))) }
                } @else { td.n { "-" } td.n { "-" } td.n { "-" } }
            }
        }
    }

    fn state(&self, seen: &SeenShard, held: Option<&HeldShard>) -> Markup {
        let is_stopped = self.shown.stopped.contains_key(&seen.shard);
        let (class, word) = match held {
            _ if seen.ended => ("dim", "ended"),
            Some(held) if held.failing.is_some() => ("bad", "can't commit"),
            Some(_) => ("good", "read here"),
            None if is_stopped => ("bad", "stopped"),
            None if seen.owner.is_some() => ("", "read elsewhere"),
            None if seen.pending => ("warn", "batch under way"),
            None => ("dim", "waiting"),
        };
        html! { td class=(class) { (word) } }
    }

    fn batches(&self) -> Markup {
        if self.shown.recent.is_empty() {
            return html! { div.dim { "none yet" } };
        }
        html! {
            div.table { table {
                tr {
                    th { "when" } th { "shard" } th.n { "batch" } th { "cut by" } th.n { "archived" } th.n { "duplicates" }
                    th.n { "rejected" } th.n { "conflicts" } th { "objects" }
                }
                @for batch in &self.shown.recent { (self.batch(batch)) }
            } }
        }
    }

    fn batch(&self, batch: &Committed) -> Markup {
        html! {
            tr {
                td title=(batch.at) { (ago(batch.at, self.now)) " ago" }
                td.long title=(batch.shard) { code { (batch.shard) } }
                td.n { (batch.batch_seq) }
                td { (batch.cut.as_str()) }
                td.n { (thousands(batch.counts.archived)) }
                td.n { (thousands(batch.counts.duplicates)) }
                td.n { (thousands(batch.counts.rejected)) }
                td.n { (thousands(batch.counts.conflicts)) }
                td.keys {
                    @for (key, bytes) in batch.objects.iter().take(8) {
                        div { code { (key) } " " span.dim { (bytesize::ByteSize::b(*bytes)) } }
                    }
                    @if batch.objects.len() > 8 { div.dim { "and " (batch.objects.len() - 8) " more" } }
                }
            }
        }
    }
}

fn tile(name: &str, value: &str, class: &str) -> Markup {
    html! { div.tile { b class=(class) { (value) } span.dim { (name) } } }
}

fn ago(earlier: Timestamp, later: Timestamp) -> String {
    roughly(between(earlier, later))
}

/// A time to the second.
fn clock(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
