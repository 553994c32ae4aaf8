"""Request bodies of every media type, made from a manifest alone; whatever the model's columns are."""

from __future__ import annotations

import csv
import io
import json
import math
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
"""Feature name to number, choice, or None for missing."""


def main() -> None:
    """Print the three rows that training stored with a model as CSV; its folder is the argument."""
    manifest = json.loads((Path(sys.argv[1]) / "manifest.json").read_text(encoding="utf-8"))
    sys.stdout.write(csv_body(manifest).decode())


def sample_rows(manifest: Mapping[str, Any]) -> list[Row]:
    """Return the three rows that training stored."""
    return [sample["row"] for sample in manifest["samples"]]


def csv_body(manifest: Mapping[str, Any], rows: Sequence[Row] | None = None, *, header: bool = False) -> bytes:
    """Return `text/csv`: a row a line, the model's columns in their order, an empty cell for a missing value."""
    names = _names(manifest)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(names)
    writer.writerows([[row[name] for name in names] for row in _rows(manifest, rows)])
    return text.getvalue().encode()


def json_body(manifest: Mapping[str, Any], rows: Sequence[Row] | None = None) -> bytes:
    """Return `application/json`: `{"instances": [{name: value, ..}, ..]}`."""
    return json.dumps({"instances": [dict(row) for row in _rows(manifest, rows)]}).encode()


def jsonlines_body(manifest: Mapping[str, Any], rows: Sequence[Row] | None = None) -> bytes:
    """Return `application/jsonlines`: `{"features": [..]}` a line."""
    names = _names(manifest)
    return "".join(json.dumps({"features": [row[name] for name in names]}) + "\n" for row in _rows(manifest, rows)).encode()


def columns_body(manifest: Mapping[str, Any], rows: Sequence[Row] | None = None) -> bytes:
    """Return the book's shape, a column a key: `{"RM": {"0": 6.5, "1": ..}, ..}`."""
    chosen = _rows(manifest, rows)
    return json.dumps({name: {str(index): row[name] for index, row in enumerate(chosen)} for name in _names(manifest)}).encode()


def npy_body(manifest: Mapping[str, Any], rows: Sequence[Row] | None = None) -> bytes:
    """Return `application/x-npy`: float32 [N, F], a category as the index of its choice, NaN for a missing value."""
    chosen, features = _rows(manifest, rows), manifest["features"]
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(chosen)}, {len(features)}), }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"  # numpy.lib.format: magic, length and header fill 64-byte blocks
    values = [_number(row[feature["name"]], feature) for row in chosen for feature in features]
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + struct.pack(f"<{len(values)}f", *values)


def parquet_body(manifest: Mapping[str, Any], rows: Sequence[Row] | None = None) -> bytes:
    """Return `application/x-parquet`: a column a feature, not packed; needs arro3, which the image has too."""
    import arro3.core as arrow
    from arro3.io import write_parquet

    chosen, stream = _rows(manifest, rows), io.BytesIO()
    types = {"number": arrow.DataType.float64(), "category": arrow.DataType.utf8()}
    columns: dict[str, Any] = {
        feature["name"]: arrow.Array([row[feature["name"]] for row in chosen], type=types[feature["kind"]])
        for feature in manifest["features"]
    }
    write_parquet(arrow.RecordBatch.from_pydict(columns), stream, compression="uncompressed", dictionary_enabled=False)
    return stream.getvalue()


def _number(value: Any, feature: Mapping[str, Any]) -> float:
    if value is None:
        return math.nan
    return float(feature["choices"].index(value) if feature["kind"] == "category" else value)


def _names(manifest: Mapping[str, Any]) -> list[str]:
    return [feature["name"] for feature in manifest["features"]]


def _rows(manifest: Mapping[str, Any], rows: Sequence[Row] | None) -> Sequence[Row]:
    return sample_rows(manifest) if rows is None else rows


if __name__ == "__main__":
    main()
