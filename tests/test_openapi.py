"""`/openapi.json` is valid, names every route, follows the declaration, and the server keeps to it under fuzzing."""

import json
import os
import re
from dataclasses import dataclass

import jsonschema
import pytest
from ahead import ahead, scratch
from openapi_spec_validator import OpenAPIV31SpecValidator
from test_metrics import FEATURES, call, make_app
from trees import copy_of_the_tree

import contract.errors
from contract.errors import BerthError
from local_test.emulator import serving
from local_test.runners import Processes
from local_test.soak.fuzz import fuzz
from serving.openapi import BODY_ERRORS, PAGES
from serving.predictor import load_predictor

FUZZ_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "10"))
"""Requests that fuzzing makes for each operation and phase; `make soak` takes more."""
VERTEX = {"AIP_HEALTH_ROUTE": "/v1/endpoints/1/health", "AIP_PREDICT_ROUTE": "/v1/endpoints/1:predict"}
JSON = "application/json"


def document_of(app):
    status, media_type, body = call(app, "GET", "/openapi.json")
    assert (status, media_type) == (200, b"application/json")
    return json.loads(body)


@pytest.fixture(scope="module")
def housing(model_dir):
    return make_app(load_predictor(model_dir))


def operations(document):
    """(path, method, operation) of a document."""
    return [
        (path, method, item[method])
        for path, item in document["paths"].items()
        for method in ("get", "head", "post", "put", "delete", "patch")
        if method in item
    ]


# ---- the document


@pytest.mark.parametrize(
    "environ", [{}, VERTEX, {"SAGEMAKER_MULTI_MODEL": "true"}], ids=["one model", "Vertex AI", "several models"]
)
def test_the_document_is_valid_by_a_real_validator(environ):
    assert [error.message for error in OpenAPIV31SpecValidator(document_of(make_app(**environ))).iter_errors()] == []


@pytest.mark.parametrize("environ", [{}, VERTEX], ids=["one model", "Vertex AI"])
def test_every_route_is_in_the_document(environ):
    app = make_app(**environ)
    documented = {(method.upper(), path) for path, method, _ in operations(document_of(app))}
    assert {(route.method, route.path) for route in app.routes} - documented == set()
    assert {path for path in app.page_paths if ("GET", path) not in documented} == set()
    assert documented - {("GET", path) for path in PAGES} <= {(route.method, route.path) for route in app.routes}


def test_vertex_finds_its_routes_under_its_names():
    paths = document_of(make_app(**VERTEX))["paths"]
    assert paths["/v1/endpoints/1/health"]["get"] == paths["/ping"]["get"]
    assert paths["/v1/endpoints/1:predict"]["post"] == paths["/invocations"]["post"]


def test_every_operation_says_what_it_does_and_every_response_what_it_means():
    for path, method, operation in operations(document_of(make_app())):
        assert operation["summary"], (method, path)
        assert not operation["summary"].endswith(".")
        assert all("$ref" in answer or answer["description"] for answer in operation["responses"].values()), (method, path)


def test_every_error_of_a_prediction_is_documented_with_its_status_and_code():
    answers = document_of(make_app())["paths"]["/invocations"]["post"]["responses"]
    assert set(answers) == {"200", "400", "406", "408", "413", "415", "500", "503"}
    for error in (*BODY_ERRORS, contract.errors.NotAcceptable):
        answer = answers[str(error.status)]
        assert error.code in answer["content"][JSON]["schema"]["allOf"][1]["properties"]["error"]["enum"]
        assert error is BerthError or f"`{error.code}`" in answer["description"]


# ---- the declaration


def test_rows_are_described_by_the_declaration(housing, manifest):
    properties = document_of(housing)["components"]["schemas"]["Record"]["properties"]
    assert list(properties) == [feature["name"] for feature in manifest["features"]]
    for feature in manifest["features"]:
        about = properties[feature["name"]]["description"]
        assert feature["meaning"] in about
        assert feature["unit"] in about
        assert f"{feature['range'][0]:g} to {feature['range'][1]:g}" in about
        assert properties[feature["name"]]["type"] == "number"


def test_choices_missing_cells_and_classes_are_described():
    schemas = document_of(make_app())["components"]["schemas"]
    record = schemas["Record"]["properties"]
    assert record["size"]["type"] == "number"
    assert record["weight"]["type"] == ["number", "null"]
    assert record["color"]["enum"] == ["red", "green", "blue", None]
    assert record["shape"]["enum"] == ["round", "square"]
    assert schemas["Prediction"]["properties"]["label"]["enum"] == ["no", "yes"]
    assert list(schemas["Prediction"]["properties"]["probabilities"]["properties"]) == ["no", "yes"]
    assert schemas["Row"]["minItems"] == len(FEATURES)


def rows_schema(document):
    return {"$ref": "#/components/schemas/Rows", "components": document["components"]}


