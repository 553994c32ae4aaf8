"""The student as TensorFlow Lite files, written by us: float32, and full-integer int8 as accelerators want it.

Of int8: weights a scale a tensor, symmetric; biases int32 in steps of input times weight; zero inside every range; one row,
static shapes. The schema's module comes with ai-edge-litert; nothing converts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.edge import METADATA
from edge.export.student import Array, Student
from edge.libraries import library
from edge.packing import buffer_of, packed

INPUT_SCALE = 1 / 127
"""Of inputs from -1 to 1; their zero is 0."""
VERSIONS = {"float32": 1, "int8": 4}
"""Of the operator FULLY_CONNECTED, by its weights: the least that has them, which old runtimes know."""


@dataclass(frozen=True)
class Step:
    """How integers stand for numbers: number = scale * (integer - zero_point)."""

    scale: float
    zero_point: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the step as JSON types."""
        return {"scale": self.scale, "zero_point": self.zero_point}


@dataclass(frozen=True)
class Tensor:
    """One tensor of the graph; with `data` a constant, without it an activation of one row."""

    name: str
    shape: tuple[int, ...]
    kind: str
    data: NDArray[Any] | None = None
    step: Step | None = None


def write_float(student: Student) -> bytes:
    """Return the student as float32; its input is encoded as for int8."""
    tensors = [Tensor("input", (1, student.preprocessing.width), "float32")]
    for index, (weight, bias) in enumerate(zip(student.weights, student.biases, strict=True), 1):
        flat = weight.T.astype(np.float32)
        tensors += [
            Tensor(f"weights{index}", flat.shape, "float32", flat),
            Tensor(f"biases{index}", bias.shape, "float32", bias.astype(np.float32)),
            Tensor(f"layer{index}", (1, len(bias)), "float32"),
        ]
    return _file(tensors, student)


def write_int8(student: Student, inputs: Array) -> tuple[bytes, Mapping[str, Any]]:
    """Return the student as int8, and the steps of its input and output.

    Args:
        student: to be quantized.
        inputs: encoded rows; the activations' ranges are those that they bring about.
    """
    activations = student.activations(inputs)
    before = first = Step(float(np.float32(INPUT_SCALE)))
    tensors = [Tensor("input", (1, student.preprocessing.width), "int8", step=before)]
    for index, (weight, bias) in enumerate(zip(student.weights, student.biases, strict=True), 1):
        of_weights = Step(float(np.float32(max(np.abs(weight).max(), 1e-9) / 127)))
        of_biases = Step(float(np.float32(before.scale * of_weights.scale)))
        whole = np.rint(weight.T / of_weights.scale).clip(-127, 127).astype(np.int8)
        added = np.rint(bias / of_biases.scale).clip(-(2**31) + 1, 2**31 - 1).astype(np.int32)
        before = _step_of(activations[index])
        tensors += [
            Tensor(f"weights{index}", whole.shape, "int8", whole, of_weights),
            Tensor(f"biases{index}", added.shape, "int32", added, of_biases),
            Tensor(f"layer{index}", (1, len(bias)), "int8", step=before),
        ]
    return _file(tensors, student), {"input": first.to_json(), "output": before.to_json()}


def _step_of(values: Array) -> Step:
    """Return the step by which int8 spans the values and zero."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    scale = float(np.float32((high - low) / 255)) or 1.0
    return Step(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


def _file(tensors: Sequence[Tensor], student: Student) -> bytes:
    """Return the bytes of a model of dense layers: the input, and three tensors a layer: weights, biases, what comes out."""
    schema, kind = library("ai_edge_litert.schema_py_generated"), tensors[1].kind
    model = schema.ModelT()
    model.version, model.description = 3, f"{student.preprocessing.target}, student"
    told = json.dumps(student.preprocessing.to_json(), sort_keys=True, ensure_ascii=False).encode()
    contents = [b"", *(tensor.data.tobytes() for tensor in tensors if tensor.data is not None), told]
    model.buffers = [buffer_of(schema, content) for content in contents]
    model.metadata = [_set(schema.MetadataT(), name=METADATA, buffer=len(contents) - 1)]
    code = schema.BuiltinOperator.FULLY_CONNECTED
    model.operatorCodes = [_set(schema.OperatorCodeT(), builtinCode=code, deprecatedBuiltinCode=code, version=VERSIONS[kind])]
    model.subgraphs = [_graph(schema, tensors)]
    return packed(model)


def _graph(schema: Any, tensors: Sequence[Tensor]) -> Any:
    graph, last = _set(schema.SubGraphT(), name="student", inputs=[0], outputs=[len(tensors) - 1]), len(tensors) - 1
    numbers = iter(range(1, len(tensors)))  # buffer 0 is the empty one
    graph.tensors = [_tensor(schema, tensor, next(numbers) if tensor.data is not None else 0) for tensor in tensors]
    graph.operators = []
    for out in range(3, len(tensors), 3):
        relu = schema.ActivationFunctionType.NONE if out == last else schema.ActivationFunctionType.RELU
        options = _set(schema.FullyConnectedOptionsT(), fusedActivationFunction=relu)
        which = schema.BuiltinOptions.FullyConnectedOptions
        wired = {"inputs": [out - 3, out - 2, out - 1], "outputs": [out]}
        graph.operators.append(
            _set(schema.OperatorT(), opcodeIndex=0, builtinOptionsType=which, builtinOptions=options, **wired)
        )
    return graph


def _tensor(schema: Any, tensor: Tensor, buffer: int) -> Any:
    kind = getattr(schema.TensorType, tensor.kind.upper())
    made = _set(schema.TensorT(), name=tensor.name, shape=list(tensor.shape), type=kind, buffer=buffer)
    if tensor.step:
        made.quantization = _set(
            schema.QuantizationParametersT(), scale=[tensor.step.scale], zeroPoint=[tensor.step.zero_point]
        )
    return made


def _set(made: Any, **values: Any) -> Any:
    for name, value in values.items():
        setattr(made, name, value)
    return made
