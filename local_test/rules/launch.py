"""How `serve` starts, from the word to the first 200 of /ping: H-1, H-2, H-7, H-8, and what keeps it from it: M-7, H-4.

All look at one start. Each names the first fault that stands in the way; what comes after it is blocked by that one.
"""

from __future__ import annotations

import re
import shutil

from local_test.starts import Start
from local_test.subject import Subject
from local_test.verdicts import Blocked, Rule, Severity, Unjudged, Violated

WANTS_NETWORK = re.compile(
    r"name or service not known|temporary failure in name resolution|network is unreachable|could(n't| not) resolve"
    r"|getaddrinfo|no route to host|could not connect to the endpoint url|failed to establish a new connection"
    r"|name resolution",
    re.IGNORECASE,
)
WANTS_TO_WRITE = re.compile(r"read-only file ?system|\berofs\b", re.IGNORECASE)


def serve_stays(subject: Subject) -> str:
    """Judge whether the word starts a program that does not end."""
    start = subject.first_start
    if start.exit_code is not None:
        _look_for_other_causes(subject, start)
        _lacks_model(subject, start)
        raise Violated(f"serve ended with exit code {start.exit_code} after {start.elapsed_s:.1f} s: {start.told}")
    return "serve was started and did not end"


def listens_in_time(subject: Subject) -> str:
    """Judge whether it listens anywhere."""
    start = subject.first_start
    if start.pings or start.listens or start.listens is None:
        return f"it listens: {_places(start)}"
    _look_for_other_causes(subject, start)
    _lacks_model(subject, start)
    raise Violated(f"it listens on no port after {start.patience_s:g} s (--start-seconds): {start.told}")


def listens_on_the_port(subject: Subject) -> str:
    """Judge whether what listens listens on the port."""
    start = subject.first_start
    if start.pings or any(address.port == start.port for address in start.listens or ()):
        return f"it listens on port {start.port}"
    if start.listens is None:
        seen = "where it listens can't be seen from here"
        raise Violated(f"nothing took a connection on port {start.port} in {start.patience_s:g} s; {seen}: {start.told}")
    raise Violated(f"it listens on {_places(start)}, and not on port {start.port}")


def listens_on_every_interface(subject: Subject) -> str:
    """Judge whether the port can be reached from outside the container."""
    start = subject.first_start
    there = [address for address in start.listens or () if address.port == start.port]
    if there and all(address.is_loopback for address in there):
        raise Violated(f"it listens on {', '.join(map(str, sorted(there)))}, which only the container itself can reach")
    if not start.pings:
        raise Violated(f"it listens on {_places(start)}, and a connection to the container's address is refused")
    return f"port {start.port} took a connection from outside; it listens on {_places(start)}"


def ping_is_not_redirected(subject: Subject) -> str:
    """Judge whether the path is /ping itself: the platform follows no redirect."""
    start = subject.first_start
    redirected = [ping for ping in start.pings if 300 <= ping.status < 400]
    if redirected:
        raise Violated(redirected[-1].told)
    return f"{len(start.pings)} pings while it started, none was redirected"


def becomes_ready(subject: Subject) -> str:
    """Judge whether a started container answers 200 on /ping."""
    start = subject.first_start
    if start.ready_s is not None:
        return f"/ping answered 200 after {start.ready_s:.2f} s"
    last = start.late or start.pings[-1]
    if _stands_in_the_way(start) == "H-8":
        raise Blocked(f"H-8: {last.told}")
    _look_for_other_causes(subject, start)
    _lacks_model(subject, start)
    if _knows_no_ping(start):
        raise Violated(f"it has no path /ping: {last.told}, and went on to\n{start.told}")
    raise Violated(f"no 200 within {start.patience_s:g} s (--start-seconds); the last {last.told}\n{start.told}")


def starts_without_network(subject: Subject) -> str:
    """Judge whether the start needs something from outside; the network here leads nowhere."""
    start = _first(subject)
    if start.ready_s is not None:
        return "it became ready on a network that leads nowhere"
    found = _network_sign(start)
    if found:
        raise Violated(f"{found}\n{start.told}")
    _look_for_other_causes(subject, start)
    _lacks_model(subject, start)
    raise Blocked(_stands_in_the_way(start))


def starts_with_a_read_only_model(subject: Subject) -> str:
    """Judge whether the start writes into the model's folder."""
    start = _first(subject)
    if start.ready_s is not None:
        return "it became ready with /opt/ml/model read-only"
    if _wants_to_write(subject, start):
        raise Violated(f"with a writable /opt/ml/model it becomes ready, with a read-only one it does not: {start.told}")
    _lacks_model(subject, start)
    raise Blocked(_stands_in_the_way(start))


