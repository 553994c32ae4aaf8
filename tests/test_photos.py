"""The demo model of image classification: its weights, its graph, its integers, and what it says of photos."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import ROOT, long

from contract.errors import BadArtifact, ExportFailed, MissingLibrary
from edge.libraries import folder_of, library
from edge.photos import quantize as quantizer
from edge.photos.command import FIGURES, FLOAT, INT8, LABELS, WEIGHTS, build, label_names
from edge.photos.graph import Graph, fold
from edge.photos.quantize import quantize
from edge.photos.shipped import JUDGED, crop, find_photo
from edge.photos.weights import MAGIC, PROTOCOL, read_weights


def edge(*words):
    """Run a verb as a person does."""
    return subprocess.run([sys.executable, "-m", "edge", *map(str, words)], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder that `photos` wrote, and what it said."""
    folder = tmp_path_factory.mktemp("photos")
    done = edge("photos", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def figures(built):
    return json.loads((built[0] / FIGURES).read_text())["models"]


@pytest.mark.parametrize("name", [FLOAT, INT8])
def test_seven_of_eight_photos_are_right_at_once_and_all_in_five_guesses(figures, name):
    middle = figures[name]["middle"]
    assert (middle["judged"], middle["top_1"], middle["top_5"]) == (8, 7, 8)


def test_int8_names_what_float_names_with_a_like_score(figures):
    for way in ("middle", "stretched"):
        for file, wide in figures[FLOAT][way]["photos"].items():
            small = figures[INT8][way]["photos"][file]
            assert small["label"] == wide["label"]
            assert small["score"] == pytest.approx(wide["score"], abs=0.1)


def test_the_scores_are_those_that_were_measured(figures):
    scores = {file: found["score"] for file, found in figures[FLOAT]["middle"]["photos"].items()}
    assert scores["coffee.png"] == pytest.approx(0.951, abs=0.005)
    assert scores["flower.jpg"] == pytest.approx(0.350, abs=0.005)


def test_it_says_what_it_built_and_how_good_that_is(built, figures):
    folder, said = built
    assert f"{folder / INT8}: {figures[INT8]['size_bytes']:,} bytes" in said
    assert "7 of 8 right at once, 8 in five guesses" in said
    assert figures[INT8]["size_bytes"] == (folder / INT8).stat().st_size < 5_500_000


def test_classify_names_an_espresso_by_the_labels_that_the_model_carries(built):
    photo = find_photo("skimage", "coffee.png")
    done = edge("classify", "-m", built[0] / INT8, "-i", photo, "--delegate", "none", "-k", 2)
    assert done.returncode == 0, done.stderr
    assert "\nespresso: 0." in done.stdout
    assert zipfile.ZipFile(built[0] / INT8).namelist() == [LABELS]


def test_the_edge_tpu_takes_every_operator_of_it(built):
    done = edge("check", built[0] / INT8)
    assert done.returncode == 0, done.stderr
    assert "Vela" in done.stdout
    assert "CPU" not in done.stdout.partition("Vela")[0]


def test_every_class_that_is_right_for_a_photo_is_one_of_the_labels(built):
    names = (built[0] / LABELS).read_text().splitlines()
    assert names == label_names()
    assert len(names) == 1_000
    assert {name for photo in JUDGED for name in photo.classes} <= set(names)


@long
def test_a_second_build_gives_the_same_bytes():
    assert build() == build()


# ---- the weights


def torch_file(path, state):
    """Write a file as PyTorch did before 1.6, with what the pickle of `state` says and no storage."""
    with path.open("wb") as file:
        for part in (MAGIC, PROTOCOL, {}):
            pickle.dump(part, file, protocol=2)
        file.write(state)
        pickle.dump([], file, protocol=2)
    return path


def test_a_file_that_names_anything_but_tensors_is_refused_and_nothing_of_it_runs(tmp_path):
    spared = tmp_path / "spared"
    spared.touch()
    evil = f"cos\nremove\n(V{spared}\ntR.".encode()
    with pytest.raises(BadArtifact, match=r"os\.remove is neither a tensor nor a dictionary"):
        read_weights(torch_file(tmp_path / "evil.pth", evil))
    assert spared.exists()


def test_a_file_that_is_cut_short_or_no_weights_at_all_is_told(tmp_path):
    whole = (folder_of(WEIGHTS[0]) / WEIGHTS[1]).read_bytes()
    for content in (b"", b"GIF89a", whole[:1_000], whole[:-1_000_000], pickle.dumps(1)):
        (tmp_path / "weights.pth").write_bytes(content)
        with pytest.raises(BadArtifact, match="Install the pinned package anew"):
            read_weights(tmp_path / "weights.pth")


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
    reaching = (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02NtQK\x00K\x09\x85K\x01\x85\x89}tRs."
    )
    with pytest.raises(BadArtifact, match="reaches beyond its storage"):
        read_weights(torch_file(tmp_path / "reaching.pth", reaching))


