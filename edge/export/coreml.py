"""The model, and its student, as Core ML packages for iPhones and Macs: raw features in, the answer out.

Core ML runs on Apple's machines alone; what was written is read back here and computed with NumPy, operation by operation.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.edge import METADATA, Preprocessing
from contract.errors import ExportFailed
from contract.manifest import ONNX, Manifest
from edge.export.student import Array, Student, softmax
from edge.export.translation import BELOW_ALL, MISSING, columns, equals, filled, row, translate
from edge.libraries import library

INPUT, NUMBER, CLASS = "features", "prediction", "probabilities"
DATE = "com.github.apple.coremltools.conversion_date"


def write_package(student: Student, path: Path) -> None:
    """Write the student as an .mlpackage: `features` (1, n_features) float32 in, `prediction` or `probabilities` out.

    A category is the index of its choice, a missing value MISSING.
    """
    told = student.preprocessing
    names, metadata = [column.name for column in told.features], json.dumps(told.to_json(), sort_keys=True, ensure_ascii=False)
    about = f"{told.target}: a student of the model {told.teacher[:12]}"
    _write(path, lambda builder, features: _program(student, builder, features), names, about, metadata)


def write_model(manifest: Manifest, content: bytes, path: Path) -> None:
    """Write a model's own ONNX graph as an .mlpackage, with the inputs and outputs of the student's.

    Raises:
        Untranslatable: it has something that can't be said in Core ML here.
    """
    declared, output = manifest.declaration, CLASS if manifest.labels else NUMBER
    metadata = json.dumps({"features": declared.to_json()["features"], "labels": manifest.labels}, sort_keys=True)
    about = f"{declared.target.name}: the model {manifest.files[ONNX]['sha256'][:12]}"

    def body(builder: Any, features: Any) -> Any:
        return builder.identity(x=translate(content, features, builder), name=output)

    _write(path, body, declared.feature_names, about, metadata)


def read_package(path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """Return what a written package answers to rows of the server's matrix, computed with NumPy in float32.

    Raises:
        ExportFailed: it holds an operation that isn't known here.
    """
    with _quiet():
        tools, load = library("coremltools"), library("coremltools.converters.mil.frontend.milproto.load").load
        model = tools.models.MLModel(str(path), skip_model_load=True)
        specification = model.get_spec()
        program = load(specification, specification.specificationVersion, model.weights_dir).functions["main"]
    steps = [step for step in program.operations if step.op_type != "const"]
    unknown = sorted({step.op_type for step in steps} - set(OPERATIONS))
    if unknown:
        raise ExportFailed(
            f"{path} holds the operations {', '.join(unknown)}, which can't be verified here. Is coremltools another version "
            "than requirements.lock has?"
        )

    def answer(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        known = {INPUT: np.where(np.isnan(matrix), np.float32(MISSING), matrix)}
        for step in steps:
            values = {name: _value(given, known) for name, given in step.inputs.items() if given is not None}
            known[step.outputs[0].name] = OPERATIONS[step.op_type](values)
        return known[program.outputs[0].name].astype(np.float64)

    return answer


def _write(path: Path, body: Callable[[Any, Any], Any], names: Sequence[str], about: str, metadata: str) -> None:
    """Write a program, of which `body` makes what computes the answer from the features."""
    with _quiet(), _scratch(path.parent):
        tools, builder = library("coremltools"), library("coremltools.converters.mil").Builder
        shape, least = (1, len(names)), tools.target.iOS15

        @builder.program(input_specs=[builder.TensorSpec(shape=shape)], opset_version=least)  # type: ignore[untyped-decorator]
        def program(features: Any) -> Any:
            return body(builder, features)

        made = tools.convert(
            program,
            convert_to="mlprogram",
            compute_precision=tools.precision.FLOAT32,  # of 16 bits three digits would be left
            minimum_deployment_target=least,
            skip_model_load=True,
        )
        made.short_description = about
        told = f"{', '.join(names)}; a category as the index of its choice, a missing value as {MISSING:g}"
        made.input_description[INPUT] = told
        made.user_defined_metadata[METADATA] = metadata
        del made.user_defined_metadata[DATE]
        made.save(str(path))
        _settle(path, tools)


def _program(student: Student, builder: Any, features: Any) -> Any:
    """Return the student's graph, as coremltools' intermediate language has it."""
    layer = _encoded(builder, features, student.preprocessing)
    *hidden, (weight, bias) = zip(student.weights, student.biases, strict=True)
    for each in hidden:
        layer = builder.relu(x=_linear(builder, layer, *each))
    if student.preprocessing.kind == "class":
        return builder.softmax(x=_linear(builder, layer, weight, bias), axis=-1, name=CLASS)
    # The target's unit within the last layer: coremltools fails to fuse an addition of one number into a layer.
    spread, mean = student.preprocessing.deviation, student.preprocessing.mean
    return _linear(builder, layer, weight * spread, bias * spread + mean, name=NUMBER)


def _encoded(builder: Any, features: Any, preprocessing: Preprocessing) -> Any:
    """Return the encoding of `Preprocessing` as a part of the graph."""
    told = preprocessing.features
    whole = filled(builder, features, [column.fill if column.kind == "number" else len(column.choices) for column in told])
    numbers = [index for index, column in enumerate(told) if column.kind == "number"]
    nullable = [index for index in numbers if told[index].nullable]
    slots = [(at, slot) for at, column in enumerate(told) if column.kind == "category" for slot in range(column.slots)]
    parts = []
    if numbers:
        bounds = [(told[index].low, told[index].high) for index in numbers]
        middle = row([(low + high) / 2 for low, high in bounds])
        factor = row([2 / (high - low) if high > low else 0 for low, high in bounds])
        scaled = builder.mul(x=builder.sub(x=columns(builder, whole, numbers), y=middle), y=factor)
        parts.append(builder.clip(x=scaled, alpha=np.float32(-1), beta=np.float32(1)))
    if nullable:
        missing = builder.less(x=columns(builder, features, nullable), y=BELOW_ALL)
        parts.append(builder.cast(x=missing, dtype="fp32"))
    if slots:
        at, wanted = zip(*slots, strict=True)
        parts.append(equals(builder, columns(builder, whole, at), wanted))
    return builder.concat(values=parts, axis=1) if len(parts) > 1 else parts[0]


def _linear(builder: Any, x: Any, weight: Array, bias: Array, **name: str) -> Any:
    return builder.linear(x=x, weight=weight.T.astype(np.float32), bias=bias.astype(np.float32), **name)


def _settle(path: Path, tools: Any) -> None:
    """Write anew what would be other bytes every time: the items' random names, and maps in the order of their hashes."""
    manifest = path / "Manifest.json"
    text = manifest.read_text()
    for old, item in json.loads(text)["itemInfoEntries"].items():
        text = text.replace(old, str(uuid.uuid5(uuid.NAMESPACE_URL, item["path"])))
    document = json.loads(text)
    manifest.write_text(json.dumps(document, indent=4, sort_keys=True) + "\n")
    (model,) = path.rglob("*.mlmodel")
    specification = tools.proto.Model_pb2.Model.FromString(model.read_bytes())
    model.write_bytes(specification.SerializeToString(deterministic=True))
    model.chmod(0o644)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep off the terminal that the libraries of Apple's machines aren't here, and bars of progress."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[None]:
    """Have coremltools put its temporary files into a folder that goes whatever happens; its full disk is an OSError."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    except RuntimeError as error:
        if "FileWriter" not in str(error):
            raise
        raise OSError(str(error)) from error
    finally:
        tempfile.tempdir = before


def _value(given: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(given, (list, tuple)):
        return [_value(each, known) for each in given]
    return known.get(given.name, given.val)


OPERATIONS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "abs": lambda given: np.abs(given["x"]),
    "add": lambda given: given["x"] + given["y"],
    "cast": lambda given: given["x"].astype({"fp32": np.float32}[given["dtype"]]),
    "clip": lambda given: np.clip(given["x"], given["alpha"], given["beta"]),
    "concat": lambda given: np.concatenate(given["values"], axis=given["axis"]),
    "gather": lambda given: np.take(given["x"], given["indices"], axis=given["axis"]),
    "gather_along_axis": lambda given: np.take_along_axis(given["x"], given["indices"], axis=given["axis"]),
    "greater": lambda given: given["x"] > given["y"],
    "identity": lambda given: given["x"],
    "less": lambda given: given["x"] < given["y"],
    "less_equal": lambda given: given["x"] <= given["y"],
    "linear": lambda given: given["x"] @ given["weight"].T + given["bias"],
    "mul": lambda given: given["x"] * given["y"],
    "real_div": lambda given: given["x"] / given["y"],
    "reduce_sum": lambda given: given["x"].sum(axis=tuple(given["axes"]), keepdims=bool(given["keep_dims"])),
    "relu": lambda given: np.maximum(given["x"], 0),
    "select": lambda given: np.where(given["cond"], given["a"], given["b"]),
    "sigmoid": lambda given: 1 / (1 + np.exp(-given["x"])),
    "softmax": lambda given: softmax(given["x"], given["axis"]),
    "sub": lambda given: given["x"] - given["y"],
}
"""What the graph is made of, as NumPy computes it."""
