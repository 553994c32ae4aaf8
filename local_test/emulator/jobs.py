"""A training job as the platform runs it: laid out, started, stopped, interrupted and started again, on one host or several.

What the platform keeps between two starts is the bucket of checkpoints, and nothing else (T-28, T-31).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_test.emulator import STOP_TRAINING_S, Outcome, failure_of, lay_out
from local_test.emulator.checkpoints import Uploader
from local_test.emulator.streams import objects, streaming
from local_test.runners import Container, Containers, Launch, Platform, Program

LOCAL_PATH = "/state"
"""Where a container finds its checkpoints: not at /opt/ml/checkpoints, as a job may name any path."""


@dataclass
class TrainingJob:
    """A job that can be run again and again: each start finds a fresh /opt/ml and the checkpoints that were uploaded."""

    platform: Platform
    folder: Path
    """Where it is played; it may not be there yet."""
    channels: Mapping[str, Path]
    """A folder of files for each channel."""
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What inputdataconfig.json says of a channel beyond the usual: `{"training": {"TrainingInputMode": "Pipe"}}`.

    A channel in FastFile mode is mounted read-only (T-20; a source tree gets a copy); one in Pipe mode comes through FIFOs
    (T-21), compressed or framed as its `CompressionType` and `RecordWrapperType` say.
    """
    environ: Mapping[str, str] = field(default_factory=dict)
    checkpoints: bool = False
    """Whether there is a CheckpointConfig; its LocalPath is /state in a container."""
    marks: bool = True
    """Whether the uploader leaves its marker files (T-29)."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """More files of /opt/ml/input/config, by name without the ending, as JSON types: they replace what is there."""
    prepare: tuple[Callable[[Path], None], ...] = ()
    """What else is done to /opt/ml before a start."""
    hosts: tuple[str, ...] = ("algo-1",)
    host: str = "algo-1"
    """Which of them this is."""
    epochs: int = 1
    """How many a channel in Pipe mode has."""
    words: tuple[str, ...] = ("train",)
    network: str = "none"
    container: tuple[str, ...] = ()
    """More words for `docker run`."""

    @property
    def base(self) -> Path:
        """Its /opt/ml."""
        return self.folder / "ml"

    @property
    def model(self) -> Path:
        """What it left in /opt/ml/model."""
        return self.base / "model"

    @property
    def state(self) -> Path:
        """Its folder of checkpoints on the machine that it runs on."""
        return self.folder / "state"

    @property
    def bucket(self) -> Path:
        """The checkpoints that were uploaded."""
        return self.folder / "bucket"

    def run(self, stop_after_s: float | None = None, limit_s: float | None = None) -> Outcome:
        """Run it to its end.

        Args:
            stop_after_s: send SIGTERM then, as StopTrainingJob does, and SIGKILL 120 s later (T-27).
            limit_s: send SIGKILL then.
        """
        with self.running() as running:
            if stop_after_s is not None and not running.ends_within(stop_after_s):
                return running.stop()
            if limit_s is not None and not running.ends_within(limit_s):
                running.kill()
            return running.outcome()

    def reclaim(self, after_s: float) -> Outcome:
        """Start it and lose the machine after some seconds, as spot capacity goes: only what was uploaded by then is left."""
        with self.running() as running:
            if not running.ends_within(after_s):
                running.kill()
            return running.outcome()

    @contextlib.contextmanager
    def running(self) -> Iterator[Running]:
        """Lay it out, start it, play the platform meanwhile, and leave nothing running.

        Raises:
            RuntimeError: the engine can't start it; the message has the engine's own.
        """
        uploader = Uploader(self.state, self.bucket, marks=self.marks)
        self.lay_out()
        with contextlib.ExitStack() as platform:
            if self.checkpoints:
                uploader.restore()
                platform.enter_context(uploader.running())
            platform.enter_context(streaming(self.base, self._piped(), epochs=self.epochs))
            running = Running(self, self.start(), uploader)
            try:
                yield running
            finally:
                if running.program.is_running():
                    running.kill()
                running.program.wait()

    def lay_out(self) -> None:
        """Make a fresh /opt/ml, and an empty folder of checkpoints."""
        for folder in (self.base, self.state):
            _clear(folder)
        lay_out(self.base, self.channels, dict(self.hyperparameters), self.options)
        resources = {"current_host": self.host, "hosts": list(self.hosts), "network_interface_name": "eth0"}
        documents: dict[str, Any] = {"resourceconfig": resources}
        if self.checkpoints:
            self.state.mkdir(parents=True)
            documents["checkpointconfig"] = {"LocalPath": LOCAL_PATH if self._contained else str(self.state)}
        for name, document in {**documents, **self.config}.items():
            (self.base / "input" / "config" / f"{name}.json").write_text(json.dumps(document))
        for step in self.prepare:
            step(self.base)

    def start(self) -> Program:
        """Start it over what is laid out."""
        if not isinstance(self.platform, Containers):
            return self.platform.start("train", self.base, self.environ)
        mounts = [f"{self.base}:/opt/ml", *([f"{self.state}:{LOCAL_PATH}"] if self.checkpoints else [])]
        for name, source in self.channels.items():
            if self._option(name, "TrainingInputMode") == "FastFile":
                mounts.append(f"{source.resolve()}:/opt/ml/input/data/{name}:ro")
        launch = Launch(self.words, self.environ, tuple(mounts), 0, self.container, self.network, watched=True)
        return self.platform.launch(launch)

    @property
    def _contained(self) -> bool:
        return isinstance(self.platform, Containers)

    def _option(self, channel: str, name: str) -> str:
        return self.options.get(channel, {}).get(name, "None")

    def _piped(self) -> dict[str, list[bytes]]:
        return {
            name: objects(source, self._option(name, "CompressionType"), self._option(name, "RecordWrapperType"))
            for name, source in self.channels.items()
            if self._option(name, "TrainingInputMode") == "Pipe"
        }


@dataclass
class Running:
    """A job that has been started."""

    job: TrainingJob
    program: Program
    uploader: Uploader
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it has been since the start."""
        return time.monotonic() - self.started

    def ends_within(self, seconds: float) -> bool:
        """Wait until so many seconds after the start, and say whether it ended by then."""
        left_s = seconds - self.seconds
        if left_s < 1:  # too short for an engine's client to wait
            time.sleep(max(0.0, left_s))
            return not self.program.is_running()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.program.wait(left_s)
            return True
        return False

    def stop(self, patience_s: float = STOP_TRAINING_S) -> Outcome:
        """Send SIGTERM, SIGKILL after the platform's patience or a shorter one, and return how it ended (T-27)."""
        self.program.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.program.wait(patience_s)
            return self.outcome()
        self.kill()
        return self.outcome()

    def kill(self) -> None:
        """Send SIGKILL; no checkpoint is uploaded any more."""
        self.uploader.lose()
        self.program.signal(signal.SIGKILL)

    def outcome(self) -> Outcome:
        """Wait for the end and return how it was."""
        code, seconds = self.program.wait(), self.seconds
        told: dict[str, Any] = {}
        if isinstance(self.program, Container):
            program = self.program
            told = {"printed_at": tuple(program.printed_at), "ran_s": program.ran_s, "changed": tuple(program.changed)}
        return Outcome(code, self.program.output(), failure_of(self.job.base), seconds, **told)


def _clear(folder: Path) -> None:
    """Remove a folder; put it aside where it holds what a container's user left for nobody else to remove."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        folder.rename(folder.with_name(f"{folder.name}-{time.monotonic_ns()}"))
