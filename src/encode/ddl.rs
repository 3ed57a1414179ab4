//! The SQL that opens the archive in an engine. Text only, made from the table of columns.
//!
//! | view or table | rows |
//! |---|---|
//! | `audit_events` | every row |
//! | `audit_events_latest` | of each `log_id` those of its highest version, and every row without `log_id`. Not the truth about an event: a higher version is not known to supersede a lower one (RECORDS.md) |
//! | `audit_rejected` | quarantine |

use std::fmt::Write as _;

use super::schema::{COLUMNS, Column, ColumnType};
use super::{Format, Layout, PartitionKey, REJECT_FIELDS, keys};

/// What the SQL is made for.
#[derive(Clone, Copy, Debug)]
pub struct DdlInput<'a> {
    /// Where the archive is, without a slash at its end: a path, or `s3://bucket/prefix`.
    pub root: &'a str,
    /// Database (Athena) or schema of the catalog `hive` (Trino); `DuckDB` has no use for it.
    pub database: &'a str,
    /// How DuckDB gets at an archive in a bucket.
    pub bucket: Bucket<'a>,
    /// How objects are written. Objects of another format, from before a change of configuration, are not opened.
    pub layout: &'a Layout,
}

/// What an engine must be told of a bucket that its location does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket<'a> {
    /// Its region.
    pub region: Option<&'a str>,
    /// Another endpoint than the region's, as a URL.
    pub endpoint_url: Option<&'a str>,
    /// Whether the bucket stands in the path instead of the host name.
    pub path_style: bool,
}

impl DdlInput<'_> {
    fn root(&self) -> &str {
        self.root.trim_end_matches('/')
    }

    /// The columns that files hold and that are not folders as well: most engines refuse a name that is both.
    fn data_columns(&self) -> impl Iterator<Item = &'static Column> {
        let is_folder = |name| self.layout.partition_by.iter().any(|key| key.as_str() == name);
        COLUMNS.iter().filter(move |column| !is_folder(column.name))
    }

    /// Every column's name, folders last.
    fn all_names(&self) -> Vec<&'static str> {
        let folders = self.layout.partition_by.iter().map(|key| key.as_str());
        self.data_columns().map(|column| column.name).chain(folders).collect()
    }
}

/// A string literal of SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The rows of the highest version; equal ones are all kept, as are rows that have no `log_id` to compare.
fn latest_view(create: &str, table: &str, names: &[&str]) -> String {
    let names = names.join(", ");
    format!(
        "{create} AS\nSELECT {names}\nFROM (SELECT *, rank() OVER (PARTITION BY log_id ORDER BY version DESC) AS version_rank FROM {table}) AS ranked\nWHERE log_id IS NULL OR version_rank = 1;\n"
    )
}

// ---- DuckDB

/// SQL for `DuckDB` 2.0 or later.
///
/// Runs on an archive that has no objects of a kind, and sees them once there are some. `DuckDB`'s `allow_empty` gives a
/// table of one column `empty` then, so each view names its columns and unites what is read with no rows of the right
/// types. `DuckDB` prints the numbers of NDJSON's `details` anew (`1.50` becomes `1.5`).
pub fn duckdb(input: &DdlInput<'_>) -> String {
    let mut sql = String::from("-- DuckDB 2.0 or later.\n");
    if input.root().starts_with("s3://") {
        sql.push_str(&duckdb_secret(input));
    }
    let ndjson = input.layout.format == Format::Ndjson;
    let columns: Vec<_> = input.data_columns().map(|column| (column.name, duckdb_type(column.kind, ndjson))).collect();
    let folders: Vec<_> =
        input.layout.partition_by.iter().map(|key| (key.as_str(), duckdb_folder_type(*key))).collect();
    let extension = keys::extension(input.layout);
    let reader = if ndjson { "read_json" } else { "read_parquet" };
    duckdb_view(
        &mut sql,
        "audit_events",
        &columns,
        &folders,
        &duckdb_read(input, reader, "events", extension, &columns, &folders),
    );
    sql.push('\n');
    sql.push_str(&latest_view("CREATE OR REPLACE VIEW audit_events_latest", "audit_events", &input.all_names()));
    sql.push('\n');
    let fields = REJECT_FIELDS.map(|name| (name, if name == "arrival_time" { "TIMESTAMPTZ" } else { "VARCHAR" }));
    let folders = [("dt", "DATE")];
    duckdb_view(
        &mut sql,
        "audit_rejected",
        &fields,
        &folders,
        &duckdb_read(input, "read_json", "rejected", "ndjson", &fields, &folders),
    );
    sql
}