def _first(subject: Subject) -> Start:
    try:
        return subject.first_start
    except Violated as error:
        raise Blocked("H-1") from error


def _stands_in_the_way(start: Start) -> str:
    """Return the number of the rule that finds why a start failed."""
    if _network_sign(start):
        return "M-7"
    if start.exit_code is not None:
        return "H-1"
    last = start.late or (start.pings[-1] if start.pings else None)
    if last:
        return "H-8" if last.status == 200 or 300 <= last.status < 400 else "H-7"
    return "H-2" if start.listens else "H-7"


def _look_for_other_causes(subject: Subject, start: Start) -> None:
    """Raise Blocked where the start failed for what another rule judges."""
    if _network_sign(start):
        raise Blocked("M-7")
    if _wants_to_write(subject, start):
        raise Blocked("H-4")


def _network_sign(start: Start) -> str:
    """Return what shows that a start failed for want of a network; empty where nothing does."""
    if start.reaches:
        return f"it waits for an answer of {', '.join(map(str, sorted(start.reaches)))}"
    lines = [line for line in start.output.splitlines()[-40:] if WANTS_NETWORK.search(line)]
    return f"it printed: {lines[-1].strip()}" if lines else ""


def _wants_to_write(subject: Subject, start: Start) -> bool:
    """Say whether a start that failed does not fail where the model may be written to; asked only where it says so."""

    def make() -> bool:
        model = subject.folder / "writable" / "model"
        shutil.copytree(subject.model, model)
        with subject.watched(model=model, writable=True) as second:
            return second.ready_s is not None

    return bool(WANTS_TO_WRITE.search(start.output)) and subject.once("writes its model", make)


def _lacks_model(subject: Subject, start: Start) -> None:
    """Raise Unjudged where the owner gave no model: the image may be right and want one, unless it knows no /ping at all."""
    if subject.model_tar is None and subject.train_data is None and not _knows_no_ping(start):
        lacking = "no model was given, and it may want one: --model model.tar.gz, or --train-data DIR to train one"
        raise Unjudged(f"it did not become ready; {lacking}\n{start.told}")


def _knows_no_ping(start: Start) -> bool:
    return bool(start.pings) and 400 <= start.pings[-1].status < 500


def _places(start: Start) -> str:
    if start.listens is None:
        return "a place that can't be seen from here"
    return ", ".join(map(str, sorted(start.listens))) or "nowhere"


START = "Run `doctor` on the image: it names the cause."

RULES = (
    Rule(
        "H-1",
        "serve starts a program that stays",
        Severity.SAGEMAKER,
        "Start the server in the foreground; what it printed last says why it ended.",
        serve_stays,
        ("serve_is_a_program", "entrypoint_takes_the_word"),
    ),
    Rule(
        "M-7",
        "serve starts without a network",
        Severity.MARKETPLACE,
        "Fetch nothing at the start: put packages and weights into the image or the model.",
        starts_without_network,
        ("serve_is_a_program", "entrypoint_takes_the_word"),
    ),
    Rule(
        "H-4",
        "serve starts with a read-only model",
        Severity.SAGEMAKER,
        "Write nothing below /opt/ml/model; /tmp is the place for what must be written.",
        starts_with_a_read_only_model,
        ("serve_is_a_program", "entrypoint_takes_the_word"),
    ),
    Rule(
        "H-7",
        "serve listens in time",
        Severity.SAGEMAKER,
        "Bind the port first and answer 503 while the model loads. A slow model: --start-seconds up to 480.",
        listens_in_time,
        ("serve_stays",),
    ),
    Rule(
        "H-2",
        "serve listens on port 8080",
        Severity.SAGEMAKER,
        "Bind port 8080.",
        listens_on_the_port,
        ("listens_in_time",),
    ),
    Rule(
        "H-2",
        "serve listens on every interface",
        Severity.SAGEMAKER,
        "Bind 0.0.0.0, not 127.0.0.1 or localhost.",
        listens_on_every_interface,
        ("listens_on_the_port",),
    ),
    Rule(
        "H-8",
        "/ping answers itself, without a redirect",
        Severity.SAGEMAKER,
        "Route /ping without a trailing slash, and to no other scheme or host.",
        ping_is_not_redirected,
        ("listens_on_every_interface",),
    ),
    Rule("H-7", "serve becomes ready", Severity.SAGEMAKER, START, becomes_ready, ("listens_on_every_interface",)),
)
