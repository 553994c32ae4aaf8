"""What the Edge TPU's compiler takes of a graph: the rules of its documentation, one function a rule, each with its cure.

Source: "TensorFlow models on the Edge TPU" (coral.ai/docs/edgetpu/models-intro), as of runtime 14: 8-bit tensors, constant
sizes, constant parameters, no more than the three innermost dimensions above 1, and a table of operators. What makes compiler
16.0 refuse a whole model is in issues of google-coral/edgetpu: float weights or biases (79, 168, 213, 238, 313), and versions
of operators that its TensorFlow does not know (631: CONV_2D 6; 845: TRANSPOSE_CONV 4; tflite-micro 2633: EXP 2).
Inferred, not seen: FULLY_CONNECTED above version 9, the last one then; weights per channel, which TensorFlow makes for it since
2.17, are of version 12.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edge.graph import Operator, Tensor

EIGHT_BIT = ("int8", "uint8")
INTEGERS = (*EIGHT_BIT, "int32", "int64", "bool")
"""What an operator may touch: its data is of 8 bits, biases, axes and shapes are wider."""
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM")
"""Those whose parameters are learnt: a float among them, and the compiler says "Model not quantized"."""
NAMES = """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED L2_NORMALIZATION LOGISTIC MAXIMUM
    MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH
    TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM
"""
SUPPORTED = frozenset(NAMES.split())
MAX_VERSIONS = {"CONV_2D": 5, "EXP": 1, "FULLY_CONNECTED": 9, "TRANSPOSE_CONV": 3}
KNOWN_CUSTOM = ("TFLite_Detection_PostProcess",)
"""Operators of others that the compiler has, though it leaves them to the CPU."""
MAX_SOFTMAX = 16_000


@dataclass(frozen=True)
class Fault:
    """Why an operator does not run on the Edge TPU, and what changes that."""

    reason: str
    cure: str


QUANTIZE_CURE = (
    "Quantize the whole model to 8-bit integers, weights, activations and biases, with a representative data set "
    "(in TensorFlow's converter: supported_ops = [TFLITE_BUILTINS_INT8], inference_input_type and inference_output_type int8)."
)
PER_CHANNEL_CURE = (
    "Quantize dense layers per tensor (converter._experimental_disable_per_channel_quantization_for_dense_layers = True)."
)
SUPPORTED_CURE = "Build the model of supported operators, or put the others at its end."


def fault_of(operator: Operator) -> Fault | None:
    """Return the first rule that an operator breaks by itself, or None where the compiler maps it."""
    for rule in RULES:
        fault = rule(operator)
        if fault:
            return fault
    return _own_fault(operator, OWN_RULES[operator.name]) if operator.name in OWN_RULES else None


def refusal_of(operator: Operator) -> Fault | None:
    """Return why the compiler refuses a whole model for the sake of an operator, or None where it doesn't."""
    floating = next((tensor for tensor in operator.tensors if tensor.dtype.startswith("float")), None)
    if operator.name in WEIGHTED and floating:
        return Fault(f"Model not quantized: tensor {floating.name} is {floating.dtype}", QUANTIZE_CURE)
    limit = MAX_VERSIONS.get(operator.name, operator.version)
    if operator.version > limit:
        return Fault(
            f"Model could not be parsed: version {operator.version} of {operator.name} is newer than the compiler's {limit}",
            PER_CHANNEL_CURE if _per_channel_dense(operator) else "Convert with an older TensorFlow.",
        )
    if operator.custom and operator.name not in KNOWN_CUSTOM:
        return Fault(f"Model failed in Tflite interpreter: {operator.name} is not one of its operators", SUPPORTED_CURE)
    return None


def open_size(tensor: Tensor) -> bool:
    """Say whether a size is open until run time; the batch, which converters leave open, is taken as 1."""
    return any(size < 0 for size in tensor.signature[1:]) or any(size <= 0 for size in tensor.shape)


# Rules of every operator.


def _supported(operator: Operator) -> Fault | None:
    if operator.name in SUPPORTED:
        return None
    if operator.name == "DEQUANTIZE":
        return Fault("it makes floats", "Let the model end in int8 (inference_output_type), and scale its output on the host.")
    return Fault(f"{operator.name} isn't supported", SUPPORTED_CURE)


def _integers(operator: Operator) -> Fault | None:
    odd = next((tensor for tensor in operator.tensors if tensor.dtype not in INTEGERS), None)
    if odd is None:
        return None
    if operator.name == "QUANTIZE":
        return Fault(
            f"its input {odd.name} is {odd.dtype}",
            "Let the model begin with int8 (inference_input_type), and scale on the host.",
        )
    return Fault(f"{odd.name} is {odd.dtype}", QUANTIZE_CURE)


def _sizes(operator: Operator) -> Fault | None:
    odd = next((tensor for tensor in operator.activations if open_size(tensor)), None)
    return (
        Fault(f"the size of {odd.name} is open: {list(odd.signature)}", "Fix the input's sizes when converting.")
        if odd
        else None
    )


def _dimensions(operator: Operator) -> Fault | None:
    odd = next((tensor for tensor in operator.activations if any(size > 1 for size in tensor.shape[:-3])), None)
    cure = "Convert with batch 1, and tensors of at most three dimensions beside it."
    return Fault(f"{odd.name} has more than three dimensions above 1: {list(odd.shape)}", cure) if odd else None


def _parameters(operator: Operator) -> Fault | None:
    if operator.name not in WEIGHTED or operator.name == "TRANSPOSE_CONV":  # whose input 0 is a shape
        return None
    odd = next((tensor for tensor in operator.inputs[1:3] if tensor is not None and not tensor.is_constant), None)
    return Fault(f"its parameter {odd.name} is computed", "Make weights and biases constants.") if odd else None


