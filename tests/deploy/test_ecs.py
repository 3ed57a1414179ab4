"""The ECS files: of the shape and with the words that the API takes, and a configuration that the binary takes."""

import json
import pathlib
import tempfile
import unittest

import botocore.session
from botocore.validate import ParamValidator

from support import DEPLOY, DOCS, auditlake, load_json, run
from test_cloudformation import template
from test_docs import blocks

ECS = DEPLOY / "ecs"
# What the API calls the request that takes the file.
FILES = {"task-definition.json": "RegisterTaskDefinition", "verify-task-definition.json": "RegisterTaskDefinition",
         "service.json": "CreateService"}


def wrong_words(value, shape, path=""):
    """Values of enumerations that the API does not know: botocore looks at shapes only."""
    if shape.type_name == "structure":
        return [wrong for name, inner in value.items() if name in shape.members
                for wrong in wrong_words(inner, shape.members[name], f"{path}.{name}")]
    if shape.type_name == "list":
        return [wrong for inner in value for wrong in wrong_words(inner, shape.member, path)]
    if shape.type_name == "map":
        return [wrong for inner in value.values() for wrong in wrong_words(inner, shape.value, path)]
    known = getattr(shape, "enum", [])
    return [f"{path}: {value} is none of {known}"] if known and value not in known else []


class Files(unittest.TestCase):
    def test_each_is_what_the_api_takes(self):
        model = botocore.session.get_session().get_service_model("ecs")
        for name, operation in FILES.items():
            with self.subTest(name):
                shape = model.operation_model(operation).input_shape
                file = load_json(ECS / name)
                report = ParamValidator().validate(file, shape)
                self.assertFalse(report.has_errors(), report.generate_report())
                self.assertEqual(wrong_words(file, shape), [])

    def test_the_environment_is_a_configuration(self):
        [container] = load_json(ECS / "task-definition.json")["containerDefinitions"]
        env = {pair["name"]: pair["value"] for pair in container["environment"]}
        self.assertEqual(container["command"], ["run"])  # by the environment alone
        effective = auditlake("config", env=env)
        for value in env.values():
            self.assertIn(value, effective)

    def test_the_worker_has_time_to_stop_and_room_to_work(self):
        task = load_json(ECS / "task-definition.json")
        [container] = task["containerDefinitions"]
        env = {pair["name"]: pair["value"] for pair in container["environment"]}
        self.assertEqual(env["AUDITLAKE__WORKER__SHUTDOWN_GRACE"], "25s")
        self.assertEqual(container["stopTimeout"], 25 + 5)
        self.assertLessEqual(int(env["AUDITLAKE__LIMITS__MEMORY"].removesuffix("MiB")) + 256, int(task["memory"]))

    def test_the_verifier_is_the_worker_but_for_its_job_and_its_role(self):
        worker, verifier = (load_json(ECS / f"{name}.json") for name in ("task-definition", "verify-task-definition"))
        [container], [other] = worker["containerDefinitions"], verifier["containerDefinitions"]
        self.assertEqual(other["command"], ["verify", "--record", "--json"])
        self.assertNotEqual(verifier["taskRoleArn"], worker["taskRoleArn"])
        self.assertNotIn("portMappings", other)
        for task, its in (worker, container), (verifier, other):
            for differs in ("family", "taskRoleArn"):
                task.pop(differs)
            for differs in ("command", "portMappings"):
                its.pop(differs, None)
            its["logConfiguration"]["options"].pop("awslogs-stream-prefix")
        self.assertEqual(verifier, worker, "run `make deploy-files`")

    def test_the_guides_commands_fill_in_every_name(self):
        [fill] = [block for block in blocks(DOCS / "deployment.md", "sh") if "fill()" in block]
        stand_ins = """
            IMAGE=an-image AWS_REGION=a-region SUBNETS=subnet-a,subnet-b SECURITY_GROUP=sg-a
            output() { echo "the-$1"; }
            aws() { case "$*" in *" get-role "*) echo execution;; *RegistryArn*) echo a-registry;; esac; }
        """
        with tempfile.TemporaryDirectory() as scratch:
            place = pathlib.Path(scratch)
            (place / "deploy").symlink_to(DEPLOY)
            run("bash", "-euc", stand_ins + fill, cwd=place)
            for name, role in {"task-definition": "the-TaskRoleArn", "verify-task-definition": "the-VerifierTaskRoleArn"}.items():
                task = load_json(place / f"{name}.json")
                [container] = task["containerDefinitions"]
                env = {pair["name"]: pair["value"] for pair in container["environment"]}
                self.assertEqual((task["taskRoleArn"], task["executionRoleArn"], container["image"]), (role, "execution", "an-image"))
                self.assertEqual(env["AUDITLAKE__ARCHIVE__S3__BUCKET"], "the-BucketName")
                self.assertEqual(container["logConfiguration"]["options"]["awslogs-region"], "a-region")
            service = load_json(place / "service.json")
            self.assertEqual(service["networkConfiguration"]["awsvpcConfiguration"]["subnets"], ["subnet-a", "subnet-b"])
            for name in ("task-definition", "verify-task-definition", "service"):
                text = (place / f"{name}.json").read_text()
                for of_the_example in ("444455556666", "us-east-1", "example-audit-archive", "OF-THE-STACK"):
                    self.assertNotIn(of_the_example, text, name)

    def test_schedules_run_the_containers_that_there_are(self):
        schedule = template(ECS / "scheduled-task.yaml")
        jobs = schedule["Mappings"]["Jobs"]
        self.assertEqual(set(jobs), set(schedule["Parameters"]["Job"]["AllowedValues"]))
        for job, file in {"catch-up": "task-definition.json", "verify": "verify-task-definition.json"}.items():
            task = load_json(ECS / file)
            [container] = task["containerDefinitions"]
            [override] = json.loads(jobs[job]["Input"])["containerOverrides"]
            self.assertEqual(override["name"], container["name"])
            self.assertEqual(jobs[job]["Family"], task["family"])
            self.assertEqual(override["command"][0], job)
            auditlake(*override["command"], "--help")
        # What is not recorded, no alert sees.
        self.assertIn("--record", jobs["verify"]["Input"])


if __name__ == "__main__":
    unittest.main()
