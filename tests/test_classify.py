"""`python -m edge classify`, and delegates: each with its exact text, produced by a library that behaves so."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import graphs
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, lacking
from PIL import Image
from students import NUMBER, write_student

from contract.delegate import Case, Outcome, edge_tpu_library, is_compiled, try_delegate
from contract.errors import BadData, NoDelegate
from edge.classification.classify import classify
from edge.classification.image import _damaged, read_image
from edge.classification.labels import read_labels
from edge.classification.normalization import Normalization, read_normalization, to_input
from edge.predict import predict

NOTE = "Note: the first inference on an Edge TPU is slow, as the model is loaded into its memory then."
RED = (255, 0, 51)
"""As scores: 1, 0 and 0.2."""


def edge(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What was said on standard error, but for LiteRT's own line."""
    return [line for line in done.stderr.splitlines() if not line.startswith("INFO: ")]


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """A picture of one color."""
    path = tmp_path / "red.png"
    Image.new("RGB", (40, 30), RED).save(path)
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Labels of the three channels."""
    path = tmp_path / "labels.txt"
    path.write_text("red\ngreen\nblue\n")
    return path


# What is printed


def test_five_times_the_note_and_the_labels_are_printed_in_the_books_shape(red: Path, labels: Path, tmp_path: Path) -> None:
    model = graphs.write_colors(tmp_path / "colors.tflite")
    done = edge("classify", "-m", model, "-i", red, "-l", labels, "-k", "2", "--delegate", "none")
    assert (done.returncode, said(done)) == (0, ["Running on the CPU."])
    lines = done.stdout.splitlines()
    assert [lines[0], lines[1], *lines[7:]] == [
        "----INFERENCE TIME----",
        NOTE,
        "-------RESULTS--------",
        "red: 1.00000",
        "blue: 0.20000",
    ]
    assert all(re.fullmatch(r"\d+\.\dms", line) for line in lines[2:7])


def test_the_books_own_bird_is_a_scarlet_macaw(coral: Path) -> None:
    model = coral / "mobilenet_v2_1.0_224_inat_bird_quant.tflite"
    done = edge("classify", "-m", model, "-i", coral / "parrot.jpg", "-l", coral / "inat_bird_labels.txt", "--delegate", "none")
    name, _, score = done.stdout.splitlines()[-1].rpartition(": ")
    assert name == "Ara macao (Scarlet Macaw)"
    assert float(score) == pytest.approx(0.785, abs=0.01)


def test_imagenets_macaw_is_one_too_by_the_smallest_model_and_labels_with_a_background(coral: Path) -> None:
    model = coral / "mobilenet_v1_0.25_128_quant.tflite"
    done = edge("classify", "-m", model, "-i", coral / "parrot.jpg", "-l", coral / "imagenet_labels.txt", "-c", "1")
    name, _, score = done.stdout.splitlines()[-1].rpartition(": ")
    assert name == "macaw"
    assert float(score) == pytest.approx(0.855, abs=0.01)


def test_without_labels_the_number_of_the_output_is_printed_as_often_run_as_asked(red: Path, tmp_path: Path) -> None:
    done = edge("classify", "-m", graphs.write_colors(tmp_path / "c.tflite"), "-i", red, "-c", "2", "--delegate", "none")
    assert len(re.findall(r"^\d+\.\dms$", done.stdout, re.MULTILINE)) == 2
    assert done.stdout.splitlines()[-1] == "0: 1.00000"


def test_labels_that_a_model_carries_are_used(red: Path, tmp_path: Path) -> None:
    model = graphs.write_colors(tmp_path / "c.tflite")
    with zipfile.ZipFile(model, "a") as archive:
        archive.writestr("labels.txt", "rot\ngrün\nblau\n")
    assert edge("classify", "-m", model, "-i", red, "--delegate", "none").stdout.splitlines()[-1] == "rot: 1.00000"


@pytest.mark.parametrize("behind", [b"PK\x05\x06" + bytes(18), b"PK\x05\x06" + bytes([1] * 18)], ids=["empty", "damaged"])
def test_what_lies_behind_a_model_and_is_no_list_is_passed_over(behind: bytes, red: Path, tmp_path: Path) -> None:
    model = graphs.write_colors(tmp_path / "c.tflite")
    model.write_bytes(model.read_bytes() + behind)
    assert edge("classify", "-m", model, "-i", red, "--delegate", "none").stdout.splitlines()[-1] == "0: 1.00000"


# Pixels

PIXELS = np.array([[[0, 127, 255]]], np.uint8)
KINDS = {
    "uint8, as they are": ("uint8", (1 / 128, 128), None, [0, 127, 255]),
    "int8, less 128": ("int8", (1 / 255, -128), None, [-128, -1, 127]),
    "int8, whatever the scale": ("int8", (1 / 128, 0), None, [-128, -1, 127]),
    "uint8, normalized": ("uint8", (1 / 64, 100), Normalization((127.0,), (127.5,)), [36, 100, 164]),
    "int8, normalized and clipped": ("int8", (1 / 256, 0), Normalization((127.0,), (127.5,)), [-128, 0, 127]),
    "uint8 without a scale": ("uint8", (0.0, 0), Normalization((1.0,), (2.0,)), [0, 127, 255]),
    "float32, by default -1 to 1": ("float32", (0.0, 0), None, [-1.0, -0.5 / 127.5, 1.0]),
    "float32, normalized": ("float32", (0.0, 0), Normalization((127.0,), (2.0,)), [-63.5, 0.0, 64.0]),
    "float32, each channel its own": (
        "float32",
        (0.0, 0),
        Normalization((0.0, 27.0, 55.0), (1.0, 10.0, 100.0)),
        [0.0, 10.0, 2.0],
    ),
}


@pytest.mark.parametrize(("dtype", "quantization", "wanted", "expected"), KINDS.values(), ids=KINDS)
def test_pixels_become_what_the_models_own_parameters_say(dtype, quantization, wanted, expected) -> None:
    found = to_input(PIXELS, {"dtype": np.dtype(dtype).type, "quantization": quantization}, wanted)
    assert (found.dtype, found.shape) == (np.dtype(dtype), (1, 1, 1, 3))
    assert found.reshape(-1).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_8_bits_are_scaled_back_without_overflow(dtype: str, red: Path, labels: Path, tmp_path: Path) -> None:
    model = graphs.write_colors(tmp_path / "c.tflite", dtype)
    done = edge("classify", "-m", model, "-i", red, "-l", labels, "-k", "3", "--delegate", "none")
    assert done.stdout.splitlines()[-3:] == ["red: 1.00000", "blue: 0.20000", "green: 0.00000"]


@pytest.mark.parametrize(
    ("metadata", "options", "score"),
    [
        (None, [], "1.00000"),
        (graphs.normalization([127.0], [128.0]), [], "1.00000"),
        (graphs.normalization([5.0, 0.0, 0.0], [2.0, 1.0, 1.0]), [], "125.00000"),
        (graphs.normalization([5.0], [2.0]), ["--mean", "0", "--std", "255"], "1.00000"),
        (b"\x10\x00\x00\x00M001 damaged", [], "1.00000"),
    ],
    ids=["nothing said", "metadata", "metadata by channel", "options before metadata", "damaged metadata"],
)
def test_a_float_model_is_given_what_it_or_the_caller_says(metadata, options, score, red, labels, tmp_path: Path) -> None:
    model = graphs.write_colors(tmp_path / "c.tflite", "float32", metadata=metadata)
    done = edge("classify", "-m", model, "-i", red, "-l", labels, "--delegate", "none", *options)
    assert done.stdout.splitlines()[-1] == f"red: {score}"


def test_metadata_of_another_kind_says_nothing() -> None:
    assert read_normalization({"TFLITE_METADATA": b"", "other": b"x"}) is None
    assert read_normalization({"TFLITE_METADATA": graphs.normalization([1.0], [0.0])}) is None
    assert read_normalization({}) is None


# Images


def test_a_photo_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    picture = Image.new("RGB", (16, 8), "black")
    picture.paste("white", (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: what is left comes on top
    picture.save(path, exif=exif, quality=100)
    pixels = read_image(path, 8, 16)
    assert pixels[:6].min() > 200
    assert pixels[10:].max() < 55


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 80, (80, 80, 80)),
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("LA", (0, 0), (255, 255, 255)),
        ("P", 3, None),
        ("1", 1, (255, 255, 255)),
        ("I;16", 0x8000, (128, 128, 128)),
    ],
    ids=["gray", "opaque", "transparent", "gray, transparent", "palette", "black and white", "16 bits of gray"],
)
def test_gray_alpha_and_palettes_become_colors(mode: str, color, expected, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    picture = Image.new(mode, (6, 4), color)
    if mode == "P":
        picture.putpalette([0] * 9 + [10, 20, 30])
        expected = (10, 20, 30)
    picture.save(path)
    assert tuple(read_image(path, 3, 3)[1, 1].tolist()) == expected


def test_a_model_of_one_channel_gets_gray(tmp_path: Path, red: Path) -> None:
    assert read_image(red, 5, 7, 1).shape == (7, 5, 1)
    done = edge("classify", "-m", graphs.write_colors(tmp_path / "g.tflite", channels=1), "-i", red, "--delegate", "none")
    assert done.stdout.splitlines()[-1] == f"0: {82 / 255:.5f}"  # 0.299 * 255 + 0.114 * 51


def test_a_broken_image_is_told_apart_from_none(tmp_path: Path, red: Path) -> None:
    text, half = tmp_path / "a.jpg", tmp_path / "half.png"
    text.write_text("no image")
    Image.effect_noise((64, 64), 50).save(half)
    half.write_bytes(half.read_bytes()[:1500])
    told = {}
    for path in (text, half, tmp_path / "none.png", tmp_path):
        with pytest.raises(BadData) as error:
            read_image(path, 8, 8)
        told[path.name] = error.value.message.removeprefix(str(path))
    assert told.pop("half.png").startswith(" is a damaged image: ")
    assert told == {
        "a.jpg": " is no image that Pillow knows. Give a JPEG, PNG, BMP or WebP file.",
        "none.png": " can't be read: No such file or directory. Give an image.",
        tmp_path.name: " can't be read: Is a directory. Give an image.",
    }


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        (np.full((4, 4), 200.0, np.float32), "float.tif", 200),
        (np.full((4, 4), 200, np.int32), "long.tif", 200),
        (np.full((4, 4), 0x8000, np.int32), "wide.pgm", 128),
    ],
    ids=["floats to 255", "32 bits to 255", "PGM of 16 bits"],
)
def test_gray_of_wider_values_keeps_its_brightness_where_that_is_known(values, name: str, expected, tmp_path: Path) -> None:
    if name.endswith("pgm"):
        (tmp_path / name).write_bytes(b"P5 4 4 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(tmp_path / name)
    assert read_image(tmp_path / name, 3, 3)[1, 1].tolist() == [expected] * 3


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.linspace(0, 1, 16, dtype=np.float32), "0 to 1"),
        (np.linspace(-5, 90, 16, dtype=np.float32), "-5 to 90"),
        (np.arange(0, 64_000, 4_000, dtype=np.int32), "0 to 60000"),
        (np.full(16, np.nan, np.float32), "nan to nan"),
    ],
    ids=["0 to 1", "below 0", "32 bits, above 255", "NaN"],
)
def test_gray_whose_white_isn_t_known_is_told(values, found: str, tmp_path: Path) -> None:
    path = tmp_path / "gray.tif"
    Image.fromarray(values.reshape(4, 4)).save(path)
    with pytest.raises(BadData) as told:
        read_image(path, 3, 3)
    assert told.value.message == f"{path} has values from {found}; 0 to 255 was expected. Save it with 8 or 16 bits."


@pytest.mark.parametrize("side", [10_000, 20_000], ids=["what Pillow warns of", "what Pillow refuses"])
def test_an_image_of_too_many_pixels_is_told_before_it_is_read(side: int, red: Path, tmp_path: Path) -> None:
    path, content = tmp_path / "large.png", bytearray(red.read_bytes())
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(BadData) as told:
        read_image(path, 8, 8)
    assert told.value.message == f"{path} has {side**2:,} pixels; at most 89,478,485 are read. Make it smaller."


def test_what_pillow_says_of_a_damaged_image_ends_in_one_full_stop(tmp_path: Path) -> None:
    assert _damaged(tmp_path, ValueError("It ends early.")).message == (
        f"{tmp_path} is a damaged image: It ends early. Get the file again."
    )


def test_a_color_space_that_pillow_can_t_convert_is_told(tmp_path: Path) -> None:
    Image.new("LAB", (4, 4)).save(tmp_path / "lab.tif")
    with pytest.raises(BadData, match=r"lab.tif can't be used: .*LAB.*\. Save it in RGB\."):
        read_image(tmp_path / "lab.tif", 3, 3, 1)


# Labels


@pytest.mark.parametrize(
    "text",
    [
        "red\ngreen\nblue\n",
        "red\r\ngreen\r\nblue",
        "0  red\n1  green\n2  blue\n",
        "2 blue\n0 red\n1 green",
        "0: red\n1: green\n2: blue\n",
    ],
    ids=["one a line", "of Windows", "numbered", "in any order", "with colons"],
)
def test_labels_are_read_with_and_without_numbers(text: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(text.encode())
    assert read_labels(path, 3) == ["red", "green", "blue"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("red\ngreen\n", "has 2 labels, numbered 0 to 1; the model has 3 outputs. Give the labels of this model. "
         "Where the first output is the background, its label may be what is missing."),
        ("1 red\n2 green\n3 blue\n", "has 3 labels, numbered 1 to 3; the model has 3 outputs. Give the labels of this model."),
        ("0 red\n1 green\n1 lime\n2 blue\n", "has the number 1 2 times. Give each output one label."),
        ("", "has 0 labels; the model has 3 outputs. Give the labels of this model."),
    ],
    ids=["one short", "numbered from 1", "a number twice", "empty"],
)  # fmt: skip
def test_labels_of_another_model_are_told(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(BadData) as told:
        read_labels(path, 3)
    assert told.value.message == f"{path} {message}"


# Models that are no classifiers


def test_a_model_of_rows_is_told_what_it_takes_instead_of_an_image(red: Path, tmp_path: Path) -> None:
    model = graphs.write_dense(tmp_path / "dense.tflite")
    done = edge("classify", "-m", model, "-i", red, "--delegate", "none")
    assert (done.returncode, said(done)[1:]) == (
        1,
        [f"{model} takes no image: its inputs are [1, 6]; one of [1, height, width, 1 or 3] is needed."],
    )


def test_a_damaged_model_is_no_traceback(red: Path, tmp_path: Path) -> None:
    model = tmp_path / "half.tflite"
    model.write_bytes(graphs.truncated(graphs.write_colors(tmp_path / "c.tflite").read_bytes(), 0.5))
    done = edge("classify", "-m", model, "-i", red, "--delegate", "none")
    assert (done.returncode, len(said(done))) == (1, 1)
    assert "is a damaged TensorFlow Lite model" in done.stderr


def test_mean_and_std_go_together(red: Path, tmp_path: Path) -> None:
    done = edge("classify", "-m", graphs.write_colors(tmp_path / "c.tflite"), "-i", red, "--mean", "1")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, "Error: --mean and --std go together.")


@pytest.mark.parametrize(
    "options", [("--mean", "nan", "--std", "1"), ("--mean", "0", "--std", "nan"), ("--mean", "0", "--std", "inf")]
)
def test_mean_and_std_are_finite(options: tuple[str, ...], red: Path) -> None:
    done = CliRunner().invoke(classify, ["-m", "none.tflite", "-i", str(red), *options])
    assert done.exit_code == 2
    assert "is not a finite number." in done.stderr


def test_an_empty_delegate_is_refused(red: Path, tmp_path: Path) -> None:
    model = graphs.write_colors(tmp_path / "c.tflite")
    done = CliRunner().invoke(classify, ["-m", str(model), "-i", str(red), "--delegate", ""])
    assert done.exit_code == 2
    assert "--delegate is empty: name a library, such as libedgetpu" in done.stderr


# Delegates

CREATE = "void *tflite_plugin_create_delegate(char **k, char **v, unsigned long n, void (*report)(const char *))"
STUBS = {
    "nodevice": CREATE + ' { report("no device is plugged in\\n"); return 0; }',
    "silent": CREATE + " { return 0; }",
    "aborts": "#include <stdlib.h>\n" + CREATE + " { abort(); }",
    "segfaults": CREATE + " { return *(void **)8; }",
    "foreign": "static long other[64];\n" + CREATE + " { return other; }",
    "leaves": "#include <unistd.h>\n" + CREATE + " { _exit(0); }",
    "hangs": "#include <unistd.h>\n" + CREATE + " { sleep(60); return 0; }",
    "works": """
