"""Causes that lie in where a server listens and how it answers."""

from __future__ import annotations

import statistics

from local_test.doctor.logged import needs_network, nested_model
from local_test.doctor.observations import Answer, Observations
from local_test.doctor.started import crash_loop, out_of_memory
from local_test.emulator import INVOKE_S, PING_S
from local_test.procfs import NAMES, Address

SLOW_PING_S = 1.0
"""Half of what is allowed (H-8): this machine may be the quicker one."""
MIB = 2**20


def wrong_port(seen: Observations) -> str:
    """Evidence that it listens, and not where it is asked (H-2)."""
    if seen.word != "serve" or not seen.listeners or seen.is_ready or _at_port(seen):
        return ""
    if f":{seen.port}" in seen.output:  # it says that it will listen there: it is on the way, with another port open before
        return ""
    return f"it listens on {_named(sorted(seen.listeners))}; requests come to port {seen.port}"


def bound_to_loopback(seen: Observations) -> str:
    """Evidence that only the container itself can reach it."""
    here = _at_port(seen)
    if seen.word != "serve" or seen.is_ready or not here or not all(address.is_loopback for address in here):
        return ""
    return f"it listens on {_named(here)}, where only the container itself can reach it"


def redirected(seen: Observations) -> str:
    """Evidence that /ping leads elsewhere: the platform does not follow (H-8)."""
    last = _last(seen)
    if last and last.status in {301, 302, 303, 307, 308}:
        return f"GET /ping answered {last.status}, location {last.location or 'none'}"
    return ""


def speaks_tls(seen: Observations) -> str:
    """Evidence that it wants HTTPS, which the platform does not speak to containers."""
    last = _last(seen)
    said = last.said if last and last.status in {0, 400} else ""
    if "HTTPS port" in said or "\\x15\\x03" in said or "\x15\x03" in said:
        return f"GET /ping without TLS came back as {said[:100]!r}"
    return ""


def no_ping(seen: Observations) -> str:
    """Evidence that the health check has no route."""
    last = _last(seen)
    return f"GET /ping answered {last.status}" if last and last.status in {404, 405} and not seen.is_ready else ""


def broken_ping(seen: Observations) -> str:
    """Evidence that the health check fails as an error of the server."""
    last = _last(seen)
    if last is None or seen.is_ready or last.status < 400 or last.status in {400, 404, 405, 503}:
        return ""
    return f"GET /ping answered {last.status}: {last.said[:200]}"


def loaded_in_ping(seen: Observations) -> str:
    """Evidence that the first health check does work that later ones don't: it loads the model (H-9)."""
    connected = [answer for answer in seen.early_pings if answer.status or answer.is_late]
    slow = [answer for answer in connected if answer.seconds > SLOW_PING_S]
    quick = [answer.seconds for answer in connected if answer.status == 200 and answer.seconds <= SLOW_PING_S]
    if not seen.is_ready or not seen.settled or not slow or len(quick) <= len(slow):
        return ""
    usual = statistics.median(quick)
    first = f"{'over ' if slow[0].is_late else ''}{slow[0].seconds:.1f} s"
    return f"an early ping took {first}, the others {1000 * usual:.0f} ms; {PING_S} s are allowed"


def slow_ping(seen: Observations) -> str:
    """Evidence that every health check is too slow."""
    if loaded_in_ping(seen) or crash_loop(seen):
        return ""
    connected = [answer for answer in seen.early_pings if answer.status or answer.is_late]
    slow = [answer for answer in connected if answer.seconds > SLOW_PING_S]
    if not any(answer.status for answer in connected) or 2 * len(slow) < len(connected):
        return ""
    return f"{len(slow)} of {len(connected)} pings took more than {SLOW_PING_S:g} s; {PING_S} s are allowed"


def slow_start(seen: Observations) -> str:
    """Evidence that it was still at work when patience ended (H-7)."""
    last = _last(seen)
    if seen.word != "serve" or seen.is_ready or not seen.is_alive or wrong_port(seen) or bound_to_loopback(seen):
        return ""
    if last and last.status == 503:
        return f"/ping still answered 503 after {seen.seconds:.0f} s"
    if last and last.status:
        return ""
    if last and last.is_late:
        return f"it takes connections on port {seen.port}, and answered none of {len(seen.early_pings)} pings within {PING_S} s"
    where = f" (it listens on {_named(sorted(seen.listeners))})" if seen.listeners else ""
    return f"nothing answered on port {seen.port} for {seen.seconds:.0f} s{where}, while it ran: {_running(seen)}"


