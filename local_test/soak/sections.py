"""`make soak`: the long measurements. Each section is a function that gives Markdown; all go to docs/measured.md.

`make test` runs the same functions small.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from local_test import outcomes
from local_test.emulator import lay_out, train
from local_test.load.command import FOREST, load_sections, trained
from local_test.load.endurance import by_workers, endure
from local_test.load.inside import by_slots, by_thread, parts
from local_test.runners import ROOT, Processes, free_port
from local_test.soak.devices import on_devices
from local_test.soak.growth import cost_of_sample, growth_of_rows
from local_test.soak.hosting import body_memory
from local_test.soak.measured import Table, put, section, told
from local_test.soak.proofs import PROOFS, proof
from local_test.soak.scale import over_hosts
from local_test.soak.stops import kills, pytest_says, stops_of_rows

REQUESTS, FUZZ_INPUTS, FUZZ_EXAMPLES = 1_000_000, 1_000_000, 200
ESTIMATORS = ("hist_gradient_boosting", "random_forest", "ridge", "mlp")
PROBE = """
import json, os, sys, time
laps = [("start Python", time.time())]
def lap(name):
    laps.append((name, time.time()))
sys.path[0] = sys.argv[1]
import numpy; lap("import numpy")
import onnxruntime; lap("import onnxruntime")
import flask, a2wsgi; lap("import Flask and its bridge")
import gunicorn.app.base, gunicorn.workers.gasgi, uvloop; lap("import gunicorn and uvloop")
from serving.server import App, Server, Settings, load_predictor; lap("import Berth")
settings = Settings.from_environ(os.environ)
predictor = load_predictor(settings.paths.model); lap("check, load and test the model")
app = App(predictor, settings); lap("make the application")
open(sys.argv[2], "w").write(json.dumps(laps))
Server(app, settings).run()
"""


def soak(data: Path, image: str, docker: str, target: Path, only: Sequence[str] = ()) -> int:
    """Measure everything, or the named sections only, and write the figures to `target`; return an exit code."""
    with tempfile.TemporaryDirectory(prefix="berth-soak-") as folder:
        base = trained(Path(folder), data, {})
        sections: dict[str, Callable[[], str]] = {
            "quality": lambda: quality(data, Path(folder), ESTIMATORS),
            "start": lambda: start_up(base, rounds=15),
            "container": lambda: container_start(base / "model", image, docker, rounds=7),
            "image": lambda: image_parts(image, docker),
            "bodies": lambda: memory_of_bodies(base),
            "events": lambda: what_happens(base, image, docker),
            "growth": lambda: growth(base, REQUESTS),
            "fuzzing": lambda: fuzzing(FUZZ_INPUTS, FUZZ_EXAMPLES),
            "models": lambda: models(500),
            "kills": lambda: section(*kills(50)),
            "stops": lambda: section(*stops_of_rows(10_000_000, Path(folder))),
            **{name: partial(proof, name) for name in PROOFS},
            "edge": lambda: section(*on_devices(data, Path(folder))),
            "sample": lambda: section(*cost_of_sample(data, Path(folder))),
            "rows": lambda: section(*growth_of_rows([10_000, 100_000, 1_000_000, 10_000_000], Path(folder))),
            "load": lambda: load_sections(data, target),
            "endurance": lambda: of_forest(data, Path(folder), partial(endure, slices=20), by_workers),
            "inside": lambda: of_forest(data, Path(folder), parts, by_thread, by_slots),
            "scale": lambda: "\n".join(section(*table) for table in over_hosts([10_000, 100_000], Path(folder))),
        }
        if set(only) - set(sections):
            print(f"SECTIONS takes: {' '.join(sections)}", file=sys.stderr)
            return 1
        written = [measure() for name, measure in sections.items() if not only or name in only]
    put(target, written)
    print("\n".join(written))
    return 0


def of_forest(data: Path, folder: Path, *measures: Callable[[Path, Path], Table]) -> str:
    """Measure a server of the model that `make load` serves."""
    forest = Path(tempfile.mkdtemp(prefix="forest-", dir=folder))
    base = trained(forest, data, FOREST)
    return "\n".join(section(*measure(base, forest)) for measure in measures)


def quality(data: Path, folder: Path, estimators: Sequence[str]) -> str:
    """Cross-validate each estimator with its defaults over all rows of the sample."""
    rows = []
    for estimator in estimators:
        base = folder / estimator
        lay_out(base, {"training": data}, {"estimator": estimator, "cv_folds": "5"})
        output = train(Processes(), base).output
        scores = dict(re.findall(r"metric (cv:\w+)=([-+0-9.eE]+);", output))
        rows.append([estimator, *scores.values()])
    return section(
        "Quality: five shuffled folds over the sample, defaults, seed 0",
        'make run HYPERPARAMETERS="estimator=.. cv_folds=5"',
        ["estimator", *(name.removeprefix("cv:") for name in scores)],
        rows,
    )


def start_up(base: Path, rounds: int) -> str:
    """Time `serve` from the start of its process to the first 200, and what that process spends it on."""
    runs = [_start_once(base) for _ in range(rounds)]
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    total = statistics.median(sum(run.values()) for run in runs)
    rows = [[name, f"{1000 * seconds:.0f}", f"{seconds / total:.0%}"] for name, seconds in medians.items()]
    rows.append(["**process start to the first 200**", f"**{1000 * total:.0f}**", "100%"])
    return section(f"Start of `serve`, medians of {rounds}", "make soak", ["step", "ms", "share"], rows)


def _start_once(base: Path) -> dict[str, float]:
    """Start one server that notes the time after each step; return the seconds of each."""
    notes, port = base.parent / "laps.json", free_port()
    own = {
        "SAGEMAKER_BASE_DIR": str(base),
        "PORT": str(port),
        "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    notes.unlink(missing_ok=True)
    last = time.time()
    command = [sys.executable, "-c", PROBE, str(ROOT), str(notes)]
    with subprocess.Popen(command, env={**os.environ, **own}, stderr=subprocess.DEVNULL) as program:
        _wait_for_200(f"http://127.0.0.1:{port}/ping")
        ready = time.time()
        program.terminate()
    steps = {}
    for name, moment in [*json.loads(notes.read_text()), ("gunicorn: fork, event loop, first request", ready)]:
        steps[name], last = moment - last, moment
    return steps


def _wait_for_200(url: str) -> None:
    started = time.monotonic()
    while time.monotonic() - started < 60:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.005)
    raise RuntimeError(f"{url} did not answer 200 within 60 s")


def container_start(model: Path, image: str, docker: str, rounds: int) -> str:
    """Time `docker run`, read-only, from the command to the first 200; `true` in the same image is the floor."""
    profiles: dict[str, list[str]] = {"as root": [], "--user 1000": ["--user", "1000"]}
    rows = []
    for name, options in profiles.items():
        floors = [_timed([docker, "run", "--rm", *options, image, "true"]) for _ in range(rounds)]
        times = [_seconds_to_first_answer(model, image, docker, options) for _ in range(rounds)]
        medians = statistics.median(times), statistics.median(floors)
        rows.append([name, f"{medians[0]:.2f}", f"{medians[1]:.2f}", f"{medians[0] / medians[1]:.1f}"])
    command = "docker run --read-only --tmpfs /tmp -v MODEL:/opt/ml/model:ro IMAGE serve"
    return section(
        f"Start of a container, medians of {rounds}: `{command}`", "make soak", ["", "s", "`true`: s", "ratio"], rows
    )


def image_parts(image: str, docker: str) -> str:
    """List the ten largest parts of the image and its sizes on disk and compressed."""
    size = int(_output([docker, "image", "inspect", "--format", "{{.Size}}", image]))
    script = (
        "du -sk /opt/venv/lib/python3*/site-packages/* /opt/berth /usr /var /etc 2>/dev/null; true"  # a base alone lacks some
    )
    measured = _output([docker, "run", "--rm", image, "sh", "-c", script]).splitlines()
    parts = sorted(((int(line.split("\t")[0]) / 1000, line.split("\t")[1]) for line in measured), reverse=True)[:10]
    rows = [[path, f"{size_mb:.1f}"] for size_mb, path in parts]
    rows.append(["**all, on disk**", f"**{size / 1e6:.1f}**"])
    rows.append(["**all, compressed layer by layer (gzip)**", f"**{compressed_bytes(image, docker) / 1e6:.1f}**"])
    return section("The image: ten largest parts", "make soak", ["part", "MB"], rows)


def what_happens(base: Path, image: str, docker: str, seconds: float = 3.0, sockets: int = 10_000) -> str:
    """Do to a running server what can happen to one, and say what came of it."""
    rows = [
        outcomes.stop_under_load(base, seconds),
        outcomes.kill_worker(base, seconds),
        outcomes.full_disk(base, image, docker),
        outcomes.clock_jump(base, seconds),
        outcomes.open_sockets(base, sockets),
        outcomes.model_deleted(_copy(base), seconds),
    ]
    return section("What happens when", "make soak", ["event", "outcome"], rows)


def growth(base: Path, requests: int) -> str:
    """Send very many requests and watch the workers' memory."""
    return section("Memory over many requests", "make soak", ["what", "figures"], [outcomes.flat_memory(base, requests)])


