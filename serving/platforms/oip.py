"""Open Inference Protocol V2, as Triton, KServe and MLServer speak it over HTTP (contract K-1, K-3)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from contract.errors import BerthError, PayloadTooLarge, SlowBody, UnknownPath, UnreadableBody
from contract.manifest import Manifest
from contract.media import JSON
from serving.cells import Matrix, short
from serving.encoders import Encoder
from serving.exchange import Answer, Handler, Request, Route, error_answer
from serving.intervals import NAME as INTERVALS
from serving.openapi import BODY_ERRORS, OBJECT, content, operation
from serving.openapi import TEXT as TEXTS
from serving.predictor import Predictions
from serving.schema import Schema
from serving.service import Service
from serving.settings import Settings
from serving.tensors import TEXT, entries_of, flag, matrix_of, parameters_of, read_tensors, split_body, typed

BOUNDS = ("low", "high")
"""The outputs that hold a prediction's interval."""
HEADER_LENGTH = b"inference-header-content-length"
BINARY = "application/octet-stream"
VERSION = "1"
"""Of the model, in paths: there is one."""
MAX_MESSAGE, MAX_INDEX_BYTES = 1_500, 65_536
FORMATS = {"onnx": "onnxruntime_onnx", "sklearn": "sklearn_joblib", "tflite": "tensorflowlite_tflite"}

ERROR = {"type": "object", "properties": {"error": TEXTS}, "required": ["error"]}


def refused(*errors: type[BerthError]) -> dict[str, Any]:
    """Return OpenAPI's Response Objects of errors in the protocol's own shape."""
    return {str(error.status): content("What was found, and what was expected.", {JSON: ERROR}) for error in errors}


ANSWER = {"200": content("The protocol's answer.", {JSON: OBJECT})}
NOT_READY = {"503": content("It doesn't.", {JSON: OBJECT})}
ASK_SERVER = operation("V2: describe the server", ANSWER)
ASK_LIVE = operation("V2: say that the server runs", ANSWER)
ASK_READY = operation("V2: say whether the server answers predictions", {**ANSWER, **NOT_READY})
INDEX = {"200": content("The one model.", {JSON: {"type": "array", "items": OBJECT}})}
LIST = operation("V2: list the models", {**INDEX, **refused(SlowBody, PayloadTooLarge)})
DESCRIBE = operation("V2: describe the model's inputs and outputs", {**ANSWER, **refused(UnknownPath)})
ASK_MODEL = operation("V2: say whether the model answers", {**ANSWER, **NOT_READY, **refused(UnknownPath)})
INFER = operation(
    "V2: predict the rows of tensors",
    {
        "200": content("Tensors; bytes where binary parts were asked for.", {JSON: OBJECT, BINARY: TEXTS}),
        **refused(UnknownPath, *BODY_ERRORS),
    },
    requestBody=content("Tensors; as bytes where binary parts follow the JSON.", {JSON: OBJECT, BINARY: TEXTS}, required=True),
)