static int prepare(void *context, void *delegate) { return 0; }
static struct { void *data; int (*prepare)(void *, void *); void *unused[3]; long flags; void *builder; } ours = {0, prepare};
"""
    + CREATE
    + " { return &ours; }",
    "loud": '#include <stdio.h>\nstatic void __attribute__((constructor)) talk(void) { puts("{\\"case\\": \\"ready\\"}"); }\n'
    + CREATE
    + ' { puts("hello"); fflush(0); report("none"); return 0; }',
}
DESTROY = "\nvoid tflite_plugin_destroy_delegate(void *d) {}\n"
LAST = "or go without a delegate, on the CPU."


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with delegate libraries that behave as others' do where something is missing."""
    compiler = shutil.which("cc") or lacking("there is no C compiler, which the delegates of these tests need")
    folder = tmp_path_factory.mktemp("stubs")
    for name, source in {**STUBS, "nothing": "int nothing;"}.items():
        (folder / f"{name}.c").write_text(source + ("" if name == "nothing" else DESTROY))
        subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / f"lib{name}.so", folder / f"{name}.c"], check=True)
    shutil.copy(folder / "libworks.so", folder / "libedgetpu.so.1")
    return folder


def runtime() -> str:
    from importlib.metadata import version

    return f"ai-edge-litert {version('ai-edge-litert')}"


