"""What `make soak` measures of a server when things go wrong, here small: docs/measured.md has it at length."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from ahead import ahead
from conftest import docker_client

from local_test import outcomes
from local_test.soak.hosting import body_memory
from local_test.soak.sections import container_start, image_parts, start_up


@pytest.fixture
def base(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained /opt/ml, to be spoilt."""
    return Path(shutil.copytree(trained, tmp_path / "ml"))


def test_a_stop_under_load_cuts_no_answer(base: Path) -> None:
    _, said = outcomes.stop_under_load(base, 0.5)
    assert re.match(r"[\d,]+ answered 200, 0 answers cut; gone after \d+\.\d s with exit code 0$", said)


def test_a_killed_worker_loses_at_most_what_it_held(base: Path) -> None:
    _, said = outcomes.kill_worker(base, 0.5)
    lost, held = re.search(r"(\d+) lost of at most (\d+) held", said).groups()
    assert int(lost) <= int(held)


def test_deleted_model_files_disturb_nobody(base: Path) -> None:
    assert re.match(r"[\d,]+ x 200; /ping 200", outcomes.model_deleted(base, 0.5)[1])


def test_a_jump_of_the_wall_clock_disturbs_nobody(base: Path) -> None:
    assert re.match(r"[\d,]+ x 200; the same workers$", outcomes.clock_jump(base, 0.5)[1])


def test_silent_sockets_disturb_nobody(base: Path) -> None:
    assert "300 silent connections open" in outcomes.open_sockets(base, 300)[1]


def test_a_full_disk_disturbs_nobody(base: Path, image: str, docker: str) -> None:
    assert outcomes.full_disk(base, image, docker)[1] == "no room; 100 x 200; /metrics 200"


def test_a_large_body_costs_a_small_multiple_of_itself(base: Path) -> None:
    """At most what `/execution-parameters` counts with (serving/platforms/sagemaker.py)."""
    from serving.platforms.sagemaker import BODY_TIMES

    assert max(body_memory(base, 8).values()) < BODY_TIMES


def test_the_start_is_measured_step_by_step(base: Path) -> None:
    table = start_up(base, 1)
    assert len(re.findall(r"^\| ([^|*]+) \| (\d+) \|", table, re.MULTILINE)) == 9
    assert int(re.search(r"\*\*(\d+)\*\*", table)[1]) > 0


@ahead
def measured_image(trained: Path, image: str) -> tuple[str, str]:
    """The start of the image, and the parts of its base: all of it takes half a minute to compress, and `make soak` does.

    How large the whole is in a registry, test_container.py holds.
    """
    docker = docker_client()
    base = os.environ.get("BASE_IMAGE", "debian:trixie-slim")
    return container_start(trained / "model", image, docker, 1), image_parts(base, docker)


def test_container_and_image_are_measured(measured_image: tuple[str, str]) -> None:
    start, parts = measured_image
    assert "| as root |" in start
    assert "**all, compressed layer by layer (gzip)**" in parts
