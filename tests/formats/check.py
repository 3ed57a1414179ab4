"""Reads the archives that tests/formats/main.rs wrote, with DuckDB and pyarrow, and compares them with expected.json.

Usage: check.py FOLDER. Prints one line an archive; fails with what differs.
"""

import glob
import json
import os
import sys
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq


def check(condition, *what):
    if not condition:
        raise SystemExit("check.py: " + " ".join(str(w) for w in what))


def same(actual, expected, *where):
    check(actual == expected, *where, "\n  is       ", repr(actual), "\n  should be", repr(expected))


def parquet_file(path, columns, created_by, keep_raw):
    """One file's schema, metadata and indexes; gives its number of rows."""
    file = pq.ParquetFile(path)
    metadata = file.metadata
    same(metadata.created_by, created_by, path, "created_by")
    same(metadata.format_version, "1.0", path, "version")
    check(not metadata.metadata, path, "has key-value metadata (ARROW:schema?)", metadata.metadata)
    schema = file.schema_arrow
    same(schema.names, [c["name"] for c in columns], path, "names")
    for field, column in zip(schema, columns):
        where = (path, column["name"])
        same(str(field.type), column["arrow"], *where, "type")
        same(field.nullable, column["nullable"], *where, "nullable")
        same(int(field.metadata[b"PARQUET:field_id"]), column["field_id"], *where, "field id")
        if pa.types.is_list(field.type):
            same(int(field.type.value_field.metadata[b"PARQUET:field_id"]), 1000 + column["field_id"], *where)
    con = duckdb.connect()
    meta = con.execute(
        "SELECT path_in_schema, row_group_id, bloom_filter_offset IS NOT NULL, stats_null_count, num_values, coalesce(stats_min_value, stats_min)"
        " FROM parquet_metadata(?)",
        [escape(path)],
    ).fetchall()
    by_name = {c["name"]: c for c in columns}
    same(len(meta), metadata.num_row_groups * len(columns), path, "column chunks")
    for path_in_schema, group, bloom, nulls, values, least in meta:
        column = by_name[path_in_schema.split(",")[0]]
        where = (path, "row group", group, column["name"])
        same(bloom, column["bloom"], *where, "bloom filter")
        if not column["statistics"]:
            check(least is None, *where, "has statistics")
        elif "[]" not in column["sql"]:
            check(nulls is not None, *where, "has no null count")
            check((least is None) == (nulls == values), *where, "has no minimum")
    log_id = next(i for i, c in enumerate(columns) if c["name"] == "log_id")
    for group in range(metadata.num_row_groups):
        for i in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(i)
            check(chunk.has_offset_index, path, chunk.path_in_schema, "has no offset index")
        check(metadata.row_group(group).column(log_id).has_column_index, path, "log_id has no column index")
    table = file.read()
    same(table.num_rows, metadata.num_rows, path, "rows")
    table.validate(full=True)
    if not keep_raw:
        same(table["raw"].null_count, table.num_rows, path, "raw")
    # Every id is found by way of the bloom filter.
    for value in table["log_id"].to_pylist()[:5]:
        if value is not None:
            n = con.execute(f"SELECT count(*) FROM read_parquet('{escape(path, True)}') WHERE log_id = ?", [value])
            check(n.fetchone()[0] >= 1, path, "does not find", value)
    return table.num_rows, schema


def escape(path, quotes=False):
    path = "".join(f"[{c}]" if c in "*?[" else c for c in path)
    return path.replace("'", "''") if quotes else path


def row_key(row):
    return row["position"]


