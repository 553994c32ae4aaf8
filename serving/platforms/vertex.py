"""Vertex AI: its two routes, and a model that has to be brought from AIP_STORAGE_URI (contract 4.1)."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from contract.errors import BadSetting, Stopped
from contract.manifest import MANIFEST
from serving.exchange import Route
from serving.platforms import sagemaker
from serving.platforms.azure import find_model
from serving.service import Service
from serving.settings import Settings


def routes(service: Service) -> list[Route]:
    """Return the platform's routes, none where no AIP_ variable is set: `/ping` and `/invocations` under Vertex's names.

    `{"instances", "parameters"}` is answered by `{"predictions"}` of the same count (V-4); a raw one takes any media type.
    """
    settings = service.settings
    names = {"/ping": settings.health_route, "/invocations": settings.predict_route}
    return [
        replace(route, path=names[route.path])
        for route in sagemaker.routes(service)
        if names.get(route.path) and names[route.path] != route.path
    ]


def bring_model(settings: Settings) -> Path:
    """Return the folder of the model: /opt/ml/model where it holds one, else what AIP_STORAGE_URI names.

    Vertex mounts nothing (V-1). A folder and a `file://` address are read where they are; for any other address the command of
    BERTH_FETCH is called with the address and /opt/ml/model as its last words, so that no cloud's SDK need be in the image.

    Raises:
        BadSetting: BERTH_FETCH is needed and missing, can't be started, or fails.
        DamagedModel: the folder of a path holds no model, or more than one.
        Stopped: SIGTERM came meanwhile.
    """
    folder, address = settings.paths.model, settings.storage_uri
    if not address:
        return folder
    if (folder / MANIFEST).exists():
        _say(f"{folder} holds a model, so AIP_STORAGE_URI is not read.")
        return folder
    parts = urlsplit(address)
    if parts.scheme in {"", "file"}:
        return find_model(Path(unquote(parts.path) if parts.scheme else address))
    if not settings.fetch:
        raise BadSetting(
            f"AIP_STORAGE_URI is {address!r} and {folder} holds no model. Set BERTH_FETCH to a command in the image that "
            f'copies from there, such as "gcloud storage cp --recursive", or build an image that holds the model.',
            setting="BERTH_FETCH",
        )
    _fetch([*settings.fetch, address, str(folder)], folder)
    return find_model(folder)


def _fetch(command: list[str], folder: Path) -> None:
    """Run the command; what it prints goes to the log."""
    _say(f"no model in {folder}: {' '.join(command)}")
    # PID 1 has no default for SIGTERM (T-4); run() ends its child when an exception leaves it.
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode  # noqa: S603
    except OSError as error:
        why = error.strerror or error
        raise BadSetting(f"BERTH_FETCH, {command[0]!r}, can't be run: {why}.", setting="BERTH_FETCH") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    if code:
        raise BadSetting(
            f"BERTH_FETCH ended with exit code {code}; what it printed stands above. It was: {' '.join(command)}",
            setting="BERTH_FETCH",
        )


def _stop(*_: object) -> NoReturn:
    raise Stopped("SIGTERM came while the model was being fetched.")


def _say(what: str) -> None:
    print(f"serve: {what}", file=sys.stderr, flush=True)
