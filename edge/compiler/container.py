"""The compiler's container: built when it is first wanted, and run over one folder, without network or rights."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import click

from contract.errors import MissingLibrary

IMAGE = "berth-edgetpu-compiler:16.0"
FOLDER = Path(__file__).resolve().parent
SOURCE = "packages.cloud.google.com"
COMPILER = "edgetpu_compiler"
BUILD_S, RUN_S = 1_800, 900
"""The compiler itself gives up after 180 s."""
UNREACHABLE = re.compile(
    r"no such host|could not resolve|temporary failure|connection (?:refused|reset|timed out)|i/o timeout|failed to connect"
    r"|unable to connect|network is unreachable|dial tcp|tls handshake|proxyconnect|forbidden|unexpected http status"
    r"|\b40[37]\b",
    re.IGNORECASE,
)
"""What builders and apt say of a host that they don't get to."""


def prepare(image: str) -> str:
    """Return the Docker client whose engine has the image; the compiler's own image is built where it is missing.

    Raises:
        MissingLibrary: there is no engine, or no image, and none can be built.
    """
    engine = _engine()
    if _quiet(engine, "image", "inspect", image).returncode == 0:
        return engine
    if image != IMAGE:
        raise MissingLibrary(f"There is no image {image} here. Build or pull it, or leave --image out.", library=COMPILER)
    click.echo(f"Building {IMAGE} from edge/compiler/Dockerfile, once ..", err=True)
    command = ("build", "--platform", "linux/amd64", "--tag", IMAGE, str(FOLDER))
    try:
        done = _run(engine, command, BUILD_S)
    except subprocess.TimeoutExpired as error:
        raise MissingLibrary(f"Building {IMAGE} took more than {BUILD_S} s. Try again.", library=COMPILER) from error
    if done.returncode:
        raise _unbuilt(done.stdout)
    return engine


def run_compiler(engine: str, image: str, folder: Path, name: str) -> str:
    """Return what the compiler prints of a model in a folder, which is the only thing that it sees, and where it writes."""
    options = (
        "--network",
        "none",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--read-only",
        "--tmpfs",
        "/tmp",  # noqa: S108 the container's own
    )
    place = (
        "--user",
        f"{os.getuid()}:{os.getgid()}",
        "--mount",
        f"type=bind,{_quoted(f'source={folder.resolve()}')},target=/model",
        "--workdir",
        "/model",
    )
    container = f"berth-compile-{secrets.token_hex(6)}"
    words = ("--show_operations", "--out_dir", "/model", name)
    try:
        return _run(engine, ("run", "--rm", "--name", container, *options, *place, image, *words), RUN_S).stdout
    except subprocess.TimeoutExpired as late:
        _quiet(engine, "rm", "--force", container)
        return f"{_text(late.stdout)}\nThe container timed out after {RUN_S} s.\n"
    except BaseException:  # Ctrl-C ends the client, and not always what it started
        _quiet(engine, "rm", "--force", container)
        raise


def _quoted(field: str) -> str:
    """Return a field of --mount, which is a line of CSV."""
    return '"' + field.replace('"', '""') + '"'


def _engine() -> str:
    found = shutil.which("docker")
    if found is None:
        raise MissingLibrary("There is no docker here, which the compiler's container needs. Install it.", library=COMPILER)
    if _quiet(found, "info").returncode:
        raise MissingLibrary("No Docker engine answers. Start it, or get yourself the right to use it.", library=COMPILER)
    return found


def _unbuilt(said: str) -> MissingLibrary:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    network = next((line for line in lines if SOURCE in line and UNREACHABLE.search(line)), None)
    if network:
        return MissingLibrary(
            f"Google's package source can't be reached from here, and the compiler is nowhere else: {network}\n"
            f"Build {IMAGE} on a machine that reaches {SOURCE}, and bring it here by `docker save` and `docker load`.",
            library=COMPILER,
        )
    return MissingLibrary(f"{IMAGE} can't be built: {' / '.join(lines[-3:])}", library=COMPILER)


def _quiet(engine: str, *words: str) -> subprocess.CompletedProcess[str]:
    return _run(engine, words, 60)


def _run(engine: str, words: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [engine, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def _text(said: bytes | str | None) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else said or ""
