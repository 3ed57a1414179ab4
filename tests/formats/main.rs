//! Every format, compression and partitioning is opened by engines that are not ours: `DuckDB` and pyarrow, through
//! `check.py`. What they must find is written beside each archive, in `expected.json`.
//!
//! The engines come with a Python environment that `make test` sets up and names in `AUDITLAKE_PYTHON`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use auditlake::{encode, record, source};
use serde_json::{Value, json};

use auditlake::batch::Window;
use encode::ddl;
use encode::schema::{COLUMNS, ColumnType, Index, field_id};
use encode::{BatchEncoder, Compression, Format, Layout, PartitionKey, RejectRow};
use samples::Sample;

#[path = "../../src/encode/samples.rs"]
mod samples;

/// What is known of the message of all rejects but the first.
const SOURCE_MESSAGE: &str = r#"{"attributes":{"n":"1.50 \"ü\""},"message_id":"9"}"#;

/// The archives that are written: a name and a layout.
fn layouts() -> Vec<(&'static str, Layout)> {
    use Compression::{Gzip, None, Snappy, Zstd};
    use Format::{Ndjson, Parquet};
    use PartitionKey::{Dt, Hour, ResourceCategory, SourceLabel};
    let of = |format, compression, partition_by: &[PartitionKey]| Layout {
        format,
        compression,
        partition_by: partition_by.to_vec(),
        // A name that must be encoded in a folder and escaped nowhere else.
        source_label: "it's 50% ü".to_owned(),
        ..samples::layout()
    };
    vec![
        ("parquet-zstd", of(Parquet, Zstd, &[Dt])),
        ("parquet-gzip", of(Parquet, Gzip, &[Dt, Hour])),
        ("parquet-snappy", of(Parquet, Snappy, &[SourceLabel, Dt])),
        ("parquet-none", of(Parquet, None, &[])),
        ("parquet-category", of(Parquet, Zstd, &[Dt, ResourceCategory])),
        ("parquet-no-raw", Layout { keep_raw: false, ..of(Parquet, Zstd, &[Dt]) }),
        ("ndjson-zstd", of(Ndjson, Zstd, &[Dt])),
        ("ndjson-gzip", of(Ndjson, Gzip, &[Dt, SourceLabel])),
        ("ndjson-none", of(Ndjson, None, &[])),
    ]
}

/// A few hundred rows, the awkward ones among them.
fn rows() -> Vec<Sample> {
    let mut rows = samples::generate(300);
    let at = |text: &str| Some(text.parse().expect("a time"));
    rows[0].record.emit_time = at("2026-12-31T23:59:59.999Z");
    rows[1].record.emit_time = at("2027-01-01T00:00:00Z");
    rows[2].record.emit_time = at("2026-11-21T10:00:00.123456789Z");
    rows[3].record.emit_time = at("1969-12-31T23:59:59.9999999Z");
    rows[4].record.emit_time = at("2026-11-21T10:00:00.999999999Z");
    rows[5].record.details = Some(r#""a string, \"quoted\"""#.into());
    rows[6].record.details = Some("{}".into());
    rows[7].record.details = Some("[1,{\"n\":12345678901234567890}]".into());
    rows[8].record.principal_name = Some("line\nbreak \"quote\" ' \u{1f600} \u{2028}".into());
    rows[9].record.principal_name = Some(String::new().into());
    // Versions of one log_id: 1, 2 and once more 2.
    for (index, version) in [(10, 1), (11, 2), (12, 2)] {
        rows[index].record.log_id = Some("versioned".into());
        rows[index].record.version = version;
    }
    rows.extend((0..5).map(samples::empty));
    rows
}

/// What the engines must find in one row, in the words of SQL.
fn expected(sample: &Sample, layout: &Layout) -> Value {
    let record = &sample.record;
    json!({
        "position": sample.row().position.to_string(),
        "log_id": record.log_id,
        "version": record.version,
        "emit_time_us": record.emit_time.map(encode::time_text::floor_micros),
        "arrival_time_us": encode::time_text::floor_micros(sample.arrival),
        "operation": record.operation,
        "principal_name": record.principal_name,
        "ip_chain": record.ip_chain,
        "notes": record.notes.iter().map(AsRef::as_ref).chain(sample.conflict.then_some("dedupe_conflict")).collect::<Vec<&str>>(),
        "details": record.details,
        "deprecated": record.deprecated,
        "source_message": sample.source_message,
        "raw": layout.keep_raw.then_some(&record.raw),
        "source_label": layout.source_label,
        "dt": encode::keys::partition_time(record.emit_time, sample.arrival).to_string()[..10],
    })
}

fn window() -> Window {
    Window::holding("2026-11-21T09:45:00Z".parse().expect("a time"), Duration::from_mins(30))
}

fn write_archive(root: &Path, layout: &Layout, rows: &[Sample], rejects: u32) {
    let mut batch = BatchEncoder::new(layout).expect("a layout");
    for row in rows {
        batch.append(&row.row());
    }
    let payload = source::Position::new(7);
    let shard = source::ShardId::new("folder/audit.ndjson");
    for index in 0..rejects {
        let position = payload.record(index);
        let arrival = "2026-11-21T09:45:00.25Z".parse().expect("a time");
        batch.reject(&RejectRow {
            reason: record::RejectReason::InvalidJson,
            shard: &shard,
            position,
            arrival,
            source_message: (index > 0).then_some(SOURCE_MESSAGE),
            raw: b"{\xff",
        });
    }
    for object in batch.finish(&window(), &shard, 0).expect("objects") {
        let path = root.join(object.key);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, object.object.bytes.join()).expect("an object");
    }
}

