"""The Grafana dashboard: every metric is shown, every expression is one that Prometheus reads, nothing lies over another."""

import pathlib
import re
import tempfile
import unittest

import yaml

from support import DEPLOY, load_json, promtool
from test_alerts import METRICS, SCRAPED, labels_in, metric_of, metrics_in

DASHBOARD = DEPLOY / "grafana" / "dashboard.json"


def panels():
    return [panel for panel in load_json(DASHBOARD)["panels"] if panel["type"] != "row"]


def expressions():
    """Each panel's expressions, with what Grafana puts in the place of its variables."""
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m").replace('"$job"', '".+"')
            yield panel["title"], expression, target["legendFormat"]


class Dashboard(unittest.TestCase):
    def test_every_expression_is_read_by_prometheus(self):
        rules = [{"record": f"panel:{number}", "expr": expression}
                 for number, (_, expression, _) in enumerate(expressions())]
        self.assertNotIn("$", str(rules))
        with tempfile.TemporaryDirectory() as scratch:
            file = pathlib.Path(scratch) / "rules.yaml"
            file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
            promtool("check", "rules", "--lint=none", file)

    def test_every_metric_is_shown_and_every_one_that_is_shown_exists(self):
        shown = {metric_of(series) for _, expression, _ in expressions() for series in metrics_in(expression)}
        self.assertEqual(shown, set(METRICS))

    def test_labels_exist_and_are_kept_for_the_legend(self):
        for title, expression, legend in expressions():
            known = SCRAPED.union(*(METRICS[metric_of(series)] for series in metrics_in(expression)))
            self.assertEqual(labels_in(expression) - known, set(), title)
            kept = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(",")}
            self.assertEqual(set(re.findall(r"{{(\w+)}}", legend)) - kept, set(), title)

    def test_every_panel_can_be_read(self):
        numbers, taken = set(), {}
        for panel in load_json(DASHBOARD)["panels"]:
            self.assertNotIn(panel["id"], numbers)
            numbers.add(panel["id"])
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24)
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    self.assertIsNone(taken.setdefault((x, y), None), panel["title"])
                    taken[x, y] = panel["title"]
        for panel in panels():
            self.assertTrue(panel["description"], panel["title"])
            self.assertEqual(panel["datasource"]["uid"], "${datasource}", panel["title"])
            self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], panel["title"])


if __name__ == "__main__":
    unittest.main()
