"""Channels to tables: CSV files with a header, columns in any order and more than needed; faults by file, row, column."""

from __future__ import annotations

import csv
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contract.cells import MISSING_WORDS, read_number
from contract.declaration import Declaration, Feature, Target
from contract.errors import BadChannel, BadData, SchemaMismatch
from contract.job import Channel

MAX_FAULTS = 10
MISSING = sorted({spelling for word in MISSING_WORDS for spelling in (word, word.upper(), word.title(), "NaN")})
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Table:
    """Rows ready for a pipeline."""

    matrix: NDArray[np.float32]
    """(n_rows, n_features), in the declaration's order; a category is the index of its choice, a missing value NaN."""
    target: NDArray[np.generic]
    """(n_rows,) float64, or labels as text."""

    def __len__(self) -> int:
        return len(self.matrix)

    def take(self, rows: NDArray[np.intp]) -> Table:
        """Return the rows of the given indexes."""
        return Table(self.matrix[rows], self.target[rows])

    def fingerprint(self) -> str:
        """Return a sha256 of the values, whatever files they came in."""
        digest = hashlib.sha256(np.ascontiguousarray(self.matrix).data)
        is_text = self.target.dtype.kind == "U"  # numpy pads texts to the longest
        digest.update("\n".join(self.target.tolist()).encode() if is_text else np.ascontiguousarray(self.target).data)
        return digest.hexdigest()


def read_channel(channel: Channel, declaration: Declaration) -> Table:
    """Return all rows of a channel's CSV files, folders within it included, in the order of their paths.

    Raises:
        BadChannel: there is no CSV file.
        SchemaMismatch: a file lacks a declared column, or has one twice.
        BadData: a value can't be used; the first ten faults are named.
    """
    tables = [_read_file(path, path.relative_to(channel.path), declaration) for path in _csv_files(channel)]
    return Table(np.concatenate([table.matrix for table in tables]), np.concatenate([table.target for table in tables]))


def _csv_files(channel: Channel) -> list[Path]:
    """Return `*.csv` and files without an ending (Spark's part-00000); others are said to be passed over."""
    if not channel.path.is_dir():
        raise BadChannel(f"Channel {channel.name!r} has no folder {channel.path}. Give the job data for it.")
    files = sorted(
        path for path in channel.path.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(channel.path))
    )
    chosen = [path for path in files if path.suffix.lower() in {".csv", ""} and path.stat().st_size]
    if not chosen:
        found = ", ".join(path.name for path in files[:5]) or "no file"
        raise BadChannel(f"Channel {channel.name!r} holds {found}; at least one CSV file with rows was expected.")
    if len(chosen) < len(files):
        others = ", ".join(path.name for path in files if path not in chosen)
        print(f"data: channel {channel.name}: passed over, not CSV or empty: {others}", flush=True)
    return chosen


def _is_hidden(path: Path) -> bool:
    """Say whether a file, or a folder above it, is a tool's own: `.ipynb_checkpoints`, `_SUCCESS`, `_temporary`."""
    return any(part.startswith((".", "_")) for part in path.parts)


def _read_file(path: Path, name: Path, declaration: Declaration) -> Table:
    columns: list[Feature | Target] = [*declaration.features, declaration.target]
    header = _read_header(path, name)
    _check_header(header, [column.name for column in columns], name)
    try:
        frame = _read_frame(path, name, header, columns, [column for column in columns if column.kind == "number"])
    except ValueError:  # a text among the numbers: read all as text, to look at each cell
        frame = _read_frame(path, name, header, columns, [])
    _check_values(frame, columns, name)
    matrix = np.column_stack([_feature_values(frame[feature.name], feature) for feature in declaration.features])
    return Table(matrix.astype(np.float32), _target_values(frame[declaration.target.name], declaration.target))


