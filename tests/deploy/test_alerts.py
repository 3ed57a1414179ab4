"""The alert rules: Prometheus's own tool reads and tries them, every metric in them exists, every alert is explained."""

import re
import unittest

import yaml

from support import DEPLOY, DOCS, ROOT, auditlake, promtool

RULES = DEPLOY / "prometheus" / "alerts.yaml"
TRIED = DEPLOY / "prometheus" / "alerts.test.yaml"
EXPLAINED = DOCS / "alerts.md"

HISTOGRAM_ENDS = ("_bucket", "_count", "_sum")


def metrics():
    """The metrics and their labels, as the documentation has them, which is made of the program."""
    found = {}
    rows = re.findall(r"^\| `(auditlake_\w+)` \| (\w+) \|([^|]*)\|", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    assert rows, "docs/metrics.md has no table of metrics"
    for name, kind, labels in rows:
        found[name] = set(re.findall(r"`(\w+)`", labels)) | ({"le"} if kind == "histogram" else set())
    return found


METRICS = metrics()

# Given to every series by the scrape.
SCRAPED = {"job", "instance"}


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def metrics_in(expression):
    return set(re.findall(r"\bauditlake_\w+", expression))


def metric_of(series):
    if series in METRICS:
        return series
    for end in HISTOGRAM_ENDS:
        name = series.removesuffix(end)
        if name != series and "le" in METRICS.get(name, set()):
            return name
    raise AssertionError(f"there is no metric {series}")


def labels_in(expression):
    """Every label that an expression asks for: in selectors, `by`, `on`."""
    selected = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
    grouped = re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression)
    return set(selected) | {label.strip() for labels in grouped for label in labels.split(",") if label.strip()}


class Alerts(unittest.TestCase):
    def test_promtool_has_no_complaint(self):
        promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)

    def test_each_fires_where_it_has_to(self):
        promtool("test", "rules", TRIED)

    def test_each_is_tried_where_it_fires_and_where_it_does_not(self):
        fires, silent = set(), set()
        for case in yaml.safe_load(TRIED.read_text())["tests"]:
            for tried in case.get("alert_rule_test", []):
                (fires if tried["exp_alerts"] else silent).add(tried["alertname"])
        names = {rule["alert"] for rule in rules()}
        self.assertEqual(fires, names)
        # All at once are tried by the day in which none fires.
        self.assertEqual(names - silent, {"AuditlakeNoRecords"} & names)

    def test_each_asks_for_metrics_and_labels_that_there_are(self):
        for rule in rules():
            metrics = {metric_of(series) for series in metrics_in(rule["expr"])}
            self.assertTrue(metrics, rule["alert"])
            known = SCRAPED.union(*(METRICS[metric] for metric in metrics))
            self.assertEqual(labels_in(rule["expr"]) - known, set(), rule["alert"])

    def test_words_name_only_labels_that_the_alert_has(self):
        tried = {}
        for case in yaml.safe_load(TRIED.read_text())["tests"]:
            for test in case.get("alert_rule_test", []):
                for alert in test["exp_alerts"]:
                    tried[test["alertname"]] = set(alert["exp_labels"])
        for rule in rules():
            named = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
            self.assertEqual(named - tried[rule["alert"]], set(), rule["alert"])

    def test_each_has_a_severity_and_says_where_it_is_explained(self):
        text = EXPLAINED.read_text()
        sections = re.findall(r"^## (\w+)$", text, re.MULTILINE)
        self.assertEqual(sections, [rule["alert"] for rule in rules()], "docs/alerts.md has a section an alert, in order")
        base = re.search(r"`sed -i 's#(https://[^#]+)#", text)[1]
        for rule in rules():
            self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
            self.assertEqual(rule["annotations"]["runbook_url"], f"{base}/docs/alerts.md#{rule['alert'].lower()}")
            section = text.split(f"## {rule['alert']}\n")[1].split("\n## ")[0]
            parts = [section.find(f"**{part}** ") for part in ("Means", "First", "Do")]
            self.assertEqual([-1, *parts], sorted({-1, *parts}), f"{rule['alert']}: what it means, what comes first, what to do")

    def test_what_comes_first_can_be_typed(self):
        source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.rs"))
        parts = re.findall(r"^## (Auditlake\w+)$.*?^\*\*First\*\* (.*?)^\*\*Do\*\*", EXPLAINED.read_text(), re.MULTILINE | re.DOTALL)
        self.assertEqual(len(parts), len(rules()))
        for name, first in parts:
            with self.subTest(name):
                typed = re.findall(r"```sh\n(.*?)```|`([^`]+)`|(\[the query\])", first, re.DOTALL)
                self.assertTrue(typed, first)
                for command in map("".join, typed):
                    if subcommand := re.match(r"auditlake (\S+)", command):
                        auditlake(subcommand[1], "--help")
                    for said in re.findall(r"grep (?:-E )?'([^']+)'", command):
                        for words in said.split("|"):
                            self.assertTrue(words in source, f"nothing says {words!r}")
                    for metric in metrics_in(command):
                        metric_of(metric)


if __name__ == "__main__":
    unittest.main()
