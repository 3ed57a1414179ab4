#!/usr/bin/env python3
"""The job of auditlake, as far as others do it: `.tools/bench/bin/python benches/peers.py NAME IN.ndjson DIRECTORY`.

Reads audit logs in all of their shapes, brings them to the same twelve columns, keeps one record of each (log_id, version), and writes
zstd-compressed Parquet files into a folder for each day (`dt=2026-01-31`), with two threads. Nothing is remembered for a second run,
nothing is proved, what can't be read is dropped, and no record's own text is kept.
"""

import datetime
import os
import sys

THREADS = 2
UTC = datetime.timezone.utc

TEXTS = [
    "emit_time", "emitTime", "level", "caller_ip_address", "x_forwarded_for", "xForwardedFor", "user_email", "operation",
    "details", "raw_details", "rawDetails", "status", "log_id", "logId", "request_id", "async_operation_id", "asyncOperationId",
]  # fmt: skip
PRINCIPAL = ["type", "id", "name", "api_key_id", "apiKeyId"]


def duckdb(source, target):
    import duckdb as engine

    kinds = {name: "JSON" if name in ("emitTime", "details", "raw_details", "rawDetails") else "VARCHAR" for name in TEXTS}
    kinds |= {"version": "BIGINT", "principal": "JSON"}
    columns = ", ".join(f"\"{name}\": '{kind}'" for name, kind in kinds.items())
    database = engine.connect()
    database.execute(f"SET threads = {THREADS}; SET preserve_insertion_order = false; SET TimeZone = 'UTC'")
    database.execute(f"""
        COPY (
            SELECT DISTINCT ON (log_id, version) *, CAST(emit_time AS DATE) AS dt FROM (
                SELECT
                    coalesce(log_id, "logId") AS log_id,
                    coalesce(version, 0) AS version,
                    coalesce(
                        try_cast(emit_time AS TIMESTAMP),
                        make_timestamp(CAST("emitTime" ->> '$.seconds' AS BIGINT) * 1000000
                            + CAST("emitTime" ->> '$.nanos' AS BIGINT) // 1000)
                    ) AS emit_time,
                    operation,
                    coalesce(nullif(status, ''), CASE level WHEN 'LOG_LEVEL_INFO' THEN 'OK' ELSE 'ERROR' END) AS status,
                    coalesce(principal ->> '$.type', CASE WHEN user_email <> '' THEN 'user' END) AS principal_type,
                    principal ->> '$.id' AS principal_id,
                    coalesce(principal ->> '$.name', nullif(user_email, '')) AS principal_name,
                    coalesce(principal ->> '$.api_key_id', principal ->> '$.apiKeyId') AS principal_api_key_id,
                    coalesce(x_forwarded_for, "xForwardedFor", caller_ip_address) AS x_forwarded_for,
                    coalesce(async_operation_id, nullif("asyncOperationId", ''), request_id) AS async_operation_id,
                    CAST(coalesce(raw_details, "rawDetails", details) AS VARCHAR) AS details
                FROM read_json('{source}', format = 'newline_delimited', ignore_errors = true, columns = {{{columns}}})
            ) WHERE log_id IS NOT NULL AND emit_time IS NOT NULL
        ) TO '{target}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (dt))
    """)


def chdb(source, target):
    import chdb as engine

    columns = ", ".join(f"{name} Nullable(String)" for name in TEXTS)
    principal = ", ".join(f"{name} Nullable(String)" for name in PRINCIPAL)
    settings = {
        "max_threads": THREADS, "max_parsing_threads": THREADS, "max_insert_threads": 1,
        "input_format_skip_unknown_fields": 1, "input_format_json_ignore_unknown_keys_in_named_tuple": 1,
        "input_format_json_defaults_for_missing_elements_in_named_tuple": 1, "input_format_json_read_objects_as_strings": 1,
        "output_format_parquet_compression_method": "'zstd'", "max_partitions_per_insert_block": 1000,
    }  # fmt: skip
    engine.query(f"""
        INSERT INTO FUNCTION file('{target}/dt={{_partition_id}}/part.parquet', 'Parquet') PARTITION BY toDate(time)
        SELECT
            assumeNotNull(coalesce(log_id, logId)) AS log_id,
            coalesce(version, 0) AS version,
            coalesce(
                parseDateTime64BestEffortOrNull(emit_time, 6, 'UTC'),
                fromUnixTimestamp64Micro(JSONExtractInt(assumeNotNull(emitTime), 'seconds') * 1000000
                    + intDiv(JSONExtractInt(assumeNotNull(emitTime), 'nanos'), 1000), 'UTC')
            ) AS time,
            operation,
            coalesce(nullIf(status, ''), if(level = 'LOG_LEVEL_INFO', 'OK', 'ERROR')) AS status,
            coalesce(tupleElement(principal, 'type'), if(user_email != '', 'user', NULL)) AS principal_type,
            tupleElement(principal, 'id') AS principal_id,
            coalesce(tupleElement(principal, 'name'), nullIf(user_email, '')) AS principal_name,
            coalesce(tupleElement(principal, 'api_key_id'), tupleElement(principal, 'apiKeyId')) AS principal_api_key_id,
            coalesce(x_forwarded_for, xForwardedFor, caller_ip_address) AS x_forwarded_for,
            coalesce(async_operation_id, nullIf(asyncOperationId, ''), request_id) AS async_operation_id,
            coalesce(raw_details, rawDetails, details) AS details
        FROM file('{source}', 'JSONEachRow', '{columns}, version Nullable(Int64), principal Tuple({principal})')
        WHERE log_id != ''
        LIMIT 1 BY log_id, version
        SETTINGS {", ".join(f"{name} = {value}" for name, value in settings.items())}
    """)


