//! What Prometheus scrapes: one moment of a worker, in numbers.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};

use super::calls::{CallError, counted};
use super::clock::between;
use crate::archive::manifest::ObjectKind;
use crate::batch::CutReason;
use crate::record::RejectReason;
use crate::source::ShardId;
use crate::source::pubsub::Counters;
use crate::worker::Tally;
use crate::worker::board::{Ended, Shown, Spread};

pub use table::{Kind, METRICS};

/// The most shards that have series of their own.
pub const MOST_SHARDS: usize = 1000;

/// A worker at one moment.
pub struct Moment<'a> {
    /// The time of day.
    pub now: Timestamp,
    /// When the process began.
    pub started: Timestamp,
    /// What it shows.
    pub shown: &'a Shown,
    /// What it has committed.
    pub committed: &'a Tally,
    /// Records read, those of open batches included.
    pub records_read: u64,
    /// Bytes read, as the source stores them.
    pub bytes_read: u64,
    /// What records hold in memory, in bytes.
    pub memory_used: u64,
    /// The most that they may hold.
    pub memory_limit: u64,
    /// For how long the source keeps a record, where it drops any.
    pub retention: Option<Duration>,
    /// What was received, where the source has to be filled.
    pub received: Option<&'a Counters>,
    /// The newest recorded verification.
    pub verified: Option<LastVerify>,
}

/// What is known of recorded verifications.
#[derive(Clone, Copy, Debug)]
pub struct LastVerify {
    /// When the newest began.
    pub at: Timestamp,
    /// When the last one began that was whole and proved every chain's end.
    pub whole_at: Option<Timestamp>,
    /// How much was found that stands.
    pub findings: u64,
}

impl Moment<'_> {
    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        let mut scrape = Scrape::default();
        self.work(&mut scrape);
        self.shards(&mut scrape);
        self.leases(&mut scrape);
        calls(&mut scrape);
        if let Some(received) = self.received {
            receiving(received, &mut scrape);
        }
        scrape.set("memory_used_bytes", &[], self.memory_used as f64);
        scrape.set("memory_limit_bytes", &[], self.memory_limit as f64);
        if let Some(LastVerify { at, whole_at, findings }) = self.verified {
            scrape.set("verify_last_timestamp_seconds", &[], seconds(at));
            if let Some(whole_at) = whole_at {
                scrape.set("verify_last_whole_timestamp_seconds", &[], seconds(whole_at));
            }
            scrape.set("verify_last_findings", &[], findings as f64);
        }
        scrape.set("build_info", &[env!("CARGO_PKG_VERSION")], 1.0);
        scrape.render()
    }

    fn work(&self, scrape: &mut Scrape) {
        let counts = &self.committed.counts;
        scrape.set("records_read_total", &[], self.records_read as f64);
        scrape.set("records_archived_total", &[], counts.archived as f64);
        scrape.set("records_duplicate_total", &[], counts.duplicates as f64);
        scrape.set("records_conflict_total", &[], counts.conflicts as f64);
        for reason in RejectReason::ALL {
            let rejected = self.committed.rejected_by_reason.get(&reason).copied().unwrap_or(0);
            scrape.set("records_rejected_total", &[reason.as_str()], rejected as f64);
        }
        scrape.set("bytes_read_total", &[], self.bytes_read as f64);
        for cut in CutReason::ALL {
            let batches = self.shown.batches.get(&cut).copied().unwrap_or(0);
            scrape.set("batches_total", &[cut.as_str()], batches as f64);
        }
        for kind in [ObjectKind::Events, ObjectKind::Rejected] {
            let (objects, bytes) = self.shown.objects.get(&kind).copied().unwrap_or((0, 0));
            scrape.set("objects_total", &[kind.as_str()], objects as f64);
            scrape.set("object_bytes_total", &[kind.as_str()], bytes as f64);
        }
        scrape.observe("commit_seconds", &self.shown.commit_seconds);
        scrape.set("commit_retries_total", &[], self.shown.retries as f64);
        let last = self.shown.committed_at.unwrap_or(self.started);
        scrape.set("last_commit_timestamp_seconds", &[], seconds(last));
        scrape.set("gaps_total", &[], self.committed.gaps as f64);
    }

    fn shards(&self, scrape: &mut Scrape) {
        let lag = |shard: &ShardId| self.shown.lag(shard, self.now);
        // What stopped here falls behind, too, and nobody else tells of it.
        let shards: BTreeSet<&ShardId> = self.shown.held.keys().chain(self.shown.stopped_through.keys()).collect();
        let mut shards: Vec<&ShardId> = shards.into_iter().collect();
        if shards.len() > MOST_SHARDS {
            shards.sort_by_key(|shard| std::cmp::Reverse(lag(shard)));
            shards.truncate(MOST_SHARDS);
        }
        for shard in shards {
            let mut set = |name, value| scrape.set(name, &[shard.as_str()], value);
            if let Some(lag) = lag(shard) {
                set("archive_lag_seconds", lag.as_secs_f64());
                if let Some(retention) = self.retention {
                    set("retention_headroom_seconds", retention.as_secs_f64() - lag.as_secs_f64());
                }
            }
            let Some(held) = self.shown.held.get(shard) else { continue };
            if let Some(behind) = held.behind {
                set("millis_behind_latest", behind.as_millis() as f64);
            }
            let open = held.open;
            set("window_age_seconds", open.map_or(0.0, |open| between(open.first_arrival, self.now).as_secs_f64()));
            set("buffered_records", open.map_or(0.0, |open| open.records as f64));
            set("buffered_bytes", open.map_or(0.0, |open| open.encoded_bytes as f64));
            if let Some(open) = open {
                set("next_cut_seconds", between(self.now, open.window.end).as_secs_f64());
            }
        }
    }

    fn leases(&self, scrape: &mut Scrape) {
        scrape.set("leases_held", &[], self.shown.held.len() as f64);
        scrape.set("leases_taken_total", &[], self.shown.taken as f64);
        for reason in Ended::ALL {
            let lost = self.shown.lost.get(&reason).copied().unwrap_or(0);
            scrape.set("leases_lost_total", &[reason.as_str()], lost as f64);
        }
        let unowned = self.shown.look.as_ref().map_or(0, |look| look.unowned);
        scrape.set("leases_unowned", &[], unowned as f64);
        scrape.set("shards_stopped", &[], self.shown.stopped.len() as f64);
    }
}

