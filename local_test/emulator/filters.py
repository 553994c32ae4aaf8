"""DataProcessing of a batch transform job: what is kept of a record, and how an answer is joined to its record (H-29).

The platform takes a part of JSONPath: `$`, `.name`, `*`, `['a','b']`, `[0,2]`, `[1:3]`; of a row of CSV, places alone. A slice
ends before its second number, as in the library that AWS's guide names, though the guide's own words say otherwise.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

MOST_CHARACTERS = 63  # H-29
INPUT, OUTPUT = "SageMakerInput", "SageMakerOutput"
CSV, JSON, JSON_LINES = "text/csv", "application/json", "application/jsonlines"
NAME = "[A-Za-z0-9]+"
"""The platform refuses an underscore in a name: aws/aws-sdk#184."""
STEP = re.compile(
    rf"\.(?P<child>{NAME})|\.?\[(?P<names>\s*'{NAME}'(?:\s*,\s*'{NAME}')*\s*)\]|(?P<all>\.\*|\.?\[\*\])"
    r"|\.?\[(?P<places>\s*-?\d+(?:\s*,\s*-?\d+)*\s*)\]|\.?\[\s*(?P<start>-?\d*)\s*:\s*(?P<end>-?\d*)\s*\]"
)


class BadFilter(ValueError):
    """A filter that the platform would refuse, or that finds nothing."""


@dataclass(frozen=True)
class Step:
    """One step of a path: from a value to what it leads to."""

    take: Callable[[Any], Any]
    is_many: bool = False
    """Whether it leads to a list of values, which the steps after it are taken from, one by one."""


def parse(path: str) -> tuple[Step, ...]:
    """Return the steps of a path; none of `$`.

    Raises:
        BadFilter: the platform does not take it; the message has where it stops being readable.
    """
    if len(path) > MOST_CHARACTERS:
        raise BadFilter(f"{path} has {len(path)} characters; a filter may have {MOST_CHARACTERS}")
    if not path.startswith("$"):
        raise BadFilter(f"{path!r} does not begin with $")
    steps, at = [], 1
    while at < len(path):
        found = STEP.match(path, at)
        if not found:
            raise BadFilter(
                f"{path}: {path[at:]!r} is none of .name, *, ['a','b'], [0,2], [1:3]; letters and digits make a name"
            )
        steps.append(_step(found))
        at = found.end()
    return tuple(steps)


def select(steps: Sequence[Step], value: Any) -> Any:
    """Return what a path finds.

    Raises:
        BadFilter: there is no such place or name.
    """
    if not steps:
        return value
    first, *rest = steps
    try:
        found = first.take(value)
    except (LookupError, TypeError, AttributeError) as error:
        raise BadFilter(f"a filter finds nothing in {json.dumps(value)[:100]}: {type(error).__name__} {error}") from error
    return [select(rest, each) for each in found] if first.is_many else select(rest, found)


@dataclass(frozen=True)
class Processing:
    """The request's DataProcessing, for objects of one media type."""

    content_type: str = CSV
    input_filter: str = "$"
    output_filter: str = "$"
    join_source: str = "None"

    @property
    def is_on(self) -> bool:
        """Whether it does anything: records and answers are only read where it does."""
        return (self.input_filter, self.output_filter, self.join_source) != ("$", "$", "None")

    @property
    def media_type(self) -> str:
        """The media type without its parameters."""
        return self.content_type.partition(";")[0].strip().lower()

    def check(self) -> None:
        """Raise BadFilter where the platform would not take it."""
        if self.join_source not in {"None", "Input"}:
            raise BadFilter(f"JoinSource is None or Input, not {self.join_source!r}")
        parse(self.input_filter)
        parse(self.output_filter)
        if self.is_on and self.media_type not in FORMS:
            raise BadFilter(f"records of {self.media_type} are not filtered or joined: {', '.join(FORMS)} are")
        if self.media_type == CSV:
            for path in (self.input_filter, self.output_filter):
                if re.search("[A-Za-z*]", path):
                    raise BadFilter(f"{path}: a row of CSV has places, no names: $[0], $[1:]")

    def before(self, body: bytes) -> bytes:
        """Return what the container gets of a mini-batch."""
        if self.input_filter == "$":
            return body
        read, write = FORMS[self.media_type]
        steps = parse(self.input_filter)
        return write([select(steps, record) for record in read(body)])

    def after(self, body: bytes, answer: bytes) -> bytes:
        """Return what is written of a mini-batch's answer.

        Raises:
            BadFilter: there are not as many answers as records, or they can't be read.
        """
        if (self.output_filter, self.join_source) == ("$", "None"):
            return answer
        read, write = FORMS[self.media_type]
        records, answers = read(body), read(answer)
        if self.join_source == "Input":
            if len(records) != len(answers):
                raise BadFilter(f"{len(records)} records can't be joined with {len(answers)} answers: they must be 1:1 (H-29)")
            join = _join_rows if self.media_type == CSV else _join_documents
            answers = [join(record, each) for record, each in zip(records, answers, strict=True)]
        steps = parse(self.output_filter)
        return write([select(steps, each) for each in answers])


def _step(found: re.Match[str]) -> Step:
    parts = found.groupdict()
    if parts["child"]:
        return Step(lambda value: value[parts["child"]])
    if parts["names"]:
        names = re.findall(NAME, parts["names"])
        return Step(lambda value: value[names[0]] if len(names) == 1 else {name: value[name] for name in names})
    if parts["all"]:
        return Step(lambda value: list(value.values()) if isinstance(value, dict) else list(value), is_many=True)
    if parts["places"]:
        places = [int(place) for place in parts["places"].split(",")]
        return (
            Step(lambda value: [value[place] for place in places], True) if places[1:] else Step(lambda value: value[places[0]])
        )
    span = slice(*(int(bound) if bound else None for bound in (parts["start"], parts["end"])))
    return Step(lambda value: value[span], is_many=True)


def _join_rows(record: list[str], answer: list[str]) -> list[str]:
    return [*record, *answer]


def _join_documents(record: Any, answer: Any) -> Any:
    return {**record, OUTPUT: answer} if isinstance(record, dict) else {INPUT: record, OUTPUT: answer}


def _read_csv(body: bytes) -> list[Any]:
    try:
        return [row for row in csv.reader(io.StringIO(_text(body), newline=""), strict=True) if row]
    except csv.Error as error:
        raise BadFilter(f"{body[:100]!r} is no CSV: {error}") from error


def _write_csv(rows: Iterable[Any]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(row if isinstance(row, list) else [row] for row in rows)
    return text.getvalue().removesuffix("\n").encode()


def _read_json(body: bytes) -> list[Any]:
    try:
        return [json.loads(body)]
    except ValueError as error:
        raise BadFilter(f"{body[:100]!r} is no JSON document: {error}") from error


def _read_json_lines(body: bytes) -> list[Any]:
    return [document for line in body.split(b"\n") if line.strip() for document in _read_json(line)]


def _write_json(documents: Iterable[Any]) -> bytes:
    return "\n".join(json.dumps(document, ensure_ascii=False) for document in documents).encode()


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise BadFilter(f"{body[:100]!r} is not UTF-8: {error}") from error


FORMS: dict[str, tuple[Callable[[bytes], list[Any]], Callable[[Iterable[Any]], bytes]]] = {
    CSV: (_read_csv, _write_csv),
    JSON: (_read_json, _write_json),
    JSON_LINES: (_read_json_lines, _write_json),
}
"""Media type to what reads and writes its records."""
