"""A started program, and what is seen of it from outside: processes, sockets, memory, files, its end."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from local_test import procfs
from local_test.runners import Container, Process, Program

LOOK_S, TOLD_S = 0.5, 10
HANDLER_S = 5
"""After which a program has installed its handlers of signals, if it ever does."""
DEAF_S = 3
"""How long to wait for the end of a program that has no handler for SIGTERM: it would take all of the patience."""
SCRATCH = ("/tmp", "/run", "/var/run", "/dev", "/proc", "/sys", "/opt/ml")  # noqa: S108  # of the container
QUIET = ("__pycache__", ".pyc")
"""What Python writes if it can, and does without."""


@dataclass
class Watch:
    """A started program and what has been seen of it so far."""

    program: Program
    docker: str = ""
    """The engine's client; empty for processes of this machine."""
    started: float = field(default_factory=time.monotonic)
    seen: dict[str, Any] = field(default_factory=dict)
    _pid: int = 0
    _pids: dict[int, str] = field(default_factory=dict)
    _looked: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self.started

    def is_running(self) -> bool:
        """Say whether it has not ended; without a call to the engine where its first process can be seen."""
        return procfs.is_running(self._pid) if self._pid else self.program.is_running()

    def look(self, *, again: bool = False) -> None:
        """Note processes, sockets, memory and packets, at most every half second."""
        if not again and time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        pids = self._processes()
        found = {"listeners": procfs.listening(self._pid, None if self.docker else pids), **self._of_container()}
        if not pids or not procfs.is_running(self._pid):
            return  # it ended meanwhile: what the kernel tells of such a process is not its own
        if self.seconds > 1:
            self.seen["dead"] = (*self.seen.get("dead", ()), *(self._pids[pid] for pid in self._pids.keys() - pids.keys()))
        self._pids = pids
        self.seen.update(found, processes=tuple(pids.values()))

    def _of_container(self) -> dict[str, Any]:
        """Return what a container has for itself: network, memory, a first process."""
        if not self.docker or not self._pid:
            return {}
        found: dict[str, Any] = {
            "connecting": self.seen.get("connecting", frozenset()) | procfs.connecting(self._pid),
            "without_route": max(self.seen.get("without_route", 0), procfs.without_route(self._pid)),
        }
        if self.seconds > HANDLER_S or "ready_s" in self.seen:
            found["heeds_stop"] = procfs.heeds(self._pid, signal.SIGTERM)
        memory, before = procfs.memory(self._pid), self.seen.get("memory")
        if memory:
            found["memory"] = replace(memory, used_bytes=max(memory.used_bytes, before.used_bytes if before else 0))
        return found

    def cpu_seconds(self) -> float:
        """Return the CPU time of its processes."""
        return procfs.cpu_seconds(procfs.family(self._pid)) if self._pid else 0.0

    def is_working(self) -> bool:
        """Say whether one of its processes computes, or would on an idle machine."""
        return procfs.is_working(procfs.family(self._pid)) if self._pid else False

    def examine(self) -> None:
        """Note what can only be asked while the container is there: whether it ended by itself, how, and what it wrote."""
        if not isinstance(self.program, Container):
            self.seen["ended"] = not self.program.is_running()
            return
        until = time.monotonic() + TOLD_S
        while not self.is_running() and self.program.is_running() and time.monotonic() < until:
            time.sleep(LOOK_S)  # the engine has yet to hear of its end
        about = json.loads(_run(self.docker, "inspect", self.program.name) or "[{}]")[0]
        state, mounts = about.get("State", {}), about.get("HostConfig", {}).get("Tmpfs") or {}
        places = [*(mount["Destination"] for mount in about.get("Mounts", [])), *mounts]
        self.seen["ended"] = not state.get("Running", False)
        self.seen["oom_killed"] = bool(state.get("OOMKilled"))
        self.seen["written"] = written(_run(self.docker, "diff", self.program.name), places)

    def end(self, patience_s: float) -> None:
        """Stop it as the platform does, and note how long that took and what it printed."""
        self.seen["seconds"] = self.seconds
        if self.seen.get("ended"):
            self.seen.update(exit_code=self.program.wait(), output=self.program.output())
            return
        self.seen["output"] = self.program.output()  # before it is asked: what a stop makes it say is no cause
        patience_s = min(patience_s, DEAF_S) if self.seen.get("heeds_stop") is False else patience_s
        asked = time.monotonic()
        self.program.signal(signal.SIGTERM)
        self.seen["stop_patience_s"] = patience_s
        try:
            self.seen["exit_code"] = self.program.wait(patience_s)
            self.seen["stop_s"] = time.monotonic() - asked
        except subprocess.TimeoutExpired:
            self.program.signal(signal.SIGKILL)
            self.seen["exit_code"] = self.program.wait()

    def _processes(self) -> dict[int, str]:
        """Return the command lines of its processes by their numbers on this machine; none once it has ended."""
        if isinstance(self.program, Process):
            self._pid = self.program.popen.pid
            return {pid: _command(pid) for pid in procfs.family(self._pid)}
        if not isinstance(self.program, Container):
            return {}
        if not self._pid:
            self._pid = _first_process(self.docker, self.program.name)
        return {pid: _command(pid) for pid in procfs.family(self._pid)} if self._pid and self.is_running() else {}


def written(diff: str, mounts: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the files of a `docker diff` that lie where a container should not write (H-4): outside /tmp and mounts."""
    lines = [line.split(" ", 1) for line in diff.splitlines() if " " in line]
    changed = [path for kind, path in lines if kind in {"A", "C", "D"}]
    folders = {path.rpartition("/")[0] for path in changed}
    leaves = [path for path in changed if path not in folders]
    return tuple(
        path
        for path in leaves
        if not path.endswith(QUIET) and not any(path == place or path.startswith(place + "/") for place in (*SCRATCH, *mounts))
    )


def _first_process(docker: str, name: str) -> int:
    """Return a container's first process; 0 where it ended, or where the engine runs on another machine."""
    told = _run(docker, "inspect", "--format", "{{.State.Pid}} {{.Id}}", name).split()
    with contextlib.suppress(OSError):
        if len(told) == 2 and told[1] in Path(f"/proc/{told[0]}/cgroup").read_text():
            return int(told[0])
    return 0


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return ""


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
