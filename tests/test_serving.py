"""`serve` through real HTTP: right answers, hostile bodies, damaged models, signals and kills."""

import asyncio
import contextlib
import csv
import dataclasses
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

import joblib
import numpy as np
import pytest

from contract.errors import BadSetting
from contract.manifest import read_manifest, write_manifest
from local_test import payloads
from local_test.emulator import serving, stop
from local_test.runners import Processes
from serving.app import App
from serving.predictor import load_predictor
from serving.settings import MIB, Settings

ROOT = Path(__file__).resolve().parent.parent
CSV, JSON, JSONL, NPY = "text/csv", "application/json", "application/jsonlines", "application/x-npy"
ROW = "0,6.575,296,15.3,396.9,4.98"
GOOD = [0, 6.575, 296, 15.3, 396.9, 4.98]
NAMES = ["CHAS", "RM", "TAX", "PTRATIO", "B", "LSTAT"]
RECORD = dict(zip(NAMES, GOOD, strict=True))


@pytest.fixture(scope="module")
def model(model_dir):
    """scikit-learn's own model."""
    return joblib.load(model_dir / "model.joblib")


@pytest.fixture(scope="module")
def answer(model):
    """What scikit-learn says of ROW."""
    return float(model.predict(np.float32([GOOD]))[0])


@pytest.fixture(scope="module")
def bound(manifest):
    """How far ONNX may be from scikit-learn."""
    return manifest["parity"]["bound"]


def numbers(reply):
    """The predictions of a reply, whatever its format."""
    media_type = reply.headers["content-type"]
    if media_type == CSV:
        return [float(line) for line in reply.text.split("\n")]
    if media_type == NPY:
        return np.load(io.BytesIO(reply.body)).tolist()
    if media_type == JSON:
        document = json.loads(reply.body)
        return document.get("predictions") or document["prediction"]
    return [json.loads(line)["prediction"] for line in reply.text.split("\n")]


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


# ---- hostile bodies


def case(body, media_type, status=400, code="", words=(), row=None, column=None):
    return (body.encode() if isinstance(body, str) else body), media_type, status, code, words, row, column


def bad_cell(body, media_type, row, column, *words):
    return case(body, media_type, 400, "bad_data", [f"Row {row}, column {column}", *words], row, column)


def ok(body, media_type=CSV):
    return case(body, media_type, 200)


