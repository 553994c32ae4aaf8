"""The listing's sample files: rows of the publishable sample, as requests and as a batch, with what a real server answers."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.declaration import Declaration
from contract.media import CSV, JSON, JSONLINES
from deploy.errors import Failed, NotThere
from deploy.jobs.samples import Row, row_of, sample_body
from deploy.market.answers import Answer, Runner, Server, in_batches, serving, trained

DIMENSION = "inference.count"
"""H-41; where no other is set."""
ENDINGS = {CSV: "csv", JSON: "json", JSONLINES: "jsonl"}
"""The types that samples are written in: those that a person can read."""
ROWS, BATCH_ROWS, PART_ROWS = 3, 40, 16
BATCH_FILE = "rows.csv"
BROKEN = b"1\n"
"""A request that no model of two features or more can read."""


@dataclass(frozen=True)
class Exchange:
    """A request and its answer."""

    name: str
    """Of the request's file."""
    content_type: str
    body: bytes
    answer: Answer

    @property
    def is_general(self) -> bool:
        """Whether it shows a type, not a label."""
        return self.name.startswith("rows.")

    @property
    def answer_name(self) -> str:
        """Of the answer's file."""
        stem, ending = self.name.rsplit(".", 1)
        return f"{stem}-answer.{'json' if self.answer.status != 200 else ending}"


@dataclass(frozen=True)
class Samples:
    """All of them, and what was measured of the model that answered."""

    exchanges: tuple[Exchange, ...]
    refused: Exchange
    """A request that can't be read, and what is said to that."""
    records: bytes
    """The batch's input, CSV."""
    outputs: bytes
    """The object that a transform job leaves for it."""
    metrics: dict[str, float]


def sampled(runner: Runner, declaration: Declaration, data: Path, dimension: str = DIMENSION) -> Samples:
    """Train on the sample, and ask the model.

    Raises:
        Failed: the training job or the server did, or a sample was refused.
        NotThere: there are no rows to ask about.
    """
    lines = list(_lines(declaration, data))
    with trained(runner, data, {}) as base:
        with serving(runner, base, {"BERTH_METERING_DIMENSION": dimension}) as server:
            exchanges = tuple(_exchanges(server, declaration, lines))
            refused = Exchange("unreadable.csv", CSV, BROKEN, server.ask(BROKEN, CSV))
        records = sample_body(CSV, [row_of(line) for line in lines[:BATCH_ROWS]])
        with serving(runner, base, {"SAGEMAKER_BATCH": "true"}) as server:
            outputs = in_batches(server, records.splitlines(), CSV, PART_ROWS)
        metrics = json.loads((base / "model" / "manifest.json").read_text())["metrics"]
    return Samples(exchanges, refused, records, outputs, metrics)


def _exchanges(server: Server, declaration: Declaration, lines: Sequence[dict[str, str]]) -> Iterator[Exchange]:
    """Yield a request in each type; of a class, one for each label too, as the guide asks (MK: inputs and outputs)."""
    first = [row_of(line) for line in lines[:ROWS]]
    asked: list[tuple[str, str, Sequence[Row]]] = [(f"rows.{end}", media_type, first) for media_type, end in ENDINGS.items()]
    for label, line in _of_each_label(declaration, lines).items():
        asked.append((f"label-{label}.csv", CSV, [row_of(line)]))
    for name, media_type, rows in asked:
        body = sample_body(media_type, rows)
        answer = server.ask(body, media_type, media_type)
        if answer.status != 200:
            raise Failed(f"The sample {name} is answered with {answer.status}: {answer.body.decode()}")
        yield Exchange(name, media_type, body, answer)


def _of_each_label(declaration: Declaration, lines: Sequence[dict[str, str]]) -> dict[str, dict[str, str]]:
    if declaration.target.kind != "class":
        return {}
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        found.setdefault("".join(letter if letter.isalnum() else "-" for letter in line[declaration.target.name]), line)
    return dict(sorted(found.items()))


def _lines(declaration: Declaration, data: Path) -> Iterator[dict[str, str]]:
    """Yield the lines of all CSV files that have the features and the target, as far as both are there."""
    wanted, count = {*declaration.feature_names, declaration.target.name}, 0
    needed = [one.name for one in declaration.features if not one.nullable] + [declaration.target.name]
    for path in sorted(data.rglob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if wanted <= set(reader.fieldnames or ()):
                for line in reader:
                    if all(line[name] not in {"", "NA", "nan"} for name in needed):
                        count += 1
                        yield {name: "" if text in {"NA", "nan"} else text for name, text in line.items()}
    if not count:
        raise NotThere(f"{data} has no CSV file with a header of {', '.join(sorted(wanted))} to take samples of.")


def written(samples: Samples, data: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each file of the kit's folder `samples`, and what it holds."""
    for path in sorted(path for path in data.rglob("*.csv") if path.is_file()):
        yield f"training/{path.name}", path.read_bytes()
    for one in (*samples.exchanges, samples.refused):
        yield f"realtime/{one.name}", one.body
        yield f"realtime/{one.answer_name}", one.answer.body
    yield f"batch/{BATCH_FILE}", samples.records
    yield f"batch-answer/{BATCH_FILE}.out", samples.outputs


def shown(body: bytes, lines: int = 3, width: int = 400) -> str:
    """Return the beginning of a file, for a page."""
    text = body.decode().strip().splitlines()
    kept = [line if len(line) <= width else f"{line[:width]}.." for line in text[:lines]]
    return "\n".join([*kept, ".."] if len(text) > lines else kept)


def literal(samples: Samples) -> dict[str, Any]:
    """Return the requests' files and their types, for the notebook: one of each type."""
    return {one.name: one.content_type for one in samples.exchanges if one.is_general}