def _per_tensor(operator: Operator) -> Fault | None:
    if not _per_channel_dense(operator):
        return None
    return Fault("its weights are quantized per channel, which is newer than the compiler", PER_CHANNEL_CURE)


def _per_channel_dense(operator: Operator) -> bool:
    return operator.name == "FULLY_CONNECTED" and any(len(tensor.scales) > 1 for tensor in operator.tensors)


RULES: tuple[Callable[[Operator], Fault | None], ...] = (_supported, _integers, _sizes, _dimensions, _parameters, _per_tensor)


# Rules of some.


def _own_fault(operator: Operator, rule: Callable[[Operator], Fault | None]) -> Fault | None:
    try:
        return rule(operator)
    except (IndexError, TypeError, ZeroDivisionError):  # as of a damaged file that can be read
        return Fault("its inputs, outputs or options are not those of such an operator", "Export the model again.")


def _not_fused(operator: Operator) -> Fault | None:
    fused = operator.options.get("fusedActivationFunction", 0)
    return Fault("it has a fused activation", "Make the activation an operator of its own.") if fused else None


def _concatenation(operator: Operator) -> Fault | None:
    constant = next((tensor for tensor in operator.inputs if tensor is not None and tensor.is_constant), None)
    if constant is None:
        return _not_fused(operator)
    zero = constant.zero_points[0] if constant.zero_points else 0
    if len(operator.inputs) == 2 and constant.values is not None and set(constant.values) == {zero}:
        return _not_fused(operator)
    return Fault(f"its input {constant.name} is a constant", "Only one of two may be, and all zeros.")


def _dilation(operator: Operator) -> Fault | None:
    factors = operator.options.get("dilationWFactor", 1), operator.options.get("dilationHFactor", 1)
    return (
        Fault(f"its dilations differ: {factors[0]} in x, {factors[1]} in y", "Make them equal.")
        if factors[0] != factors[1]
        else None
    )


def _dense(operator: Operator) -> Fault | None:
    if operator.options.get("weightsFormat", 0):
        return Fault("its weights are in a shuffled format", "Convert them in the default format.")
    wide = next((tensor for tensor in operator.outputs if math.prod(tensor.shape[:-1]) != 1), None)
    return Fault(f"its output {list(wide.shape)} has more than one dimension", "Convert with batch 1.") if wide else None


def _softmax(operator: Operator) -> Fault | None:
    shape = operator.outputs[0].shape
    if math.prod(shape[:-1]) != 1:
        return Fault(f"it takes one dimension and gets {list(shape)}", "Take the softmax on the host.")
    return (
        Fault(f"it takes {MAX_SOFTMAX} elements and gets {shape[-1]}", "Take the softmax on the host.")
        if shape[-1] > MAX_SOFTMAX
        else None
    )


def _reduction(operator: Operator) -> Fault | None:
    data, axes = operator.inputs[0], operator.inputs[1].values if operator.inputs[1] is not None else None
    if data is None or axes is None:
        return Fault("its axes are computed", "Make them constants.")
    rank = len(data.shape)
    if 0 in {axis % rank for axis in axes} and rank > 1:
        return Fault("it reduces the batch", "Reduce other dimensions.")
    deep = rank == 4 and 3 in {axis % rank for axis in axes} and data.shape[3] % 4
    return Fault("it reduces the depth, which is no multiple of 4", "Pad it.") if deep and operator.name == "MEAN" else None


def _not_in_batch(operator: Operator) -> Fault | None:
    rank = len(operator.outputs[0].shape)
    if operator.name == "PAD":
        paddings = operator.inputs[1].values if operator.inputs[1] is not None else None
        in_batch = paddings is None or any(paddings[:2])
    elif operator.name == "SPLIT":
        axis = operator.inputs[0].values if operator.inputs[0] is not None else None
        in_batch = axis is None or axis[0] % rank == 0
    else:
        in_batch = operator.options.get("axis", 0) % rank == 0
    return Fault("it works on the batch", "Work on another dimension.") if in_batch and rank > 1 else None


def _prelu(operator: Operator) -> Fault | None:
    alpha = operator.inputs[1]
    wide = alpha is not None and any(size > 1 for size in alpha.shape[:-1])
    return (
        Fault("its alpha has more than one dimension", "Share it over height and width (shared_axes=[1, 2]).") if wide else None
    )


def _strides(operator: Operator) -> Fault | None:
    strides = operator.inputs[3].values if len(operator.inputs) > 3 and operator.inputs[3] is not None else None
    masks = operator.options.get("ellipsisMask", 0) or operator.options.get("newAxisMask", 0)
    odd = strides is None or set(strides) != {1} or masks
    return Fault("it has strides other than 1, or adds dimensions", "Slice with strides of 1.") if odd else None


OWN_RULES: dict[str, Callable[[Operator], Fault | None]] = {
    "AVERAGE_POOL_2D": _not_fused,
    "CONCATENATION": _concatenation,
    "CONV_2D": _dilation,
    "DEPTHWISE_CONV_2D": _dilation,
    "FULLY_CONNECTED": _dense,
    "MAX_POOL_2D": _not_fused,
    "MEAN": _reduction,
    "PACK": _not_in_batch,
    "PAD": _not_in_batch,
    "PRELU": _prelu,
    "REDUCE_MAX": _reduction,
    "REDUCE_MIN": _reduction,
    "SOFTMAX": _softmax,
    "SPLIT": _not_in_batch,
    "STRIDED_SLICE": _strides,
    "SUM": _reduction,
}
