"""The CloudFormation templates: without a finding of cfn-lint, with the policies of deploy/iam, and enough for the binary."""

import fnmatch
import json
import unittest

import yaml

from emulator import emulator, subscription
from support import BESIDE, DEPLOY, ROOT, auditlake, listed, load_json, run
from witness import Witness

STACK = DEPLOY / "cloudformation" / "auditlake.yaml"
TEMPLATES = [STACK, *sorted((DEPLOY / "ecs").glob("*.yaml"))]

# A worker's, which leaves the making of tables to the stack.
CONFIG = DEPLOY / "kubernetes" / "overlays" / "example" / "auditlake.toml"
PUBSUB_CONFIG = DEPLOY / "kubernetes" / "overlays" / "example-gke" / "auditlake.toml"

# A policy of the stack, and the file under deploy/iam that it has to be.
POLICIES = {"WorkerPolicy": "policy", "FanOutPolicy": "fan-out", "SpoolPolicy": "spool", "VerifierPolicy": "verify",
            "RecordVerifyPolicy": "record-verify", "AnalystPolicy": "analyst", "RebuildStatePolicy": "rebuild-state"}


class Loader(yaml.SafeLoader):
    """CloudFormation's short forms: `!Sub text` is {"Sub": text}."""


Loader.add_multi_constructor("!", lambda loader, name, node: {name: {
    yaml.ScalarNode: loader.construct_scalar,
    yaml.SequenceNode: lambda node: loader.construct_sequence(node, deep=True),
    yaml.MappingNode: lambda node: loader.construct_mapping(node, deep=True),
}[type(node)](node)})


def template(path):
    return yaml.load(path.read_text(), Loader)


def statements(policy):
    """Statements, with those that stand under a condition."""
    found = (statement["If"][1] if "If" in statement else statement for statement in policy["Statement"])
    return {statement["Sid"]: statement for statement in found}


class Templates(unittest.TestCase):
    def test_cfn_lint_has_no_finding(self):
        for path in TEMPLATES:
            # Informational checks too.
            run(BESIDE / "cfn-lint", "--include-checks", "I", "--", path)

    def test_policies_are_the_shipped_ones(self):
        resources = template(STACK)["Resources"]
        for resource, name in POLICIES.items():
            stack = statements(resources[resource]["Properties"]["PolicyDocument"])
            file = statements(load_json(DEPLOY / "iam" / f"{name}.json"))
            self.assertEqual(list(stack), list(file), resource)
            for sid in file:
                with self.subTest(resource, sid=sid):
                    self.assertEqual(listed(stack[sid]["Action"]), listed(file[sid]["Action"]))
                    self.assertEqual(len(listed(stack[sid]["Resource"])), len(listed(file[sid]["Resource"])))
                    conditions = [{test: list(keys) for test, keys in statement.get("Condition", {}).items()}
                                  for statement in (stack[sid], file[sid])]
                    self.assertEqual(*conditions)

    def test_who_takes_a_role_of_kubernetes_on_is_its_service_account(self):
        resources = template(STACK)["Resources"]
        for role, account in {"ServiceAccountRole": "auditlake", "VerifierServiceAccountRole": "auditlake-verify"}.items():
            names = {"AWS::Partition": "aws", "AWS::AccountId": "111122223333", "EksOidcProvider": "oidc.example/id/A",
                     "EksNamespace": "auditlake", "EksServiceAccount": "auditlake"}
            text = resources[role]["Properties"]["AssumeRolePolicyDocument"]["Sub"]
            for name, value in names.items():
                text = text.replace(f"${{{name}}}", value)
            [statement] = json.loads(text)["Statement"]
            self.assertEqual(statement["Condition"]["StringEquals"], {
                "oidc.example/id/A:aud": "sts.amazonaws.com",
                "oidc.example/id/A:sub": f"system:serviceaccount:auditlake:{account}"})

    def test_who_takes_a_role_of_pod_identity_on_is_the_service_account_that_is_bound_to_it(self):
        resources = template(STACK)["Resources"]
        for role, binding in {"PodRole": "PodIdentity", "VerifierPodRole": "VerifierPodIdentity"}.items():
            bound = resources[binding]["Properties"]
            self.assertEqual(bound["RoleArn"], {"GetAtt": f"{role}.Arn"})
            [statement] = resources[role]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
            self.assertEqual(statement["Condition"]["StringEquals"], {
                "aws:RequestTag/eks-cluster-name": bound["ClusterName"],
                "aws:RequestTag/kubernetes-namespace": bound["Namespace"],
                "aws:RequestTag/kubernetes-service-account": bound["ServiceAccount"]})
        accounts = [resources[name]["Properties"]["ServiceAccount"] for name in ("PodIdentity", "VerifierPodIdentity")]
        self.assertEqual(accounts, [{"Ref": "EksServiceAccount"}, {"Sub": "${EksServiceAccount}-verify"}])
        workers = ("TaskRole", "ServiceAccountRole", "PodRole")
        policies = [resources[role]["Properties"]["ManagedPolicyArns"] for role in workers]
        self.assertEqual(policies, policies[:1] * len(workers), "a worker may the same wherever it runs")

    def test_roles_of_the_verifier_may_prove_and_record_and_nothing_else(self):
        resources = template(STACK)["Resources"]
        for role in ("VerifierTaskRole", "VerifierServiceAccountRole", "VerifierPodRole"):
            self.assertEqual(resources[role]["Properties"]["ManagedPolicyArns"],
                             [{"Ref": "VerifierPolicy"}, {"Ref": "RecordVerifyPolicy"}], role)
            self.assertNotIn("Policies", resources[role]["Properties"], role)

    def test_nothing_that_keeps_audit_logs_goes_with_the_stack(self):
        resources = template(STACK)["Resources"]
        for name in ("Stream", "Leases", "Claims", "ArchiveKey", "Bucket"):
            for policy in ("DeletionPolicy", "UpdateReplacePolicy"):
                self.assertEqual(resources[name][policy], "Retain", name)


