"""Prediction intervals: every way of asking, every form of the answer, every refusal; and the report beside them."""

import asyncio
import hashlib
import io
import json
import shutil
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from test_metrics import Constant

from contract.errors import BadSetting, DamagedModel
from contract.manifest import read_manifest
from local_test.emulator import serving
from local_test.runners import Processes
from serving.app import App
from serving.models import Model
from serving.predictor import load_predictor
from serving.settings import Settings

CSV, JSON, JSONL, NPY = "text/csv", "application/json", "application/jsonlines", "application/x-npy"
ATTRIBUTES, LENGTH = "x-amzn-sagemaker-custom-attributes", "inference-header-content-length"
HALF_WIDTH = 2.7109375
INTERVALS = {"level": 0.9, "half_width": HALF_WIDTH, "rows": 102, "method": "split-conformal"}
REPORT = (
    "<!doctype html><title>Report</title><style>h1 {color: rgb(1, 2, 3)}</style><h1>How it went</h1><svg><circle r='5'/></svg>"
)
ROWS = [[0, 6.575, 296, 15.3, 396.9, 4.98], [1, 5.1, 400, 20, 100, 30], [0, 7.5, 200, 14, 390, 2]]
TEXT = "\n".join(",".join(map(str, row)) for row in ROWS)
BODY = {"instances": ROWS}
INFER, V1 = "/v2/models/boston-housing/infer", "/v1/models/boston-housing:predict"
SCORES = ["/invocations", "/score", "/vertex", V1]
ENVIRON = {"AIP_HEALTH_ROUTE": "/health", "AIP_PREDICT_ROUTE": "/vertex"}


@pytest.fixture(scope="module")
def wide(trained, tmp_path_factory):
    """An /opt/ml whose model has intervals and a report."""
    base = tmp_path_factory.mktemp("wide") / "ml"
    shutil.copytree(trained, base)
    folder = base / "model"
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report" / "report.html").write_text(REPORT)
    entry = {"sha256": hashlib.sha256(REPORT.encode()).hexdigest(), "size_bytes": len(REPORT)}
    document = json.loads((folder / "manifest.json").read_text())
    document["files"]["report/report.html"] = entry
    (folder / "manifest.json").write_text(json.dumps({**document, "intervals": INTERVALS}))
    return base


@pytest.fixture(scope="module")
def predictor(wide):
    return load_predictor(wide / "model")


def make(predictor, folder=None, **environ):
    return App(predictor, Settings.from_environ({**ENVIRON, **environ}), folder)


@pytest.fixture(scope="module")
def app(predictor, wide):
    return make(predictor, wide / "model")


@pytest.fixture(scope="module")
def narrow(model_dir):
    """A model of numbers without intervals and without a report."""
    predictor = load_predictor(model_dir)
    files = {name: entry for name, entry in predictor.manifest.files.items() if not name.startswith("report/")}
    predictor.manifest = replace(predictor.manifest, intervals=None, files=files)
    return make(predictor)


def ask(app, path="/invocations", body=BODY, method="POST", **headers):
    """(status, headers, body) of an application called without a server."""
    sent = []
    raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()

    async def receive():
        return {"type": "http.request", "body": raw, "more_body": False}

    async def send(message):
        sent.append(message)

    named = {"content-type": JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
    pairs = [(name.encode(), value.encode()) for name, value in named.items()]
    scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "query_string": b"", "headers": pairs}
    asyncio.run(app({**scope, "raw_path": path.encode()}, receive, send))
    found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent)


def told(app, path="/invocations", body=BODY, **headers):
    """The JSON of a good answer."""
    status, _, raw = ask(app, path, body, **headers)
    assert status == 200, raw
    return json.loads(raw)


def refused(app, code, words, *arguments, **headers):
    status, _, raw = ask(app, *arguments, **headers)
    assert status == 400, raw
    error = json.loads(raw)
    assert error["error"] == code
    assert [word for word in words if word not in error["message"]] == []


