"""What the payload's formats are and may be: H-11, H-16, H-18, H-27, H-38."""

from __future__ import annotations

import json
import re

from local_test.emulator import INVOKE_S, Reply
from local_test.rules.odd import UNHEARD
from local_test.rules.records import CSV, JSON
from local_test.rules.wire import answered, ask, describe, header, media_type, payload_of, send
from local_test.subject import Subject
from local_test.verdicts import DoesNotApply, Rule, Severity, Unjudged, Violated

AGAIN = 6

DEFAULT_ACCEPT = "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"


def payload_is_answered(subject: Subject) -> str:
    """Judge whether the owner's payload is answered with 200 in the platform's time."""
    reply = answered(subject).reply
    if reply.seconds > INVOKE_S:
        raise Violated(f"the payload was answered after {reply.seconds:.1f} s; {INVOKE_S} s are allowed")
    return f"{describe(reply, 60)}, after {1000 * reply.seconds:.0f} ms"


def answer_has_its_type(subject: Subject) -> str:
    """Judge whether the answer says truly what it is: data capture goes by it, and so do the callers."""
    reply = answered(subject).reply
    said = header(reply, "Content-Type")
    kind = media_type(said)
    if not re.fullmatch(r"[\w.+-]+/[\w.+-]+", kind):
        raise Violated(f"the answer's Content-Type is {said!r}; a media type was expected, such as {JSON}")
    if kind == "text/html":
        raise Violated(f"predictions are sent as {said}, which is what many frameworks say when they were told nothing")
    if kind == JSON and not _is_json(reply.body):
        raise Violated(f"the answer is sent as {said} and is no JSON: {describe(reply)}")
    if ";" in said:
        return f"Content-Type: {said} (plain {kind} is surer: data capture takes a list of types without parameters)"
    return f"Content-Type: {said}"


def media_type_is_compared_alone(subject: Subject) -> str:
    """Judge whether parameters and upper case leave a Content-Type what it is."""
    kind = media_type(payload_of(subject).content_type)
    parameter = "charset=utf-8" if kind.startswith("text/") or "json" in kind else "v=1"
    spelled = (f"{kind}; {parameter}", f"{kind};{parameter.upper()}", kind.upper())
    return _all_answered({said: ask(subject, headers={"Content-Type": said}) for said in spelled}, "Content-Type")


def any_accept_will_do(subject: Subject) -> str:
    """Judge whether a request without a wish for a format is answered in a default one."""
    wishes = {"missing": None, "empty": "", "*/*": "*/*"}
    return _all_answered({name: ask(subject, headers={"Accept": said}) for name, said in wishes.items()}, "Accept")


def accept_lists_are_read(subject: Subject) -> str:
    """Judge whether one of several formats is chosen: some deserializers of the SDK name two."""
    own = _own_type(subject)
    wishes = (own, f"{own}, {UNHEARD}", f"{UNHEARD};q=0.9, {own};q=0.5")
    return _all_answered({said: ask(subject, headers={"Accept": said}) for said in wishes}, "Accept")


def unknown_accept_is_refused(subject: Subject) -> str:
    """Judge whether a format that can't be written is refused; where Accept is not looked at there is nothing to judge."""
    reply = ask(subject, headers={"Accept": UNHEARD})
    if reply.status == 200:
        kind = media_type(header(reply, "Content-Type"))
        if kind != UNHEARD:
            raise DoesNotApply(f"Accept is not looked at: {UNHEARD} was asked for and {kind} came, with 200")
        raise Violated(f"the answer is said to be {UNHEARD}, as asked, which it can't be")
    if reply.status != 406:
        raise Violated(f"Accept: {UNHEARD} was answered with {describe(reply)}; 406 was expected")
    return f"Accept: {UNHEARD} was answered with 406"


def default_accept_is_read(subject: Subject) -> str:
    """Judge whether the owner of an endpoint can choose the format of answers to requests that name none."""
    own = _own_type(subject)
    other = next((kind for kind in (JSON, CSV) if kind != own and _writes(subject, kind)), None)
    if other is None:
        raise DoesNotApply(f"there is nothing to choose: neither {JSON} nor {CSV} is answered beside {own}")
    with subject.serving({DEFAULT_ACCEPT: other}) as endpoint:
        payload = payload_of(subject)
        reply = send(endpoint.program.url, payload.body, {"Content-Type": payload.content_type})
    if reply.status != 200 or media_type(header(reply, "Content-Type")) != other:
        raise Violated(f"with {DEFAULT_ACCEPT}={other}, a request without Accept was answered with {describe(reply)}")
    return f"with {DEFAULT_ACCEPT}={other}, a request without Accept was answered in it"