BAD, SCHEMA, UNREAD = "bad_data", "schema_mismatch", "unreadable_body"
LIST = str(GOOD)
HOSTILE = {
    "empty": case("", CSV, 400, UNREAD, ["empty", "at least one row"]),
    "empty JSON": case("", JSON, 400, UNREAD, ["empty"]),
    "whitespace only": case(" \r\n\t\n", CSV, 400, UNREAD, ["empty"]),
    "byte-order mark only": case(b"\xef\xbb\xbf", CSV, 400, UNREAD, ["no row"]),
    "header only": case(",".join(NAMES), CSV, 400, UNREAD, ["no row"]),
    "too short": case("1,2,3", CSV, 400, SCHEMA, ["Row 1 has 3 values; the model takes 6: CHAS, RM"], 1),
    "too long": case(ROW + ",7", CSV, 400, SCHEMA, ["Row 1 has 7 values; the model takes 6"], 1),
    "too short in row 3": case(f"{ROW}\n{ROW}\n1,2\n{ROW}", CSV, 400, SCHEMA, ["Row 3 has 2 values"], 3),
    "too long in row 3, below a header": case(
        f"{','.join(NAMES)}\n{ROW}\n{ROW}\n{ROW},9", CSV, 400, SCHEMA, ["Row 3 has 7"], 3
    ),
    "semicolons": case(ROW.replace(",", ";"), CSV, 400, SCHEMA, ["Row 1 has 1 value;"], 1),
    "blank line in the middle": case(f"{ROW}\n\n{ROW}", CSV, 400, SCHEMA, ["Row 2 is blank"], 2),
    "text in a number": bad_cell(f"{ROW}\n0,six,296,15.3,396.9,4.98", CSV, 2, "RM", "'six'"),
    "NaN": bad_cell("0,NaN,296,15.3,396.9,4.98", CSV, 1, "RM", "NaN"),
    "inf": bad_cell("0,6,296,inf,396.9,4.98", CSV, 1, "PTRATIO", "inf"),
    "-Infinity": bad_cell("0,6,296,-Infinity,396.9,4.98", CSV, 1, "PTRATIO"),
    "empty cell": bad_cell(f"{ROW}\n0,6,,15.3,396.9,4.98", CSV, 2, "TAX", "empty"),
    "1e39": bad_cell(f"{ROW}\n0,6,1e39,15.3,396.9,4.98", CSV, 2, "TAX", "float32"),
    "the largest float32": ok("0,6,3.4028235e38,15.3,396.9,4.98"),
    "1_000": bad_cell("0,6,1_000,15.3,396.9,4.98", CSV, 1, "TAX", "1_000"),
    "Arabic digits": bad_cell("0,6,٣,15.3,396.9,4.98", CSV, 1, "TAX"),
    "hexadecimal": bad_cell("0,6,0x10,15.3,396.9,4.98", CSV, 1, "TAX", "0x10"),
    "a thousands separator": case('0,6,"1,000",15.3,396.9,4.98', CSV, 400, BAD, ["1,000"], 1, "TAX"),
    "NUL in a cell": bad_cell(ROW + "\0", CSV, 1, "LSTAT"),
    "NULs": case(b"\0" * 100, CSV, 400, SCHEMA, ["Row 1"], 1),
    "markup": case("<script>alert(1)</script>,2,3,4,5,6", CSV, 400, BAD, ["<script>"], 1, "CHAS"),
    "unclosed quote": case(f'{ROW}\n"0,6,296,15.3,396.9,4.98', CSV, 400, UNREAD, ["not CSV", "line 2"]),
    "text after a quote": case('"0"x,6,296,15.3,396.9,4.98', CSV, 400, UNREAD, ["not CSV", "line 1"]),
    "a cell of 200,000 characters": case("0,6,296,15.3,396.9," + "4" * 200_000, CSV, 400, UNREAD, ["field larger"]),
    "byte-order mark": ok(b"\xef\xbb\xbf" + ROW.encode()),
    "CRLF": ok(f"{ROW}\r\n"),
    "CR": ok(f"{ROW}\r"),
    "blank last lines": ok(f"{ROW}\n\r\n\n"),
    "quoted cells": ok(",".join(f'"{cell}"' for cell in ROW.split(","))),
    "spaces": ok(ROW.replace(",", " , ")),
    "header": ok(f"{','.join(NAMES)}\n{ROW}"),
    "header with a column twice": case(f"CHAS,RM,RM,PTRATIO,B,LSTAT\n{ROW}", CSV, 400, SCHEMA, ["twice: RM", "missing: TAX"]),
    "header lacking a column": case("CHAS,RM,TAX,B,LSTAT\n1,2,3,4,5", CSV, 400, SCHEMA, ["missing: PTRATIO"]),
    "header with an unknown column": case(f"CHAS,RM,TAX,PTRATIO,B,LSTAT,AGE\n{ROW},1", CSV, 400, SCHEMA, ["unknown: AGE"]),
    "header in small letters": case(
        f"{','.join(NAMES).lower()}\n{ROW}", CSV, 400, SCHEMA, ["unknown: b, chas", "missing: CHAS"]
    ),
    "300-column header": case(",".join(["RM", *(f"column_{i}" for i in range(299))]), CSV, 400, SCHEMA, ["missing: CHAS"]),
    "header of 20,000 long names": case(",".join(["RM", *(f"column_{i}" for i in range(20_000))]), CSV, 400, SCHEMA, ["RM"]),
    "a name of 3 MB": case("RM," + "x" * 100_000, CSV, 400, SCHEMA, ["missing: CHAS", "xxx..."]),
    "unknown charset": case(ROW, "text/csv; charset=ebcdic", 415, "unsupported_media_type", ["ebcdic", "utf-8"]),
    "invalid UTF-8": case(b"0,6,\xff,15.3,396.9,4.98", CSV, 400, UNREAD, ["not utf-8", "0xff at 4"]),
    "UTF-16 that is said": ok(ROW.encode("utf-16"), "text/csv; charset=utf-16"),
    "UTF-16 that is not said": case(ROW.encode("utf-16"), CSV, 400, UNREAD, ["not utf-8", "0xff at 0"]),
    "half of UTF-16": case(b"\xff\xfe0", "text/csv; charset=utf-16", 400, UNREAD, ["not utf-16"]),
    "unknown content type": case(ROW, "application/pdf", 415, "unsupported_media_type", ["application/pdf", "text/csv"]),
    "deep nesting": case("[" * 100_000, JSON, 400, UNREAD, ["depth"]),
    "deep nesting in a cell": case(f"[[0,6,{'[' * 900}{']' * 900},15,396,4]]", JSON, 400, BAD, ["Row 1, column TAX"], 1, "TAX"),
    "JSON cut off": case('{"instances": [[1, 2', JSON, 400, UNREAD, ["not JSON", "line 1 column"]),
    "JSON number": case("5", JSON, 400, UNREAD, ["a number stands where a list"]),
    "JSON text": case('"abc"', JSON, 400, UNREAD, ["a text stands"]),
    "JSON null": case("null", JSON, 400, UNREAD, ["null stands"]),
    "JSON true": case("true", JSON, 400, UNREAD, ["a boolean stands"]),
    "JSON empty list": case("[]", JSON, 400, UNREAD, ["no row"]),
    "JSON empty object": case("{}", JSON, 400, SCHEMA, ["missing: CHAS"]),
    "JSON a row that is not in a list": case(LIST, JSON, 400, UNREAD, ["Row 1 is a number"], 1),
    "instances are no list": case('{"instances": 5}', JSON, 400, UNREAD, ["a number stands"]),
    "instances are null": case('{"instances": null}', JSON, 400, UNREAD, ["null stands"]),
    "instances are empty": case('{"instances": []}', JSON, 400, UNREAD, ["no row"]),
    "an empty row": case('{"instances": [[]]}', JSON, 400, SCHEMA, ["Row 1"], 1),
    "rows of mixed widths": case(f'{{"instances": [{LIST}, [1, 2]]}}', JSON, 400, SCHEMA, ["Row 2 has 2 values"], 2),
    "rows of mixed shapes": case(f'{{"instances": [{LIST}, 7]}}', JSON, 400, UNREAD, ["Row 2 is a number"], 2),
    "numbers as texts": bad_cell('[["0", 6, 296, 15.3, 396.9, 4.98]]', JSON, 1, "CHAS", "text '0'", "no quotes"),
    "null": bad_cell(f"[{LIST}, [0, 6, null, 15.3, 396.9, 4.98]]", JSON, 2, "TAX", "null"),
    "true and false": ok("[[false, 6.575, 296, 15.3, 396.9, 4.98]]", JSON),
    "huge integer": bad_cell(f"[[0, 6, {'9' * 100}, 15.3, 396.9, 4.98]]", JSON, 1, "TAX", "float32"),
    "integer beyond doubles": case(f"[[0, 6, {'9' * 400}, 15.3, 396.9, 4.98]]", JSON, 400, UNREAD, ["not JSON"]),
    "list in a cell": bad_cell("[[0, [6], 296, 15.3, 396.9, 4.98]]", JSON, 1, "RM", "[6]"),
    "object in a cell": bad_cell("[[0, 6, 296, 15.3, 396.9, {}]]", JSON, 1, "LSTAT", "{}"),
    "NaN literal": case(f"[{LIST}, [0, NaN, 296, 15.3, 396.9, 4.98]]", JSON, 400, UNREAD, ["JSON has no NaN", "null"]),
    "record lacking RM": case(
        json.dumps([RECORD, {name: 1 for name in NAMES if name != "RM"}]), JSON, 400, SCHEMA, ["Row 2", "missing: RM"], 2
    ),
    "record with an extra key": case(json.dumps([{**RECORD, "AGE": 1}]), JSON, 400, SCHEMA, ["Row 1", "unknown: AGE"], 1),
    "record of 20,000 keys": case(json.dumps([{f"k{i}": 1 for i in range(20_000)}]), JSON, 400, SCHEMA, ["Row 1"], 1),
    "columns of different lengths": case(
        json.dumps({name: [1] * (2 if name == "B" else 1) for name in NAMES}), JSON, 400, SCHEMA, ["lengths", "B 2", "TAX 1"]
    ),
    "columns with other row labels": case(
        json.dumps({name: {"0" if name != "B" else "1": 1} for name in NAMES}), JSON, 400, SCHEMA, ["Column B"], None, "B"
    ),
    "columns lacking one": case(json.dumps({name: [1] for name in NAMES[1:]}), JSON, 400, SCHEMA, ["missing: CHAS"]),
    "a column that is no list": case(
        json.dumps({name: 1 if name == "B" else [1] for name in NAMES}), JSON, 400, UNREAD, ["Column B"], None, "B"
    ),
    "split without columns": case('{"dataframe_split": {"data": [[1]]}}', JSON, 400, UNREAD, ["dataframe_split takes"]),
    "split that is a list": case('{"dataframe_split": [1]}', JSON, 400, UNREAD, ["dataframe_split takes"]),
    "split with lists for names": case(
        '{"dataframe_split": {"columns": [[], [], [], [], [], []], "data": []}}', JSON, 400, UNREAD, ["names"]
    ),
    "split with a row that is no list": case(
        json.dumps({"dataframe_split": {"columns": NAMES, "data": [GOOD, 1]}}), JSON, 400, UNREAD, ["Row 2"], 2
    ),
    "split without rows": case(json.dumps({"dataframe_split": {"columns": NAMES, "data": []}}), JSON, 400, UNREAD, ["no row"]),
    "invalid UTF-8 in JSON": case(b'[[0, "\xff"]]', JSON, 400, UNREAD, ["not utf-8", "0xff at 6"]),
    "byte-order mark and JSON": ok(b"\xef\xbb\xbf" + json.dumps([GOOD]).encode(), JSON),
    "JSON Lines, line 2 broken": case(f"{LIST}\n[0, 6,\n{LIST}", JSONL, 400, UNREAD, ["Row 2 is not JSON"], 2),
    "JSON Lines, two rows on a line": case(f"{LIST},{LIST}", JSONL, 400, UNREAD, ["Row 1 is not JSON"], 1),
    "JSON Lines, blank line in the middle": case(f"{LIST}\n\n{LIST}", JSONL, 400, UNREAD, ["Row 2 is blank"], 2),
    "JSON Lines, a list of lists": bad_cell(f"[{','.join([LIST] * 6)}]", JSONL, 1, "CHAS"),
    "JSON Lines, wrong width": case(f"{LIST}\n[1]", JSONL, 400, SCHEMA, ["Row 2 has 1 value"], 2),
    "JSON Lines, NaN": case(f"{LIST}\n[0,NaN,1,1,1,1]", JSONL, 400, UNREAD, ["Row 2", "JSON has no NaN"], 2),
    "JSON Lines, CRLF and blank last line": ok(f"{LIST}\r\n\r\n", JSONL),
    "npy, not one": case(ROW, NPY, 400, UNREAD, ["not a .npy"]),
    "npy, a pickle": case(npy(np.array([[{}] * 6], dtype=object), allow_pickle=True), NPY, 400, UNREAD, ["never unpickled"]),
    "npy, truncated": case(npy(np.float32([GOOD]))[:-3], NPY, 400, UNREAD, ["(1, 6)", "21 bytes follow"]),
    "npy, a lie about its size": case(
        npy(np.float32([GOOD])).replace(b"(1, 6), }   ", b"(1000, 6), }"), NPY, 400, UNREAD, ["(1000, 6)", "24 bytes"]
    ),
    "npy, one dimension": case(npy(np.float32(GOOD)), NPY, 400, SCHEMA, ["(6,)", "(rows, 6)"]),
    "npy, another width": case(npy(np.ones((2, 7), "f4")), NPY, 400, SCHEMA, ["(2, 7)", "CHAS, RM"]),
    "npy, complex": case(npy(np.ones((1, 6), complex)), NPY, 400, UNREAD, ["complex128"]),
    "npy, NaN": bad_cell(npy(np.float32([GOOD, [0, np.nan, 1, 1, 1, 1]])), NPY, 2, "RM", "NaN"),
    "npy, double beyond float32": bad_cell(npy(np.array([[0, 1e39, 1, 1, 1, 1]])), NPY, 1, "RM", "1e+39"),
    "npy, big-endian": ok(npy(np.array([GOOD], dtype=">f4")), NPY),
    "npy, Fortran order": ok(npy(np.asfortranarray(np.float32([GOOD, GOOD]))), NPY),
    "npy, float64": ok(npy(np.array([GOOD])), NPY),
    "npy, 0 rows": case(npy(np.ones((0, 6), "f4")), NPY, 400, UNREAD, ["no row"]),
}


