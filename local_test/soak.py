"""`make soak`: the long measurements. Each section is a function that gives Markdown; all go to docs/measured.md.

`make test` runs the same functions small.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from local_test.emulator import lay_out, serving, train
from local_test.runners import ROOT, Processes

ESTIMATORS = ("hist_gradient_boosting", "random_forest", "ridge", "mlp")
PROBE = """
import json, os, sys, time
sys.path[0] = {root!r}
spent, last = {{}}, time.perf_counter()
def lap(name):
    global last
    now = time.perf_counter(); spent[name] = now - last; last = now
import numpy; lap("import numpy")
import onnxruntime; lap("import onnxruntime")
import flask, a2wsgi; lap("import Flask and its bridge")
import gunicorn.app.base, gunicorn.workers.gasgi, uvloop; lap("import gunicorn and uvloop")
from serving.app import App
from serving.predictor import load_predictor
from serving.settings import Settings; lap("import Berth")
settings = Settings.from_environ(os.environ)
predictor = load_predictor(settings.paths.model); lap("check, load and test the model")
App(predictor, settings); lap("make the application")
print(json.dumps(spent))
"""


def soak(data: Path, image: str, docker: str, target: Path) -> int:
    """Measure everything and write the figures over `target`; return an exit code."""
    with tempfile.TemporaryDirectory(prefix="berth-soak-") as folder:
        base = Path(folder) / "ml"
        lay_out(base, {"training": data})
        outcome = train(Processes(), base)
        if outcome.exit_code:
            print(outcome.output)
            return outcome.exit_code
        sections = [
            quality(data, Path(folder), ESTIMATORS),
            start_up(base, rounds=15),
            container_start(base / "model", image, docker, rounds=7),
            image_parts(image, docker),
        ]
    target.write_text("\n".join([_heading(), *sections]))
    print(target.read_text())
    return 0


def quality(data: Path, folder: Path, estimators: Sequence[str]) -> str:
    """Cross-validate each estimator with its defaults over all rows of the sample."""
    rows = []
    for estimator in estimators:
        base = folder / estimator
        lay_out(base, {"training": data}, {"estimator": estimator, "cv_folds": "5"})
        output = train(Processes(), base).output
        scores = dict(re.findall(r"metric (cv:\w+)=([-+0-9.eE]+);", output))
        rows.append([estimator, *scores.values()])
    return _section(
        "Quality: five shuffled folds over the sample, defaults, seed 0",
        'make run HYPERPARAMETERS="estimator=.. cv_folds=5"',
        ["estimator", *(name.removeprefix("cv:") for name in scores)],
        rows,
    )


def start_up(base: Path, rounds: int) -> str:
    """Time `serve` from the start of its process to the first 200, and what it spends that on."""
    totals, parts = [], []
    environ = {**os.environ, "SAGEMAKER_BASE_DIR": str(base), "ORT_DISABLE_TELEMETRY": "1"}
    for _ in range(rounds):
        with serving(Processes(), base, {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}) as endpoint:
            totals.append(endpoint.seconds_to_ready)
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        python = time.perf_counter() - started
        probe = subprocess.run(
            [sys.executable, "-c", PROBE.format(root=str(ROOT))], env=environ, capture_output=True, check=True
        )
        parts.append({"start Python": python, **json.loads(probe.stdout)})
    medians = {name: statistics.median(part[name] for part in parts) for name in parts[0]}
    total = statistics.median(totals)
    medians["gunicorn: fork, loop, first request"] = max(0.0, total - sum(medians.values()))
    rows = [[name, f"{1000 * seconds:.0f}", f"{seconds / total:.0%}"] for name, seconds in medians.items()]
    rows.append(["**process start to the first 200**", f"**{1000 * total:.0f}**", "100%"])
    return _section(f"Start of `serve`, medians of {rounds}", "make soak", ["step", "ms", "share"], rows)


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
    return _section(
        f"Start of a container, medians of {rounds}: `{command}`", "make soak", ["", "s", "`true`: s", "ratio"], rows
    )


def image_parts(image: str, docker: str) -> str:
    """List the ten largest parts of the image and its sizes on disk and compressed."""
    size = int(_output([docker, "image", "inspect", "--format", "{{.Size}}", image]))
    script = "du -sk /opt/venv/lib/python3*/site-packages/* /opt/berth /usr /var /etc 2>/dev/null"
    measured = _output([docker, "run", "--rm", image, "sh", "-c", script]).splitlines()
    parts = sorted(((int(line.split("\t")[0]) / 1000, line.split("\t")[1]) for line in measured), reverse=True)[:10]
    rows = [[path, f"{size_mb:.1f}"] for size_mb, path in parts]
    rows.append(["**all, on disk**", f"**{size / 1e6:.1f}**"])
    rows.append(["**all, compressed layer by layer (gzip)**", f"**{compressed_bytes(image, docker) / 1e6:.1f}**"])
    return _section("The image: ten largest parts", "make soak", ["part", "MB"], rows)


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
        url = "http://" + _output([docker, "port", name, "8080/tcp"]).splitlines()[0]
        while time.monotonic() - started < 60:
            try:
                with urllib.request.urlopen(f"{url}/ping", timeout=2):
                    return time.monotonic() - started
            except OSError:
                time.sleep(0.005)
        raise RuntimeError("no answer within 60 s")
    finally:
        subprocess.run([docker, "rm", "--force", name], capture_output=True, check=False)


def _timed(command: Sequence[str]) -> float:
    started = time.monotonic()
    subprocess.run(command, capture_output=True, check=True)
    return time.monotonic() - started


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _heading() -> str:
    commit = _output(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])
    cpus = os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        "# Measured\n\n"
        f"Written by `make soak` on {datetime.now(UTC):%Y-%m-%d} at commit {commit}: {cpus} CPUs ({platform.machine()}), "
        f"{memory:.0f} GiB, Python {platform.python_version()}.\nThe machine is shared: ratios hold better than times.\n"
    )


def _section(title: str, command: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"## {title}", "", f"`{command}`", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])