def two_lines(name: str, library: str) -> list[str]:
    """The exact text of each case."""
    return {
        "missing": [
            f"{library} can't be loaded: cannot open shared object file: No such file or directory.",
            f"Install it (for an Edge TPU: libedgetpu1-std of Google's package source, docs/coral.md), {LAST}",
        ],
        "text": [
            f"{library} can't be loaded: file too short.",
            f"Install it (for an Edge TPU: libedgetpu1-std of Google's package source, docs/coral.md), {LAST}",
        ],
        "nothing": [
            f"{library} can be loaded, but is no delegate of TensorFlow Lite: undefined symbol: tflite_plugin_create_delegate.",
            f"Name one, such as {edge_tpu_library()}, {LAST}",
        ],
        "nodevice": [
            f"{library} is there, but finds no device that it can use: it says no device is plugged in.",
            "Plug it in, let this user have it (its udev rule, a container's --device /dev/bus/usb), end what else uses it, "
            + LAST,
        ],
        "silent": [
            f"{library} is there, but finds no device that it can use: it says nothing more.",
            "Plug it in, let this user have it (its udev rule, a container's --device /dev/bus/usb), end what else uses it, "
            + LAST,
        ],
        "aborts": [
            f"{library} crashes (SIGABRT, when it looked for its device), "
            f"as one does that was built for another TensorFlow Lite than {runtime()}.",
            f"Install one that is built for it, {LAST}",
        ],
        "segfaults": [
            f"{library} crashes (SIGSEGV, when it looked for its device), "
            f"as one does that was built for another TensorFlow Lite than {runtime()}.",
            f"Install one that is built for it, {LAST}",
        ],
        "foreign": [
            f"{library} crashes (SIGSEGV, when it was given the model), "
            f"as one does that was built for another TensorFlow Lite than {runtime()}.",
            f"Install one that is built for it, {LAST}",
        ],
        "leaves": [
            f"{library} crashes (exit code 0, when it looked for its device), "
            f"as one does that was built for another TensorFlow Lite than {runtime()}.",
            f"Install one that is built for it, {LAST}",
        ],
    }[name]


