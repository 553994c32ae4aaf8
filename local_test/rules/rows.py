"""What becomes of the rows of CSV: H-15, H-19, H-29, H-30."""

from __future__ import annotations

from local_test.emulator import Reply
from local_test.rules.odd import EMPTY_CELL, HEADED, HEADLESS, NAN_CELL, TOO_NARROW, TOO_WIDE, harmless, odd_replies, refused
from local_test.rules.records import CSV, Table, lines, table
from local_test.rules.wire import ask, describe, header, media_type, payload_of
from local_test.subject import Subject
from local_test.verdicts import DoesNotApply, Rule, Severity, Violated

COUNTS = (1, 2, 7)


def a_line_a_row(subject: Subject) -> str:
    """Judge whether every row has its own line of answer, whatever their number."""
    found = table(payload_of(subject))
    for count in COUNTS:
        reply = _predicted(subject, found.body(count))
        written = lines(reply.body)
        if len(written) != count or not all(line.strip() for line in written):
            blank = sum(not line.strip() for line in written)
            told = f"{len(written)} lines, {blank} of them blank" if blank else f"{len(written)} lines"
            raise Violated(f"{count} rows were answered with {told}: {describe(reply)}")
    return f"{', '.join(map(str, COUNTS))} rows were answered with as many lines"


def line_ends_make_no_difference(subject: Subject) -> str:
    """Judge whether rows are read from Windows' lines, and where the last line's end is missing."""
    body = table(payload_of(subject)).body(2)
    bodies = {"CRLF": body.replace(b"\n", b"\r\n"), "no last newline": body[:-1], "a blank last line": body + b"\n"}
    usual = _predicted(subject, body)
    for name, changed in bodies.items():
        reply = ask(subject, changed, {"Accept": CSV})
        if reply.status != 200 or len(lines(reply.body)) != len(lines(usual.body)):
            raise Violated(f"two rows were answered with {describe(usual)}; with {name}: {describe(reply)}")
    return "the same two lines came with " + ", ".join(bodies)


def wrong_width_is_refused(subject: Subject) -> str:
    """Judge whether a row with a cell too many or too few is refused, not predicted."""
    if table(payload_of(subject)).width < 2:
        raise DoesNotApply("the payload's rows have one cell")
    return refused(subject, (TOO_WIDE, TOO_NARROW))


def missing_cells_do_no_harm(subject: Subject) -> str:
    """Judge whether a missing value is predicted, or refused as the caller's fault; the row must not vanish."""
    _with_numbers(subject, "that could be missing")
    seen = harmless(subject, (EMPTY_CELL, NAN_CELL))
    for name in (EMPTY_CELL, NAN_CELL):
        reply = odd_replies(subject)[name]
        if _is_predicted(reply) and not reply.body.strip():
            raise Violated(f"{name} in one row: {describe(reply)}; a line, or 4xx, was expected")
    return seen


def header_row_does_no_harm(subject: Subject) -> str:
    """Judge whether a header row is skipped or refused: an object's first part may have one, and a header has no answer."""
    found = _with_numbers(subject, "that would tell them from a header")
    name = HEADLESS if found.head else HEADED
    seen = harmless(subject, (name,))
    reply = odd_replies(subject)[name]
    if not found.head and _is_predicted(reply) and len([line for line in lines(reply.body) if line.strip()]) == 3:
        raise Violated(f"a header row was predicted like the two rows below it: {describe(reply)}")
    return seen


def _with_numbers(subject: Subject, why: str) -> Table:
    found = table(payload_of(subject))
    if not found.has_numbers:
        raise DoesNotApply(f"the payload's rows have no number {why}")
    return found


def _predicted(subject: Subject, body: bytes) -> Reply:
    """Return the answer to rows of CSV, in CSV; raises DoesNotApply where another format comes, or none."""
    table(payload_of(subject))
    reply = ask(subject, body, {"Accept": CSV})
    if reply.status == 406 or (reply.status == 200 and not _is_predicted(reply)):
        raise DoesNotApply(f"CSV is not answered in CSV: {describe(reply, 60)}")
    if reply.status != 200:
        raise Violated(f"{body.count(10)} lines of CSV, the payload's rows, were answered with {describe(reply)}")
    return reply


def _is_predicted(reply: Reply) -> bool:
    return reply.status == 200 and media_type(header(reply, "Content-Type")) == CSV


RULES = (
    Rule(
        "H-19",
        "rows of CSV are answered with a line each",
        Severity.SAGEMAKER,
        "Write one line a row, in the rows' order, with no header and no blank line; a comma-joined line is one record.",
        a_line_a_row,
        ("answer_has_its_type",),
    ),
    Rule(
        "H-30",
        "CSV's line ends make no difference",
        Severity.SAGEMAKER,
        "Read lines that end in CRLF, and a last line with and without its end: parts of an object come as they were split.",
        line_ends_make_no_difference,
        ("a_line_a_row",),
    ),
    Rule(
        "H-30",
        "a header row is skipped or refused",
        Severity.SAGEMAKER,
        "Skip a first row of the columns' names, or answer 400: it comes with an object's first part, and has no prediction.",
        header_row_does_no_harm,
        ("odd_requests_are_survived",),
    ),
    Rule(
        "H-15",
        "missing cells are predicted or refused with 4xx",
        Severity.WASTEFUL,
        "Predict a row with a missing value, or answer 400 and name row and column.",
        missing_cells_do_no_harm,
        ("odd_requests_are_survived",),
    ),
    Rule(
        "H-15",
        "rows of another width are refused with 4xx",
        Severity.WASTEFUL,
        "Count the cells, answer 400, and say how many you expect.",
        wrong_width_is_refused,
        ("odd_requests_are_survived",),
    ),
)
