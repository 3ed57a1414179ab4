"""What the documentation points to is there, and what it shows is what the tools take."""

import pathlib
import re
import shutil
import tempfile
import unittest

import yaml

from support import DEPLOY, DOCS, ROOT, load_json, promtool
from test_cloudformation import TEMPLATES, template


def pages():
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md")), *sorted(DEPLOY.rglob("*.md"))]


def anchors(path):
    """The headings' names, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


class Links(unittest.TestCase):
    def test_each_leads_somewhere(self):
        for page in pages():
            for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
                if "://" in target:
                    continue
                with self.subTest(page.name, target=target):
                    name, _, anchor = target.partition("#")
                    path = (page.parent / name).resolve() if name else page
                    self.assertTrue(path.exists())
                    if anchor:
                        self.assertIn(anchor, anchors(path))


class Deployment(unittest.TestCase):
    def test_the_scrapes_are_what_prometheus_takes(self):
        configurations = [text for text in blocks(DOCS / "deployment.md", "yaml") if "scrape_configs" in text]
        self.assertEqual(len(configurations), 2)
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copy(DEPLOY / "prometheus/alerts.yaml", scratch)
            file = pathlib.Path(scratch) / "prometheus.yaml"
            for configuration in configurations:
                file.write_text(configuration)
                promtool("check", "config", file)

    def test_prometheus_asks_for_the_name_that_the_stack_makes(self):
        [scrape] = [scrape for text in blocks(DOCS / "deployment.md", "yaml") if "dns_sd_configs" in text
                    for scrape in yaml.safe_load(text)["scrape_configs"]]
        [found] = scrape["dns_sd_configs"]
        stack = template(DEPLOY / "ecs/service-discovery.yaml")
        default = {name: parameter.get("Default") for name, parameter in stack["Parameters"].items()}
        self.assertEqual(found["names"], [f"{default['ServiceName']}.{default['Namespace']}"])
        [record] = stack["Resources"]["Workers"]["Properties"]["DnsConfig"]["DnsRecords"]
        self.assertEqual(found["type"], record["Type"])
        [container] = load_json(DEPLOY / "ecs/task-definition.json")["containerDefinitions"]
        self.assertEqual([found["port"]], [port["containerPort"] for port in container["portMappings"]])

    def test_every_block_of_yaml_is_yaml(self):
        for page in pages():
            for text in blocks(page, "yaml"):
                self.assertTrue(yaml.safe_load(text), page.name)

    def test_files_and_parameters_that_commands_name_exist(self):
        named = 0
        for page in pages():
            for command in re.sub(r"\\\n\s*", "", "".join(blocks(page, "sh"))).splitlines():
                for path in re.findall(r"file://(\S*?deploy/\S+)|--template-file (\S+)", command):
                    self.assertTrue((ROOT / "".join(path)).is_file(), command)
                    named += 1
                if "--template-file" in command:
                    parameters = template(ROOT / re.search(r"--template-file (\S+)", command)[1])["Parameters"]
                    given = set(re.findall(r"(\w+)=", command.split("--parameter-overrides")[1]))
                    self.assertLessEqual(given, set(parameters), command)
                    required = {name for name, parameter in parameters.items() if "Default" not in parameter}
                    self.assertLessEqual(required, given, command)
        self.assertGreater(named, 3)

    def test_every_parameter_that_is_explained_exists(self):
        text = (DOCS / "deployment.md").read_text()
        stack = template(DEPLOY / "cloudformation/auditlake.yaml")
        table = text.split("| parameter | decide |")[1].split("\n\n")[0]
        self.assertLessEqual(set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)), set(stack["Parameters"]))
        names = {name for path in TEMPLATES for part in ("Outputs", "Parameters") for name in template(path)[part]}
        for output in re.findall(r"`(\w+Arn)`", text):
            self.assertIn(output, names)


if __name__ == "__main__":
    unittest.main()
