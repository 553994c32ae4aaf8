"""Vertex AI, Azure ML, KServe and the Open Inference Protocol on the same port: each face gives the numbers of /invocations."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from ahead import ahead
from conftest import ROOT, environment, lacking

from contract.errors import BadSetting, BerthError, DamagedModel
from local_test.emulator import serving
from local_test.runners import Process, Processes, free_port
from serving.app import App
from serving.exchange import Request
from serving.platforms import model_folder
from serving.platforms.azure import find_model
from serving.platforms.oip import explain
from serving.predictor import load_predictor
from serving.settings import VERTEX_ROUTE, Settings

JSON, BINARY = "application/json", "application/octet-stream"
LENGTH = "Inference-Header-Content-Length"
ONE_WORKER = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
HOUSES = [[0, 6.575, 296, 15.3, 396.9, 4.98], [0, 6.421, 242, 17.8, 396.9, 9.14], [1, 5.0, 666, 20.2, 100.25, 30.5]]
NAMES = ["CHAS", "RM", "TAX", "PTRATIO", "B", "LSTAT"]
PENGUIN_NAMES = ["island", "bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "sex"]
PENGUINS = [
    ["Torgersen", 39.1, 18.7, 181, 3750, "male"],
    ["Biscoe", None, 14.2, 217, 4875, None],
    ["Dream", 50.5, 19.6, 201, 4050, "male"],
]
INFER, PENGUIN_INFER = "/v2/models/boston-housing/infer", "/v2/models/penguins/infer"


@ahead
def clients_python() -> Path:
    """The Python of an environment with other platforms' clients."""
    try:
        return environment("clients")
    except AssertionError:
        lacking("the clients' environment can't be made: no package index answers")


@pytest.fixture(scope="session")
def clients(clients_python: Path):
    """A function: what a script prints, as JSON, run with other platforms' clients against an endpoint."""

    def run(script: str, *arguments: str) -> dict:
        command = [clients_python, "-W", "ignore", "-c", script, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "HOME": "/nonexistent"})
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