@pytest.fixture(scope="module")
def expected(app):
    """(3, 3): each row's prediction as it is answered without intervals, and what the interval should be, by float64."""
    values = np.float64(told(app)["predictions"])
    return np.column_stack([values, values - HALF_WIDTH, values + HALF_WIDTH])


def numbers(records):
    return [[record["prediction"], record["low"], record["high"]] for record in records]


def close(found, expected):
    """Whether numbers are those, but for float32's rounding; predictions to the last digit."""
    found = np.asarray(found, float)
    return found.shape == expected.shape and (found[:, 0] == expected[:, 0]).all() and np.allclose(found, expected, rtol=1e-6)


# ---- asking

YES = {"custom attributes": {ATTRIBUTES.replace("-", "_"): "intervals=true"}, "Accept": {"accept": JSON + "; intervals=true"}}
ASKED = {
    **YES,
    "attributes among others": {"x_amzn_sagemaker_custom_attributes": "trace=1; Intervals = TRUE ,x"},
    "the last attribute": {"x_amzn_sagemaker_custom_attributes": "intervals=false,intervals=true"},
    "Accept of any type": {"accept": "text/html, */*; intervals=true; q=0.1"},
    "Accept of any application": {"accept": "application/*;Q=0.5;INTERVALS=True"},
    "Accept before attributes": {"accept": JSON + ";intervals=true", "x_amzn_sagemaker_custom_attributes": "intervals=false"},
    "the best of a list": {"accept": "text/csv;q=0.5, application/json;intervals=true;q=0.9"},
    "parameters": {"body": {**BODY, "parameters": {"intervals": True, "more": 1}}},
    "parameters before Accept": {"body": {**BODY, "parameters": {"intervals": True}}, "accept": JSON + ";intervals=false"},
    "parameters beside pandas' split": {
        "body": {"dataframe_split": {"columns": [], "data": ROWS}, "parameters": {"intervals": True}}
    },
}
UNASKED = {
    "intervals=false in attributes": {"x_amzn_sagemaker_custom_attributes": "intervals=false"},
    "intervals=false in Accept": {"accept": "*/*; intervals=false"},
    "false in parameters": {"body": {**BODY, "parameters": {"intervals": False}}, "accept": JSON + ";intervals=true"},
    "another type of a list": {"accept": "text/csv;intervals=true;q=0.5, application/json;intervals=false"},
}
NOBODY = {
    "another type's parameter": {"accept": "application/json, text/csv;q=0.5;intervals=true"},
    "attributes of other names": {"x_amzn_sagemaker_custom_attributes": "my-intervals=true;about intervals"},
    "parameters of no object": {"body": {**BODY, "parameters": ["intervals"]}},
}


def named_columns(headers, manifest):
    if "dataframe_split" in (body := headers.get("body", {})):
        body["dataframe_split"]["columns"] = [feature["name"] for feature in manifest["features"]]
    return headers


@pytest.mark.parametrize("headers", ASKED.values(), ids=ASKED.keys())
def test_whoever_asks_in_whatever_way_gets_intervals(app, expected, manifest, headers):
    assert close(numbers(told(app, **named_columns(headers, manifest))["predictions"]), expected)


@pytest.mark.parametrize("headers", [*UNASKED.values(), *NOBODY.values()], ids=[*UNASKED, *NOBODY])
def test_whoever_does_not_ask_gets_numbers(app, expected, headers):
    assert told(app, **headers)["predictions"] == expected[:, 0].tolist()


@pytest.mark.parametrize("headers", NOBODY.values(), ids=NOBODY.keys())
def test_the_environment_asks_for_all_who_say_nothing(predictor, expected, headers):
    assert close(numbers(told(make(predictor, BERTH_INTERVALS="true"), **headers)["predictions"]), expected)


