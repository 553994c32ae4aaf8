"""Marketplace metering (H-41): what a prediction says that it costs, over every route, every format and every failure."""

import asyncio
import json
import shutil

import numpy as np
import pytest
from test_metrics import Constant

from local_test import payloads
from serving.app import App
from serving.exchange import headers_of
from serving.predictor import load_predictor
from serving.settings import Settings

HEADER, DIMENSION = "x-amzn-inference-metering", "inference.count"
CSV, JSON, JSONL, NPY = "text/csv", "application/json", "application/jsonlines", "application/x-npy"
PARQUET = "application/x-parquet"
ROWS = [[0, 6.575, 296, 15.3, 396.9, 4.98], [1, 5.1, 400, 20, 100, 30], [0, 7.5, 200, 14, 390, 2]]
TEXT = "\n".join(",".join(map(str, row)) for row in ROWS)
TENSOR = {"inputs": [{"name": "features", "shape": [3, 6], "datatype": "FP32", "data": ROWS}]}
VERTEX = {"AIP_HEALTH_ROUTE": "/health", "AIP_PREDICT_ROUTE": "/vertex"}
PREDICTS = {
    "/invocations": {"instances": ROWS},
    "/predict": {"instances": ROWS},
    "/score": {"instances": ROWS},
    "/vertex": {"instances": ROWS},
    "/v1/models/{model}:predict": {"instances": ROWS},
    "/v2/models/{model}/infer": TENSOR,
    "/v2/models/{model}/versions/{version}/infer": TENSOR,
    "/models/{name}/invoke": {"instances": ROWS},
}
"""The routes that predict, and what three rows look like there. A route that isn't here is not metered."""


@pytest.fixture(scope="module")
def predictor(model_dir):
    return load_predictor(model_dir)


def make(predictor, **environ):
    return App(predictor, Settings.from_environ({"BERTH_METERING_DIMENSION": DIMENSION, **VERTEX, **environ}))


@pytest.fixture(scope="module")
def app(predictor):
    return make(predictor)


@pytest.fixture(scope="module")
def multi(predictor, model_dir, tmp_path_factory):
    """A multi-model endpoint that has loaded one model, `m`."""
    base = tmp_path_factory.mktemp("multi")
    folder = shutil.copytree(model_dir, base / "models" / "m" / "model")
    app = make(predictor, SAGEMAKER_MULTI_MODEL="true", SAGEMAKER_BASE_DIR=str(base))
    body = json.dumps({"model_name": "m", "url": str(folder)}).encode()
    assert ask(app, "POST", "/models", body)[0] == 200
    return app


def ask(app, method, path, body=b"", content_type=JSON, **headers):
    """(status, headers, body) of one request, without a server; status 0 where a page would answer."""

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    named = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
    pairs = [(name.encode(), value.encode()) for name, value in named.items()]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": pairs}
    answer = asyncio.run(app.answer(scope, receive))
    if answer is None:
        return 0, {}, b""
    return answer.status, {name.decode(): value.decode() for name, value in headers_of(answer)}, answer.body


def units(headers):
    """What an answer says that it costs; None where it says nothing."""
    return json.loads(headers[HEADER])["ConsumedUnits"] if HEADER in headers else None


def filled(path):
    return path.replace("{model}", "boston-housing").replace("{version}", "1").replace("{name}", "m")


@pytest.mark.parametrize("endpoint", ["app", "multi"])
def test_every_route_that_predicts_is_metered_by_its_rows_and_no_other_is(request, endpoint):
    app = request.getfixturevalue(endpoint)
    seen = {}
    # A model is unloaded last: others ask it.
    for route in sorted(app.routes, key=lambda route: route.method == "DELETE"):
        body = json.dumps(PREDICTS.get(route.path, {"model_name": "n", "url": "/nowhere"})).encode()
        status, headers, _ = ask(app, route.method, filled(route.path), body)
        predicted = route.path in PREDICTS and status == 200
        assert units(headers) == (3 if predicted else None), (route.method, route.path, status)
        seen[route.path] = status
    predicting = {path for path, status in seen.items() if path in PREDICTS and status == 200}
    assert predicting == ({"/models/{name}/invoke"} if endpoint == "multi" else set(PREDICTS) - {"/models/{name}/invoke"})


def test_pages_are_not_metered(app):
    assert {ask(app, "GET", path)[0] for path in ("/", "/metadata", "/report", "/nowhere")} == {0}


def bodies(manifest):
    """Three rows in every format, as the program's own payloads write them."""
    rows = [sample["row"] for sample in manifest["samples"]]
    writers = {
        CSV: payloads.csv_body,
        JSON: payloads.json_body,
        JSONL: payloads.jsonlines_body,
        NPY: payloads.npy_body,
        PARQUET: payloads.parquet_body,
    }
    return {media_type: write(manifest, rows) for media_type, write in writers.items()}


@pytest.mark.parametrize("content_type", [CSV, JSON, JSONL, NPY, PARQUET])
@pytest.mark.parametrize("accept", [CSV, JSON, JSONL, NPY])
def test_every_format_in_and_out_says_the_dimension_and_the_rows(app, manifest, content_type, accept):
    status, headers, _ = ask(app, "POST", "/invocations", bodies(manifest)[content_type], content_type, accept=accept)
    assert status == 200
    assert json.loads(headers[HEADER]) == {"Dimension": DIMENSION, "ConsumedUnits": 3}