def call(endpoint, path, body=None, headers=None, method=None):
    """(status, headers, body) of a request."""
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(endpoint.program.url + path, raw, headers or {"Content-Type": JSON}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def ask(endpoint, path, body=None, status=200):
    """The JSON of an answer."""
    found, _, raw = call(endpoint, path, body)
    assert found == status, raw
    return json.loads(raw)


def invoked(endpoint, rows):
    """What /invocations says."""
    return ask(endpoint, "/invocations", {"instances": rows})["predictions"]


def outputs(answer):
    """Name to (shape, data) of a V2 answer."""
    return {output["name"]: (output["shape"], output["data"]) for output in answer["outputs"]}


def tensor(shape, datatype, data, name="features", **more):
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


def asked(*inputs, **more):
    return {"inputs": list(inputs), **more}


# ---- Open Inference Protocol V2: right answers


WHOLE = np.array([[0, 6, 296, 15, 396, 4], [1, 5, 242, 17, 100, 9]])
COLUMNS = dict(zip(NAMES, WHOLE.T.tolist(), strict=True))
KINDS = ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64"]
LAYOUTS = {
    "nested": asked(tensor([2, 6], "FP32", WHOLE.tolist())),
    "flat": asked(tensor([2, 6], "FP64", WHOLE.ravel().tolist())),
    "any name, integers": asked(tensor([2, 6], "INT32", WHOLE.tolist(), "input-0")),
    "FP16": asked(tensor([2, 6], "FP16", WHOLE.tolist())),
    "texts": asked(tensor([2, 6], "BYTES", [[str(cell) for cell in row] for row in WHOLE.tolist()])),
    "an input a feature": asked(*[tensor([2], "INT64", column, name) for name, column in COLUMNS.items()]),
    "of [N, 1], in another order": asked(
        *[tensor([2, 1], "FP32", [[cell] for cell in COLUMNS[name]], name) for name in reversed(NAMES)]
    ),
    "[N] and [N, 1], nested and flat, of many types": asked(
        tensor([2], "BOOL", [False, True], "CHAS"),
        tensor([2, 1], "UINT8", [6, 5], "RM"),
        tensor([2], "UINT64", COLUMNS["TAX"], "TAX"),
        tensor([2, 1], "INT16", [[15], [17]], "PTRATIO"),
        tensor([2], "FP64", COLUMNS["B"], "B"),
        tensor([2], "INT8", COLUMNS["LSTAT"], "LSTAT"),
    ),
    "parameters that say nothing": asked(
        tensor([2, 6], "FP32", WHOLE.tolist(), parameters={"content_type": "np"}), parameters={"priority": 3}, outputs=[]
    ),
}


@pytest.mark.parametrize("request_", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout_of_tensors_gives_the_numbers_of_invocations(endpoint, request_):
    answer = ask(endpoint, INFER, request_)
    assert outputs(answer) == {"predict": ([2], invoked(endpoint, WHOLE.tolist()))}
    assert (answer["model_name"], answer["model_version"], answer["outputs"][0]["datatype"]) == ("boston-housing", "1", "FP32")


def test_fp32_in_json_is_not_rounded_before_the_model_sees_it(endpoint):
    for datatype in ("FP16", "FP32", "FP64"):
        assert outputs(ask(endpoint, INFER, asked(tensor([3, 6], datatype, HOUSES)))) == {
            "predict": ([3], invoked(endpoint, HOUSES))
        }


def test_the_id_comes_back_and_is_left_out_where_none_was_sent(endpoint):
    request = asked(tensor([3, 6], "FP32", HOUSES))
    assert ask(endpoint, INFER, {**request, "id": "mine-7"})["id"] == "mine-7"
    assert "id" not in ask(endpoint, INFER, request)


def penguin_inputs(rows=PENGUINS):
    """An input a feature: numbers with null, names as BYTES, an empty one for a missing value."""
    kinds = ["BYTES", "FP32", "FP32", "FP64", "INT32", "BYTES"]
    columns = zip(PENGUIN_NAMES, kinds, zip(*rows, strict=True), strict=True)
    return [tensor([len(rows)], kind, list(column), name) for name, kind, column in columns]


def index_of(row):
    """A row of numbers: categories as the index of their choice, a missing value as null."""
    island, *numbers, sex = row
    return [["Biscoe", "Dream", "Torgersen"].index(island), *numbers, None if sex is None else ["female", "male"].index(sex)]


PENGUIN_LAYOUTS = {
    "an input a feature": asked(*penguin_inputs()),
    "numbers, categories by index": asked(tensor([3, 6], "FP32", [index_of(row) for row in PENGUINS])),
    "texts": asked(
        tensor([3, 6], "BYTES", [["" if cell is None else str(cell) for cell in row] for row in PENGUINS], "anything")
    ),
    "NaN in place of null": json.dumps(asked(*penguin_inputs()))
    .replace("null, 14.2", "NaN, 14.2")
    .replace("[39.1, null", "[39.1, NaN")
    .encode(),
    "texts with null": asked(tensor([3, 6], "BYTES", [[cell and str(cell) for cell in row] for row in PENGUINS])),
}


@pytest.mark.parametrize("request_", PENGUIN_LAYOUTS.values(), ids=PENGUIN_LAYOUTS.keys())
def test_classes_are_answered_as_labels_and_probabilities(penguins, request_):
    answers = invoked(penguins, PENGUINS)
    found = outputs(ask(penguins, PENGUIN_INFER, request_))
    assert found["label"] == ([3], [answer["label"] for answer in answers])
    assert found["probabilities"] == ([3, 3], [p for answer in answers for p in answer["probabilities"].values()])


def test_only_the_outputs_that_were_asked_for_are_answered_in_their_order(penguins):
    def names(*wanted):
        return list(outputs(ask(penguins, PENGUIN_INFER, asked(*penguin_inputs(), outputs=[{"name": n} for n in wanted]))))

    assert names("probabilities") == ["probabilities"]
    assert names("probabilities", "label") == ["probabilities", "label"]


def test_metadata_names_inputs_and_outputs_and_what_it_names_can_be_sent(endpoint, penguins):
    about = ask(penguins, "/v2/models/penguins")
    assert (about["name"], about["versions"], about["platform"]) == ("penguins", ["1"], "onnxruntime_onnx")
    assert about["inputs"][:2] == [
        {"name": "island", "datatype": "BYTES", "shape": [-1]},
        {"name": "bill_length_mm", "datatype": "FP32", "shape": [-1]},
    ]
    assert about["outputs"] == [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
    ]
    by_name = dict(zip(NAMES, zip(*HOUSES, strict=True), strict=True))
    described = ask(endpoint, "/v2/models/boston-housing")
    inputs = [tensor([3], each["datatype"], by_name[each["name"]], each["name"]) for each in described["inputs"]]
    assert outputs(ask(endpoint, INFER, asked(*inputs)))["predict"][1] == invoked(endpoint, HOUSES)
    assert described["outputs"] == [{"name": "predict", "datatype": "FP32", "shape": [-1]}]


def test_health_readiness_versions_and_the_index_are_answered(endpoint):
    assert ask(endpoint, "/v2")["extensions"] == ["binary_tensor_data"]
    assert ask(endpoint, "/v2/health/live") == {"live": True}
    assert ask(endpoint, "/v2/health/ready") == {"ready": True}
    for version in ("", "/versions/1"):
        assert ask(endpoint, f"/v2/models/boston-housing{version}")["name"] == "boston-housing"
        assert ask(endpoint, f"/v2/models/boston-housing{version}/ready") == {"name": "boston-housing", "ready": True}
        assert outputs(ask(endpoint, f"/v2/models/boston-housing{version}/infer", asked(tensor([3, 6], "FP32", HOUSES))))
    for body in (b"", {}, {"ready": True}):
        assert ask(endpoint, "/v2/repository/index", body) == [
            {"name": "boston-housing", "version": "1", "state": "READY", "reason": ""}
        ]


# ---- Open Inference Protocol V2: binary parts


def packed(document, *parts):
    """(body, headers) of a request with binary parts."""
    head = json.dumps(document).encode()
    return b"".join([head, *parts]), {"Content-Type": BINARY, LENGTH: str(len(head))}


def binary(shape, datatype, size, name="features"):
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}


def texts(*words):
    return b"".join(struct.pack("<I", len(word)) + word for word in words)


@pytest.mark.parametrize("datatype", KINDS)
def test_binary_inputs_of_every_datatype_give_the_numbers_of_invocations(endpoint, datatype):
    kind = {"F": f"<f{int(datatype[2:] or 0) // 8}" if datatype[0] == "F" else "", "I": "i", "U": "u"}[datatype[0]]
    kind = kind if datatype[0] == "F" else f"<{kind}{int(re.sub('[A-Z]', '', datatype)) // 8}"
    rows = np.array([[0, 6, 96, 15, 39, 4], [1, 5, 42, 17, 100, 9]])
    part = rows.astype(kind).tobytes()
    status, headers, raw = call(endpoint, INFER, *packed(asked(binary([2, 6], datatype, len(part))), part))
    assert status == 200, raw
    assert headers[LENGTH] is None
    assert outputs(json.loads(raw))["predict"] == ([2], invoked(endpoint, rows.tolist()))


def test_binary_parts_may_stand_beside_json_and_answers_be_binary(penguins):
    island, bill, *others = penguin_inputs()
    name, size = texts(*(row[0].encode() for row in PENGUINS)), np.float32([39.1, np.nan, 50.5]).tobytes()
    inputs = [binary([3], "BYTES", len(name), island["name"]), binary([3, 1], "FP32", len(size), bill["name"]), *others]
    wanted = [{"name": "label", "parameters": {"binary_data": True}}, {"name": "probabilities"}]
    body, headers = packed(asked(*inputs, outputs=wanted), name, size)
    status, headers, raw = call(penguins, PENGUIN_INFER, body, headers)
    assert status == 200, raw
    assert headers["content-type"] == BINARY
    document, rest = json.loads(raw[: int(headers[LENGTH])]), raw[int(headers[LENGTH]) :]
    label, probabilities = document["outputs"]
    answers = invoked(penguins, PENGUINS)
    assert label["parameters"] == {"binary_data_size": len(rest)}
    assert "data" not in label
    assert rest == texts(*(answer["label"].encode() for answer in answers))
    assert probabilities["data"] == [p for answer in answers for p in answer["probabilities"].values()]


def test_all_outputs_are_binary_when_the_request_says_so_unless_one_says_otherwise(endpoint):
    request = asked(tensor([3, 6], "FP32", HOUSES), parameters={"binary_data_output": True})
    status, headers, raw = call(endpoint, INFER, request)
    assert (status, headers["content-type"]) == (200, BINARY)
    assert np.frombuffer(raw[int(headers[LENGTH]) :], "<f4").tolist() == pytest.approx(invoked(endpoint, HOUSES), rel=1e-7)
    plain = {**request, "outputs": [{"name": "predict", "parameters": {"binary_data": False}}]}
    assert outputs(ask(endpoint, INFER, plain))["predict"][1] == invoked(endpoint, HOUSES)


def test_fifty_thousand_rows_in_binary_come_back_row_for_row(endpoint):
    rows = np.float32(HOUSES)[np.arange(50_000) % 3]
    document = asked(binary([50_000, 6], "FP32", rows.nbytes), parameters={"binary_data_output": True})
    status, headers, raw = call(endpoint, INFER, *packed(document, rows.tobytes()))
    assert status == 200
    three = np.float32(invoked(endpoint, HOUSES))
    assert (np.frombuffer(raw[int(headers[LENGTH]) :], "<f4") == three[np.arange(50_000) % 3]).all()


# ---- Open Inference Protocol V2: hostile bodies


def six(shape=(1, 6), datatype="FP32", data=None, **more):
    return tensor(list(shape), datatype, HOUSES[0] if data is None else data, **more)


HUGE = 2**62
HOSTILE = {
    "nothing": b"",
    "not JSON": b"[[",
    "a list": [1],
    "null": b"null",
    "bytes": b"\xff\xfe\x00",
    "no inputs": {},
    "inputs are empty": asked(),
    "inputs are an object": {"inputs": {}},
    "inputs are numbers": {"inputs": [1]},
    "a name that is a number": asked(six() | {"name": 5}),
    "no name": asked({"shape": [1, 6], "datatype": "FP32", "data": HOUSES[0]}),
    "no shape": asked({"name": "x", "datatype": "FP32", "data": HOUSES[0]}),
    "no datatype": asked({"name": "x", "shape": [1, 6], "data": HOUSES[0]}),
    "no data": asked({"name": "x", "shape": [1, 6], "datatype": "FP32"}),
    "data is null": asked(six() | {"data": None}),
    "data is a number": asked(six(data=5)),
    "data is a text": asked(six(data="abcdef")),
    "data is an object": asked(six(data={"0": 1})),
    "shape is a text": asked(six() | {"shape": "1,6"}),
    "shape of texts": asked(six(("1", "6"))),
    "shape of floats": asked(six((1.0, 6.0))),
    "shape of booleans": asked(six((True, 6))),
    "an empty shape": asked(six(())),
    "three dimensions": asked(six((1, 1, 6))),
    "a thousand dimensions": asked(six((1,) * 1000)),
    "a negative dimension": asked(six((-1, 6))),
    "two negative dimensions": asked(six((-1, -6))),
    "a huge dimension": asked(six((HUGE, 6))),
    "two huge dimensions": asked(six((HUGE, HUGE))),
    "a dimension beyond 64 bits": asked(six((10**30, 6))),
    "no rows": asked(six((0, 6), data=[])),
    "no columns": asked(six((6, 0), data=[])),
    "another width": asked(six((1, 7), data=[*HOUSES[0], 1])),
    "one dimension": asked(six((6,))),
    "transposed": asked(six((6, 1))),
    "data shorter than its shape": asked(six((2, 6))),
    "data longer than its shape": asked(six((1, 6), data=HOUSES[0] * 2)),
    "nested, ragged": asked(six((2, 6), data=[HOUSES[0], HOUSES[1][:5]])),
    "nested, a row missing": asked(six((2, 6), data=[HOUSES[0]])),
    "nested, a row that is none": asked(six((2, 6), data=[HOUSES[0], 5])),
    "flat, then a row": asked(six((1, 6), data=[0, 6, 296, 15, 396, [4]])),
    "nested too deep": asked(six((1, 6), data=[[HOUSES[0]]])),
    "nested 500 deep": (
        '{"inputs":[{"name":"x","shape":[1,6],"datatype":"FP32","data":' + "[" * 500 + "]" * 500 + "}]}"
    ).encode(),
    "nested 5,000 deep": ('{"inputs":' + "[" * 5_000 + "]" * 5_000 + "}").encode(),
    "an unknown datatype": asked(six(datatype="FLOAT")),
    "BF16": asked(six(datatype="BF16")),
    "a datatype in small letters": asked(six(datatype="fp32")),
    "a text in numbers": asked(six(data=[0, 6, 296, 15, 396, "4"])),
    "a boolean in numbers": asked(six(data=[True, 6, 296, 15, 396, 4])),
    "an object in numbers": asked(six(data=[{}, 6, 296, 15, 396, 4])),
    "a fraction in INT32": asked(six(datatype="INT32")),
    "300 in INT8": asked(six(datatype="INT8", data=[0, 6, 300, 15, 39, 4])),
    "-1 in UINT8": asked(six(datatype="UINT8", data=[0, 6, -1, 15, 39, 4])),
    "2**63 in INT64": asked(six(datatype="INT64", data=[0, 6, 2**63, 15, 39, 4])),
    "10**30 in UINT64": asked(six(datatype="UINT64", data=[0, 6, 10**30, 15, 39, 4])),
    "NaN where a value is needed": json.dumps(asked(six(data=[0, float("nan"), 296, 15, 396, 4]))).encode(),
    "NaN in a shape": json.dumps(asked(six((float("nan"), 6)))).encode(),
    "NaN, and an integer of 400 digits": json.dumps(asked(six(data=[0, float("nan"), 10**400, 15, 396, 4]))).encode(),
    "NaN, and an integer of 400 digits for a row count": json.dumps(asked(six((10**400, 6)), x=float("nan"))).encode(),
    "NaN, nested 100,000 deep": b'{"inputs": [NaN, ' + b"[" * 100_000,
    "NaN, then nothing": b'{"inputs": [NaN',
    "NaN and a broken text": b'{"inputs": [NaN, "\xff"]}',
    "Infinity": json.dumps(asked(six(data=[0, float("inf"), 296, 15, 396, 4]))).encode(),
    "null in INT32": asked(six(datatype="INT32", data=[0, 6, None, 15, 39, 4])),
    "2 in BOOL": asked(six(datatype="BOOL", data=[0, 1, 2, 0, 0, 0])),
    "null where a value is needed": asked(six(data=[0, None, 296, 15, 396, 4])),
    "1e39 in FP32": asked(six(data=[0, 1e39, 296, 15, 396, 4])),
    "1e39 in FP64": asked(six(datatype="FP64", data=[0, 1e39, 296, 15, 396, 4])),
    "words in BYTES": asked(six(datatype="BYTES", data=["a", "b", "c", "d", "e", "f"])),
    "numbers in BYTES": asked(six(datatype="BYTES")),
    "an input twice": asked(*[tensor([1], "FP32", [1], name) for name in [*NAMES, "RM"]]),
    "the tensor twice": asked(six(), six()),
    "an unknown input": asked(*[tensor([1], "FP32", [1], name) for name in [*NAMES[:5], "AGE"]]),
    "an input too many": asked(*[tensor([1], "FP32", [1], name) for name in [*NAMES, "AGE"]]),
    "an input missing": asked(*[tensor([1], "FP32", [1], name) for name in NAMES[:5]]),
    "one input of six": asked(tensor([1], "FP32", [1], "RM")),
    "inputs of different lengths": asked(
        *[tensor([1 + (name == "B")], "FP32", [1] * (1 + (name == "B")), name) for name in NAMES]
    ),
    "an input of two columns": asked(*[tensor([1, 2], "FP32", [1, 2], name) for name in NAMES]),
    "an unknown output": asked(six(), outputs=[{"name": "label"}]),
    "outputs are texts": asked(six(), outputs=["predict"]),
    "outputs are an object": asked(six(), outputs={"name": "predict"}),
    "an output without a name": asked(six(), outputs=[{}]),
    "an id that is a number": asked(six(), id=7),
    "parameters are a list": asked(six(), parameters=[1]),
    "an input's parameters are a text": asked(six(parameters="x")),
    "binary_data is a text": asked(six(), outputs=[{"name": "predict", "parameters": {"binary_data": "yes"}}]),
    "binary_data_output is a number": asked(six(), parameters={"binary_data_output": 1}),
    "binary_data_size without bytes": asked(binary([1, 6], "FP32", 24)),
    "20,000 inputs": asked(*[tensor([1], "FP32", [1], f"k{i}") for i in range(20_000)]),
    "a name of 100,000 letters": asked(six() | {"name": "x" * 100_000, "shape": [1, 5]}),
}


def assert_refused(endpoint, status, headers, raw):
    """An error is of the protocol's shape, small, and the next request has its answer."""
    document = json.loads(raw)
    assert status == 400, raw
    assert headers["content-type"] == JSON
    assert list(document) == ["error"]
    assert document["error"]
    assert len(raw) <= 2_048
    assert "Traceback" not in document["error"]
    assert outputs(ask(endpoint, INFER, asked(six())))["predict"][0] == [1]


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_body_is_400_in_the_protocols_shape(endpoint, body):
    assert_refused(endpoint, *call(endpoint, INFER, body))


PART = np.float32(HOUSES[:1]).tobytes()
GOOD_BINARY = asked(binary([1, 6], "FP32", 24))
TEXTS = texts(*[b"1"] * 6)
HOSTILE_BINARY = {
    "a size larger than the bytes": (asked(binary([1, 6], "FP32", 25)), PART),
    "a size smaller than the bytes": (asked(binary([1, 6], "FP32", 20)), PART),
    "a size smaller than the shape, none left": (asked(binary([1, 6], "FP32", 20)), PART[:20]),
    "a shape larger than the size": (asked(binary([2, 6], "FP32", 24)), PART),
    "a wider datatype": (asked(binary([1, 6], "FP64", 24)), PART),
    "a negative size": (asked(binary([1, 6], "FP32", -24)), PART),
    "a size that is a text": (asked(binary([1, 6], "FP32", "24")), PART),
    "a size that is true": (asked(binary([1, 6], "UINT8", True)), b"1"),
    "a size that is a fraction": (asked(binary([1, 6], "FP32", 24.0)), PART),
    "a huge size": (asked(binary([HUGE, HUGE], "FP64", HUGE)), PART),
    "a huge shape": (asked(binary([HUGE, 6], "FP32", 24)), PART),
    "size and data": (asked(binary([1, 6], "FP32", 24) | {"data": HOUSES[0]}), PART),
    "bytes that are nobody's": (asked(six()), PART),
    "more bytes than inputs name": (GOOD_BINARY, PART + b"\0"),
    "no bytes": (GOOD_BINARY, b""),
    "NaN where a value is needed": (GOOD_BINARY, np.float32([0, np.nan, 1, 1, 1, 1]).tobytes()),
    "infinity": (GOOD_BINARY, np.float32([0, np.inf, 1, 1, 1, 1]).tobytes()),
    "texts without lengths": (asked(binary([1, 6], "BYTES", 6)), b"123456"),
    "a text longer than the part": (asked(binary([1, 6], "BYTES", 30)), TEXTS[:25] + b"\xff\xff\xff\xff9"),
    "a length cut in two": (asked(binary([1, 6], "BYTES", 27)), TEXTS[:27]),
    "a text too few": (asked(binary([1, 6], "BYTES", 25)), TEXTS[:25]),
    "a text too many": (asked(binary([1, 6], "BYTES", 35)), TEXTS + texts(b"1")),
    "texts that are not UTF-8": (asked(binary([1, 6], "BYTES", 30)), texts(*[b"\xff"] * 6)),
    "no texts": (asked(binary([1, 6], "BYTES", 0)), b""),
}


@pytest.mark.parametrize(("document", "part"), HOSTILE_BINARY.values(), ids=HOSTILE_BINARY.keys())
def test_a_binary_part_that_lies_is_400_in_the_protocols_shape(endpoint, document, part):
    assert_refused(endpoint, *call(endpoint, INFER, *packed(document, part)))


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999999", "9" * 400, "0", "7", "٣".encode().decode("latin-1")])
def test_a_header_length_that_lies_is_400_in_the_protocols_shape(endpoint, length):
    body, headers = packed(GOOD_BINARY, PART)
    assert_refused(endpoint, *call(endpoint, INFER, body, {**headers, LENGTH: length}))


def test_messages_name_the_input_the_row_and_what_was_expected(endpoint, penguins):
    def refusal(running, path, request):
        return ask(running, path, request, 400)["error"]

    column = tensor([2], "FP32", [1, "x"], "RM")
    assert refusal(endpoint, INFER, asked(column)) == "Input 'RM', row 2: 'x' is no FP32."
    assert "shape is [1, 1, 6]; [rows] or [rows, columns]" in refusal(endpoint, INFER, asked(six((1, 1, 6))))
    assert "missing: RM" in refusal(endpoint, INFER, asked(*[tensor([1], "FP32", [1], n) for n in NAMES if n != "RM"]))
    inputs = penguin_inputs([*PENGUINS, ["Atlantis", 1, 1, 1, 1, "male"]])
    assert "Row 4, column island: 'Atlantis' is not one of its choices" in refusal(penguins, PENGUIN_INFER, asked(*inputs))


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/v2/models/other", "GET", 404),
        ("/v2/models/other/ready", "GET", 404),
        ("/v2/models/other/infer", "POST", 404),
        ("/v2/models/boston-housing/versions/2", "GET", 404),
        ("/v2/models/boston-housing/versions/2/infer", "POST", 404),
        (INFER, "GET", 405),
        ("/v2/repository/index", "GET", 405),
        ("/v2", "POST", 405),
        ("/v1/models/other", "GET", 404),
        ("/v1/models/other:predict", "POST", 404),
        ("/v1/models/boston-housing:predict", "GET", 405),
        ("/v1/models", "POST", 405),
    ],
)
def test_another_model_version_or_method_is_refused_in_the_protocols_shape(endpoint, path, method, status):
    found, headers, raw = call(endpoint, path, b"{}" if method == "POST" else None, method=method)
    assert (found, list(json.loads(raw))) == (status, ["error"])
    assert (status == 405) == ("allow" in headers)