@pytest.mark.parametrize(
    ("body", "media_type", "status", "code", "words", "row", "column"), HOSTILE.values(), ids=HOSTILE.keys()
)
def test_a_hostile_body_gets_its_error_and_the_next_request_its_answer(
    endpoint, answer, bound, body, media_type, status, code, words, row, column
):
    reply = endpoint.invoke(body, media_type)
    assert reply.status == status, reply.text
    if status == 200:
        assert len(numbers(reply)) >= 1
    else:
        check_error(reply, code, words, row, column)
    assert numbers(endpoint.invoke(ROW.encode())) == pytest.approx([answer], abs=bound)


def check_error(reply, code="", words=(), row=None, column=None):
    """An error is small, is JSON, says its facts, and shows nothing of ours."""
    document = json.loads(reply.body)
    assert reply.headers["content-type"] == JSON
    assert len(reply.body) <= 2_048
    assert document["error"] == (code or document["error"])
    assert document["request_id"]
    assert all(word in document["message"] for word in words), document["message"]
    assert (document.get("row"), document.get("column")) == (row, column)
    assert "Traceback" not in reply.text
    assert ROOT.name + "/serving" not in reply.text
    return document


def test_a_body_at_the_limit_is_taken_and_one_byte_more_is_413(endpoint, answer, bound):
    limit = 25 * MIB
    body = ROW.encode() + b"\n" * (limit - len(ROW))
    assert numbers(endpoint.invoke(body)) == pytest.approx([answer], abs=bound)
    reply = endpoint.invoke(body + b"\n")
    assert reply.status == 413
    assert check_error(reply, "payload_too_large", ["26,214,401 bytes", "26,214,400"])["limit_bytes"] == limit
    assert numbers(endpoint.invoke(ROW.encode())) == pytest.approx([answer], abs=bound)


