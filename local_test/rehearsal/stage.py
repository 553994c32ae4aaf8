"""What a rehearsal plays on: a registry, the AWS that stands in, a folder, and the verbs of `deploy` as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_test.cloud import Cloud, cloud
from local_test.rehearsal.hosting import Hosting
from local_test.rehearsal.programs import Ran, Running, StepFailed, started
from local_test.rehearsal.registry import registry

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLE = ROOT / "model" / "sample"
PROJECT = "rehearsal"
"""Names all in the stand-in, the endpoint too."""
FOREIGN = ("AWS_", "BERTH_", "SAGEMAKER_", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")
"""Variables of whoever calls that would lead a verb elsewhere."""


@dataclass(frozen=True)
class Model:
    """A model that was trained: what a training job leaves, and its manifest."""

    artifact: bytes
    manifest: Mapping[str, Any]


@dataclass
class Stage:
    """The stand-in, what is known of the image, and the models that the versions are made of."""

    image: str
    without: frozenset[str]
    """What is left out: some of build, scan, conformance, local-mode."""
    folder: Path
    registry: str
    """HOST:PORT."""
    aws: Cloud
    hosting: Hosting
    uri: str = ""
    """The image by its digest, once it is pushed."""
    identity: str = ""
    """How the engine knows the image that was built."""
    models: list[Model] = field(default_factory=list)
    """The first version's, then the second's."""

    @property
    def environ(self) -> dict[str, str]:
        """What every program gets: the stand-in for AWS, no pauses between looks, and logins that nobody else sees."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        return {
            **own,
            **self.aws.environ(),
            "BERTH_ACCOUNT_NAME": PROJECT,
            "BERTH_ACCOUNT_POLL_S": "0",
            "BERTH_IMAGE_IMAGE": self.image,
            "PYTHONPATH": str(ROOT),
        }

    def deploy(self, *words: str | Path, status: int = 0) -> Ran:
        """Run a verb of `deploy`; raise StepFailed where it ends with another status."""
        return self.run(deploying(*words), status=status)

    def run(self, command: Sequence[str | Path], *, folder: Path | None = None, status: int = 0) -> Ran:
        """Run a program to its end; raise StepFailed where it ends with another status."""
        with self.started(command, folder) as running:
            return running.wait().expect(status)

    @contextmanager
    def started(self, command: Sequence[str | Path], folder: Path | None = None, **more: str) -> Iterator[Running]:
        """Start a program, with more variables; it is stopped when the block ends."""
        logins = {"DOCKER_CONFIG": str(self.folder / "docker"), "DOCKER_HOST": _engine()}
        with started(command, {**self.environ, **(logins if folder is None else {}), **more}, folder or self.folder) as running:
            yield running

    def engine(self, *words: str, status: int = 0) -> str:
        """Run the Docker client; return what it answers."""
        return self.run(["docker", *words], status=status).stdout.strip()

    def endpoint(self) -> dict[str, Any]:
        """Return the endpoint as AWS describes it, which has to answer."""
        found: dict[str, Any] = self.aws.client("sagemaker").describe_endpoint(EndpointName=PROJECT)
        if found["EndpointStatus"] != "InService":
            raise StepFailed(f"The endpoint is {found['EndpointStatus']}; InService was expected: {found.get('FailureReason')}")
        return found


def deploying(*words: str | Path) -> list[str | Path]:
    """Return the command of a verb."""
    return [sys.executable, "-m", "deploy", *words]


@contextmanager
def stage(image: str, without: frozenset[str]) -> Iterator[Stage]:
    """Start the registry and the stand-in; when the block ends, however it does, all that was started is stopped."""
    with ExitStack() as ends:
        kept = tempfile.TemporaryDirectory(prefix="berth-rehearsal-", ignore_cleanup_errors=True)  # containers write as root
        folder = Path(ends.enter_context(kept)).resolve()
        (folder / "docker").mkdir()
        address = ends.enter_context(registry(folder))
        ends.callback(_forget, f"{address}/{PROJECT}")
        aws = ends.enter_context(cloud(address))
        hosting = Hosting(aws, folder, ends)
        ends.callback(hosting.clear)
        yield Stage(image, without, folder, address, aws, hosting)


def _forget(repository: str) -> None:
    """Take all names of what was pushed and pulled out of the engine again."""
    asked = ["docker", "image", "ls", "--digests", "--format", "{{.Tag}} {{.Digest}}", repository]
    listed = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
    pairs = [line.split() for line in listed]
    names = {f"{repository}@{digest}" if tag == "<none>" else f"{repository}:{tag}" for tag, digest in pairs}
    for name in sorted(names):
        removal = ["docker", "image", "rm", name]
        subprocess.run(removal, capture_output=True, check=False)


def _engine() -> str:
    """Return where the engine listens that the person's own client talks to: a client without their settings asks it too."""
    if os.environ.get("DOCKER_HOST"):
        return os.environ["DOCKER_HOST"]
    asked = ["docker", "context", "inspect", "--format", "{{json .Endpoints.docker.Host}}"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    return str(json.loads(told or '"unix:///var/run/docker.sock"'))
