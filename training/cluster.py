"""Training on several hosts: Dask's scheduler on the first of them, one worker process on each, and an end for all of them.

No wait is without a bound. The leader, `hosts[0]`, alone writes a model (T-34); whatever ends it, it tells the others first.
What Dask's processes receive they unpickle: they listen on the host's own address only, and SECURITY.md says who may reach it.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from contract.cgroup import cpus
from contract.errors import AlgorithmError, BerthError, Stopped
from contract.files import write_text
from contract.job import Job
from training.child import die_with_parent
from training.network import network_bytes, print_network, resolve
from training.stop import Stop

SCHEDULER_PORT, WORKER_PORT, LIGHTGBM_PORT = 8786, 8790, 12400
GATHER_S = 300
"""How long the leader waits for every host's worker, and a worker for the leader."""
LINGER_S = 20
"""How long a host whose part is over waits for the leader's word. SDK local mode stops all containers when the first ends."""
TELL_S = 10
POLL_S = 0.2
OUTCOME = "BERTH_OUTCOME"
DONE = "0"

# What the job's environment sets of these stands. No page of Dask's is served. A silent peer is given up after 20 s by TCP,
# after 60 s by missed heartbeats; a task whose worker is lost is not tried elsewhere, since its rows are not there.
DASK = {
    "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES": "[]",
    "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": "[]",
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
    "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "60s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "20s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "20s",
    "DASK_LOGGING__DISTRIBUTED": "error",
}

T = TypeVar("T")
Node = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Cluster:
    """The hosts of a job, all present, as the leader sees them."""

    client: Any
    workers: Mapping[str, str]
    """Host to the address of its worker, in the job's order."""
    stop: Stop

    def run(self, phase: str, work: Callable[[], T], look: Callable[[], None] | None = None) -> T:
        """Return what `work` returns, or give up when the platform asks to stop or a host is lost.

        Args:
            phase: what is being done, for messages.
            work: waits for Dask. It runs in a thread, which is left behind when this gives up.
            look: called now and then in place of a look at the stop; what it raises ends the wait.

        Raises:
            Stopped: the signal came.
            AlgorithmError: a host's worker is gone; the message names the host.
        """
        results: list[T] = []
        errors: list[Exception] = []

        def call() -> None:
            try:
                results.append(work())
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(POLL_S)
            look() if look else self.stop.check(phase)
            if thread.is_alive():
                self.check(phase)
        if not errors:
            return results[0]
        if not isinstance(errors[0], BerthError):
            self.check(phase)  # whose loss broke it says more than how it broke
        raise errors[0]

    def check(self, phase: str) -> None:
        """Raise AlgorithmError, which names them, where hosts are gone."""
        present = self.client.nthreads()
        lost = [host for host, address in self.workers.items() if address not in present]
        if lost:
            raise AlgorithmError(
                f"Lost {_hosts(lost)} while {phase}: its training process ended or can't be reached any more. The log of that "
                "host says why, if it could; most often it is want of memory. Start the job again.",
                hosts=lost,
            )


@contextmanager
def lead(job: Job, stop: Stop) -> Iterator[Cluster]:
    """Give the leader its cluster, and tell the other hosts how it ended.

    Raises:
        AlgorithmError: a host has no address, or its worker did not come, within a bound; the message names it.
        Stopped: the signal came before all were there.
    """
    started, before = time.monotonic(), network_bytes()
    addresses = resolve(job, stop)
    own = addresses[job.host]
    with ExitStack() as nodes:
        nodes.enter_context(_node("scheduler", ["--port", str(SCHEDULER_PORT), *_listen(own)]))
        nodes.enter_context(_worker(job, addresses, {}))
        import training.together  # noqa: F401  # while the others come: two seconds that nobody waits for

        client = nodes.enter_context(_client(own, stop))
        workers = {host: f"tcp://{address}:{WORKER_PORT}" for host, address in addresses.items()}
        cluster = Cluster(client, workers, stop)
        outcome = DONE
        try:
            _await_workers(cluster)
            print(f"cluster: {len(workers)} hosts, led by {job.host}: {', '.join(workers)}", flush=True)
            yield cluster
        except BaseException as error:
            outcome = str(error.exit_code if isinstance(error, BerthError) else 2)
            raise
        finally:
            _tell(client, outcome)
            print_network(job.host, before, started)


def follow(job: Job, stop: Stop) -> int:
    """Work for the leader until it says how the job ended; return the exit code.

    Raises:
        AlgorithmError: the leader is gone without a word; the only case in which another host leaves a reason.
        Stopped: the signal came and the leader, which has had it too or loses this host now, said nothing in time.
    """
    started, before = time.monotonic(), network_bytes()
    addresses = resolve(job, stop)
    print(f"cluster: {job.host} works for {job.hosts[0]}", flush=True)
    with tempfile.TemporaryDirectory(prefix="berth-") as folder:
        outcome = Path(folder) / "outcome"
        with _worker(job, addresses, {OUTCOME: str(outcome)}) as node:
            _await_word(outcome, node, addresses[job.hosts[0]], stop)
            code = node.poll()
            if outcome.exists():
                _await_the_end(node)
        print_network(job.host, before, started)
        if outcome.exists():
            return int(outcome.read_text())
    if stop.requested:
        raise Stopped(f"Stopped by a signal on {job.host}, while it worked for {job.hosts[0]}. Start the job again.")
    if code:
        print(f"cluster: the worker of {job.host} ended with exit code {code} (-9: killed, mostly for memory)", flush=True)
        return AlgorithmError.exit_code  # the leader misses this host, and gives the reason
    raise AlgorithmError(
        f"The leader {job.hosts[0]} is gone: {job.host} lost its connection, or had none for {GATHER_S} s. Look at "
        f"its log, and whether the job's hosts reach each other on ports {SCHEDULER_PORT}, {WORKER_PORT} and {LIGHTGBM_PORT}."
    )


