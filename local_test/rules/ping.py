"""How a server answers the health check, at rest and busy, and what it says of itself: H-8, H-9, H-35, H-37."""

from __future__ import annotations

import contextlib
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from local_test.emulator import PING_S, Endpoint, Reply
from local_test.starts import Pong, ask_ping
from local_test.subject import Payload, Subject
from local_test.verdicts import Blocked, DoesNotApply, Rule, Severity, Unjudged, Violated

PINGS = 20
SLOW_S = 1
"""A first ping that takes longer loads something; the platform's limit of 2 s is near."""
HELD = 4
"""Requests that are not complete yet: more than a few synchronous workers can hold."""
SILENT = 20
"""Connections on which nothing is sent, or half a header."""
BUSY_CLIENTS, BUSY_S = 8, 1.5
PING_EVERY_S = 0.1


def ping_is_quick(subject: Subject) -> str:
    """Judge whether the health check is answered in time, again and again."""
    start = subject.first_start
    if start.ready_s is None:
        late = start.late
        if late and late.status == 200 and late.seconds > PING_S:
            raise Violated(f"GET /ping answered after {late.seconds:.1f} s; {PING_S} s are allowed")
        raise Blocked("H-7")
    return _judge([ask_ping(start.endpoint.program.url) for _ in range(PINGS)])


def ping_has_no_body(subject: Subject) -> str:
    """Judge whether the answer is the empty one that the platform asks for; a line's end counts as none."""
    body = ask_ping(subject.endpoint.program.url).body
    if body.strip():
        raise Violated(f"GET /ping answered 200 with {len(body)} bytes: {body[:80]!r}")
    return "GET /ping answered 200 with nothing"


def model_is_loaded_before_ping(subject: Subject) -> str:
    """Judge whether the first ping has to wait for the model: then the first of each worker does."""
    slow = [ping for ping in subject.first_start.pings if ping.seconds > SLOW_S]
    if not slow:
        return "no ping was slow while it started"
    with subject.watched(idle=True) as start:
        start.ready()
        first = next(ping for ping in start.pings if ping.status == 200 or ping.seconds > SLOW_S)
        later = ask_ping(start.endpoint.program.url)
        if first.seconds > SLOW_S > later.seconds:
            waited = "was not answered within" if not first.status else "took"
            raise Violated(
                f"with the server at rest the first ping {waited} {first.seconds:.1f} s, a later one took {later.seconds:.3f} s"
            )
    return f"a ping took {slow[0].seconds:.1f} s while it started; none did once it was at rest"


def answers_when_ready(subject: Subject) -> str:
    """Judge whether the first request after the first 200 is answered."""
    payload, first = _payload(subject), subject.first_start.first
    if isinstance(first, Reply) and first.status == 200:
        return f"the first request after the first 200 of /ping was answered 200 in {first.seconds:.2f} s"
    if subject.endpoint.invoke(payload.body, payload.content_type).status != 200:
        raise Blocked("H-11")  # no request is: the payload's affair
    met = f"was answered {first.status}: {first.text[:200]}" if isinstance(first, Reply) else f"met {first}"
    raise Violated(f"/ping answered 200, and the next request {met}; a later one was answered 200")


def ping_passes_unfinished_requests(subject: Subject) -> str:
    """Judge whether /ping is answered while requests are under way whose bodies have not arrived yet."""
    kind = subject.payload.content_type if subject.payload else "text/csv"
    head = f"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 100000\r\n\r\n"
    with _holding(subject.endpoint, [head.encode() + b"1," * 500] * HELD):
        pings = _ping_for(subject.endpoint, 1)
    return f"with {HELD} requests under way: {_judge(pings)}"


