"""The verdict on a graph: whether the Edge TPU's compiler takes it wholly, partly or not, operator by operator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import groupby
from typing import Any

from contract.delegate import EDGE_TPU_OPERATOR
from edge.checker.rules import EIGHT_BIT, QUANTIZE_CURE, Fault, fault_of, open_size, refusal_of
from edge.graph import Graph, Operator, Tensor

EDGE_TPU, CPU = "Edge TPU", "CPU"
STRANDED = Fault(
    "it comes after one that runs on the CPU, and the compiler makes one part for the Edge TPU",
    "Move what runs on the CPU to the end of the model.",
)


class Verdict(StrEnum):
    """What the compiler is expected to make of a model."""

    FULL = "FULL"
    PARTIAL = "PARTIAL"
    REJECTED = "REJECTED"
    COMPILED = "COMPILED"


MEANING = {
    Verdict.FULL: "the compiler takes all of it",
    Verdict.PARTIAL: "the compiler takes a part of it, and the rest runs on the CPU",
    Verdict.REJECTED: "the compiler takes none of it",
    Verdict.COMPILED: "it is compiled already",
}


@dataclass(frozen=True)
class Place:
    """Where one operator runs, and why there."""

    operator: str
    where: str
    reason: str = ""
    cure: str = ""


@dataclass(frozen=True)
class Judgment:
    """The verdict on a model."""

    verdict: Verdict
    places: tuple[Place, ...]
    """One an operator, in their order."""
    reason: str = ""
    """Why the model is refused whole, where it is."""
    cure: str = ""

    @property
    def mapped(self) -> int:
        """The number of operators on the Edge TPU."""
        return sum(place.where == EDGE_TPU for place in self.places)

    @property
    def cures(self) -> list[str]:
        """What to do, each once, the most helpful first."""
        return list(dict.fromkeys(cure for cure in (self.cure, *(place.cure for place in self.places)) if cure))

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON types."""
        return {
            "verdict": self.verdict.value,
            "reason": self.reason,
            "operators": len(self.places),
            "operators_on_edge_tpu": self.mapped,
            "places": [asdict(place) for place in self.places],
            "cures": self.cures,
        }


def judge(graph: Graph) -> Judgment:
    """Return the verdict on a graph."""
    if any(operator.name == EDGE_TPU_OPERATOR.decode() for operator in graph.operators):
        return Judgment(Verdict.COMPILED, tuple(_compiled(operator) for operator in graph.operators))
    refused = _refused(graph)
    if refused:
        places = tuple(Place(operator.name, CPU, *_why(operator)) for operator in graph.operators)
        return Judgment(Verdict.REJECTED, places, refused.reason, refused.cure)
    return _by_operator(graph)


def _compiled(operator: Operator) -> Place:
    return Place(operator.name, EDGE_TPU if operator.name == EDGE_TPU_OPERATOR.decode() else CPU)


def _why(operator: Operator) -> tuple[str, str]:
    fault = fault_of(operator)
    return (fault.reason, fault.cure) if fault else ("the model is refused whole", "")


def _refused(graph: Graph) -> Fault | None:
    refusals = (refusal_of(operator) for operator in graph.operators)
    refused = next(filter(None, refusals), None)
    if refused:
        return refused
    tensors = [tensor for operator in graph.operators for tensor in operator.activations]
    if tensors and not any(tensor.dtype in EIGHT_BIT for tensor in tensors):
        return Fault(f"Model not quantized: tensor {tensors[0].name} is {tensors[0].dtype}", QUANTIZE_CURE)
    dynamic = next((tensor for tensor in tensors if open_size(tensor)), None)
    if dynamic:
        return Fault(
            f"The size of tensor {dynamic.name} is open: {list(dynamic.signature)}", "Fix the input's sizes when converting."
        )
    return None if graph.operators else Fault("It has no operators", "Export the model again.")


def _by_operator(graph: Graph) -> Judgment:
    places: list[Place] = []
    on_device: set[int] = set()
    """Tensors, by identity, that the Edge TPU made, or that depend on what it made."""
    broken: set[int] = set()
    """Those that depend on what the CPU made of the former: from there on nothing goes back."""
    for operator in graph.operators:
        came = {id(tensor) for tensor in operator.inputs if tensor is not None}
        fault = fault_of(operator) or (STRANDED if came & broken else None)
        places.append(Place(operator.name, CPU, fault.reason, fault.cure) if fault else Place(operator.name, EDGE_TPU))
        made = _ids(operator.outputs)
        if fault is None or came & on_device:
            on_device |= made
        if came & broken or (fault is not None and came & on_device):
            broken |= made
    mapped = sum(place.where == EDGE_TPU for place in places)
    if not mapped:
        return Judgment(Verdict.REJECTED, tuple(places), "No operator would run on the Edge TPU")
    return Judgment(Verdict.FULL if mapped == len(places) else Verdict.PARTIAL, tuple(places))


def _ids(tensors: Iterable[Tensor]) -> set[int]:
    return {id(tensor) for tensor in tensors}


def describe(name: str, judgment: Judgment) -> list[str]:
    """Return the lines that tell a verdict to a person: the sentence, a table of the operators, and what to do."""
    total = len(judgment.places)
    share = f"{judgment.mapped} of {total} operators on the Edge TPU"
    lines = [
        f"{name}: {judgment.verdict.value}, {MEANING[judgment.verdict]} ({share}).",
        *([f"{judgment.reason}."] if judgment.reason else []),
        "",
    ]
    grouped = groupby(sorted(judgment.places, key=_kind), key=_kind)
    rows = [(operator, len(list(places)), where, reason) for (operator, where, reason), places in grouped]
    lines += tabulate(rows)
    if judgment.cures:
        lines += ["", "What to do:", *(f"- {cure}" for cure in judgment.cures)]
    return lines


def tabulate(rows: Iterable[tuple[str, int, str, str]]) -> list[str]:
    """Return a table's lines of operators: each with its name, how many there are, where they run, and why there."""
    rows = list(rows)
    width = max([len("OPERATOR"), *(len(row[0]) for row in rows)])
    lines = [f"{operator:<{width}}  {count:>5}  {where:<8}  {reason}".rstrip() for operator, count, where, reason in rows]
    return [f"{'OPERATOR':<{width}}  {'COUNT':>5}  {'RUNS ON':<8}  WHY", *lines]


def _kind(place: Place) -> tuple[str, str, str]:
    return place.operator, place.where, place.reason