def _copy(base: Path) -> Path:
    copy = base.with_name(f"{base.name}-copy")
    shutil.copytree(base, copy)
    return copy


def fuzzing(inputs: int, examples: int) -> str:
    """Run the fuzzing tests with many more inputs than `make test` does; say what they said."""
    environ = {"FUZZ_INPUTS": str(inputs), "FUZZ_EXAMPLES": str(examples)}
    rows = []
    for what, tests in (
        (f"{inputs:,} damaged bodies through every decoder", ["tests/test_fuzz.py"]),
        (f"{examples} requests an operation from /openapi.json", ["tests/test_openapi.py", "-k", "word"]),
    ):
        rows.append([what, _pytest(environ, *tests)])
    return section("Fuzzing", "make soak", ["inputs", "pytest says"], rows)


def _pytest(environ: dict[str, str], *tests: str) -> str:
    """Return the last line of a run of tests."""
    return pytest_says(environ, *tests).splitlines()[-1]


def models(count: int) -> str:
    """Cycle models of three schemas through a multi-model endpoint of limited memory."""
    options = ["--models", str(count), "--rounds", "8"]
    command = [sys.executable, "-m", "local_test.soak.multimodel", *options]
    title = f"{count} models in one multi-model endpoint"
    return told(title, f"python -m local_test.soak.multimodel {' '.join(options)}", _output(command))


