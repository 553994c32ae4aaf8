"""`serve`: settings, model, application, and gunicorn to run it in worker processes."""

from __future__ import annotations

import argparse
import gc
import logging
import math
import os
import pwd
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

# One thread a prediction: set before numerical libraries load, for this program alone (`train` uses every CPU).
os.environ["OMP_NUM_THREADS"] = "1"

from gunicorn.app.base import BaseApplication
from gunicorn.errors import HaltServer

from contract.errors import BerthError
from serving.app import App
from serving.connection import MAX_CONNECTIONS
from serving.heap import trim
from serving.metrics import Metrics
from serving.models import NoModel
from serving.platforms import model_folder
from serving.predictor import load_predictor
from serving.settings import Settings
from serving.worker import Worker

GRACE_S = 20  # H-6: SIGKILL follows SIGTERM after 30 s
USER = "berth"
NEEDED_CAPABILITIES = {"CAP_CHOWN": 0, "CAP_SETGID": 6, "CAP_SETUID": 7}  # bits of CapEff, linux/capability.h
MEMORY_S = 60.0  # deaths further apart than this are no row of them
YOUNG_S, MAX_YOUNG_DEATHS = 2.0, 10


def main() -> int:
    """Serve until SIGTERM; return the exit code when it can't be begun."""
    parser = argparse.ArgumentParser(prog="serve", description="Serve the model of /opt/ml/model.")
    parser.add_argument(
        *("--port", "--http_port", "--http-port"),
        dest="port",
        type=int,
        help="port to listen on (otherwise SAGEMAKER_BIND_TO_PORT, AIP_HTTP_PORT, PORT, 8080)",
    )
    for name, what in (("model_name", "BERTH_MODEL_NAME"), ("model_dir", "AZUREML_MODEL_DIR")):  # K-2: KServe's spelling
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}", help=f"as {what}, which it goes before")
    arguments = parser.parse_args()
    try:
        settings = Settings.from_environ(os.environ, **vars(arguments))
        folder = None if settings.multi_model else model_folder(settings)
        predictor = load_predictor(folder, settings.predictor, settings.delegate) if folder else NoModel()
        app = App(predictor, settings, folder)
    except BerthError as error:
        print(f"serve: {error.message}", file=sys.stderr, flush=True)
        return error.exit_code
    raise_file_limit()
    Server(app, settings).run()
    return 0


def raise_file_limit() -> None:
    """Let each worker hold as many connections as the system allows: the usual soft limit is 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + 1_000 if hard == resource.RLIM_INFINITY else min(MAX_CONNECTIONS + 1_000, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn around one loaded application, which all workers inherit by fork."""

    def __init__(self, app: App, settings: Settings) -> None:
        self.app = app
        self.options = gunicorn_options(settings, app.metrics)
        super().__init__()

    def load_config(self) -> None:
        """Hand gunicorn its options."""
        for name, value in self.options.items():
            self.cfg.set(name, value)

    def load(self) -> App:
        """Return the application, made before the fork."""
        return self.app


def gunicorn_options(settings: Settings, metrics: Metrics) -> dict[str, Any]:
    """Return gunicorn's settings, by gunicorn's names."""
    # What a multi-model endpoint has loaded dies with its worker; only the server's end tells the platform to load it again.
    young_deaths = YoungDeaths(math.inf, 1) if settings.multi_model else YoungDeaths()

    def before_fork(arbiter: Any, worker: Any) -> None:
        give_back()
        young_deaths.start(arbiter, worker)
        worker.slot = metrics.take_slot({other.slot for other in arbiter.WORKERS.values()})

    def after_exit(arbiter: Any, worker: Any) -> None:
        metrics.free_slot(worker.slot)
        young_deaths.count(arbiter, worker)

    options = {
        "bind": f"0.0.0.0:{settings.port}",
        "workers": settings.workers,
        "worker_class": Worker,
        "asgi_lifespan": "off",
        "preload_app": True,
        "timeout": settings.timeout_s,
        "graceful_timeout": GRACE_S,
        "keepalive": settings.keepalive_s,
        "control_socket_disable": True,  # it can't be made on a read-only file system
        "loglevel": logging.getLevelName(10 * max(1, settings.log_level // 10)).lower(),
        "proc_name": "serve",
        "pre_fork": before_fork,
        "post_fork": let_sigterm_end_it,
        "child_exit": after_exit,
    }
    return {**options, "user": USER, "group": USER, "initgroups": True} if may_drop_privileges() else options


def give_back() -> None:
    """Let workers share what was made before them, and the system have what loading took for a while."""
    gc.collect()
    gc.freeze()  # the collector would write to every page of objects that workers share
    trim()


def let_sigterm_end_it(arbiter: Any, worker: Any) -> None:
    """End a worker that is told to stop before it listens.

    Until it has handlers of its own it has the arbiter's, which note a stop for nobody: the server then takes all of GRACE_S.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def may_drop_privileges(status: Path = Path("/proc/self/status")) -> bool:
    """Say whether to go on as the image's own user: this is root, with the rights to change, and that user exists.

    Anywhere else trying makes gunicorn exit with 255.
    """
    try:
        pwd.getpwnam(USER)
        effective = next(line for line in status.read_text().splitlines() if line.startswith("CapEff:"))
    except (KeyError, OSError, StopIteration):
        return False
    granted = int(effective.split()[1], 16)
    return os.geteuid() == 0 and all(granted >> bit & 1 for bit in NEEDED_CAPABILITIES.values())


class YoungDeaths:
    """Ends the server when worker after worker dies as soon as it starts: a port that never answers helps nobody (H-10)."""

    def __init__(self, young_s: float = YOUNG_S, limit: int = MAX_YOUNG_DEATHS) -> None:
        self.young_s = young_s
        self.limit = limit
        self.in_a_row = 0
        self.last = 0.0

    def start(self, arbiter: Any, worker: Any) -> None:
        """Be told of a worker's start."""
        worker.born = time.monotonic()

    def count(self, arbiter: Any, worker: Any) -> None:
        """Be told of a worker's end; those that an ordered stop ends (its listeners are gone) don't count."""
        now = time.monotonic()
        is_young = now - worker.born < self.young_s
        self.in_a_row = self.in_a_row * (now - self.last < MEMORY_S) + 1 if is_young and arbiter.LISTENERS else 0
        self.last = now
        if self.in_a_row >= self.limit:
            raise HaltServer(f"{self.in_a_row} workers in a row died within {self.young_s:g} s of their start", 1)