fn columns() -> Value {
    let column = |(index, column): (usize, &encode::schema::Column)| {
        let (arrow, sql) = match column.kind {
            ColumnType::Int => ("int32", "INTEGER"),
            ColumnType::Text | ColumnType::Json => ("string", "VARCHAR"),
            ColumnType::TextList => ("list<element: string not null>", "VARCHAR[]"),
            ColumnType::Time => ("timestamp[us, tz=UTC]", "TIMESTAMP WITH TIME ZONE"),
        };
        json!({
            "name": column.name, "arrow": arrow, "sql": sql, "nullable": column.nullable, "field_id": field_id(index),
            "statistics": column.index != Index::None, "bloom": column.index == Index::Bloom,
        })
    };
    COLUMNS.iter().enumerate().map(column).collect()
}

#[test]
fn engines_that_are_not_ours_read_every_format() {
    let python = std::env::var_os("AUDITLAKE_PYTHON")
        .expect("AUDITLAKE_PYTHON must name a python with duckdb and pyarrow: run `make test`, which sets one up");
    // A path with everything that SQL and patterns trip over.
    let folder = tempfile::Builder::new().prefix("it's [a] *").tempdir().expect("a folder");
    let rows = rows();
    let mut archives = Vec::new();
    let mut write = |name: &str, layout: &Layout, rows: &[Sample], rejects: u32| {
        let root = folder.path().join(name);
        fs::create_dir_all(&root).expect("a folder");
        write_archive(&root, layout, rows, rejects);
        let root = root.to_str().expect("a path in UTF-8");
        archives.push(json!({
            "name": name, "root": root,
            "format": layout.format, "keep_raw": layout.keep_raw,
            "folders": layout.partition_by,
            "ddl": ddl::duckdb(&ddl::DdlInput { root, database: "default", bucket: ddl::Bucket::default(), layout }),
            "rows": rows.iter().map(|row| expected(row, layout)).collect::<Vec<_>>(),
            "rejects": rejects,
        }));
    };
    for (name, layout) in layouts() {
        write(name, &layout, &rows, 3);
        let no_rejects = format!("{name}-without-rejects");
        write(&no_rejects, &layout, &rows[..20], 0);
        write(&format!("{name}-empty"), &layout, &[], 0);
    }
    // Nothing but null wherever null may be.
    write("nulls", &samples::layout(), &(0..10).map(samples::empty).collect::<Vec<_>>(), 0);
    let expected = json!({ "columns": columns(), "created_by": encode::CREATED_BY, "reject_message": SOURCE_MESSAGE, "archives": archives });
    fs::write(folder.path().join("expected.json"), expected.to_string()).expect("a file");

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/check.py");
    let output = Command::new(python).arg(script).arg(folder.path()).output().expect("python runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    println!("{out}");
}
