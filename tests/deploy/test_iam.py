"""The shipped IAM policies and the calls in the source: an action for every call, and a call for every action."""

import re
import tempfile
import unittest

import botocore.session
import parliament
from botocore import xform_name

from support import DEPLOY, ROOT, auditlake, listed, load_json

POLICIES = DEPLOY / "iam"

# Which policy allows a call. `None`: no policy needs to.
WORKER, TABLES, FAN_OUT, OBJECTS, SPOOL = "policy", "create-tables", "fan-out", "object-options", "spool"

# Every operation that the source calls, the actions that it needs, and the policy that has to allow them.
ACTIONS = {
    "kinesis": {
        "describe_stream_summary": (WORKER, ["DescribeStreamSummary"]),
        "list_shards": (WORKER, ["ListShards"]),
        "get_shard_iterator": (WORKER, ["GetShardIterator"]),
        "get_records": (WORKER, ["GetRecords"]),
        "describe_stream_consumer": (FAN_OUT, ["DescribeStreamConsumer"]),
        "register_stream_consumer": (FAN_OUT, ["RegisterStreamConsumer"]),
        "subscribe_to_shard": (FAN_OUT, ["SubscribeToShard"]),
    },
    "dynamodb": {
        "describe_table": (WORKER, ["DescribeTable"]),
        "describe_time_to_live": (WORKER, ["DescribeTimeToLive"]),
        "get_item": (WORKER, ["GetItem"]),
        "put_item": (WORKER, ["PutItem"]),
        "delete_item": (WORKER, ["DeleteItem"]),
        "scan": (WORKER, ["Scan"]),
        "batch_get_item": (WORKER, ["BatchGetItem"]),
        # What a statement needs depends on its verb: see STATEMENTS.
        "batch_execute_statement": (WORKER, []),
        "create_table": (TABLES, ["CreateTable"]),
        "update_time_to_live": (TABLES, ["UpdateTimeToLive"]),
        "update_continuous_backups": (TABLES, ["UpdateContinuousBackups"]),
    },
    "s3": {
        # Without ListBucket, an object that is not there is a refusal.
        "get_object": (WORKER, ["GetObject", "ListBucket"]),
        "head_object": (WORKER, ["GetObject", "ListBucket"]),
        "list_objects_v2": (WORKER, ["ListBucket"]),
        "put_object": (WORKER, ["PutObject"]),
        "create_multipart_upload": (WORKER, ["PutObject"]),
        "upload_part": (WORKER, ["PutObject"]),
        "complete_multipart_upload": (WORKER, ["PutObject"]),
        "abort_multipart_upload": (WORKER, ["AbortMultipartUpload"]),
        "delete_object": (SPOOL, ["DeleteObject"]),
    },
}

# PartiQL: a statement's first word, in the source as it is sent.
STATEMENTS = {"INSERT INTO": "PartiQLInsert", "UPDATE": "PartiQLUpdate", "SELECT": "PartiQLSelect", "DELETE FROM": "PartiQLDelete"}

# Arguments that need an action of their own.
ARGUMENTS = {
    ("dynamodb", "set_tags"): (TABLES, "dynamodb:TagResource"),
    ("s3", "set_tagging"): (OBJECTS, "s3:PutObjectTagging"),
    ("s3", "object_lock_retain_until_date"): (OBJECTS, "s3:PutObjectRetention"),
}

# No call of ours: Kinesis and S3 use the key for who reads and writes.
ON_BEHALF = {"kms:Decrypt", "kms:GenerateDataKey"}


def sources():
    return {path: path.read_text() for path in sorted((ROOT / "src").rglob("*.rs"))}


def calls(texts):
    """Every operation of the three services that the source begins: `.put_object()`, wherever it stands."""
    session = botocore.session.get_session()
    found = set()
    for service in ACTIONS:
        operations = {xform_name(name) for name in session.get_service_model(service).operation_names}
        # In a file that names another service's client, a call of this name is that one's.
        for text in texts:
            named = set(re.findall(r"aws_sdk_(\w+)|crate::aws::(\w+)", text))
            named = {name for pair in named for name in pair if name in ACTIONS}
            if named and service not in named:
                continue
            found |= {(service, name) for name in re.findall(r"\.\s*(\w+)\(\)", text) if name in operations}
    return found


def needed():
    """The actions of each policy, as the source has it."""
    texts = list(sources().values())
    actions = {policy: set() for policy in (WORKER, TABLES, FAN_OUT, OBJECTS, SPOOL)}
    for service, operation in calls(texts):
        known = ACTIONS[service].get(operation)
        if known is None:
            raise AssertionError(
                f"the source calls {operation} of {service}, and no action is known for it: add it to ACTIONS here and to "
                "the policies in deploy/iam and deploy/cloudformation")
        policy, names = known
        actions[policy] |= {f"{service}:{name}" for name in names}
    claims = "".join(text for path, text in sources().items() if "dedupe/dynamodb" in str(path))
    for verb, action in STATEMENTS.items():
        if re.search(rf'"{verb} \\"', claims):
            actions[WORKER].add(f"dynamodb:{action}")
    for (service, argument), (policy, action) in ARGUMENTS.items():
        if any(f"aws_sdk_{service}" in text and f".{argument}(" in text for text in texts):
            actions[policy].add(action)
    return actions


