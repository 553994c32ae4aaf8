"""The hosts of a job on the network: their addresses, and the bytes that pass between them."""

from __future__ import annotations

import socket
import time

from contract.errors import AlgorithmError
from contract.job import Job
from training.stop import Stop

NAMES_S = 300
"""How long names may take to appear in DNS (T-33; SageMaker's own toolkit waits up to 15 minutes)."""
DISCARD_PORT = 9


def resolve(job: Job, stop: Stop, patience_s: float = NAMES_S) -> dict[str, str]:
    """Return each host's IPv4 address. DNS may know the names late, and no interface has a fixed name (T-33).

    Raises:
        AlgorithmError: a name has no address in time.
    """
    deadline = time.monotonic() + patience_s
    addresses = {host: _address(host, deadline, patience_s, stop) for host in job.hosts}
    others = [address for host, address in addresses.items() if host != job.host]
    if addresses[job.host].startswith("127.") and not all(address.startswith("127.") for address in others):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # /etc/hosts says so; nothing is sent
            probe.connect((others[0], DISCARD_PORT))
            addresses[job.host] = probe.getsockname()[0]
    return addresses


def network_bytes() -> tuple[int, int]:
    """Return what this machine has sent and received so far, its own loopback left out."""
    import psutil  # with Dask

    counters = [count for name, count in psutil.net_io_counters(pernic=True).items() if name != "lo"]
    return sum(count.bytes_sent for count in counters), sum(count.bytes_recv for count in counters)


def print_network(host: str, before: tuple[int, int], started: float) -> None:
    """Print what has been sent and received since, one line a host, for whoever measures."""
    sent, received = (after - earlier for after, earlier in zip(network_bytes(), before, strict=True))
    seconds = time.monotonic() - started
    print(f"network: {host} sent {sent} bytes, received {received} bytes, {seconds:.1f} s", flush=True)


def _address(host: str, deadline: float, patience_s: float, stop: Stop) -> str:
    said = False
    while True:
        try:
            return str(socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0])
        except OSError as error:
            if time.monotonic() > deadline:
                raise AlgorithmError(f"Host {host} has no address after {patience_s:.0f} s of asking: {error}.") from error
        if not said:
            print(f"cluster: {host} has no address yet; asking for up to {patience_s:.0f} s", flush=True)
            said = True
        stop.check("waiting for the hosts' names")
        time.sleep(min(1.0, patience_s))
