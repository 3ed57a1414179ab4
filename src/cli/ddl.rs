//! `ddl`: the SQL that opens the archive.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::ValueEnum;

/// What the SQL is made for.
#[derive(Clone, Copy, Debug)]
pub struct DdlInput<'a> {
    /// Where the archive is, without a slash at its end: a path, or `s3://bucket/prefix`.
    pub root: &'a str,
    /// Database (Athena) or schema of the catalog `hive` (Trino); `DuckDB` has no use for it.
    pub database: &'a str,
    /// How objects are written. Objects of another format, from before a change of configuration, are not opened.
    pub layout: &'a Layout,
}

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    /// Views over the files, for DuckDB.
    Duckdb,
    /// External tables for Amazon Athena.
    Athena,
    /// External tables for Trino's Hive connector.
    Trino,
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
    let mut sql = String::from(
        "-- DuckDB 2.0 or later. For s3:// first: INSTALL httpfs; LOAD httpfs; CREATE SECRET (TYPE s3, PROVIDER credential_chain);\n",
    );
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
    let pattern = format!("{}/{kind}/**/*.{ext}", escape_glob(input.root()));
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
        Engine::Athena => athena(&input),
        Engine::Trino => trino(&input),
    };
    output::text(sql.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
