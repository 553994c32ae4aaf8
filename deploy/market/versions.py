"""What buyers see of a version, and what would break them in the next: two documents compared, nothing asked.

A document is what CreateAlgorithm, CreateModelPackage and their describe operations have in common, with the model's columns
beside it, which no operation tells (deploy/market/product.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.market.knobs import CATEGORY, read
from deploy.market.product import METERING

Document = Mapping[str, Any]
BREAKS, TELLS = True, False


@dataclass(frozen=True)
class Change:
    """One thing that a buyer sees otherwise in the next version."""

    what: str
    breaks: bool
    """Whether what a buyer does with the last version may fail with the next."""

    def __str__(self) -> str:
        """Return it for people."""
        return f"{'breaks buyers' if self.breaks else 'to be told'}: {self.what}"


def seen(product: Document, columns: Document | None) -> dict[str, Any]:
    """Return what buyers see of a request, or of what AWS describes.

    Args:
        product: the request, or the description.
        columns: what the model takes and answers; None where that is not known.
    """
    training, inference = product.get("TrainingSpecification", {}), product.get("InferenceSpecification", {})
    return {
        "hyperparameters": {
            one["Name"]: {
                "type": one["Type"],
                "range": next(iter(one.get("Range", {}).values()), {}),
                "default": one.get("DefaultValue"),
                "required": bool(one.get("IsRequired")),
                "tunable": bool(one.get("IsTunable")),
            }
            for one in training.get("SupportedHyperParameters", [])
        },
        "channels": {
            one["Name"]: {
                "required": bool(one.get("IsRequired")),
                "content types": one.get("SupportedContentTypes", []),
                "input modes": one.get("SupportedInputModes", []),
                "compressions": one.get("SupportedCompressionTypes", []),
            }
            for one in training.get("TrainingChannels", [])
        },
        "metrics": [one["Name"] for one in training.get("MetricDefinitions", [])],
        "objectives": [f"{one['Type']} {one['MetricName']}" for one in training.get("SupportedTuningJobObjectiveMetrics", [])],
        "distributed": bool(training.get("SupportsDistributedTraining")),
        "training instances": training.get("SupportedTrainingInstanceTypes", []),
        "real-time instances": inference.get("SupportedRealtimeInferenceInstanceTypes", []),
        "transform instances": inference.get("SupportedTransformInstanceTypes", []),
        "content types": inference.get("SupportedContentTypes", []),
        "response types": inference.get("SupportedResponseMIMETypes", []),
        "metering": [one.get("Environment", {}).get(METERING, "") for one in inference.get("Containers", [])],
        "columns": columns,
    }


def compare(before: Document, after: Document) -> list[Change]:
    """Return what buyers see otherwise, those that break them first."""
    changes = [
        *_hyperparameters(before["hyperparameters"], after["hyperparameters"]),
        *_channels(before["channels"], after["channels"]),
        *(change for name in LISTS for change in _listed(name, before[name], after[name])),
        *_switch("Several instances are no longer trained on", before["distributed"], after["distributed"]),
        *_columns(before["columns"], after["columns"]),
    ]
    if before["metering"] != after["metering"]:
        now, was = (", ".join(filter(None, one["metering"])) or "nothing" for one in (after, before))
        changes.append(Change(f"Rows are counted as {now}, no longer as {was}", BREAKS))
    return sorted(changes, key=lambda change: not change.breaks)


LISTS = (
    "metrics",
    "objectives",
    "training instances",
    "real-time instances",
    "transform instances",
    "content types",
    "response types",
)


def _listed(name: str, before: Iterable[Any], after: Iterable[Any]) -> Iterator[Change]:
    """What is gone breaks whoever used it; what is new breaks nobody."""
    old, new = list(before), list(after)
    if gone := [str(one) for one in old if one not in new]:
        yield Change(f"{name}: {', '.join(gone)} removed", BREAKS)
    if more := [str(one) for one in new if one not in old]:
        yield Change(f"{name}: {', '.join(more)} added", TELLS)


def _hyperparameters(before: Document, after: Document) -> Iterator[Change]:
    yield from _required("hyperparameter", before, after)
    for name in [name for name in before if name in after]:
        where, old, new = f"hyperparameter {name}", before[name], after[name]
        if old["type"] != new["type"]:
            yield Change(f"{where} is {new['type']}, no longer {old['type']}", BREAKS)
        elif old["range"] != new["range"]:
            yield from _range(where, old, new)
        if old["default"] != new["default"] and not new["required"]:
            now, was = ("none" if one["default"] is None else one["default"] for one in (new, old))
            yield Change(f"{where} has the default {now}, no longer {was}", TELLS)
        yield from _switch(f"{where} can't be tuned any more", old["tunable"], new["tunable"])


def _range(where: str, old: Document, new: Document) -> Iterator[Change]:
    kind, before, after = str(old["type"]), old["range"], new["range"]
    if kind == CATEGORY:
        yield from _listed(f"{where}, values", before.get("Values", []), after.get("Values", []))
        return
    low, was_low = (read(kind, one.get("MinValue", "-inf")) for one in (after, before))
    high, was_high = (read(kind, one.get("MaxValue", "inf")) for one in (after, before))
    narrower = None in (low, was_low, high, was_high) or low > was_low or high < was_high  # type: ignore[operator]
    ends = [f"{one.get('MinValue')} to {one.get('MaxValue')}" for one in (after, before)]
    yield Change(f"{where} takes {ends[0]}, no longer {ends[1]}", narrower)


def _channels(before: Document, after: Document) -> Iterator[Change]:
    yield from _required("channel", before, after)
    for name in [name for name in before if name in after]:
        for part in ("content types", "input modes", "compressions"):
            yield from _listed(f"channel {name}, {part}", before[name][part], after[name][part])


def _required(kind: str, before: Document, after: Document) -> Iterator[Change]:
    """What is gone, and what has to be given now and had not to be before, breaks; what may be given now does not."""
    for name in before:
        if name not in after:
            yield Change(f"{kind} {name} is removed, or renamed", BREAKS)
        elif after[name]["required"] != before[name]["required"]:
            word = "now" if after[name]["required"] else "no longer"
            yield Change(f"{kind} {name} is {word} required", bool(after[name]["required"]))
    for name in after:
        if name not in before:
            required = bool(after[name]["required"])
            yield Change(f"{kind} {name} is new{' and required' if required else ''}", required)


def _switch(lost: str, before: bool, after: bool) -> Iterator[Change]:
    if before and not after:
        yield Change(lost, BREAKS)


def _columns(before: Document | None, after: Document | None) -> Iterator[Change]:
    """Rows are told apart by place, in CSV and NumPy: a column more, less or elsewhere breaks."""
    if before == after:
        return
    if before is None or after is None:
        yield Change("what the model takes and answers is another, and what it was is not known", BREAKS)
        return
    old, new = ({one["name"]: one for one in document["features"]} for document in (before, after))
    if list(old) != list(new):
        yield Change(f"the columns are {', '.join(new)}, no longer {', '.join(old)}", BREAKS)
    for name in [name for name in old if name in new]:
        yield from _feature(name, old[name], new[name])
    yield from _answer(before["answer"], after["answer"])


def _feature(name: str, old: Document, new: Document) -> Iterator[Change]:
    where = f"column {name}"
    for part in ("kind", "unit"):
        if old[part] != new[part]:
            yield Change(f"{where} has the {part} {new[part] or 'none'}, no longer {old[part] or 'none'}", BREAKS)
    if old["choices"] != new["choices"]:
        yield from _listed(f"{where}, choices", old["choices"], new["choices"])
        if old["choices"] != new["choices"][: len(old["choices"])]:  # NumPy has a category as the index of its choice
            yield Change(f"{where} has its choices in another order", BREAKS)
    yield from _switch(f"{where} can't be empty any more", old["nullable"], new["nullable"])


def _answer(old: Document, new: Document) -> Iterator[Change]:
    for part in ("name", "kind", "unit", "labels"):
        if old[part] != new[part]:
            shown = [", ".join(one) if isinstance(one, list) else one or "none" for one in (new[part], old[part])]
            yield Change(f"the answer's {part} is {shown[0]}, no longer {shown[1]}", BREAKS)
