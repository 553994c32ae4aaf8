"""The conditions that platforms run a container under: serverless (H-33), Kubernetes (C-2), SageMaker (H-3, H-4)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from local_test.emulator import serving
from local_test.payloads import parquet_body
from local_test.runners import Containers

GOOD = b"0,6.575,296,15.3,396.9,4.98"
READ_ONLY = ("--read-only", "--tmpfs", "/tmp")
PROFILES = {
    "SageMaker: root, its own disk": (),
    "serverless: no shared memory, any user, 1 GB, one CPU": (
        "--ipc=none",
        "--user=4321:4321",
        "--memory=1g",
        "--cpus=1",
        *READ_ONLY,
    ),
    "Kubernetes, restricted": ("--user=1000", "--cap-drop=ALL", "--security-opt=no-new-privileges", *READ_ONLY),
    "root without capabilities": ("--cap-drop=ALL", *READ_ONLY),
    "a tenth of a CPU": ("--cpus=0.1", *READ_ONLY),
    "256 MB": ("--memory=256m", *READ_ONLY),
}


@pytest.mark.parametrize("options", PROFILES.values(), ids=PROFILES.keys())
def test_the_image_serves_under(options: tuple[str, ...], docker: str, image: str, trained: Path, manifest: dict) -> None:
    with serving(Containers(image, docker, options), trained) as endpoint:
        reply = endpoint.invoke(GOOD)
        assert reply.status == 200, reply.text
        assert float(reply.body) > 0
        reply = endpoint.invoke(parquet_body(manifest), "application/x-parquet")  # by a process of its own
        assert reply.status == 200, reply.text
        assert endpoint.get("/metrics").status == 200
        assert endpoint.get("/").status == 200


def test_without_shared_memory_means_that_there_is_none(docker: str, image: str) -> None:
    """The profile above is only worth something if /dev/shm really can't be used."""
    write = "open('/dev/shm/x', 'w')"
    command = [docker, "run", "--rm", "--ipc=none", *READ_ONLY, "--user=4321", image, "python3", "-c", write]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "/dev/shm/x" in done.stderr


def test_one_cpu_and_little_memory_give_one_worker(docker: str, image: str, trained: Path) -> None:
    for limit in ("--cpus=1", "--memory=300m"):
        with serving(Containers(image, docker, (limit,)), trained) as endpoint:
            assert endpoint.program.output().count("Booting worker") == 1


def test_the_word_is_process_1_and_no_shell_stands_above_it(docker: str, image: str, trained: Path) -> None:
    """T-3: a signal reaches the program itself."""
    with serving(Containers(image, docker), trained) as endpoint:
        name = endpoint.program.name  # type: ignore[attr-defined]
        read = [docker, "exec", name, "cat", "/proc/1/cmdline"]
        first = subprocess.run(read, capture_output=True, text=True, check=True).stdout.split("\0")
    assert first[1].endswith("/serve")
