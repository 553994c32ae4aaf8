"""The platform's part of training, played: spot, the uploader, Pipe and FastFile mode, several hosts, fixtures."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT

from local_test.emulator.checkpoints import Uploader
from local_test.emulator.jobs import TrainingJob
from local_test.emulator.shards import clashes, over_hosts, run_together, shard
from local_test.emulator.streams import objects, recordio, streaming
from local_test.runners import Containers, Processes
from training import pipe

COUNTS = """
import json, os, pathlib, sys, time
base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
state = pathlib.Path(json.loads((base / "input/config/checkpointconfig.json").read_text())["LocalPath"])
done = max([int(path.name) for path in state.iterdir() if path.name.isdigit()], default=0)
print("goes on after", done, flush=True)
for step in range(done + 1, 11):
    time.sleep(0.1)
    (state / "next.sagemaker-ignore").write_text("whole")
    (state / "next.sagemaker-ignore").rename(state / str(step))
(base / "model/model").write_text("done")
"""
ENGINE = "debian:trixie-slim"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of checkpoints and a bucket."""
    (tmp_path / "state").mkdir()
    return tmp_path / "state", tmp_path / "bucket"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def data(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def tree(folder: Path, program: str) -> Processes:
    """A platform whose `train` is a program of the test's."""
    data(folder, {"container/train": program})
    return Processes(folder)


# The uploader


def test_files_are_copied_and_marked_and_those_to_ignore_are_not(folders) -> None:
    state, bucket = folders
    data(state, {"a": "1", "deep/b": "2", "c.sagemaker-ignore": "3"})
    Uploader(state, bucket).sync()
    assert names(bucket) == ["a", "deep/b"]
    assert names(state) == ["a", "a.sagemaker-uploaded", "c.sagemaker-ignore", "deep/b", "deep/b.sagemaker-uploaded"]


def test_while_a_file_is_copied_another_marker_stands_beside_it(folders) -> None:
    state, bucket = folders
    data(state, {"a": "1"})
    thread = threading.Thread(target=Uploader(state, bucket, copy_s=0.5).sync)
    thread.start()
    while names(state) == ["a"]:
        time.sleep(0.01)
    assert (names(state), names(bucket)) == (["a", "a.sagemaker-uploading"], [])
    thread.join()
    assert (names(state), names(bucket)) == (["a", "a.sagemaker-uploaded"], ["a"])


def test_what_changes_or_goes_in_the_folder_does_so_in_the_bucket(folders) -> None:
    state, bucket = folders
    uploader = Uploader(data(state, {"a": "1", "b": "2"}), bucket)
    uploader.sync()
    (state / "a").unlink()
    (state / "b").write_text("more")
    uploader.sync()
    assert (names(bucket), (bucket / "b").read_text()) == (["b"], "more")
    assert (uploader.uploaded, uploader.removed) == (["a", "b", "b"], ["a"])


def test_what_comes_into_the_bucket_later_is_not_fetched_before_the_next_start(folders) -> None:
    state, bucket = folders
    uploader = Uploader(state, data(bucket, {"a": "1"}))
    uploader.restore()
    data(bucket, {"b": "2"})
    uploader.sync()
    assert names(state) == ["a", "a.sagemaker-uploaded"]
    Uploader(state, bucket).restore()
    assert "b" in names(state)


def test_of_a_machine_that_is_lost_nothing_more_is_uploaded(folders) -> None:
    state, bucket = folders
    uploader = Uploader(state, bucket)
    with uploader.running():
        data(state, {"a": "1"})
        while not uploader.uploaded:
            time.sleep(0.01)
        uploader.lose()
        data(state, {"b": "2"})
    assert names(bucket) == ["a"]


# A job


def test_a_job_that_loses_its_machine_goes_on_from_what_was_uploaded(tmp_path: Path) -> None:
    source = data(tmp_path / "data", {"a.csv": "1"})
    job = TrainingJob(tree(tmp_path / "tree", COUNTS), tmp_path / "job", {"training": source}, checkpoints=True)
    assert job.reclaim(0.7).exit_code == -9
    assert not names(job.model)
    last = max(map(int, names(job.bucket)))
    assert 0 < last < 10
    outcome = job.run()
    assert outcome.output == f"goes on after {last}\n"
    assert names(job.model) == ["model"]
    assert len(names(job.bucket)) == 10


def test_a_job_that_is_stopped_in_time_has_all_its_checkpoints_uploaded(tmp_path: Path) -> None:
    source = data(tmp_path / "data", {"a.csv": "1"})
    job = TrainingJob(tree(tmp_path / "tree", COUNTS), tmp_path / "job", {"training": source}, checkpoints=True)
    assert job.run(stop_after_s=0.5).exit_code == -15
    whole = [name for name in names(job.state) if name.isdigit()]
    assert whole == names(job.bucket) != []


def test_a_job_that_does_not_end_is_ended(tmp_path: Path) -> None:
    source = data(tmp_path / "data", {"a.csv": "1"})
    job = TrainingJob(tree(tmp_path / "tree", "import time; time.sleep(60)"), tmp_path / "job", {"training": source})
    outcome = job.run(limit_s=0.3)
    assert (outcome.exit_code, outcome.seconds < 5) == (-9, True)


@pytest.mark.parametrize("removable", [True, False], ids=["", "where another user's files can't be removed"])
def test_each_start_finds_a_fresh_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removable: bool) -> None:
    if not removable:
        monkeypatch.setattr("local_test.emulator.jobs.shutil.rmtree", lambda folder, ignore_errors: None)
    source = data(tmp_path / "data", {"a.csv": "1"})
    made = "made = pathlib.Path(os.environ['SAGEMAKER_BASE_DIR'], 'model/m')"
    program = f"import os, pathlib, sys; {made}; sys.exit(made.exists() or made.write_text(''))"
    job = TrainingJob(tree(tmp_path / "tree", program), tmp_path / "job", {"training": source})
    assert [job.run().exit_code for _ in range(2)] == [0, 0]


