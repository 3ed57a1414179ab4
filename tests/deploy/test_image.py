"""The Dockerfile, as far as it can be looked at without building it: `make test-image` does that."""

import json
import re
import tomllib
import unittest

from support import BESIDE, DEPLOY, ROOT, auditlake, load_json, run

DOCKERFILE = ROOT / "Dockerfile"


def instructions():
    """Each as (word, rest), lines that go on joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [tuple(line.split(" ", 1)) for line in lines if line]


def version(text):
    return [int(part) for part in text.split(".")]


def wanted_rust(crate):
    return tomllib.loads((crate / "Cargo.toml").read_text())["package"]["rust-version"]


class Image(unittest.TestCase):
    def test_hadolint_has_no_finding(self):
        run(BESIDE / "hadolint", DOCKERFILE)

    def test_it_runs_as_the_user_that_the_deployments_say(self):
        words = dict(instructions())
        self.assertEqual(words["USER"], "65532:65532")
        [container] = load_json(DEPLOY / "ecs/task-definition.json")["containerDefinitions"]
        self.assertEqual(container["user"], words["USER"])
        self.assertEqual(words["STOPSIGNAL"], "SIGTERM")

    def test_it_is_built_by_a_rust_that_is_new_enough(self):
        [used] = re.findall(r"^FROM \S*rust:([\d.]+)", DOCKERFILE.read_text(), re.MULTILINE)
        self.assertGreaterEqual(version(used), version(wanted_rust(ROOT)))

    # Cargo refuses an older one than a dependency asks for, whatever our own manifest says.
    def test_no_dependency_asks_for_a_newer_rust_than_we_say(self):
        wanted = wanted_rust(ROOT)
        self.assertEqual(wanted_rust(ROOT / "tests/servers"), wanted)
        self.assertIn(f"With Rust ({wanted} or later)", (ROOT / "README.md").read_text())
        [host] = re.findall(r"^host: (.+)$", run("rustc", "-vV"), re.MULTILINE)
        packages = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", host, cwd=ROOT))["packages"]
        newer = [f"{package['name']} {package['rust_version']}" for package in packages
                 if version(package["rust_version"] or "1") > version(wanted)]
        self.assertEqual(newer, [])

    def test_what_is_copied_is_not_left_out(self):
        kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        copied = {source.rstrip("/") for word, rest in instructions() if word == "COPY" and "--from" not in rest
                  for source in rest.split()[:-1]}
        self.assertEqual(copied, kept)
        for name in kept:
            self.assertTrue((ROOT / name).exists(), name)

    def test_its_command_is_one_of_the_binary(self):
        words = dict(instructions())
        [command] = re.findall(r'\["(\w+)"\]', words["CMD"])
        auditlake(command, "--help")
        self.assertIn("/usr/local/bin/auditlake", words["ENTRYPOINT"])


if __name__ == "__main__":
    unittest.main()