@pytest.mark.parametrize("headers", UNASKED.values(), ids=UNASKED.keys())
def test_a_request_may_say_no_to_what_the_environment_asks(predictor, expected, headers):
    assert told(make(predictor, BERTH_INTERVALS="true"), **headers)["predictions"] == expected[:, 0].tolist()


def test_custom_attributes_come_back_as_they_were(app):
    given = "trace=1;intervals=true"
    assert ask(app, x_amzn_sagemaker_custom_attributes=given)[1][ATTRIBUTES] == given


# ---- the forms of an answer


def read_csv(raw):
    return [list(map(float, line.split(b","))) for line in raw.split(b"\n")]


FORMS = {
    CSV: read_csv,
    JSON: lambda raw: numbers(json.loads(raw)["predictions"]),
    JSONL: lambda raw: numbers(map(json.loads, raw.split(b"\n"))),
    "application/x-ndjson": lambda raw: numbers(map(json.loads, raw.split(b"\n"))),
    NPY: lambda raw: np.load(io.BytesIO(raw)).tolist(),
}


@pytest.mark.parametrize("path", ["/invocations", "/score", "/vertex"])
@pytest.mark.parametrize("form", FORMS)
def test_every_format_has_the_prediction_first_then_low_and_high(app, expected, form, path):
    status, headers, raw = ask(app, path, TEXT, content_type=CSV, accept=f"text/html, {form}; intervals=true; q=0.7")
    assert (status, headers["content-type"]) == (200, form)
    found = FORMS[form](raw)
    if form == NPY:
        assert np.load(io.BytesIO(raw)).dtype == np.float32
        assert np.float32(found) == pytest.approx(expected, rel=1e-6)
    else:
        assert close(found, expected)


@pytest.mark.parametrize("path", SCORES)
@pytest.mark.parametrize("headers", [*YES.values(), ASKED["parameters"]], ids=[*YES, "parameters"])
def test_every_platform_that_answers_predictions_answers_records(app, expected, path, headers):
    assert close(numbers(told(app, path, **headers)["predictions"]), expected)


@pytest.mark.parametrize("headers", [*YES.values(), ASKED["parameters"]], ids=[*YES, "parameters"])
def test_the_books_shape_keeps_its_predictions_and_gets_two_lists_beside_them(app, expected, headers):
    answer = told(app, "/predict", **headers)
    assert list(answer) == ["prediction", "low", "high"]
    assert close(np.column_stack(list(answer.values())), expected)


def test_csv_has_the_digits_of_predictions_and_one_line_a_row_without_an_end(app):
    plain = ask(app, body=TEXT, content_type=CSV)[2].split(b"\n")
    lines = ask(app, body=TEXT, content_type=CSV, x_amzn_sagemaker_custom_attributes="intervals=true")[2].split(b"\n")
    assert [line.split(b",")[0] for line in lines] == plain
    assert all(str(np.float32(cell)) == cell for line in lines for cell in line.decode().split(","))


def test_a_large_body_keeps_its_rows(app, expected):
    body = "\n".join([TEXT] * 2_000)
    _, _, raw = ask(app, body=body, content_type=CSV, accept=CSV + ";intervals=true")
    found = np.array(read_csv(raw)).reshape(2_000, 3, 3)
    assert (found == found[0]).all()
    assert close(found[0], expected)


# ---- Open Inference Protocol V2


def inference(**more):
    return {"inputs": [{"name": "x", "shape": [3, 6], "datatype": "FP32", "data": ROWS}], **more}


def tensors(answer):
    assert all((each["datatype"], each["shape"]) == ("FP32", [3]) for each in answer["outputs"])
    return {each["name"]: each["data"] for each in answer["outputs"]}


TENSORS = {
    **{name: (inference(), headers) for name, headers in YES.items()},
    "parameters": (inference(parameters={"intervals": True}), {}),
    "names of outputs": (inference(outputs=[{"name": name} for name in ("predict", "low", "high")]), {}),
    "parameters and one output": (inference(parameters={"intervals": True}, outputs=[{"name": "predict"}]), {}),
}


