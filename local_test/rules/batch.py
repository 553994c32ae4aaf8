"""How a container does in a batch transform job: H-25, H-26, H-28, H-29, H-31.

H-27, an invocation of 600 s and more, is not judged: to see that none is cut takes as long.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice

from local_test.emulator import Endpoint, Reply
from local_test.emulator.filters import CSV, JSON_LINES
from local_test.emulator.transform import BadParameters, TransformJob, offered_parameters, transform
from local_test.subject import Subject
from local_test.verdicts import Blocked, DoesNotApply, Rule, Severity, Unjudged, Violated

FEWEST, MOST = 3, 8
"""Records that are sent: order can't be seen in fewer, and a slow model has to answer each alone."""
TIMEOUT_S = 60
NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""How far answers may differ by how records were grouped: libraries add up in another order."""
LINES = (CSV, JSON_LINES, "application/x-jsonlines", "application/x-ndjson")
BAD_ROWS = {"with words for numbers": ("[^,]+", "?"), "with two cells too many": ("$", ",1,1")}
BAD_DOCUMENTS = {"that is no JSON": ("^", "{")}
"""What to replace in a record, and by what."""


def batch_starts(subject: Subject) -> str:
    """Judge whether the container becomes ready where its environment says that it serves a batch transform job."""
    return f"with SAGEMAKER_BATCH=true /ping answered 200 after {_batch(subject).seconds_to_ready:.2f} s"


def execution_parameters_can_be_used(subject: Subject) -> str:
    """Judge what the platform reads before a job: nothing, or a JSON object whose product keeps the limit."""
    reply = _batch(subject).get("/execution-parameters")
    if reply.status >= 500:
        raise Violated(f"GET /execution-parameters answered {reply.status}: {reply.text[:200]}")
    try:
        offered = offered_parameters(reply)
        used = TransformJob().parameters(offered)
    except BadParameters as error:
        raise Violated(str(error)) from error
    source = "offered" if offered else "the platform's defaults, as none are offered"
    return (
        f"GET /execution-parameters answered {reply.status}; {source}: {used.max_concurrent_transforms} at a time, "
        f"{used.batch_strategy}, {used.max_payload_mb} MB"
    )


def batch_answers_the_payload(subject: Subject) -> str:
    """Judge whether the container answers in a batch transform job what it answers at an endpoint."""
    if subject.payload is None:
        raise Unjudged("no payload was given: --payload FILE --content-type T")
    reply, other = (_ask(endpoint, subject, subject.payload.body) for endpoint in (_batch(subject), subject.endpoint))
    if reply.status == 200:
        return "the payload is answered with 200"
    told = f"with SAGEMAKER_BATCH=true the payload is answered {reply.status}: {reply.text[:200]}"
    raise Violated(f"{told}; without it 200") if other.status == 200 else Blocked("H-11")


def records_are_answered_in_order(subject: Subject) -> str:
    """Judge whether each record has one answer, the same among others and alone."""
    records = _records(subject)
    together = _lines(subject, records, "MultiRecord")
    alone = _lines(subject, records, "SingleRecord")
    for number, (one, other) in enumerate(zip(together, alone, strict=True), 1):
        if not _same(one, other):
            _hold_against_itself(subject, records, together)
            raise Violated(f"record {number} is answered {one[:100]!r} among {len(records)} records, and {other[:100]!r} alone")
    distinct = len(set(together))
    seen = f"{distinct} different answers" if distinct > 1 else "all answers are equal, so that their order can't be seen"
    return f"{len(records)} records, {len(records)} answers, the same together and one at a time; {seen}"


def a_bad_record_shifts_no_other(subject: Subject) -> str:
    """Judge whether a record that can't be read fails the request or keeps its place; it must not be left out."""
    first, second, third, *_ = _records(subject)
    seen = []
    for what, (found, spoiled) in (BAD_ROWS if _media_type(subject) == CSV else BAD_DOCUMENTS).items():
        reply = _ask(_batch(subject), subject, _body([first, re.sub(found, spoiled, second), third]), _media_type(subject))
        lines = len(_filled(reply.text))
        if reply.status == 200 and lines != 3:
            raise Violated(f"three records, one {what}: answered 200 with {lines} lines, so that answers match no record")
        seen.append(f"{what} answered {reply.status}" + (" with a line for each" if reply.status == 200 else ""))
    return f"three records, one of them {'; '.join(seen)}"


def output_has_no_blank_lines(subject: Subject) -> str:
    """Judge what stands between answers that the platform puts together with AssembleWith=Line."""
    records = _records(subject)[:FEWEST]
    output = _transformed(subject, records, "SingleRecord")
    if isinstance(output, list) or not output.strip():
        raise Unjudged("a record alone is not answered")
    blank = output.split("\n")[:-1].count("")
    if blank:
        raise Violated(f"{len(records)} records, one at a time, left {blank} blank lines: {output[:100]!r}")
    return f"{len(records)} answers, put together with a newline after each, have no blank line"


def _batch(subject: Subject) -> Endpoint:
    return subject.kept("batch", {"SAGEMAKER_BATCH": "true"})


def _media_type(subject: Subject) -> str:
    return subject.payload.content_type.partition(";")[0].strip().lower() if subject.payload else ""


def _ask(endpoint: Endpoint, subject: Subject, body: bytes, accept: str = "") -> Reply:
    return endpoint.invoke(body, subject.payload.content_type if subject.payload else CSV, accept, timeout_s=TIMEOUT_S)


def _records(subject: Subject) -> list[str]:
    """Return lines of the payload, a header left out, at least three.

    Raises:
        Unjudged: it can't be cut at newlines.
        DoesNotApply: its type is not one that is answered, so that nothing can be joined.
    """
    return subject.once("batch records", lambda: _cut(subject))