def routes(service: Service) -> list[Route]:
    """Return the protocol's routes. The repository is read-only: its index alone is answered."""
    name = name_of(service)
    manifest = service.predictor.manifest
    server = {"name": "berth", "version": service.settings.image_version, "extensions": ["binary_tensor_data"]}
    model = _describe(manifest, name, service.settings)

    async def ask_ready(request: Request) -> Answer:
        """Say whether the server answers predictions; the status says the same."""
        return _document({"ready": service.is_ready}, 200 if service.is_ready else 503)

    async def ask_model_ready(request: Request) -> Answer:
        """Say whether the model answers; the status says the same."""
        check_model(request, name)
        return _document({"name": name, "ready": service.is_ready}, 200 if service.is_ready else 503)

    async def describe_model(request: Request) -> Answer:
        """Describe the model's inputs and outputs."""
        check_model(request, name)
        return _document(model)

    async def list_models(request: Request) -> Answer:
        """List the repository's one model; a body that asks for less is not read into."""
        await request.body(MAX_INDEX_BYTES, service.settings.body_timeout_s)
        state = "READY" if service.is_ready else "UNAVAILABLE"
        return _document([{"name": name, "version": VERSION, "state": state, "reason": ""}])

    async def infer(request: Request) -> Answer:
        """Predict the rows of the tensors."""
        check_model(request, name)
        inference = Inference(manifest, name, request)
        return inference.seal(await service.answer(request, inference.read, JSON))

    table = [
        Route("GET", "/v2", _always(server), explain, ASK_SERVER),
        Route("GET", "/v2/health/live", _always({"live": True}), explain, ASK_LIVE, quiet=True),
        Route("GET", "/v2/health/ready", ask_ready, explain, ASK_READY, quiet=True),
        Route("POST", "/v2/repository/index", list_models, explain, LIST),
    ]
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        table += [
            Route("GET", path, describe_model, explain, DESCRIBE),
            Route("GET", path + "/ready", ask_model_ready, explain, ASK_MODEL, quiet=True),
            Route("POST", path + "/infer", infer, explain, INFER),
        ]
    return table


def name_of(service: Service) -> str:
    """Return what this protocol's and KServe's paths call the model."""
    return service.settings.model_name or service.predictor.manifest.declaration.name


def check_model(request: Request, name: str) -> None:
    """Refuse a path that names another model or version.

    Raises:
        UnknownPath: the message names the one there is.
    """
    asked = request.parameters["model"]
    if asked != name:
        raise UnknownPath(f"Model with name {short(asked)} does not exist; this server has {name!r}.")
    version = request.parameters.get("version", VERSION)
    if version != VERSION:
        raise UnknownPath(f"Model {name!r} has no version {short(version)}; it has {VERSION!r}.")


def explain(error: BerthError, identity: str) -> Answer:
    """Return an error as the protocol has it, `{"error": message}`; KServe's V1 has the same."""
    message = error.message if len(error.message) <= MAX_MESSAGE else error.message[:MAX_MESSAGE] + "..."
    if error.status == 500:
        message = f"{message} request_id: {identity}"
    return replace(error_answer(error, identity), body=orjson.dumps({"error": message}))


