"""The rehearsal of the whole way: what it goes through, how it ends where a step fails, and that nothing outlives it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from ahead import ahead, beside, scratch
from cloudy import make_endpoint, ring
from conftest import ROOT, docker_client, long, registry_program

from local_test.rehearsal import __main__ as command
from local_test.rehearsal import online
from local_test.rehearsal.programs import StepFailed, started
from local_test.rehearsal.remains import remains
from local_test.rehearsal.stage import PROJECT, Model, Stage, stage
from local_test.rehearsal.steps import STEPS

REHEARSAL = (sys.executable, "-m", "local_test.rehearsal")
LEFT_OUT = ("build", "scan", "conformance", "local-mode")
"""Of the short form: minutes, and findings that the day brings and not the code."""
SHORT = [word for name in LEFT_OUT for word in ("--without", name)]
IN_ALL_S = 600


@ahead
def rehearsed(image: str) -> dict:
    """What the short form wrote down."""
    registry_program()
    file = scratch() / "rehearsal.json"
    done = beside([*REHEARSAL, "--image", image, *SHORT, "--json", file], ROOT)
    assert done.returncode == 0, done.stdout[-6000:]
    return json.loads(file.read_text())


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for temporary files; a Docker engine and a registry's program are there."""
    registry_program()
    docker_client()
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))  # of this process alone: pieces run beside
    return folder


def test_an_image_goes_all_the_way_to_an_endpoint_and_back(rehearsed: dict) -> None:
    assert [step["step"] for step in rehearsed["steps"]] == [name for name, _ in STEPS if name not in LEFT_OUT]
    assert all(step["right"] for step in rehearsed["steps"])


def test_the_table_says_what_was_left_out(rehearsed: dict) -> None:
    said = {step["step"]: step["said"] for step in rehearsed["steps"]}
    assert said["push"].endswith("not judged by the platforms' rules")
    assert said["train and serve here"].endswith("not by the SDK's local mode")


def test_every_layer_in_the_registry_is_the_images(rehearsed: dict) -> None:
    (said,) = [step["said"] for step in rehearsed["steps"] if step["step"] == "pull by digest"]
    assert re.fullmatch("the image that was built; its [1-9][0-9]* layers in the registry are the same byte for byte", said)


@long
def test_the_whole_takes_less_than_ten_minutes(tmp_path: Path) -> None:
    registry_program()
    docker_client()
    file = tmp_path / "rehearsal.json"
    done = beside(["make", "rehearse", f"ARGS=--json {file}"], ROOT)
    assert done.returncode == 0, done.stdout[-6000:]
    told = json.loads(file.read_text())
    assert [step["step"] for step in told["steps"]] == [name for name, _ in STEPS]
    assert told["seconds"] < IN_ALL_S


def test_it_ends_at_the_first_step_that_fails_and_says_why(alone: Path, tmp_path: Path) -> None:
    file = tmp_path / "rehearsal.json"
    words = [*REHEARSAL, "--image", "berth-rehearsal:missing", *SHORT, "--json", str(file)]
    environ = {**os.environ, "TMPDIR": str(alone)}
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    told = json.loads(file.read_text())
    assert [(step["step"], step["right"]) for step in told["steps"]] == [("roles", True), ("preflight", True), ("push", False)]
    assert "No such image: berth-rehearsal:missing" in done.stderr
    assert "FAILED" in done.stdout.splitlines()[-2]
    assert list(alone.iterdir()) == []


def test_a_rehearsal_that_is_stopped_leaves_nothing(alone: Path) -> None:
    words = [*REHEARSAL, "--image", "berth-rehearsal:missing", *SHORT]
    environ, streams = {**os.environ, "TMPDIR": str(alone)}, {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(words, cwd=ROOT, env=environ, text=True, **streams) as running:
        assert running.stderr
        while "preflight" not in running.stderr.readline():
            assert running.poll() is None
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(running.pid)], capture_output=True, text=True)
        running.send_signal(signal.SIGTERM)
        assert running.wait(90) == 128 + signal.SIGTERM
    assert children.stdout.split()
    assert not [pid for pid in children.stdout.split() if is_alive(int(pid))]
    assert list(alone.iterdir()) == []


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def played(alone: Path) -> Iterator[Stage]:
    with stage("berth-rehearsal:missing", frozenset()) as running:
        yield running


def test_the_registry_and_the_stand_in_end_with_the_stage(alone: Path) -> None:
    addresses = []
    with suppress(KeyboardInterrupt), stage("berth-rehearsal:missing", frozenset()) as played:
        registry = played.aws.client("ecr").create_repository(repositoryName="held")["repository"]["repositoryUri"]
        urlopen(f"http://{registry.partition('/')[0]}/v2/", timeout=5).close()
        addresses += [played.aws.url, f"http://{registry.partition('/')[0]}/v2/"]
        raise KeyboardInterrupt
    assert len(addresses) == 2
    for address in addresses:
        with pytest.raises(URLError):
            urlopen(address, timeout=5)
    assert list(alone.iterdir()) == []


