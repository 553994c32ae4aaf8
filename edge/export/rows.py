"""The rows that a model was trained on and those held out, read again, and the proof that they are the same."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.cells import is_missing, read_number
from contract.declaration import Feature, Target
from contract.errors import BadChannel, BadData, SchemaMismatch
from contract.manifest import Manifest
from edge.libraries import library

LARGEST = float(np.finfo(np.float32).max)
"""As training reads; what lies half a step beyond, the server and the runner still take, and round to this."""
ENDINGS = (".csv", ".csv.gz")
GZIP = b"\x1f\x8b"

Declared = Feature | Target
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Table:
    """Rows as a model takes them."""

    matrix: Matrix
    """(n_rows, n_features) float32, in the declaration's order; a category is the index of its choice, a missing value NaN."""
    target: NDArray[Any]
    """(n_rows,) float64, or labels as text."""

    def __len__(self) -> int:
        return len(self.matrix)

    def take(self, rows: NDArray[Any]) -> Table:
        """Return the rows of the given indexes, or of a mask."""
        return Table(self.matrix[rows], self.target[rows])

    def fingerprint(self) -> str:
        """Return the sha256 that training wrote down of its rows: of the values, and of the labels' text, a line each."""
        is_number = self.target.dtype.kind == "f"
        texts = b"" if is_number else "".join(f"{label}\n" for label in self.target.tolist()).encode()
        digest = hashlib.sha256(np.ascontiguousarray(self.matrix).data)
        digest.update(np.ascontiguousarray(self.target).data if is_number else texts)
        return digest.hexdigest()


@dataclass(frozen=True)
class Data:
    """The rows of a model's training."""

    train: Table
    held_out: Table

    @property
    def every(self) -> Matrix:
        """All features, training's first."""
        return np.concatenate([self.train.matrix, self.held_out.matrix])


def read_data(manifest: Manifest, training: Path, validation: Path) -> Data:
    """Return the rows that a model was trained on and those that were held out.

    Args:
        manifest: of the model; it has the split's seed and the fingerprint of the training rows.
        training: the folder of the training channel, or a file.
        validation: the same of the validation channel; read where the model had one.

    Raises:
        BadChannel: a folder has no CSV.
        BadData: a value can't be used, or these aren't the rows that the model was trained on.
    """
    values, about = manifest.hyperparameters, manifest.data
    if "hosts" in about:
        raise BadData(
            f"This model was trained on {len(about['hosts'])} hosts, each of which split its own rows: which of them it did "
            "not see can't be told here. Train on one host to export.",
            hosts=len(about["hosts"]),
        )
    drop = values.get("bad_rows") == "drop"
    table = read_table(training, manifest, drop=drop)
    if str(about["held_out_by"]).startswith("the channel"):
        data = Data(table, read_table(validation, manifest, drop=drop, option="--validation"))
    else:
        data = _split(table, int(values["seed"]), float(values["validation_fraction"]), int(values["validation_rows"]))
    found, expected = data.train.fingerprint(), about["sha256"]
    if found != expected or len(data.held_out) != about["validation_rows"]:
        raise BadData(
            f"{training} isn't what this model was trained on: {len(data.train):,} rows with the sha256 {found[:12]}.. and "
            f"{len(data.held_out):,} held out, where {about['train_rows']:,} with {expected[:12]}.. and "
            f"{about['validation_rows']:,} were expected. Give the channel of its training job: --data DIR, and --validation "
            "DIR if it had one."
        )
    return data


def read_table(path: Path, manifest: Manifest, *, drop: bool = False, option: str = "--data") -> Table:
    """Return all rows of a channel's folder, in the order of its files' paths, or of one file; CSV with a header or without.

    Args:
        path: the folder or the file.
        manifest: of the model.
        drop: whether to leave out rows with a fault.
        option: that names another path, for messages.

    Raises:
        BadChannel: there is no CSV.
        SchemaMismatch: a header lacks a column.
        BadData: a value can't be used, and rows with faults aren't to be dropped.
    """
    declared: list[Declared] = [*manifest.declaration.features, manifest.declaration.target]
    rows = [row for file in _files(path, option) for row in _rows(file, declared, drop=drop)]
    if not rows:
        raise BadChannel(f"{path} has no rows; the CSV files that the model was trained on were expected.")
    is_number = declared[-1].kind == "number"
    target = np.array([row[-1] for row in rows], dtype=np.float64 if is_number else np.str_)
    return Table(np.array([row[:-1] for row in rows], dtype=np.float64).astype(np.float32), target)


