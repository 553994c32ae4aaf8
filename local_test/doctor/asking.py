"""The requests of a platform to a server that is watched: health checks, a prediction, what servers are known to fail at."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from urllib.parse import urlsplit

from local_test.doctor.observations import Answer
from local_test.doctor.watch import Watch
from local_test.emulator import INVOKE_S, PING_S
from local_test.subject import Payload

POLL_S = 0.1
IDLE_S, BUSY = 0.4, 0.2
"""Before the first ping: until it takes less than a fifth of a CPU for that long, at most half of the patience."""
PINGS, PINGS_S = 20, 4
STEADY_S = 2.0
"""How long /ping must give the same wrong answer to be believed."""
WRONG = {301, 302, 303, 307, 308, 400, 404, 405}
LARGE = b"0," * 999_999 + b"0\n"
LARGE_S = 10
UNFAIR_S = 5
"""For a request that nobody said would be answered."""


def ask_all(watch: Watch, patience_s: float, payload: Payload | None) -> None:
    """Ask a server all that the platform asks."""
    pings: list[Answer] = []
    watch.seen["settled"] = _settle(watch, patience_s / 2)
    while watch.is_running() and watch.seconds < patience_s and not _steadily_wrong(pings):
        pings.append(ask(watch, "GET", "/ping", timeout_s=PING_S))
        if pings[-1].status == 200:
            watch.seen["ready_s"] = watch.seconds
            break
        watch.look()
        time.sleep(POLL_S)
    if "ready_s" in watch.seen:
        until = watch.seconds + PINGS_S
        while len(pings) <= PINGS and watch.seconds < until:
            pings.append(ask(watch, "GET", "/ping", timeout_s=PING_S))
        watch.look(again=True)
        watch.seen["busy_ping"] = _ping_while_busy(watch)
        body, content_type = (payload.body, payload.content_type) if payload else (b"", "text/csv")
        watch.seen["invoked"] = ask(
            watch, "POST", "/invocations", body, content_type, timeout_s=INVOKE_S if payload else UNFAIR_S
        )
        watch.seen["large"] = ask(watch, "POST", "/invocations", LARGE, content_type, timeout_s=LARGE_S)
    watch.seen["early_pings"] = tuple(pings)


def ask(watch: Watch, method: str, path: str, body: bytes | None = None, content_type: str = "", *, timeout_s: float) -> Answer:
    """Send one request, on a connection of its own, following nothing."""
    address = urlsplit(watch.program.url)
    after_s, started = watch.seconds, time.monotonic()
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout_s)
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused half-way: the answer may be there
            connection.request(method, path, body, {"Content-Type": content_type} if content_type else {})
        response = connection.getresponse()
        said = response.read(4_000).decode("utf-8", "replace")
        headers = response.headers
        location, server = headers.get("Location", ""), headers.get("Server", "")
        return Answer(time.monotonic() - started, response.status, said, location, server, after_s)
    except TimeoutError:
        return Answer(time.monotonic() - started, said="timed out", after_s=after_s)
    except ConnectionRefusedError:
        return Answer(time.monotonic() - started, said="refused", after_s=after_s)
    except (OSError, http.client.HTTPException) as error:
        return Answer(time.monotonic() - started, said=f"{type(error).__name__}: {error}", after_s=after_s)
    finally:
        connection.close()


def _settle(watch: Watch, patience_s: float) -> bool:
    """Wait until the server listens and is idle, and say whether it is: what the first ping costs then, it costs by itself."""
    idle, before, port = 0.0, -POLL_S, urlsplit(watch.program.url).port
    while watch.is_running() and watch.seconds < patience_s and idle < IDLE_S:
        watch.look(again=watch.seconds < 1)
        listeners = watch.seen.get("listeners")
        if listeners is not None and not any(address.port == port for address in listeners):
            time.sleep(POLL_S)
            continue
        now = watch.cpu_seconds()
        idle = idle + POLL_S if now - before < BUSY * POLL_S and not watch.is_working() else 0.0
        before = now
        time.sleep(POLL_S)
    return idle >= IDLE_S


def _steadily_wrong(pings: list[Answer]) -> bool:
    """Say whether /ping gives an answer that time will not change."""
    if not pings:
        return False
    last = [answer for answer in pings if answer.after_s > pings[-1].after_s - STEADY_S]
    same = len({answer.status for answer in last}) == 1 and len(last) < len(pings)
    return same and last[-1].status in WRONG


def _ping_while_busy(watch: Watch) -> Answer:
    """Return what /ping answers while a request to /invocations has come half: it stands for a long prediction."""
    address = urlsplit(watch.program.url)
    head = f"POST /invocations HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: text/csv\r\nContent-Length: 1000\r\n\r\n0,"
    with contextlib.suppress(OSError), socket.create_connection((address.hostname, address.port), PING_S) as connection:
        connection.sendall(head.encode())
        time.sleep(POLL_S)
        return ask(watch, "GET", "/ping", timeout_s=PING_S)
    return Answer(0.0, said="refused")
