#!/usr/bin/env python3
"""Writes made-up audit logs, one record a line, and prints what must come of them, as JSON.

    python3 benches/data.py --records 1000000 --out audit.ndjson [--seed 7] [--malformed 0.001] [--days 30]

Every line is a function of the seed, its number and how many there are: the same bytes on every machine, by however many processes.

| of the lines | are |
|---|---|
| 5 % | copies of an earlier line, byte by byte: most within 2,000 lines, some anywhere before |
| 2 % | an earlier record under a higher version; an old one comes back in the shape of the transition, as a backfill brings it |
| 0.1 % (`--malformed`) | malformed, in each of the ways of MALFORMED |
| the rest | new records: 20 % in the old shape, 25 % of the transition, 45 % in the new one, 10 % as the web interface writes them |

The truth says how many records are to be archived, dropped as duplicates and rejected, by reason, how many stand under each day, and the
sum of the CRC-32 of "<log_id>:<version>" over all that have a log_id, so that whoever reads the archive can check it without sorting.
"""

import argparse
import base64
import collections
import datetime
import hashlib
import json
import multiprocessing
import os
import zlib

FIRST_DAY = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
DAYS = 30  # whose records a file brings
BLOCK = 10_000  # lines a process makes at once
COPIES, RESENT = 0.05, 0.02
MALFORMED_RATE = 0.001

NEW, COPY, AGAIN, MALFORMED = range(4)
SHAPES = ["old"] * 4 + ["transition"] * 5 + ["new"] * 9 + ["ui"] * 2

# Each way to be malformed, and the reason it is rejected for; None where nothing, and "archived" where a record comes of it.
MALFORMED_WAYS = {
    "truncated": "invalid_json",
    "text": "invalid_json",
    "not_utf8": "not_utf8",
    "not_an_object": "not_an_object",
    "not_an_audit_record": "not_an_audit_record",
    "bad_time": "emit_time_invalid",
    "bad_version": "version_invalid",
    "separator": None,
    "no_log_id": "archived",
}

OPERATIONS = (
    ["UserLogin"] * 8 + ["UpdateNamespace"] * 5 + ["CreateNamespace", "DeleteNamespace", "UpdateNamespaceAPI", "FailoverNamespace"]
    + ["UpdateUser", "InviteUsers", "DeleteUser", "SetUserNamespaceAccess", "UpdateUserNamespacePermissions"] * 2
    + ["CreateApiKey", "UpdateApiKey", "DeleteApiKey", "CreateAPIKey", "CreateServiceAccount", "UpdateServiceAccount", "UpdateAccount"]
    + ["CreateNexusEndpoint", "UpdateNexusEndpoint", "CreateNamespaceExportSink", "CreateConnectivityRule", "CreateUserGroup"]
)
NAMESPACES = ["%s-%d.a1b2c" % (("payments", "orders", "billing", "search", "fraud")[n % 5], n) for n in range(80)]
# With escapes and without ASCII: a reader that only borrows text must still be right.
TEXTS = ["rotated by on-call", 'said "temporary"', "two\nlines\tand a tab", "Zürich – phase 2", "東京 🚀", "C:\\keys", ""]
ATTRIBUTES = {"CustomerId": "KEYWORD", "OrderTotal": "DOUBLE", "Region": "KEYWORD", "Attempt": "INT", "Paid": "BOOL"}
WRITERS = [json.JSONEncoder(separators=(",", ":"), ensure_ascii=ascii_only).encode for ascii_only in (True, False)]


def text_of(name, number, length):
    """Hexadecimal digits that look like chance, always the same for a name and a number."""
    return hashlib.shake_128(b"%s %d" % (name, number)).hexdigest((length + 1) // 2)[:length]


def uuid_text(text):
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:32]}"


USERS = [(f"user{n}@example.com", uuid_text(text_of(b"user", n, 32))) for n in range(400)]
SERVICES = [(f"ci-deployer-{n}", text_of(b"service", n, 32)) for n in range(60)]
API_KEYS = [text_of(b"key", n, 32) for n in range(150)]
FINGERPRINTS = [text_of(b"fingerprint", n, 40) for n in range(200)]
# An account has few of them, so they repeat.
CERTIFICATES = [base64.b64encode(bytes.fromhex(text_of(b"certificate", n, 600 + 200 * (n % 5)))).decode() for n in range(64)]


class Dice:
    """Numbers out of some random bits, which are used up from the lowest on."""

    def __init__(self, bits):
        self.bits = int.from_bytes(bits, "little")

    def below(self, sides):
        self.bits, number = divmod(self.bits, sides)
        return number

    def of(self, things):
        return things[self.below(len(things))]

    def digits(self, count):
        return "%0*x" % (count, self.below(16**count))


