"""An object that was altered or removed comes back by the very commands of docs/operations.md, under what the stack allows."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from emulator import emulator
from support import DOCS, ROOT, auditlake, binary, run, without_ours
from test_cloudformation import CONFIG, make_stack, permits
from test_docs import blocks
from witness import Witness

# The AWS CLI is installed beside this Python.
PATH = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])


def commands():
    """The three blocks, without the values of the example."""
    section = (DOCS / "operations.md").read_text().split("## Bringing an object back\n")[1].split("\n## ")[0]
    found = [block for block in blocks(DOCS / "operations.md", "sh") if block in section]
    assert len(found) == 3, found
    return [re.sub(r"\b(BUCKET|PREFIX|KEY|VERSION)=\S+", "", block) for block in found]


class Archived(unittest.TestCase):
    """The examples in an archive of the stack, on an emulator, and a shell with the AWS CLI."""

    def setUp(self):
        self.aws = aws = self.enterContext(emulator())
        self.witness = self.enterContext(Witness(aws.url))
        self.place = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        outputs = make_stack(aws)
        for path in sorted((ROOT / "examples/audit").glob("stream-*")):
            aws.client("kinesis").put_record(StreamName="temporal-audit", PartitionKey=path.name, Data=path.read_bytes())
        self.env = {
            **aws.environment,
            "AWS_ENDPOINT_URL": self.witness.url,
            "AUDITLAKE__SOURCE__KINESIS__STREAM": outputs["StreamArn"],
            "AUDITLAKE__ARCHIVE__S3__BUCKET": outputs["BucketName"],
        }
        auditlake("catch-up", "--config", CONFIG, env=self.env)
        self.bucket, self.s3 = outputs["BucketName"], aws.client("s3")
        listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix="temporal/events/")["Contents"]
        self.key = listed[0]["Key"].removeprefix("temporal/")
        self.put = self.s3.get_object(Bucket=self.bucket, Key=listed[0]["Key"])["Body"].read()
        self.witness.taken()

    def shell(self, block, **variables):
        env = {**without_ours(), **self.env, "PATH": PATH, "BUCKET": self.bucket, "PREFIX": "temporal",
               "KEY": self.key, **variables}
        return run("bash", "-euc", block, cwd=self.place, env=env)


class Restore(Archived):
    def findings(self):
        done = subprocess.run([binary(), "verify", "--config", CONFIG], capture_output=True, text=True, cwd=ROOT,
                              env=without_ours() | self.env)
        self.witness.taken()
        return done.returncode, re.findall(rf"^(\w+) +{re.escape(self.key)}$", done.stdout, re.MULTILINE)

    def bring_back(self):
        look, fetch, put = commands()
        versions = [line.split("\t") for line in self.shell(look).splitlines()]
        oldest = min(version for version in versions if version[3] != "None")
        self.shell(fetch, VERSION=oldest[1])
        self.assertEqual((self.place / "object").read_bytes(), self.put)
        self.shell(put)
        called = self.witness.taken()
        self.assertEqual({call for call in called if not permits("restore", *call)}, set())
        self.assertEqual({action for action, _ in called},
                         {"s3:ListBucketVersions", "s3:GetObjectVersion", "s3:DeleteObject", "s3:PutObject"})
        self.assertEqual(self.findings(), (0, []))
        after = [line.split("\t") for line in self.shell(look).splitlines()]
        self.assertLess({version[1] for version in versions}, {version[1] for version in after}, "nothing is destroyed")

    def test_an_object_that_was_altered(self):
        self.s3.delete_object(Bucket=self.bucket, Key=f"temporal/{self.key}")
        self.s3.put_object(Bucket=self.bucket, Key=f"temporal/{self.key}", Body=self.put[:-1] + b"X", IfNoneMatch="*")
        self.assertEqual(self.findings(), (1, ["altered_object"]))
        self.bring_back()

    def test_an_object_that_was_removed(self):
        self.s3.delete_object(Bucket=self.bucket, Key=f"temporal/{self.key}")
        self.assertEqual(self.findings(), (1, ["missing_object"]))
        self.bring_back()

    def test_a_put_that_would_overwrite_is_refused(self):
        (self.place / "object").write_bytes(b"X")
        for refused in ('aws s3 cp object "s3://$BUCKET/$PREFIX/$KEY"',
                        'aws s3api copy-object --bucket "$BUCKET" --key "$PREFIX/$KEY" --copy-source "$BUCKET/$PREFIX/$KEY"'):
            with self.assertRaisesRegex(AssertionError, "AccessDenied"):
                self.shell(refused)


if __name__ == "__main__":
    unittest.main()
