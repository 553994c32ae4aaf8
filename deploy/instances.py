"""Instance types, and which of them go with the image and the keys."""

from __future__ import annotations

import re

from deploy.errors import BadSettings
from deploy.settings import Network

TYPE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+")
ARM = re.compile(r"ml\.[a-z]+\d+g[a-z]*\.")
LOCAL = re.compile(r"ml\.(\w+d|g[4-9]\w*|gr\d\w*|p3dn|p4de?|p[5-9][\w-]*|trn\d\w*|dl1)\.")
"""What has disks of its own: their key is the hardware's, and SageMaker refuses another (API:ResourceConfig)."""


def check_instances(name: str, given: str, count: int, network: Network) -> None:
    """Refuse instances that a job would not get.

    Args:
        name: of the setting, for the message.
        given: the type.
        count: how many.
        network: has the key of the volumes.

    Raises:
        BadSettings: with the reason.
    """
    flag = f"--{name.replace('_', '-')}"
    if not TYPE.fullmatch(given):
        raise BadSettings(f"{name} is {given!r}; such as ml.m5.large was expected: {flag} ml.m5.large.")
    if ARM.match(given):
        raise BadSettings(f"The image is made for linux/amd64, and {given} is Arm (T-7): choose another with {flag}.")
    if count < 1:
        raise BadSettings(f"A job takes one instance at least, not {count}: {flag.replace('-type', '-count')} 1.")
    if network.volume_key and LOCAL.match(given):
        raise BadSettings(
            f"{given} has disks of its own, which the hardware encrypts: leave out --volume-key, or choose another {flag}."
        )