def details(dice, operation):
    """The request, as `raw_details` holds it: from 2 bytes to about 2 kB."""
    namespace = dice.of(NAMESPACES)
    if operation == "UserLogin":
        return {"connection": dice.of(["google", "saml", "github"]), "mfa": True} if dice.below(2) else {}
    if operation in ("UpdateNamespace", "CreateNamespace", "UpdateNamespaceAPI"):
        spec = namespace_spec(dice, namespace)
        request = {"namespace": namespace, "spec": spec, "resource_version": dice.digits(16), "note": dice.of(TEXTS)}
        return request | {"async_operation_id": uuid_text(dice.digits(32))}
    if "Namespace" in operation and "User" not in operation or "Nexus" in operation or "Rule" in operation:
        target = {"namespace": namespace, "task_queue": "q-%d" % dice.below(40)}
        spec = {"name": "res-%d" % dice.below(300), "target": target, "description": dice.of(TEXTS)}
        return {"namespace": namespace, "spec": spec, "resource_version": dice.digits(16)}
    if "Key" in operation or "Account" in operation:
        spec = {"owner_id": dice.of(USERS)[1], "owner_type": "user", "display_name": "key-%d" % dice.below(500)}
        spec |= {"description": dice.of(TEXTS), "expiry_time": "2027-01-01T00:00:00Z", "disabled": False}
        return {"key_id": dice.of(API_KEYS), "spec": spec}
    first, count = dice.below(80), dice.below(16)
    namespaces = {NAMESPACES[(first + 7 * n) % 80]: {"permission": ("read", "write", "admin")[(first + n) % 3]} for n in range(count)}
    access = {"account_access": {"role": dice.of(["developer", "admin", "read", "owner"])}, "namespace_accesses": namespaces}
    return {"target_users": [dice.of(USERS)[0]], "spec": {"access": access}, "async_operation_id": uuid_text(dice.digits(32))}


def namespace_spec(dice, namespace):
    certificates = [
        {"fingerprint": dice.of(FINGERPRINTS), "not_after": f"2031-0{1 + n}-15T00:00:00Z", "issuer": f"CN=ca{n}.example.com"}
        for n in range(dice.below(4))
    ]
    authentication = {"enabled": bool(certificates), "certificate_infos": certificates}
    if dice.below(3) == 0:
        authentication["accepted_client_ca"] = dice.of(CERTIFICATES)
    return {
        "name": namespace,
        "regions": ["aws-us-east-1", "aws-us-west-2"][: 1 + dice.below(2)],
        "retention_days": dice.of([7, 14, 30, 90]),
        "mtls_auth": authentication,
        "custom_search_attributes": {name: ATTRIBUTES[name] for name in list(ATTRIBUTES)[: dice.below(6)]},
        "codec_server": None,
    }


def old_details(dice, operation, succeeded):
    """What the deprecated `details` held: less, and other things."""
    about = {"namespace": dice.of(NAMESPACES)} if "Namespace" in operation else {"target_users": [dice.of(USERS)[0]]}
    message = "finished unary call with code " + ("OK" if succeeded else "PermissionDenied")
    return about | {"search_attribute_update": {}, "additional_message": message}