@pytest.mark.parametrize(("body", "headers"), TENSORS.values(), ids=TENSORS.keys())
def test_v2_answers_low_and_high_as_tensors_of_their_own(app, expected, body, headers):
    found = tensors(told(app, INFER, body, **headers))
    assert list(found) == ["predict", "low", "high"]
    assert close(np.column_stack(list(found.values())), expected)


def test_v2_answers_the_outputs_that_are_named_and_without_asking_the_prediction_alone(app):
    assert list(tensors(told(app, INFER, inference()))) == ["predict"]
    assert list(tensors(told(app, INFER, inference(outputs=[{"name": "high"}])))) == ["high"]


@pytest.mark.parametrize(
    "more",
    [
        {"parameters": {"intervals": True, "binary_data_output": True}},
        {"parameters": {"intervals": True}, "outputs": [{"name": "predict", "parameters": {"binary_data": True}}]},
    ],
    ids=["by the request", "by the one output"],
)
def test_v2_answers_them_in_binary_too(app, expected, more):
    status, headers, raw = ask(app, INFER, inference(**more))
    size = int(headers[LENGTH])
    outputs = json.loads(raw[:size])["outputs"]
    assert status == 200
    assert [(each["name"], each["parameters"]["binary_data_size"]) for each in outputs] == [
        ("predict", 12),
        ("low", 12),
        ("high", 12),
    ]
    found = np.frombuffer(raw[size:], "<f4").reshape(3, 3).T
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("environ", [{}, {"BERTH_INTERVALS": "true"}], ids=["unasked", "asked by the environment"])
def test_v2_describes_the_outputs_that_it_answers_when_none_is_named(predictor, environ):
    """The protocol's rule; a client looks for each of them."""
    app = make(predictor, **environ)
    described = json.loads(ask(app, "/v2/models/boston-housing", method="GET")[2])["outputs"]
    assert [each["name"] for each in described] == list(tensors(told(app, INFER, inference())))
    assert len(described) == (3 if environ else 1)


def test_v2_refuses_a_bad_value_and_a_model_without_in_its_own_words(app, narrow):
    for one, value, words in ((app, "yes", "true or false was expected"), (narrow, True, "no prediction intervals")):
        status, _, raw = ask(one, INFER, inference(parameters={"intervals": value}))
        assert status == 400
        assert list(json.loads(raw)) == ["error"]
        assert words in json.loads(raw)["error"]


# ---- bad rows, metering


def test_placeholders_of_bad_rows_are_as_wide_as_other_rows(predictor):
    app = make(predictor, BAD_ROWS="null", BERTH_INTERVALS="true", SAGEMAKER_BATCH="true")
    good = TEXT.split("\n")[0]
    lines = ask(app, body=f"{good}\n1,2\n{good}", content_type=CSV)[2].split(b"\n")
    assert lines[1] == b"NaN,NaN,NaN"
    assert lines[0] == lines[2]
    assert ask(app, body="x", content_type=CSV)[2] == b"NaN,NaN,NaN"
    assert ask(app, body=f"x\n{good}", content_type=CSV, accept=CSV + ";intervals=false")[2].startswith(b"NaN\n")
    records = [json.loads(line) for line in ask(app, body=f"[{good}]\n{{", content_type=JSONL)[2].split(b"\n")]
    assert list(records[0]) == ["prediction", "low", "high"]
    assert list(records[1].items())[:3] == [("prediction", None), ("low", None), ("high", None)]
    assert "Row 2 is not JSON" in records[1]["error"]


def test_a_part_with_the_header_alone_is_answered_with_nothing(predictor, manifest):
    app = make(predictor, BERTH_INTERVALS="true", SAGEMAKER_BATCH="true")
    header = ",".join(feature["name"] for feature in manifest["features"])
    assert ask(app, body=header, content_type=CSV)[::2] == (200, b"")
    assert told(app, body=header, content_type=CSV, accept=JSON) == {"predictions": []}


