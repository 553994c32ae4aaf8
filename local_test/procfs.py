"""What the kernel tells of a program that runs on this machine, in a container or not: sockets, CPU, memory, signals.

It reads /proc and /sys/fs/cgroup of Linux, which need no privilege for this. What can't be read is None or empty.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LISTENS, CONNECTS = "0A", "02"
"""States of a TCP socket in /proc/net/tcp: waits for connections; asked for one and has no answer yet."""
NAMES = 53
"""The port of name servers."""
RESOLVER = "127.0.0.11"
"""Docker's own name server: it listens in the container, and is not the container's."""
TICKS_S = os.sysconf("SC_CLK_TCK")
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, order=True)
class Address:
    """Where a socket listens, or what it wants to reach."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Say whether only the container itself can reach it."""
        return self.host.startswith("127.") or self.host == "::1"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Memory:
    """What a container took of memory."""

    used_bytes: int
    """Of the programs themselves: the kernel's cache of files can be given up, and does not count."""
    limit_bytes: int | None
    """None without a limit."""
    kills: int
    """How many of its processes the kernel killed for want of memory."""


def is_running(pid: int) -> bool:
    """Say whether a process is there and has not ended: one that nobody has waited for yet still has an entry."""
    return _state(pid) not in {"", "Z", "X"}


def is_working(pids: Iterable[int]) -> bool:
    """Say whether one of some processes computes, or would if a CPU were free, or waits for a disk."""
    return any(_state(pid) in {"R", "D"} for pid in pids)


def listening(pid: int, owners: Iterable[int] | None = None) -> frozenset[Address]:
    """Return where the programs of a process's network listen; with `owners` only those processes."""
    inodes = None if owners is None else set(_inodes(owners))
    return frozenset(
        local
        for state, local, _, inode in _sockets(pid)
        if state == LISTENS and local.host != RESOLVER and (inodes is None or inode in inodes)
    )


def connecting(pid: int) -> frozenset[Address]:
    """Return what programs of a process's network try to reach without an answer, name servers among them."""
    waiting = {remote for state, _, remote, _ in _sockets(pid) if state == CONNECTS}
    return frozenset(waiting | {remote for _, _, remote, _ in _sockets(pid, ("udp", "udp6")) if remote.port == NAMES})


def without_route(pid: int) -> int:
    """Return how many packets of a process's network had no way to go: attempts to leave it."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path(f"/proc/{pid}/net/snmp").read_text().splitlines()
        names, values = (line.split() for line in lines if line.startswith("Ip:"))
        return int(values[names.index("OutNoRoutes")])
    return 0


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time that processes have had."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime, stime
    return ticks / TICKS_S


def wants_to_run(pids: Iterable[int]) -> bool:
    """Say whether a thread of processes runs, or waits for a processor or a disk."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError, IndexError):
                    if (task / "stat").read_text().rpartition(")")[2].split()[0] in "RD":
                        return True
    return False


def heeds(pid: int, number: int) -> bool | None:
    """Say whether a process has a handler for a signal; without one the first process of a container ignores it (T-4)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigCgt:", "SigBlk:"))]
        return any(mask >> (number - 1) & 1 for mask in masks)  # blocked is as good: tini waits for signals so
    return None


def memory(pid: int) -> Memory | None:
    """Return what the container of a process took of memory, of cgroups of either version."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        groups = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
        if "memory" in groups:
            folder = CGROUPS / "memory" / groups["memory"].lstrip("/")
            return _memory(folder, "total_rss", "memory.limit_in_bytes", "memory.oom_control")
        return _memory(CGROUPS / groups[""].lstrip("/"), "anon", "memory.max", "memory.events")
    return None


def resident_mb(pid: int) -> float:
    """Return what a program and its descendants hold: their own pages, shared ones counted once, and the libraries."""
    anonymous, libraries = 0, 0
    for process in (Path("/proc") / str(member) for member in family(pid)):
        with contextlib.suppress(OSError):  # it has just ended
            rollup = (process / "smaps_rollup").read_text()
            anonymous += sum(int(kb) for kb in re.findall(r"^Pss_(?:Anon|Shmem): +(\d+)", rollup, re.MULTILINE))
            files = re.search(r"^RssFile:\s+(\d+)", (process / "status").read_text(), re.MULTILINE)
            libraries = max(libraries, int(files[1]) if files else 0)
    return (anonymous + libraries) * 1024 / 1e6


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    found = [pid]
    for parent in found:
        found += children(parent)
    return found


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, and not their own."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _memory(folder: Path, used: str, limit: str, kills: str) -> Memory:
    most = (folder / limit).read_text().strip()
    limited = most != "max" and int(most) < 1 << 60  # version 1 says "none" by a number near 2 to the 63
    return Memory(
        _counts(folder / "memory.stat")[used], int(most) if limited else None, _counts(folder / kills).get("oom_kill", 0)
    )


def _state(pid: int) -> str:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def _counts(file: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in file.read_text().splitlines())}


def _sockets(pid: int, kinds: Sequence[str] = ("tcp", "tcp6")) -> Iterator[tuple[str, Address, Address, str]]:
    """Yield state, local and remote address and inode of each socket of a process's network."""
    for name in kinds:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
                fields = line.split()
                yield fields[3], _address(fields[1]), _address(fields[2]), fields[9]


def _address(text: str) -> Address:
    """Return what `0100007F:1F90` means: words of 4 bytes in the machine's order, then the port."""
    host, _, port = text.partition(":")
    words = bytes.fromhex(host)
    ordered = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    kind = socket.AF_INET if len(ordered) == 4 else socket.AF_INET6
    return Address(socket.inet_ntop(kind, ordered).removeprefix("::ffff:"), int(port, 16))


def _inodes(pids: Iterable[int]) -> Iterator[str]:
    for pid in pids:
        with contextlib.suppress(OSError):
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    kind, _, inode = str(handle.readlink()).partition(":[")
                    if kind == "socket":
                        yield inode.rstrip("]")
