#!/usr/bin/env python3
"""What a worker costs: `.tools/venv/bin/python benches/live.py [--minutes 10] [--rate 1000] [--shards 4]`.

Starts MiniStack (Kinesis, DynamoDB, S3), runs `target/release/auditlake run` on a stream, and prints what the process takes of
one core and its resident memory: first idle on `--shards` empty shards, then at `--rate` records a second on one shard.
"""

import argparse
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import botocore.session

from data import Data
from measure import BINARY

TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def ministack():
    port = free_port()
    environment = os.environ | {
        "GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "SERVICES": "dynamodb,s3,kinesis", "LOG_LEVEL": "ERROR", "SFTP_ENABLED": "0",
    }
    server = subprocess.Popen([sys.executable, "-m", "ministack"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_ministack/health")
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def client(service, url):
    session = botocore.session.get_session()
    return session.create_client(
        service, endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )


def make_stream(kinesis, name, shards):
    kinesis.create_stream(StreamName=name, ShardCount=shards)
    while kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"] != "ACTIVE":
        time.sleep(0.1)


@contextlib.contextmanager
def worker(url, stream):
    environment = os.environ | {
        "AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AUDITLAKE__SOURCE__KIND": "kinesis", "AUDITLAKE__SOURCE__KINESIS__STREAM": stream,
        "AUDITLAKE__STATE__KIND": "dynamodb", "AUDITLAKE__STATE__DYNAMODB__TABLE_PREFIX": stream,
        "AUDITLAKE__ARCHIVE__KIND": "s3", "AUDITLAKE__ARCHIVE__S3__BUCKET": "archive",
        "AUDITLAKE__ARCHIVE__S3__PREFIX": stream, "AUDITLAKE__ARCHIVE__S3__FORCE_PATH_STYLE": "true",
        "RUST_LOG": "warn",
    }
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([BINARY, "run"], env=environment, stderr=log)
        try:
            yield process
            assert process.poll() is None, "it has ended"
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        except BaseException:
            process.kill()
            log.seek(0)
            sys.stderr.write(log.read().decode())
            raise


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_mib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def measure(name, process, seconds, meanwhile=lambda: None):
    begun, cpu = time.monotonic(), cpu_seconds(process.pid)
    while (left := begun + seconds - time.monotonic()) > 0:
        meanwhile()
        time.sleep(min(left, 0.5))
    share = (cpu_seconds(process.pid) - cpu) / (time.monotonic() - begun)
    print(f"{name:<44} {100 * share:6.2f} % of a core {peak_mib(process.pid):7.1f} MiB peak", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="how long each of the two is measured (10)")
    parser.add_argument("--rate", type=int, default=1000, help="records a second (1000)")
    parser.add_argument("--shards", type=int, default=4, help="empty shards (4)")
    options = parser.parse_args()
    with ministack() as url:
        kinesis = client("kinesis", url)
        client("s3", url).create_bucket(Bucket="archive")

        make_stream(kinesis, "idle", options.shards)
        with worker(url, "idle") as process:
            time.sleep(10)
            measure(f"idle on {options.shards} shards", process, 60 * options.minutes)

        make_stream(kinesis, "busy", 1)
        data, sent, begun = Data(lines=10**9), 0, None

        def put():
            nonlocal sent, begun
            begun = begun or time.monotonic()
            # Never more than a second's worth at once: a producer that can't keep up says so in the rate that it prints.
            for _ in range(max(1, options.rate // 250)):
                if sent >= (time.monotonic() - begun) * options.rate:
                    break
                lines = [data.record(sent + n)[0].encode() for n in range(250)]
                kinesis.put_records(StreamName="busy", Records=[{"Data": line, "PartitionKey": "k"} for line in lines])
                sent += len(lines)

        with worker(url, "busy") as process:
            time.sleep(5)
            measure(f"{options.rate} records a second on one shard", process, 60 * options.minutes, put)
            print(f"{sent} records put, {sent / (time.monotonic() - begun):.0f} a second", flush=True)


if __name__ == "__main__":
    main()