class Inference:
    """One request, and what its answer takes from it: the id, the outputs asked for, and their form."""

    def __init__(self, manifest: Manifest, name: str, request: Request) -> None:
        self._manifest = manifest
        self._request = request
        self._answer: dict[str, Any] = {"model_name": name, "model_version": VERSION}
        self._outputs: dict[str, bool] = {}
        """Name to whether it is written in binary, in order."""
        self._json_bytes = 0

    def read(self, body: bytes, schema: Schema) -> tuple[Matrix, Encoder]:
        """Return the matrix of the inputs, and what writes the answer.

        Raises:
            UnreadableBody: it isn't what the protocol describes, or sizes contradict each other.
            SchemaMismatch: the inputs aren't the model's.
            BadData: a value isn't what its datatype or its column takes.
        """
        document, rest = split_body(body, self._request.header(HEADER_LENGTH))
        if "id" in document:
            self._answer["id"] = typed(document, "id", str, "The request")
        self._request.asked.update(parameters_of(document, "The request"))
        outputs = describe_outputs(self._manifest, with_bounds=self._manifest.intervals is not None)
        self._outputs = _wanted_outputs(document, [output["name"] for output in outputs])
        if not self._outputs.keys().isdisjoint(BOUNDS):  # to name one is to ask
            self._request.asked[INTERVALS] = True
        return matrix_of(read_tensors(document, rest), schema), self._write

    def seal(self, answer: Answer) -> Answer:
        """Return the answer with the header that tells where binary parts begin, if there are any."""
        if not self._json_bytes:
            return answer
        headers = (*answer.headers, (HEADER_LENGTH, str(self._json_bytes).encode()))
        return replace(answer, media_type=BINARY, headers=headers)

    def _write(self, predictions: Predictions) -> bytes:
        values: dict[str, NDArray[Any]] = {"predict": predictions.values}
        if predictions.probabilities is not None:
            values = {"label": predictions.values, "probabilities": predictions.probabilities}
        if predictions.half_width is not None:
            values = dict(zip(("predict", *BOUNDS), predictions.bounds().T, strict=True))
            if self._outputs.keys().isdisjoint(BOUNDS):
                self._outputs |= dict.fromkeys(BOUNDS, any(self._outputs.values()))
        outputs, parts = [], []
        for name, is_binary in self._outputs.items():
            entry, part = _output(name, values[name], is_binary)
            outputs.append(entry)
            parts.append(part)
        head = orjson.dumps({**self._answer, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
        self._json_bytes = len(head) if any(self._outputs.values()) else 0
        return b"".join([head, *parts])


def _describe(manifest: Manifest, name: str, settings: Settings) -> dict[str, Any]:
    about = {"name": name, "versions": [VERSION], "platform": FORMATS[settings.predictor]}
    outputs = describe_outputs(manifest, with_bounds=settings.intervals)
    return {**about, "inputs": describe_inputs(manifest), "outputs": outputs}


def describe_inputs(manifest: Manifest) -> list[dict[str, Any]]:
    """Return one input a feature; one tensor `[N, F]` of them all is taken too."""
    kinds = {"number": "FP32", "category": TEXT}
    return [{"name": each.name, "datatype": kinds[each.kind], "shape": [-1]} for each in manifest.declaration.features]


def describe_outputs(manifest: Manifest, *, with_bounds: bool) -> list[dict[str, Any]]:
    """Return the outputs: `predict`, or for a class `label` and `probabilities`, these in the order of the labels.

    `low` and `high` can be named where the model has intervals. The protocol answers every output that a model describes, so
    they are described where they are answered unasked.
    """
    if not manifest.labels:
        names = ["predict", *(BOUNDS if with_bounds else ())]
        return [{"name": name, "datatype": "FP32", "shape": [-1]} for name in names]
    return [
        {"name": "label", "datatype": TEXT, "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(manifest.labels)]},
    ]


def _wanted_outputs(document: Mapping[str, Any], known: Sequence[str]) -> dict[str, bool]:
    """Return the outputs to answer, in the order asked, and whether each goes in binary; all but bounds where none is asked."""
    by_default = flag(document, "binary_data_output", False, "The request")
    asked = (
        entries_of(document, "outputs") if document.get("outputs") else [{"name": name} for name in known if name not in BOUNDS]
    )
    wanted = {}
    for entry in asked:
        name = typed(entry, "name", str, "An output")
        if name not in known:
            raise UnreadableBody(f"There is no output {short(name)}; there is: {', '.join(known)}.")
        wanted[name] = flag(entry, "binary_data", by_default, f"Output {name}")
    return wanted


def _output(name: str, values: NDArray[Any], is_binary: bool) -> tuple[dict[str, Any], bytes]:
    """Return an output's JSON and its binary part, empty where its values stand in the JSON."""
    entry = {"name": name, "datatype": TEXT if name == "label" else "FP32", "shape": list(values.shape)}
    texts = [str(value) for value in values] if name == "label" else None
    if not is_binary:
        return {**entry, "data": texts or np.ascontiguousarray(values, dtype=np.float32).reshape(-1)}, b""
    if texts is None:
        part = np.ascontiguousarray(values, dtype="<f4").tobytes()
    else:
        encoded = [text.encode() for text in texts]
        part = b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    return {**entry, "parameters": {"binary_data_size": len(part)}}, part


def _document(document: Mapping[str, Any] | list[Any], status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(document), JSON)


def _always(document: Mapping[str, Any]) -> Handler:
    """Return a handler that says the same to everybody."""
    answer = _document(document)

    async def say(request: Request) -> Answer:
        return answer

    return say
