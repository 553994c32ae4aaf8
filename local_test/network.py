"""Whether this machine reaches an engine's containers by their addresses."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network


class OutOfReach(RuntimeError):
    """A container runs, and this machine can't reach it: the engine is in a virtual machine, or its networks are not here."""


def is_beside(network: str) -> bool:
    """Say whether this machine has an address in a network, so that what it sends there goes nowhere else."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((network.partition("/")[0], 9))  # sends nothing
        except OSError:
            return False
        return ip_address(probe.getsockname()[0]) in ip_network(network, strict=False)
