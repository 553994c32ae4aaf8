"""What is seen of each request from outside: counters and, for who asks, a line of JSON on standard output (H-37)."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime

import orjson

from serving.exchange import Answer, Request
from serving.metrics import GONE, Metrics

STDOUT = 1


class Observer:
    """Counts every request and writes the lines of those that aren't quiet."""

    def __init__(self, metrics: Metrics, *, writes_lines: bool) -> None:
        self.metrics = metrics
        self._writes_lines = writes_lines

    def begin(self) -> float:
        """Return the time at which a request's head was there."""
        self.metrics.begin()
        return time.perf_counter()

    def end(self, request: Request, path: str, answer: Answer, *, began: float, quiet: bool = False) -> None:
        """Take down an answer before it is sent, so that who has read it finds it counted.

        Args:
            request: with the rows that were predicted.
            path: of its route, as the table has it; what the caller wrote is neither counted nor logged.
            answer: whole, or a page's status and size.
            began: what `begin` returned.
            quiet: no line for it: probes come every few seconds.
        """
        seconds = time.perf_counter() - began
        self.metrics.end()
        self.metrics.record(path, answer.status, answer.code, seconds)
        if not answer.code and request.rows:
            self.metrics.record_rows(request.rows, request.drift)
        if self._writes_lines and not quiet:
            _write_line(request, path, answer, seconds)

    def gone(self, request: Request, path: str, began: float) -> None:
        """Take down a request whose client closed before the answer."""
        request.rows = 0  # nobody has them
        self.end(request, path, Answer(GONE, b""), began=began)


def _write_line(request: Request, path: str, answer: Answer, seconds: float) -> None:
    """Write facts about a request, nothing of what is in it; in one write, so that lines of several workers don't mix."""
    line = {
        "time": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds"),
        "request_id": request.identity,
        "method": request.method[:16],  # a caller may invent one
        "route": path,
        "status": answer.status,
        "error": answer.code or None,
        "rows": request.rows,
        "bytes_in": request.size_bytes,
        "bytes_out": int(dict(answer.headers).get(b"content-length", len(answer.body))),
        "ms": round(seconds * 1_000, 3),
    }
    with contextlib.suppress(OSError):  # whoever read the log is gone; requests are answered all the same
        os.write(STDOUT, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
