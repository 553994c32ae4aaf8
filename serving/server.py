"""`serve`: settings, model, application, and gunicorn to run it in worker processes."""

from __future__ import annotations

import argparse
import logging
import os
import pwd
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
from serving.predictor import load_predictor
from serving.settings import Settings
from serving.worker import Worker

GRACE_S = 20  # H-6: SIGKILL follows SIGTERM after 30 s
KEEPALIVE_S = 75  # longer than the 60 s of the usual load balancers, so that it's never us who close under a request
USER = "berth"
NEEDED_CAPABILITIES = {"CAP_CHOWN": 0, "CAP_SETGID": 6, "CAP_SETUID": 7}  # bits of CapEff, linux/capability.h
YOUNG_S, MAX_YOUNG_DEATHS = 2.0, 10


def main() -> int:
    """Serve until SIGTERM; return the exit code when it can't be begun."""
    parser = argparse.ArgumentParser(prog="serve", description="Serve the model of /opt/ml/model.")
    parser.add_argument(
        "--port", type=int, help="port to listen on (otherwise SAGEMAKER_BIND_TO_PORT, AIP_HTTP_PORT, PORT, 8080)"
    )
    arguments = parser.parse_args()
    try:
        settings = Settings.from_environ(os.environ, arguments.port)
        app = App(load_predictor(settings.paths.model, settings.predictor), settings)
    except BerthError as error:
        print(f"serve: {error.message}", file=sys.stderr, flush=True)
        return error.exit_code
    Server(app, settings).run()
    return 0


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn around one loaded application, which all workers inherit by fork."""

    def __init__(self, app: App, settings: Settings) -> None:
        self.app = app
        self.options = gunicorn_options(settings)
        super().__init__()

    def load_config(self) -> None:
        """Hand gunicorn its options."""
        for name, value in self.options.items():
            self.cfg.set(name, value)

    def load(self) -> App:
        """Return the application, made before the fork."""
        return self.app


def gunicorn_options(settings: Settings) -> dict[str, Any]:
    """Return gunicorn's settings, by gunicorn's names."""
    young_deaths = YoungDeaths()
    options = {
        "bind": f"0.0.0.0:{settings.port}",
        "workers": settings.workers,
        "worker_class": Worker,
        "asgi_lifespan": "off",
        "preload_app": True,
        "timeout": settings.timeout_s,
        "graceful_timeout": GRACE_S,
        "keepalive": KEEPALIVE_S,
        "control_socket_disable": True,  # it can't be made on a read-only file system
        "loglevel": logging.getLevelName(10 * max(1, settings.log_level // 10)).lower(),
        "proc_name": "serve",
        "pre_fork": young_deaths.start,
        "post_fork": let_sigterm_end_it,
        "child_exit": young_deaths.count,
    }
    return {**options, "user": USER, "group": USER} if may_drop_privileges() else options


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

    def __init__(self) -> None:
        self.in_a_row = 0

    def start(self, arbiter: Any, worker: Any) -> None:
        """Be told of a worker's start."""
        worker.born = time.monotonic()

    def count(self, arbiter: Any, worker: Any) -> None:
        """Be told of a worker's end; those that an ordered stop ends (its listeners are gone) don't count."""
        is_young = time.monotonic() - worker.born < YOUNG_S
        self.in_a_row = self.in_a_row + 1 if is_young and arbiter.LISTENERS else 0
        if self.in_a_row >= MAX_YOUNG_DEATHS:
            raise HaltServer(f"{self.in_a_row} workers in a row died within {YOUNG_S:g} s of their start", 1)