fn calls(scrape: &mut Scrape) {
    for (call, calls) in counted() {
        let labels = [call.service, call.operation.as_str()];
        scrape.set("api_calls_total", &labels, calls.sent as f64);
        for (kind, errors) in &calls.errors {
            scrape.set("api_errors_total", &[labels[0], labels[1], kind.as_str()], *errors as f64);
        }
        let throttles = calls.errors.get(&CallError::Throttled).copied().unwrap_or(0);
        scrape.set("api_throttles_total", &labels, throttles as f64);
        scrape.set("api_retries_total", &labels, calls.again as f64);
    }
}

fn receiving(received: &Counters, scrape: &mut Scrape) {
    let mut set = |name, step, count: &AtomicU64| scrape.set(name, &[step], count.load(Ordering::Relaxed) as f64);
    set("pubsub_messages_total", "received", &received.received);
    set("pubsub_messages_total", "acknowledged", &received.acknowledged);
    set("pubsub_messages_total", "unacknowledged", &received.unacknowledged);
    set("pubsub_messages_total", "near_dead_letter", &received.near_dead_letter);
    set("pubsub_segments_total", "put", &received.segments);
    set("pubsub_segments_total", "removed", &received.removed);
}

/// Unix time.
fn seconds(time: Timestamp) -> f64 {
    time.as_microsecond() as f64 / 1e6
}