def _files(path: Path, option: str) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.is_file() and file.stat().st_size)
    files = [file for file in found if not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)]
    chosen = [file for file in files if not file.suffix or file.name.lower().endswith(ENDINGS)]
    if not chosen:
        held = ", ".join(file.name for file in files[:5]) or "no file"
        raise BadChannel(
            f"{path} holds {held}; the CSV files that the model was trained on were expected. Name their folder: "
            f"{option} DIR. "
            "A channel in another format has to be written as CSV first."
        )
    return chosen


def _rows(file: Path, declared: Sequence[Declared], *, drop: bool) -> Iterator[list[Any]]:
    content = file.read_bytes()
    try:
        text = (gzip.decompress(content) if content.startswith(GZIP) else content).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BadData(f"{file} is not CSV in UTF-8: {error}.", file=file.name) from error
    try:
        lines = [row for row in csv.reader(io.StringIO(text, newline=""), skipinitialspace=True) if not _is_blank(row)]
    except csv.Error as error:
        raise BadData(f"{file} is not CSV: {error}.", file=file.name) from error
    positions, has_header = _positions([cell.strip() for cell in lines[0]], declared, file) if lines else ([], False)
    width = len(lines[0]) if lines else 0
    for number, cells in enumerate(lines[has_header:], 1):
        try:
            yield _read(cells, width, positions, declared)
        except ValueError as error:
            if not drop:
                raise BadData(f"{file.name} row {number}: {error}.", file=file.name, row=number) from error


def _is_blank(cells: list[str]) -> bool:
    return not cells or (len(cells) == 1 and not cells[0].strip())


def _read(cells: list[str], width: int, positions: Sequence[int], declared: Sequence[Declared]) -> list[float | str]:
    """Return a row's values; the cells that a short row lacks are empty, as they are to training."""
    whole = [*cells, *[""] * (width - len(cells))]
    try:
        if len(cells) > width:
            raise ValueError
        return [_value(whole[at], column) for at, column in zip(positions, declared, strict=True)]
    except ValueError as error:
        if len(cells) != width:
            raise ValueError(f"it has {len(cells)} cells where {width} were expected") from error
        raise


def _positions(cells: list[str], declared: Sequence[Declared], file: Path) -> tuple[list[int], bool]:
    """Return where the columns stand, and whether the row is a header; without one the target comes first."""
    names = [column.name for column in declared]
    if not set(names) & set(cells) and len(cells) == len(names):
        return [*range(1, len(names)), 0], False
    missing = [name for name in names if name not in cells]
    if missing:
        raise SchemaMismatch(f"{file} has no column {', '.join(missing)}; its header is {', '.join(cells)}.", missing=missing)
    return [cells.index(name) for name in names], True


def _value(cell: str, column: Declared) -> float | str:
    choices = column.choices if isinstance(column, Feature) else column.labels
    name = cell.strip()
    if name in choices:
        return float(choices.index(name)) if isinstance(column, Feature) else name
    if is_missing(cell) and isinstance(column, Feature) and column.nullable:
        return math.nan
    number = read_number(cell) if column.kind == "number" else None
    if number is None or abs(number) > LARGEST:
        raise ValueError(f"column {column.name}: {cell[:40]!r} can't be used")
    return number


def _split(table: Table, seed: int, fraction: float, most: int) -> Data:
    """Split as `train` does where it has no validation channel."""
    count = min(math.ceil(fraction * len(table)), most)
    strata = _strata(table.target, count)
    split = library("sklearn.model_selection").train_test_split
    try:
        _, chosen = split(np.arange(len(table)), test_size=count, random_state=seed, stratify=strata)
    except ValueError as error:  # too few rows: not those of a training job
        raise BadData(f"{len(table)} rows can't be split as the model's were: {error}.", rows=len(table)) from error
    held_out = np.zeros(len(table), dtype=bool)
    held_out[chosen] = True
    return Data(table.take(~held_out), table.take(held_out))


def _strata(target: NDArray[Any], held_out_rows: int) -> NDArray[Any] | None:
    if target.dtype.kind != "U":
        return None
    counts = np.unique(target, return_counts=True)[1]
    enough = counts.min() >= 2 and len(counts) <= min(held_out_rows, len(target) - held_out_rows)
    return target if enough else None
