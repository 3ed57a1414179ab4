"""The README's first steps, run as they stand there, print what stands there; and so does the runbook of a gap."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

from support import DOCS, ROOT, auditlake, binary, free_port, without_ours
from test_docs import blocks

README = ROOT / "README.md"
# Objects differ from run to run by who brings a record first, and bytes with them: within so much of what is printed.
WITHIN = 0.15


def section(title):
    return README.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def steps(title):
    """Each block of commands with the block that it prints."""
    found = re.findall(r"^```(sh|text)\n(.*?)^```$", section(title), re.MULTILINE | re.DOTALL)
    return [(text, printed) for (kind, text), (shown, printed) in zip(found, found[1:]) if (kind, shown) == ("sh", "text")]


def numbers(text):
    """What differs a little."""
    return [float(number.replace(",", "")) for number in
            re.findall(r"(?m)^  (?:objects|bytes) +([\d,]+)$|(\d+) objects", text) for number in number if number]


def alike(text):
    """What does not differ at all."""
    text = re.sub(r"[0-9a-f]{64}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    text = re.sub(r"\d{8}T\d{6}Z", "WINDOW", text)
    text = re.sub(r"(?m)^began .*$", "began", text)
    text = re.sub(r"(?m)^  (objects|bytes|seconds) .*$", r"  \1", text)
    return re.sub(r"\d+ objects( listed|, [\d,]+ rows, .*)", "OBJECTS", text).rstrip()


class QuickStart(unittest.TestCase):
    def setUp(self):
        self.place = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("config", "examples"):
            shutil.copytree(ROOT / name, self.place / name)

    def shell(self, text):
        text = re.sub(r"cargo run --release (--quiet )?--", str(binary()), text)
        text = re.sub(r"(?m)^pip install .*$", ":", text).replace("python3", sys.executable)
        return subprocess.run(["bash", "-c", text], capture_output=True, text=True, cwd=self.place, env=without_ours())

    def prints(self, commands, shown):
        done = self.shell(commands)
        self.assertEqual(alike(done.stdout), alike(shown), done.stderr)
        for one, other in zip(numbers(done.stdout), numbers(shown), strict=True):
            self.assertLess(abs(one - other), other * WITHIN)
        return done

    def test_each_step_prints_what_stands_there_and_damage_is_named(self):
        archive, prove, damage = steps("Quick start")
        self.assertEqual(self.prints(*archive).returncode, 0)
        self.assertEqual(self.prints(*prove).returncode, 0)
        again = self.shell(archive[0])
        self.assertIn("nothing new", again.stdout)
        done = self.prints(*damage)
        for word in ("altered_object", "missing_object", "DAMAGED: 2 findings"):
            self.assertIn(word, done.stdout)
        self.assertEqual(done.returncode, 1)
        self.assertIn("The exit code is 1.", section("Quick start"))

    def test_the_query_finds_what_stands_there(self):
        [(commands, shown)] = steps("Query it")
        self.shell(steps("Quick start")[0][0])
        self.assertEqual(self.prints(commands, shown).returncode, 0)


class Gap(unittest.TestCase):
    """A file that went before it was archived is a gap, as what a stream dropped is."""

    def test_the_runbook_shows_what_verify_prints(self):
        [shown] = [text for text in blocks(DOCS / "alerts.md", "text") if text.startswith("gap ")]
        place = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        # As they arrive now: a window of another day is over, and its batch might be committed before the end below.
        shutil.copytree(ROOT / "examples/audit", place / "in", copy_function=shutil.copy)
        port = free_port()
        settings = {"SOURCE__FILE__PATH": place / "in", "STATE__EMBEDDED__PATH": place / "state",
                    "ARCHIVE__LOCAL__PATH": place / "archive", "BATCH__WINDOW": "1d", "METRICS__LISTEN": f"127.0.0.1:{port}"}
        env = {f"AUDITLAKE__{name}": str(value) for name, value in settings.items()}
        process = subprocess.Popen([binary(), "run"], env=without_ours() | env, stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 60
            while not self.has_read(port):
                self.assertLess(time.monotonic(), until, "nothing is read")
                time.sleep(0.1)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        (place / "in/stream-2026-11-02.ndjson").unlink()
        done = subprocess.run([binary(), "catch-up"], env=without_ours() | env, capture_output=True)
        self.assertEqual(done.returncode, 3)
        [printed] = [line for line in auditlake("verify", "--fast", env=env).splitlines() if line.startswith("gap")]

        def alike(line):
            line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z|an unknown time", "TIME", line)
            return re.sub(r"(?<=gap       )\S+, before batch \d+", "SHARD", line)

        self.assertEqual(alike(printed), alike(shown.rstrip("\n")))

    def has_read(self, port):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                read = re.search(r"^auditlake_records_read_total (\d+)", answer.read().decode(), re.MULTILINE)
        except OSError:
            return False
        # All of the examples.
        return read is not None and int(read[1]) == 2390

    def test_what_is_archived_beside_is_a_configuration(self):
        [text] = [text for text in blocks(DOCS / "alerts.md", "sh") if "SOURCE__KIND=file" in text]
        given = dict(word.split("=") for line in text.splitlines() if line.startswith("export ") for word in line.split()[1:])
        worker = ROOT / "deploy/kubernetes/overlays/example/auditlake.toml"
        effective = auditlake("config", "--config", worker, env={**given, "AWS_REGION": "us-east-1"})
        for value in given.values():
            self.assertIn(f'"{value}"', effective)


if __name__ == "__main__":
    unittest.main()