def polars(source, target):
    os.environ["POLARS_MAX_THREADS"] = str(THREADS)
    import polars as engine

    text, number, column, lit = engine.String, engine.Int64, engine.col, engine.lit
    schema = dict.fromkeys(TEXTS, text) | {"version": number}
    schema["emitTime"] = engine.Struct({"seconds": number, "nanos": number})
    schema["principal"] = engine.Struct(dict.fromkeys(PRINCIPAL, text))
    first, principal, seconds = engine.coalesce, column("principal").struct.field, column("emitTime").struct.field

    def filled(name):
        return engine.when(column(name) != "").then(column(name))

    def written(name, pattern):
        return column(name).str.strip_suffix("Z").str.to_datetime(pattern, time_unit="us", strict=False)

    rows = engine.scan_ndjson(source, schema=schema, ignore_errors=True).select(
        log_id=first("log_id", "logId"),
        version=column("version").fill_null(0),
        emit_time=first(
            written("emit_time", "%Y-%m-%dT%H:%M:%S%.f"),
            engine.from_epoch(seconds("seconds") * 1_000_000 + seconds("nanos") // 1000, time_unit="us"),
        ),
        operation=column("operation"),
        status=first(filled("status"), engine.when(column("level") == "LOG_LEVEL_INFO").then(lit("OK")).otherwise(lit("ERROR"))),
        principal_type=first(principal("type"), engine.when(column("user_email") != "").then(lit("user"))),
        principal_id=principal("id"),
        principal_name=first(principal("name"), filled("user_email")),
        principal_api_key_id=first(principal("api_key_id"), principal("apiKeyId")),
        x_forwarded_for=first("x_forwarded_for", "xForwardedFor", "caller_ip_address"),
        async_operation_id=first("async_operation_id", filled("asyncOperationId"), "request_id"),
        details=first("raw_details", "rawDetails", "details"),
    )
    rows = rows.filter(column("log_id").is_not_null() & column("emit_time").is_not_null())
    rows = rows.unique(subset=["log_id", "version"], keep="any").with_columns(dt=column("emit_time").dt.date())
    folders = engine.PartitionBy(target, key="dt", include_key=False)
    rows.sink_parquet(folders, compression="zstd", mkdir=True, engine="streaming")


def python(source, target):
    """What is written first: a loop. One thread, but for Arrow's own."""
    import orjson
    import pyarrow
    from pyarrow import parquet

    pyarrow.set_cpu_count(THREADS)
    texts = ["operation", "status", "principal_type", "principal_id", "principal_name", "principal_api_key_id", "x_forwarded_for"]
    texts = [(name, pyarrow.string()) for name in [*texts, "async_operation_id", "details"]]
    time = ("emit_time", pyarrow.timestamp("us", "UTC"))
    schema = pyarrow.schema([("log_id", pyarrow.string()), ("version", pyarrow.int64()), time, *texts])
    seen, days, writers = set(), {}, {}

    def flush(day):
        if day not in writers:
            os.makedirs(f"{target}/dt={day}")
            writers[day] = parquet.ParquetWriter(f"{target}/dt={day}/part.parquet", schema, compression="zstd")
        columns = zip(*days.pop(day))
        arrays = [pyarrow.array(column, type=field.type) for column, field in zip(columns, schema)]
        writers[day].write_table(pyarrow.Table.from_arrays(arrays, schema=schema))

    for line in open(source, "rb"):
        try:
            fields = orjson.loads(line)
            key = (fields.get("log_id") or fields["logId"], int(fields.get("version") or 0))
            micros = micros_of(fields.get("emit_time") or fields["emitTime"])
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
        if key in seen:
            continue
        seen.add(key)
        principal, user = fields.get("principal") or {}, fields.get("user_email") or None
        details = fields.get("raw_details", fields.get("rawDetails", fields.get("details")))
        day = (EPOCH + datetime.timedelta(microseconds=micros)).strftime("%Y-%m-%d")
        rows = days.setdefault(day, [])
        rows.append((
            *key, micros, fields.get("operation"),
            fields.get("status") or ("OK" if fields.get("level") == "LOG_LEVEL_INFO" else "ERROR"),
            principal.get("type") or ("user" if user else None), principal.get("id"), principal.get("name") or user,
            principal.get("api_key_id") or principal.get("apiKeyId"),
            fields.get("x_forwarded_for") or fields.get("xForwardedFor") or fields.get("caller_ip_address"),
            fields.get("async_operation_id") or fields.get("asyncOperationId") or fields.get("request_id"),
            None if details is None else orjson.dumps(details).decode(),
        ))  # fmt: skip
        if len(rows) == 20_000:
            flush(day)
    for day in list(days):
        flush(day)
    for writer in writers.values():
        writer.close()


EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)


def micros_of(time):
    if isinstance(time, dict):
        return time["seconds"] * 1_000_000 + time["nanos"] // 1000
    # Python takes six digits of a fraction at most.
    return (datetime.datetime.fromisoformat(time[:26].rstrip("Z") + "+00:00") - EPOCH) // datetime.timedelta(microseconds=1)


PEERS = {peer.__name__: peer for peer in (duckdb, chdb, polars, python)}


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in PEERS:
        sys.exit(f"usage: peers.py {'|'.join(PEERS)} IN.ndjson DIRECTORY")
    os.makedirs(sys.argv[3])
    PEERS[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
