"""A container's start, watched: where it listens, what `/ping` answers and when, whether it ends."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from local_test import procfs
from local_test.emulator import PING_S, Endpoint, Reply
from local_test.procfs import Address
from local_test.runners import Container, Program
from local_test.verdicts import Violated

POLL_S = 0.05
ELSEWHERE_S = 5
"""How long a program may listen at other places only, and do nothing, before it is not waited for any longer."""
IDLE_CPU = 0.2
"""Seconds of CPU a second, and the share of looks that meet it about to run, below which a program waits and does not work."""
LATE_S = 15
"""How long the last ping waits that is to tell a slow answer from none."""
ASK_RUNNING_S = 0.5
"""How often the engine is asked whether a container runs whose processes can't be seen: it costs a client's start."""


@dataclass(frozen=True)
class Pong:
    """What one ping met; redirects are not followed, as the platform follows none (H-8)."""

    at_s: float
    """Since the start."""
    seconds: float
    status: int = 0
    """0 without an answer."""
    body: bytes = b""
    location: str = ""
    error: str = ""
    connected: bool = True
    """Whether the port took the connection."""

    @property
    def told(self) -> str:
        """What came, in words."""
        if not self.status:
            return f"GET /ping had no answer: {self.error}"
        return f"GET /ping answered {self.status}" + (f", location {self.location}" if self.location else "")


def ask_ping(url: str, timeout_s: float = PING_S, at_s: float = 0) -> Pong:
    """Send one GET /ping on a connection of its own."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout_s)
    started = time.monotonic()
    connected = False
    try:
        connection.connect()
        connected = True
        connection.request("GET", "/ping")
        response = connection.getresponse()
        body = response.read()
        return Pong(at_s, time.monotonic() - started, response.status, body, response.headers.get("Location", ""))
    except (OSError, http.client.HTTPException) as error:
        told = f"{type(error).__name__}: {error}"
        return Pong(at_s, time.monotonic() - started, error=told, connected=connected)
    finally:
        connection.close()


@dataclass
class Start:
    """How a program started."""

    endpoint: Endpoint
    port: int
    began: float = field(default_factory=time.monotonic)
    patience_s: float = 60
    exit_code: int | None = None
    """Of a program that ended before it was ready."""
    output: str = ""
    """What it had printed by the end of the watch."""
    listens: frozenset[Address] | None = None
    """Where it listens; None where that can't be seen from here."""
    reaches: frozenset[Address] = frozenset()
    """What it asked a connection of, and had no answer from."""
    pings: list[Pong] = field(default_factory=list)
    """Those whose connection was taken."""
    late: Pong | None = None
    """A last ping with more patience, where none was answered in time."""
    ready_s: float | None = None
    """When /ping answered 200; None where it did not."""
    first: Reply | str = ""
    """What the first request after the first 200 was answered, or met."""

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    @property
    def told(self) -> str:
        """The end of what it printed, as evidence."""
        return _end(self.output)

    def ready(self) -> Endpoint:
        """Return the endpoint; raises Violated where it did not become ready, and says how far it came."""
        if self.ready_s is not None:
            return self.endpoint
        if self.exit_code is not None:
            raise Violated(f"it ended with exit code {self.exit_code}: {self.told}")
        if self.pings:
            raise Violated(f"it was not ready within {self.elapsed_s:.0f} s: {self.pings[-1].told}\n{self.told}")
        where = ", ".join(map(str, sorted(self.listens or ()))) or "nowhere"
        raise Violated(
            f"nothing answered on port {self.port} within {self.elapsed_s:.0f} s; it listens on {where}\n{self.told}"
        )


def watch(program: Program, patience_s: float, began: float | None = None, *, idle: bool = False) -> Start:
    """Watch a started program until it is ready, has ended, waits at the wrong place, or patience ends.

    Args:
        program: just started.
        patience_s: how long to wait for the first 200 of /ping.
        began: when it was started, of time.monotonic().
        idle: send no ping before the program listens and does nothing any more.
    """
    port = urlsplit(program.url).port or 8080
    start = Start(Endpoint(program), port, time.monotonic() if began is None else began, patience_s)
    watcher = _Watcher(start)
    while start.elapsed_s < patience_s and not watcher.is_over(idle=idle):
        time.sleep(POLL_S)
    if start.ready_s is None and start.exit_code is None and start.pings and not start.pings[-1].status:
        start.late = ask_ping(program.url, LATE_S, start.elapsed_s)
        if start.late.status == 200 and start.late.seconds <= PING_S:  # it became ready just then
            start.ready_s = start.elapsed_s
    if start.ready_s is not None:
        start.endpoint.seconds_to_ready = start.ready_s
        return start
    start.reaches = procfs.connecting(program.pid) if program.pid and isinstance(program, Container) else frozenset()
    start.output = program.output()
    return start


