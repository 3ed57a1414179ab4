"""AWS and Pub/Sub on this machine: MiniStack and Google's in-memory server, from the tools that `make test-tools` installs."""

import base64
import contextlib
import json
import os
import subprocess
import tempfile
import time
import urllib.request

import boto3

from support import TOOLS, free_port

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
START_SECONDS = 60


class Emulator:
    """Its address, clients of it, and what the binary has to find in its environment to use it."""

    def __init__(self, url):
        self.url = url
        self.environment = {
            **CREDENTIALS, "AWS_ENDPOINT_URL": url, "AUDITLAKE__ARCHIVE__S3__FORCE_PATH_STYLE": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service):
        return boto3.client(
            service, endpoint_url=self.url, region_name=CREDENTIALS["AWS_REGION"],
            aws_access_key_id="test", aws_secret_access_key="test")


@contextlib.contextmanager
def emulator():
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {**os.environ, "GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "SFTP_ENABLED": "0", "LOG_LEVEL": "ERROR"}
    # The SDK's own variables would lead the server to itself.
    env = {name: value for name, value in env.items() if not name.startswith("AWS_")}
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [TOOLS / "venv/bin/python", "-m", "ministack"], env={**env, "TMPDIR": scratch}, cwd=scratch,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_for(process, log, lambda: urllib.request.urlopen(f"{url}/_ministack/health", timeout=2))
            yield Emulator(url)
        finally:
            process.kill()
            process.wait()


def wait_for(process, log, asked):
    """Asks until there is an answer."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError):
            asked()
            return
        time.sleep(0.2)
    log.seek(0)
    raise AssertionError(f"{process.args} did not start:\n{log.read().decode(errors='replace')}")


class Subscription:
    """A subscription of a topic of its name, and where its server is."""

    def __init__(self, host, project, name):
        self.host, self.project, self.name = host, project, name

    def call(self, method, path, content):
        request = urllib.request.Request(
            f"http://{self.host}/v1/projects/{self.project}/{path}", json.dumps(content).encode(), method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def make(self):
        self.call("PUT", f"topics/{self.name}", {})
        topic = f"projects/{self.project}/topics/{self.name}"
        self.call("PUT", f"subscriptions/{self.name}", {"topic": topic, "ackDeadlineSeconds": 60})

    def publish(self, data):
        message = {"data": base64.b64encode(data).decode()}
        self.call("POST", f"topics/{self.name}:publish", {"messages": [message]})


@contextlib.contextmanager
def subscription(project, name):
    port = free_port()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([TOOLS / "pubsub/pstest", str(port)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        made = Subscription(f"127.0.0.1:{port}", project, name)
        try:
            wait_for(process, log, made.make)
            yield made
        finally:
            process.kill()
            process.wait()
