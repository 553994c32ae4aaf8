"""What happens to a server when things go wrong, measured: each function does one thing to it and says what came of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from local_test import payloads, procfs
from local_test.emulator import Endpoint, serving, stop
from local_test.runners import Containers, Processes

CLIENTS = 8
TEN_YEARS_S = 10 * 365 * 86_400
JUMPING_CLOCK = """
import pathlib, time
offset, real = pathlib.Path(__file__).with_name("offset"), time.time
time.time = lambda: real() + float(offset.read_text() or 0)
"""


@dataclass
class Load:
    """Clients that ask one row after another, each on a connection of its own, and count what they get."""

    endpoint: Endpoint
    body: bytes
    counts: Counter[str] = field(default_factory=Counter)
    stopped: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> str:
        """Return a status, `cut` for an answer that broke off, `unanswered` for none."""
        address = urlsplit(self.endpoint.program.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        outcome = "unanswered"
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("POST", "/invocations", self.body, {"Content-Type": "text/csv"})
            response = connection.getresponse()
            outcome = "cut"
            response.read()
            outcome = str(response.status)
        return outcome

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Keep the clients busy within the block."""
        threads = [threading.Thread(target=self._loop) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            for thread in threads:
                thread.join()

    def _loop(self) -> None:
        while not self.stopped.is_set():
            outcome = self.ask()
            self.counts[outcome] += 1
            if outcome == "unanswered":
                time.sleep(0.01)


def stop_under_load(base: Path, seconds: float) -> tuple[str, str]:
    """SIGTERM while clients ask."""
    with _loaded(base) as (endpoint, load), load.running():
        time.sleep(seconds)
        started = time.monotonic()
        code = stop(endpoint.program, 30)
        gone_s = time.monotonic() - started
    answered = f"{load.counts['200']:,} answered 200, {load.counts['cut']} answers cut"
    return "SIGTERM under load", f"{answered}; gone after {gone_s:.1f} s with exit code {code}"


def kill_worker(base: Path, seconds: float) -> tuple[str, str]:
    """Kill -9 of one of two workers while clients ask."""
    with _loaded(base) as (endpoint, load), load.running():
        time.sleep(seconds)
        before = children(endpoint)
        os.kill(before[0], signal.SIGKILL)
        started = time.monotonic()
        while len(set(children(endpoint)) - {before[0]}) < 2 and time.monotonic() - started < 30:
            time.sleep(0.01)
        back_s = time.monotonic() - started
        time.sleep(seconds)
    lost = sum(count for outcome, count in load.counts.items() if outcome != "200")
    answered = f"{load.counts['200']:,} answered 200, {lost} lost of at most {CLIENTS} held"
    return "kill -9 of a worker under load", f"{answered}; replaced after {back_s:.2f} s"


def model_deleted(base: Path, seconds: float) -> tuple[str, str]:
    """The model's files are deleted while it serves."""
    with _loaded(base) as (endpoint, load):
        shutil.rmtree(base / "model")
        with load.running():
            time.sleep(seconds)
        ping = endpoint.ping().status
    return "model files deleted while serving", f"{_plain(load.counts)}; /ping {ping}: the model is in memory"


def open_sockets(base: Path, count: int) -> tuple[str, str]:
    """Connections that say nothing, up to `count` as far as this machine allows."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with _loaded(base) as (endpoint, load), contextlib.ExitStack() as stack:
        address = urlsplit(endpoint.program.url)
        for _ in range(min(count, hard - 100)):
            stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=30))
        pings = sorted(endpoint.ping().seconds for _ in range(50))
        asked = load.ask()
        memory = sum(map(pss_bytes, children(endpoint)))
    done = f"{min(count, hard - 100):,} silent connections open"
    worst = f"slowest of 50 pings {1000 * pings[-1]:.0f} ms"
    return f"{count:,} open sockets", f"{done}: {worst}, a row is answered {asked}; workers hold {memory / 1e6:.0f} MB"


def clock_jump(base: Path, seconds: float) -> tuple[str, str]:
    """The wall clock, as Python reads it, jumps ten years ahead and back; the machine's own is everybody's and stays."""
    folder = base.parent / "clock"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(JUMPING_CLOCK)
    (folder / "offset").write_text("0")
    with _loaded(base, {"PYTHONPATH": str(folder)}) as (endpoint, load):
        workers = children(endpoint)
        with load.running():
            for offset in (TEN_YEARS_S, -TEN_YEARS_S, 0):
                time.sleep(seconds / 2)
                (folder / "offset").write_text(str(offset))
            time.sleep(seconds)
        same = "the same workers" if set(children(endpoint)) == set(workers) else "other workers"
    return "wall clock ten years ahead, back, and right again", f"{_plain(load.counts)}; {same}"


def full_disk(base: Path, image: str, docker: str) -> tuple[str, str]:
    """Nothing can be written to /tmp any more, in a read-only container."""
    platform = Containers(image, docker, ("--read-only", "--tmpfs", "/tmp:size=256k"))  # noqa: S108
    with serving(platform, base) as endpoint:
        fill = "head -c 1000000 /dev/zero > /tmp/full; echo x >> /tmp/more || echo no room"
        name = endpoint.program.name  # type: ignore[attr-defined]
        said = subprocess.run([docker, "exec", name, "sh", "-c", fill], capture_output=True, text=True, check=False)
        load = Load(endpoint, _row(base))
        asked = Counter(load.ask() for _ in range(100))
        metrics = endpoint.get("/metrics").status
    return "disk full on /tmp", f"{said.stdout.strip() or 'still room'}; {_plain(asked)}; /metrics {metrics}"


def flat_memory(base: Path, requests: int) -> tuple[str, str]:
    """Workers' memory over many requests, by wrk."""
    if not shutil.which("wrk"):
        return "memory over many requests", "not measured: wrk is not installed"
    script = base.parent / "post.lua"
    row = _row(base).decode().strip()
    script.write_text(f'wrk.method="POST"; wrk.body="{row}"; wrk.headers["Content-Type"]="text/csv"')
    figures, done = [], 0
    with _loaded(base) as (endpoint, _):
        while done < requests:
            command = ["wrk", "-t1", "-c16", "-d10", "-s", str(script), endpoint.program.url + "/invocations"]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            done += int(output.split(" requests in ")[0].split()[-1])
            figures.append((done, sum(map(pss_bytes, children(endpoint))) / 1e6))
    shown = ", ".join(f"{size:.1f} MB after {count:,}" for count, size in figures[:: max(1, len(figures) // 4)])
    return f"memory of two workers over {done:,} requests", f"{shown}, {figures[-1][1]:.1f} MB at the end"


def children(endpoint: Endpoint) -> list[int]:
    """Return the workers' process numbers."""
    return procfs.children(endpoint.program.pid)


def pss_bytes(pid: int) -> int:
    """Return what a process holds of memory, shared pages divided among their holders."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("Pss:")))


@contextlib.contextmanager
def _loaded(base: Path, environ: dict[str, str] | None = None) -> Iterator[tuple[Endpoint, Load]]:
    with serving(Processes(), base, {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", **(environ or {})}) as endpoint:
        while len(children(endpoint)) < 2:  # the first answers before the second has started
            time.sleep(0.01)
        yield endpoint, Load(endpoint, _row(base))


def _row(base: Path) -> bytes:
    manifest = json.loads((base / "model" / "manifest.json").read_text())
    return payloads.csv_body(manifest, payloads.sample_rows(manifest)[:1])


def _plain(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} x {outcome}" for outcome, count in sorted(counts.items()))
