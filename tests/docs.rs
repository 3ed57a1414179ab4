//! The pages of docs/ that come from the code are what the code says. `make docs` writes them.

#![allow(clippy::unwrap_used, reason = "what is not as expected fails the test")]

use std::fmt::Write as _;
use std::path::Path;

use auditlake::config::{Config, schema};
use auditlake::ops::metrics::{METRICS, MOST_SHARDS};
use serde_json::Value;

/// Compares a page with what it should be; writes it instead where `AUDITLAKE_WRITE_DOCS` is set.
fn check(page: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    if std::env::var_os("AUDITLAKE_WRITE_DOCS").is_some() {
        std::fs::write(path, expected).unwrap();
        return;
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == expected, "docs/{page} is not what the code says: run `make docs`");
}

#[test]
fn metrics() {
    let rows: String = METRICS
        .iter()
        .map(|metric| {
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let (name, kind, labels) = (metric.name, metric.kind.as_str(), labels.join(", "));
            format!("| `auditlake_{name}` | {kind} | {labels} | {} |\n", metric.help)
        })
        .collect();
    let page = format!(
        "# Metrics\n\n`auditlake run` serves them at `http://<metrics.listen>/metrics`, in the text format of Prometheus. \
         Written by `make docs`.\n\nCounters begin at 0 with the process. The series of a shard are those of the worker that \
         reads it, and go when it does; at most {MOST_SHARDS} shards have series, those furthest behind.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n{rows}"
    );
    check("metrics.md", &page);
}

#[test]
fn configuration() {
    let schema = serde_json::to_value(schema()).unwrap();
    let defaults = serde_json::to_value(Config::default()).unwrap();
    let mut page = String::from(
        "# Configuration\n\nA TOML file, given by `--config`. Every key can be set by an environment variable too: \
         `AUDITLAKE__ARCHIVE__S3__BUCKET` is `archive.s3.bucket`, and wins over the file. A key that is not listed here is \
         refused. `auditlake config` prints what is in force, `auditlake config schema` this page for programs. Written by \
         `make docs`.\n\nDurations are written `30m` or `1h 30m`, sizes `128MiB`.\n",
    );
    for (name, section) in schema["properties"].as_object().unwrap() {
        write!(page, "\n## `[{name}]`\n\n{}\n\n| key | default | meaning |\n|---|---|---|\n", text(section)).unwrap();
        keys(&mut page, name, section, &defaults[name]);
    }
    check("configuration.md", &page);
}

/// The rows of all keys below `path`.
fn keys(page: &mut String, path: &str, schema: &Value, defaults: &Value) {
    for (name, key) in schema["properties"].as_object().unwrap() {
        let (path, default) = (format!("{path}.{name}"), &defaults[name]);
        if let Some(table) = table_of(key) {
            keys(page, &path, table, default);
            continue;
        }
        for value in values_of(key) {
            assert!(text(key).contains(&value), "{path} can be {value:?}, which its description does not say");
        }
        let default = match default {
            Value::Null => String::new(),
            other => format!("`{other}`"),
        };
        writeln!(page, "| `{path}` | {default} | {} |", text(key)).unwrap();
    }
}

/// The schema of a table with keys of its own, also of one that may be missing.
fn table_of(key: &Value) -> Option<&Value> {
    let alternatives = key["anyOf"].as_array().into_iter().flatten();
    std::iter::once(key).chain(alternatives).find(|schema| schema["properties"].is_object())
}

/// The values that a key may have, where they are few and each has a name.
fn values_of(key: &Value) -> Vec<String> {
    let alternatives = ["anyOf", "oneOf"].into_iter().filter_map(|of| key[of].as_array()).flatten();
    let named = key["enum"].as_array().into_iter().flatten().chain([&key["const"]]).filter_map(Value::as_str);
    named.map(|value| format!("`{value}`")).chain(alternatives.flat_map(values_of)).collect()
}

fn text(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}
