"""What many tests share. What a machine lacks is skipped aloud, or fails under REQUIRE_ALL=1."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "model" / "sample"
sys.path.insert(0, str(ROOT))

from contract.declaration import Declaration, Feature, Target  # noqa: E402
from local_test.emulator import Endpoint, lay_out, serving, train  # noqa: E402
from local_test.runners import Processes  # noqa: E402
from model import DECLARATION  # noqa: E402

MIXED = Declaration(
    name="mixed",
    title="",
    about="",
    features=(
        Feature("N", "needed"),
        Feature("M", "may be missing", nullable=True),
        Feature("C", "a category", kind="category", choices=("0", "1", "NA")),
        Feature("D", "a category that may be missing", kind="category", choices=("red", "dark blue"), nullable=True),
    ),
    target=Target("T", "a class", kind="class", labels=("no", "yes")),
    hyperparameters=DECLARATION.hyperparameters,
)
"""Four features of every kind, and a class."""


def lacking(what: str) -> NoReturn:
    """Skip and say why; where everything is required, fail."""
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(f"REQUIRE_ALL=1, but {what}")
    pytest.skip(what)


long = pytest.mark.skipif(os.environ.get("LONG") != "1", reason="a long proof: `make soak` runs it")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An /opt/ml with the default model, trained on the sample."""
    base = tmp_path_factory.mktemp("trained") / "ml"
    lay_out(base, {"training": SAMPLE})
    outcome = train(Processes(), base)
    assert outcome.exit_code == 0, outcome.output
    return base


@pytest.fixture(scope="session")
def model_dir(trained: Path) -> Path:
    """The model directory of `trained`."""
    return trained / "model"


@pytest.fixture(scope="session")
def manifest(model_dir: Path) -> dict:
    """The manifest of `trained`, as JSON types."""
    return json.loads((model_dir / "manifest.json").read_text())


@pytest.fixture(scope="session")
def endpoint(trained: Path) -> Iterator[Endpoint]:
    """A server of the default model, with two workers."""
    with serving(Processes(), trained, {"SAGEMAKER_MODEL_SERVER_WORKERS": "2"}) as running:
        yield running


@pytest.fixture(scope="session")
def docker() -> str:
    """The Docker client that answers and can build."""
    client = shutil.which("docker")
    if client is None:
        lacking("there is no docker client")
    if subprocess.run([client, "info"], capture_output=True, check=False).returncode:
        lacking("no Docker engine answers")
    return client


@pytest.fixture(scope="session")
def image(docker: str) -> str:
    """The tag of the image, built from this tree."""
    done = subprocess.run(["make", "image", "IMAGE=berth:test"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return "berth:test"


@pytest.fixture(scope="session")
def sdk_python(docker: str):
    """A function: the Python of an environment with one generation of the SageMaker SDK, made at its first use."""

    def python(section: str) -> Path:
        folder = ROOT / f".venv-{section}"
        subprocess.run([sys.executable, ROOT / ".ci" / "venv", folder, section], check=True)
        return folder / "bin" / "python"

    return python