def _await_word(outcome: Path, node: Node, leader: str, stop: Stop) -> None:
    """Wait until the leader has said how the job ended, or can't any more.

    A host whose worker has died hears nothing, but stays while the leader is there: that one must end first, with the reason.
    """
    deadline = float("inf")
    while not outcome.exists() and time.monotonic() < deadline:
        time.sleep(POLL_S)
        if node.poll() is not None and not _listens(leader):
            return
        if deadline == float("inf") and (stop.requested or node.poll() is not None):
            deadline = time.monotonic() + LINGER_S


def _listens(address: str) -> bool:
    """Say whether Dask's scheduler takes connections there."""
    with suppress(OSError), socket.create_connection((address, SCHEDULER_PORT), timeout=1):
        return True
    return False


def _await_the_end(node: Node) -> None:
    """Wait until the worker has lost its leader: SDK local mode stops all containers when the first ends."""
    with suppress(subprocess.TimeoutExpired):
        node.wait(TELL_S)


def tell_outcome(text: str) -> None:
    """Leave the leader's word for `follow`; runs in a worker."""
    if path := os.environ.get(OUTCOME):
        write_text(Path(path), text)


def _worker(job: Job, addresses: Mapping[str, str], environ: Mapping[str, str]) -> Any:
    own = addresses[job.host]
    leader = f"tcp://{addresses[job.hosts[0]]}:{SCHEDULER_PORT}"
    words = [leader, *_listen(own), "--worker-port", str(WORKER_PORT), "--name", job.host, "--death-timeout", str(GATHER_S)]
    # Likewise, before there is anything to do; pandas since a task would see half of what another's imputer imports.
    libraries = ["--preload", "training.distribute", "--preload", "pandas"]
    sizes = ["--nworkers", "1", "--nthreads", str(cpus()), "--memory-limit", "0", "--no-nanny"]
    return _node("worker", [*words, *libraries, *sizes, "--local-directory", tempfile.gettempdir()], environ)


def _listen(address: str) -> list[str]:
    """Keep to one address; Dask opens a port for pages even where there are none."""
    return ["--host", address, "--no-dashboard", "--dashboard-address", f"{address}:0"]


@contextmanager
def _node(kind: str, words: Sequence[str], environ: Mapping[str, str] | None = None) -> Iterator[Node]:
    """Run one of Dask's own programs as a child that dies with this process, and is killed at the end: it keeps nothing."""
    root = str(Path(__file__).resolve().parent.parent)
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", f"distributed.cli.dask_{kind}", *words],
        env={**DASK, **os.environ, **(environ or {}), "PYTHONPATH": root},
        cwd=root,  # which `-m` puts first on the path
        preexec_fn=_become_a_node,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _become_a_node() -> None:
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # whoever signals the group means the parent, which decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _client(address: str, stop: Stop) -> Iterator[Any]:
    for name, value in DASK.items():  # read at the import
        os.environ.setdefault(name, value)
    distributed: Any = importlib.import_module("distributed")  # with it comes what only several hosts need

    deadline = time.monotonic() + GATHER_S
    while not _listens(address):
        stop.check("starting Dask's scheduler")
        if time.monotonic() > deadline:
            raise AlgorithmError(f"Dask's scheduler did not start on {address}:{SCHEDULER_PORT}; the log has its reason.")
        time.sleep(POLL_S)
    client = distributed.Client(f"tcp://{address}:{SCHEDULER_PORT}", timeout=60)
    try:
        yield client
    finally:
        with suppress(Exception):  # what it has lost is lost; the reason is on its way
            client.close(timeout=2)


def _await_workers(cluster: Cluster) -> None:
    deadline = time.monotonic() + GATHER_S
    while missing := [host for host, address in cluster.workers.items() if address not in cluster.client.nthreads()]:
        cluster.stop.check("waiting for the other hosts")
        if time.monotonic() > deadline:
            raise AlgorithmError(
                f"{_hosts(missing)} did not come within {GATHER_S} s. Its log says why; the job's hosts must reach each other "
                f"on ports {SCHEDULER_PORT}, {WORKER_PORT} and {LIGHTGBM_PORT}.",
                hosts=missing,
            )
        time.sleep(POLL_S)


def _tell(client: Any, outcome: str) -> None:
    """Say to every host that can be reached how the job ended; those that can't will miss the leader."""

    def say() -> None:
        with suppress(Exception):
            client.run(tell_outcome, outcome, on_error="ignore")

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    thread.join(TELL_S)


def _hosts(names: Sequence[str]) -> str:
    return f"host{'s' if len(names) > 1 else ''} {', '.join(names)}"