def test_a_failure_of_ours_says_the_id_under_which_the_log_has_it_and_no_more():
    answer = explain(BerthError("The server failed; its log has the cause under this request_id."), "abc")
    assert json.loads(answer.body)["error"].endswith("request_id: abc")
    assert len(explain(BadSetting("x" * 100_000), "abc").body) <= 2_048


# ---- KServe V1


def test_v1_lists_its_model_tells_that_it_is_ready_and_predicts(endpoint, penguins):
    assert ask(endpoint, "/v1/models") == {"models": ["boston-housing"]}
    assert ask(endpoint, "/v1/models/boston-housing") == {"name": "boston-housing", "ready": True}
    predicted = ask(endpoint, "/v1/models/boston-housing:predict", {"instances": HOUSES, "parameters": {"x": 1}})
    assert predicted == {"predictions": invoked(endpoint, HOUSES)}
    records = [dict(zip(PENGUIN_NAMES, row, strict=True)) for row in PENGUINS]
    assert ask(penguins, "/v1/models/penguins:predict", {"instances": records})["predictions"] == invoked(penguins, PENGUINS)


def test_v1_tells_what_is_wrong_with_a_body_in_its_own_shape(endpoint):
    status, _, raw = call(endpoint, "/v1/models/boston-housing:predict", {"instances": [[1, 2]]})
    assert (status, list(json.loads(raw))) == (400, ["error"])
    assert "Row 1 has 2 values" in json.loads(raw)["error"]