@pytest.mark.parametrize("pulled", [False, True], ids=["pushed", "pulled by digest"])
def test_the_engine_forgets_all_names_that_the_image_had_in_the_registry(alone: Path, pulled: bool) -> None:
    docker = docker_client()
    subprocess.run([docker, "import", "-", "berth-rehearsal:tiny"], input=bytes(1024), capture_output=True, check=True)
    try:
        with stage("berth-rehearsal:tiny", frozenset()) as played:
            name = f"{played.registry}/{PROJECT}"
            played.engine("tag", "berth-rehearsal:tiny", f"{name}:1")
            digest = played.engine("push", f"{name}:1").partition("sha256:")[2].split()[0]
            if pulled:
                played.engine("image", "rm", f"{name}:1")
                played.engine("pull", f"{name}@sha256:{digest}")
            assert named_in(docker, name) == {f"{name}:{'<none>' if pulled else '1'}"}
        assert named_in(docker, name) == set()
        assert named_in(docker, "berth-rehearsal:tiny")
    finally:
        subprocess.run([docker, "image", "rm", "berth-rehearsal:tiny"], capture_output=True, check=False)


def named_in(docker: str, name: str) -> set[str]:
    asked = [docker, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", name]
    return {*subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()}


def test_a_verb_sees_the_stand_in_and_nothing_of_the_callers_settings(played: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("BERTH_IMAGE_URI", "elsewhere@sha256:" + "a" * 64)
    monkeypatch.setenv("MAKEFLAGS", "-n")
    assert {"AWS_PROFILE", "BERTH_IMAGE_URI", "MAKEFLAGS"}.isdisjoint(played.environ)
    assert played.environ["AWS_ENDPOINT_URL"] == played.aws.url


def test_a_login_is_kept_where_only_the_rehearsal_sees_it(played: Stage) -> None:
    said = played.run([sys.executable, "-c", "import os; print(os.environ['DOCKER_CONFIG'], os.environ['DOCKER_HOST'])"]).stdout
    config, host = said.split()
    assert config == str(played.folder / "docker")
    assert "://" in host


def test_a_program_that_ends_otherwise_is_shown_with_the_end_of_its_output(tmp_path: Path) -> None:
    with started(["sh", "-c", "seq 100; echo why >&2; exit 3"], os.environ, tmp_path) as running:
        ran = running.wait(20)
    with pytest.raises(StepFailed, match="ended with status 3; 0 was expected") as failed:
        ran.expect(0)
    assert str(failed.value).endswith("  | 100\n  | why")
    assert "  | 50\n" not in str(failed.value)


def test_a_program_that_takes_too_long_is_said_to_and_stopped_with_what_it_started(tmp_path: Path) -> None:
    script = "echo counting; sleep 600 & echo $! > child.new; mv child.new child; wait"
    with started(["sh", "-c", script], os.environ, tmp_path) as running:
        appears(tmp_path / "child")
        with pytest.raises(StepFailed, match="had not ended after 0 s:\ncounting"):
            running.wait(0)
    assert not is_alive(int((tmp_path / "child").read_text()))


def test_a_program_is_stopped_only_when_what_it_started_has_cleared_up(tmp_path: Path) -> None:
    slow = "trap 'sleep 0.3; touch cleared; exit' TERM; touch ready; while :; do sleep 0.05; done"
    with started(["sh", "-c", f'sh -c "{slow}" & wait'], os.environ, tmp_path):
        appears(tmp_path / "ready")
    assert (tmp_path / "cleared").exists()


def appears(file: Path) -> None:
    until = time.monotonic() + 20
    while not file.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_what_remains_is_named_whether_it_is_tagged_or_not(aws) -> None:
    assert remains(aws, PROJECT) == []
    make_endpoint(aws, "left")
    ring(aws, name="left-alarm")
    aws.client("logs").create_log_group(logGroupName="/aws/sagemaker/Endpoints/left", tags={"berth:project": PROJECT})
    found = "\n".join(remains(aws, PROJECT))
    for words in ("Endpoints left", "EndpointConfigs left", "Models left", "MetricAlarms left-alarm", "Buckets berth-test"):
        assert words in found
    assert "log group /aws/sagemaker/Endpoints/left" in found
    assert "tagged: arn:aws:logs" in found


@pytest.mark.parametrize(
    "answer", ["24.1\n", "24.1\n9.0\n", "nothing\nlike\n", ""], ids=["short", "wrong", "no numbers", "empty"]
)
def test_predictions_other_than_the_manifests_end_the_step(answer: str) -> None:
    model = Model(b"", {"samples": [{"prediction": 24.1}, {"prediction": 8.0}]})
    online._check(model, "24.1\n8.0\n", "the endpoint")
    with pytest.raises(StepFailed, match="the endpoint"):
        online._check(model, answer, "the endpoint")


def test_a_step_that_raises_whatever_it_may_is_a_step_that_failed() -> None:
    def broken(_: object) -> str:
        raise ZeroDivisionError("by zero")

    assert command._taken(None, "odd", broken).said == "ZeroDivisionError: by zero"
