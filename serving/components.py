"""What OpenAPI says of rows and predictions, from the manifest: features, units, choices, labels, samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson

from contract.declaration import Feature
from contract.manifest import Manifest
from contract.media import CSV, JSON, JSONLINES, JSONLINES_ALIASES, NPY, PARQUET
from serving.openapi import TEXT, Json, content, record, reference, sequence

LIMIT = float(np.finfo(np.float32).max)


def describe_model(manifest: Manifest, version: str) -> dict[str, Any]:
    """Return the document's `info`, and as `components` what operations refer to: rows, bodies and answers of this model."""
    model = manifest.declaration
    info = {"title": model.title, "description": model.about, "version": version or "0"}
    return {"info": info, "components": _components(manifest)}


def _components(manifest: Manifest) -> dict[str, Any]:
    features = manifest.declaration.features
    return {
        "schemas": {
            "Record": {
                "description": "One row, by name.",
                "type": "object",
                "properties": {feature.name: _cell(feature) for feature in features},
                "required": [feature.name for feature in features],
                "additionalProperties": False,
            },
            "Row": {
                "description": f"One row, in this order: {', '.join(feature.name for feature in features)}.",
                "type": "array",
                "prefixItems": [_cell(feature) for feature in features],
                "items": False,
                "minItems": len(features),
            },
            "Rows": {"anyOf": [*_row_forms(manifest), _columns(features), _split(features)]},
            "Prediction": _prediction(manifest),
            "Error": _ERROR,
        },
        "requestBodies": {"Rows": _request_body(manifest)},
        "responses": {"Predictions": _predictions(manifest)},
    }


_ERROR: Json = {
    "description": "What was found, what was expected, what to do; further members are facts, such as row and column.",
    "type": "object",
    "properties": {"error": TEXT, "message": TEXT, "request_id": TEXT, "row": {"type": "integer"}, "column": TEXT},
    "required": ["error", "message", "request_id"],
}


def _cell(feature: Feature) -> dict[str, Any]:
    unit = f", in {feature.unit}" if feature.unit else ""
    usual = "" if feature.range is None else f"; {feature.range[0]:g} to {feature.range[1]:g} make sense"
    about = {"description": f"{feature.meaning}{unit}{usual}."}
    if feature.kind == "category":
        return {**about, "enum": [*feature.choices, *([None] if feature.nullable else [])]}
    return {**about, "type": ["number", "null"] if feature.nullable else "number", "minimum": -LIMIT, "maximum": LIMIT}


def _row_forms(manifest: Manifest) -> list[Json]:
    """Return the lists of rows: bare, and under `instances`."""
    wrapped = {"type": "object", "properties": {"features": reference("Row")}, "required": ["features"]}
    rows = {"type": "array", "items": {"anyOf": [reference("Record"), reference("Row"), wrapped]}, "minItems": 1}
    asked = {"description": "Whether answers come with their intervals.", "type": "boolean"}
    parameters = {"parameters": {"type": "object", "properties": {"intervals": asked}}} if manifest.intervals else {}
    return [{"type": "object", "properties": {"instances": rows, **parameters}, "required": ["instances"]}, rows]


def _columns(features: Sequence[Feature]) -> Json:
    """Return columns by name, all of one length, which a schema can't say: so of one row here."""
    columns = {feature.name: {"type": "array", "items": _cell(feature), "minItems": 1} for feature in features}
    return {
        "description": "Columns by name, all of one length.",
        "type": "object",
        "properties": columns,
        "required": list(columns),
        "additionalProperties": False,
    }


def _split(features: Sequence[Feature]) -> Json:
    names = {"const": [feature.name for feature in features], "description": "In any order; the rows follow it."}
    split = {"columns": names, "data": {"type": "array", "items": reference("Row"), "minItems": 1}}
    return {
        "description": "What pandas writes with orient='split'.",
        "type": "object",
        "properties": {"dataframe_split": {"type": "object", "properties": split, "required": list(split)}},
        "required": ["dataframe_split"],
    }


def _prediction(manifest: Manifest) -> dict[str, Any]:
    target, labels = manifest.declaration.target, manifest.labels
    unit = f", in {target.unit}" if target.unit else ""
    about = {"description": f"{target.name}: {target.meaning}{unit}."}
    number = {"type": ["number", "null"]}  # null: not finite
    if manifest.intervals:
        level = f"{about['description']} The interval holds the true value in {manifest.intervals['level']:.0%} of cases."
        interval = {**record(prediction=number, low=number, high=number), "description": level}
        return {"anyOf": [{**about, **number}, interval]}
    if target.kind == "number":
        return {**about, **number}
    return {
        **about,
        "type": "object",
        "properties": {
            "label": {"enum": list(labels)},
            "probabilities": {"type": "object", "properties": dict.fromkeys(labels, number), "required": list(labels)},
        },
        "required": ["label", "probabilities"],
    }


def _request_body(manifest: Manifest) -> dict[str, Any]:
    samples = [sample["row"] for sample in manifest.samples]
    cells = [["" if value is None else str(value) for value in row.values()] for row in samples]
    lines = "\n".join(orjson.dumps(row).decode() for row in samples)
    examples = {
        CSV: {"rows": {"value": "\n".join(map(_csv_line, cells))}, "with a header": {"value": _csv(samples[0], cells)}},
        JSON: {
            "by name": {"value": {"instances": samples}},
            "in order": {"value": {"instances": [list(row.values()) for row in samples]}},
            "columns": {"value": {name: [row[name] for row in samples] for name in samples[0]}},
        },
        **{name: {"by name": {"value": lines}} for name in (JSONLINES, *JSONLINES_ALIASES)},
    }
    media_types = {
        name: {"schema": reference("Rows") if name == JSON else TEXT, "examples": examples[name]} for name in examples
    }
    media_types[NPY] = {"schema": {"description": f"A float array [N, {len(manifest.declaration.features)}]."}}
    media_types |= {name: {"schema": {"description": "Parquet with these columns, by name."}} for name in PARQUET}
    return {"required": True, "content": media_types}


def _csv(names: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(map(_csv_line, [list(names), *rows]))


def _csv_line(cells: Sequence[str]) -> str:
    return ",".join('"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\r\n') else cell for cell in cells)


def _predictions(manifest: Manifest) -> dict[str, Any]:
    wide = ("; with intervals prediction,low,high", ', with intervals "low" and "high" too', ", with intervals [N, 3]")
    csv, lines, npy = wide if manifest.intervals else ("", "", "")
    kinds: dict[str, Json] = {
        JSON: record(predictions=sequence(reference("Prediction"))),
        CSV: {**TEXT, "description": f"A number a line{csv}; of a class the label and each probability."},
        **{name: {**TEXT, "description": f'{{"prediction": ..}} a line{lines}.'} for name in (JSONLINES, *JSONLINES_ALIASES)},
        NPY: {"description": f"A float32 array [N]{npy}; of a class the probabilities [N, C]."},
    }
    return content("One answer a row, in order; of the body's kind unless Accept says otherwise.", kinds)
