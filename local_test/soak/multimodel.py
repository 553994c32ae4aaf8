"""What many models do to a multi-model endpoint's memory.

`python -m local_test.soak.multimodel` cycles 500 models of about 1 MB, of three schemas, and tells.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_test.emulator import Endpoint, Reply, lay_out, train
from local_test.emulator.frontend import FrontEnd, serving_models
from local_test.payloads import json_body
from local_test.runners import ROOT, Process, Processes

LIMIT_MB = 256
"""What models may take while they are cycled: 500 don't fit by far, so that the platform has to evict."""
ROWS = 600
NUMBERS = '''
"""The data: random numbers."""

from contract.declaration import Feature, Target

NAME, TITLE, ABOUT = "numbers", "Ten random columns", "A schema of numbers alone."
FEATURES = tuple(Feature(f"x{index}", "A number", nullable=index == 3) for index in range(10))
TARGET = Target("y", "A number")
'''
CLASSES = '''
"""The data: random categories and numbers, and three classes."""

from contract.declaration import Feature, Target

NAME, TITLE, ABOUT = "classes", "Random classes", "A schema with categories, missing cells and classes."
FEATURES = (
    Feature("color", "A color", kind="category", choices=("red", "green", "blue"), nullable=True),
    *(Feature(f"size{index}", "A number", nullable=True) for index in range(4)),
)
TARGET = Target("kind", "One of three", kind="class", labels=("a", "b", "c"))
'''
SOURCES = ("contract", "training", "model", "container")


