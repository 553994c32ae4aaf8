"""The image that is judged, and what the rules share of it: one training, one model, one started server.

Each is made when the first rule asks for it. What can't be made is not made again: the next rule gets the same error.
"""

from __future__ import annotations

import contextlib
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from local_test.emulator import Endpoint, Outcome, Reply, lay_out, stop
from local_test.emulator.jobs import TrainingJob
from local_test.given import CAPABILITIES as CAPABILITIES
from local_test.given import Given
from local_test.given import Payload as Payload
from local_test.network import OutOfReach
from local_test.runners import Launch, Processes, Program
from local_test.starts import Start, wait_until, watch
from local_test.verdicts import Blocked, Unjudged, Violated

STOP_S = 3
"""How long a server is waited for that is no longer needed: whether it heeds SIGTERM is one rule's affair (H-6)."""
PLATFORM = {
    "AWS_REGION": "us-east-1",
    "TRAINING_JOB_NAME": "conformance",
    "TRAINING_JOB_ARN": "arn:aws:sagemaker:us-east-1:111122223333:training-job/conformance",
}
"""What the platform sets in a training job's environment (T-16)."""


class Subject(Given):
    """An image, or a source tree, to be trained and served with."""

    # Training

    def lay_out(self, name: str, **options: Any) -> Path:
        """Return a fresh /opt/ml of a training job with the owner's data and hyperparameters.

        Raises:
            Unjudged: no training data was given.
        """
        if self.train_data is None:
            raise Unjudged("no training data was given: --train-data DIR")
        base = self.folder / name
        shutil.rmtree(base, ignore_errors=True)
        lay_out(base, {self.channel: self.train_data}, dict(self.hyperparameters), **options)
        return base

    def job(self, name: str, **options: Any) -> TrainingJob:
        """Return a training job with the owner's data and hyperparameters, not yet laid out; `options` are its fields.

        Raises:
            Unjudged: no training data was given.
        """
        if self.train_data is None:
            raise Unjudged("no training data was given: --train-data DIR")
        environ = {**PLATFORM, **self.environ}
        job = TrainingJob(self.platform, self.folder / name, {self.channel: self.train_data}, self.hyperparameters)
        return replace(job, **{"environ": environ, **options})

    @property
    def trained(self) -> tuple[Path, Outcome]:
        """The /opt/ml of a training job and how it ended, well or not; raises Violated where it can't be started."""

        def make() -> tuple[Path, Outcome]:
            job = self.job("trained")
            try:
                return job.base, job.run(limit_s=self.train_s)
            except RuntimeError as error:
                raise Violated(str(error)) from error

        return self.once("trained", make)

    @property
    def model(self) -> Path:
        """A folder with the model that is served: the owner's, else the trained one's."""

        def make() -> Path:
            folder = self.folder / "served" / "model"
            folder.mkdir(parents=True)
            if self.model_tar:
                with tarfile.open(self.model_tar) as archive:
                    archive.extractall(folder, filter="data")
            elif self.train_data:
                try:
                    base, outcome = self.trained
                except Violated:
                    raise Blocked("T-1") from None
                if outcome.exit_code or not any((base / "model").iterdir()):
                    raise Blocked("T-1")  # there is no model to serve
                shutil.copytree(base / "model", folder, dirs_exist_ok=True)
            return folder  # empty: a container may carry its model in itself

        return self.once("model", make)

    # Serving

    @property
    def endpoint(self) -> Endpoint:
        """A server that is started as SageMaker starts one, and ready; raises Blocked where it did not become so."""
        if "endpoint again" in self._made:
            return self.once("endpoint again", self.restarted)
        try:
            start = self.first_start
        except Violated as error:
            raise Blocked("H-1") from error
        if start.ready_s is None:
            raise Blocked("H-7")
        return start.endpoint

    @property
    def first_start(self) -> Start:
        """How the server of `endpoint` started, well or not; raises Violated where the engine can't start it."""

        def make() -> Start:
            start = self._open.enter_context(self.watched())
            if start.ready_s is not None and self.payload:
                start.first = _answer(start.endpoint, self.payload)
            return start

        return self.once("first start", make)

    @contextlib.contextmanager
    def watched(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        words: tuple[str, ...] = ("serve",),
        options: tuple[str, ...] = (),
        port: int = 8080,
        model: Path | None = None,
        writable: bool = False,
        idle: bool = False,
    ) -> Iterator[Start]:
        """Start a server, give how it started, ready or not, and stop it; arguments as of `serving` and `watch`.

        With `writable`, the model's folder is mounted so.

        Raises:
            Violated: the engine can't start it.
            Unjudged: a source tree can't be started so.
        """
        began = time.monotonic()
        place = f"{model or self.model}:/opt/ml/model{'' if writable else ':ro'}"
        program = self.start(Launch(words, {**self.environ, **(environ or {})}, (place,), port, options))
        patience_s = self.start_s + time.monotonic() - began  # a busy engine's own time is not the container's
        try:
            yield watch(program, patience_s, began, idle=idle)
        finally:
            stop(program, STOP_S)

    def restarted(self) -> Endpoint:
        """Return a new server in place of the shared one, which takes no connection any more.

        Raises:
            Unjudged: it does not become ready a second time, which is the fault of no rule that comes then.
        """

        def make() -> Endpoint:
            try:
                return self._open.enter_context(self.serving())
            except Violated as error:
                raise Unjudged(f"serve ended under an earlier rule's requests, and did not start again: {error}") from error

        self._made.pop("endpoint again", None)
        return self.once("endpoint again", make)

    def kept(self, name: str, environ: Mapping[str, str] | None = None, **options: Any) -> Endpoint:
        """Return a server that `serving` starts for the first to ask for its name; it runs until `close`."""
        return self.once(name, lambda: self._open.enter_context(self.serving(environ, **options)))

    @contextlib.contextmanager
    def serving(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        words: tuple[str, ...] = ("serve",),
        options: tuple[str, ...] = (),
        port: int = 8080,
        ready: Callable[[Endpoint], bool] | None = None,
        model: Path | None = None,
        with_model: bool = True,
        mounts: tuple[str, ...] = (),
        patience_s: float | None = None,
    ) -> Iterator[Endpoint]:
        """Start a server, wait until it is ready, give it, and stop it as the platform does.

        Args:
            environ: what is added to the environment.
            words: what follows the image's name.
            options: more words for `docker run`; a source tree takes none.
            port: where it is to listen.
            ready: tells that it is; `/ping` answers 200 where none is given.
            model: the folder to mount at /opt/ml/model, read-only; the subject's where none is given.
            with_model: whether there is one: a multi-model endpoint starts with none.
            mounts: more of them, `folder:place[:ro]`.
            patience_s: how long to wait; `start_s` where none is given.

        Raises:
            Violated: it ended, or was not ready in time; the message has the end of what it printed.
            Unjudged: a source tree can't be started so.
        """
        started = time.monotonic()
        place = (f"{model or self.model}:/opt/ml/model:ro",) if with_model else ()
        launch = Launch(words, {**self.environ, **(environ or {})}, (*place, *mounts), port, options)
        program = self.start(launch)
        endpoint = Endpoint(program)
        try:
            wait_until(
                endpoint,
                ready or (lambda endpoint: endpoint.ping().status == 200),
                time.monotonic(),
                patience_s or self.start_s,
            )
            endpoint.seconds_to_ready = time.monotonic() - started
            yield endpoint
        finally:
            stop(program, STOP_S)

    def start(self, launch: Launch) -> Program:
        """Start a program.

        Raises:
            Violated: the engine can't start it.
            Unjudged: a source tree can't be started so, or this machine can't reach the engine's containers.
        """
        if isinstance(self.platform, Processes):
            return self._start_process(self.platform, launch)
        try:
            return self.platform.launch(launch)
        except OutOfReach as error:
            raise Unjudged(str(error)) from error
        except RuntimeError as error:
            raise Violated(str(error)) from error

    def _start_process(self, processes: Processes, launch: Launch) -> Program:
        """Start a word of a source tree as nearly as that can be."""
        if launch.options or len(launch.words) != 1:
            raise Unjudged("this needs an image and a container engine, and a source tree was given")
        folders = {place: folder for folder, place, *_ in (mount.split(":") for mount in launch.mounts)}
        base = Path(folders.get("/opt/ml") or tempfile.mkdtemp(prefix="started-", dir=self.folder))
        if "/opt/ml/model" in folders:
            (base / "model").symlink_to(folders["/opt/ml/model"])
        return processes.start(launch.words[0], base, launch.environ)


def _answer(endpoint: Endpoint, payload: Payload) -> Reply | str:
    try:
        return endpoint.invoke(payload.body, payload.content_type)
    except OSError as error:
        return f"{type(error).__name__}: {error}"