# Pipe mode


def test_each_epoch_has_its_fifo_once_the_one_before_was_read_or_closed(tmp_path: Path) -> None:
    (tmp_path / "input" / "data").mkdir(parents=True)
    fifos = [tmp_path / "input" / "data" / f"train_{epoch}" for epoch in range(3)]
    with streaming(tmp_path, {"train": [b"row\n" * 3, b"last\n"]}, epochs=3):
        assert _read(fifos[0]) == b"row\nrow\nrow\nlast\n"
        _wait(fifos[1]).open("rb").close()
        assert _read(fifos[2]).endswith(b"last\n")
    assert not (tmp_path / "input" / "data" / "train_3").exists()


def test_epochs_that_nobody_reads_hold_nothing_up(tmp_path: Path) -> None:
    (tmp_path / "input" / "data").mkdir(parents=True)
    started = time.monotonic()
    with streaming(tmp_path, {"train": [b"row\n"]}, epochs=3):
        _read(tmp_path / "input" / "data" / "train_0")
    assert time.monotonic() - started < 4


def test_objects_come_in_the_order_of_their_keys_packed_as_the_channel_says(tmp_path: Path) -> None:
    data(tmp_path, {"b.csv": "2\n", "a/z.csv": "1\n"})
    assert objects(tmp_path) == [b"1\n", b"2\n"]
    assert [gzip.decompress(content) for content in objects(tmp_path, "Gzip")] == [b"1\n", b"2\n"]
    framed = b"".join(objects(tmp_path, wrapper="RecordIO"))
    assert framed == recordio([b"1\n", b"2\n"])
    assert b"".join(pipe.unframed(iter([framed]), "x")) == b"1\n2\n"


def _wait(fifo: Path) -> Path:
    while not fifo.exists():
        time.sleep(0.01)
    return fifo


def _read(fifo: Path) -> bytes:
    return _wait(fifo).read_bytes()


# Several hosts


@pytest.mark.parametrize(("files", "empty"), [(5, 0), (2, 1), (1, 2)])
def test_every_object_goes_to_one_host_and_some_hosts_may_get_none(tmp_path: Path, files: int, empty: int) -> None:
    source = data(tmp_path / "data", {f"deep/{number}.csv": str(number) for number in range(files)})
    shards = shard(source, tmp_path / "shards", 3)
    assert sorted(name for part in shards for name in names(part)) == names(source)
    assert sum(not names(part) for part in shards) == empty


def test_files_of_one_name_clash_unless_they_are_the_same(tmp_path: Path) -> None:
    one = data(tmp_path / "1", {"model": "a", "same": "s", "deep/1": "x"})
    two = data(tmp_path / "2", {"model": "b", "same": "s", "deep/2": "y"})
    assert clashes([one, two]) == ["model"]


