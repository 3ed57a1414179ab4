#!/usr/bin/env python3
"""Writes the example audit logs and the counts that a correct reader must come to.

    python3 examples/make_audit.py [DIRECTORY]      (default: the directory of this script)

makes DIRECTORY/audit/ and DIRECTORY/expected.json, the same bytes on every machine. Standard library only.

Everything is invented: example.com, the address ranges kept for documentation, random identifiers. No record is of a
real account.

An Event is something that happened; `shape_a` to `shape_g` write it down in each of the shapes in which Temporal Cloud
has delivered such things over the years. A LogFile takes lines in order and counts, for each, the verdict that it must
get. Files may be read in any order, or side by side, and the counts stay the same: what depends on an order (versions
of one log_id, conflicts) stands within one file. What crosses files is copies only, and `check_order` proves it.
"""

import copy
import datetime
import hashlib
import json
import pathlib
import random
import shutil
import struct
import sys
import zlib

SEED = 20261121
UTC = datetime.timezone.utc

PEOPLE = [
    ("u-1001", "alice@example.com"), ("u-1002", "bob@example.com"), ("u-1003", "chiara.rossi@example.com"),
    ("u-1004", "deniz@example.com"), ("u-1005", "emre.yildiz@example.com"), ("u-1006", "fatima@example.com"),
    ("u-1007", "grace@example.com"), ("u-1008", "jürgen@example.com"), ("u-1009", "kenji.tanaka@example.com"),
]
SERVICES = [("sa-1", "ci-deployer", "key-77"), ("sa-2", "terraform", "key-78"), ("sa-3", "metrics-reader", "key-91")]
NAMESPACES = ["payments.a1b2c", "orders.a1b2c", "billing.a1b2c", "search.a1b2c", "fraud-dev.a1b2c", "ml-stage.a1b2c"]
REGIONS = ["aws-us-east-1", "aws-eu-central-1", "gcp-us-central1"]
TEXTS = ["rotated by on-call", 'said "temporary"', "Zürich rollout – phase 2", "東京 🚀", "two\nlines", ""]
OPERATIONS = (
    ["UserLogin"] * 9 + ["UpdateNamespace"] * 6 + ["CreateAPIKey", "CreateApiKey", "DeleteApiKey", "UpdateApiKey"]
    + ["CreateNamespace", "DeleteNamespace", "AddNamespaceRegion", "FailoverNamespace", "UpdateNamespaceTags"]
    + ["InviteUsers", "UpdateUser", "DeleteUser", "SetUserNamespaceAccess", "UpdateUserNamespacePermissions"] * 2
    + ["CreateServiceAccount", "UpdateServiceAccount", "UpdateAccount", "ChangeAccountPlanType"]
    + ["CreateNexusEndpoint", "UpdateNexusEndpoint", "DeleteNexusEndpoint", "CreateConnectivityRule"]
    + ["CreateNamespaceExportSink", "ValidateNamespaceExportSink", "CreateUserGroup", "AddUserGroupMember"]
    + ["CreateProject", "CreateCustomRole", "CreateAccountAuditLogSink", "RenameCustomSearchAttribute"]
)
FAILURES = ["PermissionDenied", "NotFound", "InvalidArgument", "AlreadyExists"]


