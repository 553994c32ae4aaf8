"""Requests that are not as they should be, asked once for all rules about their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from local_test.emulator import Reply
from local_test.rules.records import JSON, JSON_LINES, cells, is_number, join, table
from local_test.rules.wire import ask, describe, media_type, payload_of
from local_test.subject import Payload, Subject
from local_test.verdicts import DoesNotApply, Violated

UNHEARD = "application/x-unheard-of"
"""A media type that nobody reads or writes."""
NO_TEXT, HALF_TEXT, EMPTY = "bytes that are no text", "half a text", "an empty body"
UNHEARD_TYPE, NO_TYPE, CURLS_TYPE = f"Content-Type {UNHEARD}", "no Content-Type", "curl's Content-Type"
TOO_WIDE, TOO_NARROW, EMPTY_CELL, NAN_CELL = "a cell too many", "a cell too few", "an empty cell", "a cell NaN"
HEADED, HEADLESS = "a header row", "no header row"


@dataclass(frozen=True)
class Odd:
    """A request that is not as it should be."""

    body: bytes | None = None
    """In place of the payload."""
    headers: Mapping[str, str | None] = field(default_factory=dict)


ODD_JSON = {
    f"a body of {text}": Odd(text.encode())
    for text in ("null", "[]", "{}", "7", '{"instances": null}', '{"instances": [[null, {}]]}')
}


def odd_replies(subject: Subject) -> Mapping[str, Reply]:
    """Return the answers to all odd requests, by what is odd.

    Raises:
        Violated: one has no answer, or the server does not live on.
    """

    def make() -> Mapping[str, Reply]:
        replies = {}
        for name, odd in odd_requests(payload_of(subject)).items():
            try:
                replies[name] = ask(subject, odd.body, odd.headers)
            except OSError as error:
                raise Violated(f"{name}: {error}") from error
        reply = subject.endpoint.ping()
        if reply.status != 200:
            raise Violated(f"/ping answered {reply.status} after requests that were not as they should be")
        return replies

    return subject.once("odd requests", make)


def odd_requests(payload: Payload) -> dict[str, Odd]:
    """Return requests, made from a good payload, by what is odd of them."""
    kind = media_type(payload.content_type)
    half = payload.body[: len(payload.body) // 2] if kind == JSON else b'{]gar"bage,\n'
    found = {
        NO_TEXT: Odd(b"\xff\xfe\x00\x80,garbage\x00{\n\x81" * 20),
        HALF_TEXT: Odd(half),
        EMPTY: Odd(b""),
        UNHEARD_TYPE: Odd(headers={"Content-Type": UNHEARD}),
        NO_TYPE: Odd(headers={"Content-Type": None}),
        CURLS_TYPE: Odd(headers={"Content-Type": "application/x-www-form-urlencoded"}),
    }
    return {**found, **(ODD_JSON if kind in {JSON, *JSON_LINES} else {}), **_odd_rows(payload)}


def refused(subject: Subject, names: Sequence[str], *, may_be_read: bool = False) -> str:
    """Return how odd requests were refused with 4xx.

    Raises:
        Violated: one was answered otherwise; 200 is well where `may_be_read`.
    """
    replies = {name: odd_replies(subject)[name] for name in names}
    wrong = {name: reply for name, reply in replies.items() if not (is_refusal(reply) or (may_be_read and reply.status == 200))}
    if wrong:
        raise Violated("; ".join(f"{name}: {describe(reply)}" for name, reply in wrong.items()) + "; 4xx was expected")
    return ", ".join(f"{name}: {reply.status}" for name, reply in replies.items())


def harmless(subject: Subject, names: Sequence[str]) -> str:
    """Return how odd requests were answered; raises Violated where one is said to be the server's fault."""
    replies = {name: odd_replies(subject)[name] for name in names}
    wrong = {name: reply for name, reply in replies.items() if reply.status >= 500}
    if wrong:
        told = "; ".join(f"{name}: {describe(reply)}" for name, reply in wrong.items())
        raise Violated(f"{told}; an answer, or 4xx, was expected")
    return ", ".join(f"{name}: {reply.status}" for name, reply in replies.items())


def is_refusal(reply: Reply) -> bool:
    """Say whether an answer blames the caller."""
    return 400 <= reply.status < 500


def _odd_rows(payload: Payload) -> dict[str, Odd]:
    try:
        found = table(payload)
    except DoesNotApply:
        return {}
    row = cells(found.rows[0])
    number = next((index for index, cell in enumerate(row) if is_number(cell)), 0)
    names = join([f"column_{index + 1}" for index in range(len(row))]) + b"\n"
    rows = found.body(2).removeprefix(found.head)
    return {
        TOO_WIDE: Odd(found.head + join([*row, row[-1]]) + b"\n"),
        TOO_NARROW: Odd(found.head + join(row[:-1]) + b"\n"),
        EMPTY_CELL: Odd(found.head + join([*row[:number], "", *row[number + 1 :]]) + b"\n"),
        NAN_CELL: Odd(found.head + join([*row[:number], "NaN", *row[number + 1 :]]) + b"\n"),
        **({HEADLESS: Odd(rows)} if found.head else {HEADED: Odd(names + rows)}),
    }
