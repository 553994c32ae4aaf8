"""The listing's texts: Markdown templates, filled from the declaration and from real answers alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.declaration import Declaration, Feature, Hyperparameter
from contract.media import ANSWERED, SERVED
from contract.metrics import Metric
from contract.tuning import text, training_specification
from deploy.market.notebook import filled
from deploy.market.product import INSTANCES
from deploy.market.samples import BATCH_FILE, DIMENSION, ROWS, Samples, shown
from deploy.market.settings import Kit, Listing

TEMPLATES = Path(__file__).parent / "templates"
METERING = "x-amzn-inference-metering"
NO_SUPPORT = "[SUPPORT: a mail address or a page, and when somebody reads it]"
PAGES = ("usage", "inputs", "outputs", "training", "pricing", "support")
"""Each a template, and a file of the kit."""
ENDPOINT = "real-time endpoint"


@dataclass(frozen=True)
class Material:
    """All that the kit is made of."""

    declaration: Declaration
    metrics: tuple[Metric, ...]
    samples: Samples
    listing: Listing
    kit: Kit
    release: str
    notes: str
    """Of this release, Markdown."""

    @property
    def specification(self) -> dict[str, Any]:
        """What CreateAlgorithm is told of training."""
        return training_specification(self.declaration, self.metrics)


def page(name: str, material: Material) -> str:
    """Return one of PAGES."""
    return filled(TEMPLATES / f"{name}.md", values_of(material))


def described(declaration: Declaration) -> str:
    """Return what a buyer has to know before anything else: what it predicts, what for, and what not."""
    told = [declaration.about, declaration.intended_use and f"Intended use: {declaration.intended_use}"]
    return "\n\n".join(part for part in [*told, declaration.limits and f"Limits: {declaration.limits}"] if part)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in (head, ["---"] * len(head), *rows)
    )


def values_of(material: Material) -> Mapping[str, str]:
    """Return what stands for each `@name@` of the pages."""
    return {**_general(material), **_calls(material), **_formats(material), **_training(material), **_pricing(material)}


def _general(material: Material) -> dict[str, str]:
    declaration = material.declaration
    return {
        "title": declaration.title,
        "described": described(declaration),
        "release": material.release,
        "support": material.kit.support or NO_SUPPORT,
    }


def _calls(material: Material) -> dict[str, str]:
    estimators = material.declaration.estimators
    values = {
        "name": material.declaration.name,
        "instance": material.listing.validation_type,
        "channel": material.specification["TrainingChannels"][0]["Name"],
        "hyperparameters": json.dumps({"estimator": estimators[0]} if estimators else {}),
    }
    calls = {name: filled(TEMPLATES / f"{name}.txt", values).rstrip() for name in ("boto3", "aws-cli")}
    return {"boto3": calls["boto3"], "aws_cli": calls["aws-cli"]}


def _formats(material: Material) -> dict[str, str]:
    declaration, samples = material.declaration, material.samples
    nullable = any(feature.nullable for feature in declaration.features)
    exchanges = [one for one in samples.exchanges if one.is_general]
    return {
        "served": _listed(SERVED),
        "answered": _listed(ANSWERED),
        "columns": table(("column", "meaning", "takes", "may be missing"), map(_column, declaration.features)),
        "count": str(len(declaration.features)),
        "missing": "An empty cell, null or NaN is a missing value." if nullable else "No column may be missing.",
        "request_samples": "\n".join(_sample(one.content_type, one.name, one.body) for one in exchanges),
        "answer_samples": "\n".join(_sample(one.content_type, one.answer_name, one.answer.body) for one in exchanges),
        "answer": _answer(declaration),
        "refused": samples.refused.answer.body.decode(),
        "batch_file": BATCH_FILE,
        "records": shown(samples.records),
        "outputs": shown(samples.outputs),
    }


def _training(material: Material) -> dict[str, str]:
    declaration, told = material.declaration, material.specification
    first = told["TrainingChannels"][0]
    channels = [(f"`{one['Name']}`", one["Description"], _yes(one["IsRequired"])) for one in told["TrainingChannels"]]
    objectives = [f"{one['MetricName']} ({_lower(one['Type'])})" for one in told["SupportedTuningJobObjectiveMetrics"]]
    heads = ("name", "what it does", "takes", "default", "tuning", "estimators")
    return {
        "algorithms": _algorithms(declaration),
        "channels": table(("channel", "what", "required"), channels),
        "trained": _listed(first["SupportedContentTypes"]),
        "modes": ", ".join(first["SupportedInputModes"]),
        "compressions": ", ".join(first["SupportedCompressionTypes"]),
        "target": declaration.target.name,
        "target_meaning": _lower(declaration.target.meaning) or "what is predicted",
        "knobs": table(heads, map(_knob, declaration.hyperparameters)),
        "objectives": _listed(objectives),
        "metrics": table(
            ("metric", "meaning", "goal"), [(f"`{one.name}`", one.meaning, _lower(one.goal)) for one in material.metrics]
        ),
        "measured": table(
            ("metric", "value"), [(f"`{name}`", f"{value:.6g}") for name, value in material.samples.metrics.items()]
        ),
    }


def _pricing(material: Material) -> dict[str, str]:
    said = next((one.answer.headers[METERING] for one in material.samples.exchanges if METERING in one.answer.headers), "")
    listing = material.listing
    types = {"training": listing.training_types, ENDPOINT: listing.realtime_types, "batch transform": listing.transform_types}
    hourly = [
        (use, f"`{kind}`", "an hour, prorated to the minute", "[PRICE]")
        for use, kinds in types.items()
        for kind in kinds or INSTANCES
    ]
    rows = [*hourly, (ENDPOINT, f"`{listing.metering or DIMENSION}`", "a row", "[PRICE]")]
    return {"prices": table(("use", "dimension", "unit", "price"), rows), "rows": str(ROWS), "metering": said}


def _column(feature: Feature) -> tuple[str, ...]:
    return f"`{feature.name}`", feature.meaning, taken(feature), _yes(feature.nullable)


def taken(feature: Feature) -> str:
    """Return what a column takes, in words."""
    if feature.kind == "category":
        return "one of " + ", ".join(feature.choices)
    unit = f" in {feature.unit}" if feature.unit else ""
    return f"a number{unit}" + (f", usually {feature.range[0]:g} to {feature.range[1]:g}" if feature.range else "")


def _knob(knob: Hyperparameter) -> tuple[str, ...]:
    if knob.range:
        low, high = (text(int(bound) if knob.kind == "integer" else bound) for bound in knob.range)
        takes = f"{'a whole number' if knob.kind == 'integer' else 'a number'} from {low} to {high}"
        searched = f"{text(knob.bounds[0])} to {text(knob.bounds[1])}, {knob.scale.replace('_', ' ')}"
    else:
        takes, searched = "one of " + ", ".join(knob.choices or ("true", "false")), "any of its values"
    owners = ", ".join(knob.estimators) or "all"
    return f"`{knob.name}`", knob.meaning, takes, text(knob.default), searched if knob.tunable else "no", owners


def _answer(declaration: Declaration) -> str:
    target = declaration.target
    if target.kind == "class":
        labels = ", ".join(target.labels) or "as the training data has them"
        return f"The label ({labels}) and the probability of each, in this order."
    return f"A number a row: {target.name}, {_lower(target.meaning)}{f', in {target.unit}' if target.unit else ''}."


def _algorithms(declaration: Declaration) -> str:
    kind = "classification" if declaration.target.kind == "class" else "regression"
    names = ", ".join(name.replace("_", " ") for name in declaration.estimators)
    return f"{kind} by {names}" if names else kind


def _sample(media_type: str, name: str, body: bytes) -> str:
    return f"`{media_type}`, `samples/realtime/{name}`:\n\n```\n{shown(body)}\n```\n"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _lower(words: str) -> str:
    return words[:1].lower() + words[1:]


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