def view_rows(con, archive, ndjson):
    """audit_events, in the words of expected.json."""
    names = ["position", "log_id", "version", "emit_time_us", "arrival_time_us", "operation", "principal_name"]
    names += ["ip_chain", "notes", "details", "deprecated", "source_message", "raw", "source_label"]
    dt = "CAST(dt AS VARCHAR)" if "dt" in archive["folders"] else "NULL"
    found = con.execute(
        "SELECT source_position, log_id, version, epoch_us(emit_time), epoch_us(arrival_time), operation,"
        f" principal_name, ip_chain, notes, details, deprecated, source_message, raw, source_label, {dt} FROM audit_events"
    ).fetchall()
    rows = [dict(zip(names + ["dt"], row)) for row in found]
    expected = [dict(row) for row in archive["rows"]]
    for row in expected:
        if "dt" not in archive["folders"]:
            row["dt"] = None
    for row in rows + expected if ndjson else []:
        # DuckDB prints JSON anew.
        for name in ("details", "deprecated", "source_message"):
            row[name] = row[name] and json.loads(row[name])
    return sorted(rows, key=row_key), sorted(expected, key=row_key)


def latest(rows):
    newest = {}
    for row in rows:
        newest[row["log_id"]] = max(newest.get(row["log_id"], 0), row["version"])
    return sorted(r["position"] for r in rows if r["log_id"] is None or r["version"] == newest[r["log_id"]])


def check_views(archive, columns, reject_message):
    ndjson = archive["format"] == "ndjson"
    con = duckdb.connect()
    con.execute("SET TimeZone = 'America/New_York'")
    con.execute(archive["ddl"])
    described = {name: kind for name, kind, *_ in con.execute("DESCRIBE audit_events").fetchall()}
    wanted = {c["name"]: c["sql"] for c in columns} | {"dt": "DATE", "hour": "VARCHAR"}
    same(set(described), {c["name"] for c in columns} | set(archive["folders"]), archive["name"], "columns")
    for name, kind in described.items():
        same(kind, wanted[name], archive["name"], name, "type")
    rows, expected = view_rows(con, archive, ndjson)
    same(len(rows), len(expected), archive["name"], "rows")
    for row, wanted_row in zip(rows, expected):
        for name, value in wanted_row.items():
            same(row[name], value, archive["name"], row["position"], name)
    found = con.execute("SELECT source_position FROM audit_events_latest ORDER BY 1").fetchall()
    same([p for (p,) in found], latest(archive["rows"]), archive["name"], "audit_events_latest")
    rejected = con.execute("SELECT reason, source_position, epoch_us(arrival_time), from_base64(raw_base64), dt::VARCHAR,"
                           " source_message FROM audit_rejected ORDER BY 2").fetchall()
    wanted = [("invalid_json", f"7/0/{i}", 1795254300250000, b"{\xff", "2026-11-21", reject_message if i else None)
              for i in range(archive["rejects"])]
    same(rejected, wanted, archive["name"], "audit_rejected")
    if "dt" in archive["folders"] and not ndjson and archive["rows"]:
        plan = con.execute("EXPLAIN ANALYZE SELECT count(*) FROM audit_events WHERE dt = DATE '2027-01-01'").fetchone()[1]
        check("Total Files Read: 1" in plan or len(archive["rows"]) < 100, archive["name"], "reads all dates:", plan)


def main(folder):
    with open(os.path.join(folder, "expected.json"), encoding="utf-8") as f:
        expected = json.load(f)
    columns = expected["columns"]
    schema = None
    for archive in expected["archives"]:
        files = glob.glob(os.path.join(glob.escape(archive["root"]), "events", "**", "*.*"), recursive=True)
        files = [f for f in files if os.path.isfile(f)]
        total = 0
        for path in files if archive["format"] == "parquet" else []:
            rows, file_schema = parquet_file(path, columns, expected["created_by"], archive["keep_raw"])
            check(schema is None or schema.equals(file_schema, check_metadata=True), path, "has another schema")
            schema = file_schema
            total += rows
        if archive["format"] == "parquet":
            same(total, len(archive["rows"]), archive["name"], "rows in files")
        labels = [unquote(part) for f in files for part in f.split(os.sep) if part.startswith("source_label=")]
        same(set(labels) - {"source_label=it's 50% ü"}, set(), archive["name"], "folders")
        check_views(archive, columns, expected["reject_message"])
        print(f"{archive['name']}: {len(files)} files, {len(archive['rows'])} rows")


main(sys.argv[1])
