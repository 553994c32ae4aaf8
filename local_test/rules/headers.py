"""Headers that come with a request, and the connections that bring it: H-11, H-13."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

from local_test.rules.odd import UNHEARD
from local_test.rules.wire import answered, ask, connect, describe, exchange, payload_of
from local_test.subject import Subject
from local_test.verdicts import Rule, Severity, Violated

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
PASSED_ON = {
    "X-Amzn-SageMaker-Target-Model": "models/house-prices.tar.gz",
    "X-Amzn-SageMaker-Target-Variant": "AllTraffic",
    "X-Amzn-SageMaker-Target-Container-Hostname": "container-1",
    "X-Amzn-SageMaker-Inference-Id": "6f1c2a7e-0b1d-4c39-9a55-1b0f2b9e7d10",
    "X-Amzn-SageMaker-Enable-Explanations": "`true`",
    "X-Amzn-SageMaker-Inference-Component": "component-1",
    "X-Amzn-SageMaker-Prefix-Aware-Id": "prefix-1",
}
ADDED = {
    "X-Amzn-SageMaker-Unheard-Of": "added by a platform to come",
    "X-Amzn-Trace-Id": "Root=1-67891233-abcdef012345678912345678;Sampled=0",
    "X-Forwarded-For": "203.0.113.7, 10.0.0.1",
    "X-Forwarded-Proto": "https",
}
LONGEST = 1_024
"""Characters of custom attributes."""
AT_ONCE = 4
BUSY = frozenset({429, 503})
"""What a server may say that has too much to do."""


def added_headers_make_no_difference(subject: Subject) -> str:
    """Judge whether headers that the platform hands on or adds are tolerated, all at once and then each."""
    if ask(subject, headers={**PASSED_ON, **ADDED}).status != 200:
        for name, value in {**PASSED_ON, **ADDED}.items():
            reply = ask(subject, headers={name: value})
            if reply.status != 200:
                raise Violated(f"with {name}: {value} the payload was answered with {describe(reply)}")
        raise Violated(f"with {', '.join({**PASSED_ON, **ADDED})} together the payload was not answered with 200")
    return f"answered with 200 with {len(PASSED_ON)} headers of SageMaker's and {len(ADDED)} unknown ones"


def custom_attributes_are_taken(subject: Subject) -> str:
    """Judge whether the caller's own attributes, up to the longest, come through."""
    values = ("trace=6f1c2a7e;tier=gold", "a" * LONGEST, "".join(map(chr, range(33, 127))))
    for value in values:
        reply = ask(subject, headers={ATTRIBUTES: value})
        if reply.status != 200:
            raise Violated(f"with {ATTRIBUTES} of {len(value)} characters the payload was answered with {describe(reply)}")
    return f"answered with 200 with {ATTRIBUTES} of up to {LONGEST:,} characters"


def requests_at_once_are_answered(subject: Subject) -> str:
    """Judge whether several connections are served; one that waits its turn is, and so is one that is told to."""
    answered(subject)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        replies = list(pool.map(lambda _: ask(subject), range(AT_ONCE)))
    failed = [reply for reply in replies if reply.status != 200 and reply.status not in BUSY]
    if failed:
        raise Violated(f"{len(failed)} of {AT_ONCE} requests at once failed, the first with {describe(failed[0])}")
    busy = sum(reply.status in BUSY for reply in replies)
    slowest = max(reply.seconds for reply in replies)
    return f"{AT_ONCE} requests at once, {busy} told to come again, the slowest answered after {1000 * slowest:.0f} ms"


def connections_outlive_errors(subject: Subject) -> str:
    """Judge whether a kept connection is in order after an error: a body that was left unread would be the next request."""
    usual, payload = answered(subject), payload_of(subject)
    with contextlib.closing(connect(subject.endpoint.program.url)) as connection:
        refusal = exchange(connection, payload.body, {**usual.headers, "Content-Type": UNHEARD})
        if connection.sock is None:
            return f"the connection was closed after {refusal.status}, as announced"
        try:
            reply = exchange(connection, payload.body, usual.headers)
        except OSError as error:
            raise Violated(f"after {refusal.status}, on a connection that was to be kept: {error}") from error
    if reply.status != 200:
        raise Violated(f"after {refusal.status}, the payload on the same connection was answered with {describe(reply)}")
    return f"after {refusal.status}, the payload on the same connection was answered with 200"


RULES = (
    Rule(
        "H-13",
        "headers that the platform adds make no difference",
        Severity.SAGEMAKER,
        "Ignore headers that you don't know.",
        added_headers_make_no_difference,
        ("payload_is_answered",),
    ),
    Rule(
        "H-13",
        "custom attributes of 1,024 characters are taken",
        Severity.SAGEMAKER,
        f"Take any visible ASCII in {ATTRIBUTES}, and what you can't use as if it were not there.",
        custom_attributes_are_taken,
        ("payload_is_answered",),
    ),
    Rule(
        "H-11",
        "several requests at once are answered",
        Severity.SAGEMAKER,
        "Serve with several workers or threads, and answer 503 to what is too much.",
        requests_at_once_are_answered,
        ("payload_is_answered",),
    ),
    Rule(
        "H-11",
        "a connection is in order after an error",
        Severity.SAGEMAKER,
        "Read the body to its end before you refuse a request, or send Connection: close and close.",
        connections_outlive_errors,
        ("odd_requests_are_survived",),
    ),
)
