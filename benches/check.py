#!/usr/bin/env python3
"""Reads back what stands in `DIRECTORY/dt=.../*.parquet` and prints it as data.py prints the truth: `.tools/bench/bin/python
benches/check.py EVENTS [REJECTED]`. A program of its own, since pyarrow is none of the measuring ones' business."""

import collections
import json
import pathlib
import sys
import zlib

from pyarrow import parquet


def day_of(path):
    return path.parent.name.removeprefix("dt=")


def main():
    found = {"archived": 0, "with_log_id": 0, "crc32_sum": 0}
    days, reasons = collections.Counter(), collections.Counter()
    for path in pathlib.Path(sys.argv[1]).glob("dt=*/*.parquet"):
        for batch in parquet.ParquetFile(path).iter_batches(columns=["log_id", "version"]):
            days[day_of(path)] += batch.num_rows
            for log_id, version in zip(batch["log_id"].to_pylist(), batch["version"].to_pylist()):
                if log_id is not None:
                    found["with_log_id"] += 1
                    found["crc32_sum"] += zlib.crc32(f"{log_id}:{version}".encode())
    if len(sys.argv) > 2:
        for path in pathlib.Path(sys.argv[2]).glob("dt=*/*.ndjson"):
            for line in path.open():
                reasons[json.loads(line)["reason"]] += 1
    found["archived"] = days.total()
    found["crc32_sum"] %= 2**64
    found |= {"days": dict(sorted(days.items())), "rejected_by_reason": dict(sorted(reasons.items()))}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
