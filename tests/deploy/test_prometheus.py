"""A real Prometheus scrapes a real worker under the shipped rules: what it shows is what is archived, and an alert fires."""

import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import unittest
import urllib.parse
import urllib.request

import yaml

from support import DEPLOY, ROOT, TOOLS, binary, free_port, promtool, without_ours

# No step takes this long, however loaded the machine.
PATIENCE = 120


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def wait_until(what, ask):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            found = ask()
        except OSError:
            found = None
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"in vain: {what}")


class Prometheus(unittest.TestCase):
    def setUp(self):
        self.place = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.worker = f"127.0.0.1:{free_port()}"
        self.server = f"http://127.0.0.1:{free_port()}"
        shutil.copytree(ROOT / "examples/audit", self.place / "in")

    def start(self, *command, **options):
        log = self.enterContext(open(self.place / pathlib.Path(command[0]).name, "w"))
        process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, **options)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def start_worker(self):
        settings = {
            "SOURCE__FILE__PATH": "in",
            "STATE__EMBEDDED__PATH": "state",
            "ARCHIVE__LOCAL__PATH": "archive",
            "BATCH__WINDOW": "1s",
            "METRICS__LISTEN": self.worker,
        }
        env = without_ours() | {f"AUDITLAKE__{name}": value for name, value in settings.items()}
        return self.start(binary(), "run", env=env, cwd=self.place)

    def start_server(self):
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "auditlake", "static_configs": [{"targets": [self.worker]}]}],
        }
        (self.place / "prometheus.yaml").write_text(yaml.safe_dump(config))
        # The rules as they are shipped, but for how long each has to hold.
        rules = (DEPLOY / "prometheus" / "alerts.yaml").read_text()
        (self.place / "rules.yaml").write_text(re.sub(r"^(\s+for: ).*", r"\g<1>1s", rules, flags=re.MULTILINE))
        address = urllib.parse.urlsplit(self.server).netloc
        self.start(
            TOOLS / "prometheus" / "prometheus",
            f"--config.file={self.place}/prometheus.yaml",
            f"--storage.tsdb.path={self.place}/tsdb",
            f"--web.listen-address={address}",
        )
        wait_until("Prometheus is ready", lambda: get(f"{self.server}/-/ready"))

    def query(self, expression):
        answer = json.loads(get(f"{self.server}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"))
        return [float(series["value"][1]) for series in answer["data"]["result"]]

    def alerts(self):
        answer = json.loads(get(f"{self.server}/api/v1/alerts"))
        return {alert["labels"]["alertname"] for alert in answer["data"]["alerts"] if alert["state"] == "firing"}

    def test_what_prometheus_shows_is_what_is_archived(self):
        self.start_worker()
        self.start_server()
        expected = json.loads((ROOT / "examples/expected.json").read_text())
        archived = [float(expected["archived"])]
        wait_until("all is archived", lambda: self.query("sum(auditlake_records_archived_total)") == archived)
        self.assertEqual(self.query('up{job="auditlake"}'), [1.0])
        self.assertEqual(self.query("sum(auditlake_records_rejected_total)"), [float(expected["rejected"])])
        promtool("check", "metrics", input=get(f"http://{self.worker}/metrics"))

    def test_a_shard_that_stops_raises_its_alert(self):
        self.start_worker()
        self.start_server()
        wait_until("it works", lambda: sum(self.query("auditlake_records_archived_total")) > 0)
        self.assertNotIn("AuditlakeShardStopped", self.alerts())
        # A file that shrank is not the file that was archived.
        (self.place / "in" / "stream-2026-11-02.ndjson").write_text("{}\n")
        wait_until("the alert fires", lambda: "AuditlakeShardStopped" in self.alerts())


if __name__ == "__main__":
    unittest.main()