def test_metering_counts_rows_and_not_numbers(predictor):
    app = make(predictor, BERTH_METERING_DIMENSION="inference.count")
    header = ask(app, accept=JSON + ";intervals=true")[1]["x-amzn-inference-metering"]
    assert json.loads(header) == {"Dimension": "inference.count", "ConsumedUnits": 3}


# ---- refusals

BAD = {
    "attributes": ({"x_amzn_sagemaker_custom_attributes": "a=b,intervals=maybe"}, ["'maybe'", "Custom-Attributes"]),
    "attributes without a value": ({"x_amzn_sagemaker_custom_attributes": "intervals"}, ["''"]),
    "Accept": ({"accept": JSON + ";intervals=1"}, ["'1'", "Accept"]),
    "a text in parameters": ({"body": {**BODY, "parameters": {"intervals": "true"}}}, ["'true'", "parameters"]),
    "null in parameters": ({"body": {**BODY, "parameters": {"intervals": None}}}, ["None"]),
    "a list in parameters": ({"body": {**BODY, "parameters": {"intervals": [True]}}}, ["[True]"]),
    "bytes": ({"x_amzn_sagemaker_custom_attributes": "intervals=\u00ff\u0000"}, ["intervals is"]),
}


@pytest.mark.parametrize(("headers", "words"), BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("path", ["/invocations", "/predict"])
def test_a_value_that_is_neither_true_nor_false_is_400(app, narrow, path, headers, words):
    for each in (app, narrow):
        refused(each, "bad_parameter", ["true or false was expected", *words], path, **headers)


@pytest.mark.parametrize("path", [*SCORES[:3], "/predict"])
@pytest.mark.parametrize("headers", [*YES.values(), ASKED["parameters"]], ids=[*YES, "parameters"])
def test_a_model_without_intervals_refuses_and_says_why_and_what_to_do(narrow, path, headers):
    refused(narrow, "no_intervals", ["its manifest.json holds none", "intervals=false"], path, **headers)
    assert len(told(narrow, path, accept="*/*;intervals=false").popitem()[1]) == 3


def test_a_class_refuses_and_names_its_probabilities():
    toys = make(Constant())
    row = {"size": 5, "weight": None, "color": "red", "shape": "round", "unseen": None}
    refused(toys, "no_intervals", ["it predicts a class", "probabilities"], "/invocations", [row], accept="*/*;intervals=true")
    assert told(toys, body=[row], accept="*/*;intervals=false")["predictions"][0]["label"] == "yes"


def test_the_setting_stops_the_start_of_a_model_without_intervals(narrow):
    with pytest.raises(BadSetting, match=r"BERTH_INTERVALS is true\. The model has no prediction intervals: its manifest"):
        make(narrow.service.predictor, BERTH_INTERVALS="true")
    with pytest.raises(BadSetting, match=r"it predicts a class.* Unset it\."):
        make(Constant(), BERTH_INTERVALS="true")
    with pytest.raises(BadSetting, match="BERTH_INTERVALS is 'maybe'"):
        make(narrow.service.predictor, BERTH_INTERVALS="maybe")


@pytest.mark.parametrize(
    "intervals",
    [
        {},
        [],
        "x",
        {"level": 0.9},
        {**INTERVALS, "half_width": -1},
        {**INTERVALS, "half_width": float("nan")},
        {**INTERVALS, "level": 90},
        {**INTERVALS, "half_width": "wide"},
    ],
    ids=str,
)
def test_a_manifest_whose_intervals_are_none_stops_the_start(wide, tmp_path, intervals):
    folder = tmp_path / "model"
    shutil.copytree(wide / "model", folder)
    document = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**document, "intervals": intervals}))
    with pytest.raises(DamagedModel, match=r"intervals of manifest\.json is not what `train` writes"):
        load_predictor(folder)


