"""README's "Make it yours", followed in copies of the tree: only `model/` changes, and everything follows."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest
from ahead import ahead, beside, scratch
from conftest import docker_client
from trees import copy_of_the_tree, lay_penguins

DIABETES = '''
"""The data: diabetes patients and how their disease went on."""

from contract.declaration import Feature, Target

NAME = "diabetes"
TITLE = "Diabetes progression"
ABOUT = "Progression of diabetes one year after ten measurements. Efron, Hastie, Johnstone and Tibshirani (2004)."

FEATURES = tuple(Feature(name, "Standardized measurement") for name in "age sex bmi bp s1 s2 s3 s4 s5 s6".split())

TARGET = Target("target", "Progression of the disease after one year")
'''
FOREIGN = ("housing", "MEDV", "LSTAT", "Boston")


def lay_diabetes(folder: Path) -> Path:
    """Make a tree of scikit-learn's diabetes patients: numbers alone."""
    from sklearn.datasets import load_diabetes

    tree = copy_of_the_tree(folder)
    (tree / "model" / "features.py").write_text(DIABETES)
    load_diabetes(as_frame=True).frame.to_csv(tree / "model" / "sample" / "diabetes.csv", index=False)
    return tree


@pytest.fixture(scope="module")
def penguins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_penguins(tmp_path_factory.mktemp("penguins"))


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_diabetes(tmp_path_factory.mktemp("diabetes"))


@pytest.fixture(params=["penguins", "diabetes"])
def tree(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def make(tree: Path, *arguments: str) -> str:
    done = beside(["make", *arguments], tree)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@cache
def made_run(tree: Path) -> str:
    """Return what `make run` printed; what it left is in build/ml."""
    return make(tree, "run")


def assert_speaks_of_itself(text: str) -> None:
    assert [word for word in FOREIGN if word.lower() in text.lower()] == []


def test_make_run_trains_and_serves_another_data_set(tree: Path) -> None:
    output = made_run(tree)
    assert "== All answered ==" in output
    assert_speaks_of_itself(output)
    assert_speaks_of_itself((tree / "build" / "ml" / "model" / "manifest.json").read_text())


def test_make_run_takes_a_model_of_two_features(tmp_path: Path) -> None:
    tree = lay_diabetes(tmp_path)
    (tree / "model" / "features.py").write_text(DIABETES.replace("age sex bmi bp s1 s2 s3 s4 s5 s6", "bmi bp"))
    output = make(tree, "run", "HYPERPARAMETERS=estimator=ridge")
    assert "== All answered ==" in output
    assert "< Row 1 has 3 values; the model takes 2: bmi, bp." in output


def test_penguins_are_told_apart_with_missing_cells_and_text_categories(penguins: Path) -> None:
    output = make(penguins, "run", "HYPERPARAMETERS=cv_folds=5")
    (accuracy,) = re.findall(r"metric cv:accuracy=([0-9.]+);", output)
    assert float(accuracy) > 0.95
    manifest = json.loads((penguins / "build" / "ml" / "model" / "manifest.json").read_text())
    assert manifest["labels"] == ["Adelie", "Chinstrap", "Gentoo"]
    assert manifest["ranges"]["sex"]["missing"] > 0


@pytest.mark.parametrize("estimator", ["random_forest", "ridge", "mlp", "lightgbm"])
def test_every_estimator_takes_categories_missing_cells_and_classes(penguins: Path, estimator: str) -> None:
    assert "== All answered ==" in make(penguins, "run", f"HYPERPARAMETERS=estimator={estimator}")


def test_pages_speak_of_the_new_data_alone(tree: Path) -> None:
    from local_test.emulator import serving
    from local_test.runners import Processes

    made_run(tree)
    with serving(Processes(tree), tree / "build" / "ml") as endpoint:
        pages = endpoint.get("/").text + endpoint.get("/metadata").text
    assert_speaks_of_itself(pages)


@dataclass(frozen=True)
class Containers:
    """What was printed where another data set was trained on and served in an image of its own."""

    run: str
    local_mode: str


def in_containers(lay: Callable[[Path], Path], tag: str, local_mode: Callable[[Path, str], str]) -> Containers:
    docker_client()
    tree = lay(scratch())
    make(tree, "image", f"IMAGE={tag}")
    return Containers(make(tree, "run-image", f"IMAGE={tag}"), local_mode(tree, tag))


def in_local_mode(tree: Path, tag: str) -> str:
    """Return what local mode printed, in both generations of the SDK."""
    return make(tree, "local-mode", f"IMAGE={tag}")


def in_one_local_mode(python: Path, tree: Path, tag: str) -> str:
    """The same in one generation: the other goes the same way with penguins, and with the numbers of the shipped data."""
    done = beside([python, "-m", "local_test.sdk.v2", "--image", tag, "--data", "model/sample"], tree)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@ahead
def penguins_in_containers() -> Containers:
    return in_containers(lay_penguins, "berth-penguins:test", in_local_mode)


@ahead
def diabetes_in_containers(sdk2_python: Path) -> Containers:
    is_long = os.environ.get("LONG") == "1"
    return in_containers(
        lay_diabetes, "berth-diabetes:test", in_local_mode if is_long else partial(in_one_local_mode, sdk2_python)
    )


@pytest.fixture(params=["penguins", "diabetes"])
def contained(request, image, sdk3_python, sdk2_python, penguins_in_containers, diabetes_in_containers) -> Containers:
    return {"penguins": penguins_in_containers, "diabetes": diabetes_in_containers}[request.param]


def test_the_image_trains_and_serves_another_data_set(contained: Containers) -> None:
    assert "== All answered ==" in contained.run
    assert_speaks_of_itself(contained.run)


def test_local_mode_trains_and_serves_another_data_set(contained: Containers) -> None:
    assert "transform" in contained.local_mode
    assert_speaks_of_itself(contained.local_mode)
