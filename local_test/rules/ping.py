"""How the server starts and answers the health check: H-1, H-2, H-8, H-9."""

from __future__ import annotations

import http.client
import statistics
from urllib.parse import urlsplit

from local_test.emulator import PING_S
from local_test.subject import Subject
from local_test.verdicts import Rule, Severity, Violated

PINGS = 20


def becomes_ready(subject: Subject) -> str:
    """Judge whether a started container answers 200 on /ping."""
    return f"/ping answered 200 after {subject.endpoint.seconds_to_ready:.2f} s"


def ping_is_not_redirected(subject: Subject) -> str:
    """Judge whether the path is /ping itself: the platform follows no redirect."""
    address = urlsplit(subject.endpoint.program.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PING_S)
    connection.request("GET", "/ping")
    response = connection.getresponse()
    response.read()
    connection.close()
    if response.status != 200:
        raise Violated(f"GET /ping answered {response.status}, location {response.headers.get('Location', 'none')}")
    return "GET /ping answered 200 itself"


def ping_is_quick(subject: Subject) -> str:
    """Judge whether the health check is answered in time, again and again."""
    seconds = sorted(subject.endpoint.ping().seconds for _ in range(PINGS))
    if seconds[-1] > PING_S:
        raise Violated(f"the slowest of {PINGS} pings took {seconds[-1]:.1f} s; {PING_S} s are allowed")
    return f"{PINGS} pings, median {1000 * statistics.median(seconds):.1f} ms, slowest {1000 * seconds[-1]:.1f} ms"


RULES = (
    Rule(
        "H-7",
        "serve becomes ready",
        Severity.SAGEMAKER,
        "Run `doctor` on the image: it names the cause.",
        becomes_ready,
    ),
    Rule(
        "H-8",
        "/ping answers itself, without a redirect",
        Severity.SAGEMAKER,
        "Route /ping without a trailing slash.",
        ping_is_not_redirected,
        ("becomes_ready",),
    ),
    Rule(
        "H-8",
        "/ping is answered within 2 s",
        Severity.SAGEMAKER,
        "Answer from a cached self-test; load no model in the probe.",
        ping_is_quick,
        ("becomes_ready",),
    ),
)
