"""Who a person is logged in as at a registry: what `docker login` and `podman login` have kept. Read, never written or shown.

Source: the files are described in the manual pages of docker(1) and containers-auth.json(5), a credential helper's answer in
docker/docker-credential-helpers.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deploy.images.distribution import HUB, Credentials

HUB_KEY = "https://index.docker.io/v1/"
"""Docker Hub's name in these files."""
HELPER_S = 10


def credentials_for(host: str) -> Credentials | None:
    """Return user and secret for a registry, by its host as in an image's name; None where nobody is logged in."""
    key = HUB_KEY if host == HUB else host
    for kept in _files():
        known = _from_helper(kept, key) or _from_file(kept, key) or (_from_file(kept, HUB) if host == HUB else None)
        if known:
            return known
    return None


def _files() -> Iterator[Mapping[str, Any]]:
    """Yield what is kept, Docker's before Podman's."""
    named = os.environ.get("REGISTRY_AUTH_FILE")
    paths = [
        Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json",
        *([Path(named)] if named else []),
        Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}") / "containers" / "auth.json",
        Path(f"/run/containers/{os.getuid()}/auth.json"),
    ]
    for path in paths:
        try:
            kept = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(kept, dict):
            yield kept


def _from_helper(kept: Mapping[str, Any], key: str) -> Credentials | None:
    """Ask the program that keeps secrets, where one is named: the desktop's key ring, for instance."""
    helper = (kept.get("credHelpers") or {}).get(key) or kept.get("credsStore")
    if not helper:
        return None
    command = [f"docker-credential-{helper}", "get"]
    try:
        done = subprocess.run(command, input=key, capture_output=True, text=True, timeout=HELPER_S, check=True)  # noqa: S603
        told = json.loads(done.stdout)
        return str(told["Username"]), str(told["Secret"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return None


def _from_file(kept: Mapping[str, Any], key: str) -> Credentials | None:
    encoded = ((kept.get("auths") or {}).get(key) or {}).get("auth")
    if not encoded:
        return None
    try:
        user, colon, secret = base64.b64decode(encoded).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, secret) if colon else None