/// What comes before the views when files lie in a bucket: a comment, since whoever runs the SQL may have their own way
/// to it.
fn duckdb_secret(input: &DdlInput<'_>) -> String {
    let Bucket { region, endpoint_url, path_style } = input.bucket;
    let mut secret = format!("TYPE s3, PROVIDER credential_chain, SCOPE {}", literal(&format!("{}/", input.root())));
    let mut add = |name: &str, value: &str| {
        write!(secret, ", {name} {value}").expect("a string takes all that is written");
    };
    if let Some(region) = region {
        add("REGION", &literal(region));
    }
    if let Some(url) = endpoint_url {
        // DuckDB takes a host and a port, without a scheme.
        let (scheme, host) = url.split_once("://").unwrap_or(("https", url));
        add("ENDPOINT", &literal(host.trim_end_matches('/')));
        add("USE_SSL", if scheme == "http" { "false" } else { "true" });
    }
    if path_style {
        add("URL_STYLE", "'path'");
    }
    format!(
        "-- To reach the bucket, first run:\n--   INSTALL httpfs; LOAD httpfs; INSTALL aws; LOAD aws;\n--   CREATE OR REPLACE SECRET auditlake ({secret});\n"
    )
}

/// In NDJSON `details` is JSON itself, which only the type JSON reads; the view makes it text, as in Parquet.
fn duckdb_type(kind: ColumnType, ndjson: bool) -> &'static str {
    match kind {
        ColumnType::Int => "INTEGER",
        ColumnType::Json if ndjson => "JSON",
        ColumnType::Text | ColumnType::Json => "VARCHAR",
        ColumnType::TextList => "VARCHAR[]",
        ColumnType::Time => "TIMESTAMPTZ",
    }
}

fn duckdb_folder_type(key: PartitionKey) -> &'static str {
    if key == PartitionKey::Dt { "DATE" } else { "VARCHAR" }
}

type Typed = (&'static str, &'static str);

fn duckdb_view(sql: &mut String, name: &str, columns: &[Typed], folders: &[Typed], read: &str) {
    let all = || columns.iter().chain(folders);
    let selected: Vec<_> = all()
        .map(
            |(name, kind)| {
                if *kind == "JSON" { format!("CAST({name} AS VARCHAR) AS {name}") } else { (*name).to_owned() }
            },
        )
        .collect();
    let empty: Vec<_> = all().map(|(name, kind)| format!("CAST(NULL AS {kind}) AS {name}")).collect();
    writeln!(
        sql,
        "CREATE OR REPLACE VIEW {name} AS\nSELECT {}\nFROM (\n  SELECT {} WHERE false\n  UNION ALL BY NAME\n  SELECT * FROM {read}\n) AS files;",
        selected.join(", "),
        empty.join(", ")
    )
    .expect("a string takes all that is written");
}

