"""Checkpoints where the platform keeps them, so that a job that was interrupted goes on (T-27 to T-31).

A file is a line of JSON, then the pickled pipeline. Its name holds the host's, because all hosts share one prefix, and it
comes into being by a rename, because the uploader may look at any moment (T-29).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.declaration import Declaration
from contract.errors import BadConfig
from contract.files import TEMPORARY, replacing
from training.read import Table

KEPT = 2
LIBRARIES = ("scikit-learn", "lightgbm", "numpy")
UPLOADING = ".sagemaker-uploading"


@dataclass(frozen=True)
class Checkpoint:
    """A pipeline after some of its rounds, still pickled: unpickling runs what is in it, and the folder is the job's own."""

    rounds: int
    content: bytes


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one host for one job: other data, hyperparameters or libraries make another key."""

    folder: Path
    host: str
    key: str

    @classmethod
    def open(cls, folder: Path, host: str, key: str) -> Checkpoints:
        """Return the checkpoints in a folder, which is made where it is missing.

        Raises:
            BadConfig: the folder can't be made or written to.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(folder / "probe") as temporary:
                temporary.write_bytes(b"")
            (folder / "probe").unlink()
            for left in folder.glob(f".*{TEMPORARY}"):  # by a run that was killed while it wrote
                left.unlink(missing_ok=True)
        except OSError as error:
            raise BadConfig(
                f"Checkpoints can't be written to {folder}: {error}. Name a LocalPath in checkpointconfig.json that can be."
            ) from error
        return cls(folder, re.sub(r"[^A-Za-z0-9.-]", "-", host), key)

    def latest(self) -> Checkpoint | None:
        """Return the newest whole checkpoint of this job; others are passed over and said to be."""
        for path in reversed(self._files()):
            header, _, content = path.read_bytes().partition(b"\n")
            try:
                about = json.loads(header)
                whole = about["sha256"] == hashlib.sha256(content).hexdigest()
            except (ValueError, TypeError, KeyError):
                whole = False
            if not whole:
                print(f"checkpoint: {path.name} is damaged and passed over", flush=True)
            elif about["key"] != self.key:
                print(f"checkpoint: {path.name} is of other data, hyperparameters or libraries and passed over", flush=True)
            else:
                return Checkpoint(about["rounds"], content)
        return None

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint and remove all but the last two; a full disk is said, and the training goes on."""
        about = {
            "key": self.key,
            "rounds": checkpoint.rounds,
            "sha256": hashlib.sha256(checkpoint.content).hexdigest(),
        }
        path = self.folder / f"{self.host}-{checkpoint.rounds:06}.checkpoint"
        try:
            with replacing(path) as temporary:
                temporary.write_bytes(json.dumps(about).encode() + b"\n" + checkpoint.content)
            self._prune(path)
        except OSError as error:
            print(f"checkpoint: {path} can't be written, training goes on: {error}", flush=True)

    def _prune(self, newest: Path) -> None:
        """Remove what is neither the newest nor the last one before it. T-29: what is being uploaded stays."""
        others = [path for path in self._files() if path != newest]
        # A file from another job may count more rounds than this job has done: older by time, not by name.
        others.sort(key=lambda path: path.stat().st_mtime_ns)
        for path in others[: 1 - KEPT]:
            if not path.with_name(path.name + UPLOADING).exists():
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        """Return this host's checkpoints by rounds; the uploader's marker files have other endings."""
        return sorted(self.folder.glob(f"{self.host}-*.checkpoint"))


def job_key(declaration: Declaration, values: Mapping[str, Any], table: Table) -> str:
    """Return what a checkpoint must share with a job for it to be carried on to the same model."""
    about = {
        "declaration": declaration.to_json(),
        "hyperparameters": dict(values),
        "data": table.fingerprint(),
        "versions": [platform.python_version(), *map(importlib.metadata.version, LIBRARIES)],
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