class Dice:
    """Random choices out of `random.random()` alone, whose sequence Python keeps for a seed."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def below(self, n):
        return int(self.random() * n)

    def pick(self, items):
        return items[self.below(len(items))]

    def once_in(self, n):
        return self.below(n) == 0

    def text(self, length, alphabet="0123456789abcdef"):
        return "".join(self.pick(alphabet) for _ in range(length))

    def uuid(self):
        digits = self.text(32)
        return "-".join((digits[:8], digits[8:12], "4" + digits[13:16], "8" + digits[17:20], digits[20:]))


class Event:
    """What happened, apart from how it is written down."""

    def __init__(self, dice, when):
        self.seconds = int(when.timestamp())
        self.nanos = dice.below(1_000_000_000)
        self.operation = dice.pick(OPERATIONS)
        self.status = dice.pick(FAILURES) if dice.once_in(12) else "OK"
        self.log_id = dice.uuid()
        self.old_log_id = "0m" + dice.text(30, "0123456789abcdefghijklmnopqrstuvwxyz")
        self.version = 2
        self.service = dice.pick(SERVICES) if self.operation != "UserLogin" and dice.once_in(4) else None
        self.person = dice.pick(PEOPLE)
        self.key = f"key-{dice.below(60)}" if self.service is None and dice.once_in(6) else ""
        self.addresses = addresses(dice)
        self.async_id = dice.uuid() if dice.once_in(3) else ""
        self.namespace = dice.pick(NAMESPACES)
        self.old_details = old_details(dice, self)
        self.raw_details = raw_details(dice, self)

    def stamp(self, digits=9):
        """RFC 3339, with that many digits of a second."""
        moment = datetime.datetime.fromtimestamp(self.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        fraction = f".{self.nanos:09d}"[: 1 + digits] if digits else ""
        return f"{moment}{fraction}Z"

    def principal(self, api_key="api_key_id", empty=False):
        if self.service:
            ident, name, key = self.service
            who = {"id": ident, "type": "service-account", "name": name, api_key: key}
        else:
            who = {"id": self.person[0], "type": "user", "name": self.person[1], api_key: self.key}
        return {name: value for name, value in who.items() if value or empty}

    def later_version(self, version):
        """The same event, sent again under another version."""
        other = copy.deepcopy(self)
        other.version = version
        return other


def addresses(dice):
    net = dice.pick(["192.0.2", "198.51.100", "203.0.113"])
    first = f"{net}.{1 + dice.below(254)}"
    kind = dice.below(10)
    if kind == 0:
        return f"2001:db8::{dice.text(4)}"
    if kind == 1:
        return f"{first}, 198.51.100.{1 + dice.below(254)}"
    return first


def old_details(dice, event):
    details = {"search_attribute_update": {}, "additional_message": f"finished unary call with code {event.status}"}
    if "Namespace" in event.operation:
        details["namespace"] = event.namespace
    elif "User" in event.operation and event.operation != "UserLogin":
        details["target_users"] = [dice.pick(PEOPLE)[0]]
    return details


def raw_details(dice, event):
    """None where the record has none."""
    if event.operation == "UserLogin":
        return {} if dice.once_in(4) else None
    if "Namespace" in event.operation:
        spec = {"regions": [dice.pick(REGIONS)], "retentionDays": dice.pick([3, 7, 30, 90])}
        if dice.once_in(3):
            spec["customSearchAttributes"] = {"CustomerId": "Keyword", "OrderTotal": "Double"}
        details = {"namespace": event.namespace, "resourceVersion": dice.text(8), "spec": spec}
    elif "Key" in event.operation:
        spec = {"ownerId": event.person[0], "ownerType": "user", "description": dice.pick(TEXTS), "disabled": False}
        details = {"keyId": f"key-{dice.below(60)}", "spec": spec}
    elif "User" in event.operation:
        access = {name: {"permission": dice.pick(["read", "write", "admin"])} for name in NAMESPACES[: dice.below(4)]}
        details = {"userId": dice.pick(PEOPLE)[0], "spec": {"accountRole": "developer", "namespaceAccesses": access}}
    else:
        details = {"id": dice.text(12), "spec": {"name": f"res-{dice.below(50)}", "description": dice.pick(TEXTS)}}
    return details


# ---- the shapes

def level(event):
    return "LOG_LEVEL_INFO" if event.status == "OK" else "LOG_LEVEL_ERROR"


def shape_a(event):
    """2023: no log_id, no version, no principal."""
    return {
        "emit_time": event.stamp(0), "level": level(event), "user_email": event.person[1],
        "operation": event.operation, "details": event.old_details, "status": event.status,
        "category": "LOG_CATEGORY_ADMIN",
    }


def shape_b(event):
    """2024 to 2025: with log_id and principal; mostly without version."""
    record = shape_a(event)
    record.update(log_id=event.old_log_id, principal=event.principal(), caller_ip_address=event.addresses)
    if event.service:
        del record["user_email"]
    if event.async_id:
        record["request_id"] = event.async_id
    if event.version != 2:
        record["version"] = event.version
    return record


def shape_c(event):
    """The transition: old and new fields side by side."""
    record = shape_b(event)
    record.update(log_id=event.log_id, version=event.version, x_forwarded_for=event.addresses.replace(", ", ","))
    if event.raw_details is not None:
        record["raw_details"] = event.raw_details
    if event.async_id:
        record["async_operation_id"] = event.async_id
    return record


def shape_d(event):
    """2026: the deprecated fields are gone."""
    record = {"operation": event.operation, "principal": event.principal()}
    if event.raw_details is not None:
        record["raw_details"] = event.raw_details
    record.update(x_forwarded_for=event.addresses, emit_time=event.stamp(), log_id=event.log_id)
    if event.async_id:
        record["async_operation_id"] = event.async_id
    record.update(status=event.status, version=event.version)
    return record


def shape_e(event):
    """The download of the web interface: camelCase, the time in parts, "" for what is absent."""
    when = {"seconds": event.seconds, "nanos": event.nanos}
    if event.nanos % 2:
        when = {"$typeName": "google.protobuf.Timestamp", **when}
    record = {
        "operation": event.operation, "status": event.status, "version": event.version, "logId": event.log_id,
        "xForwardedFor": event.addresses, "asyncOperationId": event.async_id, "emitTime": when,
        "principal": event.principal("apiKeyId", empty=True),
    }
    if event.raw_details is not None:
        record["rawDetails"] = event.raw_details
    return record


def shape_f(event):
    """A page of the API: camelCase, the time as text."""
    return {**shape_e(event), "emitTime": event.stamp()}


def shape_g(event):
    """What other loaders leave behind: seconds as text, details as a protobuf Struct in message form."""
    record = {**shape_d(event), "emit_time": {"seconds": str(event.seconds), "nanos": event.nanos}}
    if event.raw_details is not None:
        record["raw_details"] = struct_message(event.raw_details)
    return record


def struct_message(fields):
    return {"fields": {name: value_message(value) for name, value in fields.items()}}


def value_message(value):
    if value is None:
        return {"nullValue": "NULL_VALUE"}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, (int, float)):
        return {"numberValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, list):
        return {"listValue": {"values": [value_message(item) for item in value]}}
    return {"structValue": struct_message(value)}


def text_of(record):
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


# ---- the files, and what must come of them

class Ledger:
    """What a correct reader must come to over all files."""

    def __init__(self):
        self.files = 0
        self.counts = dict.fromkeys(
            ["records", "archived", "duplicates", "conflicts", "newer_versions", "older_versions", "rejected"], 0)
        self.reasons = {}
        self.rows = []  # of the archive: (log_id or None, version, date)
        self.homes = {}  # log_id -> the files that it stands in
        self.ordered = set()  # log_ids whose verdicts depend on an order

    def count(self, *names):
        for name in ("records", *names):
            self.counts[name] += 1

    def check_order(self):
        for log_id in self.ordered:
            assert len(self.homes[log_id]) == 1, f"{log_id} has versions or conflicts in more than one file"

    def summary(self):
        versions, dates = {}, {}
        for log_id, version, date in self.rows:
            versions[log_id] = max(version, versions.get(log_id, version))
            dates[date] = dates.get(date, 0) + 1
        latest = [log_id is None or version == versions[log_id] for log_id, version, _ in self.rows]
        assert self.counts["records"] == sum(self.counts[name] for name in ("archived", "duplicates", "rejected"))
        assert self.counts["archived"] == len(self.rows)
        return {
            "shards": self.files,
            **self.counts,
            "rejected_by_reason": dict(sorted(self.reasons.items())),
            "rows_of_latest_versions": sum(latest),
            "rows_by_date": dict(sorted(dates.items())),
        }


class LogFile:
    """Lines in order, and the verdict that each must get."""

    def __init__(self, ledger, name):
        self.ledger, self.name = ledger, name
        self.texts = []  # bytes of each value or stretch
        self.plain = []  # (event, text) of records of which there is one version only
        ledger.files += 1

    def _archive(self, event, text, log_id, version, *counts):
        self.ledger.count("archived", *counts)
        date = datetime.datetime.fromtimestamp(event.seconds, UTC).strftime("%Y-%m-%d")
        self.ledger.rows.append((log_id, version, date))
        self.texts.append(text.encode())
        self._mark(log_id)

    def _mark(self, log_id):
        if log_id is not None:
            self.ledger.homes.setdefault(log_id, set()).add(self.name)

    def new(self, event, shape):
        record = shape(event)
        self.new_text(event, text_of(record), *identity(record))

    def new_text(self, event, text, log_id, version):
        self._archive(event, text, log_id, version)
        self.plain.append((event, text))

    def copy(self, text):
        """A record that stands somewhere already, in these words or in others."""
        self.ledger.count("duplicates")
        self.texts.append(text.encode())
        self._mark(identity(json.loads(text))[0])

    def version(self, event, version, shape, verdict):
        """Another version of an event of this file; `verdict` is `newer_versions` or `older_versions`."""
        text = text_of(shape(event.later_version(version)))
        log_id = identity(json.loads(text))[0]
        self._archive(event, text, log_id, version, verdict)
        self.ledger.ordered.add(log_id)
        self.plain = [(other, words) for other, words in self.plain if other is not event]

    def conflict(self, event, shape, **changed):
        """The same log_id and version, but another event."""
        other = copy.deepcopy(event)
        vars(other).update(changed)
        record = shape(other)
        log_id, version = identity(record)
        self._archive(other, text_of(record), log_id, version, "conflicts")
        self.ledger.ordered.add(log_id)
        self.plain = [(one, words) for one, words in self.plain if one is not event]
        return text_of(record)

    def reject(self, raw, reason):
        self.ledger.count("rejected")
        self.ledger.reasons[reason] = self.ledger.reasons.get(reason, 0) + 1
        self.texts.append(raw if isinstance(raw, bytes) else raw.encode())

    def decoration(self, raw):
        """Bytes that are no record and no fault: blank lines, separators."""
        self.texts.append(raw)

    def lines(self, end=b"\n"):
        return b"".join(text + end for text in self.texts)


def identity(record):
    log_id = record.get("log_id") or record.get("logId")
    return log_id, int(record.get("version") or 0)


def timeline(dice, first, hours, count):
    """That many events, in order of time."""
    start = datetime.datetime.fromisoformat(first).replace(tzinfo=UTC)
    moments = sorted(dice.below(hours * 3600) for _ in range(count))
    return [Event(dice, start + datetime.timedelta(seconds=moment)) for moment in moments]


def documented(ledger, dice):
    """2023, as the documentation prints them: a line of asterisks between records."""
    file = LogFile(ledger, "2023-10-documented.ndjson")
    for number, event in enumerate(timeline(dice, "2023-10-24", 48, 60)):
        file.new(event, shape_a)
        file.decoration(b"**********")
        if number % 20 == 10:
            file.copy(file.plain[-7][1])  # no log_id: known by its content
            file.decoration(b"**********")
    return file.name, file.lines()


def old_stream(ledger, dice):
    """2025, from Windows: a byte order mark, CRLF, blank lines."""
    file = LogFile(ledger, "2025-06-stream.ndjson")
    for number, event in enumerate(timeline(dice, "2025-06-14", 72, 220)):
        file.new(event, shape_b)
        if number % 40 == 20:
            file.copy(file.plain[-9][1])
        if number % 50 == 30:
            file.decoration(b"")
        if number in (60, 160):  # a backfill brings an old record again in newer clothes
            old, _ = file.plain[-5]
            old.log_id = old.old_log_id
            file.version(old, 3, shape_c, "newer_versions")
        if number == 100:
            file.reject(text_of(shape_b(event))[:150], "invalid_json")
        if number == 140:
            file.reject('time="2025-06-15T10:11:12Z" level=info msg="exporter restarted"', "invalid_json")
    return file.name, b"\xef\xbb\xbf" + file.lines(b"\r\n")


def stream(ledger, dice, date, name, count, earlier, shape):
    """A day of the stream with all that happens to streams. `earlier` are records of files before."""
    file = LogFile(ledger, name)
    for number, event in enumerate(timeline(dice, date, 24, count)):
        file.new(event, shape(number))
        step = number % 60
        if step in (15, 35):
            file.copy(file.plain[-1 - dice.below(10)][1])
        if step == 20 and earlier:
            file.copy(dice.pick(earlier)[1])
        if step == 25:
            file.version(file.plain[-4][0], 3, shape_d, "newer_versions")
        if step == 45:
            file.version(file.plain[-4][0], 1, shape_d, "older_versions")
        if step == 50:  # two more versions, the greater one first
            again = file.plain[-6][0]
            file.version(again, 5, shape_d, "newer_versions")
            file.version(again, 4, shape_d, "older_versions")
        if number == count // 2:
            file.reject(text_of(shape_d(event))[:-40], "invalid_json")
    return file


def first_day(ledger, dice):
    """Old and new fields side by side, one conflict, and every kind of bad line."""
    file = stream(ledger, dice, "2026-11-02", "stream-2026-11-02.ndjson", 300, [], lambda _: shape_c)
    event, text = file.plain[40]
    changed = file.conflict(event, shape_c, operation="DeleteNamespace")
    file.copy(text)  # a third copy, equal to the first of the two
    file.copy(changed)  # a fourth, equal to the second
    good = file.plain[50][0]
    file.reject("panic: runtime error: index out of range", "invalid_json")
    file.reject("42", "not_an_object")
    file.reject('"audit"', "not_an_object")
    file.reject('{"hello":"world"}', "not_an_audit_record")
    file.reject(text_of({**shape_d(good), "emit_time": 1793577600}), "emit_time_invalid")
    file.reject(text_of({**shape_d(good), "emit_time": "yesterday"}), "emit_time_invalid")
    file.reject(text_of({**shape_d(good), "version": "two"}), "version_invalid")
    broken = text_of(shape_d(good)).encode().replace(b'"operation":"', b'"operation":"\xff\xfe')
    file.reject(broken, "not_utf8")
    return file


def second_day(ledger, dice, earlier):
    """The new shape, a conflict, two records on one line, and whatever is strange but no fault."""
    file = stream(ledger, dice, "2026-11-03", "stream-2026-11-03.ndjson", 300, earlier,
                  lambda number: shape_d if number % 3 else shape_c)
    event, _ = file.plain[70]
    file.conflict(event, shape_d, person=("u-6666", "mallory@example.com"), service=None)
    for event, change in zip(timeline(dice, "2026-11-03", 24, 12), STRANGE):
        record = {**shape_d(event), **change}
        record = {name: value for name, value in record.items() if value is not REMOVED}
        file.new_text(event, text_of(record), event.log_id, identity(record)[1])
    twice, other, third = timeline(dice, "2026-11-03T12:00:00", 2, 3)
    text = text_of(shape_d(twice)).replace('"status":', '"status":"Unknown","status":')
    file.new_text(twice, text, *identity(shape_d(twice)))
    file.new(other, shape_d)
    file.new(third, shape_d)
    file.texts[-2:] = [file.texts[-2] + file.texts[-1]]  # not even a line break between them
    return file


REMOVED = object()
STRANGE = [
    {"version": "2"},
    {"version": 2.0},
    {"version": REMOVED},
    {"operation": "RotateEncryptionKey", "principal": {"type": "system", "name": "temporal"}},
    {"operation": "UpdateNamespaceAPI", "raw_details": '{"namespace":"orders.a1b2c","spec":{"retentionDays":30}}'},
    {"raw_details": "not JSON, but text"},
    {"tenant_hint": {"x": 1}, "severity": None},
    {"x_forwarded_for": "203.0.113.9, unknown"},
    {"x_forwarded_for": "[2001:db8::7]:443"},
    {"status": 5},
    {"logId": "another-id", "principal": {"type": "SERVICE_ACCOUNT", "id": "sa-1", "name": "ci-deployer"}},
    {"status": REMOVED, "level": "LOG_LEVEL_ERROR", "principal": REMOVED, "user_email": "bob@example.com"},
]


def download(ledger, dice, earlier):
    """A download of the web interface: what the stream had on that day, and more. One element is bad."""
    file = LogFile(ledger, "ui-download-2026-11-06.json")
    for event, _ in earlier:
        file.copy(text_of(shape_e(event)))
    for number, event in enumerate(timeline(dice, "2026-11-06T18:00:00", 5, 70)):
        file.new(event, shape_e)
        if number == 30:
            file.reject('{"bad":true}', "not_an_audit_record")
    return file.name, json.dumps([json.loads(text) for text in file.texts], ensure_ascii=False, indent=2).encode() + b"\n"


def page(ledger, dice):
    """A page of the API; no line break at its end, one element that is no object."""
    file = LogFile(ledger, "api-page-2026-11-07.json")
    for number, event in enumerate(timeline(dice, "2026-11-07", 24, 150)):
        file.new(event, shape_f)
        if number == 75:
            file.reject('"end of part one"', "not_an_object")
    return file.name, b'{"logs":[' + b",".join(file.texts) + b'],"nextPageToken":""}'


def loader(ledger, dice):
    """In a directory of its own: what another loader left behind."""
    file = LogFile(ledger, "backfill/loader-2026-11-01.ndjson")
    for number, event in enumerate(timeline(dice, "2026-11-01", 24, 120)):
        file.new(event, shape_g)
        if number % 30 == 12:
            file.copy(file.plain[-3][1])
    return file.name, file.lines()


# ---- compression, without any: the frames of the formats around bytes as they are, the same on every machine

def gzip_stored(data):
    """RFC 1952 with stored blocks (RFC 1951, 3.2.4), no name, no time."""
    out = [b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"]
    for start in range(0, len(data), 0xFFFF):
        block = data[start : start + 0xFFFF]
        last = start + len(block) == len(data)
        out.append(struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block)
    return b"".join(out) + struct.pack("<II", zlib.crc32(data), len(data))


def zstd_raw(data):
    """RFC 8878: a single-segment frame with its content's size, of raw blocks, without a checksum."""
    out = [b"\x28\xb5\x2f\xfd", b"\xa0", struct.pack("<I", len(data))]
    for start in range(0, len(data), 1 << 16):
        block = data[start : start + (1 << 16)]
        last = start + len(block) == len(data)
        out.append(struct.pack("<I", last | len(block) << 3)[:3] + block)
    return b"".join(out)


