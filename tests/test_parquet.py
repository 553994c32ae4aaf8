"""Parquet bodies, written by pyarrow: read as CSV is, on every route; and whatever is in them, the server goes on."""

from __future__ import annotations

import io
import os
import re
import resource
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLE

from contract.declaration import Feature
from contract.errors import BadData, BerthError, Overloaded, PayloadTooLarge, SchemaMismatch, UnreadableBody
from local_test.emulator import Endpoint, serving, stop
from local_test.payloads import csv_body, parquet_body
from local_test.procfs import children
from local_test.runners import Processes
from serving import parquet
from serving.codecs import read_body
from serving.schema import Schema

TYPE = "application/x-parquet"
SCHEMA = Schema(
    [
        Feature("size", ""),
        Feature("age", "", nullable=True),
        Feature("color", "", kind="category", choices=("red", "green", "1", "true")),
    ]
)
TABLE = pa.table({"color": ["green", "red"], "size": [1.5, 2], "age": [None, 3]})
MATRIX = np.float32([[1.5, np.nan, 1], [2, 3, 0]])


def written(table: pa.Table = TABLE, **options: object) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


def replaced(**columns: object) -> pa.Table:
    return pa.table({name: columns.get(name, TABLE[name]) for name in TABLE.column_names})


def crashing(body: bytes) -> bytes:
    """A file of two or three rows, not packed, with one wrong byte, which makes arro3 0.9.1 end its process by SIGABRT.

    A column's levels are four bytes of length and then, without a null, "as many times 1 as there are values".
    """
    damaged = re.sub(rb"\x02\0\0\0[\x04\x06]\x01", lambda found: found[0][:4] + b"\xf9\x01", body, count=1)
    assert damaged != body
    return damaged


WHOLE = written(compression="none", use_dictionary=False)


def is_answered() -> bool:
    """Say whether a good body is, by the decoder that is there or by another."""
    return np.array_equal(read_body(written(), TYPE, SCHEMA), MATRIX, equal_nan=True)


# ---- right answers