/// Samples, gathered by the names of the table.
#[derive(Default)]
struct Scrape(BTreeMap<&'static str, Vec<Metric>>);

impl Scrape {
    /// The value of the series with these labels, in the table's order.
    fn set(&mut self, name: &'static str, labels: &[&str], value: f64) {
        let metric = METRICS.iter().find(|metric| metric.name == name).expect("every metric is in the table");
        debug_assert_eq!(metric.labels.len(), labels.len(), "{name}");
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        let mut sample = Metric::from_label(metric.labels.iter().zip(labels).map(pair).collect());
        match metric.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                sample.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                sample.set_gauge(gauge);
            }
        }
        self.0.entry(name).or_default().push(sample);
    }

    fn observe(&mut self, name: &'static str, spread: &Spread) {
        let mut below = 0;
        let buckets = Spread::BOUNDS.iter().zip(spread.counts).map(|(bound, count)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(below);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(spread.count);
        histogram.set_sample_sum(spread.sum);
        let mut sample = Metric::default();
        sample.set_histogram(histogram);
        self.0.entry(name).or_default().push(sample);
    }

    fn render(mut self) -> String {
        let families = METRICS.iter().filter_map(|metric| {
            let samples = self.0.remove(metric.name)?;
            let mut family = MetricFamily::default();
            family.set_name(format!("auditlake_{}", metric.name));
            family.set_help(metric.help.to_owned());
            family.set_field_type(match metric.kind {
                Kind::Counter => MetricType::COUNTER,
                Kind::Gauge => MetricType::GAUGE,
                Kind::Histogram => MetricType::HISTOGRAM,
            });
            family.set_metric(samples);
            Some(family)
        });
        let mut text = Vec::new();
        TextEncoder::new().encode(&families.collect::<Vec<_>>(), &mut text).expect("memory takes all bytes");
        String::from_utf8(text).expect("the encoder writes text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Window;
    use crate::ops::calls::count;
    use crate::source::Checkpoint;
    use crate::worker::board::{HeldShard, OpenView};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn held(archived_through: i64) -> HeldShard {
        let window = Window { start: at(0), end: at(1800) };
        HeldShard {
            checkpoint: Checkpoint::TrimHorizon,
            batches: 0,
            open: Some(OpenView { window, first_arrival: at(900), records: 7, encoded_bytes: 70 }),
            behind: Some(Duration::from_millis(1500)),
            archived_through: Some(at(archived_through)),
            failing: None,
            turned_at: None,
        }
    }

    fn render(shown: &Shown) -> String {
        let moment = Moment {
            now: at(1000),
            started: at(1),
            shown,
            committed: &Tally::default(),
            records_read: 9,
            bytes_read: 90,
            memory_used: 1,
            memory_limit: 2,
            retention: Some(Duration::from_hours(1)),
            received: Some(&Counters::default()),
            verified: Some(LastVerify { at: at(500), whole_at: Some(at(400)), findings: 3 }),
        };
        moment.render()
    }

    fn one_shard() -> Shown {
        Shown { held: BTreeMap::from([(ShardId::new("s"), held(800))]), ..Shown::default() }
    }

    #[test]
    fn every_metric_of_the_table_is_served_and_no_other() {
        count("s3", "PutObject", |calls| {
            calls.sent += 1;
            *calls.errors.entry(CallError::Throttled).or_default() += 1;
        });
        let text = render(&one_shard());
        let served: BTreeSet<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE auditlake_")?.split(' ').next()).collect();
        assert_eq!(served, METRICS.iter().map(|metric| metric.name).collect());
    }

    #[test]
    fn a_shards_series_say_how_it_is_and_go_with_it() {
        let text = render(&one_shard());
        for line in [
            "archive_lag_seconds{shard=\"s\"} 200",
            "retention_headroom_seconds{shard=\"s\"} 3400",
            "millis_behind_latest{shard=\"s\"} 1500",
            "window_age_seconds{shard=\"s\"} 100",
            "buffered_records{shard=\"s\"} 7",
            "buffered_bytes{shard=\"s\"} 70",
            "next_cut_seconds{shard=\"s\"} 800",
        ] {
            assert!(text.contains(&format!("auditlake_{line}\n")), "{line}");
        }
        assert!(!render(&Shown::default()).contains("shard="));
    }

    #[test]
    fn a_shard_that_stopped_here_goes_on_falling_behind() {
        let stopped_through = BTreeMap::from([(ShardId::new("t"), at(700))]);
        let shown = Shown { stopped_through: stopped_through.clone(), ..one_shard() };
        let text = render(&shown);
        for line in ["archive_lag_seconds{shard=\"t\"} 300", "retention_headroom_seconds{shard=\"t\"} 3300"] {
            assert!(text.contains(&format!("auditlake_{line}\n")), "{line}: {text}");
        }
        assert_eq!(text.matches("shard=\"t\"").count(), 2, "{text}");
        // Held again, and nothing is known of it yet.
        let again = HeldShard { archived_through: None, open: None, ..held(0) };
        let text = render(&Shown { held: BTreeMap::from([(ShardId::new("t"), again)]), ..shown });
        assert!(text.contains("auditlake_archive_lag_seconds{shard=\"t\"} 300\n"), "{text}");
    }

    #[test]
    fn of_very_many_shards_those_furthest_behind_have_series() {
        let held = (0..).take(MOST_SHARDS + 1).map(|number| (ShardId::new(format!("s{number}")), held(number % 900)));
        let text = render(&Shown { held: held.collect(), ..Shown::default() });
        assert_eq!(text.matches("auditlake_archive_lag_seconds{").count(), MOST_SHARDS);
        assert!(text.contains("shard=\"s0\"") && !text.contains("shard=\"s899\""));
    }
}
