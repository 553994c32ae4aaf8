#!/usr/bin/env python3
"""A sound `serve` of the standard library alone: one process, a thread a connection."""

import json
import os
import signal
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

sys.path.insert(0, "/usr/local/lib/sound")
from model import CSV, JSON, LINES, Model, Problem, accepted, decode, encode

LIMIT = int(os.environ.get("SAGEMAKER_MAX_PAYLOAD_IN_MB") or 25) * 2**20 or 100 * 2**20
DEFAULT_ACCEPT = os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "")
MULTI_MODEL = os.environ.get("SAGEMAKER_MULTI_MODEL", "").lower() == "true"
KINDS = {CSV: CSV, JSON: JSON, LINES: LINES, "application/x-jsonlines": LINES, "application/x-ndjson": LINES, "": CSV}
PREDICT = {"/invocations", os.environ.get("AIP_PREDICT_ROUTE", "/invocations")}
PING = {"/ping", os.environ.get("AIP_HEALTH_ROUTE", "/ping")}
PAGE = 100
LAST_S = 20

loaded: dict[str, tuple[str, Model]] = {}
counted = {"requests": 0, "errors": 0}
lock = threading.Condition()
under_way = 0


class Handler(BaseHTTPRequestHandler):
    """Answers requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self) -> None:
        """Answer one request: every error is JSON."""
        global under_way
        with lock:
            under_way += 1
        try:
            status, kind, content = self.route(urlsplit(self.path).path)
        except Problem as problem:
            status, kind, content = problem.status, JSON, as_json({"error": str(problem)})
        except Exception:
            traceback.print_exc()
            status, kind, content = 500, JSON, as_json({"error": "The server has a fault; its log says which."})
        try:
            self.write(status, kind, content)
        finally:
            with lock:
                under_way -= 1
                lock.notify_all()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = answer  # noqa: N815

    def route(self, path: str) -> tuple[int, str, bytes]:
        """Return status, media type and body."""
        body = self.body()
        if path in PING:
            self.only("GET", "HEAD")
            return 200 if MULTI_MODEL or loaded else 503, "text/plain", b""
        if path in PREDICT:
            self.only("POST")
            return self.predict("", body)
        if path == "/execution-parameters":
            self.only("GET")
            return 200, JSON, as_json({"MaxConcurrentTransforms": 2, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6})
        if path == "/metrics":
            self.only("GET")
            return 200, "text/plain; version=0.0.4; charset=utf-8", metrics()
        if MULTI_MODEL and path.split("/")[1] == "models":
            return self.models(path, body)
        raise Problem(404, f"There is no {path[:200]}.")

    def models(self, path: str, body: bytes) -> tuple[int, str, bytes]:
        """Load, list, show, remove and ask models."""
        _, _, *parts = [unquote(part) for part in path.split("/")]
        if not parts:
            self.only("GET", "POST")
            return load(body) if self.command == "POST" else listed(parse_qs(urlsplit(self.path).query))
        if parts[0] not in loaded:
            raise Problem(404, f"No model {parts[0][:200]} is loaded.")
        if parts[1:] == ["invoke"]:
            self.only("POST")
            return self.predict(parts[0], body)
        self.only("GET", "DELETE")
        url, _ = loaded.pop(parts[0]) if self.command == "DELETE" else loaded[parts[0]]
        return 200, JSON, as_json({"modelName": parts[0], "modelUrl": url})

    def predict(self, name: str, body: bytes) -> tuple[int, str, bytes]:
        """Answer records with predictions."""
        if name not in loaded:
            raise Problem(503, "No model is loaded.")
        content_type = self.headers.get("Content-Type", "").split(";")[0].strip().lower()
        if content_type not in KINDS:
            raise Problem(415, f"The body can be {CSV}, {JSON} or {LINES}; it is said to be {content_type[:100]}.")
        kind = KINDS[content_type]
        wanted = accepted(self.headers.get("Accept", ""), DEFAULT_ACCEPT or kind)
        model = loaded[name][1]
        return 200, wanted, encode(wanted, model.predict(decode(model, kind, body)))

    def only(self, *methods: str) -> None:
        """Refuse other methods."""
        if self.command not in methods:
            raise Problem(405, f"{self.command} is not for this path; {' and '.join(methods)} are.")

    def body(self) -> bytes:
        """Return the request's body; one that is too large is read to its end, so that the answer arrives."""
        kept, size = [], 0
        for part in self.parts():
            size += len(part)
            if size <= LIMIT:
                kept.append(part)
        if size > LIMIT:
            raise Problem(413, f"The body has {size} bytes; {LIMIT} are taken.")
        return b"".join(kept)

    def parts(self):
        """Yield the body in pieces."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left > 0 and (part := self.rfile.read(min(left, 2**20))):
            left -= len(part)
            yield part

    def write(self, status: int, kind: str, content: bytes) -> None:
        """Send the answer."""
        if urlsplit(self.path).path not in PING:
            counted["requests"] += 1
            counted["errors"] += status >= 400
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_error(self, code, message=None, explain=None) -> None:
        """Answer what is no HTTP."""
        self.close_connection = True
        self.command, self.path = self.command or "", getattr(self, "path", "")
        self.write(code if code < 500 else 400, JSON, as_json({"error": str(message)[:500]}))

    def log_request(self, code="-", size="-") -> None:
        """Log a line a request, and none a ping."""
        if urlsplit(self.path).path not in PING:
            print(as_json({"method": self.command, "path": self.path, "status": int(code)}).decode().strip(), flush=True)


class Server(ThreadingHTTPServer):
    """Its threads are ended with it."""

    daemon_threads = True
    request_queue_size = 128


def load(body: bytes) -> tuple[int, str, bytes]:
    """Load one more model."""
    try:
        request = json.loads(body)
        name, url = str(request["model_name"]), str(request["url"])
    except (ValueError, KeyError, TypeError):
        raise Problem(400, 'The body is no {"model_name": .., "url": ..}.') from None
    if name in loaded:
        raise Problem(409, f"Model {name[:200]} is loaded already.")
    try:
        loaded[name] = url, Model(Path(url))
    except (OSError, ValueError, KeyError):
        raise Problem(400, f"{url[:200]} holds no model.") from None
    return 200, JSON, as_json({"modelName": name, "modelUrl": url})


def listed(query: dict[str, list[str]]) -> tuple[int, str, bytes]:
    """List a page of the models."""
    token = query.get("next_page_token", ["0"])[0]
    first = int(token) if token.isdigit() else 0
    names = sorted(loaded)
    page = {"models": [{"modelName": name, "modelUrl": loaded[name][0]} for name in names[first : first + PAGE]]}
    return 200, JSON, as_json(page | ({"nextPageToken": str(first + PAGE)} if len(names) > first + PAGE else {}))


def metrics() -> bytes:
    """Return counts as Prometheus reads them."""
    about = "# HELP {0}_total Of this server.\n# TYPE {0}_total counter\n{0}_total {1}\n"
    return "".join(about.format(name, count) for name, count in counted.items()).encode()


def as_json(document: object) -> bytes:
    """Return a line of JSON."""
    return json.dumps(document).encode() + b"\n"


def port() -> int:
    """Return where to listen."""
    return int(next(filter(None, map(os.environ.get, ("SAGEMAKER_BIND_TO_PORT", "AIP_HTTP_PORT", "PORT"))), 8080))


def main() -> int:
    """Serve until SIGTERM, then let the requests under way be answered."""
    if not MULTI_MODEL:
        loaded[""] = "", Model(Path("/opt/ml/model"))
    server = Server(("0.0.0.0", port()), Handler)
    signal.signal(signal.SIGTERM, lambda number, frame: threading.Thread(target=server.shutdown).start())
    server.serve_forever(0.1)
    server.server_close()
    with lock:
        lock.wait_for(lambda: not under_way, LAST_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
