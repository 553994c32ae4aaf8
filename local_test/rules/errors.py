"""What odd requests are answered with: H-15, H-16, H-17, H-20."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from local_test.emulator import Reply
from local_test.rules.odd import (
    CURLS_TYPE,
    EMPTY,
    HALF_TEXT,
    NO_TEXT,
    NO_TYPE,
    ODD_JSON,
    UNHEARD_TYPE,
    harmless,
    odd_replies,
    refused,
)
from local_test.rules.records import JSON, JSON_LINES
from local_test.rules.wire import ask, describe, header, media_type, payload_of
from local_test.subject import Subject
from local_test.verdicts import DoesNotApply, Rule, Severity, Violated

MOST_BYTES = 2_048
"""Of an error that OriginalMessage hands on whole."""
SHAPELESS = frozenset({"text/plain", "application/octet-stream", "application/x-www-form-urlencoded"})
"""Of these any bytes may be a payload."""
TRACES = {
    "Python": r"Traceback \(most recent call last\)|File \"[^\"]+\", line \d+",
    "Java": r"\bat [\w.$]+\([\w.]+\.java:\d+\)",
    "JavaScript": r"\bat .{1,80}\(?/[\w./-]+\.[jt]s:\d+:\d+",
    "Go": r"goroutine \d+ \[",
}
SLEEP_S = 2
SLEEPING = f"ctime\nsleep\n(I{SLEEP_S}\ntR.".encode()
"""A pickle that harms nobody: who loads it sleeps."""


def odd_requests_are_survived(subject: Subject) -> str:
    """Judge whether every odd request is answered, and the server lives on."""
    return f"{len(odd_replies(subject))} odd requests were answered, and /ping with 200 after them"


def garbage_is_refused(subject: Subject) -> str:
    """Judge whether what can't be read is said to be the caller's fault."""
    kind = media_type(payload_of(subject).content_type)
    return refused(subject, (NO_TEXT, HALF_TEXT), may_be_read=kind in SHAPELESS)


def empty_body_is_refused(subject: Subject) -> str:
    """Judge whether nothing is answered with an error, or with nothing."""
    reply = odd_replies(subject)[EMPTY]
    is_nothing = reply.status in {200, 204} and not reply.body.strip(b" \r\n[]")
    return f"{EMPTY}: {describe(reply)}" if is_nothing else refused(subject, (EMPTY,))


def unheard_type_is_refused(subject: Subject) -> str:
    """Judge whether the payload under a type that nobody reads is refused, not read as something else."""
    return refused(subject, (UNHEARD_TYPE,))


def unnamed_type_does_no_harm(subject: Subject) -> str:
    """Judge whether a request without a type, or with curl's, is answered without an error of the server's."""
    return harmless(subject, (NO_TYPE, CURLS_TYPE))


def odd_json_does_no_harm(subject: Subject) -> str:
    """Judge whether JSON of another shape is answered without an error of the server's."""
    kind = payload_of(subject).content_type
    if media_type(kind) not in {JSON, *JSON_LINES}:
        raise DoesNotApply(f"the payload is {kind}; give one in JSON to have this judged")
    return harmless(subject, tuple(ODD_JSON))


def errors_are_short(subject: Subject) -> str:
    """Judge whether errors reach the caller whole."""
    errors = _errors(subject)
    long = {name: len(reply.body) for name, reply in errors.items() if len(reply.body) > MOST_BYTES}
    if long:
        told = ", ".join(f"{name}: {size:,} bytes" for name, size in long.items())
        raise Violated(f"the caller sees the first {MOST_BYTES:,} characters of an error, and these have more: {told}")
    return f"the longest of {len(errors)} errors has {max(len(reply.body) for reply in errors.values()):,} bytes"


def errors_are_no_pages(subject: Subject) -> str:
    """Judge whether errors are for programs and logs, not for browsers."""
    errors = _errors(subject)
    for name, reply in errors.items():
        if media_type(header(reply, "Content-Type")) == "text/html" or re.match(r"\s*<(!doctype|html)", reply.text, re.I):
            raise Violated(f"{name} was answered with a page of HTML: {describe(reply)}")
    return f"none of {len(errors)} errors is HTML"


def errors_have_no_trace(subject: Subject) -> str:
    """Judge whether errors keep the container's code to themselves."""
    errors = _errors(subject)
    for name, reply in errors.items():
        language = next((language for language, pattern in TRACES.items() if re.search(pattern, reply.text)), None)
        if language:
            raise Violated(f"{name} was answered with a stack trace of {language}: {describe(reply, 600)}")
    return f"none of {len(errors)} errors has a stack trace"


