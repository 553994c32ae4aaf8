"""A serial inference pipeline, played here (H-2): containers on ports of the platform's choice, each fed by the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from local_test.emulator import STOP_SERVING_S, Endpoint, Reply, stop, wait_until_ready
from local_test.runners import Containers, Launch, Platform, Program, free_port

BETWEEN = "application/json"
"""What the platform asks a container for whose answer goes to another, as AWS's sample of scikit-learn tells."""
SAFE_PORTS = 10


@dataclass(frozen=True)
class Stage:
    """One container of a pipeline."""

    platform: Platform
    base: Path
    """Its /opt/ml."""
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pipeline:
    """Started containers in their order."""

    endpoints: Sequence[Endpoint]
    between: str = BETWEEN

    def ping(self) -> bool:
        """Say whether all are ready."""
        return all(endpoint.ping().status == 200 for endpoint in self.endpoints)

    def invoke(self, body: bytes, content_type: str = "text/csv", accept: str = "") -> Reply:
        """Send a payload through: an answer's Content-Type is that of the next request; what is not 200 ends it."""
        *first, last = self.endpoints
        for endpoint in first:
            reply = endpoint.invoke(body, content_type, self.between)
            if reply.status != 200:
                return reply
            named = {name.lower(): value for name, value in reply.headers.items()}
            body, content_type = reply.body, named.get("content-type", "")
        return last.invoke(body, content_type, accept)


@contextmanager
def serving_pipeline(stages: Sequence[Stage], between: str = BETWEEN) -> Iterator[Pipeline]:
    """Start the containers, give the pipeline when all are ready, and stop them as the platform does.

    Raises:
        RuntimeError: one ended, or was not ready in time; the message has what it printed.
    """
    with ExitStack() as started:
        endpoints = []
        for stage in stages:
            program = _start(stage, free_port())
            started.callback(stop, program, STOP_SERVING_S)
            endpoints.append(Endpoint(program))
        for endpoint in endpoints:
            wait_until_ready(endpoint)
        yield Pipeline(endpoints, between)


def _start(stage: Stage, port: int) -> Program:
    safe = f"{port + 1}-{port + SAFE_PORTS}"
    environ = {**stage.environ, "SAGEMAKER_BIND_TO_PORT": str(port), "SAGEMAKER_SAFE_PORT_RANGE": safe}
    if isinstance(stage.platform, Containers):
        return stage.platform.launch(Launch(("serve",), environ, (f"{stage.base / 'model'}:/opt/ml/model:ro",), port))
    return stage.platform.start("serve", stage.base, environ)