def _read_header(path: Path, name: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [cell.strip() for cell in next(csv.reader(file, skipinitialspace=True), [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadData(f"{name} is not CSV in UTF-8: {error}.", file=str(name)) from error


def _read_frame(
    path: Path, name: Path, header: Sequence[str], columns: Sequence[Feature | Target], numbers: Sequence[Feature | Target]
) -> pd.DataFrame:
    """Return the declared columns, `numbers` as float64 and the rest as text. All are read: only then pandas counts cells."""
    declared = {column.name for column in columns}
    options = {
        "header": 0,
        "names": [cell if cell in declared else index for index, cell in enumerate(header)],  # others may have one name twice
        "index_col": False,
        "dtype": {column.name: "str" for column in columns} | {column.name: np.float64 for column in numbers},
        "na_values": {column.name: MISSING for column in numbers},
        "keep_default_na": False,
        "skipinitialspace": True,
        "low_memory": False,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(path, encoding="utf-8-sig", **options)
    except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError) as error:
        raise BadData(f"{name} is not CSV: {str(error).strip()}.", file=str(name)) from error
    return pd.DataFrame(
        {column.name: frame[column.name] if column in numbers else _text(frame[column.name], column) for column in columns}
    )


def _text(values: pd.Series, column: Feature | Target) -> pd.Series:
    """Return cells without the spaces around them; what `is_missing` and is no choice becomes a missing value."""
    stripped = values.str.strip()
    return stripped.mask(stripped.str.lower().isin(MISSING_WORDS) & ~stripped.isin(_allowed(column)))


def _check_header(header: list[str], names: list[str], file: Path) -> None:
    missing = [name for name in names if name not in header]
    doubled = sorted({name for name in names if header.count(name) > 1})
    if missing or doubled:
        what = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(doubled)} twice"
        raise SchemaMismatch(
            f"{file} {what}. Its header is: {', '.join(header[:30])}. Expected, in any order: {', '.join(names)}.",
            missing=missing,
            doubled=doubled,
        )


def _check_values(frame: pd.DataFrame, columns: Sequence[Feature | Target], file: Path) -> None:
    faults = sorted(fault for column in columns for fault in _faults(frame[column.name], column))
    if not faults:
        return
    lines = [f"{file} row {row}, column {column}: {what}." for row, column, what in faults[:MAX_FAULTS]]
    if len(faults) > MAX_FAULTS:
        lines.append(f"{len(faults):,} faults in all; the first {MAX_FAULTS} are named.")
    raise BadData("\n".join(lines), file=str(file), row=faults[0][0], column=faults[0][1], count=len(faults))


def _faults(values: pd.Series, column: Feature | Target) -> Iterator[tuple[int, str, str]]:
    """Yield (row from 1, column, what is wrong) for each value that can't be used."""
    nullable = isinstance(column, Feature) and column.nullable
    allowed = _allowed(column)
    if column.kind != "number":
        usable = values.isin(allowed)
    elif values.dtype.kind == "f":
        usable = values.abs() <= LARGEST
    else:
        usable = values.map(_fits, na_action="ignore") == True  # noqa: E712  # a missing value is not True either
    bad = ~usable & (values.notna() | (not nullable))
    for row in np.flatnonzero(bad.to_numpy()):
        yield int(row) + 1, column.name, _describe(values.iloc[row], column, allowed)


def _allowed(column: Feature | Target) -> tuple[str, ...]:
    return column.choices if isinstance(column, Feature) else column.labels


def _describe(value: object, column: Feature | Target, allowed: Sequence[str]) -> str:
    if pd.isna(value):
        return "empty; a value was expected (a feature that may be empty is declared nullable)"
    expected = "a finite number of float32's range" if column.kind == "number" else f"one of {', '.join(allowed)}"
    return f"{str(value)[:40]!r} is not {expected}"


def _fits(cell: str) -> bool:
    number = read_number(cell)
    return number is not None and abs(number) <= LARGEST


def _feature_values(values: pd.Series, feature: Feature) -> NDArray[np.float64]:
    if feature.kind == "number":
        return values.to_numpy(dtype=np.float64)
    indexes = {choice: float(index) for index, choice in enumerate(feature.choices)}
    return values.map(indexes).to_numpy(dtype=np.float64)


def _target_values(values: pd.Series, target: Target) -> NDArray[np.generic]:
    if target.kind == "number":
        return values.to_numpy(dtype=np.float64)
    return values.to_numpy(dtype=np.str_)