@pytest.mark.parametrize("media_type", [TYPE, "Application/VND.apache.parquet; x=1"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_columns_are_read_by_name_whatever_packs_them(media_type: str, compression: str, version: str) -> None:
    body = written(compression=compression, data_page_version=version)
    np.testing.assert_array_equal(read_body(body, media_type, SCHEMA), MATRIX)


@pytest.mark.parametrize(
    "table",
    [
        replaced(color=TABLE["color"].dictionary_encode()),
        replaced(color=TABLE["color"].cast(pa.large_utf8())),
        replaced(size=TABLE["size"].cast(pa.decimal128(5, 1)), age=pa.array([None, 3], pa.uint8())),
        replaced(size=pa.array(np.float16([1.5, 2])), age=pa.array([None, 3], pa.int64()).dictionary_encode()),
    ],
    ids=["dictionary", "large texts", "decimal and integer", "half floats and a dictionary of numbers"],
)
def test_a_type_that_can_mean_the_column_gives_the_same_matrix(table: pa.Table) -> None:
    np.testing.assert_array_equal(read_body(written(table), TYPE, SCHEMA), MATRIX)


def test_integers_and_booleans_are_choices_by_their_spelling() -> None:
    for cells in ([1, 1], [True, True]):
        matrix = read_body(written(replaced(color=cells)), TYPE, SCHEMA)
        assert [SCHEMA.features[2].choices[int(index)] for index in matrix[:, 2]] == [str(cell).lower() for cell in cells]


def test_every_row_of_the_sample_is_read_as_its_csv_is() -> None:
    table = pc.read_csv(next(SAMPLE.glob("*.csv")))
    schema = Schema([Feature(name, "", nullable=True) for name in table.column_names])
    text = io.BytesIO()
    pc.write_csv(table, text)
    body = written(table, row_group_size=100)
    np.testing.assert_array_equal(read_body(body, TYPE, schema), read_body(text.getvalue(), "text/csv", schema))


# ---- what does not fit


@pytest.mark.parametrize(
    ("table", "kind", "words"),
    [
        (replaced(size=[1, None]), BadData, "Row 2, column size: it is empty"),
        (replaced(size=[1, 1e39]), BadData, "Row 2, column size: 1e+39 is not"),
        (replaced(color=["red", "pink"]), BadData, "Row 2, column color: 'pink'"),
        (replaced(color=["red", None]), BadData, "Row 2, column color: it is empty"),
        (replaced(size=["1", "2"]), SchemaMismatch, "Column size is of type Utf8; integers, floats"),
        (replaced(color=[1.0, 2.0]), SchemaMismatch, "Column color is of type Float64; texts, integers"),
        (replaced(size=[[1], [2]]), SchemaMismatch, "Column size is of type List(Int64"),
        (TABLE.drop(["age"]), SchemaMismatch, "missing: age"),
        (TABLE.append_column("more", TABLE["age"]), SchemaMismatch, "unknown: more"),
        (TABLE.slice(0, 0), UnreadableBody, "no row"),
    ],
)
def test_what_does_not_fit_is_named(table: pa.Table, kind: type[BerthError], words: str) -> None:
    assert is_answered()
    before = parquet.DECODER._process
    with pytest.raises(kind, match=re.escape(words)):
        read_body(written(table), TYPE, SCHEMA)
    assert parquet.DECODER._process is before  # it goes on


def test_more_rows_than_a_npy_of_the_limit_holds_are_413() -> None:
    body = written(pa.table({"color": ["red"], "size": [1.0], "age": [1.0]}).take(pa.array(np.zeros(100_000, dtype=np.int32))))
    assert len(body) < 10_000
    with pytest.raises(PayloadTooLarge, match="more than the 87,381 rows"):
        read_body(body, TYPE, SCHEMA, limit=2**20)


# ---- what would crash a server, fill it or hold it up


@pytest.mark.parametrize("body", [WHOLE[:-5], b"PAR1" + b"x" * 20 + b"PAR1", WHOLE[:4] + WHOLE[8:], crashing(WHOLE)])
def test_a_damaged_body_is_told_so_and_the_next_one_is_read(body: bytes, capfd) -> None:
    with pytest.raises(UnreadableBody, match="Parquet"):
        read_body(body, TYPE, SCHEMA)
    assert is_answered()
    assert "panicked" not in capfd.readouterr().err


LONG = pa.DictionaryArray.from_arrays(np.zeros(100_000, dtype=np.int32), [" " * 900_000 + "red"])
BLANKS = pa.table({"color": LONG, "size": np.ones(100_000), "age": np.ones(100_000)})
"""A choice behind as many blanks in every row: 90 GB of text."""


def test_what_would_fill_the_memory_is_refused_and_takes_none_of_the_servers() -> None:
    body = written(BLANKS, store_schema=False)  # not read as a dictionary: each row is a text of its own
    assert len(body) < 200_000
    assert is_answered()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableBody, match="unpack to more than 328 MiB"):
        read_body(body, TYPE, SCHEMA)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 20 * 1024
    assert is_answered()


def test_bodies_at_once_each_get_their_own_matrix() -> None:
    bodies = [
        written(pa.table({"size": [float(size)] * 1_000, "age": [1.0] * 1_000, "color": ["red"] * 1_000})) for size in range(8)
    ]
    with ThreadPoolExecutor(4) as threads:
        matrices = list(threads.map(lambda body: read_body(body, TYPE, SCHEMA), bodies * 3))
    assert [set(matrix[:, 0].tolist()) for matrix in matrices] == [{float(size)} for size in range(8)] * 3


def test_what_would_take_very_long_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr(parquet, "CPU_S", 1)
    monkeypatch.setattr(parquet, "WALL_TIMES", 60)  # the machine may have much else to do
    with pytest.raises(UnreadableBody, match="takes more than 1 s to decode"):
        read_body(written(BLANKS), TYPE, SCHEMA, limit=4 * 2**20)
    assert is_answered()


def test_where_the_machine_is_short_of_time_the_client_is_to_come_again(monkeypatch) -> None:
    monkeypatch.setattr(parquet, "WALL_TIMES", 0.01)
    with pytest.raises(Overloaded) as caught:
        read_body(written(BLANKS), TYPE, SCHEMA)
    assert caught.value.facts["retry_after_s"]
    monkeypatch.undo()
    assert is_answered()


def test_a_fault_of_ours_in_the_decoder_is_no_fault_of_the_body(capfd) -> None:
    lies = SimpleNamespace(names=["size"], features=[{"nothing": 1}])
    with pytest.raises(RuntimeError, match="exit code 1"):
        parquet.Decoder().decode(written(), lies, 2**20)
    assert "TypeError" in capfd.readouterr().err
    assert is_answered()


# ---- a server


@pytest.fixture(scope="module")
def server(trained: Path) -> Iterator[Endpoint]:
    """Of one worker, with Vertex's route."""
    with serving(Processes(), trained, {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "AIP_PREDICT_ROUTE": "/vertex"}) as running:
        yield running


def worker_of(server: Endpoint) -> int:
    return children(server.program.popen.pid)[0]


def test_a_server_that_sees_no_parquet_has_no_decoder_and_then_it_keeps_one(server: Endpoint, manifest: dict) -> None:
    assert server.invoke(csv_body(manifest)).status == 200
    assert children(worker_of(server)) == []
    for _ in range(2):
        assert server.invoke(parquet_body(manifest), TYPE).status == 200
        (decoder,) = children(worker_of(server))
    assert "serving.arrow" in Path(f"/proc/{decoder}/cmdline").read_text()


@pytest.mark.parametrize(
    "path", ["/invocations", "/predict", "/score", "/vertex", "/v1/models/housing:predict"], ids=lambda path: path.strip("/")
)
def test_every_route_that_takes_raw_bodies_answers_json_as_it_does_to_csv(server: Endpoint, manifest: dict, path: str) -> None:
    path = path.replace("housing", manifest["name"])
    reply, same = (
        server.invoke(parquet_body(manifest), TYPE, path=path),
        server.invoke(csv_body(manifest), accept="application/json", path=path),
    )
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json"), reply.text
    assert reply.body == same.body
    refused = server.invoke(crashing(parquet_body(manifest)), TYPE, path=path)
    assert (refused.status, "its decoder crashed" in refused.text) == (400, True)
    assert server.invoke(csv_body(manifest), path=path).status == 200


def test_accept_and_intervals_are_as_with_other_bodies(server: Endpoint, manifest: dict) -> None:
    for accept in ("text/csv", "text/csv; intervals=true", "application/jsonlines"):
        reply, same = server.invoke(parquet_body(manifest), TYPE, accept), server.invoke(csv_body(manifest), "text/csv", accept)
        assert (reply.status, reply.body) == (200, same.body)


def test_a_decoder_goes_with_its_worker_and_a_stop_takes_no_longer_for_it(trained: Path, manifest: dict) -> None:
    with serving(Processes(), trained, {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}) as server:
        gone = []
        for end in (lambda: os.kill(worker_of(server), signal.SIGKILL), lambda: stop(server.program, 10)):
            while server.invoke(parquet_body(manifest), TYPE).status != 200:
                pass
            gone += children(worker_of(server))
            end()
            deadline = time.monotonic() + 10
            while Path(f"/proc/{gone[-1]}").exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
        assert len(set(gone)) == 2
        assert server.program.wait(1) == 0
