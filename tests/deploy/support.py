"""What the tests of the deployment's files share."""

import json
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCS = ROOT / "docs"
TOOLS = pathlib.Path(os.environ.get("AUDITLAKE_TEST_TOOLS", ROOT / ".tools"))

# Python's tools stand beside the Python that runs this.
BESIDE = pathlib.Path(sys.executable).parent


def run(*command, **options):
    """Runs a command; where it fails, its output is the reason."""
    options = {"text": True, "stdin": subprocess.DEVNULL, **options}
    if "input" in options:
        del options["stdin"]
    done = subprocess.run([str(word) for word in command], capture_output=True, **options)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def promtool(*arguments, **options):
    return run(TOOLS / "prometheus" / "promtool", *arguments, **options)


def binary():
    """Where the binary is."""
    return ROOT / os.environ.get("AUDITLAKE_BINARY", "target/release/auditlake")


def without_ours():
    """The environment, but for what the binary would read of it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AUDITLAKE__", "AWS_"))}


def auditlake(*arguments, **options):
    """Runs the binary with nothing in the environment that it would read."""
    env = without_ours() | options.pop("env", {})
    return run(binary(), *arguments, env=env, cwd=ROOT, **options)


def load_json(path):
    return json.loads(path.read_text())


def listed(value):
    """IAM and CloudFormation write a list of one without its brackets."""
    return value if isinstance(value, list) else [value]
