"""What `train` takes from the environment, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from contract.paths import Paths


@dataclass(frozen=True)
class Settings:
    """One field a variable."""

    paths: Paths
    """SAGEMAKER_BASE_DIR: where /opt/ml is."""
    image_version: str
    """BERTH_VERSION: set by the image; goes into the manifest."""
    image_revision: str
    """BERTH_REVISION: the commit the image was built from."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Return the settings of an environment."""
        return cls(Paths.from_environ(environ), environ.get("BERTH_VERSION", ""), environ.get("BERTH_REVISION", ""))
