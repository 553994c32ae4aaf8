"""Every decoder against damaged bodies: a matrix or an error of the caller's, and soon. FUZZ_INPUTS says how many."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.declaration import Feature
from contract.errors import PayloadTooLarge, UnreadableBody, UserError
from serving.codecs import read_body
from serving.encodings import unzip
from serving.schema import Schema

INPUTS = int(os.environ.get("FUZZ_INPUTS", "20000"))
LIMIT_S = 20.0
SCHEMA = Schema(
    [
        Feature("size", ""),
        Feature("age", "", nullable=True),
        Feature("color", "", kind="category", choices=("red", "green", "sea, deep")),
        Feature("grade", "", kind="category", choices=("NA", "b", "1"), nullable=True),
    ]
)
TOKENS = [
    *(b",", b"\n", b"\r", b'"', b"[", b"]", b"{", b"}", b":", b"\\", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80"),
    *(b"null", b"NaN", b"true", b"-", b"1e999", b"1_0", b"0x1", b"99999999999999999999999", b'"size"', b"red", b"instances"),
    *(
        b"dataframe_split",
        b"columns",
        b"features",
        b"data",
        b"(",
        b")",
        b"'descr'",
        b"|O",
        b"<f4",
        b"True",
        b"-1",
        b"\x93NUMPY",
    ),
]


def npy(dtype: str = "<f4", fortran: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray([[1, np.nan if "f" in dtype else 2, 2, 1]] * 3, dtype=dtype, order="F" if fortran else "C"))
    return stream.getvalue()


JSON_SEEDS = [
    b'{"instances": [[1.5, null, "red", "b"], [2, 3, "green", null]]}',
    b'{"instances": [{"features": [1, 2, "red", "NA"]}, {"data": {"features": [1, 2, "red", "b"]}}]}',
    b'[{"size": 1, "age": null, "color": "sea, deep", "grade": 1}]',
    b'{"size": {"0": 1}, "age": {"0": 2.5}, "color": {"0": "red"}, "grade": {"0": "b"}}',
    b'{"size": [1], "age": [2], "color": ["red"], "grade": ["b"]}',
    b'{"dataframe_split": {"columns": ["age", "size", "grade", "color"], "data": [[1, 2, "b", "red"]]}}',
]
CSV_SEEDS = [
    b"1,2,red,b\n3,,green,\n",
    b'size,age,color,grade\r\n1,2,"sea, deep",NA\r\n',
    b'grade,color,age,size\n"b","red",1e3,-0.5',
]
SEEDS = {
    "text/csv": CSV_SEEDS,
    "text/csv; header=present": CSV_SEEDS,
    "text/csv; charset=utf-16": [seed.decode().encode("utf-16") for seed in CSV_SEEDS],
    "application/json": JSON_SEEDS,
    "application/jsonlines": [
        b'[1, 2, "red", "b"]\n{"features": [1, null, "green", null]}\n',
        b'{"size":1,"age":2,"color":"red","grade":"b"}',
    ],
    "application/x-npy": [npy(), npy("<f8"), npy(">i4"), npy("<f4", fortran=True)],
    "": [*CSV_SEEDS, *JSON_SEEDS],
}


def damaged(chance: random.Random, seeds: list[bytes]) -> bytes:
    """A seed after one to six small accidents."""
    body = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(body) + 1)
        accident = chance.randrange(6)
        if accident == 0 and body:
            body[at % len(body)] = chance.randrange(256)
        elif accident == 1:
            body[at:at] = chance.choice(TOKENS) * chance.choice((1, 1, 1, 2, 40))
        elif accident == 2:
            del body[at : at + chance.randint(1, 8)]
        elif accident == 3:
            body[at:at] = body[: chance.randrange(len(body) + 1)]
        elif accident == 4:
            body += chance.choice(seeds)
        else:
            body[at : at + 4] = chance.choice(TOKENS)
    return bytes(body[:100_000])


@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("media_type", SEEDS, ids=lambda name: name or "unnamed")
@pytest.mark.parametrize("tolerant", [False, True], ids=["fail", "null"])
def test_a_damaged_body_is_a_matrix_or_an_error_of_the_callers(media_type: str, tolerant: bool) -> None:
    chance = random.Random(f"{media_type} {tolerant} {INPUTS}")
    for _ in range(max(1, INPUTS // (2 * len(SEEDS)))):
        body = damaged(chance, SEEDS[media_type])
        started = time.perf_counter()
        status, matrix = outcome(body, media_type, tolerant)
        assert status in {200, 400, 415}, body
        assert matrix.dtype == np.float32
        assert matrix.shape[1] == 4
        assert not np.isinf(matrix).any()
        assert time.perf_counter() - started < LIMIT_S, body


def outcome(body: bytes, media_type: str, tolerant: bool) -> tuple[int, np.ndarray]:
    """The status that a server would answer, and the matrix, empty with an error."""
    try:
        return 200, read_body(body, media_type, SCHEMA, batch=tolerant, faults={} if tolerant else None)
    except UserError as error:
        return error.status, np.empty((0, 4), dtype=np.float32)
    except Exception as error:
        raise AssertionError(f"{media_type}: {body!r}") from error


def parquet(**options: str) -> bytes:
    stream = io.BytesIO()
    columns = {"grade": ["b", None, "1"], "size": [1.5, 2, 3], "color": ["red", "green", "red"], "age": [None, 1, 2]}
    pq.write_table(pa.table(columns), stream, **options)
    return stream.getvalue()


@pytest.mark.timeout(7_200)
def test_parquet_with_changed_bytes_is_a_matrix_or_an_error_of_the_callers() -> None:
    """Between the marks at its ends; what ends the decoder takes half a second, so that there are fewer."""
    chance = random.Random(INPUTS)
    seeds = [parquet(compression=codec) for codec in ("none", "snappy", "gzip", "zstd")]
    for _ in range(max(1, INPUTS // 100)):
        body = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(4, len(body) - 8)] = chance.randrange(256)
        status, matrix = outcome(bytes(body), "application/x-parquet", tolerant=False)
        assert status in {200, 400, 413}, bytes(body)
        assert matrix.shape[1] == 4


def test_a_damaged_gzip_body_is_bytes_or_an_error_of_the_callers() -> None:
    chance = random.Random(INPUTS)
    seeds = [gzip.compress(seed) for seed in CSV_SEEDS]
    for _ in range(max(1, INPUTS // 20)):
        with contextlib.suppress(PayloadTooLarge, UnreadableBody):
            assert len(unzip(damaged(chance, seeds), "gzip", 10_000)) <= 10_000
