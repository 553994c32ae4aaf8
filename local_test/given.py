"""What an owner gave for judging an image, what an engine knows of it, and what is made once for all rules."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from local_test.contents import Contents
from local_test.runners import Containers, Processes
from local_test.verdicts import DoesNotApply, Unjudged

Made = TypeVar("Made")
CAPABILITIES = "com.amazonaws.sagemaker.capabilities."


@dataclass(frozen=True)
class Payload:
    """A request that the container is said to answer with 200."""

    body: bytes
    content_type: str


@dataclass
class Given:
    """An image, or a source tree, and what its owner gave for judging it."""

    platform: Containers | Processes
    folder: Path
    """Scratch of the run."""
    train_data: Path | None = None
    """A folder for the channel `training`."""
    payload: Payload | None = None
    model_tar: Path | None = None
    """A model to serve in place of a trained one."""
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    """What the owner's container wants in its environment."""
    start_s: float = 60
    """How long to wait for the first 200 of /ping (H-7 gives 8 minutes)."""
    channel: str = "training"
    train_s: float = 120
    """How long a training job may take."""
    distributed: bool = False
    """Whether its owner says that it trains on several hosts."""
    pipe: bool = False
    """Whether its owner says that it reads Pipe mode."""
    asked: frozenset[str] = frozenset()
    """Platforms that the owner named: their rules are then judged of an image that claims nothing of them, too."""
    _made: dict[str, Any] = field(default_factory=dict)
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def close(self) -> None:
        """Stop what was started."""
        self._open.close()

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """Return what `make` returns, or raise what it raises: called by the first to ask, remembered for the others."""
        if name not in self._made:
            try:
                self._made[name] = (make(), None)
            except Exception as error:
                self._made[name] = (None, error)
        made, failure = self._made[name]
        if failure:
            raise failure
        return made

    # The image

    @property
    def containers(self) -> Containers:
        """The platform, where it is containers; raises Unjudged where it is processes."""
        if isinstance(self.platform, Containers):
            return self.platform
        raise Unjudged("this needs an image and a container engine, and a source tree was given")

    @property
    def inspected(self) -> dict[str, Any]:
        """What the engine knows of the image."""
        return self.once("inspected", self.containers.inspect)

    @property
    def labels(self) -> Mapping[str, str]:
        """The image's labels; none of a source tree."""
        if isinstance(self.platform, Processes):
            return {}
        return self.inspected["Config"].get("Labels") or {}

    @property
    def contents(self) -> Contents:
        """The image's files."""
        return self.once("contents", lambda: self._open.enter_context(Contents(self.containers)))

    def claims(self, capability: str) -> None:
        """Raise DoesNotApply where the image does not say that it has a capability of SageMaker's."""
        label = CAPABILITIES + capability
        if isinstance(self.platform, Containers) and self.labels.get(label, "").lower() != "true":
            raise DoesNotApply(f"the image has no label {label}=true")
