"""What is sent and how: a format, a number of rows, a number of connections."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from local_test import payloads

CONNECTIONS, ROWS = (1, 16, 128), (1, 100, 1_000, 10_000)
STEP = 1 / 8
"""Between made-up values: float32 holds them as exactly as float64, so that all servers see the same."""

Body = Callable[[Mapping[str, Any], Sequence[payloads.Row]], bytes]
FORMATS: dict[str, tuple[str, str, Body]] = {
    "csv": ("CSV", "text/csv", payloads.csv_body),
    "json": ("JSON", "application/json", payloads.json_body),
    "jsonlines": ("JSON Lines", "application/jsonlines", payloads.jsonlines_body),
}
"""Format to what people call it, its media type, and what writes it."""


@dataclass(frozen=True, order=True)
class Cell:
    """One cell of the matrix."""

    format: str
    rows: int
    connections: int

    def __str__(self) -> str:
        return f"{self.format}-{self.rows}-{self.connections}"


@dataclass(frozen=True)
class Payload:
    """One request, with what it must be answered."""

    format: str
    rows: int
    body: Path
    matrix: Path
    """The rows as the model takes them: float32, NumPy's own format."""
    connections: list[int] = field(default_factory=list)
    """How many are to send it, one number after another."""

    @property
    def media_type(self) -> str:
        """What Content-Type says."""
        return FORMATS[self.format][1]


def cells_of(patterns: Sequence[str]) -> list[Cell]:
    """Return the cells that patterns such as `csv-1-16` or `json-*-1` name, of none all of them.

    Raises:
        RuntimeError: a pattern names none.
    """
    every = [Cell(*cell) for cell in product(FORMATS, ROWS, CONNECTIONS)]
    for pattern in patterns:
        if not any(fnmatchcase(str(cell), pattern) for cell in every):
            raise RuntimeError(
                f"--only {pattern!r} names no cell; one is FORMAT-ROWS-CONNECTIONS, such as csv-1-16 or 'json-*-1': "
                f"{', '.join(FORMATS)}; {', '.join(map(str, ROWS))}; {', '.join(map(str, CONNECTIONS))}."
            )
    return [cell for cell in every if not patterns or any(fnmatchcase(str(cell), pattern) for pattern in patterns)]


def payloads_of(cells: Sequence[Cell], manifest: Mapping[str, Any], folder: Path) -> Iterator[Payload]:
    """Write each payload that cells send into a folder, and yield it with its cells' connections.

    Raises:
        RuntimeError: the model takes or answers what the servers of others, which are kept simple, do not.
    """
    kinds = {feature["kind"] for feature in manifest["features"]} | {manifest["target"]["kind"]}
    if kinds != {"number"}:
        raise RuntimeError("load compares servers of numbers: a feature or the target of this model is a category.")
    by_payload: dict[tuple[str, int], list[int]] = {}
    for cell in cells:
        by_payload.setdefault((cell.format, cell.rows), []).append(cell.connections)
    for (name, count), connections in by_payload.items():
        rows = make_rows(manifest, count)
        body, matrix = folder / f"{name}-{count}", folder / f"{name}-{count}.npy"
        body.write_bytes(FORMATS[name][2](manifest, rows))
        np.save(matrix, np.array([list(row.values()) for row in rows], dtype=np.float32))
        yield Payload(name, count, body, matrix, connections)


def make_rows(manifest: Mapping[str, Any], count: int) -> list[payloads.Row]:
    """Return made-up rows, each feature anywhere between the bounds that training saw: no processor learns their branches."""
    chance = random.Random(0)  # noqa: S311  # the same rows for every server and run
    bounds = {name: (seen["minimum"], seen["maximum"]) for name, seen in manifest["ranges"].items()}
    return [{name: round(chance.uniform(*ends) / STEP) * STEP for name, ends in bounds.items()} for _ in range(count)]


def numbers_of(answer: bytes, name: str) -> list[float]:
    """Return the predictions of an answer in a format; raises ValueError, KeyError or TypeError where it is another."""
    if name == "json":
        return [float(value) for value in json.loads(answer)["predictions"]]
    lines = answer.decode().splitlines()
    return [float(line) if name == "csv" else float(json.loads(line)["prediction"]) for line in lines]
