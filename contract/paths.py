"""Where the platform puts things (contract 1.2), below /opt/ml or SAGEMAKER_BASE_DIR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The tree below one base directory."""

    base: Path = Path("/opt/ml")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Paths:
        """Return the paths below SAGEMAKER_BASE_DIR (contract 2.10), /opt/ml without it."""
        return cls(Path(environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml"))

    @property
    def config(self) -> Path:
        """Configuration files; the platform writes them."""
        return self.base / "input" / "config"

    @property
    def data(self) -> Path:
        """One folder a channel, and files beside them that are no channels (T-10)."""
        return self.base / "input" / "data"

    @property
    def checkpoints(self) -> Path:
        """The usual place of checkpoints; checkpointconfig.json may name another."""
        return self.base / "checkpoints"

    @property
    def model(self) -> Path:
        """What training leaves and serving loads."""
        return self.base / "model"

    @property
    def failure(self) -> Path:
        """The reason of a failed job; its first 1,024 characters reach the user (T-26)."""
        return self.base / "output" / "failure"
