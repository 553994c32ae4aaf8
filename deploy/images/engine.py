"""The container engine here, Docker or Podman: what it knows of an image, and how it pushes one.

A secret reaches it by standard input alone: never in a command, which other users of the machine can read, and never printed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from deploy.errors import AGAIN, NotThere, Refused, Unknown
from deploy.images.distribution import is_local

ENGINES = ("docker", "podman")
TRIES = 3
PAUSE_S = 2.0
"""Before the second try of a push; twice as long before each further one. The engine repeats single layers by itself."""
DENIED = ("denied", "unauthorized", "authentication required", "no basic auth credentials", "forbidden")


@dataclass(frozen=True)
class LocalImage:
    """An image, as the engine here has it."""

    name: str
    identity: str
    """The digest of its configuration; with Docker's containerd store, that of its manifest."""
    platform: str
    labels: Mapping[str, str]
    size_bytes: int
    created: str
    layers: tuple[str, ...]
    """Digests of its layers before they are packed."""
    manifest_type: str
    """Media type of the manifest that it is pushed with; empty where the engine writes one at each push."""


@dataclass(frozen=True)
class Engine:
    """A client whose engine answers."""

    program: str
    is_podman: bool
    version: str
    root: str
    """Where it keeps images: a folder of the machine that the engine runs on."""

    def image(self, name: str) -> LocalImage:
        """Return what is known of an image; raises NotThere where there is none of that name."""
        done = self._run("image", "inspect", name)
        if done.returncode:
            raise NotThere(f"{self.program} has no image {name}. Build it first: make image IMAGE={name}")
        return _read_image(name, json.loads(done.stdout)[0], self.is_podman)

    def login(self, host: str, user: str, secret: str) -> None:
        """Log in to a registry; raises Refused where it does not take the secret."""
        done = self._run("login", *self._insecure(host), "--username", user, "--password-stdin", host, secret=secret)
        if done.returncode:
            raise Refused(f"{host} did not take the login: {_last_line(done.stderr)}")

    def push_commands(self, image: str, target: str) -> list[list[str]]:
        """Return the commands that put an image under a name in a registry.

        Podman keeps OCI manifests unless told otherwise, and turns them into Docker's when it pushes (T-7).
        """
        host = target.partition("/")[0]
        if self.is_podman:
            return [[self.program, "push", "--format", "v2s2", *self._insecure(host), image, f"docker://{target}"]]
        return [[self.program, "tag", image, target], [self.program, "push", target]]

    def push(self, image: str, target: str) -> None:
        """Push an image, with the engine's own account of how far it is; a push that breaks is repeated.

        Raises:
            Refused: the registry wants other credentials.
            Unknown: it broke each time.
        """
        complaint = ""
        for number in range(TRIES):
            if number:
                pause_s = PAUSE_S * 2 ** (number - 1)
                click.echo(f"The push broke: {complaint}. Once more in {pause_s:.0f} s.")
                time.sleep(pause_s)
            complaint = next((told for told in map(_complaint, self.push_commands(image, target)) if told), "")
            if not complaint:
                return
            if any(word in complaint.lower() for word in DENIED):
                host = target.partition("/")[0]
                raise Refused(
                    f"{host} does not let you push {target}: {complaint}. Log in as one who may: {self.program} login {host}; "
                    "and see that the repository is there where the registry wants it made first."
                )
        raise Unknown(f"The push of {target} broke {TRIES} times, the last time so: {complaint}. {AGAIN}")

    def _insecure(self, host: str) -> tuple[str, ...]:
        """Return what tells Podman that a registry on this machine has no TLS; Docker knows."""
        return ("--tls-verify=false",) if self.is_podman and is_local(host) else ()

    def _run(self, *words: str, secret: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.program, *words], input=secret, capture_output=True, text=True, check=False)  # noqa: S603


def engine_of(named: str) -> Engine:
    """Return the engine that is named, else the first that answers.

    Raises:
        NotThere: none answers; the message has what each says.
    """
    told = []
    for name in (named,) if named else ENGINES:
        if shutil.which(name) is None:
            told.append(f"{name} is not installed")
            continue
        command = [name, "info", "--format", "{{json .}}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        known = _document(done.stdout)
        if done.returncode == 0 and not known.get("ServerErrors"):
            is_podman = "host" in known  # also where `docker` is Podman under that name
            version = known["version"]["Version"] if is_podman else known.get("ServerVersion")
            root = known["store"]["graphRoot"] if is_podman else known.get("DockerRootDir")
            return Engine(name, is_podman, str(version), str(root))
        told.append(f"{name}: {_last_line(done.stderr) or ' '.join(known.get('ServerErrors') or ['no answer'])}")
    raise NotThere(f"No container engine answers ({'; '.join(told)}). Start Docker or Podman, or name one: --engine podman.")


def _document(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _read_image(name: str, told: Mapping[str, Any], is_podman: bool) -> LocalImage:
    """Return the facts that both engines tell, which differ in few words."""
    identity = str(told["Id"])
    kept = (told.get("Descriptor") or {}).get("mediaType") or ""  # Docker's containerd store pushes what it keeps
    return LocalImage(
        name=name,
        identity=identity if identity.startswith("sha256:") else f"sha256:{identity}",
        platform=f"{told.get('Os')}/{told.get('Architecture')}",
        labels=(told.get("Config") or {}).get("Labels") or {},
        size_bytes=int(told.get("Size") or 0),
        created=str(told.get("Created") or ""),
        layers=tuple((told.get("RootFS") or {}).get("Layers") or ()),
        manifest_type="" if is_podman else kept,
    )


def _complaint(command: Sequence[str]) -> str:
    """Run a command that shows its own progress; return the last line of what it complained, nothing where it went well."""
    said = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:  # noqa: S603
        for line in running.stderr or ():
            said.append(line)
            click.echo(line, nl=False, err=True)
    return (_last_line("".join(said)) or f"exit status {running.returncode}") if running.returncode else ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