@pytest.mark.parametrize("path", ["/invocations", "/predict"])
def test_the_callers_inference_id_comes_back_in_an_error(endpoint, path):
    assert request(endpoint, "POST", path, b"x", {"X-Amzn-SageMaker-Inference-Id": "mine-1"})["request_id"] == "mine-1"
    assert request(endpoint, "POST", path, b"x", {"X-Amzn-SageMaker-Inference-Id": "y" * 65})["request_id"] != "y" * 65


def request(endpoint, method, path, body=None, headers=None):
    """The JSON of an answer to a request with headers of its own."""
    with connection(endpoint) as line:
        line.request(method, path, body, headers or {})
        return json.loads(line.getresponse().read())


def connection(endpoint, timeout_s=60):
    """A kept connection, closed at the end of a `with`."""
    return contextlib.closing(http.client.HTTPConnection(urlsplit(endpoint.program.url).netloc, timeout=timeout_s))


# ---- right answers


@pytest.fixture(scope="module")
def sample():
    """The six features of all 506 rows, as texts."""
    with (ROOT / "model" / "sample" / "boston_house_prices.csv").open(newline="") as file:
        return [[row[name] for name in NAMES] for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def expected(sample, model):
    """What scikit-learn's model says of them."""
    return model.predict(np.array(sample, dtype=np.float32))


def as_numbers(rows):
    return [list(map(float, row)) for row in rows]


WHOLE = {
    "CSV": (CSV, lambda rows: "\n".join(map(",".join, rows)).encode()),
    "JSON": (JSON, lambda rows: json.dumps({"instances": as_numbers(rows)}).encode()),
    "JSON Lines": (JSONL, lambda rows: "\n".join(map(json.dumps, as_numbers(rows))).encode()),
    "npy": (NPY, lambda rows: npy(np.array(rows, dtype=np.float32))),
}


@pytest.mark.parametrize(("media_type", "write"), WHOLE.values(), ids=WHOLE.keys())
def test_every_row_of_the_data_is_predicted_as_scikit_learn_does(endpoint, sample, expected, bound, media_type, write):
    answers = numbers(endpoint.invoke(write(sample), media_type))
    assert len(answers) == 506
    assert np.abs(np.array(answers) - expected).max() <= bound


def test_a_row_alone_and_the_same_row_in_a_batch_give_the_identical_text(endpoint, sample):
    batch = endpoint.invoke("\n".join(map(",".join, sample)).encode()).text.split("\n")
    with connection(endpoint) as line:
        alone = []
        for row in sample:
            line.request("POST", "/invocations", ",".join(row), {"Content-Type": CSV})
            alone.append(line.getresponse().read().decode())
    assert alone == batch
    assert len(set(alone)) > 400


TWO = [GOOD, [0, 6.421, 242, 17.8, 396.9, 9.14]]
TWO_RECORDS = [dict(zip(NAMES, row, strict=True)) for row in TWO]
TWO_LINES = "\n".join(",".join(map(str, row)) for row in TWO)
TURNED = [[row[i] for i in (5, 3, 1, 0, 2, 4)] for row in TWO]
TURNED_NAMES = [NAMES[i] for i in (5, 3, 1, 0, 2, 4)]
SHAPES = {
    "CSV": (CSV, TWO_LINES),
    "CSV with a header": (CSV, ",".join(NAMES) + "\n" + TWO_LINES),
    "CSV with a header in another order": (
        CSV,
        "\r\n".join([",".join(TURNED_NAMES), *(",".join(map(str, row)) for row in TURNED), ""]),
    ),
    "CSV with parameters": ("text/csv; header=absent; charset=utf-8", TWO_LINES),
    "CSV from plain curl": ("application/x-www-form-urlencoded", TWO_LINES),
    "instances of lists": (JSON, {"instances": TWO}),
    "instances of records": (JSON, {"instances": TWO_RECORDS}),
    "instances of features": (JSON, {"instances": [{"features": row} for row in TWO]}),
    "records": (JSON, TWO_RECORDS),
    "lists": (JSON, TWO),
    "columns by label": (JSON, {name: {"0": TWO[0][i], "1": TWO[1][i]} for i, name in enumerate(NAMES)}),
    "columns": (JSON, {name: [row[i] for row in TWO] for i, name in enumerate(NAMES)}),
    "split": (JSON, {"dataframe_split": {"columns": NAMES, "data": TWO}}),
    "split in another order, with an index": (
        JSON,
        {"dataframe_split": {"columns": TURNED_NAMES, "index": [7, 8], "data": TURNED}},
    ),
    "JSON from plain curl": ("application/x-www-form-urlencoded", {"instances": TWO}),
    "JSON with a charset": ("application/json; charset=utf-8", {"instances": TWO}),
    "JSON Lines of lists": (JSONL, "\n".join(map(json.dumps, TWO))),
    "JSON Lines of features": (JSONL, "\n".join(json.dumps({"features": row}) for row in TWO)),
    "JSON Lines of Clarify's features": (JSONL, "\n".join(json.dumps({"data": {"features": row}}) for row in TWO)),
    "JSON Lines of records": ("application/x-ndjson", "\n".join(map(json.dumps, TWO_RECORDS)) + "\n"),
    "npy": (NPY, npy(np.float32(TWO))),
}


@pytest.mark.parametrize("path", ["/invocations", "/predict"])
@pytest.mark.parametrize(("media_type", "body"), SHAPES.values(), ids=SHAPES.keys())
def test_every_shape_of_a_request_gives_the_same_answers(endpoint, model, bound, media_type, body, path):
    raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    reply = endpoint.invoke(raw, media_type, path=path)
    assert numbers(reply) == pytest.approx(model.predict(np.float32(TWO)).tolist(), abs=bound)
    assert not reply.body.endswith(b"\n") or media_type == NPY
    if path == "/predict":
        assert list(json.loads(reply.body)) == ["prediction"]


MAKERS = {
    CSV: payloads.csv_body,
    JSON: payloads.json_body,
    JSONL: payloads.jsonlines_body,
    NPY: payloads.npy_body,
    "application/x-parquet": payloads.parquet_body,
}


@pytest.mark.parametrize(("media_type", "make"), MAKERS.items(), ids=MAKERS)
def test_the_payloads_made_from_the_manifest_get_the_answers_stored_in_it(endpoint, manifest, bound, media_type, make):
    stored = [sample["prediction"] for sample in manifest["samples"]]
    assert numbers(endpoint.invoke(make(manifest), media_type)) == pytest.approx(stored, abs=bound)


ACCEPTS = {
    "nothing, CSV": ("", CSV, CSV),
    "nothing, npy": ("", NPY, NPY),
    "anything, JSON Lines": ("*/*", JSONL, JSONL),
    "JSON": (JSON, CSV, JSON),
    "JSON with a charset": ("application/json; charset=utf-8", CSV, JSON),
    "CSV from JSON": (CSV, JSON, CSV),
    "npy": (NPY, CSV, NPY),
    "a list with weights": ("text/csv;q=0.2, application/jsonlines;q=0.7, text/html", JSON, JSONL),
    "a browser's": ("text/html,*/*;q=0.8", CSV, CSV),
}
BODIES = {CSV: ROW.encode(), JSON: json.dumps([GOOD]).encode(), JSONL: LIST.encode(), NPY: npy(np.float32([GOOD]))}


@pytest.mark.parametrize(("accept", "media_type", "expected_type"), ACCEPTS.values(), ids=ACCEPTS.keys())
def test_accept_chooses_the_format_of_the_answer(endpoint, answer, bound, accept, media_type, expected_type):
    reply = endpoint.invoke(BODIES[media_type], media_type, accept)
    assert reply.headers["content-type"] == expected_type
    assert numbers(reply) == pytest.approx([answer], abs=bound)


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "text/" + "x" * 5_000, "nonsense"], ids=lambda value: value[:10])
def test_an_accept_that_cannot_be_written_is_406(endpoint, accept):
    reply = endpoint.invoke(ROW.encode(), CSV, accept)
    assert reply.status == 406
    check_error(reply, "not_acceptable", ["text/csv, application/json, application/jsonlines"])