def test_each_host_knows_its_name_and_has_its_shard(tmp_path: Path) -> None:
    source = data(tmp_path / "data", {"a": "1", "b": "2"})
    sharded = {"training": {"S3DistributionType": "ShardedByS3Key"}}
    job = TrainingJob(Processes(), tmp_path / "job", {"training": source, "other": source}, options=sharded)
    for part, own in zip(over_hosts(job, 2), ["a", "b"], strict=True):
        part.lay_out()
        assert (names(part.base / "input/data/training"), names(part.base / "input/data/other")) == ([own], ["a", "b"])
    assert '"current_host": "algo-2"' in (part.base / "input/config/resourceconfig.json").read_text()


# Containers


def _contained(docker: str, folder: Path, script: str, **fields) -> TrainingJob:
    """A job whose `train` is a shell script, in a container of the bare base."""
    program = data(folder, {"train": f"#!/bin/sh\n{script}\n"}) / "train"
    program.chmod(0o755)
    source = data(folder / "data", {"a.csv": "1", "b.csv": "2"})
    mounted = ("--volume", f"{program}:/usr/local/bin/train:ro")
    return TrainingJob(Containers(ENGINE, docker), folder / "job", {"training": source}, container=mounted, **fields)


@pytest.fixture
def engine(docker: str) -> str:
    """A Docker client whose engine has the base."""
    if subprocess.run([docker, "image", "inspect", ENGINE], capture_output=True, check=False).returncode:
        pytest.skip(f"the engine has no {ENGINE}")
    return docker


def test_a_channel_in_fastfile_mode_is_read_only(engine: str, tmp_path: Path) -> None:
    script = (
        "cat /opt/ml/input/data/training/a.csv; touch /opt/ml/input/data/training/new || echo refused; echo m >/opt/ml/model/m"
    )
    outcome = _contained(engine, tmp_path, script, options={"training": {"TrainingInputMode": "FastFile"}}).run()
    assert outcome.exit_code == 0, outcome.output
    assert {"1refused"} <= set(outcome.output.splitlines())


def test_a_container_reads_what_comes_through_a_fifo(engine: str, tmp_path: Path) -> None:
    script = "cat /opt/ml/input/data/training_0"
    assert _contained(engine, tmp_path, script, options={"training": {"TrainingInputMode": "Pipe"}}).run().output == "12"


def test_a_watched_container_tells_when_it_printed_and_what_it_changed(engine: str, tmp_path: Path) -> None:
    outcome = _contained(engine, tmp_path, "echo first; sleep 1; echo last; echo x >/var/outside; echo x >/tmp/inside").run()
    first, last = outcome.printed_at
    assert 0.9 < last - first < 5
    assert "/var/outside" in outcome.changed


def test_checkpoints_are_at_the_path_that_the_job_names(engine: str, tmp_path: Path) -> None:
    script = "cat /opt/ml/input/config/checkpointconfig.json; ls /state; echo 1 >/state/one; sleep 1; exit 3"
    job = _contained(engine, tmp_path, script, checkpoints=True)
    assert job.run().output == '{"LocalPath": "/state"}'
    assert names(job.bucket) == ["one"]
    assert job.run().output.split("\n") == ['{"LocalPath": "/state"}one', "one.sagemaker-uploaded", ""]


def test_hosts_find_each_other_by_name_and_nobody_else(engine: str, tmp_path: Path) -> None:
    script = "sleep 1; getent hosts algo-1 algo-2 | wc -l; timeout 2 getent hosts example.com || echo alone"
    outcomes = run_together(over_hosts(_contained(engine, tmp_path, script), 2))
    assert [outcome.output for outcome in outcomes] == ["2\nalone\n"] * 2


# Fixtures


def test_tests_of_ones_own_get_jobs_as_fixtures(tmp_path: Path) -> None:
    tree(tmp_path / "tree", COUNTS)
    data(
        tmp_path,
        {
            "data/a.csv": "1",
            "conftest.py": f"""
import pytest
from pathlib import Path
from local_test.runners import Processes
pytest_plugins = ["local_test.fixtures"]

@pytest.fixture(scope="session")
def platform():
    return Processes(Path({str(tmp_path / "tree")!r}))
""",
            "test_mine.py": """
from pathlib import Path

def test_an_interrupted_job_goes_on(training_job):
    job = training_job({"training": Path("data")}, checkpoints=True)
    job.reclaim(0.7)
    assert "goes on after 0" not in job.run().output
""",
        },
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
