"""A running server against its own `/openapi.json`: schemathesis makes the requests, this file says what bodies may be.

`python -m local_test.soak.fuzz URL EXAMPLES` fuzzes by hand; it is schemathesis' hooks module at the same time.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import schemathesis
from hypothesis import strategies as st
from pyarrow import parquet as pq
from schemathesis.specs.openapi.checks import positive_data_acceptance

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "rows_as_described_are_taken",
    "unsupported_method",
    "allow_header_conformance",
)
LIMITS = (
    "--phases=coverage,fuzzing,stateful",  # not the document's examples: it can't send those of media types it doesn't know
    "--suppress-health-check=all",
    "--generation-database=none",
    "--request-timeout=30",
    "--no-shrink",
)
ROOT = Path(__file__).resolve().parent.parent.parent


def fuzz(url: str, examples: int, folder: Path | None = None, *, paths: Sequence[str] = ()) -> tuple[bool, str]:
    """Return whether a server kept its word, and schemathesis' report.

    Args:
        url: of the server, without a path.
        examples: made for each operation.
        folder: where it may write.
        paths: of the document, all if none are named.
    """
    program = Path(sys.executable).with_name("schemathesis")
    options = [f"--max-examples={examples}", "--seed=0", f"--checks={','.join(CHECKS)}", "--continue-on-failure"]
    done = subprocess.run(
        [program, "run", f"{url}/openapi.json", *options, *LIMITS, *(f"--include-path={path}" for path in paths)],
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "local_test.soak.fuzz", "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0, done.stdout + done.stderr


def _npy(rows: list[list[float]], dtype: str) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(rows, dtype=dtype), allow_pickle=False)
    return stream.getvalue()


def _parquet(rows: list[list[float]], dtype: str, compression: str) -> bytes:
    stream, columns = io.BytesIO(), np.array(rows, dtype=dtype).reshape(len(rows), len(NAMES)).T
    pq.write_table(pa.table(dict(zip(NAMES, map(pa.array, columns), strict=True))), stream, compression=compression)
    return stream.getvalue()


def _changed(body: bytes, at: int, by: int) -> bytes:
    """Return the body with one byte changed."""
    at %= len(body)
    return body[:at] + bytes([body[at] ^ by]) + body[at + 1 :]


CELLS = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(str),
    st.integers(-1_000, 1_000).map(str),
    st.sampled_from(["", "NaN", "inf", "null", "1e39", '"', "'", "\0", "é"]),
    st.text(max_size=5),
)
CSV = st.lists(st.lists(CELLS, min_size=1, max_size=8).map(",".join), max_size=5).map("\n".join).map(str.encode)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.sampled_from(["features", "data", "RM", "x"]), inner),
    max_leaves=20,
)
LINES = st.lists(VALUES.map(lambda value: json.dumps(value)), max_size=5).map("\n".join).map(str.encode)
ARRAYS = st.builds(
    _npy,
    st.integers(1, 8).flatmap(
        lambda width: st.lists(st.lists(st.integers(-99, 99), min_size=width, max_size=width), max_size=4)
    ),
    st.sampled_from(["f4", "f8", "i8", ">f4", "c8", "U3"]),
)
NAMES = ["CHAS", "RM", "TAX", "PTRATIO", "B", "LSTAT"]
FILES = st.builds(
    _parquet,
    st.lists(st.lists(st.integers(-99, 99), min_size=len(NAMES), max_size=len(NAMES)), max_size=4),
    st.sampled_from(["f4", "f8", "i8", "U3"]),
    st.sampled_from(["none", "snappy", "gzip", "zstd"]),
)

schemathesis.openapi.media_type("text/csv", CSV | st.binary(max_size=50))
schemathesis.openapi.media_type(
    "application/jsonlines", LINES | st.binary(max_size=50), aliases=["application/x-jsonlines", "application/x-ndjson"]
)
schemathesis.openapi.media_type("application/x-npy", ARRAYS | ARRAYS.map(lambda body: body[:-1]) | st.binary(max_size=200))
schemathesis.openapi.media_type(
    "application/x-parquet",
    FILES | st.builds(_changed, FILES, st.integers(0, 9_999), st.integers(1, 255)) | st.binary(max_size=200),
    aliases=["application/vnd.apache.parquet"],
)

JSON, ROWS = "application/json", {"$ref": "#/components/requestBodies/Rows"}


@schemathesis.check
def rows_as_described_are_taken(ctx: Any, response: Any, case: Any) -> None:
    """Hold the schema of rows in JSON: what it allows is predicted. It can't say that columns have one length."""
    about_rows = case.operation.definition.raw.get("requestBody") == ROWS and case.media_type == JSON
    if about_rows and b"different lengths" not in response.content:
        positive_data_acceptance(ctx, response, case)


if __name__ == "__main__":
    kept, report = fuzz(sys.argv[1], int(sys.argv[2]))
    sys.stdout.write(report)
    sys.exit(0 if kept else 1)
