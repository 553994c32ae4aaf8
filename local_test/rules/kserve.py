"""KServe's protocols: K-1, the Open Inference Protocol V2, and K-2, V1. Who speaks neither is not judged, unless asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any
from urllib.parse import quote

from local_test.emulator import Endpoint, Reply
from local_test.rules.platforms import instances_body, predictions_of
from local_test.rules.records import instances, is_number
from local_test.rules.wire import describe, send
from local_test.runners import Processes
from local_test.subject import Subject
from local_test.verdicts import DoesNotApply, Rule, Severity, Unjudged, Violated

LIVE, READY, V1 = "/v2/health/live", "/v2/health/ready", "/v1/models"
UNHEARD = "/v2/unheard-of"
"""A path that only a server has which answers 200 to everything, and so claims nothing."""
MODELS = "/mnt/models"
JSON_TYPE = {"Content-Type": "application/json"}


def v2_health_is_answered(subject: Subject) -> str:
    """Judge whether liveness, readiness and the server's own description are answered."""
    endpoint = _speaks(subject, LIVE)
    for path in (LIVE, READY):
        if (status := endpoint.get(path).status) != 200:
            raise Violated(f"GET {path} answered {status}; 200 was expected of a server that is ready")
    server = _document(endpoint.get("/v2"), "GET /v2", ("name", "version", "extensions"))
    return f"live, ready, and named {server['name']!r}"


def v2_model_predicts(subject: Subject) -> str:
    """Judge whether the model is described, ready, and answers tensors with tensors."""
    endpoint, name = _speaks(subject, LIVE), _model_name(subject)
    path = f"/v2/models/{quote(name)}"
    model = _document(endpoint.get(path), f"GET {path}", ("name", "platform", "inputs", "outputs"))
    if (status := endpoint.get(f"{path}/ready").status) != 200:
        raise Violated(f"GET {path}/ready answered {status}; 200 was expected")
    if not model["inputs"]:
        raise Unjudged(f"GET {path} names no inputs, so there is no telling which tensors it takes")
    body = json.dumps({"inputs": _tensors(model["inputs"], _first_row(subject))}).encode()
    reply = _post(endpoint, f"{path}/infer", body)
    if 400 <= reply.status < 500:
        raise Unjudged(f"tensors that were made from the payload's first row are refused: {describe(reply)}")
    answer = _document(reply, f"POST {path}/infer", ("model_name", "outputs"))
    for tensor in answer["outputs"]:
        _check_output(tensor, path)
    return f"{name}: {len(answer['outputs'])} output tensors for {len(model['inputs'])} inputs"


def v2_errors_are_said(subject: Subject) -> str:
    """Judge whether a request that makes no sense, and a model that isn't there, are refused in the protocol's words."""
    endpoint = _speaks(subject, LIVE)
    refusals = {
        "an empty request": _post(endpoint, f"/v2/models/{quote(_model_name(subject))}/infer", b"{}"),
        "a model that is not there": endpoint.get("/v2/models/unheard-of"),
    }
    for what, reply in refusals.items():
        if not 400 <= reply.status < 500 or not isinstance(_loaded(reply).get("error"), str):
            raise Violated(f'{what} was answered with {describe(reply)}; 4xx and {{"error": ".."}} were expected')
    return ", ".join(f"{what}: {reply.status}" for what, reply in refusals.items())


def v1_model_predicts(subject: Subject) -> str:
    """Judge whether V1 lists the model, says it is ready, and predicts instances."""
    endpoint = _speaks(subject, V1)
    names = _document(endpoint.get(V1), f"GET {V1}", ("models",))["models"]
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise Violated(f"GET {V1} answered models {names!r}; a list of names was expected")
    path = f"{V1}/{quote(names[0])}"
    _document(endpoint.get(path), f"GET {path}", ("name", "ready"))
    body = instances_body(subject.payload)
    if body is None or subject.payload is None:
        raise Unjudged('the payload has no instances: give one in JSON, such as {"instances": [[1, 2]]}')
    return f"{names[0]}: {predictions_of(_post(endpoint, f'{path}:predict', body), subject.payload)}"


def _server(subject: Subject) -> Endpoint:
    """Return the shared server; where KServe was asked for, one of a start without a word, or else with `serve`.

    On KServe the arguments are the owner's to choose, and so either will do.
    """
    if "kserve" not in subject.asked or isinstance(subject.platform, Processes):
        return subject.endpoint

    def is_ready(endpoint: Endpoint) -> bool:  # the last is of a server that speaks neither protocol, and is so told at once
        return any(endpoint.get(path).status == 200 for path in (READY, V1, "/ping"))

    mounts = (f"{subject.model}:{MODELS}:ro",)
    try:
        return subject.kept("kserve", words=(), ready=is_ready, mounts=mounts)
    except (Violated, OSError):
        return subject.kept("kserve, by its word", ready=is_ready, mounts=mounts)


