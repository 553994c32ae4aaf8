"""A linear model, and how requests and answers are written: bytes to rows, predictions to bytes."""

import csv
import io
import json
import math
from pathlib import Path

CSV, JSON, LINES = "text/csv", "application/json", "application/jsonlines"


class Problem(Exception):
    """What is wrong with a request: a status and a message for who sent it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Model:
    """What `train` left."""

    def __init__(self, folder: Path) -> None:
        stored = json.loads((folder / "model.json").read_text())
        self.features: list[str] = stored["features"]
        self.means: list[float] = stored["means"]
        self.factors: list[float] = stored["factors"]
        self.bias: float = stored["bias"]
        self.predict([self.means])

    def predict(self, rows: list[list[float]]) -> list[float]:
        """Return a number a row; a cell that is missing counts as its feature's mean."""
        terms = list(zip(self.factors, self.means, strict=True))
        return [
            round(self.bias + sum([factor * (cell - mean) for cell, (factor, mean) in zip(row, terms, strict=True)]), 6)
            for row in rows
        ]

    def row(self, cells: list, number: int) -> list[float]:
        """Return a record's cells as numbers."""
        if len(cells) != len(self.features):
            raise Problem(400, f"Record {number} has {len(cells)} values; the model takes {len(self.features)}.")
        try:
            row = [float(cell) if cell not in ("", None) else math.nan for cell in cells]
        except (TypeError, ValueError):
            raise Problem(400, f"Record {number} holds something that is no number.") from None
        return [mean if math.isnan(cell) else cell for cell, mean in zip(row, self.means, strict=True)]

    def named(self, record: object, number: int) -> list[float]:
        """Return a record of JSON as numbers: a list, `{"features": [..]}` or names and values."""
        if isinstance(record, dict):
            record = record["features"] if "features" in record else [record.get(name) for name in self.features]
        if not isinstance(record, list):
            raise Problem(400, f"Record {number} is neither a list nor an object.")
        return self.row(record, number)


def decode(model: Model, kind: str, body: bytes) -> list[list[float]]:
    """Return a request's records as rows."""
    try:
        text = body.decode()
        rows = {CSV: from_csv, JSON: from_json, LINES: from_lines}[kind](model, text)
    except (UnicodeDecodeError, csv.Error, ValueError, RecursionError) as error:
        raise Problem(400, f"The body is no {kind}: {str(error)[:200]}") from None
    if not rows:
        raise Problem(400, "The body holds no record.")
    return rows


def from_csv(model: Model, text: str) -> list[list[float]]:
    """Return rows of CSV; a first line with the features' names is a header."""
    records = [record for record in csv.reader(io.StringIO(text)) if record]
    order = range(len(model.features))
    if records and sorted(records[0]) == sorted(model.features):
        header = records.pop(0)
        order = [header.index(name) for name in model.features]
        records = [[record[i] for i in order] if len(record) == len(header) else record for record in records]
    return [model.row(record, number) for number, record in enumerate(records, 1)]


def from_json(model: Model, text: str) -> list[list[float]]:
    """Return rows of `{"instances": [..]}`."""
    document = json.loads(text)
    if not isinstance(document, dict) or not isinstance(document.get("instances"), list):
        raise Problem(400, 'The body is no {"instances": [..]}.')
    return [model.named(record, number) for number, record in enumerate(document["instances"], 1)]


def from_lines(model: Model, text: str) -> list[list[float]]:
    """Return rows of JSON Lines."""
    return [model.named(json.loads(line), number) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def encode(kind: str, predictions: list[float]) -> bytes:
    """Return predictions as they were asked for; without a last line's end, as batch transform adds one (H-31)."""
    if kind == JSON:
        return json.dumps({"predictions": predictions}).encode()
    return "\n".join(json.dumps({"prediction": p}) if kind == LINES else str(p) for p in predictions).encode()


def accepted(accept: str, default: str) -> str:
    """Return the media type of the answer: the one that `Accept` prefers."""
    wishes = []
    for wish in accept.split(","):
        kind, *parameters = [part.strip().lower() for part in wish.split(";")]
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        if kind and float(quality or 0) > 0:
            wishes.append((-float(quality), kind))
    for _, kind in sorted(wishes, key=lambda wish: wish[0]):
        for offer in (default, CSV, JSON, LINES):
            if kind in ("*/*", offer, offer.split("/")[0] + "/*"):
                return offer
    if wishes:
        raise Problem(406, f"The answer can be {CSV}, {JSON} or {LINES}; Accept asks for none of them.")
    return default