# ---- readiness


def test_every_probe_but_liveness_fails_once_the_model_no_longer_answers(model_dir):
    app = App(load_predictor(model_dir), Settings.from_environ({"AIP_HEALTH_ROUTE": "/health"}))
    app.service.is_ready = False

    def status(path):
        routes, parameters = app.table.find(path)
        request = Request({"method": "GET", "path": path, "headers": [], "query_string": b""}, None)
        request.parameters = parameters
        return asyncio.run(routes["GET"].handler(request)).status

    probes = ["/ping", "/health", "/v2/health/ready", "/v2/models/boston-housing/ready", "/v1/models/boston-housing"]
    assert [status(path) for path in probes] == [503] * 5
    assert status("/v2/health/live") == 200


# ---- where the model is, and what it is called


def start(base, environ, *flags, program="start"):
    """Run a program to its end: (exit code, output)."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SAGEMAKER_")}
    command = [sys.executable, ROOT / "container" / program, *flags]
    done = subprocess.run(
        command,
        env={**inherited, "SAGEMAKER_BASE_DIR": str(base), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


class Bare(Processes):
    """Starts `start`, with flags, in place of `serve`."""

    def __init__(self, *flags):
        super().__init__()
        object.__setattr__(self, "flags", flags)

    def start(self, word, base, environ):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SAGEMAKER_")}
        port, log = free_port(), tempfile.TemporaryFile()  # noqa: SIM115
        flags = [flag.replace("PORT", str(port)) for flag in self.flags]
        own = {"SAGEMAKER_BASE_DIR": str(base)} | ({} if flags else {"AIP_HTTP_PORT": str(port)})
        command = [sys.executable, ROOT / "container" / "start", *flags]
        popen = subprocess.Popen(command, env={**inherited, **own, **environ}, stdout=log, stderr=subprocess.STDOUT)
        return Process(popen, log, f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("dash", ["_", "-"])
def test_kserves_arguments_name_the_model_and_its_folder(model_dir, tmp_path, dash):
    shutil.copytree(model_dir, tmp_path / "models")
    flags = ["--model_name=house-prices", f"--model_dir={tmp_path / 'models'}", "--http_port=PORT"]
    flags = [flag.replace("_", dash, 1) if dash == "-" else flag for flag in flags]
    with serving(Bare(*flags), tmp_path / "none", ONE_WORKER) as endpoint:
        assert ask(endpoint, "/v1/models") == {"models": ["house-prices"]}
        assert ask(endpoint, "/v2/models/house-prices/infer", asked(six()))["model_name"] == "house-prices"
        assert ask(endpoint, "/v1/models/boston-housing:predict", {"instances": HOUSES}, 404)


def test_azure_scores_and_finds_the_model_one_folder_deeper_than_it_says(model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "azureml-models" / "housing" / "3" / "model")
    root = str(tmp_path / "azureml-models" / "housing" / "3")
    with serving(Processes(), tmp_path / "none", {**ONE_WORKER, "AZUREML_MODEL_DIR": root}) as endpoint:
        assert ask(endpoint, "/score", {"instances": HOUSES}) == {"predictions": invoked(endpoint, HOUSES)}
        status, headers, raw = call(endpoint, "/score", b"0,6.575,296,15.3,396.9,4.98", {"Content-Type": "text/csv"})
        assert (status, headers["content-type"]) == (200, "text/csv")
        assert float(raw) == invoked(endpoint, HOUSES)[0]
        assert json.loads(call(endpoint, "/score", {"instances": [[1]]})[2])["error"] == "schema_mismatch"
        status, headers, _ = call(endpoint, "/")
        assert (status, headers["content-type"].partition(";")[0]) == (200, "text/html")


@pytest.mark.parametrize("depth", ["", "model", "housing/3/model"])
def test_the_model_is_found_up_to_three_folders_deep(tmp_path, depth):
    folder = tmp_path / depth
    (folder / "report").mkdir(parents=True)
    for path in (folder, folder / "report"):  # what lies in a model belongs to it
        (path / "manifest.json").write_text("{}")
    assert find_model(tmp_path) == folder


def test_two_models_or_none_stop_the_start_and_are_named(tmp_path):
    for name in ("a", "b/c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "manifest.json").write_text("{}")
    with pytest.raises(DamagedModel, match=f"2 models, .*: {tmp_path}/a, {tmp_path}/b/c. Name one"):
        find_model(tmp_path)
    with pytest.raises(DamagedModel, match=r"holds no manifest\.json"):
        find_model(tmp_path / "nowhere")
    code, output = start(tmp_path, {"AZUREML_MODEL_DIR": str(tmp_path)}, program="serve")
    assert code == 2
    assert "2 models" in output
    assert "Traceback" not in output


# ---- Vertex AI


def test_vertex_routes_answer_where_they_are_said_to_be_after_a_bare_start(model_dir, tmp_path):
    routes = {"AIP_HEALTH_ROUTE": "/health", "AIP_PREDICT_ROUTE": "/predict"}  # those of its local endpoint
    rows = {"instances": HOUSES, "parameters": {"confidence": 0.9}}
    shutil.copytree(model_dir, tmp_path / "model")
    with serving(Bare(), tmp_path, {**ONE_WORKER, **routes}) as endpoint:
        assert call(endpoint, "/health")[0] == 200
        assert ask(endpoint, "/predict", rows) == {"predictions": invoked(endpoint, HOUSES)}
        assert call(endpoint, "/predict", {"instances": []})[0] == 400


def test_vertex_routes_have_their_default_on_vertex_alone(model_dir, trained):
    path = "/v1/endpoints/77/deployedModels/88:predict"
    with serving(Processes(), trained, {**ONE_WORKER, "AIP_MODE": "PREDICTION"}) as endpoint:
        assert call(endpoint, path)[0] == 200
        assert ask(endpoint, path, {"instances": HOUSES}) == {"predictions": invoked(endpoint, HOUSES)}
    assert Settings.from_environ({"AIP_MODE": "PREDICTION"}).health_route == VERTEX_ROUTE
    assert Settings.from_environ({}).predict_route == ""
    assert App(load_predictor(model_dir), Settings.from_environ({})).table.find(path) == (None, {})


@pytest.mark.parametrize("route", ["predict", "/a/{b}", "http://x/"])
def test_a_vertex_route_that_is_no_path_stops_the_start(route):
    with pytest.raises(BadSetting, match="AIP_PREDICT_ROUTE is"):
        Settings.from_environ({"AIP_PREDICT_ROUTE": route})


@pytest.mark.parametrize("name", ["a/b", "a b", "{x}", "x" * 256])
def test_a_models_name_that_is_no_part_of_a_path_stops_the_start(name):
    with pytest.raises(BadSetting, match="The model's name is"):
        Settings.from_environ({"BERTH_MODEL_NAME": name})


def located(base, **environ):
    return model_folder(Settings.from_environ({"SAGEMAKER_BASE_DIR": str(base), **environ}))


def test_a_model_in_the_image_needs_no_storage_uri(trained, capfd):
    assert located(trained, AIP_STORAGE_URI="gs://bucket/model") == trained / "model"
    assert "AIP_STORAGE_URI is not read" in capfd.readouterr().err
    assert located(trained) == trained / "model"


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_storage_uri_that_is_a_path_is_read_where_it_is(model_dir, tmp_path, prefix):
    copy = shutil.copytree(model_dir, tmp_path / "a folder" / "model")
    written = str(copy.parent).replace(" ", "%20") if prefix else str(copy.parent)
    assert located(tmp_path, AIP_STORAGE_URI=prefix + written) == copy


FETCH = """
import shutil, sys
_, source, option, address, folder = sys.argv
assert (option, address) == ("--with blank", "gs://bucket/a model"), sys.argv
shutil.copytree(source, folder + "/model")
"""


def test_a_command_fetches_the_model_before_it_is_loaded(model_dir, tmp_path):
    script = tmp_path / "fetch.py"
    script.write_text(FETCH)
    environ = {
        "BERTH_FETCH": f"{sys.executable} {script} {model_dir} '--with blank'",
        "AIP_STORAGE_URI": "gs://bucket/a model",
        **ONE_WORKER,
    }
    with serving(Processes(), tmp_path / "ml", environ) as endpoint:
        assert len(invoked(endpoint, HOUSES)) == 3
        assert "no model in" in endpoint.program.output()


@pytest.mark.parametrize(
    ("fetch", "words"),
    [
        ("", "holds no model. Set BERTH_FETCH"),
        ("/nowhere/gcloud cp", "'/nowhere/gcloud', can't be run: No such file"),
        ("false", "BERTH_FETCH ended with exit code 1"),
        ("true", "holds no manifest.json"),
        ("gcloud 'storage", "BERTH_FETCH can't be split into words"),
    ],
)
def test_a_fetch_that_cannot_be_done_stops_the_start_and_says_why(tmp_path, fetch, words):
    code, output = start(tmp_path, {"AIP_STORAGE_URI": "gs://bucket/model", "BERTH_FETCH": fetch})
    assert code in (1, 2)
    assert words in output
    assert "Traceback" not in output


def test_a_stop_while_the_model_is_fetched_is_obeyed_at_once(tmp_path):
    environ = {"SAGEMAKER_BASE_DIR": str(tmp_path), "AIP_STORAGE_URI": "gs://b/m", "BERTH_FETCH": "sh -c 'exec sleep 60'"}
    command = [sys.executable, ROOT / "container" / "start"]
    with subprocess.Popen(command, env={**os.environ, **environ}, stderr=subprocess.PIPE, text=True) as program:
        assert "no model in" in program.stderr.readline()
        time.sleep(0.3)
        began = time.monotonic()
        program.send_signal(signal.SIGTERM)
        assert program.wait(10) == 143
        assert time.monotonic() - began < 5


# ---- real clients


TRITON = """
import json, sys
import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException
url, kind, binary, compression = sys.argv[1:]
client = http.InferenceServerClient(url)
name = {"number": "boston-housing", "class": "penguins"}[kind]
about = client.get_model_metadata(name)
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(name)
assert client.is_model_ready(name, "1") and not client.is_model_ready("other")
assert client.get_server_metadata()["name"] == "berth"
assert client.get_model_repository_index()[0]["name"] == name
rows = json.loads(ROWS)
columns = dict(zip([each["name"] for each in about["inputs"]], zip(*rows)))
inputs = []
for each in about["inputs"]:
    if each["datatype"] == "BYTES":
        values = np.array([("" if cell is None else cell).encode() for cell in columns[each["name"]]], dtype=object)
    else:
        values = np.array([np.nan if cell is None else cell for cell in columns[each["name"]]], dtype=np.float32)
    tensor = http.InferInput(each["name"], [len(rows)], each["datatype"])
    tensor.set_data_from_numpy(values, binary_data=binary == "binary")
    inputs.append(tensor)
