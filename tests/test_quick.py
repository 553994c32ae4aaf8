"""What is quick in `serve` answers as what is slow does: rows of numbers alone, requests that come whole, the parser in C."""

import http.client
import importlib.util
import re
import socket
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contract.declaration import Feature
from contract.errors import BerthError
from serving.codecs import read_body
from serving.connection import Connection
from serving.schema import Schema

CSV, JSON, JSONL = "text/csv", "application/json", "application/jsonlines"
SCHEMA = Schema([Feature("a", "a number"), Feature("b", "a number or nothing", nullable=True)])
NUMBERS = [
    "0",
    "-1.5",
    "+2",
    ".5",
    "1.",
    "1e3",
    "1E-3",
    "007",
    "3.4028236e38",
    "3.4028235e38",
    "1e999",
    "1_0",
    "0x1",
    "\u0661",
    "1d3",
]
WORDS = ["", " ", "nan", "NaN", "NA", "null", "inf", "-infinity", "a", "b", "A", '"1"', "#1", "true", "1 2", "\t3", " 4 "]
ENDS = ["\n", "\r\n", "\r", "\n\n", ""]


class Slow(Schema):
    """The same columns, each value read on its own way."""

    def from_plain_text(self, data):
        return None

    def _plain_matrix(self, rows):
        return None


SLOW = Slow(SCHEMA.features)


def outcome(body, media_type, schema):
    """The matrix as bytes, or what is said of the body."""
    try:
        matrix = read_body(body, media_type, schema)
    except BerthError as error:
        return error.code, error.message, error.facts
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    return matrix.shape, matrix.tobytes()


CELLS = st.sampled_from(NUMBERS) | st.sampled_from(NUMBERS + WORDS) | st.floats(width=32).map(repr)
LINES = st.tuples(st.lists(CELLS, min_size=1, max_size=3).map(",".join), st.sampled_from(ENDS))
TEXTS = st.lists(LINES, min_size=1, max_size=6).map(lambda lines: "".join(text + end for text, end in lines).encode())


@pytest.mark.parametrize("media_type", [CSV, f"{CSV}; header=present", f"{CSV}; header=absent"])
@settings(max_examples=600, deadline=None)
@given(body=TEXTS)
@example(body=b"1,2\n\n3,4")
@example(body=b"a,b\n1,2\n3,4")
@example(body=b"b,a\r\n1,2\r\n3,4\r\n")
@example(body=b"1,2\n" * 30_000)
@example(body=b"1,2\r" * 30_000)
@example(body=b"1,\n" * 30_000)
@example(body=b"1,1e39")
@example(body=b"1,nan")
@example(body="\u00a01,2\n3,4".encode())
def test_lines_of_numbers_are_read_as_cell_by_cell(media_type, body):
    assert outcome(body, media_type, SCHEMA) == outcome(body, media_type, SLOW)


VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([None, True, False, "1", "", [1], {}]),
)
ROWS = st.lists(
    st.lists(VALUES, min_size=2, max_size=2) | st.lists(VALUES, max_size=3) | st.fixed_dictionaries({"a": VALUES, "b": VALUES}),
    max_size=5,
)


@settings(max_examples=600, deadline=None)
@given(rows=ROWS)
@example(rows=[[1e39, 2]])
@example(rows=[{"a": 1, "b": 2}, {"a": 1}])
@example(rows=[{"a": 1, "b": 2}, {"a": 1, "c": 2}])
@example(rows=[{"a": 1, "b": 2, "c": 3}])
def test_rows_of_numbers_are_read_as_value_by_value(rows):
    bodies = {JSON: orjson.dumps({"instances": rows}), JSONL: b"\n".join(map(orjson.dumps, rows))}
    for media_type, body in bodies.items():
        assert outcome(body, media_type, SCHEMA) == outcome(body, media_type, SLOW)


@pytest.mark.parametrize("cell", ["", "NA", "NaN", "null", "nan"])
def test_missing_cells_of_many_rows_are_read_at_once(cell, monkeypatch):
    monkeypatch.setattr(SCHEMA, "_find_fault", lambda *_: pytest.fail("cell by cell"), raising=False)
    shape, data = outcome(f"1,{cell}\n2,3\n".encode() * 5_000, CSV, SCHEMA)
    assert shape == (10_000, 2)
    assert np.isnan(np.frombuffer(data, dtype=np.float32)).sum() == 5_000


@pytest.mark.skipif(importlib.util.find_spec("gunicorn_h1c") is None, reason="gunicorn's C parser was not built here")
def test_connections_parse_with_the_parser_in_c():
    connection = Connection.__new__(Connection)
    settings_of = SimpleNamespace(
        http_parser="auto",
        proxy_protocol="off",
        permit_obsolete_folding=False,
        strip_header_spaces=False,
        limit_request_line=4094,
        limit_request_fields=100,
        limit_request_field_size=8190,
        permit_unconventional_http_method=False,
        permit_unconventional_http_version=False,
    )
    connection.cfg = settings_of
    connection._setup_callback_parser()
    assert type(connection._callback_parser).__name__ == "H1CProtocol"


GOOD = b"0,6.575,296,15.3,396.9,4.98"
REQUESTS = (
    ("POST", "/invocations", {"content-type": CSV}, GOOD),
    ("POST", "/invocations", {"content-type": CSV}, b"x"),
    ("POST", "/invocations", {"content-type": CSV}, b"\n".join([GOOD] * 2_000)),
    ("GET", "/ping", {}, b""),
    ("HEAD", "/ping", {}, b""),
    ("GET", "/invocations", {}, b""),
    ("POST", "/no/such", {"content-type": CSV}, GOOD),
    ("POST", "/predict", {"content-type": JSON}, b"[[0, 6.5, 296, 15.3, 396.9, 4.9]]"),
    ("GET", "/metadata", {}, b""),
    ("POST", "/invocations", {"content-type": CSV, "expect": "100-continue"}, GOOD),
)


def written(method, path, headers, body):
    length = {"content-length": str(len(body))} if method == "POST" else {}
    lines = [
        f"{method} {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in {"host": "here", **headers, **length}.items()),
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode() + body


def answers(endpoint, parts):
    """Status and body of every request's answer, where the bytes of all go out in parts."""
    url = urlsplit(endpoint.program.url)
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
            time.sleep(0.005 if len(parts) > 1 else 0)
        stream = connection.makefile("rb")
        return [answer(stream, method) for method, *_ in REQUESTS]


def answer(stream, method):
    response = http.client.HTTPResponse(SimpleNamespace(makefile=lambda _: stream), method=method)
    response._close_conn = lambda: None  # the next answer comes from the same stream
    response.begin()
    body = response.read()
    return response.status, dict(response.headers.items()) | {"Date": ""}, re.sub(rb'"request_id":"[^"]*"', b"", body)


@pytest.mark.parametrize("size", [None, 7_000, 97, 0], ids=["one at a time", "in large parts", "in small parts", "all at once"])
def test_requests_are_answered_the_same_however_their_bytes_come(endpoint, size):
    whole = [written(*request) for request in REQUESTS]
    stream = b"".join(whole)
    parts = (
        whole
        if size is None
        else [stream[at : at + (size or len(stream))] for at in range(0, len(stream), size or len(stream))]
    )
    found, expected = answers(endpoint, parts), answers(endpoint, [stream])
    assert [status for status, _, _ in found] == [200, 400, 200, 200, 200, 405, 404, 200, 200, 200]
    assert found == expected
