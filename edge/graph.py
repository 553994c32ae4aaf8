"""A .tflite file as a graph of operators and tensors: read whole and checked, whatever bytes the file has.

LiteRT's schema module reads it, so no interpreter is needed, and what no interpreter runs can be judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.errors import BadArtifact
from edge.libraries import library

IDENTIFIER = b"TFL3"
"""At the fifth byte of every .tflite file."""
OTHERS = {b"PK\x03\x04": "a zip archive", b"\x89HDF": "a Keras file (HDF5)", b"\x08": "an ONNX model, it seems"}


@dataclass(frozen=True)
class Tensor:
    """What flows between operators, or a constant."""

    name: str
    dtype: str
    """As LiteRT names it, in small letters: int8, float32, .."""
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    """The shape with -1 for each size that is open until run time."""
    scales: tuple[float, ...] = ()
    """One: quantized per tensor; more: per channel."""
    zero_points: tuple[int, ...] = ()
    data: npt.NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    """The bytes of a constant; None for what is computed."""
    outside: bool = False
    """Whether it is a constant whose bytes are elsewhere in the file, which isn't read here."""

    @property
    def is_constant(self) -> bool:
        """Whether it is known before anything runs."""
        return self.data is not None or self.outside

    @cached_property
    def values(self) -> list[int] | None:
        """The integers of a constant, such as axes, flat; None where it is none, or of another kind."""
        kinds = {"int8", "uint8", "int16", "int32", "int64"}
        if self.data is None or self.dtype not in kinds or self.data.size % np.dtype(self.dtype).itemsize:
            return None
        return [int(value) for value in self.data.view(self.dtype)]


@dataclass(frozen=True)
class Operator:
    """One step."""

    name: str
    """As the compilers' logs have it: FULLY_CONNECTED; the code of a custom operator."""
    version: int
    inputs: tuple[Tensor | None, ...]
    """None for one that is left out."""
    outputs: tuple[Tensor, ...]
    options: Mapping[str, Any]
    """As LiteRT's schema module names them; empty where there are none."""
    custom: bool = False
    """Whether it is none of TensorFlow Lite's own."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that it touches."""
        return (*(tensor for tensor in self.inputs if tensor is not None), *self.outputs)

    @property
    def activations(self) -> tuple[Tensor, ...]:
        """What it touches that is computed."""
        return tuple(tensor for tensor in self.tensors if not tensor.is_constant)


@dataclass(frozen=True)
class Graph:
    """A model; of several subgraphs the first, which is where it starts."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    """In the order in which they run."""
    metadata: Mapping[str, bytes] = field(default_factory=dict)


def read_graph(path: Path) -> Graph:
    """Return the graph of a .tflite file.

    Raises:
        BadArtifact: there is no such file, it is something else, or it is damaged.
        MissingLibrary: ai-edge-litert isn't installed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadArtifact(f"{path} can't be read: {error.strerror}. Give a .tflite file.", file=str(path)) from error
    if content[4:8] != IDENTIFIER:
        raise BadArtifact(f"{path} is no TensorFlow Lite model: {_what(content)}. Give a .tflite file.", file=str(path))
    schema = library("ai_edge_litert.schema_py_generated")
    try:
        return _graph(schema, schema.ModelT.InitFromPackedBuf(content, 0))
    except Exception as error:  # whatever flatbuffers, struct or numpy make of offsets that point anywhere
        raise BadArtifact(
            f"{path} is a damaged TensorFlow Lite model ({len(content):,} bytes): its tables point to what isn't there "
            f"({type(error).__name__}). Get or make the file again.",
            file=str(path),
        ) from error


def _what(content: bytes) -> str:
    if not content:
        return "it is empty"
    for start, what in OTHERS.items():
        if content.startswith(start):
            return f"it is {what}"
    return f"its bytes 5 to 8 are {content[4:8]!r} and not {IDENTIFIER!r}"


def _graph(schema: Any, model: Any) -> Graph:
    root = model.subgraphs[0]
    tensors = [_tensor(schema, tensor, model.buffers) for tensor in _listed(root.tensors)]
    operators = [_operator(schema, operator, model.operatorCodes, tensors) for operator in _listed(root.operators)]
    metadata = {
        _text(entry.name): bytes(_listed(model.buffers[_index(entry.buffer)].data)) for entry in _listed(model.metadata)
    }
    return Graph(_chosen(root.inputs, tensors), _chosen(root.outputs, tensors), tuple(operators), metadata)


def _tensor(schema: Any, tensor: Any, buffers: Sequence[Any]) -> Tensor:
    shape = tuple(int(size) for size in _listed(tensor.shape))
    signature = tuple(int(size) for size in _listed(tensor.shapeSignature)) or shape
    buffer, quantization = buffers[_index(tensor.buffer)], tensor.quantization
    data = buffer.data if buffer.data is not None and len(buffer.data) else None
    return Tensor(
        name=_text(tensor.name),
        dtype=_name(schema.TensorType, tensor.type).lower(),
        shape=shape,
        signature=signature,
        scales=tuple(float(scale) for scale in _listed(quantization and quantization.scale)),
        zero_points=tuple(int(point) for point in _listed(quantization and quantization.zeroPoint)),
        data=None if data is None else np.asarray(data, np.uint8),
        outside=buffer.offset > 1,  # of models above 2 GB: 0 and 1 mean that there are none
    )


def _operator(schema: Any, operator: Any, codes: Sequence[Any], tensors: Sequence[Tensor]) -> Operator:
    code = codes[_index(operator.opcodeIndex)]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)  # the second holds those below 127, in older files alone
    custom = number == schema.BuiltinOperator.CUSTOM
    inputs = tuple(None if index == -1 else tensors[_index(index)] for index in _listed(operator.inputs))
    return Operator(
        name=_text(code.customCode or b"CUSTOM") if custom else _name(schema.BuiltinOperator, number),
        version=code.version,
        inputs=inputs,
        outputs=_chosen(operator.outputs, tensors),
        options=dict(vars(operator.builtinOptions)) if operator.builtinOptions is not None else {},
        custom=custom,
    )


def _chosen(indexes: Any, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(tensors[_index(index)] for index in _listed(indexes))


def _listed(vector: Any) -> Any:
    return () if vector is None else vector


def _text(name: bytes | None) -> str:
    return (name or b"").decode(errors="replace")


def _index(number: int) -> int:
    if number < 0:  # which Python would count from the end
        raise IndexError(number)
    return int(number)


def _name(names: type, number: int) -> str:
    return next((name for name, value in vars(names).items() if value == number and name.isupper()), f"OPERATOR_{number}")