fn duckdb_read(
    input: &DdlInput<'_>,
    reader: &str,
    kind: &str,
    ext: &str,
    columns: &[Typed],
    folders: &[Typed],
) -> String {
    // Exactly the folders of the layout: objects of another depth have other columns.
    let levels: String = folders.iter().map(|(name, _)| format!("{name}=*/")).collect();
    let pattern = format!("{}/{kind}/{levels}*.{ext}", escape_glob(input.root()));
    let mut read = format!("{reader}({}, allow_empty = true", literal(&pattern));
    let map = |columns: &[Typed]| {
        columns.iter().map(|(name, kind)| format!("{name}: '{kind}'")).collect::<Vec<_>>().join(", ")
    };
    if reader == "read_json" {
        write!(read, ", format = 'newline_delimited', maximum_object_size = 134217728, columns = {{{}}}", map(columns))
            .expect("a string takes all that is written");
    }
    if folders.is_empty() {
        read.push_str(", hive_partitioning = false)");
    } else {
        write!(read, ", hive_partitioning = true, hive_types = {{{}}})", map(folders))
            .expect("a string takes all that is written");
    }
    read
}

/// A path in which nothing is a pattern.
fn escape_glob(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '*' | '?' | '[' => escaped.extend(['[', c, ']']),
            _ => escaped.push(c),
        }
    }
    escaped
}

// ---- Athena

/// SQL for Amazon Athena: run the statements one by one. Dates (and hours) are projected, so no partition is ever to
/// be added; an archive that is cut by more than those has `MSCK REPAIR TABLE` instead, to be run after new folders.
pub fn athena(input: &DdlInput<'_>) -> String {
    let head = "-- Amazon Athena, one statement at a time.\n".to_owned();
    let database = input.database.to_owned();
    statements(input, &Engine { head, database, kind: hive_type, text: "string", table: athena_table })
}

/// What the two engines over Hive's layout differ in.
struct Engine {
    head: String,
    /// Where tables are made, as statements name it.
    database: String,
    kind: fn(ColumnType, bool) -> &'static str,
    /// The type of a reject's fields.
    text: &'static str,
    table: MakeTable,
}

/// Writes a table of this name over the objects of this kind: its columns, its folders, and whether it is NDJSON.
type MakeTable = fn(&mut String, &DdlInput<'_>, &str, &str, &[Typed], &[PartitionKey], bool);

/// Both tables and the view between them.
fn statements(input: &DdlInput<'_>, engine: &Engine) -> String {
    let ndjson = input.layout.format == Format::Ndjson;
    let mut sql = engine.head.clone();
    if ndjson {
        sql.push_str("-- Times are text here: from_iso8601_timestamp_nanos(emit_time) makes them times.\n");
    }
    let columns: Vec<_> =
        input.data_columns().map(|column| (column.name, (engine.kind)(column.kind, ndjson))).collect();
    (engine.table)(&mut sql, input, "audit_events", "events", &columns, &input.layout.partition_by, ndjson);
    let database = &engine.database;
    let view = format!("CREATE OR REPLACE VIEW {database}.audit_events_latest");
    sql.push_str(&latest_view(&view, &format!("{database}.audit_events"), &input.all_names()));
    sql.push('\n');
    let fields = REJECT_FIELDS.map(|name| (name, engine.text));
    (engine.table)(&mut sql, input, "audit_rejected", "rejected", &fields, &[PartitionKey::Dt], true);
    sql
}

fn hive_type(kind: ColumnType, ndjson: bool) -> &'static str {
    match kind {
        ColumnType::Int => "int",
        ColumnType::Time if !ndjson => "timestamp",
        ColumnType::Text | ColumnType::Json | ColumnType::Time => "string",
        ColumnType::TextList => "array<string>",
    }
}

