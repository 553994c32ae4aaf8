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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from local_test.jobs import TrainingJob
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
    uploaded of its checkpoints. `options` set File, FastFile or Pipe mode; `local_test.shards` runs it on several
    hosts.
    """
    numbers = itertools.count(1)

    def make(channels: Mapping[str, Path], hyperparameters: Mapping[str, str] | None = None, **fields: Any) -> TrainingJob:
        return TrainingJob(platform, tmp_path / f"job-{next(numbers)}", channels, hyperparameters or {}, **fields)

    return make
