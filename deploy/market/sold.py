"""A request of CreateAlgorithm or CreateModelPackage, as the rules look into it: what is missing there is empty here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from deploy.cloud import Request

Fault: TypeAlias = tuple[str, str]
"""What was found, and what to do."""


@dataclass(frozen=True)
class Sold:
    """What is judged, and whose it is."""

    request: Request
    account: str
    region: str
    lines: Sequence[str] = ()
    """What the training job prints of its metrics; empty where that is not known."""

    @property
    def is_algorithm(self) -> bool:
        """Whether it trains, too."""
        return not any(name.startswith("ModelPackage") for name in self.request)

    @property
    def operation(self) -> str:
        """Which call takes it."""
        return "CreateAlgorithm" if self.is_algorithm else "CreateModelPackage"

    @property
    def training(self) -> Request:
        """How it trains."""
        return dict(self.request.get("TrainingSpecification", {}))

    @property
    def inference(self) -> Request:
        """How it answers."""
        return dict(self.request.get("InferenceSpecification", {}))

    @property
    def containers(self) -> list[Request]:
        """What answers."""
        return list(self.inference.get("Containers", []))

    @property
    def images(self) -> list[tuple[str, str]]:
        """Each image with its digest, which may be empty."""
        training = self.training
        trains = [(training.get("TrainingImage", ""), training.get("TrainingImageDigest", ""))] if self.is_algorithm else []
        return [*trains, *((one.get("Image", ""), one.get("ImageDigest", "")) for one in self.containers)]

    @property
    def knobs(self) -> dict[str, Request]:
        """The hyperparameters by name."""
        return {one.get("Name", ""): one for one in self.training.get("SupportedHyperParameters", [])}

    @property
    def channels(self) -> dict[str, Request]:
        """The training channels by name."""
        return {one.get("Name", ""): one for one in self.training.get("TrainingChannels", [])}

    @property
    def profiles(self) -> list[Request]:
        """How it is validated."""
        return list(self.request.get("ValidationSpecification", {}).get("ValidationProfiles", []))

    @property
    def trainings(self) -> list[Request]:
        """The validation's training jobs."""
        return [one["TrainingJobDefinition"] for one in self.profiles if "TrainingJobDefinition" in one]

    @property
    def transforms(self) -> list[Request]:
        """The validation's transform jobs."""
        return [one["TransformJobDefinition"] for one in self.profiles if "TransformJobDefinition" in one]

    @property
    def instance_types(self) -> list[str]:
        """All that are named."""
        names = ("SupportedTransformInstanceTypes", "SupportedRealtimeInferenceInstanceTypes")
        return [
            *self.training.get("SupportedTrainingInstanceTypes", []),
            *(one for name in names for one in self.inference.get(name, [])),
        ]


def repeated(names: Sequence[Any]) -> list[Any]:
    """Return what stands twice."""
    return sorted({name for name in names if names.count(name) > 1})
