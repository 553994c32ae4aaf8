"""An AWS that stands in: moto, with what it lacks added in front, faults on demand, and a log of every call."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from local_test.cloud.inside import KEY, connect
from local_test.cloud.server import make
from local_test.cloud.world import Call, World

__all__ = ["Call", "Cloud", "attach", "cloud"]


@dataclass(frozen=True)
class Cloud:
    """A cloud that serves at a URL, in this process or another: what is asked of it, what it was asked."""

    url: str
    region: str = "us-east-1"

    def environ(self) -> dict[str, str]:
        """Return the variables that send every AWS call of a process here, whatever it has configured."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def client(self, service: str, **options: Any) -> Any:
        """Return a boto3 client of a service; options are boto3's."""
        return connect(service, options.pop("region_name", self.region), self.url, **options)

    @property
    def calls(self) -> list[Call]:
        """Every call since the start or the last reset, in order; the stand-in's own are not among them."""
        return [Call(**call) for call in self._control("calls")]

    def fail(self, number: int, kind: str, *, times: int = 1, operation: str = "") -> None:
        """Have the number-th call from now fail.

        Args:
            number: 1 is the next call.
            kind: throttled, refused, broken (500), dropped (closed, nothing done), lost (done, but the answer never arrives).
            times: how many calls in a row: botocore tries some of them again by itself.
            operation: count and fail calls of this operation only: CreateModel.
        """
        self._control("fail", number=number, kind=kind, times=times, operation=operation)

    def script(
        self,
        kind: str,
        name: str,
        *,
        outcome: str = "completed",
        reason: str = "",
        metrics: Mapping[str, float] | None = None,
        objectives: Sequence[float] = (),
        artifact: bytes | None = None,
        logs: Sequence[str] = (),
    ) -> None:
        """Say how something is to end: once for a name, always for the name `*`.

        Args:
            kind: endpoint, training-job, transform-job, hyper-parameter-tuning-job, algorithm or model-package.
            name: what it is called, or `*`.
            outcome: completed, failed, stopped, capacity (none was left); of an endpoint's update also stuck.
            reason: its FailureReason.
            metrics: a training job's final metrics.
            objectives: a tuning job's final values, a training job each.
            artifact: a training job's model.tar.gz; a transform job's every output.
            logs: a training job's lines.
        """
        body = None if artifact is None else b64encode(artifact).decode()
        ends = {"outcome": outcome, "reason": reason, "metrics": dict(metrics or {})}
        self._control("script", kind=kind, name=name, **ends, objectives=[*objectives], artifact=body, logs=[*logs])

    def serve(self, name: str, url: str) -> None:
        """Have the container at a URL answer calls to an endpoint (`*`: to any), or transform jobs of a model."""
        self._control("serve", name=name, url=url)

    def prices(self, products: Sequence[Mapping[str, Any]]) -> None:
        """Set all that the Price List API knows, in its own form; nothing at first."""
        self._control("prices", products=[*products])

    def findings(self, repository: str, digest: str, findings: Sequence[Mapping[str, Any]]) -> None:
        """Set what a scan of an image finds, in ECR's form; `*` is any digest."""
        self._control("findings", repository=repository, digest=digest, findings=[*findings])

    def activities(self, activities: Sequence[Mapping[str, Any]]) -> None:
        """Set what application-autoscaling has done, the oldest first, in its own form."""
        self._control("activities", activities=[*activities])

    def quotas(self, quotas: Sequence[Mapping[str, Any]]) -> None:
        """Set all service quotas that are known, each with its ServiceCode, in Service Quotas' form."""
        self._control("quotas", quotas=[*quotas])

    def deny(self, *actions: str) -> None:
        """Set the actions that IAM's policy simulator says no to; calls are answered all the same."""
        self._control("deny", actions=[*actions])

    def calm(self) -> None:
        """Forget the faults that are still to come."""
        self._control("calm")

    def looks(self, number: int) -> None:
        """Set how many Describe calls see a state in progress before it moves on; 2 at first."""
        self._control("looks", number=number)

    def reset(self) -> None:
        """Empty everything, moto too.

        Raises:
            AssertionError: an answer since then was one that AWS's model forbids: a defect of the stand-in.
        """
        defects = self._control("defects")
        self._control("reset")
        if defects:
            raise AssertionError("\n".join(defects))

    def _control(self, verb: str, /, **given: Any) -> Any:
        try:
            with urlopen(Request(f"{self.url}/_cloud/{verb}", json.dumps(given).encode()), timeout=60) as answered:
                return json.loads(answered.read())
        except HTTPError as error:
            raise ValueError(error.read().decode()) from error


def attach(url: str) -> Cloud:
    """Return the cloud that another process serves at a URL."""
    return Cloud(url)


@contextmanager
def cloud(registry: str = "", port: int = 0) -> Iterator[Cloud]:
    """Serve a cloud from a thread of this process, and stop it.

    Args:
        registry: HOST:PORT of the registry behind ECR; without one, images are moto's.
        port: where to serve; 0 takes a free one.
    """
    server = make(World(registry), port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    served = Cloud(f"http://127.0.0.1:{server.port}")
    try:
        yield served
        served.reset()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
