"""Asynchronous inference, played here (H-32): a request is taken, waits its turn, and leaves an output or a failure file."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from local_test.emulator import Endpoint, Reply, serving
from local_test.runners import Platform

INLINE_BYTES, OBJECT_BYTES = 128_000, 1 << 30
PROCESSING_S, MOST_PROCESSING_S = 900, 3_600
QUEUED_S = 21_600
MOST_INVOCATIONS = 1_000


@dataclass(frozen=True)
class Invocation:
    """A request that was taken, as InvokeEndpointAsync answers it."""

    inference_id: str
    output_location: Path
    """Where the answer will stand, if it is one."""
    failure_location: Path
    """Where it is told why there is none."""
    ended: Future[bool] = field(repr=False)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until one of the two files is there; say whether it is the output.

        Raises:
            TimeoutError: neither is, yet.
        """
        return self.ended.result(timeout_s)


@dataclass(frozen=True)
class Waiting:
    """What is to be sent when its turn comes."""

    body: bytes | Path
    content_type: str
    accept: str
    more: Mapping[str, str]
    timeout_s: float
    expires: float
    """By `time.monotonic()`."""


class AsyncEndpoint:
    """Takes requests and sends them, a number at once; the container sees a plain POST /invocations."""

    def __init__(self, endpoint: Endpoint, output: Path, failures: Path | None = None, invocations: int = 1) -> None:
        """Write below `output` and `failures`; `invocations` is MaxConcurrentInvocationsPerInstance."""
        if not 1 <= invocations <= MOST_INVOCATIONS:
            raise ValueError(f"MaxConcurrentInvocationsPerInstance is 1 to {MOST_INVOCATIONS}, not {invocations}")
        self.endpoint = endpoint
        self.output = output
        self.failures = failures or output / "failures"
        self._pool = ThreadPoolExecutor(invocations, thread_name_prefix="async")

    def invoke(
        self,
        body: bytes | None = None,
        content_type: str = "text/csv",
        accept: str = "",
        *,
        input_location: Path | None = None,
        inference_id: str = "",
        custom_attributes: str = "",
        ttl_s: float = QUEUED_S,
        timeout_s: float = PROCESSING_S,
    ) -> Invocation:
        """Take a request: a body, or the file that holds it.

        Raises:
            ValueError: the platform would not take it: both or neither are given, or it is beyond a limit (H-32).
        """
        payload = _only_one(body, input_location)
        if not 0 < timeout_s <= MOST_PROCESSING_S or not 0 < ttl_s <= QUEUED_S:
            raise ValueError(f"an invocation may take {MOST_PROCESSING_S} s and wait {QUEUED_S} s, not {timeout_s} and {ttl_s}")
        identity = inference_id or str(uuid.uuid4())
        name = str(uuid.uuid4())  # the same inference ID may come twice
        output, failure = self.output / f"{name}.out", self.failures / f"{name}-error.out"
        attributes = {"X-Amzn-SageMaker-Custom-Attributes": custom_attributes} if custom_attributes else {}
        more = {"X-Amzn-SageMaker-Inference-Id": identity, **attributes}
        waiting = Waiting(payload, content_type, accept, more, timeout_s, time.monotonic() + ttl_s)
        return Invocation(identity, output, failure, self._pool.submit(self._process, waiting, output, failure))

    def close(self) -> None:
        """Wait for what was taken."""
        self._pool.shutdown()

    def _process(self, waiting: Waiting, output: Path, failure: Path) -> bool:
        said = self._send(waiting)
        is_good = isinstance(said, Reply) and said.status == 200
        target = output if is_good else failure
        target.parent.mkdir(parents=True, exist_ok=True)
        text = f"The model answered {said.status}: {said.text}" if isinstance(said, Reply) else said
        target.write_bytes(said.body if isinstance(said, Reply) and is_good else text.encode())
        return is_good

    def _send(self, waiting: Waiting) -> Reply | str:
        """Return the reply, or why there is none."""
        if time.monotonic() > waiting.expires:
            return "The request expired in the queue."
        try:
            body = waiting.body if isinstance(waiting.body, bytes) else waiting.body.read_bytes()
        except OSError as error:
            return f"The input can't be read: {error}"
        if len(body) > OBJECT_BYTES:
            return f"The input has {len(body):,} bytes; {OBJECT_BYTES:,} are allowed."
        try:
            return self.endpoint.invoke(
                body, waiting.content_type, waiting.accept, more=waiting.more, timeout_s=waiting.timeout_s
            )
        except TimeoutError:
            return f"The model did not answer within {waiting.timeout_s:g} s."
        except OSError as error:
            return f"The model did not answer: {type(error).__name__} {error}"


@contextmanager
def serving_async(
    platform: Platform, base: Path, output: Path, environ: Mapping[str, str] | None = None, invocations: int = 1
) -> Iterator[AsyncEndpoint]:
    """Start a server over an /opt/ml, give it as an asynchronous endpoint; at the end wait for what it took, and stop it.

    Raises:
        RuntimeError: the server did not become ready; the message has what it printed.
    """
    with serving(platform, base, environ) as endpoint:
        taken = AsyncEndpoint(endpoint, output, invocations=invocations)
        try:
            yield taken
        finally:
            taken.close()


def _only_one(body: bytes | None, location: Path | None) -> bytes | Path:
    if body is not None and location is None:
        if len(body) > INLINE_BYTES:
            raise ValueError(f"an inline body has at most {INLINE_BYTES:,} bytes, not {len(body):,}: give input_location")
        return body
    if location is not None and body is None:
        return location
    raise ValueError("give either a body or input_location")
