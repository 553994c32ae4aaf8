"""A server as people write them today: Flask, pandas, and the scikit-learn pipeline as it was dumped."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
from flask import Flask, Response, jsonify, request

FOLDER = Path(os.environ["MODEL"])
FEATURES = [feature["name"] for feature in json.loads((FOLDER / "manifest.json").read_text())["features"]]

model = joblib.load(FOLDER / "model.joblib")
app = Flask(__name__)


@app.get("/ping")
def ping() -> str:
    """Answer the probe."""
    return ""


@app.post("/invocations")
def invocations() -> Response:
    """Predict the rows of a body, and answer in its format."""
    predictions = model.predict(_frame()[FEATURES].to_numpy()).tolist()  # it was fitted without names, and would warn
    if request.mimetype == "application/json":
        return jsonify(predictions=predictions)
    if request.mimetype == "text/csv":
        return Response("".join(f"{value}\n" for value in predictions), mimetype="text/csv")
    return Response("".join(json.dumps({"prediction": value}) + "\n" for value in predictions), mimetype=request.mimetype)


def _frame() -> Any:
    if request.mimetype == "application/json":
        return pd.DataFrame(request.get_json()["instances"])
    if request.mimetype == "text/csv":
        return pd.read_csv(io.BytesIO(request.data), header=None, names=FEATURES)
    return pd.DataFrame([json.loads(line)["features"] for line in request.data.splitlines()], columns=FEATURES)
