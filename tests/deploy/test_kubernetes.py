"""The Kubernetes files: valid for the API, safe by default, and in agreement with one another and with the binary."""

import json
import os
import pathlib
import shutil
import sys
import tempfile
import tomllib
import unittest

import kubernetes_validate
import yaml

from support import DEPLOY, DOCS, auditlake, run
from test_cloudformation import template
from test_docs import blocks

KUBERNETES = DEPLOY / "kubernetes"
BUILDS = [KUBERNETES / name for name in ("base", "overlays/example", "overlays/example-catch-up", "overlays/example-gke")]
# The oldest that is meant, and the newest that is known.
VERSIONS = ["1.31", "1.37"]
# Of the Prometheus Operator, which the API does not know.
OPERATOR = {"ServiceMonitor", "PrometheusRule"}
KUSTOMIZE = shutil.which("kubectl")


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def files():
    return sorted(path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml")


def pods(resources):
    """The pods' specifications, by what makes them."""
    for resource in resources:
        spec = resource.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec and resource["kind"] in ("Deployment", "Job", "CronJob"):
            yield resource["kind"], spec["template"]


def token_of_aws(template):
    """The volume and the variables by which a pod on GKE takes its role on; None where it has none."""
    spec = template["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    if "aws-token" not in volumes:
        return None
    [source] = volumes["aws-token"]["projected"]["sources"]
    [container] = spec["containers"]
    [mount] = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "aws-token"]
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    assert env["AWS_WEB_IDENTITY_TOKEN_FILE"] == f"{mount}/{source['serviceAccountToken']['path']}", env
    return source["serviceAccountToken"]["audience"], env["AWS_ROLE_ARN"]


def annotations(resources):
    """Those of the service accounts, by their names."""
    accounts = (resource["metadata"] for resource in resources if resource["kind"] == "ServiceAccount")
    return {account["name"]: account.get("annotations", {}) for account in accounts}


def open_to(resources):
    """Addresses and ports that the network policy opens by name."""
    [policy] = [resource for resource in resources if resource["kind"] == "NetworkPolicy"]
    return {(block["ipBlock"]["cidr"], port["port"]) for rule in policy["spec"]["egress"]
            for block in rule.get("to", []) for port in rule["ports"]}


def valid(resource):
    if resource["kind"] in OPERATOR:
        return
    for version in VERSIONS:
        kubernetes_validate.validate(resource, version, strict=True)


class Files(unittest.TestCase):
    def test_each_is_valid(self):
        for path in files():
            for resource in documents(path.read_text()):
                with self.subTest(path.name, kind=resource["kind"]):
                    valid(resource)

    def test_pods_may_do_nothing_that_they_need_not(self):
        resources = [resource for path in files() for resource in documents(path.read_text())]
        found = list(pods(resources))
        self.assertEqual({kind for kind, _ in found}, {"Deployment", "Job", "CronJob"})
        for kind, template in found:
            with self.subTest(kind):
                spec = template["spec"]
                self.assertIs(spec["automountServiceAccountToken"], False)
                self.assertIs(spec["securityContext"]["runAsNonRoot"], True)
                self.assertEqual(spec["securityContext"]["runAsUser"], 65532)
                self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                [container] = spec["containers"]
                self.assertEqual(container["securityContext"], {
                    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}})
                self.assertIn("memory", container["resources"]["limits"])
                # The network policy goes by it.
                self.assertEqual(template["metadata"].get("labels", {}).get("app.kubernetes.io/part-of", "auditlake"), "auditlake")

    def test_the_grace_period_is_longer_than_the_worker_takes(self):
        [deployment] = documents((KUBERNETES / "base/deployment.yaml").read_text())
        spec = deployment["spec"]["template"]["spec"]
        for path in KUBERNETES.rglob("auditlake.toml"):
            config = tomllib.loads(path.read_text())
            self.assertEqual(config["worker"]["shutdown_grace"], "25s", path)
            self.assertEqual(spec["terminationGracePeriodSeconds"], 25 + 5)
            # Beside what records may take, 512 MiB for everything else.
            self.assertEqual(config["limits"]["memory"], "256MiB")
            self.assertEqual(spec["containers"][0]["resources"]["limits"]["memory"], f"{256 + 512}Mi")
            port = spec["containers"][0]["ports"][0]["containerPort"]
            self.assertEqual(config["metrics"]["listen"], f"0.0.0.0:{port}")

    def test_the_operator_has_the_very_alerts(self):
        [rule] = documents((KUBERNETES / "components/monitoring/prometheus-rule.yaml").read_text())
        alerts = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())
        self.assertEqual(rule["spec"], alerts, "run `make deploy-files`")