def test_an_older_manifest_has_no_intervals(wide, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(wide / "model", folder)
    document = json.loads((folder / "manifest.json").read_text())
    del document["intervals"]
    (folder / "manifest.json").write_text(json.dumps(document))
    assert read_manifest(folder).intervals is None
    assert read_manifest(folder).to_json()["intervals"] is None


# ---- several models


def test_a_model_of_several_answers_for_itself(predictor, narrow, expected):
    app = make(Constant(), SAGEMAKER_MULTI_MODEL="true", BERTH_INTERVALS="true")
    loaded = app.service.models._loaded
    loaded["wide"] = Model("wide", "/x", predictor, 1)
    loaded["narrow"] = Model("narrow", "/y", narrow.service.predictor, 1)
    assert close(numbers(told(app, "/models/wide/invoke")["predictions"]), expected)
    assert told(app, "/models/wide/invoke", accept="*/*;intervals=false")["predictions"] == expected[:, 0].tolist()
    refused(app, "no_intervals", ["manifest.json holds none"], "/models/narrow/invoke")
    assert len(told(app, "/models/narrow/invoke", accept="*/*;intervals=false")["predictions"]) == 3
    assert ask(app, "/report", method="GET")[0] == 404


# ---- what tells of them


def test_metadata_and_the_document_tell_of_intervals(app, expected, narrow):
    assert json.loads(ask(app, "/metadata", method="GET")[2])["intervals"] == INTERVALS
    document = json.loads(ask(app, "/openapi.json", method="GET")[2])
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    components = document["components"]
    assert "90% of cases" in components["schemas"]["Prediction"]["anyOf"][1]["description"]
    answer = components["responses"]["Predictions"]["content"][JSON]["schema"]
    validator = jsonschema.Draft202012Validator({**answer, "components": components})
    for body in (BODY, {**BODY, "parameters": {"intervals": True}}):
        validator.validate(told(app, body=body))
    assert not validator.is_valid({"predictions": [{"prediction": 1, "low": 0}]})
    without = json.loads(ask(narrow, "/openapi.json", method="GET")[2])["components"]["schemas"]
    assert "anyOf" not in without["Prediction"]


# ---- the report


def test_the_report_is_served_as_it_is_and_may_run_and_fetch_nothing(app):
    status, headers, raw = ask(app, "/report", method="GET")
    assert (status, raw.decode()) == (200, REPORT)
    assert headers["content-type"].startswith("text/html")
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert "script-src" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert b'href="report"' in ask(app, "/", method="GET")[2]


def test_a_model_without_a_report_says_so_and_its_page_links_to_none(narrow):
    status, headers, raw = ask(narrow, "/report", method="GET")
    assert (status, headers["content-type"], json.loads(raw)["error"]) == (404, JSON, "not_found")
    assert "This model has no report" in json.loads(raw)["message"]
    assert b'href="report"' not in ask(narrow, "/", method="GET")[2]


def test_a_report_that_was_changed_removed_or_led_elsewhere_is_not_shown(wide, predictor, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(wide / "model", folder)
    app, page, secret = make(predictor, folder), folder / "report" / "report.html", tmp_path / "secret"
    secret.write_text("s" * len(REPORT))
    for change in (lambda: page.write_text(REPORT + "x"), page.unlink, lambda: page.symlink_to(secret)):
        change()
        status, _, raw = ask(app, "/report", method="GET")
        assert (status, json.loads(raw)["error"]) == (503, "damaged_model")
        assert b"sss" not in raw


def test_a_started_server_reads_the_setting_and_finds_the_report(wide):
    with serving(Processes(), wide, {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "BERTH_INTERVALS": "True"}) as running:
        lines = running.invoke(TEXT.encode(), CSV).text.split("\n")
        assert [line.count(",") for line in lines] == [2, 2, 2]
        assert running.get("/report").text == REPORT
