"""What stands behind the stand-in's endpoints: a container of the very image and model that SageMaker's model names."""

from __future__ import annotations

import io
import subprocess
import tarfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from local_test.cloud import Cloud
from local_test.cloud.inside import place
from local_test.emulator import serving
from local_test.runners import Containers

LABEL = "berth.rehearsal"
"""On each container that a rehearsal starts, with the name of its folder: what is left is found by it."""


@dataclass
class Hosting:
    """Starts a container for each model that an endpoint comes to, and keeps it until the end."""

    aws: Cloud
    folder: Path
    ends: ExitStack
    urls: dict[str, str] = field(default_factory=dict)
    """Of the containers, by the names of their models."""
    artifacts: dict[str, bytes] = field(default_factory=dict)
    """What each model's `model.tar.gz` is."""

    def containers(self, image: str) -> Containers:
        """Return what runs an image, under this rehearsal's label."""
        return Containers(image, options=("--label", f"{LABEL}={self.folder.name}"))

    def follow(self, endpoint: str) -> str:
        """Have an endpoint answered for by the model that its configuration names now; return the model's name.

        Transform jobs of that model are answered by the same container.
        """
        sagemaker = self.aws.client("sagemaker")
        config = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
        variants = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
        model = str(variants[0]["ModelName"])
        if model not in self.urls:
            self.urls[model] = self._start(model)
        for name in (endpoint, model):
            self.aws.serve(name, self.urls[model])
        return model

    def clear(self) -> None:
        """Remove every container of this rehearsal that is left, running or not."""
        asked = ["docker", "ps", "--all", "--quiet", f"--filter=label={LABEL}={self.folder.name}"]
        left = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
        if left:
            removal = ["docker", "rm", "--force", "--volumes", *left]
            subprocess.run(removal, capture_output=True, check=False)

    def _start(self, model: str) -> str:
        container = self.aws.client("sagemaker").describe_model(ModelName=model)["PrimaryContainer"]
        bucket, key = place(container["ModelDataUrl"])
        packed = self.aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        base = self.folder / "hosted" / model
        self.artifacts[model] = packed
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(base / "model", filter="data")
        started = serving(self.containers(container["Image"]), base, container.get("Environment", {}))
        return self.ends.enter_context(started).program.url
