"""A real registry on this machine, without TLS: Debian's docker-registry, on a free port of 127.0.0.1."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from local_test.cloud.registry import KINDS
from local_test.rehearsal.programs import Running, StepFailed, started
from local_test.runners import free_port

START_S = 20
CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Manifest:
    """What a registry holds under a digest."""

    media_type: str
    digest: str
    """Of the bytes that came, computed here."""
    config: str
    """Digest of the image's configuration, by which Docker knows the image."""
    layers: tuple[str, ...]
    """Digests of the layers as they are packed."""


@contextmanager
def registry(folder: Path, program: str | None = None, **more: Any) -> Iterator[str]:
    """Serve a registry that keeps its images below a folder; give its HOST:PORT.

    Args:
        folder: for the images and the settings.
        program: docker-registry; without it, the one on PATH.
        more: settings beside those that are needed.
    """
    program = program or shutil.which("docker-registry")
    if program is None:
        raise StepFailed("There is no docker-registry on PATH: apt-get install docker-registry.")
    address, file = f"127.0.0.1:{free_port()}", folder / "registry.yml"
    storage = {"filesystem": {"rootdirectory": str(folder / "images")}, "delete": {"enabled": True}}
    log = {"level": "error", "accesslog": {"disabled": True}}
    settings = {"version": "0.1", "log": log, "storage": storage, "http": {"addr": address}, **more}
    file.write_text(json.dumps(settings))  # JSON is YAML
    # The registry takes variables of this beginning for settings; REGISTRY_AUTH_FILE is Podman's.
    environ = {name: text for name, text in os.environ.items() if not name.startswith("REGISTRY_")}
    with started([program, "serve", file], environ, folder) as running:
        _wait_for(address, running)
        yield address


def manifest_of(uri: str) -> Manifest:
    """Return what a registry without TLS holds as HOST:PORT/NAME@DIGEST."""
    address, digest = _address(uri)
    accepted = {"Accept": ", ".join(KINDS)}
    with urlopen(Request(f"{address}/manifests/{digest}", headers=accepted), timeout=START_S) as answer:
        body = answer.read()
    told: dict[str, Any] = json.loads(body)
    layers = tuple(layer["digest"] for layer in told.get("layers", ()))
    return Manifest(answer.headers["Content-Type"], _sha256(body), told.get("config", {}).get("digest", ""), layers)


def unpacked(uri: str, layer: str) -> str:
    """Return the digest of a layer's content, as an image's configuration has it, after all of it came from the registry."""
    stream, content = zlib.decompressobj(31), hashlib.sha256()
    with urlopen(f"{_address(uri)[0]}/blobs/{layer}", timeout=START_S) as answer:
        while chunk := answer.read(CHUNK_BYTES):
            content.update(stream.decompress(chunk))
    content.update(stream.flush())
    return f"sha256:{content.hexdigest()}"


def _address(uri: str) -> tuple[str, str]:
    """Return what a repository's addresses begin with, and the digest."""
    host, _, rest = uri.partition("/")
    name, _, digest = rest.partition("@")
    return f"http://{host}/v2/{name}", digest


def _sha256(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _wait_for(address: str, running: Running) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            urlopen(f"http://{address}/v2/", timeout=5).close()
            return
        except HTTPError:  # it answers, and wants a login
            return
        except OSError as error:
            if running.popen.poll() is not None or time.monotonic() > until:
                raise StepFailed(f"docker-registry does not answer at {address}: {error}") from None
            time.sleep(0.05)