def same_payload_has_same_answer(subject: Subject) -> str:
    """Judge whether a request that is sent again, as the platform retries, has the same answer of whichever worker."""
    first = answered(subject).reply
    again = [ask(subject) for _ in range(AGAIN)]
    for reply in again:
        if (reply.status, _shape(reply)) != (first.status, _shape(first)):
            raise Violated(f"the payload was answered with {describe(first)}; and then, sent again, with {describe(reply)}")
    bodies = {reply.body for reply in (first, *again)}
    if len(bodies) > 1:
        raise Unjudged(f"{len(bodies)} of {1 + AGAIN} answers differ in their text: is something drawn, or a time or id in it?")
    return f"{1 + AGAIN} answers to the payload are equal"


def _all_answered(replies: dict[str, Reply], name: str) -> str:
    """Return that all are 200; raises Violated with those that aren't."""
    refused = [f"{name} {said}: {describe(reply)}" for said, reply in replies.items() if reply.status != 200]
    if refused:
        raise Violated("the payload is not answered with 200 with " + "; ".join(refused))
    return f"answered with 200 with {name} " + ", ".join(replies)


def _own_type(subject: Subject) -> str:
    """Return the media type of the usual answer."""
    return media_type(header(answered(subject).reply, "Content-Type"))


def _writes(subject: Subject, kind: str) -> bool:
    reply = ask(subject, headers={"Accept": kind})
    return reply.status == 200 and media_type(header(reply, "Content-Type")) == kind


def _shape(reply: Reply) -> tuple[str, int]:
    """Return what must not differ even between answers that are drawn: the type, and how many lines of CSV there are."""
    kind = media_type(header(reply, "Content-Type"))
    return kind, reply.body.count(b"\n") if kind == CSV else 0


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


RULES = (
    Rule(
        "H-11",
        "the payload is answered with 200 within 60 s",
        Severity.SAGEMAKER,
        "Read the container's log for this request; answer what takes longer by asynchronous inference.",
        payload_is_answered,
        ("becomes_ready",),
    ),
    Rule(
        "H-38",
        "the answer's Content-Type is set, and true",
        Severity.SAGEMAKER,
        "Set Content-Type to the media type of what is sent, such as text/csv or application/json.",
        answer_has_its_type,
        ("payload_is_answered",),
    ),
    Rule(
        "H-16",
        "Content-Type is compared without its parameters and in any case",
        Severity.SAGEMAKER,
        "Compare what stands before the first semicolon, in lower case.",
        media_type_is_compared_alone,
        ("payload_is_answered",),
    ),
    Rule(
        "H-18",
        "Accept may be missing, empty or */*",
        Severity.SAGEMAKER,
        "Answer these in a default format: SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT where it is set, else one of your own.",
        any_accept_will_do,
        ("payload_is_answered",),
    ),
    Rule(
        "H-18",
        "Accept may be a list",
        Severity.SAGEMAKER,
        "Split Accept at its commas, leave parameters out, and take the best that you can write.",
        accept_lists_are_read,
        ("answer_has_its_type",),
    ),
    Rule(
        "H-18",
        "a format that can't be written is refused with 406",
        Severity.WASTEFUL,
        "Answer 406 and name the formats that you write.",
        unknown_accept_is_refused,
        ("payload_is_answered",),
    ),
    Rule(
        "H-18",
        f"{DEFAULT_ACCEPT} chooses the default format",
        Severity.WASTEFUL,
        "Read the variable at the start, and answer in that format where a request names none, as AWS's containers do.",
        default_accept_is_read,
        ("answer_has_its_type", "any_accept_will_do"),
    ),
    Rule(
        "H-27",
        "a payload that is sent again has the same answer",
        Severity.SAGEMAKER,
        "Keep nothing of a request, and load the same model in every worker: batch transform sends a request up to four times.",
        same_payload_has_same_answer,
        ("payload_is_answered",),
    ),
)