@pytest.mark.parametrize(
    "name", ["missing", "text", "nothing", "nodevice", "silent", "aborts", "segfaults", "foreign", "leaves"]
)
def test_a_library_that_is_named_and_can_t_be_used_says_why_and_what_to_do(name, red, stubs: Path, tmp_path: Path) -> None:
    library = tmp_path / "lib.so" if name in {"missing", "text"} else stubs / f"lib{name}.so"
    if name == "text":
        library.write_text("no library")
    model = graphs.write_colors(tmp_path / "c.tflite")
    done = edge("classify", "-m", model, "-i", red, "--delegate", library)
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (1, "", two_lines(name, str(library)))


@pytest.mark.parametrize("name", ["missing", "nothing", "nodevice", "segfaults", "leaves"])
def test_predict_says_the_same_of_a_library_and_ends_as_an_error(name: str, stubs: Path, tmp_path: Path) -> None:
    library = tmp_path / "lib.so" if name == "missing" else stubs / f"lib{name}.so"
    words = [str(write_student(tmp_path / "s.tflite", NUMBER)), "--row", "8,x,1", "--delegate", str(library)]
    error = CliRunner().invoke(predict, words).exception
    assert isinstance(error, NoDelegate)
    assert error.message.splitlines() == two_lines(name, str(library))