@dataclass(frozen=True)
class Figures:
    """What a number of models, each asked once a round, does to the server."""

    models: int
    size_bytes: int
    """Of the models' ONNX files, on average."""
    loads: int
    evictions: int
    wrong: Sequence[str]
    """Answers that were not those of the day of training."""
    empty_bytes: Sequence[int]
    """Resident memory of the worker before the first model, and after the last was unloaded."""
    round_bytes: Sequence[int]
    """Resident memory at the end of each round."""
    peak_bytes: int
    seconds: float

    @property
    def growth_bytes(self) -> int:
        """How much more the last round left than the first."""
        return self.round_bytes[-1] - self.round_bytes[0]

    def table(self) -> str:
        """Return the figures as Markdown."""
        megabytes = [f"{each / 1e6:.1f}" for each in self.round_bytes]
        rows = {
            "models, and MB of each on average": f"{self.models}, {self.size_bytes / 1e6:.2f}",
            "loads, evictions, wrong answers": f"{self.loads}, {self.evictions}, {len(self.wrong)}",
            "resident MB before the first model": f"{self.empty_bytes[0] / 1e6:.1f}",
            "resident MB after each round": ", ".join(megabytes),
            "growth from the first round to the last, MB": f"{self.growth_bytes / 1e6:+.1f}",
            "resident MB at the peak": f"{self.peak_bytes / 1e6:.1f}",
            "resident MB after the last model was unloaded": f"{self.empty_bytes[1] / 1e6:.1f}",
            "seconds": f"{self.seconds:.0f}",
        }
        return "\n".join(["| what | figure |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items()), ""])


def cycle(folders: Sequence[Path], base: Path, count: int, rounds: int = 3, limit_mb: int = LIMIT_MB) -> Figures:
    """Serve `count` models, copies of the folders in turn, and ask each once a round, so that nearly every call loads one."""
    started = time.monotonic()
    store = {f"model-{index}.tar.gz": folders[index % len(folders)] for index in range(count)}
    with serving_models(Processes(), base, store, {"BERTH_MODELS_MAX_MB": str(limit_mb)}) as front:
        endpoint = front.endpoint
        wrong: list[str] = []
        before, after = resident_bytes(endpoint), []
        for _ in range(rounds):
            for target, folder in store.items():
                wrong += [f"{target}: {fault}" for fault in faults(front, target, folder)]
            after.append(resident_bytes(endpoint))
        peak = resident_bytes(endpoint, "VmHWM")
        front.empty()
        emptied = resident_bytes(endpoint)
    size = sum((folder / "model.onnx").stat().st_size for folder in store.values()) // count
    seconds = time.monotonic() - started
    return Figures(count, size, front.loads, front.evictions, wrong, [before, emptied], after, peak, seconds)


def faults(front: FrontEnd, target: str, folder: Path) -> list[str]:
    """Ask a model for its own samples and return what differs from the answers of the day of training."""
    manifest = json.loads((folder / "manifest.json").read_text())
    reply = front.invoke(target, json_body(manifest), "application/json")
    return [] if is_right(reply, manifest) else [f"{reply.status} {reply.text[:200]}"]


def is_right(reply: Reply, manifest: Mapping[str, Any]) -> bool:
    """Say whether a reply to a manifest's sample rows, in JSON, is what training had."""
    if reply.status != 200:
        return False
    found = [_numbers(answer) for answer in json.loads(reply.body)["predictions"]]
    expected = [_numbers(sample["prediction"]) for sample in manifest["samples"]]
    bound = 10 * manifest["parity"]["bound"] + 1e-6
    return [len(row) for row in found] == [len(row) for row in expected] and all(
        abs(a - b) <= bound for row, other in zip(found, expected, strict=True) for a, b in zip(row, other, strict=True)
    )


def _numbers(answer: Any) -> list[float]:
    return list(answer["probabilities"].values()) if isinstance(answer, dict) else [answer]


def resident_bytes(endpoint: Endpoint, field_name: str = "VmRSS") -> int:
    """Return the memory of the server's one worker, now or (VmHWM) at its highest."""
    program = endpoint.program
    if not isinstance(program, Process):
        raise TypeError("memory is read of processes of this machine only")
    pid = program.popen.pid
    (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = Path(f"/proc/{worker}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field_name + ":")) * 1024


def train_schemas(folder: Path, trees: int = 900) -> list[Path]:
    """Train three models of three schemas, each in a copy of the sources with a declaration of its own.

    Args:
        folder: where to work.
        trees: 900 make about 1 MB.
    """
    made = [_train(ROOT, folder / "housing", ROOT / "model" / "sample", trees)]
    for name, declaration, per_round in (("numbers", NUMBERS, 1), ("classes", CLASSES, 3)):
        tree, data = folder / name / "tree", folder / name / "data"
        for source in SOURCES:
            shutil.copytree(ROOT / source, tree / source, ignore=shutil.ignore_patterns("__pycache__"))
        (tree / "model" / "features.py").write_text(declaration)
        data.mkdir()
        _write_noise(data / "data.csv", name)
        made.append(_train(tree, folder / name, data, trees // per_round))
    return made


def _train(tree: Path, folder: Path, data: Path, trees: int) -> Path:
    lay_out(folder / "ml", {"training": data}, {"max_iter": str(trees), "learning_rate": "0.02"})
    outcome = train(Processes(tree), folder / "ml")
    if outcome.exit_code:
        raise RuntimeError(outcome.output)
    return folder / "ml" / "model"


def _write_noise(path: Path, name: str) -> None:
    """Write rows that a model can only learn by heart, so that all its trees are full."""
    chance = random.Random(0)  # noqa: S311  # data, no secret
    columns = [f"x{index}" for index in range(10)] if name == "numbers" else [f"size{index}" for index in range(4)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["y", *columns] if name == "numbers" else ["kind", "color", *columns])
        for _ in range(ROWS):
            numbers = [f"{chance.gauss(0, 1):.6f}" for _ in columns]
            marks = [chance.choice("abc"), chance.choice(["red", "green", "blue", ""])]
            writer.writerow([f"{chance.gauss(0, 1):.6f}", *numbers] if name == "numbers" else [*marks, *numbers])


def main() -> int:
    """Cycle models and print the figures; return 1 where an answer was wrong."""
    parser = argparse.ArgumentParser(prog="python -m local_test.soak.multimodel", description=__doc__)
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="berth-models-") as folder:
        figures = cycle(train_schemas(Path(folder)), Path(folder) / "served", arguments.models, arguments.rounds)
    print(figures.table())
    return 1 if figures.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