def _speaks(subject: Subject, path: str) -> Endpoint:
    """Return the server; raises DoesNotApply where a protocol's path is not there, Violated where KServe was asked for."""
    endpoint = _server(subject)
    statuses = {each: endpoint.get(each).status for each in (LIVE, V1, UNHEARD)}
    if statuses[path] == 200 != statuses[UNHEARD]:
        return endpoint
    if "kserve" in subject.asked and 200 not in {statuses[LIVE], statuses[V1]}:
        raise Violated(f"neither V2 nor V1 is spoken: GET {LIVE} answered {statuses[LIVE]}, GET {V1} {statuses[V1]}")
    raise DoesNotApply(f"GET {path} answered {statuses[path]}, and {UNHEARD} {statuses[UNHEARD]}: that protocol is not spoken")


def _model_name(subject: Subject) -> str:
    """Return the model's name, from the repository's index (K-3) or V1's list (K-2)."""
    endpoint = _server(subject)
    for reply in (_post(endpoint, "/v2/repository/index", b"{}"), endpoint.get(V1)):
        found = _loaded(reply, list) or _loaded(reply).get("models") or []
        first = found[0] if reply.status == 200 and found else None
        name = first.get("name") if isinstance(first, dict) else first
        if isinstance(name, str):
            return name
    raise Unjudged(f"the model's name can't be found: neither POST /v2/repository/index nor GET {V1} lists it")


def _first_row(subject: Subject) -> Sequence[Any]:
    found, _ = instances(subject.payload) if subject.payload else ([], False)
    first = found[0] if found else []
    return list(first.values()) if isinstance(first, dict) else first if isinstance(first, list) else [first]


def _tensors(inputs: Sequence[Mapping[str, Any]], row: Sequence[Any]) -> list[dict[str, Any]]:
    """Return one row for a model's inputs: a tensor a cell, or one tensor of all cells; zeros where the row doesn't fit."""
    made = []
    for index, described in enumerate(inputs):
        shape = [1 if size < 0 else size for size in described["shape"]]
        if len(inputs) == 1 and row:
            shape = [1, len(row)]
        values = row if len(inputs) == 1 and row else row[index : index + 1] if len(inputs) == len(row) else [0] * prod(shape)
        data = [_value(value, described["datatype"]) for value in values]
        made.append({"name": described["name"], "shape": shape, "datatype": described["datatype"], "data": data})
    return made


def _value(value: Any, datatype: str) -> Any:
    if datatype == "BYTES":
        return f"{value:g}" if isinstance(value, float) else str(value)
    number = float(value) if is_number(str(value)) else 0.0
    return number if datatype.startswith("FP") else bool(number) if datatype == "BOOL" else int(number)


def _check_output(tensor: Any, path: str) -> None:
    """Raise Violated where an output is no tensor, or has not as many values as its shape says."""
    wanted = ("name", "shape", "datatype", "data")
    if not isinstance(tensor, dict) or not all(key in tensor for key in wanted):
        raise Violated(f"POST {path}/infer answered an output without {', '.join(wanted)}: {str(tensor)[:200]}")
    flat = len(_flat(tensor["data"]))
    if flat != prod(tensor["shape"]):
        raise Violated(f"output {tensor['name']!r} has shape {tensor['shape']} and {flat} values")


def _flat(values: Any) -> list[Any]:
    return [leaf for value in values for leaf in _flat(value)] if isinstance(values, list) else [values]


def _post(endpoint: Endpoint, path: str, body: bytes) -> Reply:
    return send(endpoint.program.url, body, JSON_TYPE, path=path)


def _loaded(reply: Reply, kind: type = dict) -> Any:
    """Return a JSON document of a kind; an empty one where it is another."""
    try:
        document = json.loads(reply.body)
    except ValueError:
        return kind()
    return document if isinstance(document, kind) else kind()


def _document(reply: Reply, what: str, keys: Sequence[str]) -> dict[str, Any]:
    """Return an answer's document; raises Violated where it is not 200 or lacks a key."""
    document: dict[str, Any] = _loaded(reply)
    missing = [key for key in keys if key not in document]
    if reply.status != 200 or missing:
        raise Violated(f"{what} answered {describe(reply)}; 200 and JSON with {', '.join(keys)} were expected")
    return document


RULES = (
    Rule(
        "K-1",
        "KServe V2: health and server are described",
        Severity.ELSEWHERE,
        "Answer GET /v2/health/live and /v2/health/ready with 200, and GET /v2 with name, version and extensions.",
        v2_health_is_answered,
        platform="kserve",
    ),
    Rule(
        "K-1",
        "KServe V2: the model is described, ready, and predicts tensors",
        Severity.ELSEWHERE,
        "Answer GET /v2/models/{name}, its /ready, and POST its /infer with model_name and outputs.",
        v2_model_predicts,
        ("v2_health_is_answered",),
        platform="kserve",
    ),
    Rule(
        "K-1",
        "KServe V2: errors are said in the protocol's words",
        Severity.ELSEWHERE,
        'Refuse with 4xx and {"error": ".."}.',
        v2_errors_are_said,
        ("v2_health_is_answered",),
        platform="kserve",
    ),
    Rule(
        "K-2",
        "KServe V1: the model is listed, ready, and predicts instances",
        Severity.ELSEWHERE,
        'Answer GET /v1/models with {"models": [name]}, and POST /v1/models/{name}:predict with predictions.',
        v1_model_predicts,
        platform="kserve",
    ),
)
