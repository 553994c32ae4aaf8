"""Starts a container as the platform does and watches it: `watch_serving` and `watch_training` return what was seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from local_test.doctor.asking import POLL_S, ask_all
from local_test.doctor.observations import Observations
from local_test.doctor.watch import Watch
from local_test.emulator import STOP_SERVING_S, STOP_TRAINING_S
from local_test.entry import read_entry
from local_test.runners import Containers, Launch, Process, Processes, Program
from local_test.subject import Payload


def watch_serving(
    platform: Containers | Processes,
    model: Path,
    environ: Mapping[str, str],
    patience_s: float,
    payload: Payload | None = None,
) -> Observations:
    """Start `serve` over a model, read-only, on a network that leads nowhere, ask it what the platform asks, and stop it."""
    seen = Observations(
        "serve",
        patience_s=patience_s,
        has_payload=payload is not None,
        model_files=tuple(sorted(str(file.relative_to(model)) for file in model.rglob("*") if file.is_file())),
    )
    launch = Launch(("serve",), environ, (f"{model}:/opt/ml/model:ro",))
    return _watched(platform, seen, launch, model.parent, lambda watch: ask_all(watch, patience_s, payload), STOP_SERVING_S)


def watch_training(
    platform: Containers | Processes, base: Path, environ: Mapping[str, str], patience_s: float, channel: str
) -> Observations:
    """Run `train` over an /opt/ml that is laid out, without a network; stop it where patience ends."""

    def wait(watch: Watch) -> None:
        while watch.is_running() and watch.seconds < patience_s:
            watch.look()
            time.sleep(POLL_S)

    seen = Observations("train", patience_s=patience_s, channel=channel)
    launch = Launch(("train",), environ, (f"{base}:/opt/ml",), port=0)
    seen = _watched(platform, seen, launch, base, wait, STOP_TRAINING_S)
    failure = base / "output" / "failure"
    files = [str(file.relative_to(base / "model")) for file in (base / "model").rglob("*") if file.is_file()]
    text = failure.read_text("utf-8", "replace") if failure.is_file() else ""
    return replace(seen, failure=text, artifacts=tuple(sorted(files)))


def _watched(
    platform: Containers | Processes,
    seen: Observations,
    launch: Launch,
    base: Path,
    ask: Callable[[Watch], None],
    patience_s: float,
) -> Observations:
    """Start a program, have it asked, stop it, and return all that was seen."""
    if isinstance(platform, Containers):
        facts = platform.inspect()
        config = facts.get("Config") or {}
        seen = replace(
            seen,
            entrypoint=tuple(config.get("Entrypoint") or ()),
            architecture=facts.get("Architecture", ""),
            user=config.get("User", ""),
        )
    try:
        watch = Watch(_started(platform, launch, base), getattr(platform, "docker", ""))
    except RuntimeError as error:
        return _with_entry(platform, replace(seen, refused=str(error)), launch)
    if isinstance(watch.program, Process) and launch.port:
        seen = replace(seen, port=urlsplit(watch.program.url).port or 0)
    try:
        watch.look()
        ask(watch)
        watch.look(again=True)
        watch.examine()
    finally:
        watch.end(patience_s)
    if isinstance(platform, Processes):  # it is named by the place that it has in a container
        watch.seen["output"] = watch.seen["output"].replace(str(base), "/opt/ml")
    return _with_entry(platform, replace(seen, **watch.seen), launch)


def _with_entry(platform: Containers | Processes, seen: Observations, launch: Launch) -> Observations:
    """Add the file that a container begins with, where it may be to blame: one that went on running was started well."""
    if isinstance(platform, Processes) or seen.is_alive:
        return seen
    config = platform.inspect().get("Config") or {}
    return replace(seen, entry=read_entry(platform, config, launch.words[0], launch.mounts))


def _started(platform: Containers | Processes, launch: Launch, base: Path) -> Program:
    if isinstance(platform, Processes):
        return platform.start(launch.words[0], base, launch.environ)
    return platform.launch(launch)
