"""Rows to call an endpoint with: the model's sample data, in the declaration's columns."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.errors import NotThere
from deploy.jobs.channels import SAMPLE
from model import DECLARATION

Row = Mapping[str, Any]
ROWS = 3


def sample_rows(folder: Path = SAMPLE, count: int = ROWS) -> list[Row]:
    """Return the first rows of the first CSV file that has all the model's columns.

    Raises:
        NotThere: there is none.
    """
    for path in sorted(folder.rglob("*.csv")):
        with path.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines)
            if set(DECLARATION.feature_names) <= set(reader.fieldnames or ()):
                return [row_of(line) for line in itertools.islice(reader, count)]
    raise NotThere(
        f"{folder} has no CSV file with a header of {', '.join(DECLARATION.feature_names)} to take rows of. "
        "Name a body: --payload FILE."
    )


def sample_body(content_type: str, rows: Sequence[Row] | None = None) -> bytes:
    """Return rows as a request's body; without rows, the sample's.

    Raises:
        NotThere: no rows are at hand, or they are not written in this media type here.
    """
    write = BODIES.get(content_type)
    if write is None:
        raise NotThere(
            f"Sample rows are written here as {', '.join(BODIES)}, not as {content_type}. Name a body: --payload FILE."
        )
    return write(rows or sample_rows())


def row_of(line: Mapping[str, str]) -> Row:
    """Return a line of a CSV file as a row: numbers, texts of categories, None for what is missing."""
    return {feature.name: _cell(line[feature.name], feature.kind) for feature in DECLARATION.features}


def _cell(text: str, kind: str) -> Any:
    if kind == "category" or not text:
        return text or None
    number = float(text)
    return int(number) if number.is_integer() else number


def _csv(rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    names = DECLARATION.feature_names
    csv.writer(text, lineterminator="\n").writerows([[row[name] for name in names] for row in rows])
    return text.getvalue().encode()


def _json(rows: Sequence[Row]) -> bytes:
    return json.dumps({"instances": [dict(row) for row in rows]}).encode()


def _jsonlines(rows: Sequence[Row]) -> bytes:
    names = DECLARATION.feature_names
    return "".join(json.dumps({"features": [row[name] for name in names]}) + "\n" for row in rows).encode()


BODIES: dict[str, Callable[[Sequence[Row]], bytes]] = {
    "text/csv": _csv,
    "application/json": _json,
    "application/jsonlines": _jsonlines,
}