def test_predict_with_auto_carries_on_with_the_cpu_and_says_so(stubs: Path, tmp_path: Path, monkeypatch) -> None:
    library = str(stubs / "libsegfaults.so")
    monkeypatch.setattr("contract.delegate.edge_tpu_library", lambda: library)
    words = [str(write_student(tmp_path / "s.tflite", NUMBER)), "--row", "8,x,1", "--delegate", "auto"]
    done = CliRunner().invoke(predict, words)
    assert done.exit_code == 0
    assert done.stderr.splitlines()[:3] == [*two_lines("segfaults", library), "Running on the CPU."]


@pytest.mark.parametrize(
    ("name", "what"), [("nodevice", "no device is plugged in"), ("nothing", "undefined symbol: tflite_plugin_create_delegate")]
)
def test_the_copied_runner_says_in_a_line_what_a_library_lacks(name: str, what: str, stubs: Path, tmp_path: Path) -> None:
    model = write_student(tmp_path / "s.tflite", NUMBER)
    command = [sys.executable, ROOT / "edge" / "runner.py", model, "--row", "8,x,1", "--delegate", stubs / f"lib{name}.so"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{what}. Is it installed, and the device attached? Without --delegate the CPU answers.\n" in done.stderr


def test_a_delegate_that_works_is_used_and_named(red: Path, labels: Path, stubs: Path, tmp_path: Path) -> None:
    library = stubs / "libworks.so"
    done = edge("classify", "-m", graphs.write_colors(tmp_path / "c.tflite"), "-i", red, "-l", labels, "--delegate", library)
    assert (done.returncode, said(done)) == (0, [f"Running with {library}."])
    assert done.stdout.splitlines()[-1] == "red: 1.00000"


def test_a_model_that_isn_t_compiled_leaves_an_edge_tpu_idle_and_that_is_said(red: Path, stubs: Path, tmp_path: Path) -> None:
    model, library = graphs.write_colors(tmp_path / "c.tflite"), stubs / "libedgetpu.so.1"
    assert said(edge("classify", "-m", model, "-i", red, "--delegate", library)) == [
        f"c.tflite isn't compiled for the Edge TPU, so that all of it runs on the CPU: `python -m edge compile {model}`.",
        f"Running with {library}.",
    ]


def test_the_lines_hold_though_the_library_is_loud_on_standard_output(stubs: Path) -> None:
    assert try_delegate(str(stubs / "libloud.so")).case is Case.NO_DEVICE


def test_a_library_that_hangs_is_given_up(stubs: Path) -> None:
    library = str(stubs / "libhangs.so")
    outcome = try_delegate(library, timeout_s=1.5)
    assert outcome.case is Case.HUNG
    assert outcome.explanation.splitlines() == [
        f"{library} hangs: no answer in 1.5 s, when it looked for its device.",
        f"Take the device out and plug it in again, {LAST}",
    ]


def test_a_compiled_model_without_a_delegate_says_what_it_needs(red: Path, tmp_path: Path) -> None:
    model = graphs.write_compiled(tmp_path / "colors_edgetpu.tflite")
    done = edge("classify", "-m", model, "-i", red, "--delegate", "none")
    assert is_compiled(model)
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (
        1,
        "",
        [
            "colors_edgetpu.tflite is compiled for the Edge TPU: its edgetpu-custom-op needs a delegate, and there is none.",
            f"Load {edge_tpu_library()} as the delegate, or run colors.tflite, which it was compiled from, on the CPU.",
        ],
    )


def test_a_compiled_model_under_auto_says_why_there_is_no_delegate_too(red: Path, tmp_path: Path) -> None:
    if try_delegate(edge_tpu_library()).ready:
        pytest.skip("there is an Edge TPU here")
    done = edge("classify", "-m", graphs.write_compiled(tmp_path / "compiled.tflite"), "-i", red)
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (1, 4)
    assert lines[2:] == [
        "compiled.tflite is compiled for the Edge TPU: its edgetpu-custom-op needs a delegate, and there is none.",
        f"Load {edge_tpu_library()} as the delegate, or run the model that it was compiled from, on the CPU.",
    ]


def test_a_delegate_that_takes_nothing_of_a_compiled_model_is_told_from_one_that_crashes(stubs: Path, tmp_path: Path) -> None:
    outcome = try_delegate(str(stubs / "libforeign.so"), graphs.write_compiled(tmp_path / "c_edgetpu.tflite"))
    assert outcome.case is Case.REFUSED
    assert "Encountered unresolved custom op: edgetpu-custom-op" in outcome.explanation


AS_AUTO = "import sys; sys.path.insert(0, {root!r}); import contract.delegate as d; d.EDGE_TPU_LIBRARIES = dict.fromkeys(['Linux', 'Darwin'], {library!r}); from edge.classification.classify import classify; classify()"  # noqa: E501


@pytest.mark.parametrize("name", ["nodevice", "segfaults", "foreign"])
def test_auto_carries_on_with_the_cpu_and_says_so(name: str, red: Path, labels: Path, stubs: Path, tmp_path: Path) -> None:
    library = str(stubs / f"lib{name}.so")
    program = AS_AUTO.format(root=str(ROOT), library=library)
    words = ["-m", graphs.write_colors(tmp_path / "c.tflite"), "-i", red, "-l", labels]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, said(done)) == (0, [*two_lines(name, library), "Running on the CPU."])
    assert done.stdout.splitlines()[-1] == "red: 1.00000"


