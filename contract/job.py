"""A training job as the platform describes it in /opt/ml/input/config (contract 1.2, 1.3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import BadChannel, BadConfig
from contract.paths import Paths

TRAINING, VALIDATION = ("training", "train"), ("validation",)


@dataclass(frozen=True)
class Channel:
    """One input of the job; `path` is its folder."""

    name: str
    path: Path
    content_type: str
    is_sharded: bool = False
    """ShardedByS3Key: with several hosts each has other objects of it, or none (T-23)."""


@dataclass(frozen=True)
class Job:
    """What was asked for; every part may be missing from the files (T-11)."""

    hyperparameters: Mapping[str, str]
    channels: Mapping[str, Channel]
    host: str
    hosts: tuple[str, ...]
    name: str
    arn: str
    checkpoints: Path | None = None
    """Where checkpoints are kept for a restart: what checkpointconfig.json names, which need not be /opt/ml/checkpoints."""

    def channel(self, names: tuple[str, ...]) -> Channel | None:
        """Return the first channel that has one of the names."""
        return next((self.channels[name] for name in names if name in self.channels), None)


def read_job(paths: Paths, environ: Mapping[str, str]) -> Job:
    """Return the job that the configuration files and the environment (T-16) describe.

    Raises:
        BadConfig: a file is there but isn't what the platform writes.
        BadChannel: a channel is of a mode that isn't read.
    """
    resources = _read_object(paths.config / "resourceconfig.json")  # T-9: all lower case
    host = resources.get("current_host") or "algo-1"
    hosts = resources.get("hosts") or [host]
    if not isinstance(hosts, list) or not all(isinstance(name, str) for name in [host, *hosts]):
        raise BadConfig(
            f"resourceconfig.json: hosts are {hosts!r}, this one {host!r}; a list of names and a name were expected."
        )
    return Job(
        hyperparameters=_read_hyperparameters(paths.config / "hyperparameters.json"),
        channels=_read_channels(paths),
        host=host,
        hosts=tuple(hosts),
        name=environ.get("TRAINING_JOB_NAME", ""),
        arn=environ.get("TRAINING_JOB_ARN", ""),
        checkpoints=_read_checkpoints(paths),
    )


def _read_checkpoints(paths: Paths) -> Path | None:
    """Return the folder that the platform uploads and restores; without its file, the usual one where it is there."""
    path = paths.config / "checkpointconfig.json"
    if not path.exists():
        return paths.checkpoints if paths.checkpoints.is_dir() else None
    folder = _read_object(path).get("LocalPath") or str(paths.checkpoints)
    if not isinstance(folder, str) or not Path(folder).is_absolute() or "\0" in folder:
        raise BadConfig(f"{path.name}: LocalPath is {folder!r}; the absolute path of a folder was expected.", file=path.name)
    return Path(folder)


def _read_hyperparameters(path: Path) -> dict[str, str]:
    """Return them as text; a hand-made file may hold JSON numbers, which are written back."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in _read_object(path).items()}


def _read_channels(paths: Paths) -> dict[str, Channel]:
    """Return the declared channels (T-10: never by listing); without the file, those whose usual folder is there."""
    path = paths.config / "inputdataconfig.json"
    declared = _read_object(path)
    if not path.exists():
        declared = {name: {} for name in TRAINING + VALIDATION if (paths.data / name).is_dir()}
    channels = {}
    for name, options in declared.items():
        if not isinstance(options, dict):
            raise BadConfig(f"{path.name}: channel {name!r} is {options!r}; an object with TrainingInputMode was expected.")
        mode, content_type = options.get("TrainingInputMode", "File"), options.get("ContentType", "")
        if not isinstance(mode, str) or not isinstance(content_type, str):
            raise BadConfig(f"{path.name}: channel {name!r} is {options!r}; TrainingInputMode and ContentType are texts.")
        if mode not in {"File", "FastFile"}:  # T-20: FastFile is a read-only folder; code for File reads it
            raise BadChannel(f"Channel {name!r} is in {mode} mode; File and FastFile are read. Set TrainingInputMode to one.")
        sharded = options.get("S3DistributionType") == "ShardedByS3Key"
        channels[name] = Channel(name, paths.data / name, content_type, is_sharded=sharded)
    return channels


def _read_object(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BadConfig(f"{path.name} can't be read as JSON: {error}.", file=path.name) from error
    if not isinstance(document, dict):
        raise BadConfig(f"{path.name} holds {type(document).__name__}; a JSON object was expected.", file=path.name)
    return document