def memory_of_bodies(base: Path, size_mb: int = 25) -> str:
    """Say what a large body costs in memory, by format."""
    rows = [[name, f"{times:.1f}"] for name, times in body_memory(base, size_mb).items()]
    title = f"Memory that a body of {size_mb} MB costs a worker at its peak, in bodies"
    return section(title, "make soak", ["format", "bodies"], rows)


def compressed_bytes(image: str, docker: str) -> int:
    """Return what a registry stores and a host pulls: the sum of the layers, gzipped."""
    saved = subprocess.run([docker, "save", image], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        layers = json.load(_member(archive, "manifest.json"))[0]["Layers"]
        return sum(len(gzip.compress(_member(archive, layer).read(), 6)) for layer in layers)


def _member(archive: tarfile.TarFile, name: str) -> io.BufferedReader | io.BytesIO:
    file = archive.extractfile(name)
    if file is None:
        raise RuntimeError(f"docker save wrote no {name}")
    return file  # type: ignore[return-value]


def _seconds_to_first_answer(model: Path, image: str, docker: str, options: Sequence[str]) -> float:
    started = time.monotonic()
    mounts = ["--read-only", "--tmpfs", "/tmp", "--volume", f"{model}:/opt/ml/model:ro", "--publish", "127.0.0.1::8080"]  # noqa: S108
    name = _output([docker, "run", "--detach", *mounts, *options, image, "serve"])
    try:
        _wait_for_200("http://" + _output([docker, "port", name, "8080/tcp"]).splitlines()[0] + "/ping")
        return time.monotonic() - started
    finally:
        subprocess.run([docker, "rm", "--force", name], capture_output=True, check=False)


def _timed(command: Sequence[str]) -> float:
    started = time.monotonic()
    subprocess.run(command, capture_output=True, check=True)
    return time.monotonic() - started


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