# ---- the other routes


def exchange(endpoint, method, path, body=None):
    """(status, headers, body) of a request of any method."""
    with connection(endpoint) as line:
        line.request(method, path, body)
        reply = line.getresponse()
        return reply.status, reply.headers, reply.read()


def test_ping_is_200_without_a_body(endpoint):
    for method, path in [("GET", "/ping"), ("HEAD", "/ping"), ("GET", "/ping?x=1")]:
        status, headers, body = exchange(endpoint, method, path)
        assert (status, headers["content-length"], body) == (200, "0", b"")


WRONG = {
    "POST /ping": ("POST", "/ping", 405, "GET, HEAD"),
    "GET /invocations": ("GET", "/invocations", 405, "POST"),
    "DELETE /predict": ("DELETE", "/predict", 405, "POST"),
    "POST /": ("POST", "/", 405, "GET, HEAD, OPTIONS"),
    "PUT /metadata": ("PUT", "/metadata", 405, "GET, HEAD, OPTIONS"),
    "GET /ping/": ("GET", "/ping/", 404, None),
    "POST /invocations/": ("POST", "/invocations/", 404, None),
    "GET /nothing": ("GET", "/nothing", 404, None),
    "GET a path that is no UTF-8": ("GET", "/%ff%00%0d%0a", 404, None),
    "GET up": ("GET", "/../../etc/passwd", 404, None),
}


