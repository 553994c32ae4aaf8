"""Small .tflite models, made by LiteRT's schema module, whose answers a reader can compute by eye."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
    "uint8": schema.TensorType.UINT8,
}


class Model:
    """A graph under construction."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version, self.model.description = 3, b"made by a test"
        self.model.buffers, self.model.operatorCodes, self.model.metadata = [schema.BufferT()], [], []
        self.graph = schema.SubGraphT()
        self.graph.name, self.graph.tensors, self.graph.operators = b"main", [], []
        self.model.subgraphs = [self.graph]

    def buffer(self, data: bytes) -> int:
        made = schema.BufferT()
        made.data = np.frombuffer(data, np.uint8)
        self.model.buffers.append(made)
        return len(self.model.buffers) - 1

    def tensor(self, name: str, shape, dtype: str, *, scale=None, zero=0, data=None, signature=None) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type = name.encode(), list(shape), TYPES[dtype]
        made.shapeSignature = signature
        made.buffer = 0 if data is None else self.buffer(np.asarray(data, dtype).tobytes())
        made.quantization = schema.QuantizationParametersT()
        if scale is not None:
            scales = [scale] if np.isscalar(scale) else list(scale)
            made.quantization.scale, made.quantization.zeroPoint = scales, [zero] * len(scales)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def operator(self, name: str, inputs, outputs, options=None, *, version: int = 1) -> None:
        code, made = schema.OperatorCodeT(), schema.OperatorT()
        known = getattr(schema.BuiltinOperator, name, None)
        code.builtinCode = schema.BuiltinOperator.CUSTOM if known is None else known
        code.deprecatedBuiltinCode, code.version = min(127, code.builtinCode), version
        code.customCode = name.encode() if known is None else None
        self.model.operatorCodes.append(code)
        made.opcodeIndex, made.inputs, made.outputs = len(self.model.operatorCodes) - 1, list(inputs), list(outputs)
        if options is not None:
            made.builtinOptions = options
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        self.graph.operators.append(made)

    def metadata(self, name: str, data: bytes) -> None:
        made = schema.MetadataT()
        made.name, made.buffer = name.encode(), self.buffer(data)
        self.model.metadata.append(made)

    def write(self, path: Path, inputs, outputs) -> Path:
        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def write_dense(path: Path, kind: str = "int8", *, version: int = 4, io: str | None = None, units=(6, 4, 1)) -> Path:
    """Write dense layers: int8, float32, dynamic (int8 weights between floats), per_channel, or float_bias.

    Args:
        io: float32 puts QUANTIZE in front and DEQUANTIZE behind.
    """
    made, floats = Model(), kind in {"float32", "dynamic"}
    dtype, scale = ("float32", None) if floats else ("int8", 0.1)
    outer = first = last = made.tensor("input", [1, units[0]], dtype, scale=scale)
    if io:
        outer = made.tensor("given", [1, units[0]], io)
        made.operator("QUANTIZE", [outer], [first], schema.QuantizeOptionsT())
    for layer, (before, after) in enumerate(pairwise(units)):
        weight = "float32" if kind == "float32" else "int8"
        scales = None if kind == "float32" else [0.02] * after if kind == "per_channel" else 0.02
        weights = made.tensor(f"dense_{layer}/weights", [after, before], weight, scale=scales, data=np.ones((after, before)))
        bias = "float32" if floats or kind == "float_bias" else "int32"
        biases = made.tensor(
            f"dense_{layer}/bias", [after], bias, scale=None if bias == "float32" else 0.002, data=np.zeros(after)
        )
        out = made.tensor(f"dense_{layer}/out", [1, after], dtype, scale=scale)
        made.operator("FULLY_CONNECTED", [last, weights, biases], [out], schema.FullyConnectedOptionsT(), version=version)
        last = out
    if io:
        taken = made.tensor("taken", [1, units[-1]], io)
        made.operator("DEQUANTIZE", [last], [taken], schema.DequantizeOptionsT(), version=2)
        last = taken
    return made.write(path, [outer], [last])


def write_colors(path: Path, dtype: str = "uint8", *, metadata: bytes | None = None, channels: int = 3, size: int = 8) -> Path:
    """Write a classifier whose scores are the means of an image's channels: of 8 bits as 0 to 1, of floats as they come."""
    made = Model()
    quantized = {"uint8": (1 / 255, 0), "int8": (1 / 255, -128)}.get(dtype, (None, 0))
    facts = {"scale": quantized[0], "zero": quantized[1]}
    given = made.tensor("image", [1, size, size, channels], dtype, **facts)
    pooled = made.tensor("pooled", [1, 1, 1, channels], dtype, **facts)
    scores = made.tensor("scores", [1, channels], dtype, **facts)
    pool = schema.Pool2DOptionsT()
    pool.padding, pool.filterWidth, pool.filterHeight, pool.strideW, pool.strideH = schema.Padding.VALID, size, size, 1, 1
    made.operator("AVERAGE_POOL_2D", [given], [pooled], pool, version=2 if dtype == "int8" else 1)
    shape = made.tensor("shape", [2], "int32", data=[1, channels])
    made.operator("RESHAPE", [pooled, shape], [scores], schema.ReshapeOptionsT())
    if metadata is not None:
        made.metadata("TFLITE_METADATA", metadata)
    return made.write(path, [given], [scores])


def write_compiled(path: Path, *metadata: tuple[str, bytes]) -> Path:
    """Write what the Edge TPU's compiler writes: one operator of its own."""
    made = Model()
    given, scores = (
        made.tensor("image", [1, 8, 8, 3], "uint8", scale=1 / 255),
        made.tensor("scores", [1, 3], "uint8", scale=1 / 255),
    )
    made.operator("edgetpu-custom-op", [given], [scores])
    for name, data in metadata:
        made.metadata(name, data)
    return made.write(path, [given], [scores])


def normalization(mean, std) -> bytes:
    """Return TensorFlow's metadata of a model whose first input is normalized: ModelMetadata down to NormalizationOptions."""
    builder = flatbuffers.Builder(256)
    vectors = []
    for values in (mean, std):
        builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            builder.PrependFloat32(value)
        vectors.append(builder.EndVector())
    options = _table(builder, 2, {0: vectors[0], 1: vectors[1]})
    builder.StartObject(2)
    builder.PrependUint8Slot(0, 1, 0)  # options_type: NormalizationOptions
    builder.PrependUOffsetTRelativeSlot(1, options, 0)
    unit = builder.EndObject()
    tensor = _table(builder, 7, {4: _vector(builder, unit)})
    graph = _table(builder, 9, {2: _vector(builder, tensor)})
    builder.Finish(_table(builder, 8, {3: _vector(builder, graph)}), file_identifier=b"M001")
    return bytes(builder.Output())


def _table(builder, slots: int, offsets: dict[int, int]) -> int:
    builder.StartObject(slots)
    for slot, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    return builder.EndObject()


def _vector(builder, table: int) -> int:
    builder.StartVector(4, 1, 4)
    builder.PrependUOffsetTRelative(table)
    return builder.EndVector()


def truncated(content: bytes, share: float) -> bytes:
    """Return the first part of a file."""
    return content[: int(len(content) * share)]


def pointing_astray(content: bytes) -> bytes:
    """Return a file whose root table is far behind its end."""
    return struct.pack("<I", 0x7FFFFFF0) + content[4:]
