"""What many tests share. What a machine lacks is skipped aloud, or fails under REQUIRE_ALL=1."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import NoReturn

import pytest
from ahead import PIECES, ahead, begin, beside, end, kept, scratch, settle
from cloudy import aws, aws_alone, aws_and_registry, ecr_aws, registry  # noqa: F401 fixtures
from trees import lay_penguins

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "model" / "sample"
sys.path.insert(0, str(ROOT))
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as in `train`: threads that spin take the core of what runs beside

from contract.declaration import Declaration, Feature, Target  # noqa: E402
from local_test.emulator import Endpoint, lay_out, serving, train  # noqa: E402
from local_test.rehearsal.registry import registry as local_registry  # noqa: E402
from local_test.run import run  # noqa: E402
from local_test.runners import Processes  # noqa: E402
from model import DECLARATION  # noqa: E402

WAIT_S = 3_600
"""What a test may take that waits for pieces: each is bounded, but others come before it."""
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


@cache
def docker_client() -> str:
    """Return the Docker client; skip or fail where there is none, or no engine."""
    client = shutil.which("docker")
    if client is None:
        lacking("there is no docker client")
    if subprocess.run([client, "info"], env={**os.environ}, capture_output=True, check=False).returncode:
        lacking("no Docker engine answers")
    return client


@cache
def registry_program() -> str:
    """Return where docker-registry is; skip or fail where it is not. It is outside of PATH's reach once a test sets another."""
    path = os.pathsep.join([os.environ.get("PATH", ""), os.defpath, "/usr/local/bin"])
    return shutil.which("docker-registry", path=path) or lacking("there is no docker-registry")


@pytest.fixture(scope="session")
def coral() -> Path:
    """Coral's own models, labels and photo: not ours to ship, so that their lack is no fault, even where all is required."""
    found = Path(os.environ.get("BERTH_CORAL") or ROOT.parent / "shared" / "coral")
    if not (found / "parrot.jpg").is_file():
        pytest.skip(f"Coral's test data isn't here: there is no {found / 'parrot.jpg'}, or BERTH_CORAL names another folder")
    return found


long = pytest.mark.skipif(os.environ.get("LONG") != "1", reason="a long proof: `make soak` runs it")
timed = pytest.mark.timed
"""Of a test that holds seconds so near that nothing may run beside it: it comes last, and waits for all pieces."""


# Pieces that begin with the session.


@ahead
def trained() -> Path:
    """An /opt/ml with the default model, trained on the sample."""
    base = scratch() / "ml"
    lay_out(base, {"training": SAMPLE})
    outcome = train(Processes(), base)
    assert outcome.exit_code == 0, outcome.output
    return base


@ahead
def penguin_ml() -> Path:
    """An /opt/ml with a model of README's penguins: categories, missing cells, three classes."""
    tree, base = lay_penguins(scratch()), scratch() / "ml"
    lay_out(base, {"training": tree / "model" / "sample"})
    outcome = train(Processes(tree), base)
    assert outcome.exit_code == 0, outcome.output
    return base


@ahead
def image() -> str:
    """The tag of the image, built from this tree."""
    docker_client()
    done = beside(["make", "image", "IMAGE=berth:test"], ROOT)
    assert done.returncode == 0, done.stdout[-6000:]
    return "berth:test"


@ahead
def pushed_image(image: str) -> tuple[str, str]:
    """HOST:PORT of a registry that has the image, and its repository there.

    To pack its layers takes the engine half a minute; to another repository of the same registry they go unpacked.
    """
    docker, address = docker_client(), kept(local_registry(scratch(), registry_program()))
    name = f"{address}/berth:test"
    for words in (["tag", image, name], ["push", "--quiet", name], ["image", "rm", name]):
        done = beside([docker, *words], ROOT)
        assert done.returncode == 0, done.stdout[-6000:]
    return address, "berth"


@ahead
def sdk3_python() -> Path:
    """The Python of an environment with the SageMaker SDK 3.x."""
    docker_client()
    return environment("sdk3")


@ahead
def sdk2_python() -> Path:
    """The Python of an environment with the SageMaker SDK 2.x."""
    docker_client()
    return environment("sdk2")


def environment(section: str) -> Path:
    """Return the Python of an environment with a section of requirements.lock."""
    folder = ROOT / f".venv-{section}"
    done = beside([sys.executable, ROOT / ".ci" / "venv", folder, section], ROOT)
    assert done.returncode == 0, done.stdout[-6000:]
    return folder / "bin" / "python"


# What is made of them.


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
def penguins(penguin_ml: Path) -> Iterator[Endpoint]:
    """A server of the penguins' model, with one worker."""
    with serving(Processes(), penguin_ml, {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}) as running:
        yield running


@pytest.fixture(scope="session")
def main_job(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `make run` prints."""
    folder = tmp_path_factory.mktemp("run")
    with redirect_stdout(StringIO()) as said:
        assert run(Processes(), folder / "build" / "ml", SAMPLE, {}) == 0
    return said.getvalue().replace(f"{folder}/", "")


@pytest.fixture(scope="session")
def docker() -> str:
    """The Docker client that answers and can build."""
    return docker_client()


@pytest.fixture(scope="session")
def sdk_python(docker: str, sdk3_python: Path, sdk2_python: Path) -> Callable[[str], Path]:
    """A function: the Python of an environment with one generation of the SageMaker SDK.

    All pieces have ended by then: runs of local mode share a network, and see each other's containers.
    """
    settle()
    return {"sdk3": sdk3_python, "sdk2": sdk2_python}.__getitem__


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "timed: nothing may run beside it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests that want containers or other pieces late, as those are made meanwhile, and last what is timed."""
    late = {"docker", *PIECES} - {"trained", "penguin_ml"}
    for item in items:
        if is_timed(item) or not late.isdisjoint(fixtures(item)):
            item.add_marker(pytest.mark.timeout(WAIT_S))
    items.sort(key=lambda item: (is_timed(item), not late.isdisjoint(fixtures(item))))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin what the tests at hand will want, in their order."""
    for item in [] if session.config.option.collectonly else session.items:
        for name in fixtures(item):
            begin(name)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Have nothing run beside what is timed."""
    if is_timed(item):
        settle()


def pytest_unconfigure() -> None:
    """Leave nothing running."""
    end()


def fixtures(item: pytest.Item) -> list[str]:
    """Return the names of all fixtures that a test wants."""
    return getattr(item, "fixturenames", [])


def is_timed(item: pytest.Item) -> bool:
    """Say whether a test holds seconds."""
    return item.get_closest_marker("timed") is not None
