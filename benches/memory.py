#!/usr/bin/env python3
"""Archives many made-up records and prints what it took: `python3 benches/memory.py [RECORDS]` (5,000,000).

Writes about 690 bytes a record into a temporary directory, runs `target/release/auditlake catch-up` and `verify` on it, checks
the counts, and prints seconds, the peak resident memory of each, and the sizes. Needs about 1.5 times the input's size.
"""

import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

BINARY = pathlib.Path(__file__).resolve().parent.parent / "target" / "release" / "auditlake"
OPERATIONS = ["UserLogin", "UpdateNamespace", "CreateApiKey", "DeleteUser", "SetUserNamespaceAccess", "CreateNamespaceAPI"]
DAY_SPAN = 30
LINES_A_WRITE = 10_000


def details(rng):
    certificate = "%0400x" % rng.getrandbits(1600)
    return {
        "namespace": "payments-%d.a1b2c" % rng.randrange(80),
        "spec": {"retention_days": rng.choice([7, 30, 90]), "regions": ["aws-us-east-1"], "accepted_client_ca": certificate[: rng.randrange(40, 400)]},
        "resource_version": "%016x" % rng.getrandbits(64),
    }


def record(rng, number, of):
    second = number * DAY_SPAN * 86_400 // of
    day, second = divmod(second, 86_400)
    return {
        "operation": rng.choice(OPERATIONS),
        "principal": {"id": "%032x" % rng.getrandbits(128), "type": "user", "name": "user%d@example.com" % rng.randrange(400)},
        "raw_details": details(rng),
        "x_forwarded_for": "192.0.2.%d" % rng.randrange(1, 255),
        "emit_time": "2026-01-%02dT%02d:%02d:%02d.%06dZ" % (day + 1, second // 3600, second // 60 % 60, second % 60, rng.randrange(1_000_000)),
        "log_id": "%032x" % (number + 1),
        "async_operation_id": "%032x" % rng.getrandbits(128),
        "status": "OK" if rng.randrange(25) else "PermissionDenied",
        "version": 2,
    }


def write(path, records):
    """5 % are copies of earlier lines, 0.1 % are cut off; returns the counts that must come out."""
    rng = random.Random(7)
    recent, expected = [], {"archived": 0, "duplicates": 0, "rejected": 0}
    with open(path, "w") as out:
        lines = []
        for number in range(records):
            kind = rng.random()
            if kind < 0.05 and recent:
                lines.append(rng.choice(recent))
                expected["duplicates"] += 1
            else:
                line = json.dumps(record(rng, number, records), separators=(",", ":"))
                if kind > 0.999:
                    lines.append(line[:100])
                    expected["rejected"] += 1
                else:
                    lines.append(line)
                    recent = [*recent[-99:], line]
                    expected["archived"] += 1
            if len(lines) == LINES_A_WRITE:
                out.write("\n".join(lines) + "\n")
                lines = []
        out.writelines(line + "\n" for line in lines)
    return expected


def run(directory, *arguments):
    """The command's output, its seconds and its peak resident memory in MiB."""
    settings = {
        "AUDITLAKE__SOURCE__FILE__PATH": f"{directory}/in",
        "AUDITLAKE__STATE__EMBEDDED__PATH": f"{directory}/state",
        "AUDITLAKE__ARCHIVE__LOCAL__PATH": f"{directory}/archive",
    }
    # A process of its own for each, since the kernel keeps one peak for all children.
    measured = (
        "import json, resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, check=True)\n"
        "print(json.dumps([done.stdout.decode(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))"
    )
    started = time.monotonic()
    command = [sys.executable, "-c", measured, str(BINARY), *arguments, "--json"]
    done = subprocess.run(command, env=settings, stdout=subprocess.PIPE, check=True)
    output, kibibytes = json.loads(done.stdout)
    return json.loads(output), time.monotonic() - started, kibibytes / 1024


def main():
    records = int(sys.argv[1].replace("_", "").replace(",", "")) if len(sys.argv) > 1 else 5_000_000
    with tempfile.TemporaryDirectory() as directory:
        source = pathlib.Path(directory, "in", "audit.ndjson")
        source.parent.mkdir()
        expected = write(source, records)
        summary, seconds, peak = run(directory, "catch-up")
        found = {key: summary[key] for key in expected}
        if found != expected:
            sys.exit(f"wrong counts: {found}, expected {expected}")
        print(f"input     {records:,} records, {source.stat().st_size / 1e9:.2f} GB")
        print(f"catch-up  {seconds:.1f} s, peak {peak:.0f} MiB resident, {summary['object_bytes'] / 1e9:.2f} GB archived")
        report, seconds, peak = run(directory, "verify")
        print(f"verify    {seconds:.1f} s, peak {peak:.0f} MiB resident, {len(report['findings'])} findings")


if __name__ == "__main__":
    main()
