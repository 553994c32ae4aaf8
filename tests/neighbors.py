"""A neighbor on local mode's network: a run that finds nobody there removes it at its end, when another run may want it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from broken import SOUND_IMAGE, build_sound

from local_test.sdk import sandbox


@contextmanager
def neighbor(docker: str) -> Iterator[None]:
    """Have a container on local mode's network, so that several runs of local mode may go on at once."""
    name, label = "berth-neighbor", f"com.docker.compose.network={sandbox.NETWORK}"  # compose looks for its label
    build_sound(docker)
    made = not subprocess.run([docker, "network", "create", "--label", label, sandbox.NETWORK], capture_output=True).returncode
    on = ["--network", sandbox.NETWORK, "--network-alias", "neighbor"]
    subprocess.run([docker, "rm", "--force", name], capture_output=True, check=False)  # a run that was killed left it
    subprocess.run([docker, "run", "--detach", "--name", name, *on, SOUND_IMAGE, "sleep", "infinity"], check=True)
    try:
        yield
    finally:
        subprocess.run([docker, "rm", "--force", name], check=True)
        if made:
            subprocess.run([docker, "network", "rm", sandbox.NETWORK], check=True)
