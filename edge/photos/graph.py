"""EfficientNet-Lite0 as a float TFLite model: its layers follow from the weights' names and shapes, but for the strides."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.libraries import library
from edge.packing import buffer_of, packed
from edge.photos.weights import Tensors

SIDE = 224
"""Height and width of the pictures it takes."""
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
"""Of its 16 blocks. Source: Tan and Le (2019), arXiv 1905.11946, table 1; the Lite variant has the same."""
EPSILON = 1e-3
"""Added to the variance in batch normalization; as TensorFlow's EfficientNet has it, from which the weights come."""


def build_float(weights: Tensors) -> bytes:
    """Return the model: float32 pictures (1, 224, 224, 3) scaled as -1 .. 1, and the probabilities of 1,000 classes."""
    graph = Graph()
    top = graph.add_tensor("picture", (1, SIDE, SIDE, 3))
    graph.inputs = [top]
    top = graph.convolve(top, *fold(weights, "_conv_stem", "_bn0"), stride=2)
    for number, stride in enumerate(STRIDES):
        top = _add_block(graph, top, weights, number, stride)
    top = graph.convolve(top, *fold(weights, "_conv_head", "_bn1"))
    top = graph.average(top)
    top = graph.connect(top, weights["_fc.weight"], weights["_fc.bias"])
    graph.outputs = [graph.soften(top)]
    return graph.write()


def fold(weights: Tensors, layer: str, norm: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a convolution's weights (out, in, height, width) and bias, with its batch normalization in them."""
    factor = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + EPSILON)
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * factor
    return weights[f"{layer}.weight"] * factor[:, None, None, None], bias


def _add_block(graph: Graph, top: int, weights: Tensors, number: int, stride: int) -> int:
    """Add an inverted residual: widen, filter each channel by itself, narrow; add what came in where the shapes allow."""
    name, below = f"_blocks.{number}.", top
    if f"{name}_expand_conv.weight" in weights:
        top = graph.convolve(top, *fold(weights, f"{name}_expand_conv", f"{name}_bn0"))
    top = graph.convolve_each(top, *fold(weights, f"{name}_depthwise_conv", f"{name}_bn1"), stride=stride)
    top = graph.convolve(top, *fold(weights, f"{name}_project_conv", f"{name}_bn2"), clips=False)
    return graph.add(below, top) if graph.shape(below) == graph.shape(top) else top


class Graph:
    """A TFLite model under construction; each layer returns the number of the tensor it makes. Convolutions end in ReLU6."""

    def __init__(self) -> None:
        self._schema: Any = library("ai_edge_litert.schema_py_generated")
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self._tensors: list[Any] = []
        self._buffers: list[Any] = [buffer_of(self._schema, b"")]  # the first is that of tensors without values
        self._operators: list[Any] = []
        self._codes: list[Any] = []

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return tuple(self._tensors[tensor].shape)

    def add_tensor(self, name: str, shape: tuple[int, ...], values: NDArray[Any] | None = None) -> int:
        """Add a tensor, with values where it is a constant: float32, or int32 for what tells axes."""
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape = name, list(shape)
        types = self._schema.TensorType
        tensor.type = types.INT32 if values is not None and values.dtype == np.int32 else types.FLOAT32
        if values is not None:
            tensor.buffer = len(self._buffers)
            self._buffers.append(buffer_of(self._schema, np.ascontiguousarray(values).tobytes()))
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def convolve(self, top: int, kernel: NDArray[Any], bias: NDArray[Any], stride: int = 1, *, clips: bool = True) -> int:
        """Add a convolution; the kernel is (out, in, height, width)."""
        options = self._schema.Conv2DOptionsT()
        return self._filter(top, ("CONV_2D", options, clips), (kernel.transpose(0, 2, 3, 1), bias), stride)

    def convolve_each(self, top: int, kernel: NDArray[Any], bias: NDArray[Any], stride: int) -> int:
        """Add a convolution of each channel by itself; the kernel is (channels, 1, height, width)."""
        options = self._schema.DepthwiseConv2DOptionsT()
        options.depthMultiplier = 1
        return self._filter(top, ("DEPTHWISE_CONV_2D", options, True), (kernel.transpose(1, 2, 3, 0), bias), stride)

    def add(self, one: int, other: int) -> int:
        """Add a sum."""
        return self._operate("ADD", self._schema.AddOptionsT(), [one, other], self.shape(one))

    def average(self, top: int) -> int:
        """Add the mean of each channel."""
        axes = self.add_tensor("axes", (2,), np.array([1, 2], dtype=np.int32))
        return self._operate("MEAN", self._schema.ReducerOptionsT(), [top, axes], (1, self.shape(top)[-1]))

    def connect(self, top: int, kernel: NDArray[Any], bias: NDArray[Any]) -> int:
        """Add a dense layer; the kernel is (out, in)."""
        constants = [self.add_tensor("kernel", kernel.shape, kernel), self.add_tensor("bias", bias.shape, bias)]
        return self._operate("FULLY_CONNECTED", self._schema.FullyConnectedOptionsT(), [top, *constants], (1, len(bias)))

    def soften(self, top: int) -> int:
        """Add a softmax."""
        options = self._schema.SoftmaxOptionsT()
        options.beta = 1.0
        return self._operate("SOFTMAX", options, [top], self.shape(top))

    def write(self) -> bytes:
        """Return the file's content."""
        part = self._schema.SubGraphT()
        part.tensors, part.operators, part.inputs, part.outputs = self._tensors, self._operators, self.inputs, self.outputs
        model = self._schema.ModelT()
        model.version, model.description = 3, "EfficientNet-Lite0"
        model.subgraphs, model.buffers, model.operatorCodes = [part], self._buffers, self._codes
        return packed(model, 1 << 20)

    def _filter(self, top: int, what: tuple[str, Any, bool], constants: tuple[Any, Any], stride: int) -> int:
        (operator, options, clips), (kernel, bias) = what, constants
        options.padding = self._schema.Padding.SAME
        options.strideH = options.strideW = stride
        options.dilationHFactor = options.dilationWFactor = 1
        if clips:
            options.fusedActivationFunction = self._schema.ActivationFunctionType.RELU6
        side = -(-self.shape(top)[1] // stride)
        given = [top, self.add_tensor("kernel", kernel.shape, kernel), self.add_tensor("bias", bias.shape, bias)]
        return self._operate(operator, options, given, (1, side, side, len(bias)))

    def _operate(self, name: str, options: Any, given: list[int], shape: tuple[int, ...]) -> int:
        code = getattr(self._schema.BuiltinOperator, name)
        numbers = [one.builtinCode for one in self._codes]
        if code not in numbers:
            added = self._schema.OperatorCodeT()
            added.builtinCode, added.deprecatedBuiltinCode, added.version = code, min(code, 127), 1
            self._codes.append(added)
            numbers.append(code)
        operator = self._schema.OperatorT()
        made = self.add_tensor(f"{name.lower()}_{len(self._operators)}", shape)
        operator.opcodeIndex, operator.inputs, operator.outputs = numbers.index(code), given, [made]
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self._operators.append(operator)
        return made
