"""`doctor`: each cause is told from what was seen, and from real containers with one fault each."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from ahead import ahead, beside, scratch
from ailing import CONTAINERS, DOCKERFILE, Ailing
from conftest import ROOT, docker_client
from observed import MADE, ended, job, ready, unready

from local_test import procfs
from local_test.doctor import add_arguments, doctor, report, unpack
from local_test.doctor.causes import CAUSES, diagnose
from local_test.doctor.observations import Answer, Observations
from local_test.doctor.watch import written
from local_test.doctor.watching import watch_serving, watch_training
from local_test.emulator import lay_out
from local_test.procfs import Address
from local_test.runners import Containers

BASE = "berth-ailing:base"
AT_ONCE = 6


def names(seen: Observations) -> list[str]:
    """Return the causes that are told, in their order."""
    return [finding.cause.look.__name__ for finding in diagnose(seen)]


# ---- from what was seen


@pytest.mark.parametrize(("cause", "seen"), [(name, seen) for name, all_seen in MADE.items() for seen in all_seen])
def test_a_cause_is_told_first_where_it_is_seen(cause: str, seen: Observations) -> None:
    assert names(seen)[0] == cause


def test_every_cause_has_an_example_and_a_fix_and_there_are_twenty_at_least() -> None:
    assert [cause.look.__name__ for cause in CAUSES if cause.look.__name__ not in MADE] == []
    assert len({cause.name for cause in CAUSES}) == len(CAUSES) >= 20
    assert all(cause.name.endswith(".") and cause.fix.endswith(".") for cause in CAUSES)


@pytest.mark.parametrize(
    "seen",
    [
        ready(),
        ready(output="ImportError: no tensorflow, going on without\nKeyError: 'HOME' in os.environ\nPermission denied"),
        ready(model_files=("model/a", "model/b"), dead=("sh -c true",) * 9, without_route=3),
        ready(invoked=Answer(5, said="timed out")),
        ready(has_payload=True, architecture="amd64", user="1000"),
        job(code=0, artifacts=("model.json",), heeds_stop=True),
        Observations("train", exit_code=143, seconds=300, stop_s=0.2, stop_patience_s=120),
    ],
)
def test_nothing_is_told_of_what_is_sound(seen: Observations) -> None:
    assert names(seen) == []
    assert "Nothing wrong was found." in report(seen, [])


def test_what_says_little_is_told_after_what_is_certain() -> None:
    seen = ended("ModuleNotFoundError: No module named 'x'", written=("/x",), entrypoint=("/bin/sh", "-c", "serve"))
    assert names(seen) == ["shell_form", "import_error", "writes_elsewhere"]


def test_a_failure_is_explained_even_where_only_lesser_faults_were_seen() -> None:
    assert names(ended("the moon", written=("/x",))) == ["unexplained", "writes_elsewhere"]


def test_a_report_has_cause_rule_evidence_and_fix() -> None:
    seen = unready(listeners=frozenset({Address("0.0.0.0", 5000)}))
    text = report(seen, diagnose(seen))
    assert "serve: not ready after 60 s" in text
    assert "1. It listens on another port. (H-2)" in text
    assert "seen: it listens on 0.0.0.0:5000; requests come to port 8080" in text
    assert "do: Listen on 8080" in text


def test_only_files_outside_scratch_count_as_written() -> None:
    scratch = ["C /tmp", "A /tmp/a", "C /run", "A /run/nginx.pid", "C /app", "A /app/__pycache__", "A /app/__pycache__/a.pyc"]
    assert written("\n".join(["C /var", "C /var/lib", "A /var/lib/x", *scratch])) == ("/var/lib/x",)


def test_a_process_that_ended_and_was_not_waited_for_does_not_run() -> None:
    with subprocess.Popen(["sleep", "0.3"]) as process:
        assert procfs.is_running(process.pid)
        assert procfs.family(process.pid) == [process.pid]
        time.sleep(0.6)
        assert Path(f"/proc/{process.pid}").exists()
        assert not procfs.is_running(process.pid)


def test_only_sockets_of_the_named_processes_are_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, subprocess.Popen(["sleep", "5"]) as other:
        here = Address("127.0.0.1", server.getsockname()[1])
        assert here in procfs.listening(os.getpid()) & procfs.listening(os.getpid(), [os.getpid()])
        assert procfs.listening(os.getpid(), [other.pid]) == frozenset()
        other.kill()


def test_a_handler_of_a_signal_is_seen() -> None:
    handles = "import signal, time; signal.signal(15, print); print('set', flush=True); time.sleep(9)"
    with subprocess.Popen([sys.executable, "-c", handles], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"set\n"
        assert (procfs.heeds(process.pid, signal.SIGTERM), procfs.heeds(process.pid, signal.SIGHUP)) == (True, False)
        process.kill()
    assert procfs.heeds(0, signal.SIGTERM) is None


def test_links_are_left_out_of_a_model_and_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").symlink_to("/etc/passwd")
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a", "a")
        archive.add(tmp_path / "b", "b")
    assert unpack(tmp_path / "model.tar.gz", tmp_path / "model") == (("b -> /etc/passwd",), "")
    assert [file.name for file in (tmp_path / "model").iterdir()] == ["a"]


def test_an_archive_that_is_none_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").write_text("no archive")
    assert unpack(tmp_path / "model.tar.gz", tmp_path)[1].startswith("model.tar.gz: ")


# ---- from containers


@ahead
def ailing_base() -> str:
    """An image with Python and servers, without a program of ours."""
    docker, folder = docker_client(), scratch()
    (folder / "Dockerfile").write_text(DOCKERFILE)
    done = beside([docker, "build", "--tag", BASE, folder], ROOT)
    assert done.returncode == 0, done.stdout[-4000:]
    return BASE


def watched(docker: str, name: str, ailing: Ailing, folder: Path) -> Observations:
    """Start a container with a fault and return what was seen."""
    folder.mkdir()
    options = ailing.options
    if ailing.program is not None:
        file = folder / ailing.word
        file.write_bytes(ailing.program if isinstance(ailing.program, bytes) else ailing.program.encode())
        file.chmod(ailing.mode)
        options += ("--volume", f"{file}:/usr/local/bin/{ailing.word}:ro")
    image = BASE
    if ailing.entrypoint:
        image = f"berth-ailing:{ailing.cause.replace('_', '-')}"
        text = f"FROM {BASE}\n{ailing.entrypoint}\n"
        subprocess.run([docker, "build", "--quiet", "--tag", image, "-"], input=text.encode(), capture_output=True, check=True)
    platform = Containers(image, docker, options)
    if ailing.word == "train":
        (folder / "data").mkdir()
        lay_out(folder / "ml", {"training": folder / "data"}, {"epochs": "3"})
        return watch_training(platform, folder / "ml", {}, ailing.patience_s, "training")
    for path in ailing.model:
        (folder / "model" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "model" / path).write_text("{}")
    return watch_serving(platform, folder / "model", {}, ailing.patience_s)


@pytest.fixture(scope="module")
def seen_of(
    docker: str, ailing_base: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Observations]]:
    """A function: what was seen of a container; those that the session asks for are watched side by side."""
    folder = tmp_path_factory.mktemp("ailing")
    asked = [item.callspec.params["name"] for item in request.session.items if item.name.startswith("test_a_container[")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun: dict[str, Future[Observations]] = {
            name: pool.submit(watched, docker, name, CONTAINERS[name], folder / str(number))
            for number, name in enumerate(asked)
        }
        yield lambda name: begun[name].result()
        pool.shutdown(cancel_futures=True)
    images = subprocess.run(
        [docker, "images", "--quiet", "--filter", "reference=berth-ailing:*-*"], capture_output=True, text=True
    )
    subprocess.run([docker, "rmi", "--force", *images.stdout.split()], capture_output=True, check=False)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container(name: str, seen_of: Callable[[str], Observations]) -> None:
    """The fault is told first, and nothing else is but what follows from it."""
    seen, ailing = seen_of(name), CONTAINERS[name]
    told = names(seen)
    assert told[:1] == ([ailing.cause] if ailing.cause else []), report(seen, diagnose(seen)) + seen.output
    assert set(told) <= {ailing.cause} | ailing.also, report(seen, diagnose(seen)) + seen.output


def test_a_container_is_watched_where_its_processes_cannot_be_seen(docker, ailing_base, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        "local_test.doctor.watch._first_process", lambda docker, name: 0
    )  # as where the engine has its own machine
    seen = watched(docker, "sound", CONTAINERS["a sound server"], tmp_path / "sound")
    assert (seen.listeners, seen.memory, names(seen)) == (None, None, [])
    assert "where it listens can't be seen from here" in report(seen, [])


def given(*words: str | Path) -> argparse.Namespace:
    """What the command line gives."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


@pytest.fixture(scope="module")
def model_tar(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model as the platform keeps it."""
    path = tmp_path_factory.mktemp("archive") / "model.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(model_dir, ".")
    return path


def test_nothing_is_found_wrong_with_this_source_tree_as_processes(model_tar: Path, capsys) -> None:
    assert doctor(given("--model", model_tar)) == 0
    said = capsys.readouterr().out
    assert "Nothing wrong was found." in said
    assert "serve: ready after" in said


def test_a_source_tree_without_a_model_is_told_so(capsys) -> None:
    assert doctor(given("--start-seconds", "30")) == 1
    assert "1. A file of the model is missing." in capsys.readouterr().out


@pytest.mark.usefixtures("docker")
def test_nothing_is_found_wrong_with_our_image_within_40_s(image: str, model_tar: Path, capsys) -> None:
    started = time.monotonic()
    found = doctor(given(image, "--model", model_tar))
    said = capsys.readouterr().out
    assert found == 0, said
    assert "Nothing wrong was found." in said
    assert time.monotonic() - started < 40
