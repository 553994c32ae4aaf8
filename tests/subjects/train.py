#!/usr/bin/env python3
"""A sound `train` of the standard library alone: least squares by gradient descent, with checkpoints, stoppable."""

import csv
import io
import json
import math
import os
import re
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

ML = Path("/opt/ml")
CONFIG = ML / "input" / "config"
KNOWN = {"epochs": int, "rate": float, "target": str, "pause_s": float}
EVERY = 100
KEPT = 2

stopped = threading.Event()


class UserError(Exception):
    """What the job's owner can mend."""


def main() -> int:
    """Train, and return the exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.set())
    try:
        train()
    except UserError as error:
        fail(f"UserError: {error}")
        return 1
    except Exception as error:
        traceback.print_exc()
        fail(f"AlgorithmError: {type(error).__name__}: {error}")
        return 2
    return 0


def train() -> None:
    """Read, fit, write."""
    print("train begins", flush=True)
    given = hyperparameters()
    hosts = config("resourceconfig") or {"current_host": "algo-1", "hosts": ["algo-1"]}
    if hosts["current_host"] != hosts["hosts"][0]:
        print("only the first host has work")
        return
    header, rows = read()
    target = str(given.get("target") or header[-1])
    if target not in header:
        raise UserError(f"There is no column {target!r}; there are {', '.join(header)}.")
    at = header.index(target)
    print(f"rows={len(rows)} columns={len(header)}", flush=True)
    fit = Fit([row[:at] + row[at + 1 :] for row in rows], [row[at] for row in rows])
    fit.pause_s = float(given.get("pause_s", 0))
    fit.run(int(given.get("epochs", 3000)), float(given.get("rate", 0.1)), hosts["current_host"])
    model = {"features": header[:at] + header[at + 1 :], "means": fit.means, "factors": fit.factors(), "bias": fit.bias}
    write(ML / "model" / "model.json", model)
    print(f"final rmse={fit.error:.6f}", flush=True)


class Fit:
    """Gradient descent over standardized columns."""

    def __init__(self, rows: list[list[float]], targets: list[float]) -> None:
        columns = list(zip(*rows, strict=True))
        self.means = [sum(column) / len(column) for column in columns]
        spreads = [
            math.dist(column, [mean] * len(column)) / len(column) ** 0.5
            for column, mean in zip(columns, self.means, strict=True)
        ]
        self.spreads = [spread or 1.0 for spread in spreads]
        self.rows = [[(x - m) / s for x, m, s in zip(row, self.means, self.spreads, strict=True)] for row in rows]
        self.targets = targets
        self.bias = sum(targets) / len(targets)
        self.weights = [0.0] * len(columns)
        self.error = 0.0
        self.pause_s = 0.0  # at each report: a job that lasts, and takes no CPU from what is judged beside it

    def run(self, epochs: int, rate: float, host: str) -> None:
        """Fit on from the last checkpoint, until the end or a stop."""
        folder = checkpoints()
        first = 0
        if folder and (last := latest(folder, host)):
            stored = json.loads(last.read_text())
            first, self.weights = stored["epoch"], stored["weights"]
            print(f"resumed at epoch {first}", flush=True)
        for epoch in range(first, max(epochs, first + 1)):
            self.step(rate)
            if stopped.is_set():
                print(f"stopped after epoch {epoch}", flush=True)
            if epoch % EVERY == 0 or stopped.is_set():
                print(f"epoch={epoch} rmse={self.error:.6f}", flush=True)
                if folder:
                    keep(folder, host, {"epoch": epoch + 1, "weights": self.weights})
                stopped.wait(self.pause_s)
            if stopped.is_set():
                return

    def step(self, rate: float) -> None:
        """Go one step down."""
        residuals = [
            sum([weight * x for weight, x in zip(self.weights, row, strict=True)]) + self.bias - target
            for row, target in zip(self.rows, self.targets, strict=True)
        ]
        share = rate / len(residuals)
        self.weights = [
            weight - share * sum([r * x for r, x in zip(residuals, column, strict=True)])
            for weight, column in zip(self.weights, zip(*self.rows, strict=True), strict=True)
        ]
        self.error = (sum([r * r for r in residuals]) / len(residuals)) ** 0.5

    def factors(self) -> list[float]:
        """Return the weights for columns as they are."""
        return [weight / spread for weight, spread in zip(self.weights, self.spreads, strict=True)]


def config(name: str) -> dict:
    """Return one of the platform's config files; one that is missing is empty."""
    path = CONFIG / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def hyperparameters() -> dict:
    """Return what the job gives, however it is spelt, without what the platform adds."""
    given = {
        name: parse(value)
        for name, value in config("hyperparameters").items()
        if not name.startswith(("sagemaker_", "_tuning_"))
    }
    unknown = sorted(set(given) - set(KNOWN))
    if unknown:
        raise UserError(f"There is no hyperparameter {', '.join(unknown)}; there are {', '.join(KNOWN)}.")
    for name, value in given.items():
        try:
            KNOWN[name](value)
        except (TypeError, ValueError):
            raise UserError(f"{name} is {value!r}; a value of type {KNOWN[name].__name__} was expected.") from None
    return given