def starving(seen: Observations) -> str:
    """Evidence that the health check waits for requests to /invocations (H-9)."""
    busy = seen.busy_ping
    if busy is None or (busy.status == 200 and busy.seconds <= PING_S):
        return ""
    return f"while one request to /invocations was open, GET /ping gave: {busy}; {PING_S} s are allowed"


def body_limit_of_nginx(seen: Observations) -> str:
    """Evidence that nginx, in front of the server, refuses bodies that the platform sends (H-12)."""
    large = seen.large
    if large and large.status == 413 and "nginx" in (large.said + large.server).lower():
        return f"a body of 2 MB was answered with 413 by nginx: {large.said[:80]!r}"
    return ""


def body_limit(seen: Observations) -> str:
    """Evidence that the server refuses bodies that the platform sends."""
    if seen.large and seen.large.status == 413 and not body_limit_of_nginx(seen):
        return f"a body of 2 MB was answered with 413: {seen.large.said[:100]}"
    if seen.large and "RemoteDisconnected" in seen.large.said and seen.large.status == 0:
        return "a body of 2 MB was not answered: the connection was closed"
    return ""


def no_invocations(seen: Observations) -> str:
    """Evidence that predictions have no route."""
    invoked = seen.invoked
    if invoked and not seen.has_payload and invoked.status in {404, 405}:
        return f"POST /invocations answered {invoked.status}"
    return ""


def refused_payload(seen: Observations) -> str:
    """Evidence that a request which should be answered is not."""
    invoked = seen.invoked
    if invoked is None or not seen.has_payload or invoked.status in range(200, 300) or slow_invocation(seen):
        return ""
    return f"POST /invocations with the payload: {invoked}. {invoked.said[:300] if invoked.status else ''}"


def slow_invocation(seen: Observations) -> str:
    """Evidence that a prediction takes longer than the platform waits (H-11)."""
    late = seen.has_payload and seen.invoked and (seen.invoked.is_late or seen.invoked.seconds > INVOKE_S)
    return f"POST /invocations was not answered within {INVOKE_S} s" if late else ""


def near_memory_limit(seen: Observations) -> str:
    """Evidence that the memory will not do for long."""
    memory = seen.memory
    if memory is None or not memory.limit_bytes or out_of_memory(seen) or memory.used_bytes < 0.9 * memory.limit_bytes:
        return ""
    return f"it took up to {memory.used_bytes / MIB:.0f} of {memory.limit_bytes / MIB:.0f} MiB"


def tried_network(seen: Observations) -> str:
    """Evidence of attempts to reach something, of a container that failed and did not say why."""
    if not seen.failed or needs_network(seen) or not (seen.connecting or seen.without_route):
        return ""
    if any(address.port == NAMES for address in seen.connecting):
        return "it asked a name server, and had no answer"
    if seen.connecting:
        return f"it waited for an answer of {_named(sorted(seen.connecting))}"
    return f"{seen.without_route} packets to addresses outside had no way to go"


def links_in_model(seen: Observations) -> str:
    """Evidence of links in the model's archive (H-4)."""
    return f"links in the archive: {', '.join(seen.model_links[:5])}" if seen.model_links else ""


def unreadable_model(seen: Observations) -> str:
    """Evidence that the model's archive is none."""
    return seen.model_unreadable


def folder_around_model(seen: Observations) -> str:
    """Evidence that all of the archive lies in one folder, of a server that failed and named no file."""
    tops = {path.partition("/")[0] for path in seen.model_files}
    nested = all("/" in path for path in seen.model_files)
    if seen.word == "serve" and seen.failed and len(tops) == 1 and nested and not nested_model(seen):
        return f"all files of the archive lie in a folder {tops.pop()!r}, such as {seen.model_files[0]}"
    return ""


def _at_port(seen: Observations) -> list[Address]:
    return sorted(address for address in seen.listeners or () if address.port == seen.port)


def _last(seen: Observations) -> Answer | None:
    return seen.early_pings[-1] if seen.early_pings else None


def _named(addresses: list[Address]) -> str:
    return ", ".join(str(address) for address in addresses)


def _running(seen: Observations) -> str:
    return "; ".join(seen.processes[:3]) or "no process was seen"
