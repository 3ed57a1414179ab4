#!/usr/bin/env python3
"""Compares a summary of `catch-up --json` with what it must be.

    check_example.py first expected.json summary.json    everything is archived, and counted as expected
    check_example.py again expected.json summary.json    nothing was left to do
"""

import json
import sys


def main():
    run, expected_path, summary_path = sys.argv[1:]
    with open(expected_path) as file:
        expected = json.load(file)
    with open(summary_path) as file:
        summary = json.load(file)

    if run == "again":
        expected = {name: 0 if isinstance(value, int) and name != "shards" else value for name, value in expected.items()}
        expected.update(rejected_by_reason={}, batches=0, objects=0)
    # What rows the archive holds is no part of a summary.
    wanted = {name: value for name, value in expected.items() if not name.startswith("rows_")}
    wanted.update(complete=True, stopped=False, failures=[], gaps=0)

    wrong = [name for name, value in wanted.items() if summary.get(name) != value]
    for name in wrong:
        print(f"{name}: expected {wanted[name]!r}, got {summary.get(name)!r}", file=sys.stderr)
    if wrong:
        return 1
    print(", ".join(f"{name} {summary[name]}" for name, value in wanted.items() if type(value) is int))
    return 0


if __name__ == "__main__":
    sys.exit(main())