fn athena_table(
    sql: &mut String,
    input: &DdlInput<'_>,
    table: &str,
    kind: &str,
    columns: &[Typed],
    folders: &[PartitionKey],
    ndjson: bool,
) {
    let columns: Vec<_> = columns.iter().map(|(name, kind)| format!("  `{name}` {kind}")).collect();
    let location = format!("{}/{kind}/", input.root());
    let folded = if folders.is_empty() {
        String::new()
    } else {
        let folders: Vec<_> = folders.iter().map(|key| format!("`{}` string", key.as_str())).collect();
        format!("PARTITIONED BY ({})\n", folders.join(", "))
    };
    let stored = if ndjson { "ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'" } else { "STORED AS PARQUET" };
    let projected = folders.iter().all(|key| matches!(key, PartitionKey::Dt | PartitionKey::Hour));
    let properties = if projected && !folders.is_empty() {
        format!("\nTBLPROPERTIES (\n{}\n)", projection(&location, folders).join(",\n"))
    } else {
        String::new()
    };
    let database = input.database;
    write!(
        sql,
        "CREATE EXTERNAL TABLE IF NOT EXISTS {database}.{table} (\n{}\n)\n{folded}{stored}\nLOCATION {}{properties};\n\n",
        columns.join(",\n"),
        literal(&location)
    )
    .expect("a string takes all that is written");
    if !projected {
        writeln!(sql, "MSCK REPAIR TABLE {database}.{table};\n").expect("a string takes all that is written");
    }
}

/// Partitions that Athena works out for itself. Temporal Cloud's audit logs are younger than the range's start.
fn projection(location: &str, folders: &[PartitionKey]) -> Vec<String> {
    let mut properties = vec![("projection.enabled".to_owned(), "true".to_owned())];
    let mut template = location.to_owned();
    for key in folders {
        let name = key.as_str();
        let settings: &[(&str, &str)] = match key {
            PartitionKey::Dt => &[
                ("type", "date"),
                ("format", "yyyy-MM-dd"),
                ("range", "2020-01-01,NOW+1DAY"),
                ("interval", "1"),
                ("interval.unit", "DAYS"),
            ],
            _ => &[("type", "integer"), ("range", "0,23"), ("digits", "2")],
        };
        properties.extend(settings.iter().map(|(k, v)| (format!("projection.{name}.{k}"), (*v).to_owned())));
        write!(template, "{name}=${{{name}}}/").expect("a string takes all that is written");
    }
    properties.push(("storage.location.template".to_owned(), template));
    properties.iter().map(|(name, value)| format!("  {} = {}", literal(name), literal(value))).collect()
}

// ---- Trino

/// SQL for Trino's Hive connector, catalog `hive`. Run the `CALL`s again after new dates have come.
pub fn trino(input: &DdlInput<'_>) -> String {
    let mut head =
        String::from("-- Trino, Hive connector (catalog hive); hive.non-managed-table-creates-enabled is needed.\n");
    if input.layout.format == Format::Parquet {
        head.push_str("-- For microseconds: SET SESSION hive.timestamp_precision = 'MICROSECONDS';\n");
    }
    let database = format!("hive.{}", input.database);
    statements(input, &Engine { head, database, kind: trino_type, text: "varchar", table: trino_table })
}

fn trino_type(kind: ColumnType, ndjson: bool) -> &'static str {
    match kind {
        ColumnType::Int => "integer",
        ColumnType::Time if !ndjson => "timestamp",
        ColumnType::Text | ColumnType::Json | ColumnType::Time => "varchar",
        ColumnType::TextList => "array(varchar)",
    }
}

