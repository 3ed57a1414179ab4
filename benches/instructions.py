#!/usr/bin/env python3
"""Counts the instructions a record of each stage: `python3 benches/instructions.py [--json FILE] [--against FILE]`.

Builds benches/stages and runs each of its stages under callgrind, which counts the same on a busy machine as on a quiet one. What the
kernel does is not counted. `--against` compares with what another run wrote by `--json`: of the same lines, compiler and processor.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from measure import ROOT, make


def built():
    """The path of benches/stages, built."""
    command = ["cargo", "bench", "--bench", "stages", "--no-run", "--message-format", "json"]
    lines = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    messages = [json.loads(line) for line in lines if line.startswith("{")]
    return next(message["executable"] for message in messages if message.get("target", {}).get("name") == "stages")


def count(program, stage, environment, profile):
    """Instructions a record of one stage; which function took them goes into `profile`."""
    callgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", "--toggle-collect=*counted_stage*"]
    done = subprocess.run([*callgrind, program, "once", stage], env=environment, capture_output=True, text=True)
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not collected or collected[1] == "0":
        sys.exit(f"{stage}: nothing was counted\n{done.stderr}")
    return int(collected[1]) / int(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=20_000, help="how many lines (20000)")
    parser.add_argument("--json", type=pathlib.Path, help="a file for the numbers")
    parser.add_argument("--against", type=pathlib.Path, help="a file of another run to compare with")
    parser.add_argument("--profiles", type=pathlib.Path, help="a directory for each stage's profile, for callgrind_annotate")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        sys.exit("valgrind is missing: install it")
    before = json.loads(options.against.read_text()) if options.against else {}
    if options.profiles:
        options.profiles.mkdir(parents=True, exist_ok=True)
    program = built()
    with tempfile.TemporaryDirectory() as directory:
        data = pathlib.Path(directory, "audit.ndjson")
        make(data, options.records, days=1)
        environment = os.environ | {"AUDITLAKE_BENCH_DATA": str(data), "TMPDIR": directory}
        stages = subprocess.run([program, "list"], stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
        counts = {}
        print("| stage | instructions a record |" + (" of before |" if before else ""))
        print("| --- | --: |" + (" --: |" if before else ""))
        for stage in stages:
            profile = options.profiles / stage if options.profiles else "/dev/null"
            counts[stage] = count(program, stage, environment, profile)
            change = f" {100 * counts[stage] / before[stage]:.1f} % |" if stage in before else " new |" if before else ""
            print(f"| {stage} | {counts[stage]:,.0f} |{change}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(counts, indent=1) + "\n")


if __name__ == "__main__":
    main()