# ---- the graph and its integers


def test_a_convolution_with_its_normalization_folded_in_is_the_two_in_turn(tmp_path):
    random = np.random.default_rng(0)
    weights = {
        "c.weight": random.normal(size=(4, 3, 1, 1)),
        "n.weight": random.uniform(0.5, 2, 4),
        "n.bias": random.normal(size=4),
        "n.running_mean": random.normal(size=4),
        "n.running_var": random.uniform(0.5, 2, 4),
    }
    pixel = random.normal(size=3)
    kernel, bias = fold(weights, "c", "n")
    plain = weights["c.weight"][:, :, 0, 0] @ pixel
    normal = (plain - weights["n.running_mean"]) / np.sqrt(weights["n.running_var"] + 1e-3)
    assert kernel[:, :, 0, 0] @ pixel + bias == pytest.approx(normal * weights["n.weight"] + weights["n.bias"])


def small_model():
    """A dense layer and a softmax."""
    graph = Graph()
    graph.inputs = [graph.add_tensor("input", (1, 4))]
    dense = graph.connect(graph.inputs[0], np.eye(3, 4, dtype=np.float32), np.zeros(3, dtype=np.float32))
    graph.outputs = [graph.soften(dense)]
    return graph.write()


def test_a_graph_that_was_written_is_computed_by_litert_as_by_hand():
    interpreter = library("ai_edge_litert.interpreter").Interpreter(model_content=small_model())
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.float32([[1, 2, 3, 9]]))
    interpreter.invoke()
    powers = np.exp([1.0, 2.0, 3.0])
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
    assert found == pytest.approx(powers / powers.sum(), rel=1e-5)


def test_a_quantizer_that_this_version_of_the_library_has_not_is_told_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(quantizer, "MODULE", "ai_edge_litert.gone")
    with pytest.raises(MissingLibrary, match=r"2\.3\.0 has it, in a private module. Run `\.ci/venv \.venv export`"):
        quantize(small_model(), [])


def test_a_quantizer_that_takes_other_arguments_is_told_and_not_shown_as_a_bug(monkeypatch):
    class Other:
        CalibrationWrapper = staticmethod(lambda model: None)

    monkeypatch.setattr(quantizer, "_calibration", lambda: Other)
    with pytest.raises(ExportFailed, match="private to that library"):
        quantize(small_model(), [])


def test_a_photo_is_cut_where_it_was_asked(tmp_path):
    path = tmp_path / "photo.png"
    pixels = np.zeros((100, 200, 3), dtype=np.uint8)
    pixels[:, 100:] = 255
    library("PIL.Image").fromarray(pixels).save(path)
    assert crop(path, 1.0, across=0.0).max() == 0
    assert crop(path, 1.0, across=1.0).min() == 255
    assert crop(path).mean() == pytest.approx(127.5, abs=2)
