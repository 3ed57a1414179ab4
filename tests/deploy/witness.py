"""Stands between the binary and the emulator, passes on what the bucket's policy lets pass, and keeps what was called: as IAM
would see it."""

import http.client
import http.server
import json
import re
import threading
import urllib.parse

# S3 has no name for what is called but method, path and query.
S3 = [
    ("GET", r"/[^/]+/?", {"list-type"}, "ListBucket"),
    ("GET", r"/[^/]+/?", {"versions"}, "ListBucketVersions"),
    ("GET", r"/[^/]+/.+", {"versionId"}, "GetObjectVersion"),
    ("GET", r"/.+", set(), "GetObject"),
    ("HEAD", r"/.+", set(), "GetObject"),
    ("PUT", r"/.+", {"partNumber"}, "PutObject"),
    ("PUT", r"/.+", set(), "PutObject"),
    ("POST", r"/.+", {"uploads"}, "PutObject"),
    ("POST", r"/.+", {"uploadId"}, "PutObject"),
    ("DELETE", r"/.+", {"uploadId"}, "AbortMultipartUpload"),
    ("DELETE", r"/.+", {"versionId"}, "DeleteObjectVersion"),
    ("DELETE", r"/.+", set(), "DeleteObject"),
]
# What a DynamoDB call needs that does not go by its own name.
STATEMENTS = {"INSERT": "PartiQLInsert", "UPDATE": "PartiQLUpdate", "SELECT": "PartiQLSelect", "DELETE": "PartiQLDelete"}


def actions_of(method, target, headers, body):
    """The actions that IAM would ask for, each with the table or the key that it is for."""
    named = headers.get("x-amz-target")
    if named is None:
        url = urllib.parse.urlsplit(target)
        query = set(urllib.parse.parse_qs(url.query, keep_blank_values=True))
        for wanted, path, keys, action in S3:
            if method == wanted and re.fullmatch(path, url.path) and keys <= query:
                return {(f"s3:{action}", urllib.parse.unquote(url.path))}
        raise AssertionError(f"an unknown call of S3: {method} {target}")
    service, operation = named.split("_")[0].lower(), named.split(".")[-1]
    asked = json.loads(body or "{}")
    if operation == "BatchExecuteStatement":
        statements = [statement["Statement"] for statement in asked["Statements"]]
        return {(f"dynamodb:{STATEMENTS[text.split()[0]]}", re.search('"([^"]+)"', text)[1]) for text in statements}
    if operation == "BatchGetItem":
        return {("dynamodb:BatchGetItem", table) for table in asked["RequestItems"]}
    return {(f"{service}:{operation}", asked.get("TableName") or asked.get("StreamARN") or asked.get("StreamName"))}


REFUSAL = b"<Error><Code>AccessDenied</Code><Message>with an explicit deny in a resource-based policy</Message></Error>"


def is_refused(method, target, headers):
    """Whether the stack's bucket policy refuses it, which the emulator does not look at: an object made without If-None-Match."""
    if "x-amz-target" in headers or "if-none-match" in headers:
        return False
    url = urllib.parse.urlsplit(target)
    query = urllib.parse.parse_qs(url.query, keep_blank_values=True)
    creates = (method == "PUT" and "partNumber" not in query) or (method == "POST" and "uploadId" in query)
    return creates and re.fullmatch(r"/[^/]+/.+", url.path) is not None


class Witness:
    """A server at `url`; `taken()` gives what was called since the last time it was asked."""

    def __init__(self, emulator):
        self.called, self.failures, self.lock = set(), [], threading.Lock()
        upstream, witness = urllib.parse.urlsplit(emulator).netloc, self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                witness.note(self.command, self.path, headers, body)
                if is_refused(self.command, self.path, headers):
                    self.send_response(403)
                    self.send_header("content-length", str(len(REFUSAL)))
                    self.end_headers()
                    self.wfile.write(REFUSAL)
                    return
                connection = http.client.HTTPConnection(upstream, timeout=30)
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    # An answer to HEAD has the length of what it does not hold.
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                self.send_header("content-length", answer.headers.get("content-length") or str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                connection.close()

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def note(self, *call):
        with self.lock:
            try:
                self.called |= actions_of(*call)
            except Exception as failure:  # told by `taken`: here it would only break a connection
                self.failures.append(failure)

    def taken(self):
        with self.lock:
            if self.failures:
                raise self.failures[0]
            called, self.called = self.called, set()
        return called
