"""`python -m edge check`: what the Edge TPU's compiler takes of a model, operator by operator, and what it says of no model."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import graphs
import numpy as np
import pytest
from conftest import ROOT, lacking

from contract.edge import Column, Preprocessing
from contract.errors import BadArtifact
from edge.checker import vela
from edge.checker.judge import Verdict, judge
from edge.checker.rules import SUPPORTED, fault_of
from edge.export.student import Student
from edge.export.tflite import write_float, write_int8
from edge.graph import Graph, Operator, Tensor, read_graph
from edge.libraries import EXTRAS


def check(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge", "check", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )


# Whole models

MODELS = {
    "int8": (lambda path: graphs.write_dense(path), Verdict.FULL, ""),
    "image, uint8": (lambda path: graphs.write_colors(path, "uint8"), Verdict.FULL, ""),
    "float": (
        lambda path: graphs.write_dense(path, "float32"),
        Verdict.REJECTED,
        "Model not quantized: tensor input is float32",
    ),
    "dynamic range": (
        lambda path: graphs.write_dense(path, "dynamic"),
        Verdict.REJECTED,
        "Model not quantized: tensor input is float32",
    ),
    "float bias": (
        lambda path: graphs.write_dense(path, "float_bias"),
        Verdict.REJECTED,
        "Model not quantized: tensor dense_0/bias is float32",
    ),
    "image, float": (
        lambda path: graphs.write_colors(path, "float32"),
        Verdict.REJECTED,
        "Model not quantized: tensor image is float32",
    ),
    "per channel": (lambda path: graphs.write_dense(path, "per_channel"), Verdict.PARTIAL, ""),
    "per channel, as TensorFlow numbers it": (
        lambda path: graphs.write_dense(path, "per_channel", version=12),
        Verdict.REJECTED,
        "Model could not be parsed: version 12 of FULLY_CONNECTED is newer than the compiler's 9",
    ),
    "float at both ends": (lambda path: graphs.write_dense(path, io="float32"), Verdict.PARTIAL, ""),
    "compiled": (lambda path: graphs.write_compiled(path), Verdict.COMPILED, ""),
}


@pytest.mark.parametrize(("write", "verdict", "reason"), MODELS.values(), ids=MODELS)
def test_a_model_gets_the_verdict_that_the_compiler_would_give(write, verdict, reason, tmp_path: Path) -> None:
    found = judge(read_graph(write(tmp_path / "model.tflite")))
    assert (found.verdict, found.reason) == (verdict, reason)


@pytest.mark.parametrize(
    ("name", "verdict", "operators"),
    [
        ("mobilenet_v1_0.25_128_quant.tflite", Verdict.FULL, 31),
        ("mobilenet_v2_1.0_224_inat_bird_quant.tflite", Verdict.FULL, 65),
        ("mobilenet_v2_1.0_224_inat_bird_quant_edgetpu.tflite", Verdict.COMPILED, 1),
    ],
)
def test_corals_own_models_get_the_verdict_that_is_known_of_them(coral: Path, name: str, verdict, operators: int) -> None:
    found = judge(read_graph(coral / name))
    assert (found.verdict, found.mapped, len(found.places)) == (verdict, operators, operators)


def test_what_export_writes_as_int8_is_full_and_as_float_rejected(tmp_path: Path) -> None:
    columns = tuple(Column(name, "number") for name in "abcd")
    shapes = pairwise((4, 8, 3))
    weights = tuple(np.linspace(-1, 1, before * after).reshape(before, after) for before, after in shapes)
    student = Student(Preprocessing(columns, "T", "class", ("x", "y", "z")), weights, (np.zeros(8), np.zeros(3)))
    rows = np.array([[-1.0, -0.5, 0.5, 1.0], [1.0, 0.5, -0.5, -1.0]])
    verdicts = []
    for content in (write_int8(student, rows)[0], write_float(student)):
        (tmp_path / "model.tflite").write_bytes(content)
        verdicts.append(judge(read_graph(tmp_path / "model.tflite")).verdict)
    assert verdicts == [Verdict.FULL, Verdict.REJECTED]


def test_the_table_says_what_runs_where_and_the_cure_follows(tmp_path: Path) -> None:
    done = check(graphs.write_dense(tmp_path / "ends.tflite", io="float32"), "--vela", "none")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == (
        "ends.tflite: PARTIAL, the compiler takes a part of it, and the rest runs on the CPU "
        "(2 of 4 operators on the Edge TPU).\n"
        "\n"
        "OPERATOR         COUNT  RUNS ON   WHY\n"
        "DEQUANTIZE           1  CPU       it makes floats\n"
        "FULLY_CONNECTED      2  Edge TPU\n"
        "QUANTIZE             1  CPU       its input given is float32\n"
        "\n"
        "What to do:\n"
        "- Let the model begin with int8 (inference_input_type), and scale on the host.\n"
        "- Let the model end in int8 (inference_output_type), and scale its output on the host.\n"
    )


@pytest.mark.parametrize(("kind", "code"), [("int8", 0), ("per_channel", 1), ("float32", 1)])
def test_only_a_model_that_runs_wholly_on_the_edge_tpu_exits_with_0(kind: str, code: int, tmp_path: Path) -> None:
    assert check(graphs.write_dense(tmp_path / "model.tflite", kind), "--vela", "none").returncode == code


def test_as_json_every_operator_is_told_by_itself_with_the_second_judges_opinion(tmp_path: Path) -> None:
    told = json.loads(check(graphs.write_dense(tmp_path / "model.tflite", "per_channel"), "--json").stdout)
    assert [place["where"] for place in told["places"]] == ["CPU", "Edge TPU"]
    assert told["places"][0]["reason"] == "its weights are quantized per channel, which is newer than the compiler"
    assert (told["verdict"], told["operators_on_edge_tpu"], len(told["cures"])) == ("PARTIAL", 1, 1)
    assert told["vela"] is None or told["vela"]["npu"] == 2


# One operator


def data(name: str = "x", shape=(1, 4, 4, 8), dtype: str = "int8", **facts) -> Tensor:
    return Tensor(name, dtype, shape, facts.pop("signature", shape), (0.1,), (0,), **facts)


def constant(values, dtype: str = "int32", name: str = "c", shape=None, scales=()) -> Tensor:
    array = np.asarray(values, dtype)
    shape = tuple(array.shape) if shape is None else shape
    return Tensor(name, dtype, shape, shape, scales, (0,) * len(scales), array.reshape(-1).view(np.uint8))


def op(name: str, inputs, outputs=None, **options) -> Operator:
    return Operator(name, 1, tuple(inputs), tuple(outputs or [data("y")]), options)


W, B = constant([[1] * 8] * 4, "int8", "w", scales=(0.02,)), constant([0] * 4, "int32", "b")
FLAT = data("f", (1, 4))
OPERATORS = {
    "addition": (op("ADD", [data(), data()]), None),
    "unknown": (op("GATHER", [data(), constant([0])]), "GATHER isn't supported"),
    "16 bits": (op("ADD", [data("wide", dtype="int16"), data()]), "wide is int16"),
    "floats in between": (op("ADD", [data("f", dtype="float32"), data()]), "f is float32"),
    "open size": (
        op("RELU", [data("open", (1, 1, 1, 8), signature=(1, -1, -1, 8))]),
        "the size of open is open: [1, -1, -1, 8]",
    ),
    "open batch": (op("RELU", [data(signature=(-1, 4, 4, 8))]), None),
    "batch of 2": (op("RELU", [data("two", (2, 4, 4, 8))]), "two has more than three dimensions above 1: [2, 4, 4, 8]"),
    "average": (op("AVERAGE_POOL_2D", [data()], fusedActivationFunction=0), None),
    "average, fused": (op("AVERAGE_POOL_2D", [data()], fusedActivationFunction=1), "it has a fused activation"),
    "maximum, fused": (op("MAX_POOL_2D", [data()], fusedActivationFunction=3), "it has a fused activation"),
    "two joined": (op("CONCATENATION", [data(), data()]), None),
    "joined with zeros": (op("CONCATENATION", [data(), constant([0, 0], "int8")]), None),
    "joined with ones": (op("CONCATENATION", [data(), constant([1, 0], "int8")]), "its input c is a constant"),
    "joined with zeros, of three": (
        op("CONCATENATION", [data(), data(), constant([0], "int8")]),
        "its input c is a constant",
    ),
    "dilated": (op("CONV_2D", [data(), W, B], dilationWFactor=2, dilationHFactor=2), None),
    "dilated unevenly": (
        op("CONV_2D", [data(), W, B], dilationWFactor=2, dilationHFactor=1),
        "its dilations differ: 2 in x, 1 in y",
    ),
    "depthwise, dilated unevenly": (
        op("DEPTHWISE_CONV_2D", [data(), W, B], dilationWFactor=1, dilationHFactor=4),
        "its dilations differ: 1 in x, 4 in y",
    ),
    "convolved by what is computed": (op("CONV_2D", [data(), data("k"), B]), "its parameter k is computed"),
    "dense": (op("FULLY_CONNECTED", [FLAT, W, B], [FLAT]), None),
    "dense, no bias": (op("FULLY_CONNECTED", [FLAT, W, None], [FLAT]), None),
    "dense, shuffled": (op("FULLY_CONNECTED", [FLAT, W, B], [FLAT], weightsFormat=1), "its weights are in a shuffled format"),
    "dense, two rows": (
        op("FULLY_CONNECTED", [FLAT, W, B], [data("y", (2, 4))]),
        "its output [2, 4] has more than one dimension",
    ),
    "dense, per channel": (
        op("FULLY_CONNECTED", [FLAT, constant([[1]] * 4, "int8", scales=(0.1, 0.2, 0.3, 0.4)), B], [FLAT]),
        "its weights are quantized per channel, which is newer than the compiler",
    ),
    "convolution, per channel": (op("CONV_2D", [data(), constant([[1]] * 4, "int8", scales=(0.1, 0.2, 0.3, 0.4)), B]), None),
    "softmax": (op("SOFTMAX", [data("x", (1, 1000))], [data("y", (1, 1000))]), None),
    "softmax, large": (
        op("SOFTMAX", [data("x", (1, 16001))], [data("y", (1, 16001))]),
        "it takes 16000 elements and gets 16001",
    ),
    "softmax, of pixels": (op("SOFTMAX", [data()], [data("y")]), "it takes one dimension and gets [1, 4, 4, 8]"),
    "mean over the picture": (op("MEAN", [data(), constant([1, 2])]), None),
    "mean over the batch": (op("MEAN", [data(), constant([0])]), "it reduces the batch"),
    "mean over the batch, from behind": (op("MEAN", [data(), constant([-4])]), "it reduces the batch"),
    "mean over a depth of 8": (op("MEAN", [data(), constant([3])]), None),
    "mean over a depth of 6": (
        op("MEAN", [data("x", (1, 4, 4, 6)), constant([-1])]),
        "it reduces the depth, which is no multiple of 4",
    ),
    "sum over the batch": (op("SUM", [data(), constant([0, 1])]), "it reduces the batch"),
    "maximum over what is computed": (op("REDUCE_MAX", [data(), data("a", (1,), "int32")]), "its axes are computed"),
    "packed": (op("PACK", [data()], axis=1), None),
    "packed in the batch": (op("PACK", [data()], axis=0), "it works on the batch"),
    "padded": (op("PAD", [data(), constant([[0, 0], [1, 1], [1, 1], [0, 0]])]), None),
    "padded in the batch": (op("PAD", [data(), constant([[0, 1], [0, 0], [0, 0], [0, 0]])]), "it works on the batch"),
    "split": (op("SPLIT", [constant([3]), data()]), None),
    "split in the batch": (op("SPLIT", [constant([0]), data()]), "it works on the batch"),
    "leaky by channel": (op("PRELU", [data(), constant([[[1] * 8]], "int8")]), None),
    "leaky by pixel": (op("PRELU", [data(), constant([[[1] * 8] * 4], "int8")]), "its alpha has more than one dimension"),
    "sliced": (op("STRIDED_SLICE", [data(), *[constant([0] * 4)] * 2, constant([1] * 4)]), None),
    "sliced, each second": (
        op("STRIDED_SLICE", [data(), *[constant([0] * 4)] * 2, constant([1, 2, 2, 1])]),
        "it has strides other than 1, or adds dimensions",
    ),
    "sliced, with an axis added": (
        op("STRIDED_SLICE", [data(), *[constant([0] * 4)] * 2, constant([1] * 4)], newAxisMask=1),
        "it has strides other than 1, or adds dimensions",
    ),
    "mean without axes": (op("MEAN", [data()]), "its inputs, outputs or options are not those of such an operator"),
    "softmax of a single number": (
        op("SOFTMAX", [data("x", ())], [data("y", ())]),
        "its inputs, outputs or options are not those of such an operator",
    ),
    "packed into a single number": (
        op("PACK", [data("x", ())], [data("y", ())]),
        "its inputs, outputs or options are not those of such an operator",
    ),
    "requantized": (op("QUANTIZE", [data()]), None),
    "quantized": (op("QUANTIZE", [data("given", dtype="float32")]), "its input given is float32"),
    "made a float": (op("DEQUANTIZE", [data()], [data("y", dtype="float32")]), "it makes floats"),
}


@pytest.mark.parametrize(("operator", "reason"), OPERATORS.values(), ids=OPERATORS)
def test_an_operator_runs_on_the_edge_tpu_or_is_told_why_not_and_what_to_do(operator: Operator, reason: str | None) -> None:
    fault = fault_of(operator)
    assert (fault and fault.reason) == reason
    assert fault is None or fault.cure.endswith(".")


def test_the_supported_operators_are_those_of_the_documentation_by_litert_s_names() -> None:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    assert len(SUPPORTED) == 40
    assert all(hasattr(BuiltinOperator, name) for name in SUPPORTED)


@pytest.mark.parametrize(
    ("name", "verdict"), [("TFLite_Detection_PostProcess", Verdict.PARTIAL), ("FlexErf", Verdict.REJECTED)], ids=str
)
def test_a_custom_operator_of_corals_detectors_is_left_to_the_cpu_and_any_other_refused(name: str, verdict: Verdict) -> None:
    first, last = data("a"), data("b")
    custom = Operator(name, 1, (first,), (last,), {}, custom=True)
    found = judge(Graph((data(),), (last,), (op("RELU", [data()], [first]), custom)))
    assert found.verdict is verdict


def test_after_one_on_the_cpu_nothing_returns_to_the_edge_tpu() -> None:
    a, b, c, d = (data(name) for name in "abcd")
    steps = (op("RELU", [a], [b]), op("GATHER", [b], [c]), op("RELU", [c], [d]))
    found = judge(Graph((a,), (d,), steps))
    assert [place.where for place in found.places] == ["Edge TPU", "CPU", "CPU"]
    assert found.places[2].reason.startswith("it comes after one that runs on the CPU")


def test_one_on_the_cpu_in_front_strands_nothing() -> None:
    a, b, c = (data(name) for name in "abc")
    found = judge(Graph((a,), (c,), (op("GATHER", [a], [b]), op("RELU", [b], [c]))))
    assert [place.where for place in found.places] == ["CPU", "Edge TPU"]


def test_a_model_of_which_nothing_is_mapped_is_rejected() -> None:
    found = judge(Graph((data(),), (data("y"),), (op("GATHER", [data()]),)))
    assert (found.verdict, found.reason) == (Verdict.REJECTED, "No operator would run on the Edge TPU")


# What is no model


def whole(tmp_path: Path) -> bytes:
    return graphs.write_dense(tmp_path / "whole.tflite").read_bytes()


BROKEN = {
    "empty": (lambda content: b"", "it is empty"),
    "text": (lambda content: b"once upon a time", "its bytes 5 to 8 are b' upo' and not b'TFL3'"),
    "random": (lambda content: random.Random(0).randbytes(4096), "its bytes 5 to 8 are "),
    "zip": (lambda content: b"PK\x03\x04" + bytes(60), "it is a zip archive"),
    "Keras": (lambda content: b"\x89HDF\r\n\x1a\n" + bytes(60), "it is a Keras file (HDF5)"),
    "ONNX": (lambda content: b"\x08\x0a\x12\x08skl2onnx" + bytes(60), "it is an ONNX model, it seems"),
    "nine bytes": (lambda content: content[:9], "is a damaged TensorFlow Lite model (9 bytes)"),
    "half": (lambda content: graphs.truncated(content, 0.5), "is a damaged TensorFlow Lite model"),
    "all but the last bytes": (lambda content: content[:-40], "is a damaged TensorFlow Lite model"),
    "a pointer astray": (graphs.pointing_astray, "is a damaged TensorFlow Lite model"),
    "random behind its head": (
        lambda content: content[:8] + random.Random(1).randbytes(4096),
        "is a damaged TensorFlow Lite model",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_whole_model_is_told_what_it_is(spoil, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(spoil(whole(tmp_path)))
    with pytest.raises(BadArtifact) as told:
        read_graph(path)
    assert message in told.value.message


def test_bytes_flipped_anywhere_give_a_graph_or_a_message_and_nothing_else(tmp_path: Path) -> None:
    content, chance = whole(tmp_path), random.Random(2)
    path, refused = tmp_path / "model.tflite", 0
    for _ in range(300):
        spoilt = bytearray(content)
        for _ in range(chance.choice([1, 4, 30])):
            spoilt[chance.randrange(8, len(spoilt))] = chance.randrange(256)
        path.write_bytes(spoilt)
        try:
            judge(read_graph(path))
        except BadArtifact:
            refused += 1
    assert 50 < refused < 300


@pytest.mark.parametrize("what", ["missing", "folder", "text"])
def test_the_command_says_so_without_a_traceback_and_exits_with_1(what: str, tmp_path: Path) -> None:
    path = tmp_path / what
    if what == "folder":
        path.mkdir()
    elif what == "text":
        path.write_text("no model")
    done = check(path)
    expected = {
        "missing": f"{path} can't be read: No such file or directory. Give a .tflite file.\n",
        "folder": f"{path} can't be read: Is a directory. Give a .tflite file.\n",
        "text": f"{path} is no TensorFlow Lite model: its bytes 5 to 8 are b'odel' and not b'TFL3'. Give a .tflite file.\n",
    }
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected[what])


# The second judge


def test_vela_agrees_on_what_is_8_bits_from_end_to_end_and_what_is_not(tmp_path: Path) -> None:
    if find_spec("ethosu") is None:
        lacking("ethos-u-vela isn't installed: it is in the section `export`")
    full = vela.ask_vela(graphs.write_dense(tmp_path / "int8.tflite"))
    none = vela.ask_vela(graphs.write_dense(tmp_path / "float.tflite", "float32"))
    assert (full.npu, full.cpu, full.failure) == (2, 0, "")
    assert (none.npu, none.cpu) == (0, 2)
    assert none.reasons[0].startswith("FULLY_CONNECTED: Operation has tensor with unsupported DataType Float32")


def test_vela_without_an_opinion_says_why() -> None:
    assert vela.read_opinion("Traceback\nRuntimeError: no networks\n", 1).line == (
        "Arm's Vela can't judge it: RuntimeError: no networks."
    )


def test_without_vela_the_verdict_stands_alone(tmp_path: Path) -> None:
    model = graphs.write_dense(tmp_path / "model.tflite")
    hidden = (
        f"import sys; sys.modules['ethosu'] = None; sys.path.insert(0, {str(ROOT)!r}); "
        "from edge.checker.check import check; check()"
    )
    done = subprocess.run([sys.executable, "-c", hidden, str(model)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Vela" not in done.stdout


def test_a_check_needs_neither_an_interpreter_nor_pillow(tmp_path: Path) -> None:
    model = graphs.write_dense(tmp_path / "model.tflite")
    watched = (
        "import sys, runpy; sys.argv[0] = 'edge'\n"
        "try: runpy.run_module('edge', run_name='__main__')\n"
        "except SystemExit: print(*(name for name in sys.modules if name.split('.')[0] in "
        "{'PIL', 'ethosu', 'sklearn', 'onnxruntime', 'coremltools'} or name == 'ai_edge_litert.interpreter'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", watched, "check", str(model), "--vela", "none"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == ""


# Libraries


def test_every_library_that_is_asked_for_is_known_with_the_section_that_installs_it() -> None:
    text = "".join(path.read_text() for path in (ROOT / "edge").rglob("*.py"))
    asked = {name.partition(".")[0] for name in re.findall(r'\b(?:library|folder_of)\("([\w.]+)"', text)}
    assert len(asked) > 8
    assert asked <= set(EXTRAS)


@pytest.mark.parametrize(
    ("name", "distribution"),
    [("joblib", "joblib"), ("onnxruntime", "onnxruntime"), ("sklearn", "scikit-learn"), ("threadpoolctl", "threadpoolctl")],
)
def test_a_library_is_in_the_section_that_is_named_where_it_is_missing(name: str, distribution: str) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    section = lock.partition(f"# == {EXTRAS[name]} ==")[2].partition("\n# == ")[0]
    assert EXTRAS[name] == "export"  # of which coremltools and the others are too: one command installs what an export needs
    assert f"\n{distribution}==" in section