def _cut(subject: Subject) -> list[str]:
    media_type = _media_type(subject)
    if media_type not in LINES or subject.payload is None:
        raise Unjudged(f"only records of {' or '.join(LINES[:2])} are cut at newlines; the payload is {media_type}")
    lines = _filled(subject.payload.body.decode(errors="replace"))
    if not lines:
        raise Unjudged("the payload has no line: give one with three or more")
    reply = _ask(_batch(subject), subject, _body(lines), media_type)
    named = next((value for name, value in reply.headers.items() if name.lower() == "content-type"), "").lower()
    is_json = named.startswith("application/json;") or named == "application/json" or (media_type == CSV and "json" in named)
    if reply.status == 406 or (reply.status == 200 and is_json):
        raise DoesNotApply(f"it does not answer {media_type} with the same type, so that records and answers can't be joined")
    if media_type == CSV and len(lines) > 1 and _is_header(lines):
        lines = lines[1:]  # H-30: the platform knows no header
    return list(islice(cycle(lines), max(FEWEST, min(MOST, len(lines)))))


def _is_header(lines: Sequence[str]) -> bool:
    """Say whether the first line has no number, and the second has."""
    cells = [[bool(NUMBER.fullmatch(cell.strip().strip('"'))) for cell in line.split(",")] for line in lines[:2]]
    return not any(cells[0]) and any(cells[1])


def _transformed(subject: Subject, records: Sequence[str], strategy: str) -> str | list[str]:
    """Return the output that a job over the records leaves, or why it leaves none."""
    folder = subject.folder / "batch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "records").write_bytes(_body(records))
    content_type = subject.payload.content_type if subject.payload else CSV
    sent = TransformJob(content_type, _media_type(subject), "Line", strategy, max_payload_mb=6, max_concurrent_transforms=4)
    job = replace(sent, assemble_with="Line", invocations_timeout_s=TIMEOUT_S, invocations_max_retries=0)
    done = transform(_batch(subject), job, folder / "records", folder, offered={})
    return list(done.failures.values()) or done.outputs[0].read_text(errors="replace")


def _lines(subject: Subject, records: Sequence[str], strategy: str) -> list[str]:
    """Return the answers that a job over the records leaves; raises Violated where they are not as many."""
    output = _transformed(subject, records, strategy)
    if isinstance(output, list):
        raise Violated(f"a job of {len(records)} records, {strategy}, fails: {'; '.join(output)}")
    lines = _filled(output)
    if len(lines) != len(records):
        raise Violated(f"{len(records)} records were sent, {strategy}, and {len(lines)} came back: {output[:200]!r}")
    return lines


def _hold_against_itself(subject: Subject, records: Sequence[str], together: Sequence[str]) -> None:
    """Raise Unjudged where the same request is answered anew each time: order can't be seen in it."""
    again = _lines(subject, records, "MultiRecord")
    if not all(_same(one, other) for one, other in zip(together, again, strict=True)):
        raise Unjudged("the same records are answered differently each time, so that their order can't be seen")


def _same(one: str, other: str) -> bool:
    """Say whether two answers are equal but for the last digits of their numbers."""
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (one, other)]
    return NUMBER.sub("#", one.strip()) == NUMBER.sub("#", other.strip()) and all(
        abs(a - b) <= ABSOLUTE + RELATIVE * max(abs(a), abs(b)) for a, b in zip(*numbers, strict=True)
    )


def _body(records: Sequence[str]) -> bytes:
    return "".join(f"{record}\n" for record in records).encode()


def _filled(text: str) -> list[str]:
    """Return the lines that are not blank; other separators of lines than these belong to a record."""
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]


RULES = (
    Rule(
        "H-25",
        "serve becomes ready for a batch transform job",
        Severity.SAGEMAKER,
        "Start as for an endpoint: SAGEMAKER_BATCH=true only says that large bodies come, one after another.",
        batch_starts,
        ("becomes_ready",),
    ),
    Rule(
        "H-26",
        "/execution-parameters is left out, or the platform can use it",
        Severity.SAGEMAKER,
        "Answer 404, or a JSON object of MaxConcurrentTransforms, BatchStrategy (MULTI_RECORD or SINGLE_RECORD) and "
        "MaxPayloadInMB, the product of both numbers at most 100.",
        execution_parameters_can_be_used,
        ("batch_starts",),
    ),
    Rule(
        "H-25",
        "the payload is answered in a batch transform job too",
        Severity.SAGEMAKER,
        "Answer POST /invocations alike, whether SAGEMAKER_BATCH is set or not.",
        batch_answers_the_payload,
        ("batch_starts",),
    ),
    Rule(
        "H-29",
        "each record of a batch has one answer, in order, whatever it is sent with",
        Severity.SAGEMAKER,
        "Answer a line for a line, in their order, and compute nothing (a mean, a scale) over the rows of a request.",
        records_are_answered_in_order,
        ("batch_answers_the_payload",),
    ),
    Rule(
        "H-28",
        "a bad record of a batch fails its request or keeps its place",
        Severity.SAGEMAKER,
        "Refuse the body with 400, or write a placeholder in the bad record's line; never skip it.",
        a_bad_record_shifts_no_other,
        ("records_are_answered_in_order",),
    ),
    Rule(
        "H-31",
        "a batch job's output has no blank lines",
        Severity.ELSEWHERE,
        "End the answer without a newline: AssembleWith=Line adds one after each, as the SDK's local mode shows.",
        output_has_no_blank_lines,
        ("batch_answers_the_payload",),
    ),
)