@pytest.mark.parametrize(
    ("path", "body", "content_type", "status"),
    [
        ("/invocations", b'1,"', CSV, 400),
        ("/invocations", b"", CSV, 400),
        ("/invocations", TEXT.encode(), "image/png", 415),
        ("/predict", b"{", JSON, 400),
        ("/v1/models/boston-housing:predict", b"[[1]]", JSON, 400),
        ("/v1/models/another:predict", b"[[1]]", JSON, 404),
        ("/v2/models/boston-housing/infer", b"{}", JSON, 400),
    ],
)
def test_a_refusal_costs_nothing(app, path, body, content_type, status):
    found, headers, _ = ask(app, "POST", path, body, content_type)
    assert found == status
    assert HEADER not in headers


def test_an_answer_type_that_is_not_spoken_and_another_method_cost_nothing(app):
    for method, path, status in (("POST", "/invocations", 406), ("HEAD", "/invocations", 405), ("GET", "/invocations", 405)):
        found, headers, _ = ask(app, method, path, TEXT.encode(), CSV, accept="image/png" if method == "POST" else "")
        assert (found, HEADER in headers) == (status, False)
    assert ask(app, "HEAD", "/ping")[0] == 200
    assert HEADER not in ask(app, "HEAD", "/ping")[1]


def test_our_own_failure_costs_nothing(predictor):
    class Broken(type(predictor)):
        def predict(self, matrix):
            raise RuntimeError

    broken = object.__new__(Broken)
    vars(broken).update(vars(predictor))
    status, headers, _ = ask(make(broken), "POST", "/invocations", TEXT.encode(), CSV)
    assert status == 500
    assert HEADER not in headers


@pytest.mark.parametrize(("content_type", "good"), [(CSV, TEXT.split("\n")[0]), (JSONL, json.dumps(ROWS[0]))])
@pytest.mark.parametrize(("order", "expected"), [("gbg", 2), ("ggg", 3), ("bbb", 0), ("g", 1), ("b", 0)])
@pytest.mark.parametrize("batch", ["true", "false"])
def test_a_placeholder_is_no_prediction_and_is_said_to_cost_nothing(predictor, content_type, good, order, expected, batch):
    """The Marketplace charges an answer without the header as one inference: a zero has to be said."""
    app = make(predictor, BAD_ROWS="null", SAGEMAKER_BATCH=batch)
    lines = [good if letter == "g" else "1,2" for letter in order]
    status, headers, body = ask(app, "POST", "/invocations", "\n".join(lines).encode(), content_type)
    assert (status, len(body.split(b"\n"))) == (200, len(order))
    assert units(headers) == expected


def test_a_header_row_and_a_part_that_is_all_header_are_not_charged(predictor, manifest):
    app = make(predictor, SAGEMAKER_BATCH="true")
    header = ",".join(feature["name"] for feature in manifest["features"])
    assert units(ask(app, "POST", "/invocations", f"{header}\n{TEXT}".encode(), CSV)[1]) == 3
    assert units(ask(app, "POST", "/invocations", header.encode(), CSV)[1]) == 0


def test_mini_batches_add_up_to_the_file(predictor):
    app = make(predictor, SAGEMAKER_BATCH="true")
    lines = TEXT.split("\n") * 40
    for size in (1, 7, 120):
        parts = ["\n".join(lines[start : start + size]) for start in range(0, len(lines), size)]
        assert sum(units(ask(app, "POST", "/invocations", part.encode(), CSV)[1]) for part in parts) == 120


def test_a_large_body_a_zipped_answer_and_intervals_are_metered_alike(app):
    body = "\n".join([TEXT] * 2_000).encode()
    status, headers, _ = ask(app, "POST", "/invocations", body, CSV, accept_encoding="gzip")
    assert (status, headers["content-encoding"], units(headers)) == (200, "gzip", 6_000)
    headers = ask(app, "POST", "/invocations", TEXT.encode(), CSV, accept=CSV + ";intervals=true")[1]
    assert units(headers) == 3


def test_a_class_costs_one_a_row_however_many_probabilities_it_has():
    row = {"size": 5, "weight": None, "color": "red", "shape": "round", "unseen": None}
    status, headers, _ = ask(make(Constant()), "POST", "/invocations", json.dumps([row] * 2).encode())
    assert (status, units(headers)) == (200, 2)


def test_a_caller_can_neither_set_nor_remove_what_is_metered(app):
    forged = json.dumps({"Dimension": DIMENSION, "ConsumedUnits": 0})
    headers = ask(app, "POST", "/invocations", TEXT.encode(), CSV, x_amzn_inference_metering=forged)[1]
    assert units(headers) == 3
    headers = ask(app, "POST", "/invocations", TEXT.encode(), CSV, x_amzn_sagemaker_custom_attributes="trace=1")[1]
    assert (units(headers), headers["x-amzn-sagemaker-custom-attributes"]) == (3, "trace=1")


@pytest.mark.parametrize("dimension", ["", "  "])
def test_nothing_is_metered_where_no_dimension_is_set(predictor, dimension):
    app = make(predictor, BERTH_METERING_DIMENSION=dimension)
    for path, body in PREDICTS.items():
        if path != "/models/{name}/invoke":
            status, headers, _ = ask(app, "POST", filled(path), json.dumps(body).encode())
            assert (status, HEADER in headers) == (200, False)


def test_the_small_path_of_the_server_is_metered_too(app):
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/invocations",
        "raw_path": b"/invocations",
        "headers": [(b"content-type", CSV.encode())],
    }
    answer = app.answer_at_once(scope, TEXT.encode())
    assert units({name.decode(): value.decode() for name, value in headers_of(answer)}) == 3
    assert np.loadtxt(answer.body.decode().split("\n")).shape == (3,)