@pytest.mark.parametrize(("method", "path", "status", "allow"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_path_or_method_is_told_in_json(endpoint, method, path, status, allow):
    found, headers, body = exchange(endpoint, method, path, ROW if method in {"POST", "PUT"} else None)
    assert (found, headers["allow"]) == (status, allow)
    assert headers["content-type"] == JSON
    assert json.loads(body)["error"] == {404: "not_found", 405: "method_not_allowed"}[status]


def test_the_home_page_shows_the_title_and_a_call_that_works(endpoint, manifest):
    page = endpoint.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert manifest["title"] in page.text
    media_type, body, path = re.search(
        r"curl -H 'Content-Type: (\S+)' -d '([^']+)' http://localhost:8080([^\s<]+)", unescape(page.text)
    ).groups()
    reply = endpoint.invoke(body.encode(), media_type, path=path)
    assert reply.status == 200
    assert len(numbers(reply)) == 1


def test_metadata_is_the_manifest_and_the_image_that_serves_it(trained, manifest):
    with serving(Processes(), trained, {"BERTH_VERSION": "1.2.3", "BERTH_REVISION": "abc"}) as endpoint:
        reply = endpoint.get("/metadata")
    assert reply.headers["content-type"] == JSON
    assert json.loads(reply.body) == {**manifest, "served_by": {"version": "1.2.3", "revision": "abc"}}


def test_head_answers_the_headers_of_get_alone_and_logs_nothing(endpoint):
    before = endpoint.program.output()
    for path, status in [("/", 200), ("/metadata", 200), ("/nothing", 404), ("/invocations", 405)]:
        found, _, body = exchange(endpoint, "HEAD", path)
        assert (found, body) == (status, b"")
    assert endpoint.program.output() == before


# ---- the wire

HOST = b"Host: x\r\n"
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDAwMDAwMDAwMDAwMDAwMA==\r\n"
)
POST = b"POST /invocations HTTP/1.1\r\n" + HOST + b"Content-Type: text/csv\r\n"
WIRE = {
    "no HTTP": (b"\x00\x01\x02\r\n\r\n", b"400"),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n", b"400"),
    "HTTP/0.9": (b"GET /ping HTTP/0.9\r\n\r\n", b"400"),
    "a header of 100 KB": (b"GET /ping HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 100_000 + b"\r\n\r\n", b"431"),
    "1,000 headers": (b"GET /ping HTTP/1.1\r\n" + b"".join(b"X%d: a\r\n" % i for i in range(1_000)) + b"\r\n", b"4"),
    "a path of 20 KB": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", b"414"),
    "a negative length": (POST + b"Content-Length: -5\r\n\r\nabc", b"400"),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", b"400"),
    "length and chunks": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
    "a chunk of size zz": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", b"400"),
    "a chunk longer than it says": (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef0\r\n\r\n", b"400"),
    "good chunks": (
        POST
        + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\n0,6\r\n18\r\n.575,296,15.3,396.9,4.98\r\n0\r\n\r\n",
        b"200",
    ),
    "a body cut off": (POST + b"Content-Length: 500\r\n\r\nabc", b""),
    "a header cut off": (b"POST /invoc", b""),
    "a WebSocket at /ping": (b"GET /ping HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n", b"403"),
    "a WebSocket at /": (b"GET / HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n", b"403"),
    "a query that is no ASCII": (b"GET /?\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n", b"400"),
    "a host that is none": (b"GET /nothing HTTP/1.1\r\nHost: a b<script>\r\nConnection: close\r\n\r\n", b"404"),
    "bytes in Content-Type and Accept": (
        POST.replace(b"text/csv", b"\xff\xfe") + b"Accept: \xff\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1",
        b"4",
    ),
}


@pytest.mark.parametrize(("data", "status"), WIRE.values(), ids=WIRE.keys())
def test_what_is_no_proper_http_leaves_no_trace_but_its_refusal(endpoint, answer, bound, data, status):
    address = urlsplit(endpoint.program.url)
    with socket.create_connection((address.hostname, address.port), 10) as line:
        with contextlib.suppress(OSError):  # refused before all of it was read
            line.sendall(data)
            line.shutdown(socket.SHUT_WR) if not status else None
        reply = b""
        with contextlib.suppress(ConnectionResetError):
            reply = line.recv(65_536)
    assert reply.startswith(b"HTTP/1.1 " + status if status else b"")
    assert numbers(endpoint.invoke(ROW.encode())) == pytest.approx([answer], abs=bound)
    assert "Traceback" not in endpoint.program.output()


def test_ping_answers_while_a_large_body_is_computed(endpoint):
    body = (ROW.encode() + b"\n") * (20 * MIB // (len(ROW) + 1))
    replies = []
    thread = threading.Thread(target=lambda: replies.append(endpoint.invoke(body, accept=NPY)))
    thread.start()
    slowest = 0.0
    while thread.is_alive():
        slowest = max(slowest, endpoint.ping().seconds)
        time.sleep(0.01)
    assert replies[0].status == 200
    assert slowest < 1, "the platform waits 2 s (H-8)"


# ---- what is loaded


@pytest.fixture
def base(model_dir, tmp_path):
    """An /opt/ml with a copy of the model, to be damaged."""
    shutil.copytree(model_dir, tmp_path / "ml" / "model")
    return tmp_path / "ml"


def refused(base, environ=None):
    """(exit code, output) of a `serve` that ends by itself."""
    program = Processes().start("serve", base, environ or {})
    try:
        return program.wait(60), program.output()
    except subprocess.TimeoutExpired:
        stop(program, 30)
        raise


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


DAMAGES = {"changed": (flip_a_byte, "sha256"), "truncated": (truncate, "bytes"), "missing": (Path.unlink, "can't be read")}


@pytest.mark.parametrize(("damage", "word"), DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("name", ["model.onnx", "model.joblib"])
def test_a_damaged_file_stops_the_start_and_is_named(base, name, damage, word):
    damage(base / "model" / name)
    code, output = refused(base)
    assert code == 2
    assert f"model/{name} " in output
    assert word in output
    assert "Traceback" not in output


def edit(base, **changes):
    """Change the manifest as JSON, leaving the files it names as they are."""
    path = base / "model" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


MANIFESTS = {
    "missing": (Path.unlink, "can't be read"),
    "truncated": (truncate, "not a manifest"),
    "empty": (lambda path: path.write_text(""), "not a manifest"),
    "a list": (lambda path: path.write_text("[]"), "not a manifest"),
    "an object": (lambda path: path.write_text("{}"), "not a manifest"),
    "no UTF-8": (lambda path: path.write_bytes(b"\xff"), "not a manifest"),
    "another schema": (lambda path: path.write_text('{"schema": 2}'), "has schema 2"),
}


@pytest.mark.parametrize(("damage", "word"), [pytest.param(*each, id=name) for name, each in MANIFESTS.items()])
def test_a_manifest_that_is_none_stops_the_start_and_is_named(base, damage, word):
    damage(base / "model" / "manifest.json")
    code, output = refused(base)
    assert code == 2
    assert "model/manifest.json" in output
    assert word in output
    assert "Traceback" not in output


def test_a_model_that_answers_otherwise_than_at_training_does_not_start(base, manifest):
    changed = {**manifest["samples"][1], "prediction": manifest["samples"][1]["prediction"] + 0.1}
    edit(base, samples=[manifest["samples"][0], changed])
    code, output = refused(base)
    assert code == 2
    assert "Sample 2 of manifest.json" in output


def test_unknown_extra_files_are_ignored(base, answer, bound):
    (base / "model" / "model.tar.gz").write_bytes(b"no tar")
    (base / "model" / "extra").mkdir()
    with serving(Processes(), base, {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}) as running:
        assert numbers(running.invoke(ROW.encode())) == pytest.approx([answer], abs=bound)


def test_a_model_without_onnx_is_served_only_when_its_pickle_is_trusted(base, answer):
    manifest = read_manifest(base / "model")
    (base / "model" / "model.onnx").unlink()
    parity = {**manifest.parity, "onnx": False}
    write_manifest(base / "model", dataclasses.replace(manifest, parity=parity), ["model.joblib"])
    code, output = refused(base)
    assert code == 2
    assert "model.onnx" in output
    assert "PREDICTOR=sklearn" in output
    with serving(Processes(), base, {"PREDICTOR": "sklearn", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}) as running:
        assert numbers(running.invoke(ROW.encode())) == pytest.approx([answer], rel=1e-6)


def test_scikit_learn_serves_the_same_numbers_as_onnx(trained, endpoint, sample, bound):
    body = "\n".join(map(",".join, sample)).encode()
    with serving(Processes(), trained, {"PREDICTOR": "sklearn", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}) as running:
        by_sklearn = numbers(running.invoke(body))
    assert numbers(endpoint.invoke(body)) == pytest.approx(by_sklearn, abs=bound)


BAD_SETTINGS = {
    "PREDICTOR": ["pickle", "ONNX"],
    "SAGEMAKER_MODEL_SERVER_WORKERS": ["0", "two", "1.5", "9999", "-1"],
    "SAGEMAKER_MODEL_SERVER_TIMEOUT": ["0", "never"],
    "SAGEMAKER_MAX_PAYLOAD_IN_MB": ["-1", "1e3", "٣"],
    "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": ["text/html", "json"],
    "SAGEMAKER_CONTAINER_LOG_LEVEL": ["info", "60"],
    "SAGEMAKER_BIND_TO_PORT": ["0", "65536", "http"],
    "AIP_HTTP_PORT": ["x"],
    "PORT": ["x"],
    "SAGEMAKER_BATCH": ["maybe"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_SETTINGS.items() for value in values])
def test_a_bad_setting_is_refused_by_name(name, value):
    with pytest.raises(BadSetting, match=name) as caught:
        Settings.from_environ({name: value})
    assert repr(value) in caught.value.message or repr(value.lower()) in caught.value.message


def test_a_bad_setting_stops_the_start_and_names_the_variable(trained):
    code, output = refused(trained, {"SAGEMAKER_MODEL_SERVER_WORKERS": "many"})
    assert code == 1
    assert output.strip().startswith("serve: SAGEMAKER_MODEL_SERVER_WORKERS is 'many'")


def test_a_port_in_use_stops_the_start(trained, endpoint):
    port = str(urlsplit(endpoint.program.url).port)
    code, output = refused(trained, {"SAGEMAKER_BIND_TO_PORT": port})
    assert code != 0
    assert port in output


@pytest.mark.parametrize(
    ("environ", "flag", "port"),
    [
        ({}, None, 8080),
        ({"PORT": "1"}, None, 1),
        ({"PORT": "1", "AIP_HTTP_PORT": "2"}, None, 2),
        ({"PORT": "1", "AIP_HTTP_PORT": "2", "SAGEMAKER_BIND_TO_PORT": "3"}, None, 3),
        ({"SAGEMAKER_BIND_TO_PORT": "3"}, 4, 4),
        ({"SAGEMAKER_BIND_TO_PORT": " ", "PORT": "1"}, None, 1),
    ],
    ids=["none", "Cloud Run", "Vertex", "SageMaker", "flag", "an empty variable"],
)
def test_the_port_is_that_of_the_nearest_setting(environ, flag, port):
    assert Settings.from_environ(environ, flag).port == port


def test_batch_takes_larger_bodies_and_longer_answers():
    batch = Settings.from_environ({"SAGEMAKER_BATCH": "True"})
    assert (batch.max_payload_bytes, batch.timeout_s) == (100 * MIB, 3_600)
    assert Settings.from_environ({"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "6"}).max_payload_bytes == 6 * MIB


def test_the_default_accept_and_the_payload_limit_are_settings(trained):
    environ = {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": JSON, "SAGEMAKER_MAX_PAYLOAD_IN_MB": "1"}
    with serving(Processes(), trained, environ) as running:
        assert running.invoke(ROW.encode()).headers["content-type"] == JSON
        assert running.invoke(ROW.encode(), accept="*/*").headers["content-type"] == JSON
        assert running.invoke(ROW.encode(), accept=CSV).headers["content-type"] == CSV
        assert running.invoke(b" " * (MIB + 1)).status == 413


IMPORTS = """
import asyncio, sys
from pathlib import Path
import serving.server
from serving.app import App
from serving.predictor import load_predictor
from serving.settings import Settings

async def call(app, method, path, body=b"", *headers):
    sent = []
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}
    async def send(message):
        sent.append(message)
    scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    return sent[0]["status"]

app = App(load_predictor(Path(sys.argv[1])), Settings.from_environ({}))
json, row = (b"content-type", b"application/json"), b"[[0, 6.5, 296, 15.3, 396.9, 4.9]]"
posts = [("POST", "/invocations", row, json), ("POST", "/predict", row, json), ("POST", "/invocations", b"x")]
calls = [*posts, ("GET", "/ping"), ("GET", "/")]
print([asyncio.run(call(app, *each)) for each in calls])
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"pandas", "sklearn", "joblib", "skl2onnx", "scipy", "model", "training"}))
"""


def test_answering_imports_nothing_that_trains(model_dir):
    done = subprocess.run([sys.executable, "-c", IMPORTS, model_dir], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "[200, 200, 400, 200, 200]\n[]\n", done.stdout + done.stderr
    assert done.stderr == ""


class Broken:
    """A predictor that fails in a way nobody foresaw, after `good` right answers."""

    def __init__(self, inner):
        self.inner, self.manifest, self.schema = inner, inner.manifest, inner.schema
        self.fails = True

    def predict(self, matrix):
        if self.fails or len(matrix) == 2:
            raise RuntimeError("secret")
        return self.inner.predict(matrix)


@pytest.mark.parametrize(("lost", "ping"), [(False, 200), (True, 503)], ids=["one request", "the model"])
def test_a_bug_is_500_without_its_cause_and_ping_tells_whether_the_model_is_lost(model_dir, caplog, lost, ping):
    broken = Broken(load_predictor(model_dir))
    broken.fails = lost
    app = App(broken, Settings.from_environ({}))
    status, body = asyncio.run(call(app, "POST", "/invocations", f"{ROW}\n{ROW}".encode()))
    assert status == 500
    assert set(json.loads(body)) == {"error", "message", "request_id"}
    assert b"secret" not in body
    assert json.loads(body)["request_id"] in caplog.text
    assert asyncio.run(call(app, "GET", "/ping")) == (ping, b"")


async def call(app, method, path, body=b""):
    """(status, body) of an application called without a server."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": method, "path": path, "headers": [(b"content-type", b"text/csv")]}, receive, send)
    return sent[0]["status"], sent[1]["body"]


# ---- signals and kills


def start(trained, workers):
    """A server that its test stops."""
    return serving(Processes(), trained, {"SAGEMAKER_MODEL_SERVER_WORKERS": str(workers)})


def workers_of(program):
    """The process ids of a server's workers."""
    pid = program.popen.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_sigterm_lets_every_request_in_flight_finish(trained):
    body = (ROW.encode() + b"\n") * 200_000
    replies, failures = [], []

    def ask(running):
        try:
            replies.append(running.invoke(body))
        except OSError as error:
            failures.append(error)

    with start(trained, 2) as running:
        running.get("/metrics")  # the first time loads a library
        threads = [threading.Thread(target=ask, args=[running]) for _ in range(6)]
        for thread in threads:
            thread.start()
        while "berth_requests_in_progress 7.0" not in running.get("/metrics").text:  # these, and this one
            assert not replies, "the requests are too short to be in flight"
        started = time.monotonic()
        code = stop(running.program, 25)
        seconds = time.monotonic() - started
        for thread in threads:
            thread.join()
        log = running.program.output()
    assert not failures
    assert [(reply.status, reply.text.count("\n")) for reply in replies] == [(200, 199_999)] * 6
    assert (code, seconds < 25) == (0, True), log


def test_sigterm_ends_a_server_soon_whoever_keeps_a_connection_open(trained):
    with start(trained, 2) as running, connection(running) as kept, connection(running) as silent:
        kept.request("GET", "/ping")
        kept.getresponse().read()
        silent.connect()
        started = time.monotonic()
        assert stop(running.program, 25) == 0
        assert time.monotonic() - started < 10, "docker stop kills after 10 s"


def test_a_stop_that_comes_while_workers_still_start_is_heard(trained):
    with serving(Processes(), trained, {"PREDICTOR": "sklearn", "SAGEMAKER_MODEL_SERVER_WORKERS": "2"}) as running:
        started = time.monotonic()  # the first worker answers; the second, slow to start with so much loaded, doesn't yet
        assert stop(running.program, 25) == 0
        assert time.monotonic() - started < 10


def test_a_killed_worker_loses_only_what_it_held_and_is_replaced(trained):
    clients, good, failures = 8, [], []
    over = threading.Event()

    def ask(running):
        while not over.is_set():
            try:
                good.append(running.invoke(ROW.encode()).status)
            except OSError as error:
                failures.append(error)

    with start(trained, 2) as running:
        threads = [threading.Thread(target=ask, args=[running]) for _ in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        victim, other = workers_of(running.program)
        os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while (now := workers_of(running.program)) and (len(now) < 2 or victim in now) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        over.set()
        for thread in threads:
            thread.join()
        assert other in now
        assert len(now) == 2
        assert victim not in now
    assert len(failures) <= clients
    assert set(good) == {200}
    assert len(good) > 100


def test_a_server_whose_workers_all_die_young_ends_with_an_error(trained):
    with start(trained, 2) as running:
        deadline = time.monotonic() + 60
        while running.program.popen.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                for worker in workers_of(running.program):
                    os.kill(worker, signal.SIGKILL)
            time.sleep(0.02)
        assert running.program.popen.poll() not in {None, 0}
        assert "workers in a row died within 2 s" in running.program.output()


def test_no_worker_aborts_at_exit_where_ci_is_not_set(trained, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    with start(trained, 2) as running:
        for _ in range(8):
            assert running.invoke(ROW.encode()).status == 200
        assert running.invoke((ROW.encode() + b"\n") * 2_000).status == 200  # in a thread
        assert stop(running.program, 25) == 0
        log = running.program.output()
    assert not re.search(r"signal|abort|terminate called|Traceback|core dumped", log.replace("Handling signal: term", "")), log
