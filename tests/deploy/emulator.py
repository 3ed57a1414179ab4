"""AWS on this machine: MiniStack, from the tools that `make test-tools` installs."""

import contextlib
import os
import socket
import subprocess
import tempfile
import time
import urllib.request

import boto3

from support import TOOLS

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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    env = {**os.environ, "GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "SFTP_ENABLED": "0", "LOG_LEVEL": "ERROR"}
    # The SDK's own variables would lead the server to itself.
    env = {name: value for name, value in env.items() if not name.startswith("AWS_")}
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [TOOLS / "venv/bin/python", "-m", "ministack"], env={**env, "TMPDIR": scratch}, cwd=scratch,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_for(url, process, log)
            yield Emulator(url)
        finally:
            process.kill()
            process.wait()


def wait_for(url, process, log):
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/_ministack/health", timeout=2)
            return
        time.sleep(0.2)
    log.seek(0)
    raise AssertionError(f"MiniStack did not start:\n{log.read().decode(errors='replace')}")
