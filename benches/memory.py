#!/usr/bin/env python3
"""Archives many made-up records and prints what it took: `python3 benches/memory.py [RECORDS]` (5,000,000).

Writes audit logs (data.py) into a temporary directory, runs `target/release/auditlake catch-up` and `verify` on them, checks the counts,
and prints seconds, the peak resident memory of each, and the sizes. Needs about 1.5 times the input's size.
"""

import json
import pathlib
import sys
import tempfile

from measure import auditlake, differences, make


def main():
    lines = int(sys.argv[1].replace("_", "").replace(",", "")) if len(sys.argv) > 1 else 5_000_000
    with tempfile.TemporaryDirectory() as directory:
        source = pathlib.Path(directory, "in", "audit.ndjson")
        source.parent.mkdir()
        truth = make(source, lines)
        taken = auditlake(directory, source.parent, "catch-up")
        summary = json.loads(taken.output)
        if wrong := differences(summary, truth):
            sys.exit("wrong counts: " + "; ".join(wrong))
        print(f"input     {lines:,} lines, {truth['bytes'] / 1e9:.2f} GB")
        print(f"catch-up  {words(taken)}, {summary['object_bytes'] / 1e9:.2f} GB archived")
        taken = auditlake(directory, source.parent, "verify")
        print(f"verify    {words(taken)}, {len(json.loads(taken.output)['findings'])} findings")


def words(taken):
    return f"{taken.seconds:.1f} s, peak {taken.peak_bytes / 2**20:.0f} MiB resident"


if __name__ == "__main__":
    main()
