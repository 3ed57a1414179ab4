"""The commands of docs/deployment.md that keep reports: what they keep is a report that `verify --against` takes."""

import re
import subprocess
import time
import unittest

from support import DOCS, auditlake, binary, without_ours
from test_cloudformation import CONFIG, permits
from test_docs import blocks
from test_restore import Archived


def commands():
    """For any platform, Kubernetes and ECS, without the values of the example."""
    section = (DOCS / "deployment.md").read_text().split("## Keep the reports\n")[1].split("\n## ")[0]
    found = [block for block in blocks(DOCS / "deployment.md", "sh") if block in section]
    assert len(found) == 3, found
    return [re.sub(r"\b(BUCKET|PREFIX|KEPT)=\S+", "", block) for block in found]


class Kept(Archived):
    def test_a_copy_of_what_was_recorded_is_never_replaced(self):
        copy, _, _ = commands()
        auditlake("verify", "--config", CONFIG, "--record", env=self.env)
        self.witness.taken()
        kept = self.place / "kept"
        self.shell(copy, KEPT=str(kept))
        called = self.witness.taken()
        self.assertEqual({action for action, _ in called}, {"s3:ListBucket", "s3:GetObject"})
        self.assertEqual({call for call in called if not permits("verify", *call)}, set())
        [report] = kept.iterdir()
        self.witnesses(report)

        before = report.read_bytes()
        key = f"temporal/_verify/{report.name}"
        self.s3.delete_object(Bucket=self.bucket, Key=key)
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"another", IfNoneMatch="*")
        self.shell(copy, KEPT=str(kept))
        self.assertEqual({path.name: path.read_bytes() for path in kept.iterdir()}, {report.name: before})

    def test_a_report_comes_out_of_a_pods_log(self):
        _, fetch, _ = commands()
        (self.place / "log").write_text(self.log())
        stand_in = 'kubectl() { case "$*" in *" get pods "*) echo pod/old; echo pod/new;; *" logs pod/new") cat log;; *) exit 1;; esac; }\n'
        self.shell(stand_in + fetch)
        self.witnesses(self.place / "kept.json")

    def test_a_report_comes_out_of_cloudwatch(self):
        _, _, fetch = commands()
        logs, group = self.aws.client("logs"), "/ecs/auditlake"
        logs.create_log_group(logGroupName=group)
        for stream, text in {"verify/auditlake/old": "nothing", "verify/auditlake/new": self.log(), "worker/auditlake/newer": "nothing"}.items():
            logs.create_log_stream(logGroupName=group, logStreamName=stream)
            # All in the same moment, as a process that prints them.
            moment = int(time.time() * 1000)
            logs.put_log_events(logGroupName=group, logStreamName=stream,
                                logEvents=[{"timestamp": moment, "message": line} for line in text.splitlines()])
            time.sleep(0.01)
        self.shell(fetch, AWS_DEFAULT_REGION="us-east-1")
        self.witnesses(self.place / "kept.json")

    def log(self):
        """What the scheduled proof logs, of both its outputs."""
        done = subprocess.run([binary(), "verify", "--config", CONFIG, "--record", "--json"], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, env=without_ours() | self.env)
        self.assertEqual(done.returncode, 0, done.stdout)
        warning = '{"timestamp":"2026-11-28T03:00:00Z","level":"WARN","message":"one of another kind"}\n'
        return warning + done.stdout + warning

    def witnesses(self, report):
        self.assertIn("no damage found", auditlake("verify", "--config", CONFIG, "--against", report, env=self.env))


if __name__ == "__main__":
    unittest.main()
