"""Runs a program and says what it took: whole processes, each measured by what the kernel counted for it alone."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import typing

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = ROOT / "target" / "release" / "auditlake"


class Taken(typing.NamedTuple):
    """What a process took, and what it printed."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


def run(command, settings):
    """Runs a command with nothing but these settings in its environment, to its end; stops all if it fails.

    The kernel counts what stood in memory when the process was made, too: whoever calls this is to be small.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started = time.monotonic()
        process = subprocess.Popen([str(part) for part in command], env=settings, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            sys.exit(f"{' '.join(process.args)} ended with {process.returncode}:\n{errors.read()}")
        return Taken(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output.read())


def auditlake(directory, source, *arguments, **settings):
    """Runs a command of auditlake with state and archive below a directory; `archive__keep_raw="false"` sets a key."""
    settings = {f"AUDITLAKE__{key.upper()}": value for key, value in settings.items()}
    settings |= {
        "AUDITLAKE__SOURCE__FILE__PATH": str(source),
        "AUDITLAKE__STATE__EMBEDDED__PATH": f"{directory}/state",
        "AUDITLAKE__ARCHIVE__LOCAL__PATH": f"{directory}/archive",
    }
    return run([BINARY, *arguments, "--json"], settings)


def make(path, records, **options):
    """Writes audit logs by data.py and gives their truth. In a process of its own, which takes its memory with it."""
    options |= {"records": records, "out": path}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run([sys.executable, ROOT / "benches" / "data.py", *arguments], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def differences(summary, truth):
    """Where what `catch-up` counted is not what must come of the lines."""
    counted = ("archived", "newer_versions", "older_versions", "duplicates", "rejected", "rejected_by_reason")
    expected = {key: truth[key] for key in counted} | {"conflicts": 0, "gaps": 0}
    return [f"{key} is {summary[key]}, not {value}" for key, value in expected.items() if summary[key] != value]