class Builds(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if KUSTOMIZE is None:
            print("NOT CHECKED: what kustomize makes of the Kubernetes files; kubectl is not here", file=sys.stderr)
            raise unittest.SkipTest("kubectl is not here")
        cls.built = {path: documents(run(KUSTOMIZE, "kustomize", path)) for path in BUILDS}

    def test_each_is_valid(self):
        for path, resources in self.built.items():
            for resource in resources:
                with self.subTest(path.name, kind=resource["kind"]):
                    valid(resource)

    def test_configurations_are_read_by_the_binary(self):
        for path, resources in self.built.items():
            [config] = [resource for resource in resources if resource["kind"] == "ConfigMap"]
            for text in config["data"].values():
                with self.subTest(path.name):
                    effective = auditlake("config", "--config", "/dev/stdin", input=text)
                    self.assertIn("0.0.0.0:9464", effective)

    def test_pods_mount_the_configuration_and_read_it(self):
        for path, resources in self.built.items():
            names = {resource["metadata"]["name"] for resource in resources if resource["kind"] == "ConfigMap"}
            for kind, template in pods(resources):
                with self.subTest(path.name, kind=kind):
                    spec = template["spec"]
                    self.assertEqual({volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume}, names)
                    [container] = spec["containers"]
                    self.assertEqual(container["args"][1:3], ["--config", "/etc/auditlake/auditlake.toml"])
                    self.assertEqual(template["metadata"]["labels"]["app.kubernetes.io/part-of"], "auditlake")
                    accounts = {resource["metadata"]["name"] for resource in resources if resource["kind"] == "ServiceAccount"}
                    self.assertIn(spec["serviceAccountName"], accounts)

    def test_the_binary_takes_the_arguments(self):
        for resources in self.built.values():
            for _, template in pods(resources):
                auditlake(*template["spec"]["containers"][0]["args"], "--help")

    def test_an_overlay_leaves_nothing_of_the_base_that_is_of_an_example(self):
        for path, resources in self.built.items():
            if path.name == "base":
                continue
            text = yaml.safe_dump_all(resources)
            for of_the_base in ("111122223333", "eu-central-1", "image: auditlake\n", "audit-archive\n", "my-project"):
                self.assertNotIn(of_the_base, text.replace("example-audit-archive", ""), path)

    def test_the_guides_commands_leave_nothing_of_the_example(self):
        [copy] = [block for block in blocks(DOCS / "deployment.md", "sh") if "overlays/mine/auditlake.toml" in block]
        stand_ins = 'REGISTRY=a-registry AWS_REGION=a-region; output() { echo "the-$1"; }\n'
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copytree(KUBERNETES, pathlib.Path(scratch) / "deploy/kubernetes")
            run("bash", "-euc", stand_ins + copy, cwd=scratch)
            text = run(KUSTOMIZE, "kustomize", pathlib.Path(scratch) / "deploy/kubernetes/overlays/mine")
        for of_the_example in ("444455556666", "us-east-1", "example-audit-archive", "registry.example.com"):
            self.assertNotIn(of_the_example, text)
        for filled_in in ("a-registry/auditlake:", "the-ServiceAccountRoleArn", "the-VerifierServiceAccountRoleArn", "the-StreamArn", "the-BucketName"):
            self.assertIn(filled_in, text)

    def test_a_report_is_mounted_in_a_job_like_the_proofs(self):
        [helper] = [block for block in blocks(DOCS / "operations.md", "sh") if "with_report()" in block]
        [proof] = [resource for resource in self.built[KUBERNETES / "overlays/example"] if resource["kind"] == "CronJob"]
        stand_in = 'kubectl() { case "$*" in *" create job "*) cat proof;; *"create --filename -") cat >made;; esac; }\n'
        with tempfile.TemporaryDirectory() as scratch:
            # What `kubectl create job --from` makes of it.
            job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "against-1"}, "spec": proof["spec"]["jobTemplate"]["spec"]}
            (pathlib.Path(scratch) / "proof").write_text(json.dumps(job))
            run("bash", "-euc", stand_in + helper, cwd=scratch)
            made = json.loads((pathlib.Path(scratch) / "made").read_text())
        valid(made)
        spec = made["spec"]["template"]["spec"]
        [container] = spec["containers"]
        self.assertEqual(container["args"], ["verify", "--config", "/etc/auditlake/auditlake.toml", "--against", "/kept/kept.json"])
        auditlake(*container["args"], "--help")
        self.assertIn({"name": "kept", "configMap": {"name": "against-1"}}, spec["volumes"])
        self.assertIn("/kept", [mount["mountPath"] for mount in container["volumeMounts"]])
        self.assertEqual(spec["serviceAccountName"], "auditlake-verify")

    def test_what_selects_workers_selects_workers_only(self):
        for path, resources in self.built.items():
            labels = {kind: template["metadata"]["labels"] for kind, template in pods(resources)}
            for resource in resources:
                if resource["kind"] not in ("Service", "PodDisruptionBudget"):
                    continue
                selector = resource["spec"]["selector"]
                wanted = selector.get("matchLabels", selector).items()
                selected = {kind for kind, has in labels.items() if wanted <= has.items()}
                self.assertEqual(selected, {"Deployment"}, (path.name, resource["kind"]))

    def test_catch_up_comes_in_the_place_of_the_daemon(self):
        for resources in (self.built[KUBERNETES / "overlays/example-catch-up"], self.catch_up_on_gke()):
            kinds = {resource["kind"] for resource in resources}
            self.assertIn("Job", kinds)
            self.assertFalse({"Deployment", "Service", "PodDisruptionBudget"} & kinds)

    def test_on_gke_a_pod_has_googles_account_and_a_token_for_its_role_of_aws(self):
        resources = self.built[KUBERNETES / "overlays/example-gke"]
        self.assertEqual(annotations(resources), {
            "auditlake": {"iam.gke.io/gcp-service-account": "auditlake@example-project.iam.gserviceaccount.com"},
            "auditlake-verify": {}})
        self.assertEqual({kind: token_of_aws(template) for kind, template in pods(resources)}, {
            "Deployment": ("sts.amazonaws.com", "arn:aws:iam::444455556666:role/audit-worker"),
            "CronJob": ("sts.amazonaws.com", "arn:aws:iam::444455556666:role/audit-verifier")})
        for kind, template in pods(self.catch_up_on_gke()):
            self.assertEqual(token_of_aws(template), ("sts.amazonaws.com", "arn:aws:iam::111122223333:role/auditlake"), kind)
        [config] = [resource for resource in resources if resource["kind"] == "ConfigMap"]
        [text] = config["data"].values()
        self.assertEqual(tomllib.loads(text)["source"]["kind"], "pubsub")

    def test_on_gke_pods_reach_the_metadata_server_and_elsewhere_they_do_not(self):
        for path, resources in self.built.items():
            expected = {("169.254.169.254/32", 80), ("169.254.169.252/32", 988)} if path.name == "example-gke" else set()
            self.assertEqual(open_to(resources), expected, path.name)

    def test_elsewhere_nothing_is_of_gke(self):
        for path, resources in self.built.items():
            if path.name == "example-gke":
                continue
            self.assertEqual({token_of_aws(template) for _, template in pods(resources)}, {None}, path.name)
            for account, noted in annotations(resources).items():
                self.assertIn("eks.amazonaws.com/role-arn", noted, (path.name, account))

    def test_with_pod_identity_no_account_names_a_role_and_the_agent_is_reached(self):
        for other in ("verify", "catch-up"):
            resources = self.with_components(other, "pod-identity")
            found = annotations(resources)
            self.assertEqual([noted for noted in found.values() if noted], [], other)
            self.assertEqual(open_to(resources), {("169.254.170.23/32", 80)}, other)
            # The names that the stack binds by default.
            stack = template(DEPLOY / "cloudformation/auditlake.yaml")["Parameters"]
            account = stack["EksServiceAccount"]["Default"]
            self.assertEqual(set(found), {account, f"{account}-verify"} if other == "verify" else {account})

    def catch_up_on_gke(self):
        return self.with_components("catch-up", "gke")

    def with_components(self, *components):
        """The base with them, as an overlay of one's own would have it."""
        with tempfile.TemporaryDirectory() as scratch:
            place = pathlib.Path(scratch).resolve()
            base, *others = (os.path.relpath(KUBERNETES / name, place) for name in ("base", *(f"components/{name}" for name in components)))
            (place / "kustomization.yaml").write_text(yaml.safe_dump({
                "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": [base],
                "components": others}))
            resources = documents(run(KUSTOMIZE, "kustomize", place))
        for resource in resources:
            valid(resource)
        return resources


if __name__ == "__main__":
    unittest.main()
