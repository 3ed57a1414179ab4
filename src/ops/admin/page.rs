//! The page: what an operator looks at first. Made anew for each request; it refreshes itself. Shows numbers, names and
//! positions, never a record.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use bytesize::ByteSize;
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Admin, Opened, Verified};
use crate::archive::manifest::ObjectKind;
use crate::ops::clock::between;
use crate::ops::health;
use crate::ops::metrics::MOST_SHARDS;
use crate::ops::words::{counted, roughly, thousands, to_the_second};
use crate::worker::Tally;
use crate::worker::board::{Committed, CommittedObject, HeldShard, SeenShard, Shown};

/// How often it refreshes itself, in seconds.
const REFRESH: u32 = 5;

/// The most objects of a batch that are named.
const MOST_OBJECTS: usize = 8;

/// Styles stand in the page itself, and nothing else may be loaded or run.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// `GET /`
pub(super) async fn page(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let moment = PageMoment {
        now: admin.clock.now(),
        monotonic: admin.clock.monotonic(),
        started: admin.started,
        worker: admin.opened.get().map(|opened| opened.worker.clone()),
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
    /// This worker's name, once it is known.
    worker: Option<String>,
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
                    (self.now())
                    h2 { "Shards" }
                    (self.shards())
                    (self.totals())
                    h2 { "Newest batches committed here" }
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
                span.dim { "version " (env!("CARGO_PKG_VERSION")) " · as of " (clock(self.now)) }
            }
            @if let Some(opened) = opened {
                dl {
                    dt { "worker" } dd { code { (opened.worker) } }
                    dt { "source" } dd { code { (opened.reads) } " " span.dim { "labelled " code { (opened.label) } } }
                    dt { "archive" } dd { code { (opened.archive) } " " code.dim { (opened.archive_id) } }
                }
            }
        }
    }

    fn now(&self) -> Markup {
        let held = self.shown.held.len();
        let lags = self.shown.held.keys().filter_map(|shard| self.shown.lag(shard, self.now));
        let not_held = self.seen().iter().filter(|seen| self.is_own_and_not_held(seen) || self.is_stopped(seen));
        let lag = lags.chain(not_held.filter_map(|seen| self.lag(seen))).max();
        html! {
            div.tiles {
                (tile(if held == 1 { "shard read here" } else { "shards read here" }, &held.to_string(), ""))
                (tile("most behind", &lag.map_or_else(|| "-".into(), roughly), ""))
                (self.verification())
            }
            (self.damage())
        }
    }

    /// Other workers' totals, and those of this one's earlier lives, are in Prometheus.
    fn totals(&self) -> Markup {
        let (counts, gaps) = (&self.committed.counts, self.committed.gaps);
        let warns = |count: u64| if count > 0 { "warn" } else { "" };
        html! {
            h2 { "Since this worker's start, " (ago(self.started, self.now)) " ago" }
            div.tiles {
                (tile("archived", &thousands(counts.archived), ""))
                (tile("duplicates", &thousands(counts.duplicates), ""))
                (tile("rejected", &thousands(counts.rejected), warns(counts.rejected)))
                (tile("conflicts", &thousands(counts.conflicts), warns(counts.conflicts)))
                (tile("gaps", &gaps.to_string(), if gaps > 0 { "bad" } else { "" }))
            }
        }
    }

    fn verification(&self) -> Markup {
        let Some(Verified { at, limits, findings, found_at, .. }) = &self.verified else {
            return tile("last verify", "none yet", "dim");
        };
        let last = format!("last verify, {} ago", ago(*at, self.now));
        let name = found_at.map_or(last.clone(), |found| format!("found {} ago; {last}", ago(found, self.now)));
        match findings {
            0 if limits.is_empty() => tile(&name, "intact", "good"),
            // Green is for what was proved.
            0 => tile(&format!("{name}; {}", limits.join("; ")), "nothing found", ""),
            _ => tile(&name, &counted(*findings, "finding"), "bad"),
        }
    }

    /// The findings that stand, as far as they are named.
    fn damage(&self) -> Markup {
        let Some(Verified { findings: findings @ 1.., first, found_at, .. }) = &self.verified else { return html! {} };
        let unnamed = findings.saturating_sub(first.len() as u64);
        html! {
            div.reasons {
                @if let Some(found_at) = found_at {
                    div title=(found_at) {
                        "A verify " (ago(*found_at, self.now)) " ago found damage in the archive, and none since then looked at as "
                        "much:"
                    }
                } @else {
                    div { "The last verify found damage in the archive:" }
                }
                @for (kind, key) in first { div { (kind) " " code { (key) } } }
                @if unnamed > 0 { div.dim { "and " (thousands(unnamed)) " more; " code { "auditlake verify" } " names all" } }
            }
        }
    }

    /// The shards as their lease rows were when they were looked at last.
    fn seen(&self) -> &[SeenShard] {
        self.shown.look.as_ref().map_or(&[], |look| &look.shards)
    }

    /// Whether the shard was this worker's when it was seen last, and is not read: its lease could not be renewed, or is
    /// about to be taken.
    fn is_own_and_not_held(&self, seen: &SeenShard) -> bool {
        let is_own = seen.owner.is_some() && seen.owner == self.worker;
        is_own && !seen.ended && !self.shown.held.contains_key(&seen.shard)
    }

    /// Whether the shard stopped, here or elsewhere, and nobody has begun again.
    fn is_stopped(&self, seen: &SeenShard) -> bool {
        let is_held = self.shown.held.contains_key(&seen.shard);
        !seen.ended && !is_held && (seen.stop().is_some() || self.shown.stopped.contains_key(&seen.shard))
    }

    fn lag(&self, seen: &SeenShard) -> Option<Duration> {
        let known_here = self.shown.lag(&seen.shard, self.now);
        if known_here.is_some() || seen.ended || self.shown.held.contains_key(&seen.shard) {
            return known_here;
        }
        seen.archived_through.map(|through| between(through, self.now))
    }

    fn shards(&self) -> Markup {
        let seen = self.seen();
        if seen.is_empty() {
            return html! { div.dim { "none yet" } };
        }
        html! {
            @if let Some((since, _)) = &self.shown.failing {
                div.warn {
                    "What is not read here is shown as it was " (roughly(self.monotonic.saturating_sub(*since))) " ago."
                }
            }
            div.table { table {
                thead { tr {
                    th.name { "shard" } th { "state" } th.owner { "owner" } th.long { "archived through" } th.n { "behind" }
                    th.n { "batches" } th.n { "window age" } th.n { "buffered" } th.n { "next cut" }
                } }
                @for shard in seen.iter().take(MOST_SHARDS) { tbody { (self.shard(shard)) } }
            } }
            @if seen.len() > MOST_SHARDS { div.dim { "and " (seen.len() - MOST_SHARDS) " more" } }
        }
    }

    /// Each cell says what it is: where the screen is too narrow for a table, there is no head to tell.
    fn shard(&self, seen: &SeenShard) -> Markup {
        let held = self.shown.held.get(&seen.shard);
        let (checkpoint, batches) =
            held.map_or((&seen.checkpoint, seen.batches), |held| (&held.checkpoint, held.batches));
        let lag = self.lag(seen);
        let is_own = held.is_some() || self.is_own_and_not_held(seen);
        let owner = if is_own { "this worker" } else { seen.owner.as_deref().unwrap_or("-") };
        html! {
            tr {
                td.name data-is="shard" { code { (seen.shard) } }
                (self.state(seen, held))
                td.owner data-is="owner" title=(owner) { (owner) }
                td.long data-is="archived through" title=(checkpoint) { code { (checkpoint) } }
                td.n data-is="behind" { (lag.map_or_else(|| "-".into(), roughly)) }
                td.n data-is="batches" { (thousands(batches)) }
                @if let Some(open) = held.and_then(|held| held.open) {
                    td.n data-is="window age" { (ago(open.first_arrival, self.now)) }
                    td.n data-is="buffered" { (thousands(open.records)) " · " (ByteSize::b(open.encoded_bytes)) }
                    td.n data-is="next cut" { (roughly(between(self.now, open.window.end))) }
                } @else {
                    td.n data-is="window age" { "-" } td.n data-is="buffered" { "-" } td.n data-is="next cut" { "-" }
                }
            }
        }
    }

    fn state(&self, seen: &SeenShard, held: Option<&HeldShard>) -> Markup {
        let stop = seen.stop();
        let (class, word) = match held {
            _ if seen.ended => ("dim", "ended"),
            Some(held) if held.failing.is_some() => ("bad", "can't commit"),
            Some(_) => ("good", "read here"),
            None if self.is_stopped(seen) => ("bad", "stopped"),
            None if self.is_own_and_not_held(seen) && self.shown.failing.is_some() => ("bad", "lease ran out"),
            None if self.is_own_and_not_held(seen) => ("dim", "waiting"),
            None if seen.owner.is_some() => ("", "read elsewhere"),
            None if seen.pending => ("warn", "batch under way"),
            None => ("dim", "waiting"),
        };
        let why =
            stop.filter(|_| word == "stopped").map(|stop| format!("at {}: {}", to_the_second(stop.at), stop.error));
        html! { td class=(class) data-is="state" title=[why] { (word) } }
    }

    fn batches(&self) -> Markup {
        if self.shown.recent.is_empty() {
            return html! { div.dim { "none yet" } };
        }
        html! {
            div.table { table {
                thead { tr {
                    th { "when" } th.name { "shard" } th.n { "batch" } th { "cut by" } th.n { "archived" } th.n { "duplicates" }
                    th.n { "rejected" } th.n { "conflicts" }
                } }
                @for batch in &self.shown.recent { tbody { (self.batch(batch)) } }
            } }
        }
    }

    /// The objects stand in a row of their own, open: what is folded would close itself at each refresh.
    fn batch(&self, batch: &Committed) -> Markup {
        let counts = &batch.counts;
        html! {
            tr {
                td data-is="when" title=(batch.at) { (ago(batch.at, self.now)) " ago" }
                td.name data-is="shard" { code { (batch.shard) } }
                td.n data-is="batch" { (batch.batch_seq) }
                td data-is="cut by" { (batch.cut.as_str()) }
                td.n data-is="archived" { (thousands(counts.archived)) }
                td.n data-is="duplicates" { (thousands(counts.duplicates)) }
                td.n data-is="rejected" { (thousands(counts.rejected)) }
                td.n data-is="conflicts" { (thousands(counts.conflicts)) }
            }
            @if !batch.objects.is_empty() { tr { td.keys colspan="8" { (objects(&batch.objects)) } } }
        }
    }
}

/// Rejected records come first: they are what somebody has to look at.
fn objects(objects: &[CommittedObject]) -> Markup {
    let (rejected, others): (Vec<_>, Vec<_>) = objects.iter().partition(|object| object.kind == ObjectKind::Rejected);
    html! {
        @for object in rejected.into_iter().chain(others).take(MOST_OBJECTS) {
            @let class = (object.kind == ObjectKind::Rejected).then_some("warn");
            div { code class=[class] { (object.key) } " " span.dim { (ByteSize::b(object.bytes)) } }
        }
        @if objects.len() > MOST_OBJECTS { div.dim { "and " (objects.len() - MOST_OBJECTS) " more" } }
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

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
