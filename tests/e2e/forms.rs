//! Every form of the archive, opened by `DuckDB` with the SQL that `ddl duckdb` prints, as it prints it.

use serde_json::{Value, json};

use crate::support::{Corpus, Plan, Record, Truth, Workspace, duckdb};

/// A format, a compression, partitions, and whether raw is kept.
const FORMS: [(&str, &str, &str, bool); 8] = [
    ("parquet", "zstd", r#"["dt"]"#, true),
    ("parquet", "snappy", r#"["dt", "hour"]"#, true),
    ("parquet", "gzip", r#"["source_label", "dt"]"#, false),
    ("parquet", "none", "[]", true),
    ("ndjson", "zstd", r#"["dt"]"#, true),
    ("ndjson", "gzip", r#"["dt", "resource_category"]"#, false),
    ("json", "none", r#"["dt"]"#, true),
    ("ndjson", "none", "[]", true),
];

/// Rows of the highest version of each `log_id`, and all without one.
fn latest(truth: &Truth) -> u64 {
    let newest = |log_id: &String| {
        truth.events.iter().filter(|key| key.log_id.as_ref() == Some(log_id)).map(|key| key.version).max()
    };
    let counts = truth.events.iter().filter(|key| key.log_id.as_ref().is_none_or(|id| newest(id) == Some(key.version)));
    counts.count() as u64
}

#[test]
fn in_every_form_the_printed_sql_finds_what_was_sent() {
    let Corpus { files, truth } = Plan { seed: 9, lines: 700, files: 2, pad: 0 }.corpus();
    let latest = latest(&truth);
    assert!(latest < truth.archived(), "some versions are not the latest");
    for (format, compression, partitions, keep_raw) in FORMS {
        let mut workspace = Workspace::new();
        workspace.set("archive.format", &format!("{format:?}")).set("archive.compression", &format!("{compression:?}"));
        workspace.set("archive.partition_by", partitions).set("archive.keep_raw", &keep_raw.to_string());
        workspace.feed("a.ndjson", &files[0]);
        workspace.feed("b.ndjson", &files[1]);
        workspace.catch_up();
        workspace.verify();

        let sql = workspace.run(&["ddl", "duckdb"]).expect(0).stdout;
        let form = format!("{format} {compression} {partitions} keep_raw={keep_raw}");
        let count = |table: &str| duckdb(&sql, &format!("SELECT count(*) FROM {table}"))[0][0].clone();
        assert_eq!(count("audit_events"), truth.archived(), "{form}");
        assert_eq!(count("audit_events_latest"), latest, "{form}");
        assert_eq!(count("audit_rejected"), truth.rejected(), "{form}");
        let tags = duckdb(&sql, "SELECT json_extract_string(details, '$.tag') FROM audit_events ORDER BY 1");
        let mut sent: Vec<&str> = truth.events.iter().map(|key| key.tag.as_str()).collect();
        sent.sort_unstable();
        assert!(tags.iter().map(|row| row[0].as_str().unwrap()).eq(sent), "{form}");
        let raw = duckdb(&sql, "SELECT count(raw) FROM audit_events")[0][0].clone();
        assert_eq!(raw, if keep_raw { truth.archived() } else { 0 }, "{form}");
    }
}

#[test]
fn the_columns_say_what_the_record_said() {
    for format in ["parquet", "ndjson"] {
        let mut workspace = Workspace::new();
        workspace.set("archive.format", &format!("{format:?}"));
        // Written out in full: what a reader of the archive relies on.
        workspace.feed("a.ndjson", r#"{"operation":"DeleteAPIKey","principal":{"id":"u-1","type":"user","name":"ann@example.com"},"raw_details":{"tag":"x","namespace":"shop.a1b2c"},"x_forwarded_for":"203.0.113.9, 198.51.100.7","emit_time":"2026-11-05T10:00:00.123456789+02:00","log_id":"Abc/1","async_operation_id":"job-1","status":"PermissionDenied","version":3,"invented":[1]}"#);
        workspace.set("record.trusted_proxies", r#"["198.51.100.0/24"]"#);
        workspace.catch_up();
        let sql = workspace.run(&["ddl", "duckdb"]).expect(0).stdout;
        let query = "SELECT log_id, version, epoch_us(emit_time), operation_canonical, action, outcome, principal_type, \
                     actor_email, client_ip, ip_chain, async_operation_id, namespace, details_source, unknown_fields, notes, \
                     source_label, source_kind, source_shard, source_position, CAST(dt AS VARCHAR) FROM audit_events";
        let expected = json!([
            "Abc/1",
            3,
            1_793_865_600_123_456_i64,
            "DeleteApiKey",
            "delete",
            "failure",
            "user",
            "ann@example.com",
            "203.0.113.9",
            ["203.0.113.9", "198.51.100.7"],
            "job-1",
            "shop.a1b2c",
            "raw_details",
            r#"{"invented":[1]}"#,
            [],
            "test",
            "file",
            "a.ndjson",
            "0/0/0",
            "2026-11-05"
        ]);
        assert_eq!(duckdb(&sql, query), [expected], "{format}");
    }
}

#[test]
fn an_archive_without_rejects_or_without_anything_opens_too() {
    for format in ["parquet", "ndjson"] {
        let mut workspace = Workspace::new();
        workspace.set("archive.format", &format!("{format:?}"));
        workspace.feed("empty.ndjson", "\n\n");
        workspace.catch_up();
        workspace.verify();
        let sql = workspace.run(&["ddl", "duckdb"]).expect(0).stdout;
        let query = "SELECT (SELECT count(*) FROM audit_events), (SELECT count(*) FROM audit_rejected)";
        assert_eq!(duckdb(&sql, query), [json!([0, 0])]);
        workspace.feed("one.ndjson", Record::new(1).line(0));
        workspace.catch_up();
        assert_eq!(duckdb(&sql, query), [json!([1, 0])], "views see what comes later");
    }
}

#[test]
fn a_batch_that_reaches_its_bound_is_cut() {
    let mut workspace = Workspace::new();
    let Corpus { files, truth } = Plan { seed: 10, lines: 1_000, files: 1, pad: 0 }.corpus();
    workspace.feed("a.ndjson", &files[0]);
    workspace.set("batch.max_records", "300");
    let summary: Value = workspace.catch_up();
    assert_eq!(summary["batches"], 4);
    assert_eq!(summary["archived"], truth.archived());
    workspace.verify();
}