def main():
    target = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    ledger = Ledger()

    def dice(name):  # one for each file, so that a change of one leaves the others as they are
        return Dice(int.from_bytes(hashlib.sha256(f"{SEED} {name}".encode()).digest()[:8], "big"))

    second = first_day(ledger, dice("2026-11-02"))
    third = second_day(ledger, dice("2026-11-03"), second.plain[:200])
    fourth = stream(ledger, dice("2026-11-04"), "2026-11-04", "stream-2026-11-04.ndjson.gz", 360, third.plain[:200],
                    lambda _: shape_d)
    fifth = stream(ledger, dice("2026-11-05"), "2026-11-05", "stream-2026-11-05.ndjson.zst", 300, fourth.plain,
                   lambda _: shape_d)
    sixth = stream(ledger, dice("2026-11-06"), "2026-11-06", "stream-2026-11-06.ndjson", 240, fifth.plain,
                   lambda _: shape_d)
    files = [
        documented(ledger, dice("2023")),
        old_stream(ledger, dice("2025")),
        loader(ledger, dice("loader")),
        (second.name, second.lines()),
        (third.name, third.lines()),
        (fourth.name, gzip_stored(fourth.lines())),
        (fifth.name, zstd_raw(fifth.lines())),
        (sixth.name, sixth.lines()),
        download(ledger, dice("download"), sixth.plain[60:110]),
        page(ledger, dice("page")),
    ]
    ledger.check_order()

    shutil.rmtree(target / "audit", ignore_errors=True)
    for name, data in files:
        path = target / "audit" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (target / "expected.json").write_text(json.dumps(ledger.summary(), indent=2) + "\n")


if __name__ == "__main__":
    main()
