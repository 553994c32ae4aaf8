#!/usr/bin/env python3
"""Asks a model that `export` wrote for devices: this file and the .tflite are all that a device needs of ours.

`python3 runner.py student_int8.tflite --row 0,6.5,296,15.3,396.9,5` wants `pip install ai-edge-litert` and what comes with it.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

METADATA = "berth.preprocess.json"
MISSING_WORDS = frozenset({"", "nan", "null", "na"})
LARGEST = 3.4028235677973366e38
"""Beyond it float32, which the server computes in, rounds to infinity."""


class Refused(ValueError):
    """What was given can't be used; the message says what, and what was expected."""


class Student:
    """A .tflite file of ours, ready to be asked; how a row becomes its input stands in the file itself."""

    def __init__(self, path: Path, delegate: str | None = None) -> None:
        content = _read(path)
        told = preprocessing_in(content, path)
        self.features: list[dict[str, Any]] = told["features"]
        self.names: list[str] = [feature["name"] for feature in self.features]
        self.labels: list[str] = told["labels"]
        self._mean, self._deviation = float(told["mean"]), float(told["deviation"])
        self._interpreter = _interpreter(content, path, delegate)
        self._prepare()

    def predict(self, row: Sequence[float]) -> Any:
        """Return the answer to one row, a category as its index and a missing value NaN: a number, or a list of probabilities.

        The list is in the order of `labels`.
        """
        output = self.ask(row)
        if not self.labels:
            return self._mean + self._deviation * float(output[0])
        powers = [math.exp(value - max(output)) for value in output]
        return [power / sum(powers) for power in powers]

    def ask(self, row: Sequence[float]) -> list[float]:
        """Return the network's outputs for one row, as real numbers."""
        numbers, buffer = np.array(row, dtype=np.float64), self._buffer
        if not self._is_plain:
            numbers = self._spread(numbers)
        scaled = numbers[: len(self._low)]
        scaled *= 2
        scaled -= self._low
        scaled -= self._high
        scaled /= self._span
        np.maximum(scaled, -1.0, out=scaled)
        np.minimum(scaled, 1.0, out=scaled)
        if self._is_whole:
            numbers /= self._step
            numbers += self._zero
            np.rint(numbers, out=numbers)
            np.maximum(numbers, -128, out=numbers)
            np.minimum(numbers, 127, out=numbers)
        buffer[0] = numbers
        interpreter = self._interpreter
        interpreter.set_tensor(self._input, buffer)
        interpreter.invoke()
        output: list[Any] = interpreter.get_tensor(self._output)[0].tolist()
        # To Python's integers first: an int8 less its zero point would overflow.
        return [(value - self._out_zero) * self._out_step for value in output] if self._is_whole else output

    def read(self, cells: Sequence[str], number: int = 1) -> list[float]:
        """Return a row of text cells, in the features' order, as numbers; raises Refused, naming row and column."""
        if len(cells) != len(self.names):
            what = f"has {len(cells)} value{'s' if len(cells) > 1 else ''}" if cells else "is blank"
            raise Refused(f"Row {number} {what}; the model takes {len(self.names)}: {', '.join(self.names)}.")
        return [_value(cell, feature, number) for cell, feature in zip(cells, self.features, strict=True)]

    def _prepare(self) -> None:
        """Lay out once what every row needs."""
        numbers = [feature for feature in self.features if feature["kind"] == "number"]
        # A number that never varied says nothing: divided by infinity it is always 0.
        spans = [(feature["low"], feature["high"]) for feature in numbers]
        scaling = [(low, high, high - low) if high > low else (0.0, 0.0, math.inf) for low, high in spans]
        self._low, self._high, self._span = np.array(scaling, dtype=np.float64).reshape(-1, 3).T.copy()
        self._numbers = [index for index, feature in enumerate(self.features) if feature["kind"] == "number"]
        self._fill = np.array([feature["fill"] for feature in numbers], dtype=np.float64)
        self._nullable = np.array([feature["nullable"] for feature in numbers], dtype=bool)
        slots = [
            (index, len(feature["choices"]), slot)
            for index, feature in enumerate(self.features)
            if feature["kind"] == "category"
            for slot in range(len(feature["choices"]) + feature["nullable"])
        ]
        self._category, self._absent, self._slot = np.array(slots, dtype=int).reshape(-1, 3).T.copy()
        self._is_plain = not slots and not self._nullable.any()
        (taken,), (given,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._input, self._output = taken["index"], given["index"]
        self._is_whole = taken["dtype"] == np.int8
        self._step, self._zero = taken["quantization"]
        self._out_step, self._out_zero = given["quantization"]
        self._buffer = np.zeros(taken["shape"], dtype=taken["dtype"])

    def _spread(self, row: Any) -> Any:
        """Return the numbers, which of them are missing, and a 0 or 1 a choice."""
        numbers = row[self._numbers]
        missing = np.isnan(numbers)
        chosen = row[self._category]
        chosen = np.where(np.isnan(chosen), self._absent, chosen) == self._slot
        return np.concatenate([np.where(missing, self._fill, numbers), missing[self._nullable], chosen])


def preprocessing_in(content: bytes, path: Path) -> Any:
    """Return the preprocessing that a .tflite file holds in its metadata.

    Raises:
        Refused: the file has none, or is no .tflite file.
    """
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != b"TFL3":
        raise Refused(f"{path} is no TensorFlow Lite file. Give one that `export` wrote, such as student_int8.tflite.")
    model = schema.Model.GetRootAs(content, 0)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == METADATA.encode():
            return json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
    raise Refused(f"{path} doesn't say how a row becomes its input ({METADATA} is not in it). Give a file that `export` wrote.")


def rows_of(text: Iterable[str], names: Sequence[str]) -> Iterator[list[str]]:
    """Yield the rows of CSV as cells in the features' order; with a header the columns may come in any.

    Raises:
        Refused: the header isn't the features' names.
    """
    rows = csv.reader(text, skipinitialspace=True)
    first = next(rows, [])
    header = [cell.strip() for cell in first]
    if not set(header) & set(names):
        yield from ([first] if first else [])
        yield from rows
        return
    missing, unknown = sorted(set(names) - set(header)), sorted(set(header) - set(names))
    if missing or unknown or len(header) != len(names):
        faults = [f"{word}: {', '.join(found)}" for word, found in (("missing", missing), ("unknown", unknown)) if found]
        what = "; ".join(faults) or "not each there once"
        raise Refused(f"Columns are {what}. The model takes each of these once, in any order: {', '.join(names)}.")
    places = [header.index(name) for name in names]
    yield from ([row[at] for at in places] if len(row) == len(header) else row for row in rows)


def cells_of(row: str, names: Sequence[str]) -> list[str]:
    """Return the cells of `0,6.5,..` or of `CHAS=0,RM=6.5,..`; raises Refused where names are missing or unknown."""
    (cells,) = csv.reader([row], skipinitialspace=True)
    pairs = [cell.partition("=") for cell in cells]
    if not any(name.strip() in names and equals for name, equals, _ in pairs):
        return cells
    named = [name.strip() for name, _, _ in pairs]
    (ordered,) = rows_of([",".join(named), ",".join(f'"{value}"' for _, _, value in pairs)], names)
    return ordered


def run(path: Path, row: str | None, table: Path | None, delegate: str | None = None) -> int:
    """Predict a row or a file's rows, a line each, and say on stderr how long a row took; return the exit code."""
    student = Student(path, delegate)
    rows: Iterable[list[str]]
    if row is not None:
        rows = [cells_of(row, student.names)]
    elif table is not None:
        rows = list(rows_of(io.StringIO(_read(table).decode(errors="replace"), newline=""), student.names))
    else:
        raise Refused("Give --row VALUES or --csv FILE.")
    seconds, is_read = [], [student.read(cells, number) for number, cells in enumerate(rows, 1)]
    if not is_read:
        raise Refused(f"{table} holds no row; at least one was expected.")
    for values in is_read:
        started = time.perf_counter()
        answer = student.predict(values)
        seconds.append(time.perf_counter() - started)
        print(spell(answer, student.labels))
    repeated = [_seconds(student, values) for values in is_read[:1] * 200] if len(seconds) < 200 else seconds
    print(f"{len(seconds):,} rows, {statistics.median(repeated) * 1e6:.1f} us a row (median)", file=sys.stderr)
    return 0


def spell(answer: Any, labels: Sequence[str]) -> str:
    """Return an answer as a line: the number, or the likeliest label and each label's probability."""
    if not labels:
        return f"{answer:.6g}"
    likeliest = labels[max(range(len(labels)), key=answer.__getitem__)]
    return f"{likeliest} ({', '.join(f'{label} {share:.3f}' for label, share in zip(labels, answer, strict=True))})"


def _seconds(student: Student, values: Sequence[float]) -> float:
    started = time.perf_counter()
    student.predict(values)
    return time.perf_counter() - started


def _value(cell: str, feature: dict[str, Any], number: int) -> float:
    where, text = f"Row {number}, column {feature['name']}", cell.strip()
    if text in feature["choices"]:
        return float(feature["choices"].index(text))
    if text.lower() in MISSING_WORDS:
        if feature["nullable"]:
            return math.nan
        raise Refused(f"{where}: it is empty, null or NaN; a value was expected.")
    if feature["kind"] == "category":
        raise Refused(f"{where}: {text[:40]!r} is not one of its choices: {', '.join(feature['choices'][:30])}.")
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not abs(value) < LARGEST:
        raise Refused(f"{where}: {text[:40]!r} is not a finite number of float32's range.")
    return float(np.float32(value))  # what the server takes it for


def _interpreter(content: bytes, path: Path, delegate: str | None) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType, load_delegate

    # Reference kernels are plain arithmetic of integers, which says the same on every processor, and no slower on so small a
    # model. XNNPACK, which comes unasked, says the same, and announces itself on stderr.
    plain, fast = OpResolverType.BUILTIN_REF, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    resolver = fast if delegate else plain

    try:
        delegates = [load_delegate(delegate)] if delegate else []
    except (OSError, ValueError) as error:
        raise Refused(
            f"{delegate} can't be loaded as an accelerator's delegate: {error}.\nIs it installed, and the device attached? "
            "Without --delegate the CPU answers."
        ) from error
    try:
        options = {"experimental_delegates": delegates, "experimental_op_resolver_type": resolver}
        interpreter = Interpreter(model_content=content, num_threads=1, **options)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        hint = "It was compiled for an Edge TPU: give --delegate libedgetpu.so.1, or the file that it was compiled from."
        raise Refused(f"{path} can't be run: {hint if 'edgetpu' in str(error) else error}") from error
    return interpreter


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"{path} can't be read: {error.strerror}.") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the command line."""
    parser = argparse.ArgumentParser(description="Ask a .tflite model that Berth's export wrote.")
    parser.add_argument("model", type=Path, help="such as student_int8.tflite")
    rows = parser.add_mutually_exclusive_group(required=True)
    rows.add_argument("--row", help="values in the features' order, or NAME=VALUE, with commas between")
    rows.add_argument("--csv", type=Path, help="a file of rows, with a header or without")
    parser.add_argument("--delegate", help="an accelerator's library, such as libedgetpu.so.1")
    given = parser.parse_args(arguments)
    try:
        return run(given.model, given.row, given.csv, given.delegate)
    except Refused as error:
        print(error, file=sys.stderr)
    except ImportError as error:
        print(f"{error}. Run `pip install ai-edge-litert`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
