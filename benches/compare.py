#!/usr/bin/env python3
"""auditlake beside what people would use instead: `.tools/bench/bin/python benches/compare.py [--records N ...] [--rounds 5]`.

Makes audit logs (data.py), and has each contender archive them, in a process of its own, round after round. Prints a table of medians and
what of the goals is met. Ends with an error if anybody archived other records than there are, never because of a time.

Peers get the lines with none malformed among them, since two of them read no further than the first; auditlake gets them with those.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata

from measure import BINARY, ROOT, auditlake, differences, make, run

PEERS = {"chDB": "chdb", "DuckDB": "duckdb", "Polars": "polars", "Python": "python"}
# The lean profile keeps what the peers keep; the default one each record's own text beside it.
PROFILES = {"auditlake, lean": {"archive__keep_raw": "false", "archive__compression_level": "1"}, "auditlake": {}}
CONTENDERS = [*PROFILES, *PEERS]
PACKAGES = {"chDB": ["chdb"], "DuckDB": ["duckdb"], "Polars": ["polars"], "Python": ["orjson", "pyarrow"]}
CORES = 2

MEMORY_BYTES, CLAIM_BYTES = 256_000_000, 40


def bytes_below(directory, pattern="**/*"):
    return sum(path.stat().st_size for path in directory.glob(pattern) if path.is_file())


def fail(name, differences):
    if differences:
        sys.exit(f"{name}: " + "; ".join(differences))


def check_rows(name, truth, events, rejected=None):
    """Reads the archive back; ends if it is not the truth."""
    arguments = [events] if rejected is None else [events, rejected]
    command = [sys.executable, ROOT / "benches" / "check.py", *arguments]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    fail(name, [f"{key} is {value}, not {truth[key]}" for key, value in found.items() if value != truth[key]])


class Input:
    """The files of one size, and what must come of them."""

    def __init__(self, directory, lines):
        self.lines = lines
        self.whole, self.clean = directory / "whole" / "audit.ndjson", directory / "clean" / "audit.ndjson"
        for path in (self.whole, self.clean):
            path.parent.mkdir(parents=True)
        self.truth, self.clean_truth = make(self.whole, lines), make(self.clean, lines, malformed=0)


def run_auditlake(name, given, directory):
    taken = auditlake(directory, given.whole.parent, "catch-up", **PROFILES[name])
    archive = directory / "archive"
    fail(name, differences(json.loads(taken.output), given.truth))
    check_rows(name, given.truth, archive / "events", archive / "rejected")
    return taken, bytes_below(archive)


def run_peer(name, given, directory):
    command = [sys.executable, ROOT / "benches" / "peers.py", PEERS[name], given.clean, directory / "archive"]
    taken = run(command, {"PATH": os.environ["PATH"], "HOME": str(directory), "TMPDIR": str(directory)})
    check_rows(name, given.clean_truth, directory / "archive")
    return taken, bytes_below(directory, "archive/dt=*/*.parquet")


def measure(contenders, given, rounds, directory):
    """What each run of each contender took."""
    runs = {name: [] for name in contenders}
    for turn in range(rounds):
        # Whoever comes first in one round comes last in the next.
        for name in contenders[turn % len(contenders) :] + contenders[: turn % len(contenders)]:
            place = directory / "run"
            place.mkdir()
            os.sync()  # or one pays for what another has written
            taken, written = (run_auditlake if name in PROFILES else run_peer)(name, given, place)
            runs[name].append({
                "seconds": taken.seconds, "cpu_seconds": taken.cpu_seconds, "peak_bytes": taken.peak_bytes, "written_bytes": written,
            })  # fmt: skip
            shutil.rmtree(place)
            print(f"{given.lines:,} lines, round {turn + 1}: {name} {taken.seconds:.2f} s", file=sys.stderr, flush=True)
    return runs


def median(runs, name, key):
    return statistics.median(run[key] for run in runs[name])


def ratio(runs, name, other, key):
    """The median over the rounds: the two of a round stood side by side. None if one of them did not run."""
    if name not in runs or other not in runs:
        return None
    return statistics.median(mine[key] / its[key] for mine, its in zip(runs[name], runs[other]))


def goals(runs, truth):
    """Each goal, what was found, and what it may be at most."""
    lean, default = PROFILES
    bound = MEMORY_BYTES + CLAIM_BYTES * truth["archived"]
    found = [
        ("lean: time of chDB's", ratio(runs, lean, "chDB", "seconds"), 0.45),
        ("lean: time of DuckDB's", ratio(runs, lean, "DuckDB", "seconds"), 0.45),
        ("default: time of chDB's", ratio(runs, default, "chDB", "seconds"), 0.8),
        ("lean: bytes written of DuckDB's", ratio(runs, lean, "DuckDB", "written_bytes"), 1.15),
    ]
    for name, profile in ((lean, "lean"), (default, "default")):
        if name in runs:
            found.append((f"{profile}: peak memory, MB", median(runs, name, "peak_bytes") / 1e6, bound / 1e6))
    return [{"goal": goal, "found": value, "at_most": most, "met": value <= most} for goal, value, most in found if value is not None]


def cell(value, digits=2):
    return "" if value is None else f"{value:,.{digits}f}"


def table(header, rows):
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] + ["--:"] * (len(header) - 1), *rows])


def report(lines, runs, reached):
    rows = []
    for name in runs:
        numbers = [cell(median(runs, name, "seconds")), cell(median(runs, name, "cpu_seconds"))]
        numbers += [cell(median(runs, name, "peak_bytes") / 2**20, 0), cell(median(runs, name, "written_bytes") / 1e6, 1)]
        ratios = [ratio(runs, name, other, key) for key in ("seconds", "cpu_seconds") for other in ("chDB", "DuckDB")]
        rows.append([name, *numbers, cell(lines / median(runs, name, "seconds"), 0), *map(cell, ratios)])
    header = [f"{lines:,} lines", "wall s", "CPU s", "peak MiB", "MB written", "lines/s"]
    header += ["wall / chDB", "wall / DuckDB", "CPU / chDB", "CPU / DuckDB"]
    print(table(header, rows), end="\n\n")
    judged = [[goal["goal"], cell(goal["found"]), cell(goal["at_most"]), "yes" if goal["met"] else "**no**"] for goal in reached]
    print(table(["goal, of 1,000,000 lines and more", "found", "at most", "met"], judged), end="\n\n", flush=True)


def machine():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), os.uname().machine)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "memory_bytes": memory, "kernel": os.uname().release}


def versions(contenders):
    ours = subprocess.run([BINARY, "--version"], stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
    packages = [package for name in contenders for package in PACKAGES.get(name, [])]
    return [ours, *(f"{package} {metadata.version(package)}" for package in packages), f"Python {sys.version.split()[0]}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, nargs="+", default=[1_000_000], help="how many lines; several sizes may be given (1000000)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender runs (5)")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=CONTENDERS, help="these contenders", metavar="NAME")
    parser.add_argument("--directory", help="where to write; about 2 kB a line (a temporary directory)")
    parser.add_argument("--json", type=pathlib.Path, help="a file for every number that was measured")
    options = parser.parse_args()

    # The same cores for all, however many the machine has.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    result = {"machine": machine(), "versions": versions(options.only), "rounds": options.rounds, "load_before": os.getloadavg()}
    result["sizes"] = []
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        for lines in options.records:
            place = pathlib.Path(directory, str(lines))
            given = Input(place, lines)
            runs = measure(options.only, given, options.rounds, place)
            shutil.rmtree(place)
            reached = goals(runs, given.truth)
            report(lines, runs, reached)
            result["sizes"].append({"lines": lines, "truth": given.truth, "runs": runs, "goals": reached})
    where, load = result["machine"], result["load_before"][0]
    print(f"{where['cpu']}, {where['cores']} cores, {where['memory_bytes'] / 2**30:.0f} GiB of memory, Linux {where['kernel']};", end=" ")
    print(f"medians of {options.rounds} rounds, ratios within each; load before: {load:.1f}.")
    print(", ".join(result["versions"]) + ". Everybody archived exactly the records that there are.")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