# The resources of the policies under deploy/iam, by what a call names.
ARNS = {
    "kinesis": "arn:aws:kinesis:eu-central-1:111122223333:stream/{}",
    "dynamodb": "arn:aws:dynamodb:eu-central-1:111122223333:table/{}",
    "s3": "arn:aws:s3:::audit-archive{}",
}


def granted(policy):
    statements = load_json(DEPLOY / "iam" / f"{policy}.json")["Statement"]
    return {action for statement in statements for action in listed(statement["Action"])}


def permits(policy, action, resource):
    """Whether a shipped policy allows the call, on what it is for."""
    service = action.split(":")[0]
    if service == "s3":
        _, slash, key = resource.lstrip("/").partition("/")
        name = slash + key if not action.startswith("s3:ListBucket") else ""
    else:
        name = resource.rsplit("/", 1)[-1]
    arn = ARNS[service].format(name)
    return any(
        action in listed(statement["Action"])
        and any(fnmatch.fnmatchcase(arn, pattern) for pattern in listed(statement["Resource"]))
        for statement in load_json(DEPLOY / "iam" / f"{policy}.json")["Statement"])


def make_stack(aws, **more):
    """The stack on an emulator; its outputs."""
    cloudformation = aws.client("cloudformation")
    parameters = {
        "BucketName": "audit-archive-test", "EksOidcProvider": "oidc.eks.us-east-1.amazonaws.com/id/ABC",
        "TemporalExternalId": "an-id", "TemporalPrincipals": "arn:aws:iam::111122223333:role/writer",
        "ObjectLockMode": "governance", "FanOut": "true", "InfrequentAccessAfterDays": "90", "AthenaResults": "athena-results/audit", **more,
    }
    cloudformation.create_stack(
        StackName="auditlake", TemplateBody=STACK.read_text(), Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()])
    cloudformation.get_waiter("stack_create_complete").wait(
        StackName="auditlake", WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    stack = cloudformation.describe_stacks(StackName="auditlake")["Stacks"][0]
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


class OnAnEmulator(unittest.TestCase):
    """The stack is made, the examples come in by its stream, and a worker that may make nothing archives them."""

    def test_a_stack_has_all_that_a_worker_needs_and_it_does_no_more_than_it_may(self):
        with emulator() as aws, Witness(aws.url) as witness:
            outputs = make_stack(aws)
            kinesis = aws.client("kinesis")
            for path in sorted((ROOT / "examples/audit").glob("stream-*")):
                kinesis.put_record(StreamName="temporal-audit", PartitionKey=path.name, Data=path.read_bytes())
            env = {
                **aws.environment,
                "AWS_ENDPOINT_URL": witness.url,
                "AUDITLAKE__SOURCE__KINESIS__STREAM": outputs["StreamArn"],
                "AUDITLAKE__ARCHIVE__S3__BUCKET": outputs["BucketName"],
            }
            report = json.loads(auditlake("check", "--config", CONFIG, "--json", env=env))
            self.assertIs(report["ok"], True, report)
            self.allowed(witness, "policy")
            named = {action for step in report["steps"] for action in step["actions"]}
            self.assertLessEqual(named, granted("policy"), "what check would have people grant is in no policy")

            summary = json.loads(auditlake("catch-up", "--config", CONFIG, "--json", env=env))
            self.assertGreater(summary["archived"], 1000)
            self.assertEqual((summary["complete"], summary["failures"], summary["gaps"]), (True, [], 0))
            called = self.allowed(witness, "policy")
            for action in ("kinesis:GetRecords", "dynamodb:PartiQLInsert", "s3:AbortMultipartUpload"):
                self.assertIn(action, {name for name, _ in called})

            report = auditlake("verify", "--config", CONFIG, env=env)
            self.assertIn("no damage found", report)
            self.allowed(witness, "verify")
            auditlake("verify", "--config", CONFIG, "--record", env=env)
            self.allowed(witness, "verify", "record-verify")
            auditlake("status", "--config", CONFIG, "--json", env=env)
            self.allowed(witness, "verify", "status")
            self.assertIn("1 shard, ", auditlake("rebuild-state", "--config", CONFIG, env=env))
            self.allowed(witness, "rebuild-state")
            self.same_tables(aws, env)

    def test_a_stack_for_a_subscription_has_no_stream_and_all_else(self):
        with emulator() as aws, Witness(aws.url) as witness, subscription("example-project", "temporal-audit") as pubsub:
            outputs = make_stack(aws, Source="pubsub")
            self.assertNotIn("StreamArn", outputs)
            self.assertEqual(aws.client("kinesis").list_streams()["StreamNames"], [])
            env = {
                **aws.environment,
                "AWS_ENDPOINT_URL": witness.url,
                "PUBSUB_EMULATOR_HOST": pubsub.host,
                "AUDITLAKE__ARCHIVE__S3__BUCKET": outputs["BucketName"],
                "AUDITLAKE__SOURCE__PUBSUB__DRAIN_IDLE": "2s",
            }
            report = json.loads(auditlake("check", "--config", PUBSUB_CONFIG, "--json", env=env))
            self.assertIs(report["ok"], True, report)
            self.allowed(witness, "policy", "spool")
            named = {action for step in report["steps"] for action in step["actions"]}
            self.assertEqual(named - granted("policy") - granted("spool"), {"pubsub.subscriptions.get"})

            for path in sorted((ROOT / "examples/audit").glob("stream-*")):
                pubsub.publish(path.read_bytes())
            summary = json.loads(auditlake("catch-up", "--config", PUBSUB_CONFIG, "--json", env=env))
            self.assertGreater(summary["archived"], 1000)
            self.assertEqual((summary["complete"], summary["failures"], summary["gaps"]), (True, [], 0))
            called = {name for name, _ in self.allowed(witness, "policy", "spool")}
            self.assertIn("s3:DeleteObject", called)
            self.assertEqual({name for name in called if name.startswith("kinesis:")}, set())
            self.assertIn("no damage found", auditlake("verify", "--config", PUBSUB_CONFIG, env=env))
            self.allowed(witness, "verify")

    def allowed(self, witness, *policies):
        """What was called since the last look is allowed by one of the policies."""
        called = witness.taken()
        refused = {call for call in called if not any(permits(policy, *call) for policy in policies)}
        self.assertTrue(called)
        self.assertEqual(refused, set(), policies)
        return called

    def same_tables(self, aws, env):
        """The stack's tables are those that the binary makes by itself."""
        own = {"AUDITLAKE__STATE__DYNAMODB__CREATE_TABLES": "true", "AUDITLAKE__STATE__DYNAMODB__TABLE_PREFIX": "own",
               "AUDITLAKE__ARCHIVE__S3__PREFIX": "own"}
        auditlake("catch-up", "--config", CONFIG, env={**env, **own})
        dynamodb = aws.client("dynamodb")

        def shape(name):
            table = dynamodb.describe_table(TableName=name)["Table"]
            return table["KeySchema"], table["AttributeDefinitions"], table["BillingModeSummary"]["BillingMode"]

        for table in ("leases", "claims"):
            self.assertEqual(shape(f"auditlake-{table}"), shape(f"own-{table}"))
            # The emulator's CloudFormation makes tables without it.
            stack = template(STACK)["Resources"][table.title()]["Properties"].get("TimeToLiveSpecification", {})
            own = dynamodb.describe_time_to_live(TableName=f"own-{table}")["TimeToLiveDescription"]
            self.assertEqual(stack.get("AttributeName"), own.get("AttributeName"))


if __name__ == "__main__":
    unittest.main()