fn trino_table(
    sql: &mut String,
    input: &DdlInput<'_>,
    table: &str,
    kind: &str,
    columns: &[Typed],
    folders: &[PartitionKey],
    ndjson: bool,
) {
    // Folders are the last columns of a table, in their order.
    let folder_type = |key: PartitionKey| if key == PartitionKey::Dt { "date" } else { "varchar" };
    let folder_columns = folders.iter().map(|key| (key.as_str(), folder_type(*key)));
    let columns: Vec<_> =
        columns.iter().copied().chain(folder_columns).map(|(name, kind)| format!("  {name} {kind}")).collect();
    let names: Vec<_> = folders.iter().map(|key| literal(key.as_str())).collect();
    let partitioned =
        if names.is_empty() { String::new() } else { format!(",\n  partitioned_by = ARRAY[{}]", names.join(", ")) };
    let database = input.database;
    write!(
        sql,
        "CREATE TABLE IF NOT EXISTS hive.{database}.{table} (\n{}\n)\nWITH (\n  external_location = {},\n  format = '{}'{partitioned}\n);\n\n",
        columns.join(",\n"),
        literal(&format!("{}/{kind}/", input.root())),
        if ndjson { "OPENX_JSON" } else { "PARQUET" }
    )
    .expect("a string takes all that is written");
    if !folders.is_empty() {
        writeln!(sql, "CALL hive.system.sync_partition_metadata({}, '{table}', 'ADD');\n", literal(database))
            .expect("a string takes all that is written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::samples::layout;

    fn input(layout: &Layout) -> DdlInput<'_> {
        DdlInput { root: "s3://bucket/it's/", database: "audit", bucket: Bucket::default(), layout }
    }

    #[test]
    fn every_engine_is_told_of_every_column_and_quotes_are_escaped() {
        let layout = layout();
        for sql in [duckdb(&input(&layout)), athena(&input(&layout)), trino(&input(&layout))] {
            for column in &COLUMNS {
                assert!(sql.contains(column.name), "{} in {sql}", column.name);
            }
            assert!(sql.contains("'s3://bucket/it''s/events/"), "{sql}");
            assert_eq!(sql.matches('\'').count() % 2, 0, "{sql}");
        }
    }

    #[test]
    fn a_folder_is_no_column_of_the_files() {
        let layout = Layout { partition_by: vec![PartitionKey::Dt, PartitionKey::SourceLabel], ..layout() };
        let athena = athena(&input(&layout));
        assert_eq!(athena.matches("`source_label` string").count(), 2, "once as a folder, once in rejects: {athena}");
        assert!(athena.contains("PARTITIONED BY (`dt` string, `source_label` string)"));
        assert!(athena.contains("MSCK REPAIR TABLE audit.audit_events;"));
        let trino = trino(&input(&layout));
        assert!(trino.contains("partitioned_by = ARRAY['dt', 'source_label']"));
        assert!(trino.contains("  dt date,\n  source_label varchar\n)"));
    }

    #[test]
    fn athena_projects_dates_and_hours() {
        let layout = Layout { partition_by: vec![PartitionKey::Dt, PartitionKey::Hour], ..layout() };
        let sql = athena(&input(&layout));
        assert!(
            sql.contains("'storage.location.template' = 's3://bucket/it''s/events/dt=${dt}/hour=${hour}/'"),
            "{sql}"
        );
        assert!(sql.contains("'projection.hour.digits' = '2'") && !sql.contains("MSCK"));
    }

    #[test]
    fn ndjson_is_read_as_json() {
        let layout = Layout { format: Format::Ndjson, ..layout() };
        assert!(athena(&input(&layout)).contains("`emit_time` string"));
        assert!(trino(&input(&layout)).contains("format = 'OPENX_JSON'"));
        assert!(duckdb(&input(&layout)).contains("/dt=*/*.ndjson.zst'"));
    }

    #[test]
    fn duckdb_is_told_how_to_reach_a_bucket_and_nothing_of_one_for_a_path() {
        let layout = layout();
        let sql = duckdb(&input(&layout));
        assert!(
            sql.contains("--   CREATE OR REPLACE SECRET auditlake (TYPE s3, PROVIDER credential_chain, SCOPE 's3://bucket/it''s/');"),
            "{sql}"
        );
        let bucket = Bucket { region: Some("eu-west-1"), endpoint_url: Some("http://minio:9000/"), path_style: true };
        let sql = duckdb(&DdlInput { bucket, ..input(&layout) });
        let told = "REGION 'eu-west-1', ENDPOINT 'minio:9000', USE_SSL false, URL_STYLE 'path');";
        assert!(sql.contains(told), "{sql}");
        let sql = duckdb(&DdlInput { root: "/var/lib/archive", ..input(&layout) });
        assert!(!sql.contains("SECRET"), "{sql}");
    }

    #[test]
    fn nothing_in_a_path_is_a_pattern() {
        assert_eq!(escape_glob("/a [1]/b*"), "/a [[]1]/b[*]");
    }
}