class Event:
    """Something that happened, and how it is written in each shape."""

    def __init__(self, dice, shape, micros):
        self.dice, self.version = dice, 0
        self.time, self.micros = FIRST_DAY + datetime.timedelta(microseconds=micros), micros % 1_000_000
        self.operation = dice.of(OPERATIONS)
        self.succeeded = dice.below(25) != 0
        self.status = "OK" if self.succeeded else dice.of(["ERROR", "PermissionDenied"])
        nets = ("192.0.2", "198.51.100", "203.0.113")[: 1 + dice.below(8) // 6]
        self.addresses = ", ".join(f"{net}.{1 + dice.below(250)}" for net in nets)
        self.log_id = dice.digits(32)
        if shape in ("new", "ui"):
            self.log_id = uuid_text(self.log_id)
        elif dice.below(16) == 0:
            self.log_id = self.log_id[:1] + "m" + self.log_id[2:]  # the documentation shows one that is not hexadecimal
        self.operation_id = uuid_text(dice.digits(32)) if dice.below(3) == 0 else ""
        self.email, user_id = dice.of(USERS)
        self.principal = {"id": user_id, "type": "user", "name": self.email}
        if shape != "old" and self.operation != "UserLogin" and dice.below(10) < 3:
            name, service_id = dice.of(SERVICES)
            self.email = ""
            self.principal = {"id": service_id, "type": "service-account", "name": name, "api_key_id": dice.of(API_KEYS)}

    def emit_time(self):
        fraction = self.dice.of(["", f".{self.micros // 1000:03}", f".{self.micros:06}", f".{self.micros:06}500"])
        return f"{self.time:%Y-%m-%dT%H:%M:%S}{fraction}Z"

    def old(self):
        fields = {"emit_time": self.emit_time(), "level": "LOG_LEVEL_INFO" if self.succeeded else "LOG_LEVEL_ERROR"}
        fields |= {"caller_ip_address": self.addresses, "user_email": self.email, "operation": self.operation}
        fields |= {"details": old_details(self.dice, self.operation, self.succeeded), "status": self.status}
        fields |= {"category": "LOG_CATEGORY_ADMIN", "log_id": self.log_id}
        return fields | ({"request_id": self.operation_id} if self.operation_id else {})

    def transition(self):
        fields = self.old() | {"principal": self.principal, "raw_details": details(self.dice, self.operation)}
        fields["x_forwarded_for"] = self.addresses
        return fields | ({"version": self.version} if self.version else {})

    def new(self):
        fields = {"operation": self.operation, "principal": self.principal, "raw_details": details(self.dice, self.operation)}
        fields |= {"x_forwarded_for": self.addresses, "emit_time": self.emit_time(), "log_id": self.log_id}
        fields |= {"async_operation_id": self.operation_id} if self.operation_id else {}
        return fields | {"status": self.status, "version": self.version}

    def ui(self):
        time = {"seconds": int(self.time.timestamp()), "nanos": self.micros * 1000}
        if self.dice.below(2):
            time = {"$typeName": "google.protobuf.Timestamp"} | time
        principal = {"apiKeyId" if key == "api_key_id" else key: value for key, value in self.principal.items()}
        fields = {"operation": self.operation, "status": self.status, "version": self.version, "logId": self.log_id}
        fields |= {"xForwardedFor": self.addresses, "asyncOperationId": self.operation_id, "emitTime": time, "principal": principal}
        return fields | ({} if self.operation == "UserLogin" else {"rawDetails": details(self.dice, self.operation)})


class Data:
    """All lines of one data set, each made when it is asked for."""

    def __init__(self, lines, seed=7, malformed=MALFORMED_RATE, days=DAYS):
        self.lines, self.days = lines, days
        self.key = hashlib.sha256(b"%d" % seed).digest()
        below = malformed, malformed + COPIES, malformed + COPIES + RESENT
        self.kinds = [int(share * 2**32) for share in below]

    def _bits(self, purpose, number, size):
        return hashlib.blake2b(b"%d" % number, key=self.key, person=purpose, digest_size=size).digest()

    def kind(self, number):
        """What a line is."""
        if number == 0:
            return NEW
        chance = int.from_bytes(self._bits(b"kind", number, 4), "little")
        malformed, copy, again = self.kinds
        return MALFORMED if chance < malformed else COPY if chance < copy else AGAIN if chance < again else NEW

    def origin(self, number):
        """The line that first brought the record of a line that is not malformed, and what is added to its version."""
        kind = self.kind(number)
        if kind == NEW:
            return number, 0
        dice = Dice(self._bits(b"back", number, 16))
        reach = dice.of([2_000, 2_000, 2_000, 200_000, number])
        earlier = number - 1 - dice.below(min(reach, number))
        wanted = (NEW, AGAIN) if kind == COPY else (NEW,)
        while self.kind(earlier) not in wanted:
            earlier -= 1
        first, added = self.origin(earlier)
        return first, added + (1 + dice.below(3) if kind == AGAIN else 0)

    def record(self, number, added=0):
        """The record that line `number` brings first, with its version raised: its text, log_id, version and day."""
        dice = Dice(hashlib.shake_128(self.key + b"%d" % number).digest(160))
        shape = dice.of(SHAPES)
        # In the order of their times, but for two minutes; one of 64 is up to 36 hours late.
        late = dice.below(129_600_000_000 if dice.below(64) == 0 else 120_000_000)
        event = Event(dice, shape, max(0, number * self.days * 86_400_000_000 // self.lines - late))
        event.version = added + (2 if shape in ("new", "ui") and dice.below(3) else 0)
        fields = getattr(event, "transition" if shape == "old" and added else shape)()
        return dice.of(WRITERS)(fields), event.log_id, event.version, f"{event.time:%Y-%m-%d}"

    def malformed(self, number):
        """A malformed line: the way, its bytes, and the day it stands under if it is archived."""
        dice = Dice(self._bits(b"malformed", number, 16))
        way = dice.of(list(MALFORMED_WAYS))
        text, _, _, day = self.record(number)
        fields = json.loads(text)
        if way == "truncated":
            return way, text[: 20 + dice.below(len(text) - 21)].encode(), day
        if way == "text":
            return way, b"panic: runtime error: index out of range [%d]" % dice.below(100), day
        if way == "not_utf8":
            return way, text.encode().replace(b'"operation":"', b'"operation":"\xff\xc3', 1), day
        if way == "not_an_object":
            return way, dice.of([b'"ok"', b"null", b"42", b"true"]), day
        if way == "not_an_audit_record":
            return way, b'{"took_ms":%d}' % dice.below(1000), day
        if way == "separator":
            return way, b"**********", day
        if way == "bad_time":
            fields["emitTime" if "emitTime" in fields else "emit_time"] = "yesterday"
        elif way == "bad_version":
            fields["version"] = "two"
        else:
            del fields["logId" if "logId" in fields else "log_id"]
        return way, WRITERS[1](fields).encode(), day

    def block(self, first, end):
        """The bytes of some lines, their counts, and what comes once more: (line that brought it first, added, log_id, version, day)."""
        lines, counts, days, crc, again = [], collections.Counter(), collections.Counter(), 0, []
        for number in range(first, end):
            kind = self.kind(number)
            if kind == MALFORMED:
                way, line, day = self.malformed(number)
                lines.append(line)
                counts[way] += 1
                days[day] += MALFORMED_WAYS[way] == "archived"
                continue
            origin, added = self.origin(number)
            text, log_id, version, day = self.record(origin, added)
            lines.append(text.encode())
            if kind == NEW:
                counts["new"] += 1
                days[day] += 1
                crc += zlib.crc32(b"%s:%d" % (log_id.encode(), version))
            elif added:
                again.append((origin, added, log_id, version, day))
            else:
                counts["copies"] += 1
        return b"".join(line + b"\n" for line in lines), counts, days, crc, again


def _block(data, span):
    return data.block(*span)


class Truth:
    """What must come of the lines."""

    def __init__(self, data):
        self.data = data
        self.counts, self.days, self.crc, self.bytes = collections.Counter(), collections.Counter(), 0, 0
        self.versions = {}  # of records that came again: what had been added

    def add(self, size, counts, days, crc, again):
        self.bytes += size
        self.counts += counts
        self.days += days
        self.crc += crc
        for origin, added, log_id, version, day in again:
            known = self.versions.setdefault(origin, {0})
            if added in known:
                self.counts["copies"] += 1
                continue
            self.counts["newer" if added > max(known) else "older"] += 1
            known.add(added)
            self.days[day] += 1
            self.crc += zlib.crc32(b"%s:%d" % (log_id.encode(), version))

    def summary(self):
        counts = self.counts
        with_log_id = counts["new"] + counts["newer"] + counts["older"]
        reasons = collections.Counter()
        for way, reason in MALFORMED_WAYS.items():
            if reason not in (None, "archived"):
                reasons[reason] += counts[way]
        return {
            "lines": self.data.lines,
            "bytes": self.bytes,
            "archived": with_log_id + counts["no_log_id"],
            "newer_versions": counts["newer"],
            "older_versions": counts["older"],
            "duplicates": counts["copies"],
            "rejected": sum(reasons.values()),
            "rejected_by_reason": {reason: n for reason, n in sorted(reasons.items()) if n},
            "with_log_id": with_log_id,
            "crc32_sum": self.crc % 2**64,
            "days": dict(sorted(self.days.items())),
            "malformed": {way: counts[way] for way in MALFORMED_WAYS},
        }


def write(path, data, processes=None):
    """Writes a file, and gives its truth."""
    truth = Truth(data)
    spans = [(data, (first, min(first + BLOCK, data.lines))) for first in range(0, data.lines, BLOCK)]
    with open(path, "wb") as out, multiprocessing.Pool(processes or len(os.sched_getaffinity(0))) as pool:
        # A few at a time: a pool hands out all that it is given, and the file may be larger than the memory.
        for at in range(0, len(spans), 32):
            for block, *counts in pool.starmap(_block, spans[at : at + 32], chunksize=1):
                out.write(block)
                truth.add(len(block), *counts)
    return truth.summary()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, required=True, help="how many lines, of every kind together")
    parser.add_argument("--seed", type=int, default=7, help="another one, other lines (7)")
    parser.add_argument("--malformed", type=float, default=MALFORMED_RATE, help=f"the share of malformed lines ({MALFORMED_RATE})")
    parser.add_argument("--days", type=int, default=DAYS, help=f"how many days they are of ({DAYS})")
    parser.add_argument("--out", required=True, help="the file")
    options = parser.parse_args()
    data = Data(options.records, options.seed, options.malformed, options.days)
    print(json.dumps(write(options.out, data), indent=1))


if __name__ == "__main__":
    main()
