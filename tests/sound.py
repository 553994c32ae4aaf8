"""A sound container as a server of this process: its model adds three cells up. Faults are small subclasses of it."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from fakes import read_chunks

from local_test.emulator import Endpoint
from local_test.runners import Launch
from local_test.subject import Subject
from local_test.verdicts import Status, Verdict

WIDTH = 3
MIB = 2**20
CSV, JSON = "text/csv", "application/json"


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Sound(BaseHTTPRequestHandler):
    """Answers as contract.md has it; every step may be overridden."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    environ: ClassVar[dict] = {}
    limit = 25 * MIB
    health, predict = "/ping", "/invocations"
    error_type = JSON

    def get(self) -> None:
        self.reply(200 if self.path == self.health else 405 if self.path == self.predict else 404, b"", "")

    def do_GET(self) -> None:
        self.get()

    do_HEAD = do_PUT = do_GET  # noqa: N815  # the names are http.server's

    def do_POST(self) -> None:
        self.post()

    def post(self) -> None:
        body = self.body()
        if self.path != self.predict:
            return self.reply(404, b"there is no such path", "text/plain")
        try:
            kind = self.kind()
            wanted = self.wanted(kind)
            answer = self.encode([self.add_up(row) for row in self.rows(body, kind)], wanted)
        except Refused as error:
            return self.refuse(error.status, str(error))
        except Exception as error:
            return self.refuse(500, repr(error))
        return self.reply(200, answer, wanted)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            return self.chunks()
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def chunks(self) -> bytes:
        return read_chunks(self.rfile)

    def kind(self) -> str:
        kind = self.headers.get("Content-Type", CSV).partition(";")[0].strip().lower()
        if kind not in {CSV, JSON}:
            raise Refused(415, f"{kind} is not read")
        return kind

    def wanted(self, kind: str) -> str:
        accept = self.headers.get("Accept", "").strip()
        names = [name.partition(";")[0].strip().lower() for name in accept.split(",")]
        if not accept or "*/*" in names:
            return self.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or kind
        found = next((name for name in names if name in {CSV, JSON}), None)
        if found is None:
            raise Refused(406, f"{accept} is not written")
        return found

    def rows(self, body: bytes, kind: str) -> list[list[float]]:
        if len(body) > self.limit:
            raise Refused(413, "too large")
        try:
            rows = json.loads(body)["instances"] if kind == JSON else self.cells(body.decode())
            return [self.row(row) for row in rows or self.none()]
        except (ValueError, TypeError, KeyError) as error:
            raise self.unreadable(error) from None

    def none(self) -> list:
        raise Refused(400, "no row")

    def cells(self, text: str) -> list[list[str]]:
        return [line.split(",") for line in text.splitlines() if line.strip()]

    def row(self, row: list) -> list[float]:
        if len(row) != WIDTH:
            raise Refused(400, f"{len(row)} cells; {WIDTH} were expected")
        return [self.number(cell) for cell in row]

    def number(self, cell: str | float) -> float:
        return float(cell or "nan") if isinstance(cell, str) else float(cell)

    def unreadable(self, error: Exception) -> Exception:
        return Refused(400, str(error)[:200])

    def add_up(self, row: list[float]) -> float:
        return sum(row)

    def encode(self, values: list[float], kind: str) -> bytes:
        if kind == JSON:
            return json.dumps({"predictions": values}).encode()
        return "".join(f"{value}\n" for value in values).encode()

    def refuse(self, status: int, message: str) -> None:
        self.reply(status, json.dumps({"message": message}).encode(), self.error_type)

    def reply(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """Let a fault be a fault."""


class Program:
    """A `serve` in threads of this process; it ends `stop_s` after SIGTERM."""

    pid = None

    def __init__(self, handler: type[BaseHTTPRequestHandler] | None, stop_s: float = 0) -> None:
        self.stop_s = stop_s
        self.ended = threading.Event()
        self.server = Server(("127.0.0.1", 0), handler) if handler else None
        self.address = self.server.server_address if self.server else ("", 9)
        if self.server:
            threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        else:
            self.ended.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    def wait(self, timeout_s: float | None = None) -> int:
        if not self.ended.wait(timeout_s):
            raise subprocess.TimeoutExpired("serve", timeout_s or 0)
        return 0 if self.server else 1

    def is_running(self) -> bool:
        return not self.ended.is_set()

    def signal(self, number: int) -> None:
        delay = self.stop_s if number == signal.SIGTERM else 0
        threading.Timer(delay, self.end).start() if delay else self.end()

    def end(self) -> None:
        if self.server and not self.ended.is_set():
            self.server.shutdown()
            self.server.server_close()
        self.ended.set()

    def output(self) -> str:
        return "it said nothing of use"


@dataclass
class Servers:
    """A platform whose containers are such programs: `handler_of` gives the handler of a start, None for one that ends."""

    handler_of: Callable[[Launch], type[BaseHTTPRequestHandler] | None]
    stop_s: float = 0

    def launch(self, launch: Launch) -> Program:
        handler = self.handler_of(launch)
        made = type("Handler", (handler,), {"environ": launch.environ}) if handler else None
        return Program(made, self.stop_s)


class Served(Subject):
    """A subject whose server is ready when it is started."""

    @property
    def endpoint(self) -> Endpoint:
        return self.once("restarted", self.restarted) if "restarted" in self._made else self.kept("endpoint")


def named(verdicts: dict[str, Verdict], status: Status) -> set[str]:
    return {name for name, verdict in verdicts.items() if verdict.status is status}