wanted = [http.InferRequestedOutput(each["name"], binary_data=binary == "binary") for each in about["outputs"]]
zips = {"request_compression_algorithm": compression, "response_compression_algorithm": compression} if compression else {}
answers = [client.infer(name, inputs, request_id="r1", **zips), client.infer(name, inputs, outputs=wanted, **zips)]
assert answers[0].get_response()["id"] == "r1"
values = [{each["name"]: answer.as_numpy(each["name"]) for each in about["outputs"]} for answer in answers]
try:
    client.infer("other", inputs)
    refusal = ""
except InferenceServerException as error:
    refusal = str(error)
def plain(array):
    return [v.decode() if isinstance(v, bytes) else str(v) if isinstance(v, str) else float(v) for v in array.ravel()]
print(json.dumps({"answers": [{k: plain(v) for k, v in each.items()} for each in values], "refusal": refusal}))
"""


@pytest.mark.parametrize("compression", ["", "gzip"])
@pytest.mark.parametrize("form", ["binary", "json"])
@pytest.mark.parametrize("kind", ["number", "class"])
def test_tritons_client_gets_the_numbers_of_invocations(request, clients, kind, form, compression):
    running = request.getfixturevalue({"number": "endpoint", "class": "penguins"}[kind])
    rows = {"number": HOUSES, "class": PENGUINS}[kind]
    script = TRITON.replace("json.loads(ROWS)", f"json.loads({json.dumps(rows)!r})")
    said = clients(script, running.program.url.removeprefix("http://"), kind, form, compression)
    expected = invoked(running, rows)
    for answer in said["answers"]:
        if kind == "number":
            assert answer["predict"] == pytest.approx(expected, rel=1e-7)
        else:
            assert answer["label"] == [each["label"] for each in expected]
            chances = [p for each in expected for p in each["probabilities"].values()]
            assert answer["probabilities"] == pytest.approx(chances, rel=1e-6)
    assert "Model with name 'other' does not exist" in said["refusal"]


KSERVE = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
async def main(url):
    v1, v2 = InferenceRESTClient(RESTConfig(protocol="v1")), InferenceRESTClient(RESTConfig(protocol="v2"))
    rows = json.loads(ROWS)
    found = {"v1": (await v1.infer(url, {"instances": rows}, "boston-housing"))["predictions"]}
    found["ready"] = [await v1.is_model_ready(url, "boston-housing"), await v2.is_model_ready(url, "boston-housing"),
                      await v2.is_server_ready(url), await v2.is_server_live(url), not await v2.is_model_ready(url, "other")]
    for form, binary, out in (("json", False, False), ("binary", True, False), ("binary out", True, True)):
        tensor = InferInput("features", [len(rows), 6], "FP32")
        tensor.set_data_from_numpy(np.array(rows, dtype=np.float32), binary_data=binary)
        request = InferRequest("boston-housing", [tensor], parameters={"binary_data_output": True} if out else None)
        answer = await v2.infer(url, request, "boston-housing")
        found[form] = answer.outputs[0].as_numpy().tolist()
    for name, client, body in (("v1", v1, {"instances": [[1]]}), ("v2", v2, {"inputs": []})):
        try:
            await client.infer(url, body, "boston-housing")
        except Exception as error:
            found["refusal " + name] = str(error)
    print(json.dumps(found))
asyncio.run(main(sys.argv[1]))
"""


