#!/usr/bin/env python3
"""Runs a server for tests, and stops it when nobody needs it any more.

    serve.py shared KIND DIRECTORY TOOLS SECONDS    until nobody has held DIRECTORY/KIND.users for so long
    serve.py own KIND DIRECTORY TOOLS               until stdin ends

KIND is `kinesis`, `ministack` or `pubsub`. TOOLS is where `make test` installs them. As soon as the server answers, its address is
published: `shared` writes DIRECTORY/KIND.json, `own` prints a line. Both stop it when DIRECTORY vanishes. What it says is
kept in DIRECTORY if it ends by itself.

The files of `shared` (src/shared.rs is the other side):

    KIND.users         tests hold it shared while they run; who gets it exclusively knows that there are none
    KIND.supervisor    held exclusively by the one process that is in charge of the server
    KIND.json          {"url", "server", "supervisor"}, put down whole
"""

import ctypes
import fcntl
import http.client
import json
import os
import pathlib
import random
import select
import shutil
import signal
import subprocess
import sys
import time

TICK = 0.25
START_SECONDS = 60
ATTEMPTS = 5
HERE = pathlib.Path(__file__).resolve().parent


class Kind:
    """How to start a server: its command and environment, and the path that answers 200 once it is up."""

    def __init__(self, health, command, environment):
        self.health, self.command, self.environment = health, command, environment


def kind_of(name, tools, port, scratch):
    if name == "kinesis":
        package = tools / "npm/node_modules/kinesis-local"
        changes = "CREATE_STREAM DELETE_STREAM REGISTER_STREAM_CONSUMER DEREGISTER_STREAM_CONSUMER MERGE_SHARDS SPLIT_SHARD"
        changes += " UPDATE_SHARD_COUNT UPDATE_STREAM_MODE START_STREAM_ENCRYPTION STOP_STREAM_ENCRYPTION"
        return Kind(
            "/healthcheck",
            ["node", "--require", str(HERE / "loopback.cjs"), str(package / "main.js")],
            {
                "KINESIS_MOCK_CERT_PATH": str(package / "server.json"),
                "KINESIS_MOCK_PLAIN_PORT": str(port),
                "KINESIS_MOCK_TLS_PORT": "0",
                # Of all streams of all tests together.
                "SHARD_LIMIT": "100000",
                "ON_DEMAND_STREAM_COUNT_LIMIT": "10000",
                "LOG_LEVEL": "ERROR",
                **{f"{change}_DURATION": "20ms" for change in changes.split()},
            },
        )
    if name == "ministack":
        return Kind(
            "/_ministack/health",
            [str(tools / "venv/bin/python"), "-m", "ministack"],
            {
                "GATEWAY_PORT": str(port),
                "BIND_HOST": "127.0.0.1",
                "SERVICES": "dynamodb,s3,kinesis,glue,sts",
                "LOG_LEVEL": "ERROR",
                "SFTP_ENABLED": "0",
                # Where it finds a Docker it tidies up containers, which are none of a test's business.
                "DOCKER_HOST": f"unix://{scratch}/no-docker",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )
    if name == "pubsub":
        return Kind("/healthz", [str(tools / "pubsub/pstest"), str(port)], {})
    raise SystemExit(f"there is no server of kind {name!r}")


def die_with_parent():
    """A server whose supervisor is killed outright ends as well, where the system can do that (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class Server:
    def __init__(self, name, directory, tools):
        self.name = name
        self.scratch = directory / f"{name}.{os.getpid()}"
        self.scratch.mkdir()
        self.log = directory / f"{name}.{os.getpid()}.log"
        self.process = None
        for _ in range(ATTEMPTS):
            # Below the ports that systems give to outgoing connections, one of which could take it in between.
            port = random.SystemRandom().randrange(20_000, 32_000)
            if self.start(kind_of(name, tools, port, self.scratch), port):
                self.url = f"http://127.0.0.1:{port}"
                return
        self.stop()
        raise SystemExit(f"{name} does not start: {self.log.read_text()}")

    def start(self, kind, port):
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(self.scratch), "TMPDIR": str(self.scratch)}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                kind.command,
                env={**environment, **kind.environment},
                cwd=self.scratch,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.runs():
            if answers(port, kind.health) and self.runs():
                return True
            time.sleep(0.05)
        self.kill()
        return False

    def runs(self):
        return self.process.poll() is None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        ended_by_itself = not self.runs()
        self.kill()
        shutil.rmtree(self.scratch, ignore_errors=True)
        if not ended_by_itself:
            self.log.unlink(missing_ok=True)


def answers(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Directory:
    """Tells whether it still is the one that it was."""

    def __init__(self, path):
        self.path, self.inode = path, path.stat().st_ino

    def stands(self):
        try:
            return self.path.stat().st_ino == self.inode
        except OSError:
            return False


def own(name, directory, tools):
    server = Server(name, directory, tools)
    place = Directory(directory)
    try:
        print(json.dumps({"url": server.url, "server": server.process.pid}), flush=True)
        while server.runs() and place.stands():
            if select.select([sys.stdin], [], [], TICK)[0] and not os.read(sys.stdin.fileno(), 1):
                break
    finally:
        server.stop()


def shared(name, directory, tools, idle_seconds):
    in_charge = open(directory / f"{name}.supervisor", "a")
    # The one before it may just be stopping.
    fcntl.flock(in_charge, fcntl.LOCK_EX)
    state = directory / f"{name}.json"
    end_leftover(state)
    server = Server(name, directory, tools)
    try:
        publish(state, {"url": server.url, "server": server.process.pid, "supervisor": os.getpid()})
        with open(directory / f"{name}.users", "a") as users:
            # The lock on the users is kept to the end: who comes now waits, and finds no server.
            wait_until_unused(server, Directory(directory), users, float(idle_seconds))
            state.unlink(missing_ok=True)
            server.stop()
    finally:
        state.unlink(missing_ok=True)
        server.stop()


def wait_until_unused(server, place, users, idle_seconds):
    used = time.monotonic()
    while server.runs() and place.stands():
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            used = time.monotonic()
        else:
            if time.monotonic() - used >= idle_seconds:
                return
            fcntl.flock(users, fcntl.LOCK_UN)
        time.sleep(TICK)


def publish(path, state):
    whole = path.with_suffix(".new")
    whole.write_text(json.dumps(state))
    whole.replace(path)


def end_leftover(state):
    """Ends the server of a supervisor that was killed, if it is still there."""
    try:
        process = int(json.loads(state.read_text())["server"])
    except (OSError, ValueError, KeyError):
        return
    state.unlink(missing_ok=True)
    listed = subprocess.run(["ps", "-o", "command=", "-p", str(process)], capture_output=True, text=True, check=False)
    if any(name in listed.stdout for name in ("kinesis-local", "ministack", "pstest")):
        os.kill(process, signal.SIGKILL)


def main():
    mode, name, directory, tools, *rest = sys.argv[1:]
    # Who interrupts the tests is not to interrupt it: others may use the server.
    os.setsid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    {"own": own, "shared": shared}[mode](name, pathlib.Path(directory), pathlib.Path(tools), *rest)


if __name__ == "__main__":
    main()