def granted(document):
    statements = document["Statement"]
    assert all(statement["Effect"] == "Allow" for statement in statements)
    return {action for statement in statements for action in listed(statement["Action"])}


class Policies(unittest.TestCase):
    def test_every_call_has_its_action_and_every_action_its_call(self):
        for policy, actions in needed().items():
            with self.subTest(policy):
                shipped = granted(load_json(POLICIES / f"{policy}.json"))
                self.assertEqual(shipped - ON_BEHALF, actions)

    def test_every_known_operation_is_called(self):
        called = calls(sources().values())
        known = {(service, name) for service, names in ACTIONS.items() for name in names}
        self.assertEqual(known - called, set(), "no longer called: take them out of ACTIONS and of the policies")

    def test_each_table_is_granted_what_its_adapter_calls(self):
        statements = {statement["Sid"]: set(statement["Action"]) for statement in
                      load_json(POLICIES / "policy.json")["Statement"] if isinstance(statement["Action"], list)}
        # Whoever opens a table looks at it; only claims expire.
        shared = {"KeepLeases": {"DescribeTable"}, "KeepClaims": {"DescribeTable", "DescribeTimeToLive"}}
        partiql = {"KeepLeases": set(), "KeepClaims": {"PartiQLInsert", "PartiQLUpdate"}}
        for sid, folder in {"KeepLeases": "src/lease/dynamodb", "KeepClaims": "src/dedupe/dynamodb"}.items():
            texts = [text for path, text in sources().items() if path.is_relative_to(ROOT / folder)]
            called = {name for _, operation in calls(texts) for name in ACTIONS["dynamodb"][operation][1]}
            wanted = called | shared[sid] | partiql[sid]
            self.assertEqual(statements[sid], {f"dynamodb:{name}" for name in wanted}, sid)

    def test_who_verifies_may_change_nothing(self):
        worker, verifier = (granted(load_json(POLICIES / f"{name}.json")) for name in ("policy", "verify"))
        self.assertLess(verifier, worker)
        changes = re.compile(r":(Put|Delete|Update|Create|Abort|PartiQL|Generate)")
        self.assertEqual([action for action in verifier if changes.search(action)], [])
        # But for what it found, where the policy says so, and nowhere else.
        recording = load_json(POLICIES / "record-verify.json")
        self.assertEqual(granted(recording), {"s3:PutObject", "kms:GenerateDataKey"})
        self.assertTrue(recording["Statement"][0]["Resource"].endswith("/_verify/*"))

    def test_who_makes_state_anew_may_what_a_worker_may_and_change_no_archive(self):
        worker, rebuilder = (granted(load_json(POLICIES / f"{name}.json")) for name in ("policy", "rebuild-state"))
        self.assertLess(rebuilder, worker)
        self.assertEqual({action for action in rebuilder if action.startswith(("s3:", "kinesis:", "kms:"))},
                         {"s3:GetObject", "s3:ListBucket", "kms:Decrypt"})

    def test_who_queries_reads_rows_and_writes_results_alone(self):
        for statement in load_json(POLICIES / "analyst.json")["Statement"]:
            resources = listed(statement["Resource"])
            if any(":::audit-archive" in resource for resource in resources):
                self.assertLessEqual(set(listed(statement["Action"])), {"s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"})
            if "s3:PutObject" in statement["Action"]:
                self.assertEqual(resources, ["arn:aws:s3:::athena-results/audit/*"])
            changes = [action for action in listed(statement["Action"]) if re.search(r"^(glue|athena):(?!Get|StartQuery|StopQuery)", action)]
            self.assertEqual(changes, [])

    def test_who_queries_may_read_every_place_that_the_tables_open(self):
        statements = {statement["Sid"]: statement for statement in load_json(POLICIES / "analyst.json")["Statement"]}
        readable = {resource.removeprefix("arn:aws:s3:::").removesuffix("*") for resource in statements["ReadRows"]["Resource"]}
        listable = {f"audit-archive/{prefix.removesuffix('*')}" for prefix in statements["ListRows"]["Condition"]["StringLike"]["s3:prefix"]}
        with tempfile.TemporaryDirectory() as scratch:
            env = {"AUDITLAKE__STATE__EMBEDDED__PATH": f"{scratch}/state", "AUDITLAKE__ARCHIVE__LOCAL__PATH": f"{scratch}/archive"}
            auditlake("catch-up", "--config", "config/local.toml", env=env)
            sql = auditlake("ddl", "athena", "--config", "config/local.toml", "--location", "s3://audit-archive/temporal",
                            "--database", "audit", env=env)
        opened = set(re.findall(r"^LOCATION 's3://([^']+)'", sql, re.MULTILINE))
        self.assertEqual(len(opened), 2)
        self.assertEqual((readable, listable), (opened, opened))

    def test_nothing_is_allowed_on_everything(self):
        for path in POLICIES.glob("*.json"):
            for statement in load_json(path)["Statement"]:
                for resource in listed(statement["Resource"]):
                    self.assertNotRegex(resource, r"^\*$|:table/\*|:stream/\*|:::\*", path.name)

    def test_parliament_has_no_finding(self):
        for path in sorted(POLICIES.glob("*.json")):
            findings = parliament.analyze_policy_string(path.read_text()).findings
            self.assertEqual([str(finding) for finding in findings], [], path.name)


if __name__ == "__main__":
    unittest.main()