def test_kserves_client_gets_the_numbers_of_invocations_by_both_protocols(endpoint, clients):
    said = clients(KSERVE.replace("json.loads(ROWS)", f"json.loads({json.dumps(HOUSES)!r})"), endpoint.program.url)
    expected = invoked(endpoint, HOUSES)
    assert said["v1"] == expected
    for form in ("json", "binary", "binary out"):
        assert said[form] == pytest.approx(expected, rel=1e-7), form
    assert said["ready"] == [True] * 5
    assert "Row 1 has 1 value; the model takes 6" in said["refusal v1"]
    assert "inputs is not a list of objects" in said["refusal v2"]


VERTEX = """
import json, sys
try:
    import docker
except ImportError:
    print(json.dumps({"lacks": "docker"}))
    sys.exit()
from google.cloud.aiplatform.prediction import LocalModel
image, folder = sys.argv[1:]
model = LocalModel(serving_container_image_uri=image, serving_container_predict_route="/predict",
                   serving_container_health_route="/health", serving_container_ports=[8080])
with model.deploy_to_local_endpoint(artifact_uri=folder, container_ready_timeout=60) as endpoint:
    health = endpoint.run_health_check().status_code
    reply = endpoint.predict(request=json.dumps({"instances": json.loads(ROWS)}), headers={"Content-Type": "application/json"})
print(json.dumps({"health": health, "status": reply.status_code, "body": reply.json()}))
"""


def test_vertexs_local_model_runs_the_image_and_gets_the_numbers_of_invocations(endpoint, model_dir, image, clients):
    said = clients(VERTEX.replace("json.loads(ROWS)", f"json.loads({json.dumps(HOUSES)!r})"), image, str(model_dir))
    if "lacks" in said:
        lacking("requirements.lock's section clients has no 'docker', which google-cloud-aiplatform's local model needs")
    assert (said["health"], said["status"]) == (200, 200)
    assert said["body"]["predictions"] == pytest.approx(invoked(endpoint, HOUSES), rel=1e-6)
