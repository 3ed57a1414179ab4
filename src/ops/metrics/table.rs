//! Every metric there is: what is served and what docs/metrics.md says come from here.

/// What a metric's value does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from 0 when the process begins.
    Counter,
    /// It moves.
    Gauge,
    /// Observations, counted by how large they were.
    Histogram,
}

impl Kind {
    /// The word in the documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, behind `auditlake_`; the unit is its last word but for `_total`.
    pub name: &'static str,
    /// What its value does.
    pub kind: Kind,
    /// What tells its series apart.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const SHARD: &[&str] = &["shard"];
const CALL: &[&str] = &["service", "operation"];

/// All of them, in the order in which they are served and documented.
pub const METRICS: &[Metric] = &[
    counter("records_read_total", &[], "Records read, those of batches that are not committed yet included"),
    counter("records_archived_total", &[], "Records archived: committed, each once"),
    counter("records_duplicate_total", &[], "Copies of archived records, dropped"),
    counter(
        "records_conflict_total",
        &[],
        "Records archived under a log_id and version that another content has taken",
    ),
    counter("records_rejected_total", &["reason"], "Records put into quarantine, raw, by what is wrong with them"),
    counter("bytes_read_total", &[], "Bytes read, as the source stores them"),
    counter("batches_total", &["cut"], "Batches committed, by why each was cut"),
    counter("objects_total", &["kind"], "Objects put, manifests not counted"),
    counter("object_bytes_total", &["kind"], "Bytes of the objects put"),
    Metric {
        name: "commit_seconds",
        kind: Kind::Histogram,
        labels: &[],
        help: "How long commits took, from claims to checkpoint, waits between tries included",
    },
    counter("commit_retries_total", &[], "Steps of commits that failed and were tried again"),
    gauge(
        "last_commit_timestamp_seconds",
        &[],
        "When this worker last committed a batch; when it started, before its first",
    ),
    counter("gaps_total", &[], "Stretches of records that the source no longer had when they were to be read"),
    gauge(
        "archive_lag_seconds",
        SHARD,
        "How long ago the time is up to which all that arrived is archived; grows while a window is open, and while a shard \
         that stopped here waits to be tried again",
    ),
    gauge(
        "millis_behind_latest",
        SHARD,
        "How far reading is behind the shard's tip, in milliseconds, where the source says so",
    ),
    gauge(
        "retention_headroom_seconds",
        SHARD,
        "How long until the source drops records that are not archived yet, where it drops any",
    ),
    gauge("window_age_seconds", SHARD, "How long ago the first record of the open batch arrived; 0 where none is open"),
    gauge("buffered_records", SHARD, "Records in the open batch"),
    gauge("buffered_bytes", SHARD, "The size of the open batch's objects if it were cut now"),
    gauge("next_cut_seconds", SHARD, "How long until the clock cuts the open batch, if nothing else does before"),
    gauge("leases_held", &[], "Shards that this worker reads"),
    counter("leases_taken_total", &[], "Leases taken"),
    counter("leases_lost_total", &["reason"], "Leases that are held no more, by what became of them"),
    gauge(
        "leases_unowned",
        &[],
        "Shards with records to read whose lease nobody alive holds; those that stopped and wait to be tried again not counted",
    ),
    gauge("shards_stopped", &[], "Shards that stopped here with an error and wait to be tried again"),
    counter("api_calls_total", CALL, "Calls to services, each attempt counted"),
    counter(
        "api_errors_total",
        &["service", "operation", "kind"],
        "Attempts that failed, throttled ones included; that something is not there or not as a condition says is no error",
    ),
    counter("api_throttles_total", CALL, "Attempts that the service asked to be fewer"),
    counter("api_retries_total", CALL, "Attempts that the client sent again by itself"),
    counter(
        "pubsub_messages_total",
        &["step"],
        "Messages of a subscription: received (again, too), acknowledged, unacknowledged (durable, but they come again), and \
         near_dead_letter (about to go to the dead-letter topic)",
    ),
    counter(
        "pubsub_segments_total",
        &["step"],
        "Segments of spools: put, and removed (with seals) once they are archived",
    ),
    gauge("memory_used_bytes", &[], "What records hold in memory: open batches, and what is read ahead"),
    gauge("memory_limit_bytes", &[], "The most that they may hold: limits.memory"),
    gauge(
        "verify_last_timestamp_seconds",
        &[],
        "When the newest `verify --record` of this archive began; absent before the first",
    ),
    gauge(
        "verify_last_whole_timestamp_seconds",
        &[],
        "When the newest of them began that read everything and proved the end of every chain; absent before the first",
    ),
    gauge("verify_last_findings", &[], "What the newest found, or one before it that none since then cleared"),
    gauge("build_info", &["version"], "1; the version as a label"),
];
