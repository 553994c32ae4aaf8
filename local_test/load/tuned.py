"""A server as the best of them write one by hand: FastAPI on uvicorn, orjson, and the ONNX session called in place."""

from __future__ import annotations

import os
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
from fastapi import FastAPI, Request, Response

FOLDER = Path(os.environ["MODEL"])
FEATURES = [feature["name"] for feature in orjson.loads((FOLDER / "manifest.json").read_bytes())["features"]]


def read_csv(body: bytes) -> Any:
    """Return all cells; NumPy's own parser of text, which takes one separator, is the fastest there is."""
    return np.fromstring(body.strip().replace(b"\n", b","), dtype=np.float32, sep=",")


def read_json(body: bytes) -> Any:
    """Return all cells."""
    return np.array(list(map(itemgetter(*FEATURES), orjson.loads(body)["instances"])), dtype=np.float32)


def read_jsonlines(body: bytes) -> Any:
    """Return all cells, the lines read as one list."""
    rows = orjson.loads(b"[" + body.strip().replace(b"\n", b",") + b"]")
    return np.array([row["features"] for row in rows], dtype=np.float32)


def write_csv(values: Any) -> bytes:
    """Return a number a line."""
    return "".join([f"{value}\n" for value in values.tolist()]).encode()


def write_json(values: Any) -> bytes:
    """Return the numbers as one list."""
    return orjson.dumps({"predictions": values}, option=orjson.OPT_SERIALIZE_NUMPY)


def write_jsonlines(values: Any) -> bytes:
    """Return an object a line."""
    return "".join([f'{{"prediction":{value}}}\n' for value in values.tolist()]).encode()


CODECS: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], bytes]]] = {
    "text/csv": (read_csv, write_csv),
    "application/json": (read_json, write_json),
    "application/jsonlines": (read_jsonlines, write_jsonlines),
}


def load_session() -> Any:
    """Return the model's session, of one thread: more would wait for each other."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(FOLDER / "model.onnx", options, providers=["CPUExecutionProvider"])


async def ping() -> Response:
    """Answer the probe."""
    return Response()


async def invocations(request: Request) -> Response:
    """Predict the rows of a body, and answer in its format."""
    media_type = request.headers["content-type"]
    read, write = CODECS[media_type]
    matrix = read(await request.body()).reshape(-1, len(FEATURES))
    values = session.run(None, {"features": matrix})[0].ravel()
    return Response(write(values), media_type=media_type)


session = load_session()
app = FastAPI()
app.add_api_route("/ping", ping, methods=["GET"])
app.add_api_route("/invocations", invocations, methods=["POST"])