def parse(value: object) -> object:
    """Return a value out of its spelling: JSON, JSON in JSON, a word for a boolean, or the text itself."""
    if not isinstance(value, str):
        return value
    try:
        inner = json.loads(value)
    except ValueError:
        return {"true": True, "false": False}.get(value.lower(), value)
    return parse(inner) if isinstance(inner, str) and inner != value else inner


def read() -> tuple[list[str], list[list[float]]]:
    """Return the columns' names and the rows of all channels' files."""
    header: list[str] = []
    rows: list[list[float]] = []
    channels = config("inputdataconfig")
    for name, about in sorted(channels.items()):
        for source, text in texts(name, about):
            records = [record for record in csv.reader(io.StringIO(text)) if record]
            header = header or (records[0] if records else [])
            for number, record in enumerate(records, 1):
                if record != header:
                    rows.append(numbers(record, len(header), f"{source}, line {number}"))
    if not rows:
        raise UserError(f"There are no rows: channels {', '.join(channels) or '(none)'} hold no CSV with any.")
    return header, rows


def texts(channel: str, about: dict):
    """Yield the name and the text of each of a channel's files, or of what its FIFO gives."""
    folder = ML / "input" / "data"
    if about.get("TrainingInputMode") == "Pipe":
        paths = [folder / f"{channel}_0"]
        while not paths[0].exists():
            time.sleep(0.05)
    else:
        paths = sorted(path for path in (folder / channel).rglob("*.csv") if path.is_file())
    for path in paths:
        try:
            yield path.name, path.read_text()
        except UnicodeDecodeError:
            raise UserError(f"{path.name} of channel {channel} is no UTF-8 text; CSV was expected.") from None


def numbers(record: list[str], width: int, where: str) -> list[float]:
    """Return a record's cells as numbers."""
    try:
        row = [float(cell) for cell in record]
    except ValueError:
        raise UserError(f"{where} holds something that is no number.") from None
    if len(row) != width or not all(map(math.isfinite, row)):
        raise UserError(f"{where} has {len(row)} values; {width} numbers were expected.")
    return row


def checkpoints() -> Path | None:
    """Return where checkpoints are kept, if they are (T-29: the path is the job's)."""
    folder = Path(config("checkpointconfig").get("LocalPath", ML / "checkpoints"))
    return folder if folder.is_dir() else None


def saved(folder: Path, host: str) -> list[Path]:
    """Return a host's checkpoints, the oldest first: neither what is being written nor what the uploader leaves."""
    return sorted(path for path in folder.iterdir() if re.fullmatch(rf"{re.escape(host)}-\d{{8}}\.json", path.name))


def latest(folder: Path, host: str) -> Path | None:
    """Return the last checkpoint."""
    return next(reversed(saved(folder, host)), None)


def keep(folder: Path, host: str, state: dict) -> None:
    """Write a checkpoint, and remove old ones that are not being uploaded."""
    write(folder / f"{host}-{state['epoch']:08}.json", state)
    for path in saved(folder, host)[:-KEPT]:
        if not path.with_name(f"{path.name}.sagemaker-uploading").exists():
            path.unlink(missing_ok=True)


def write(path: Path, document: dict) -> None:
    """Write a file that is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.sagemaker-ignore")
    with unfinished.open("w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)


def fail(message: str) -> None:
    """Say why in the log and in the failure file, unless another host was first (T-26)."""
    print(message, file=sys.stderr, flush=True)
    failure = ML / "output" / "failure"
    failure.parent.mkdir(parents=True, exist_ok=True)
    if not failure.exists():
        failure.write_text(message[:1024])


if __name__ == "__main__":
    sys.exit(main())