def ping_passes_silent_clients(subject: Subject) -> str:
    """Judge whether /ping is answered while many connections say nothing, or half a header."""
    with _holding(subject.endpoint, [b"", b"GET /ping HTTP/1.1\r\nHos"] * (SILENT // 2)):
        pings = _ping_for(subject.endpoint, 1)
    return f"with {SILENT} silent connections: {_judge(pings)}"


def ping_passes_load(subject: Subject) -> str:
    """Judge whether /ping is answered while the payload is asked for as fast as it can be."""
    payload = _payload(subject)
    with _asking(subject.endpoint, payload):
        pings = _ping_for(subject.endpoint, BUSY_S)
    return f"with {BUSY_CLIENTS} clients that ask without a pause: {_judge(pings)}"


def pings_are_not_logged(subject: Subject) -> str:
    """Judge whether the log grows by a line a ping: the platform sends them for as long as the endpoint lives."""
    before = subject.endpoint.program.output().count("\n")
    for _ in range(PINGS):
        ask_ping(subject.endpoint.program.url)
    time.sleep(0.2)  # a logger's queue
    new = subject.endpoint.program.output().splitlines()[before:]
    lines = [line for line in new if "/ping" in line]
    if len(lines) >= PINGS // 2:
        raise Violated(f"{PINGS} pings wrote {len(lines)} lines, such as: {lines[-1][:200]}")
    return f"{PINGS} pings wrote {len(lines)} lines"


def metrics_are_readable(subject: Subject) -> str:
    """Judge whether /metrics, where there is one, is the text that the platform scrapes."""
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError as error:
        raise Unjudged("this needs a reader of the format: pip install prometheus-client") from error
    reply = subject.endpoint.get("/metrics")
    if reply.status in {404, 405}:
        raise DoesNotApply(f"GET /metrics answered {reply.status}: there are none, and none are needed")
    if reply.status != 200:
        raise Violated(f"GET /metrics answered {reply.status}: {reply.text[:200]}")
    try:
        families = list(text_string_to_metric_families(reply.text))
    except ValueError as error:
        raise Violated(f"GET /metrics is not Prometheus text ({error}): {reply.text[:200]}") from error
    samples = sum(len(family.samples) for family in families)
    if not samples:
        raise Violated(f"GET /metrics holds no sample: {reply.text[:200]!r}")
    return f"GET /metrics holds {samples} samples of {len(families)} metrics"


def _payload(subject: Subject) -> Payload:
    if subject.payload is None:
        raise Unjudged("no payload was given: --payload FILE --content-type TYPE")
    return subject.payload


def _judge(pings: list[Pong]) -> str:
    """Return how quick pings were; raises Violated where one had no 200 in time."""
    seconds = sorted(ping.seconds for ping in pings)
    bad = [ping for ping in pings if ping.status != 200]
    if bad:
        raise Violated(f"{len(bad)} of {len(pings)} pings had no 200 within {PING_S} s: {bad[0].told}")
    median = 1000 * statistics.median(seconds)
    return f"{len(pings)} pings, median {median:.1f} ms, slowest {1000 * seconds[-1]:.1f} ms"


def _ping_for(endpoint: Endpoint, seconds: float) -> list[Pong]:
    ends, pings = time.monotonic() + seconds, []
    while time.monotonic() < ends:
        pings.append(ask_ping(endpoint.program.url))
        time.sleep(PING_EVERY_S)
    return pings


@contextlib.contextmanager
def _holding(endpoint: Endpoint, openings: list[bytes]) -> Iterator[None]:
    """Hold connections open on which no more comes than their opening; then let the server come to itself."""
    address = urlsplit(endpoint.program.url)
    with contextlib.ExitStack() as connections:
        for opening in openings:
            connection = connections.enter_context(socket.create_connection((address.hostname, address.port), PING_S))
            connection.sendall(opening)
        time.sleep(0.3)  # until they are taken up
        yield
    _settle(endpoint)


@contextlib.contextmanager
def _asking(endpoint: Endpoint, payload: Payload) -> Iterator[None]:
    """Have clients ask without a pause."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                endpoint.invoke(payload.body, payload.content_type)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(BUSY_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(PING_S)
    _settle(endpoint)


def _settle(endpoint: Endpoint, patience_s: float = 10) -> None:
    """Wait until the server answers as before, so that the next rule isn't judged by this one's traces."""
    ends = time.monotonic() + patience_s
    while ask_ping(endpoint.program.url).status != 200 and time.monotonic() < ends:
        time.sleep(PING_EVERY_S)


READY = ("becomes_ready", "ping_is_not_redirected")
BUSY = "Answer /ping from a thread or an event loop of its own: one synchronous worker can't while it works."

RULES = (
    Rule(
        "H-8",
        "/ping is answered within 2 s",
        Severity.SAGEMAKER,
        "Answer from a cached self-test; run nothing in the probe.",
        ping_is_quick,
        ("ping_is_not_redirected",),
    ),
    Rule("H-8", "/ping has no body", Severity.WASTEFUL, "Answer 200 with an empty body.", ping_has_no_body, READY),
    Rule(
        "H-9",
        "the model is loaded before /ping is answered",
        Severity.SAGEMAKER,
        "Load the model at the start, in every worker, and answer 503 until that is done.",
        model_is_loaded_before_ping,
        READY,
    ),
    Rule(
        "H-9",
        "a request is answered once /ping is",
        Severity.SAGEMAKER,
        "Answer 200 only when a prediction was made: predict a stored sample before.",
        answers_when_ready,
        READY,
    ),
    Rule(
        "H-9",
        "/ping is answered while requests are under way",
        Severity.SAGEMAKER,
        BUSY,
        ping_passes_unfinished_requests,
        READY,
    ),
    Rule("H-9", "/ping is answered under load", Severity.SAGEMAKER, BUSY, ping_passes_load, READY),
    Rule(
        "H-9",
        "/ping is answered beside silent clients",
        Severity.WASTEFUL,
        BUSY,
        ping_passes_silent_clients,
        ("ping_passes_unfinished_requests",),
    ),
    Rule("H-37", "pings are not logged", Severity.WASTEFUL, "Leave /ping out of the access log.", pings_are_not_logged, READY),
    Rule(
        "H-35",
        "/metrics is Prometheus text",
        Severity.WASTEFUL,
        "Write the text format with a client library, or have no /metrics.",
        metrics_are_readable,
        READY,
    ),
)