def test_without_litert_the_command_that_installs_it_is_named(red: Path, tmp_path: Path) -> None:
    hidden = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.modules['ai_edge_litert'] = None\n"
        "from contract.errors import BerthError\nfrom edge.classification.classify import classify\n"
        "try: classify(standalone_mode=False)\nexcept BerthError as error: sys.exit(error.message)"
    )
    words = ["-m", graphs.write_colors(tmp_path / "c.tflite"), "-i", red]
    done = subprocess.run([sys.executable, "-c", hidden, *words], capture_output=True, text=True, check=False)
    assert done.stderr == (
        "ai_edge_litert isn't installed, which this needs. Run `.ci/venv .venv edge` and call .venv/bin/python.\n"
    )


# What the documentation promises


def test_the_documentation_has_the_exact_text_of_every_case() -> None:
    page = (ROOT / "docs" / "coral.md").read_text()
    told = {
        Case.NO_LIBRARY: "cannot open shared object file: No such file or directory",
        Case.NOT_A_DELEGATE: "undefined symbol: tflite_plugin_create_delegate",
        Case.NO_DEVICE: "",
        Case.NO_DELEGATE: "",
        Case.REFUSED: "Encountered unresolved custom op",
        Case.CRASHED: "SIGSEGV",
        Case.HUNG: "no answer in 30 s",
    }
    steps = {Case.CRASHED: "it was given the model", Case.HUNG: "it looked for its device"}
    for case, words in told.items():
        outcome = Outcome(case, "libedgetpu.so.1", "bird_edgetpu.tflite", words, steps.get(case, ""))
        assert f"| {outcome.explanation.replace(chr(10), '<br>')} |" in page
    assert {*told, Case.READY, Case.NO_RUNTIME} == set(Case)


def test_the_documentation_has_every_option_of_classify() -> None:
    page = (ROOT / "docs" / "coral.md").read_text()
    named = {word for option in classify.params for word in option.opts}
    assert named == {word for word in named if f"`{word}`" in page}
