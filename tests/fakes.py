"""Small servers to judge and to send to, in this process: what they do wrong can be read here."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO
from urllib.parse import parse_qs, urlsplit

from local_test.emulator import Endpoint

Answer = tuple[int, bytes, str]
"""Status, body, media type."""
Answers = Callable[[str, str, bytes, Mapping[str, str]], Answer]
"""From method, path, body and headers by their names in lower case."""
LINES = "text/csv"


class Hosted:
    """A server of this process, where a Program is wanted."""

    pid = 0

    def __init__(self, url: str) -> None:
        self.url = url

    def is_running(self) -> bool:
        return True

    def output(self) -> str:
        return ""


@contextmanager
def answering(answers: Answers) -> Iterator[Endpoint]:
    """Serve what a function answers on a free port; /ping is 200."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(answers))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield Endpoint(Hosted(f"http://127.0.0.1:{server.server_port}"))  # type: ignore[arg-type]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def handler(answers: Answers) -> type[BaseHTTPRequestHandler]:
    """Return what handles a request by a function."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = (
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if not self.is_chunked()
                else read_chunks(self.rfile)
            )
            headers = {name.lower(): value for name, value in self.headers.items()}
            ping = (200, b"", LINES)
            status, said, media_type = ping if self.path == "/ping" else answers(self.command, self.path, body, headers)
            if status == 0:  # the connection is dropped
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815  # as http.server calls them

        def is_chunked(self) -> bool:
            return self.headers.get("Transfer-Encoding", "").lower() == "chunked"

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def read_chunks(stream: BinaryIO) -> bytes:
    """Return a body that came in chunks."""
    parts = []
    while size := int(stream.readline(), 16):
        parts.append(stream.read(size))
        stream.readline()
    stream.readline()
    return b"".join(parts)


def invocations(answer: Callable[[bytes], Answer]) -> Answers:
    """Answer /invocations so, and nothing else."""
    return lambda _method, path, body, _headers: answer(body) if path == "/invocations" else (404, b"", LINES)


def summing(body: bytes, end: str = "") -> Answer:
    """Answer each line of CSV with the sum of its numbers, 400 where one has none: a reader can compute it by eye."""
    try:
        sums = [sum(float(cell) for cell in line.split(",")) for line in body.decode().split("\n") if line.strip()]
    except ValueError as error:
        return 400, str(error).encode(), "text/plain"
    return 200, ("\n".join(f"{each:g}" for each in sums) + end).encode(), LINES


def sums(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Be a server of `summing` that is right, and has no /execution-parameters."""
    return summing(body) if (method, path) == ("POST", "/invocations") else (404, b"", LINES)


class Registry:
    """A right multi-model server, whose methods a test replaces one by one."""

    page_size = 2

    def __init__(self) -> None:
        self.models: dict[str, str] = {}

    def __call__(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        at = urlsplit(path)
        parts = at.path.strip("/").split("/")
        if at.path == "/invocations":
            return summing(body)
        if at.path == "/models":
            return self.load(body) if method == "POST" else self.list(parse_qs(at.query).get("next_page_token", ["0"])[0])
        if len(parts) == 2:
            return self.unload(parts[1]) if method == "DELETE" else self.describe(parts[1])
        return self.invoke(parts[1], body)

    def load(self, body: bytes) -> Answer:
        try:
            told = json.loads(body)
            name, url = told["model_name"], told["url"]
        except (ValueError, LookupError):
            return 400, b"", LINES
        if name in self.models:
            return 409, b"", LINES
        if not self.exists(url):
            return 404, b"", LINES
        self.models[name] = url
        return 200, b"", LINES

    def exists(self, url: str) -> bool:
        return "ffffffff" not in url

    def list(self, token: str) -> Answer:
        start = int(token)
        found = sorted(self.models.items())[start:]
        page = [{"modelName": name, "modelUrl": url} for name, url in found[: self.page_size]]
        more = {"nextPageToken": str(start + self.page_size)} if len(found) > self.page_size else {}
        return self.document({"models": page, **more})

    def describe(self, name: str) -> Answer:
        if name not in self.models:
            return 404, b"", LINES
        return self.document({"modelName": name, "modelUrl": self.models[name]})

    def unload(self, name: str) -> Answer:
        return (200, b"", LINES) if self.models.pop(name, None) else (404, b"", LINES)

    def invoke(self, name: str, body: bytes) -> Answer:
        return summing(body) if name in self.models else (404, b"", LINES)

    def document(self, told: object) -> Answer:
        return 200, json.dumps(told).encode(), "application/json"
