"""The records of the owner's payload: rows of CSV, instances of JSON, and bodies of any size made of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from local_test.rules.wire import media_type
from local_test.subject import Payload
from local_test.verdicts import DoesNotApply

CSV, JSON = "text/csv", "application/json"
JSON_LINES = frozenset({"application/jsonlines", "application/x-jsonlines", "application/x-ndjson"})
LINE_BYTES = 4_096
"""To which a record is padded in a large body: few records, so that its size is judged, not the model's speed."""


@dataclass(frozen=True)
class Table:
    """A payload of CSV."""

    head: bytes
    """The header row with its newline; empty where there is none."""
    rows: tuple[bytes, ...]
    """Without their newlines."""

    def body(self, count: int) -> bytes:
        """Return so many rows, the payload's over and over, below the header."""
        return self.head + b"".join(row + b"\n" for row in islice(cycle(self.rows), count))

    @property
    def width(self) -> int:
        """Cells in a row."""
        return len(cells(self.rows[0]))

    @property
    def has_numbers(self) -> bool:
        """Say whether a row has a cell that a header row would not have."""
        return any(map(is_number, cells(self.rows[0])))


def table(payload: Payload) -> Table:
    """Return the rows of a payload of CSV; a first line without a number above one with numbers is a header.

    Raises:
        DoesNotApply: it is no CSV, or has no row.
    """
    if media_type(payload.content_type) != CSV:
        raise DoesNotApply(f"the payload is {payload.content_type}; give one in {CSV} to have this judged")
    rows = [line.rstrip(b"\r") for line in payload.body.split(b"\n") if line.strip()]
    if not rows:
        raise DoesNotApply("the payload has no row")
    has_head = len(rows) > 1 and not any(map(is_number, cells(rows[0]))) and any(map(is_number, cells(rows[1])))
    return Table(rows[0] + b"\n" if has_head else b"", tuple(rows[has_head:]))


def cells(row: bytes) -> list[str]:
    """Return the cells of a row of CSV."""
    return next(csv.reader([row.decode("utf-8", "replace")]), [])


def join(values: Sequence[str]) -> bytes:
    """Return a row of CSV; a cell that needs quotes has them."""
    return ",".join(f'"{value}"' if "," in value else value for value in values).encode()


def is_number(text: str) -> bool:
    """Say whether a cell holds a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def lines(body: bytes) -> list[bytes]:
    """Return the records of an answer in CSV, blank lines among them; the last may end in a newline or not (H-31)."""
    return body.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")


def instances(payload: Payload) -> tuple[list[Any], bool]:
    """Return the payload's records as JSON has them under `instances`, and whether it is the owner who wrote them so.

    Rows of CSV are lists of their numbers and texts: a guess at what the model takes. There may be none at all.
    """
    if media_type(payload.content_type) == JSON:
        try:
            document = json.loads(payload.body)
        except ValueError:
            return [], False
        found = document.get("instances") if isinstance(document, dict) else document
        return (found, True) if isinstance(found, list) else ([], False)
    try:
        rows = table(payload).rows
    except DoesNotApply:
        return [], False
    return [[float(cell) if is_number(cell) else cell for cell in cells(row)] for row in rows], False


def padded(payload: Payload, size: int) -> bytes:
    """Return a body of a size that is as good as the payload where its format has room for blanks; else zeros follow it."""
    kind = media_type(payload.content_type)
    if kind == JSON:
        return payload.body.rstrip().ljust(size)
    if kind == CSV or kind in JSON_LINES:
        head, rows = _rows(payload, kind)
        count = max(1, (size - len(head)) // max(LINE_BYTES, len(rows[0]) + 1))
        room = (size - len(head)) // count
        body = head + b"".join(row.ljust(room - 1) + b"\n" for row in islice(cycle(rows), count))
        return body[:-1].ljust(size - 1) + b"\n"
    return payload.body.ljust(size, b"\0")


def _rows(payload: Payload, kind: str) -> tuple[bytes, Sequence[bytes]]:
    if kind == CSV:
        found = table(payload)
        return found.head, found.rows[:1]
    return b"", [line for line in payload.body.splitlines() if line.strip()][:1] or [b""]