ROWS = {
    "by name": ({"instances": [{"size": 1, "weight": None, "color": "red", "shape": "round", "unseen": 2}]}, True),
    "in order": ([[1, 2.5, "blue", "square", None]], True),
    "wrapped": ({"instances": [{"features": [1, 2, None, "square", 0]}]}, True),
    "columns": ({"size": [1], "weight": [2], "color": ["red"], "shape": ["round"], "unseen": [None]}, True),
    "an unknown choice": ([[1, 2, "pink", "square", None]], False),
    "a missing value that must be there": ([[None, 2, "red", "square", None]], False),
    "too short": ([[1, 2, "red", "square"]], False),
    "too long": ([[1, 2, "red", "square", 1, 1]], False),
    "an unknown name": ([{"size": 1, "weight": 1, "color": "red", "shape": "round", "unseen": 2, "x": 1}], False),
    "beyond float32": ([[1e39, 2, "red", "square", None]], False),
    "no row": ({"instances": []}, False),
}


@pytest.mark.parametrize(("rows", "is_taken"), ROWS.values(), ids=ROWS.keys())
def test_the_schema_of_rows_takes_what_the_server_takes(rows, is_taken):
    app = make_app()
    validator = jsonschema.Draft202012Validator(rows_schema(document_of(app)))
    assert validator.is_valid(rows) == is_taken
    status, _, _ = call(app, "POST", "/invocations", json.dumps(rows).encode(), content_type=JSON)
    assert status == (200 if is_taken else 400)


@pytest.mark.parametrize("model", ["housing", "toys"])
@pytest.mark.parametrize("path", ["/invocations", "/predict"])
def test_every_example_of_a_body_is_answered_as_described(model, path, request):
    app = request.getfixturevalue("housing") if model == "housing" else make_app()
    document = document_of(app)
    answer_schema = {**described(document, path), "components": document["components"]}
    bodies = document["components"]["requestBodies"]["Rows"]["content"]
    examples = [
        (name, each["value"]) for name, media_type in bodies.items() for each in media_type.get("examples", {}).values()
    ]
    assert len(examples) >= 8
    for media_type, example in examples:
        body = (example if isinstance(example, str) else json.dumps(example)).encode()
        status, _, answer = call(app, "POST", path, body, content_type=media_type, accept=JSON)
        assert status == 200, (media_type, example, answer)
        jsonschema.Draft202012Validator(answer_schema).validate(json.loads(answer))


def described(document, path):
    """The schema of a good answer in JSON."""
    answer = document["paths"][path]["post"]["responses"]["200"]
    if "$ref" in answer:
        answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return answer["content"][JSON]["schema"]


# ---- the server keeps to it


@dataclass(frozen=True)
class Fuzzed:
    """What came of fuzzing a server."""

    kept: bool
    report: str
    ping: int
    log: str


def fuzzed(base, environ, paths=()):
    with serving(Processes(), base, environ) as running:
        kept, report = fuzz(running.program.url, FUZZ_EXAMPLES, scratch(), paths=paths)
        return Fuzzed(kept, report, running.ping().status, running.program.output())


@ahead
def fuzzed_numbers(trained):
    return fuzzed(trained, {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", **VERTEX})


@ahead
def fuzzed_classes(penguin_ml):
    paths = ["/invocations", "/predict", "/v2/models/{model}/infer"]
    return fuzzed(penguin_ml, {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}, paths)


@ahead
def fuzzed_models(trained):
    return fuzzed(trained, {"SAGEMAKER_MULTI_MODEL": "true"})


def assert_kept(found):
    assert found.kept, found.report[-8_000:]
    assert found.ping == 200
    assert "Traceback" not in found.log
    generated = re.search(r"(\d+) generated", found.report)
    assert generated
    assert int(generated[1]) > 200


@pytest.mark.timeout(7_200)
def test_the_server_keeps_its_word_under_fuzzing(fuzzed_numbers):
    assert_kept(fuzzed_numbers)


@pytest.mark.timeout(7_200)
def test_a_server_of_classes_categories_and_missing_cells_keeps_its_word_under_fuzzing(fuzzed_classes):
    assert_kept(fuzzed_classes)


@pytest.mark.timeout(7_200)
def test_a_multi_model_server_keeps_its_word_under_fuzzing(fuzzed_models):
    assert_kept(fuzzed_models)


def test_fuzzing_fails_where_a_server_breaks_its_word(trained, tmp_path):
    """The fuzzer's own test: one word of an answer is another than the document says."""
    broken = copy_of_the_tree(tmp_path / "tree")
    encoders = broken / "serving" / "encoders.py"
    changed = encoders.read_text().replace("""return b'{"prediction":' + plain""", """return b'{"answers":' + plain""")
    assert changed != encoders.read_text()
    encoders.write_text(changed)
    with serving(Processes(broken), trained, {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}) as running:
        kept, report = fuzz(running.program.url, 5, tmp_path, paths=["/predict"])
    assert not kept
    assert "POST /predict" in report
