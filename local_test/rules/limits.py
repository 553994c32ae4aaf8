"""How large a body may be, and how it may come: H-12, H-26."""

from __future__ import annotations

from local_test.emulator import INVOKE_S, Reply
from local_test.rules.odd import NO_TEXT, odd_replies
from local_test.rules.records import padded
from local_test.rules.wire import ask, describe, header, payload_of
from local_test.subject import Subject
from local_test.verdicts import Rule, Severity, Violated

MIB = 2**20
COMMON = (2 * MIB, 6 * MIB)
"""More than nginx takes unless it is told to, and what the API's model still has for the most."""
MOST = (25 * MIB, 25 * MIB + 1)
PAYLOAD_TOO_LARGE = 413


def common_bodies_are_taken(subject: Subject) -> str:
    """Judge whether bodies are taken that every guide of the platform allows."""
    seen = []
    for size in COMMON:
        reply = _sent(subject, size)
        if reply.status == PAYLOAD_TOO_LARGE:
            raise Violated(f"a body of {_mb(size)} was answered with {describe(reply)}{_nginx(reply)}; 25 MB may come")
        seen.append(f"{_mb(size)}: {reply.status} after {reply.seconds:.2f} s")
    return ", ".join(seen)


def largest_bodies_are_answered(subject: Subject) -> str:
    """Judge whether bodies at the limit and above it are answered, if only with 413, and /ping after them."""
    seen = []
    for size in MOST:
        reply = _sent(subject, size)
        limit = f"{_nginx(reply)}, though 25 MB may come" if reply.status == PAYLOAD_TOO_LARGE and size == MOST[0] else ""
        seen.append(f"{_mb(size)}: {reply.status}{limit} after {reply.seconds:.2f} s")
    ping = subject.endpoint.ping()
    if ping.status != 200:
        raise Violated(f"/ping answered {ping.status} after bodies of {_mb(MOST[0])}")
    return ", ".join(seen)


def bodies_without_a_length_are_read(subject: Subject) -> str:
    """Judge whether a body that comes in chunks is read: batch transform sends such where MaxPayloadInMB is 0."""
    reply = ask(subject, chunked=True)
    if reply.status != 200:
        raise Violated(f"the payload in chunks, without a Content-Length, was answered with {describe(reply)}")
    return "the payload in chunks, without a Content-Length, was answered with 200"


def _sent(subject: Subject, size: int) -> Reply:
    """Return the answer to a body of a size; raises Violated where there is none, or it is the server's fault."""
    payload = payload_of(subject)
    try:
        reply = ask(subject, padded(payload, size), patience_s=INVOKE_S)
    except OSError as error:
        raise Violated(f"a body of {_mb(size)}: {error}; an answer was expected, or 413") from error
    if reply.status >= 500 and odd_replies(subject)[NO_TEXT].status < 500:
        raise Violated(f"a body of {_mb(size)} was answered with {describe(reply)}; an answer was expected, or 413")
    return reply


def _mb(size: int) -> str:
    return f"{size // MIB} MB" + (f" and {size % MIB} byte" if size % MIB else "")


def _nginx(reply: Reply) -> str:
    """Say whose limit it is where nginx refuses."""
    by_nginx = "nginx" in header(reply, "Server").lower() or "nginx" in reply.text[:1_000].lower()
    return " (by nginx: its client_max_body_size is 1 MB unless it is set)" if by_nginx else ""


RULES = (
    Rule(
        "H-12",
        "bodies of 6 MB are taken",
        Severity.SAGEMAKER,
        "Raise the server's limit to 25 MB (nginx: client_max_body_size 25m), and read a body whole before you answer.",
        common_bodies_are_taken,
        ("odd_requests_are_survived",),
    ),
    Rule(
        "H-12",
        "bodies of 25 MB and more are answered, and survived",
        Severity.SAGEMAKER,
        "Answer 413 to what is more than you take rather than cut the connection, and bound what a body costs in memory.",
        largest_bodies_are_answered,
        ("common_bodies_are_taken",),
    ),
    Rule(
        "H-26",
        "a body without a Content-Length is read",
        Severity.SAGEMAKER,
        "Read chunked bodies to their last chunk: batch transform with MaxPayloadInMB=0 sends such.",
        bodies_without_a_length_are_read,
        ("payload_is_answered",),
    ),
)