def pickles_are_not_loaded(subject: Subject) -> str:
    """Judge whether a pickle is left alone: one that sleeps as it is loaded holds up its answer, and twice is no accident."""
    kinds = {"application/x-npy": _array_of_objects(), "application/x-pickle": b"", "application/octet-stream": b""}
    seen = []
    for kind, start in kinds.items():
        harmless = start + b"."  # a pickle that can't be loaded
        usual_s = min(
            ask(subject, harmless, {"Content-Type": kind}).seconds for _ in range(3)
        )  # one may have met a busy machine
        reply = ask(subject, start + SLEEPING, {"Content-Type": kind})
        if reply.seconds > usual_s + 0.8 * SLEEP_S:
            reply = ask(subject, start + SLEEPING, {"Content-Type": kind})
        if reply.seconds > usual_s + 0.8 * SLEEP_S:
            slow = f"{reply.seconds:.1f} s, and {usual_s:.1f} s without it"
            raise Violated(f"a pickle in a body of {kind} was loaded: it sleeps {SLEEP_S} s, and the answer took {slow}")
        seen.append(f"{kind} {reply.status} after {reply.seconds:.2f} s")
    return f"pickles that sleep {SLEEP_S} s held up nothing: " + ", ".join(seen)


def other_methods_do_no_harm(subject: Subject) -> str:
    """Judge whether a request that is no POST is answered without an error of the server's."""
    replies = {method: ask(subject, method=method) for method in ("GET", "HEAD", "PUT")}
    wrong = [f"{method}: {describe(reply)}" for method, reply in replies.items() if reply.status >= 500]
    if wrong:
        raise Violated("; ".join(wrong) + "; 405 was expected")
    return ", ".join(f"{method} /invocations: {reply.status}" for method, reply in replies.items())


def _errors(subject: Subject) -> Mapping[str, Reply]:
    """Return the odd requests' answers that are errors."""
    errors = {name: reply for name, reply in odd_replies(subject).items() if reply.status >= 400}
    if not errors:
        raise DoesNotApply("no odd request was answered with an error")
    return errors


def _array_of_objects() -> bytes:
    """Return the beginning of a .npy whose one value is a pickle, which follows (numpy.lib.format, version 1.0)."""
    about = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    about += b" " * (-(len(about) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(about)) + about


SURVIVED = ("odd_requests_are_survived",)
RULES = (
    Rule(
        "H-15",
        "odd requests are answered, and survived",
        Severity.SAGEMAKER,
        "Catch what a request raises at the handler: no body may end the server or cut the connection.",
        odd_requests_are_survived,
        ("payload_is_answered",),
    ),
    Rule(
        "H-15",
        "garbage is refused with 4xx",
        Severity.WASTEFUL,
        "Answer 400 to what can't be read: 5xx sets off alarms and rolls deployments back, and batch transform tries it again.",
        garbage_is_refused,
        SURVIVED,
    ),
    Rule(
        "H-15",
        "an empty body is refused with 4xx",
        Severity.WASTEFUL,
        "Answer 400 and say that at least one record was expected.",
        empty_body_is_refused,
        SURVIVED,
    ),
    Rule(
        "H-15",
        "an unknown Content-Type is refused with 4xx",
        Severity.WASTEFUL,
        "Answer 415 and name the types that you read; a body of another format is else read as what it is not.",
        unheard_type_is_refused,
        SURVIVED,
    ),
    Rule(
        "H-16",
        "a missing Content-Type, and curl's, is no error of the server's",
        Severity.WASTEFUL,
        "Take a default for a missing Content-Type, and read the body's stream before a framework parses it as a form.",
        unnamed_type_does_no_harm,
        SURVIVED,
    ),
    Rule(
        "H-17",
        "JSON of another shape is no error of the server's",
        Severity.WASTEFUL,
        "Check the document's shape before you use it, and answer 400.",
        odd_json_does_no_harm,
        SURVIVED,
    ),
    Rule(
        "H-15",
        "errors fit into 2,048 characters",
        Severity.WASTEFUL,
        "Put what was found and what was expected into one sentence; details go to the log.",
        errors_are_short,
        SURVIVED,
    ),
    Rule(
        "H-15",
        "errors are no HTML",
        Severity.WASTEFUL,
        "Answer errors as text or JSON; Flask, for one, needs an error handler for that.",
        errors_are_no_pages,
        SURVIVED,
    ),
    Rule(
        "H-15",
        "errors have no stack trace",
        Severity.WASTEFUL,
        "Write stack traces to the log, and turn a framework's debug mode off.",
        errors_have_no_trace,
        SURVIVED,
    ),
    Rule(
        "H-15",
        "GET, HEAD and PUT on /invocations are no error of the server's",
        Severity.WASTEFUL,
        "Answer 405.",
        other_methods_do_no_harm,
        SURVIVED,
    ),
    Rule(
        "H-20",
        "pickles in a request are not loaded",
        Severity.SAGEMAKER,
        "Load .npy with allow_pickle=False, and take no pickles: whoever sends one runs code in the container.",
        pickles_are_not_loaded,
        ("payload_is_answered",),
    ),
)
