"""Asks a model that `export` wrote for devices: this file and the .tflite are all that a device needs of ours.

`python3 runner.py student_int8.tflite --row 0,6.5,296,15.3,396.9,5` wants `pip install ai-edge-litert` and what comes with it.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import io
import json
import math
import os
import statistics
import sys
import timeit
from collections.abc import Iterator, Sequence
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import numpy as np

METADATA = "berth.preprocess.json"
MISSING_WORDS = frozenset({"", "nan", "null", "na"})
LARGEST = 3.4028235677973366e38  # beyond it float32, which the server computes in, rounds to infinity


class Refused(ValueError):
    """What was given can't be used; the message says what, and what was expected."""


class Student:
    """A .tflite file of ours, ready to be asked; how a row becomes its input stands in the file itself."""

    def __init__(self, path: Path, delegate: str | None = None) -> None:
        content = content_of(path)
        told = preprocessing_in(content, path)
        self._interpreter = _interpreter(content, path, delegate)
        try:
            self.features: list[dict[str, Any]] = told["features"]
            self.names: list[str] = [feature["name"] for feature in self.features]
            self.labels: list[str] = told["labels"]
            self._mean, self._deviation = float(told["mean"]), float(told["deviation"])
            self._prepare()
            # What doesn't fit together fails here, and not at a row.
            self.predict([float(self.takes("0", at)) for at in range(len(self.names))])
        except Exception as error:  # whatever Python and NumPy make of damaged facts
            raise _damaged(path, error) from error

    def predict(self, row: Sequence[float]) -> Any:
        """Return the answer to one row, a category as its index, a missing value NaN: a number, or each label's probability."""
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
        self._interpreter.set_tensor(self._input, buffer)
        self._interpreter.invoke()
        output: list[Any] = self._interpreter.get_tensor(self._output)[0].tolist()
        # To Python's integers first: an int8 less its zero point would overflow.
        return [(value - self._out_zero) * self._out_step for value in output] if self._is_whole else output

    def read(self, cells: Sequence[str], number: int = 1) -> list[float]:
        """Return a row of text cells, in the features' order, as numbers; raises Refused, naming row and column."""
        if len(cells) != len(self.names):
            what = f"has {len(cells)} value{'s' if len(cells) > 1 else ''}" if cells else "is blank"
            raise Refused(f"Row {number} {what}; the model takes {len(self.names)}: {', '.join(self.names)}.")
        return [_value(cell, feature, number) for cell, feature in zip(cells, self.features, strict=True)]

    def takes(self, cell: str, at: int) -> bool:
        """Say whether a text cell is a value of the column there."""
        try:
            return at < len(self.features) and _value(cell, self.features[at], 0) is not None
        except Refused:
            return False

    def _prepare(self) -> None:
        numbers = [feature for feature in self.features if feature["kind"] == "number"]
        # A number that never varied says nothing: divided by infinity it is always 0.
        spans = ((feature["low"], feature["high"]) for feature in numbers)
        scaling = [(low, high, high - low) if high > low else (0.0, 0.0, math.inf) for low, high in spans]
        self._low, self._high, self._span = np.array(scaling, dtype=np.float64).reshape(-1, 3).T.copy()
        self._numbers = [index for index, feature in enumerate(self.features) if feature["kind"] == "number"]
        self._fill = np.array([feature["fill"] for feature in numbers], dtype=np.float64)
        self._nullable = np.array([feature["nullable"] for feature in numbers], dtype=bool)
        kinds = [
            (at, len(told["choices"]), told["nullable"]) for at, told in enumerate(self.features) if told["kind"] == "category"
        ]
        slots = [(at, choices, slot) for at, choices, nullable in kinds for slot in range(choices + nullable)]
        self._category, self._absent, self._slot = np.array(slots, dtype=int).reshape(-1, 3).T.copy()
        self._is_plain = not slots and not self._nullable.any()
        (taken,), (given,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._input, self._output = taken["index"], given["index"]
        self._is_whole = taken["dtype"] == np.int8
        (self._step, self._zero), (self._out_step, self._out_zero) = taken["quantization"], given["quantization"]
        self._buffer = np.zeros(taken["shape"], dtype=taken["dtype"])
        if tuple(given["shape"]) != (1, len(self.labels) or 1) or (self._is_whole and not self._step * self._out_step):
            raise ValueError(f"its outputs are {given['shape']}, in steps of {self._out_step}")

    def _spread(self, row: Any) -> Any:
        """Return the numbers, which of them are missing, and a 0 or 1 a choice."""
        numbers, chosen = row[self._numbers], row[self._category]
        missing = np.isnan(numbers)
        chosen = np.where(np.isnan(chosen), self._absent, chosen) == self._slot
        return np.concatenate([np.where(missing, self._fill, numbers), missing[self._nullable], chosen])


def preprocessing_in(content: bytes, path: Path) -> Any:
    """Return the preprocessing that a .tflite file holds in its metadata; raises Refused where it has none."""
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != b"TFL3":
        raise Refused(f"{path} is no TensorFlow Lite file. Give one that `export` wrote, such as student_int8.tflite.")
    try:
        model = schema.Model.GetRootAs(content, 0)
        for index in range(model.MetadataLength()):
            entry = model.Metadata(index)
            if entry.Name() == METADATA.encode():
                return json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
    except Exception as error:  # whatever flatbuffers, struct and json make of offsets that point anywhere
        raise _damaged(path, error) from error
    raise Refused(f"{path} doesn't say how a row becomes its input ({METADATA} is not in it). Give a file that `export` wrote.")


def rows_of(content: bytes, student: Student, path: Path) -> Iterator[list[str]]:
    """Yield the rows of CSV in UTF-8 as cells in the features' order; a header, as the server knows one, may have any."""
    try:
        text = content.decode("utf-8-sig").rstrip("\r\n ")
        rows, names = csv.reader(io.StringIO(text, newline=""), strict=True), {name.casefold() for name in student.names}
        first = next(rows, [])
        if any(cell.strip().casefold() in names and not student.takes(cell, at) for at, cell in enumerate(first)):
            places = _places([cell.strip() for cell in first], student.names)
            yield from ([row[at] for at in places] if len(row) == len(places) else row for row in rows)
        elif text:
            yield from chain([first], rows)
    except UnicodeDecodeError as error:
        raise Refused(f"{path} is no UTF-8 text: byte {error.start:,}. Save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise Refused(f"{path} is not CSV: {error} in line {rows.line_num}. One row a line was expected.") from error


def cells_of(row: str, student: Student) -> list[str]:
    """Return the cells of `0,6.5,..` or of `CHAS=0,RM=6.5,..`; raises Refused where names are missing or unknown."""
    try:
        (cells,) = csv.reader([row], skipinitialspace=True)
    except (csv.Error, ValueError) as error:
        raise Refused(f"--row is not a row of CSV: {error}. Give one line; of several rows make a file, for --csv.") from error
    if not any("=" in cell and not student.takes(cell, at) for at, cell in enumerate(cells)):  # a choice may have one in it
        return cells
    bare = next((cell for cell in cells if "=" not in cell), None)
    if bare is not None:
        raise Refused(f"--row: {bare[:40]!r} has no value; NAME=VALUE was expected for each of {', '.join(student.names)}.")
    return [cells[at].partition("=")[2] for at in _places([cell.partition("=")[0].strip() for cell in cells], student.names)]


def run(path: Path, asked: str | Path, delegate: str | None = None) -> int:
    """Predict a row, or a file's rows, a line each, and say on stderr how long a row took; return the exit code."""
    student = Student(path, delegate)
    rows = [cells_of(asked, student)] if isinstance(asked, str) else rows_of(content_of(asked), student, asked)
    is_read = [student.read(cells, number) for number, cells in enumerate(rows, 1)]
    if not is_read:
        raise Refused(f"{asked} holds no row; at least one was expected.")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack a label's letters
    try:
        for values in is_read:
            print(spell(student.predict(values), student.labels))
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    turn, count = cycle(is_read), len(is_read)
    seconds = timeit.repeat(lambda: student.predict(next(turn)), number=1, repeat=max(200, min(count, 10_000)))
    print(f"{count:,} row{'s' * (count > 1)}, {statistics.median(seconds) * 1e6:.1f} us a row (median)", file=sys.stderr)
    return 0


def spell(answer: Any, labels: Sequence[str]) -> str:
    """Return an answer as a line: the number, or the likeliest label and each label's probability."""
    if not labels:
        return f"{answer:.6g}"
    likeliest = labels[max(range(len(labels)), key=answer.__getitem__)]
    return f"{likeliest} ({', '.join(f'{label} {share:.3f}' for label, share in zip(labels, answer, strict=True))})"


def _places(found: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return where each name stands among those found; raises Refused where they aren't each there once."""
    doubled = sorted({name for name in found if found.count(name) > 1})
    missing, unknown = [name for name in names if name not in found], sorted(set(found) - set(names))
    lists = (("missing", missing), ("unknown", unknown), ("twice", doubled))
    what = "; ".join(f"{word}: {', '.join(listed)}" for word, listed in lists if listed)
    if what:
        raise Refused(f"Columns are {what}. The model takes each of these once, in any order: {', '.join(names)}.")
    return [found.index(name) for name in names]


def _damaged(path: Path, error: Exception) -> Refused:
    return Refused(f"{path} is damaged: {' '.join(f'{error!r}'.split())[:200]}. Copy it again, or export it again.")


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
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Plain arithmetic of integers, the same on every processor; XNNPACK, which comes unasked, announces itself on stderr.
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if delegate else OpResolverType.BUILTIN_REF
    if delegate == "":
        raise Refused("--delegate is empty. Name a library, such as libedgetpu.so.1, or leave it out: the CPU answers then.")
    delegates = [_delegate(delegate)] if delegate else []
    try:
        options = {"experimental_delegates": delegates, "experimental_op_resolver_type": resolver, "num_threads": 1}
        interpreter = Interpreter(model_content=content, **options)
        interpreter.allocate_tensors()
    except Exception as error:  # RuntimeError and ValueError of LiteRT, and what damaged texts in a file become
        if b"edgetpu-custom-op" not in content:
            raise _damaged(path, error) from error
        hint = "give --delegate libedgetpu.so.1" if delegate is None else f"{delegate} doesn't take it: use that device's own"
        raise Refused(f"{path} is compiled for an Edge TPU: {hint}, or the file that it was compiled from.") from error
    return interpreter


def _delegate(library: str) -> Any:
    from ai_edge_litert.interpreter import load_delegate

    try:
        symbols = ctypes.CDLL(library)  # before LiteRT's loader, which prints a traceback where it finds none
        symbols.tflite_plugin_create_delegate, symbols.tflite_plugin_destroy_delegate  # noqa: B018
        return load_delegate(library)
    except (OSError, AttributeError, ValueError) as error:  # no library, no delegate, no device
        said = f"{library} can't be loaded as an accelerator's delegate: {' '.join(str(error).split()).rstrip('.')}."
        raise Refused(f"{said} Is it installed, and the device attached? Without --delegate the CPU answers.") from error


def content_of(path: Path) -> bytes:
    """Return a file's bytes; raises Refused where there are none."""
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
        return run(given.model, given.csv if given.row is None else given.row, given.delegate)
    except (Refused, ImportError) as error:
        print(error if isinstance(error, Refused) else f"{error}. Run `pip install ai-edge-litert`.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
