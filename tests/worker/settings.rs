//! What a worker of the tests is told, and a record for it. The simulation uses it, too.

use std::time::Duration;

use auditlake::batch::Limits;
use auditlake::encode::{Compression, Format, Layout, PartitionKey};
use auditlake::lease::WorkerId;
use auditlake::ops::retry::RetryPolicy;
use auditlake::record::{IdentityKey, Rules};
use auditlake::source::{InitialPosition, SourceKind};
use auditlake::worker::Settings;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) const ARCHIVE_ID: Uuid = Uuid::from_u128(0xa11d);

pub(crate) fn settings() -> Settings {
    Settings {
        worker: WorkerId::new("worker-1"),
        archive_id: ARCHIVE_ID,
        identity: IdentityKey::of_archive(ARCHIVE_ID),
        layout: Layout {
            format: Format::Ndjson,
            compression: Compression::None,
            compression_level: 0,
            partition_by: vec![PartitionKey::Dt],
            keep_raw: true,
            source_label: "test".into(),
            source_kind: SourceKind::Kinesis,
            rules: Rules { trusted_proxies: Vec::new(), max_payload_bytes: 1 << 20 },
        },
        limits: Limits {
            window: Duration::from_mins(30),
            max_records: 1_000_000,
            max_bytes: 1 << 40,
            max_memory: 1 << 40,
        },
        memory: 1 << 40,
        concurrency: 4,
        poll: Duration::from_secs(1),
        failover: Duration::from_secs(10),
        initial: InitialPosition::TrimHorizon,
        archive_made_at: Timestamp::UNIX_EPOCH,
        retry: RetryPolicy { give_up_after: Some(Duration::from_secs(30)) },
    }
}

/// A record of this id.
pub(crate) fn record(id: impl std::fmt::Display) -> Value {
    record_at(id, "2026-11-21T09:31:00Z")
}

pub(crate) fn record_at(id: impl std::fmt::Display, emit_time: &str) -> Value {
    json!({
        "log_id": id.to_string(), "version": 2, "emit_time": emit_time, "operation": "UpdateNamespace",
        "status": "OK", "principal": {"type": "user", "name": "alice@example.com"},
    })
}
