"""The platform's part as pytest fixtures, for tests of a container of your own.

Name the plugin in your conftest.py; tests then run the image that the variable IMAGE names, or the source tree without one:

    pytest_plugins = ["local_test.fixtures"]

    def test_an_interrupted_job_goes_on(training_job):
        job = training_job({"training": Path("data")}, {"epochs": "50"}, checkpoints=True)
        job.reclaim(after_s=5)
        assert "goes on after epoch" in job.run().output
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from local_test.emulator import Endpoint, serving
from local_test.emulator.asynchronous import AsyncEndpoint, serving_async
from local_test.emulator.frontend import FrontEnd, serving_models
from local_test.emulator.jobs import TrainingJob
from local_test.emulator.pipeline import Pipeline, Stage, serving_pipeline
from local_test.emulator.transform import Transformed, TransformJob, run_job
from local_test.runners import Containers, Platform, Processes

# Training


@pytest.fixture(scope="session")
def platform() -> Platform:
    """What runs `train` and `serve`: containers of the image IMAGE, else processes; define your own to choose otherwise."""
    image = os.environ.get("IMAGE")
    return Containers(image, os.environ.get("ENGINE", "docker")) if image else Processes()


@pytest.fixture
def training_job(platform: Platform, tmp_path: Path) -> Callable[..., TrainingJob]:
    """A function: a training job over channels, with hyperparameters and any other field of TrainingJob.

    `run` runs it to its end or stops it, `reclaim` takes its machine away; each start finds a fresh /opt/ml and what was
    uploaded of its checkpoints. `options` set File, FastFile or Pipe mode; `local_test.emulator.shards` runs it on several
    hosts.
    """
    numbers = itertools.count(1)

    def make(channels: Mapping[str, Path], hyperparameters: Mapping[str, str] | None = None, **fields: Any) -> TrainingJob:
        return TrainingJob(platform, tmp_path / f"job-{next(numbers)}", channels, hyperparameters or {}, **fields)

    return make


# Serving


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An /opt/ml whose `model` is served: what the variable MODEL names, a folder or a model.tar.gz; define your own otherwise.

    The folder of a training_job will do: `return job.base`.
    """
    model = os.environ.get("MODEL")
    if not model:
        pytest.fail("No model is named: set MODEL=model.tar.gz, or define a fixture `served` that returns an /opt/ml.")
    base = tmp_path_factory.mktemp("ml")
    if Path(model).is_dir():
        shutil.copytree(model, base / "model")
    else:
        shutil.unpack_archive(model, base / "model", filter="data")
    return base


@pytest.fixture
def endpoint(platform: Platform, served: Path) -> Iterator[Endpoint]:
    """A real-time endpoint: `ping`, `invoke` and `get` call it."""
    with serving(platform, served) as started:
        yield started


@pytest.fixture
def transform_job(platform: Platform, served: Path, tmp_path: Path) -> Callable[..., Transformed]:
    """A function: runs a batch transform job over a file or folder, with any field of TransformJob; returns how it ended."""
    numbers = itertools.count(1)

    def run(inputs: Path, **fields: Any) -> Transformed:
        return run_job(platform, served, TransformJob(**fields), inputs, tmp_path / f"transformed-{next(numbers)}")

    return run


@pytest.fixture
def multi_model_endpoint(platform: Platform, tmp_path: Path) -> Iterator[Callable[..., FrontEnd]]:
    """A function: a multi-model endpoint of target models and their folders; `invoke` asks one by its name."""
    numbers = itertools.count(1)
    with ExitStack() as started:

        def start(models: Mapping[str, Path], environ: Mapping[str, str] | None = None, *, keeps: bool = True) -> FrontEnd:
            base = tmp_path / f"models-{next(numbers)}"
            return started.enter_context(serving_models(platform, base, models, environ, keeps))

        yield start


@pytest.fixture
def async_endpoint(platform: Platform, served: Path, tmp_path: Path) -> Iterator[AsyncEndpoint]:
    """An asynchronous endpoint: `invoke` takes a request, `wait` of what it returns says whether there is an output."""
    with serving_async(platform, served, tmp_path / "outputs") as started:
        yield started


@pytest.fixture
def pipeline() -> Iterator[Callable[..., Pipeline]]:
    """A function: a serial pipeline of stages, each a platform and an /opt/ml; `invoke` sends a payload through."""
    with ExitStack() as started:
        yield lambda *stages: started.enter_context(serving_pipeline([Stage(*stage) for stage in stages]))