@dataclass
class _Watcher:
    """What one watch remembers from look to look."""

    start: Start
    asked_s: float = 0
    """When the engine was last asked whether it runs."""
    elsewhere: frozenset[Address] = frozenset()
    elsewhere_s: float = 0
    """Since when it listens at these places only."""
    answered_s: float = 0
    """When /ping last had another answer than 4xx."""
    looks: list[tuple[float, float, bool]] = field(default_factory=list)
    """Moments, the CPU time by then, and whether it wanted more."""

    def is_over(self, *, idle: bool) -> bool:
        """Look once, and say whether there is nothing more to wait for."""
        start, program = self.start, self.start.endpoint.program
        start.listens = listens_at(program)
        if not idle or start.listens is None or (start.listens and self._is_idle(1)):
            self._ping()
        if not self._is_running(program):
            start.ready_s = None  # it was another container that answered: engines give an address again at once
            start.output, start.exit_code = program.output(), program.wait()
            return True
        return start.ready_s is not None or self._waits_elsewhere() or self._knows_no_ping()

    def _ping(self) -> None:
        start = self.start
        pong = ask_ping(start.endpoint.program.url, at_s=start.elapsed_s)
        if not pong.connected:
            return
        start.pings.append(pong)
        start.listens = listens_at(start.endpoint.program)  # it may have begun since the look before
        if pong.status == 200 or (300 <= pong.status < 400 and _leads_to_200(start.endpoint)):
            start.ready_s = start.elapsed_s

    def _is_running(self, program: Program) -> bool:
        if _is_seen(program):
            return True
        waits = self.start.ready_s is None and self.start.elapsed_s - self.asked_s < ASK_RUNNING_S
        if waits and not program.pid:
            return True
        self.asked_s = self.start.elapsed_s
        return program.is_running()

    def _waits_elsewhere(self) -> bool:
        """Say whether it has listened at wrong places only for a while, and does nothing."""
        start = self.start
        if not start.listens or start.pings:
            self.elsewhere_s = start.elapsed_s
            return False
        if start.listens != self.elsewhere:
            self.elsewhere, self.elsewhere_s = start.listens, start.elapsed_s
        return start.elapsed_s - self.elsewhere_s > ELSEWHERE_S and self._is_idle(ELSEWHERE_S / 2)

    def _knows_no_ping(self) -> bool:
        """Say whether it has answered 4xx for a while, and does nothing that could add the path."""
        pings = self.start.pings
        if not pings or not 400 <= pings[-1].status < 500:
            self.answered_s = self.start.elapsed_s
            return False
        return self.start.elapsed_s - self.answered_s > ELSEWHERE_S and self._is_idle(ELSEWHERE_S / 2)

    def _is_idle(self, seconds: float) -> bool:
        """Say whether the program had little to do in the last seconds; False until they have passed.

        On a machine that is busy with others a program that works has little CPU time too: that it waits for some tells.
        """
        pid, now = self.start.endpoint.program.pid, self.start.elapsed_s
        if not pid:
            return now - self.elsewhere_s > 2 * seconds  # it can't be seen: more time instead
        family = procfs.family(pid)
        self.looks.append((now, procfs.cpu_seconds(family), procfs.wants_to_run(family)))
        before = sum(at_s <= now - seconds for at_s, _, _ in self.looks)
        recent = self.looks[max(before - 1, 0) :]
        little = recent[-1][1] - recent[0][1] < IDLE_CPU * seconds
        return before > 0 and little and sum(wants for _, _, wants in recent) < IDLE_CPU * len(recent)


def wait_until(endpoint: Endpoint, ready: Callable[[Endpoint], bool], began: float, patience_s: float) -> None:
    """Wait until a program is ready in another way than by /ping; raises Violated where it ends, or is not within patience."""
    last = "nothing listened"
    while time.monotonic() - began < patience_s:
        try:
            if ready(endpoint) and (_is_seen(endpoint.program) or endpoint.program.is_running()):
                return
            last = "it answered, and not as it should"
        except OSError as error:
            last = f"{type(error).__name__}: {error}"
        if not endpoint.program.is_running():
            said = endpoint.program.output()
            raise Violated(f"it ended with exit code {endpoint.program.wait()}: {_end(said)}")
        time.sleep(POLL_S)
    raise Violated(f"it was not ready within {patience_s:g} s ({last}): {_end(endpoint.program.output())}")


def listens_at(program: Program) -> frozenset[Address] | None:
    """Return where a program listens; None where that can't be seen from here."""
    if not program.pid or not Path(f"/proc/{program.pid}/net/tcp").exists():
        return None
    owners = None if isinstance(program, Container) else procfs.family(program.pid)  # a process shares this machine's network
    return procfs.listening(program.pid, owners)


def _is_seen(program: Program) -> bool:
    """Say whether a container's first process can be seen from here, which costs no question to the engine."""
    return isinstance(program, Container) and bool(program.pid) and Path(f"/proc/{program.pid}").exists()


def _leads_to_200(endpoint: Endpoint) -> bool:
    try:
        return endpoint.ping().status == 200
    except OSError:
        return False


def _end(text: str, lines: int = 8) -> str:
    """Return the end of a log, as evidence."""
    return "\n".join(text.strip().splitlines()[-lines:]) or "it printed nothing"
