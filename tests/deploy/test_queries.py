"""The queries of docs/querying.md: they run, and find what is in the examples, which is looked for here without SQL."""

import collections
import datetime
import ipaddress
import json
import pathlib
import re
import tempfile
import unittest

import duckdb
import sqlglot

from support import DOCS, auditlake

SINCE = "2026-11-01"
GRANTS = {"create", "invite", "update", "set", "add"}


def queries():
    """The SQL under each heading."""
    found = {}
    for section in re.split(r"^##+ ", (DOCS / "querying.md").read_text(), flags=re.MULTILINE)[1:]:
        heading = section.splitlines()[0]
        for sql in re.findall(r"^```sql\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
            assert heading not in found, f"two queries under {heading}"
            found[heading] = sql
    return found


def is_admin(value):
    """Whether a role or permission of an owner or administrator stands anywhere in it."""
    if isinstance(value, dict):
        return any(
            (key.lower().replace("_", "") in ("role", "accountrole", "permission") and isinstance(inner, str)
             and re.match("(role_|permission_)?(owner|admin)", inner.lower()))
            or is_admin(inner)
            for key, inner in value.items())
    return isinstance(value, list) and any(map(is_admin, value))


def network(address):
    address = ipaddress.ip_address(address)
    return ipaddress.ip_network(f"{address}/{48 if address.version == 6 else 24}", strict=False)


def archived(root, source=None):
    """An archive below `root`, open: of the examples, or of what is in `source`."""
    env = {"AUDITLAKE__STATE__EMBEDDED__PATH": f"{root}/state", "AUDITLAKE__ARCHIVE__LOCAL__PATH": f"{root}/archive"}
    if source:
        env["AUDITLAKE__SOURCE__FILE__PATH"] = str(source)
    auditlake("catch-up", "--config", "config/local.toml", env=env)
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    db.execute(auditlake("ddl", "duckdb", "--config", "config/local.toml", env=env))
    return db


def rows(db, sql):
    """Every value as text: Python's DuckDB needs another package for times with a zone."""
    result = db.sql(f"SELECT columns(*)::VARCHAR FROM ({sql})")
    return [dict(zip(result.columns, row)) for row in result.fetchall()]


class Queries(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.db = archived(pathlib.Path(scratch.name))
        cls.events = cls.rows("SELECT * FROM audit_events")
        for event in cls.events:
            for column in ("emit_time", "arrival_time"):
                event[column] = datetime.datetime.fromisoformat(event[column])
            event["version"] = int(event["version"])
        newest = collections.defaultdict(int)
        for event in cls.events:
            newest[event["log_id"]] = max(newest[event["log_id"]], event["version"])
        cls.latest = sorted(
            (event for event in cls.events if event["log_id"] is None or event["version"] == newest[event["log_id"]]),
            key=lambda event: (event["emit_time"], event["log_id"] or ""))
        cls.found = {heading: cls.rows(sql) for heading, sql in queries().items()}

    @classmethod
    def rows(cls, sql):
        return rows(cls.db, sql)

    def finds(self, heading, expected):
        expected = collections.Counter(event["log_id"] for event in expected)
        self.assertGreater(len(expected), 0, "the examples have nothing to find")
        self.assertEqual(collections.Counter(row["log_id"] for row in self.found[heading]), expected)

    def since(self, **wanted):
        return [event for event in self.latest
                if event["dt"] >= SINCE and all(event[column] in values for column, values in wanted.items())]

    def test_a_changed_sink(self):
        names = re.compile(r"(Create|Update|Delete)AccountAuditLogSink|UpdateAccount(API)?")
        self.finds("The sink was changed", [event for event in self.since() if names.fullmatch(event["operation"] or "")])

    def test_a_new_api_key(self):
        names = {"CreateAPIKey", "CreateApiKey", "CloudCreateAPIKey", "CreateServiceAccountAPIKey", "CreateServiceAccountApiKey"}
        self.finds("An API key was created", self.since(operation=names, outcome={"success"}))
        keys = [row["made_with_a_key"] == "true" for row in self.found["An API key was created"]]
        self.assertEqual(keys, sorted(keys, reverse=True))
        self.assertIn(True, keys)

    def test_a_raised_role(self):
        was, raised = {}, []
        for event in self.latest:
            details = json.loads(event["details"] or "{}")
            of_a_person = event["resource_category"] in ("user", "user_groups", "service_accounts")
            if event["outcome"] != "success" or event["action"] not in GRANTS or not of_a_person or "userId" not in details:
                continue
            target = details["userId"]
            if is_admin(details) and not was.get(target):
                raised.append(event)
            was[target] = is_admin(details)
        self.finds("A role was raised", raised)

    def test_a_deleted_namespace(self):
        self.finds("A namespace was deleted", self.since(operation={"DeleteNamespace", "DeleteNamespaceAPI"}))

    def test_a_login_from_a_new_network(self):
        first, seen, new = {}, set(), []
        for event in self.latest:
            if event["action"] != "login" or event["outcome"] != "success" or event["client_ip"] is None:
                continue
            who = event["principal_name"]
            key = (who, network(event["client_ip"]))
            if key not in seen and event["emit_time"] > first.setdefault(who, event["emit_time"]) + datetime.timedelta(days=7):
                new.append(event)
            seen.add(key)
        self.finds("A login from a new network", new)

    def test_networks_are_those_of_the_addresses(self):
        ipv6 = ["2001:db8::1", "2001:db8:0:1::5", "2001:db8:1::", "2001::5", "2001:0:0:1::", "::1", "::", "fe80::1:2:3",
                "2001:db8:7:8:9:a:b:c", "::2:3:4:5:6:7", "0:1:2:3:4:5:6::", "::ffff:0:0", "::ffff:192.0.2.1"]
        addresses = ipv6 + ["192.0.2.1", "192.0.20.1"]
        db = duckdb.connect()
        db.execute("CREATE TABLE audit_events_latest "
                   "(log_id VARCHAR, emit_time TIMESTAMP, principal_name VARCHAR, client_ip VARCHAR, action VARCHAR, outcome VARCHAR)")
        for who, address in enumerate(addresses):
            for day, used in ((1, "198.51.100.1"), (20, address)):
                db.execute("INSERT INTO audit_events_latest VALUES (?, ?, ?, ?, 'login', 'success')",
                           [f"{who}-{day}", datetime.datetime(2026, 11, day), f"{who}", used])
        found = {row["client_ip"]: row["network"] for row in rows(db, queries()["A login from a new network"])}
        self.assertEqual(set(found), set(addresses))
        for address in addresses:
            with self.subTest(address):
                start = network(address).network_address
                if start.version == 4:
                    self.assertEqual(found[address], str(start).rpartition(".")[0])
                else:
                    groups = start.exploded.split(":")[:3]
                    self.assertEqual(found[address], ":".join(f"{int(group, 16):x}" for group in groups))

    def test_many_refusals(self):
        tried = collections.defaultdict(list)
        for event in self.since(status={"PermissionDenied"}):
            tried[event["dt"], event["principal_name"]].append(event["operation_canonical"])
        expected = {key: str(len(tries)) for key, tries in tried.items() if len(set(tries)) >= 2}
        self.assertTrue(expected)
        found = {(row["dt"], row["principal_name"]): row["refusals"] for row in self.found["Many refusals"]}
        self.assertEqual(found, expected)

    def test_a_changed_record(self):
        # One that became a deletion, one that another person signed: see examples/make_audit.py.
        found = self.found["A record that changed"]
        self.assertEqual({row["operation"] for row in found} & {"DeleteNamespace"}, {"DeleteNamespace"})
        self.assertIn("mallory@example.com", {row["principal_name"] for row in found})
        self.assertEqual(len(found), 2)
        for row in found:
            for side in ("emit_time", "operation", "principal_name", "client_ip", "outcome", "details", "raw"):
                self.assertIn(side, row)
                self.assertIn(f"other_{side}", row)
            self.assertNotEqual(row["raw"], row["other_raw"], "what differs is seen")

    def test_a_changed_record_at_the_same_position_of_another_shard(self):
        with tempfile.TemporaryDirectory() as scratch:
            root = pathlib.Path(scratch)
            (root / "source").mkdir()
            for name in ("a", "b"):
                record = {"log_id": "1", "version": 1, "emit_time": "2026-11-02T10:00:00Z", "operation": "DeleteUser", "x": name}
                (root / "source" / f"{name}.ndjson").write_text(json.dumps(record | {"principal": {"name": name}}) + "\n")
            db = archived(root, root / "source")
            positions = [row["source_position"] for row in rows(db, "SELECT source_position FROM audit_events")]
            self.assertEqual((len(positions), len(set(positions))), (2, 1), positions)
            found = rows(db, queries()["A record that changed"])
            self.assertEqual([{row["principal_name"], row["other_principal_name"]} for row in found], [{"a", "b"}])

    def test_a_report_of_days(self):
        # Both records of a conflict are one event.
        events = {(event["dt"], event["log_id"] or index) for index, event in enumerate(self.since())}
        self.assertLess(len(events), len(self.since()), "the examples have a conflict")
        days = collections.Counter(day for day, _ in events)
        self.assertEqual({row["dt"]: int(row["events"]) for row in self.found["For reports"]}, dict(days))

    def test_the_runbooks_queries_find_something(self):
        found = re.findall(r"`(SELECT [^`]+)`", (DOCS / "alerts.md").read_text())
        self.assertEqual(len(found), 2)
        for sql in found:
            self.assertTrue(self.rows(sql), sql)
        texts = [row["text"] for row in self.rows(found[1])]
        self.assertTrue(any('"' in text for text in texts), texts)
        self.assertFalse(any("\\x22" in text for text in texts), texts)

    def test_each_is_tried_and_read_by_the_grammar_of_trino_and_athena(self):
        for heading, sql in queries().items():
            self.assertTrue(self.found[heading], heading)
            for dialect in ("trino", "athena"):
                with self.subTest(heading, dialect=dialect):
                    sqlglot.parse_one(sql, read=dialect, error_level=sqlglot.ErrorLevel.RAISE)


if __name__ == "__main__":
    unittest.main()
