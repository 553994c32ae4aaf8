"""What edgetpu_compiler prints, as a table and a name for how it ended.

The shapes are those that versions 2.1 to 16.0 print in coral.ai/docs/edgetpu/compiler and in issues of google-coral/edgetpu:
313 (not quantized), 845 (not parsed), 173 and 189 (internal error), 60, 490 and 671 (operators on the CPU).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from edge.checker.judge import tabulate


class Ending(StrEnum):
    """How a compilation ended."""

    FULL = "FULL"
    PARTIAL = "PARTIAL"
    NOTHING_MAPPED = "NOTHING MAPPED"
    NOT_QUANTIZED = "NOT QUANTIZED"
    NOT_PARSED = "NOT PARSED"
    NOT_RUNNABLE = "NOT RUNNABLE"
    DYNAMIC = "DYNAMIC SIZES"
    TOO_LARGE = "TOO LARGE"
    INTERNAL_ERROR = "INTERNAL ERROR"
    TIMED_OUT = "TIMED OUT"
    UNKNOWN = "UNKNOWN"


MEANING = {
    Ending.FULL: "every operator runs on the Edge TPU",
    Ending.PARTIAL: "the operators named below run on the CPU",
    Ending.NOTHING_MAPPED: "it compiles, but no operator runs on the Edge TPU",
    Ending.NOT_QUANTIZED: "it has floats where the Edge TPU wants 8-bit integers",
    Ending.NOT_PARSED: "it has operators, or versions of them, that are newer than the compiler",
    Ending.NOT_RUNNABLE: "it has operators that TensorFlow Lite itself doesn't have",
    Ending.DYNAMIC: "it has tensors whose size is open until run time",
    Ending.TOO_LARGE: "its activations are larger than the Edge TPU's memory: make the input or the layers smaller",
    Ending.INTERNAL_ERROR: "the compiler failed without a reason; make the model smaller, or leave its last layers out",
    Ending.TIMED_OUT: "the compiler took longer than it allows itself",
    Ending.UNKNOWN: "the compiler ended in a way that is not known here",
}
FAILURES = {
    Ending.NOT_QUANTIZED: r"^Model not quantized",
    Ending.NOT_PARSED: r"^Model could not be parsed|Didn't find op for builtin opcode",
    Ending.NOT_RUNNABLE: r"Model failed in Tflite interpreter",
    Ending.DYNAMIC: r"only supports static-sized tensors",
    Ending.TOO_LARGE: r"due to large activation tensors",
    Ending.INTERNAL_ERROR: r"^Internal compiler error",
    Ending.TIMED_OUT: r"(?i)timed out|exceeded .*timeout|timeout period exceeded",
}
"""How each failure shows; the first that does counts."""
MAPPED = "Mapped to Edge TPU"
ROW = re.compile(r"^([A-Za-z]\S*) +(\d+) +(\S.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """Operators of one kind with one fate."""

    operator: str
    count: int
    status: str

    @property
    def mapped(self) -> bool:
        """Whether they run on the Edge TPU."""
        return self.status == MAPPED


@dataclass(frozen=True)
class Log:
    """A compilation."""

    ending: Ending
    version: str = ""
    duration_ms: int | None = None
    edge_tpu: int = 0
    """Operators on the Edge TPU."""
    cpu: int = 0
    rows: tuple[Row, ...] = ()
    sizes: tuple[tuple[str, str], ...] = ()
    """What it says of sizes and memory, in its own words and units."""
    errors: tuple[str, ...] = ()

    @property
    def compiled(self) -> bool:
        """Whether there is a model for the Edge TPU to do something of."""
        return self.ending in {Ending.FULL, Ending.PARTIAL}


def read_log(text: str) -> Log:
    """Return a compilation as the compiler printed it; with its operation log behind it, where there is one."""
    rows = tuple(dict.fromkeys(Row(found[1], int(found[2]), found[3].strip()) for found in ROW.finditer(_table(text))))
    edge_tpu, cpu = _counts(text, rows)
    duration = re.search(r"^Model compiled successfully in (\d+) ms", text, re.MULTILINE)
    return Log(
        ending=_ending(text, edge_tpu, cpu),
        version=_first(r"^Edge TPU Compiler version (\S+)", text),
        duration_ms=int(duration[1]) if duration else None,
        edge_tpu=edge_tpu,
        cpu=cpu,
        rows=rows,
        sizes=tuple(
            re.findall(r"^((?:Input|Output) size|O(?:n|ff)-chip memory [^:]+|Number of Edge TPU subgraphs): (\S+)", text, re.M)
        ),
        errors=tuple(dict.fromkeys(re.findall(r"^(?:ERROR|Compilation failed): (.*\S)", text, re.MULTILINE))),
    )


def _table(text: str) -> str:
    """All that follows a table's head, wherever one is."""
    return "\n".join(text.split("Operator ", 1)[1:])


def _counts(text: str, rows: Iterable[Row]) -> tuple[int, int]:
    total = int(_first(r"^Total number of operations: (\d+)", text) or 0)
    edge_tpu = _first(r"^Number of operations that will run on Edge TPU: (\d+)", text)
    if edge_tpu:
        return int(edge_tpu), int(_first(r"^Number of operations that will run on CPU: (\d+)", text) or 0)
    mapped, left = (sum(row.count for row in rows if row.mapped is kind) for kind in (True, False))
    return (mapped, left) if mapped or left else (total, 0)  # it gives no counts where all is mapped


def _ending(text: str, edge_tpu: int, cpu: int) -> Ending:
    if re.search(r"^Model compiled successfully", text, re.MULTILINE):
        return Ending.NOTHING_MAPPED if not edge_tpu else Ending.PARTIAL if cpu else Ending.FULL
    found = (ending for ending, pattern in FAILURES.items() if re.search(pattern, text, re.MULTILINE))
    return next(found, Ending.UNKNOWN)


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else ""


def describe(name: str, log: Log) -> list[str]:
    """Return the lines that tell a compilation to a person."""
    took = f"compiler {log.version or 'of an unknown version'}" + (
        f", {log.duration_ms} ms" if log.duration_ms is not None else ""
    )
    lines = [f"{name}: {log.ending}, {MEANING[log.ending]} ({took}).", *(f"  it says: {error}" for error in log.errors)]
    sections: tuple[Callable[[Log], list[str]], ...] = (_operators, _sizes)
    for section in sections:
        lines += ["", *said] if (said := section(log)) else []
    return lines


def _operators(log: Log) -> list[str]:
    if not log.rows:
        return [f"Operators on the Edge TPU: {log.edge_tpu}; on the CPU: {log.cpu}."] if log.duration_ms is not None else []
    fates = ((row, ("Edge TPU", "") if row.mapped else ("CPU", row.status)) for row in log.rows)
    return tabulate((row.operator, row.count, *fate) for row, fate in fates)


def _sizes(log: Log) -> list[str]:
    width = max((len(name) for name, _ in log.sizes), default=0)
    return [f"{name:<{width}}  {size}" for name, size in log.sizes]
