"""Batch transform, played here (contract 2.6): objects are cut, sent as the job says, and what comes back is put together.

An object all of whose mini-batches are answered leaves `<name>.out`; any other leaves nothing, and the job fails (H-28).
"""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from local_test.emulator import Endpoint, Reply, serving
from local_test.emulator.batches import READERS, BadObject, Record, body_of, mini_batches
from local_test.emulator.filters import CSV, BadFilter, Processing
from local_test.runners import Platform

MOST_MB = 100  # H-26: of all requests at once
MOST_TIMEOUT_S, MOST_RETRIES = 3_600, 3  # H-27
STRATEGIES = {"MULTI_RECORD": "MultiRecord", "SINGLE_RECORD": "SingleRecord"}
"""BatchStrategy as a container or a variable spells it, and as a request does."""
CHUNK_BYTES = 64 * 1024


class BadParameters(ValueError):
    """What /execution-parameters answered, or what a job asks for, is not as it may be."""


@dataclass(frozen=True)
class Parameters:
    """How a job sends its objects (H-26)."""

    max_concurrent_transforms: int = 1
    batch_strategy: str = "MultiRecord"
    max_payload_mb: int = 6

    def check(self) -> None:
        """Raise BadParameters where the platform would refuse them."""
        megabytes, requests = self.max_payload_mb, self.max_concurrent_transforms
        if self.batch_strategy not in STRATEGIES.values():
            raise BadParameters(f"BatchStrategy is {' or '.join(STRATEGIES.values())}, not {self.batch_strategy!r}")
        if requests < 1 or megabytes < 0:
            raise BadParameters(f"MaxConcurrentTransforms {requests} and MaxPayloadInMB {megabytes} are too small")
        if megabytes * requests > MOST_MB:
            raise BadParameters(
                f"MaxConcurrentTransforms {requests} x MaxPayloadInMB {megabytes} is {megabytes * requests} MB; "
                f"{MOST_MB} are allowed"
            )


@dataclass(frozen=True)
class TransformJob:
    """What CreateTransformJob takes, under its names; what is None is the container's to say, else the platform's default."""

    content_type: str = CSV
    accept: str = ""
    split_type: str = "None"
    batch_strategy: str | None = None
    max_payload_mb: int | None = None
    max_concurrent_transforms: int | None = None
    assemble_with: str = "None"
    input_filter: str = "$"
    output_filter: str = "$"
    join_source: str = "None"
    invocations_timeout_s: float = 600
    invocations_max_retries: int = 3
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def processing(self) -> Processing:
        """The part that filters and joins."""
        return Processing(self.content_type, self.input_filter, self.output_filter, self.join_source)

    def check(self) -> None:
        """Raise ValueError where the platform would refuse the job."""
        if self.split_type not in READERS:
            raise BadParameters(f"SplitType is one of {', '.join(READERS)}, not {self.split_type!r}")
        if self.assemble_with not in {"None", "Line"}:
            raise BadParameters(f"AssembleWith is None or Line, not {self.assemble_with!r}")
        if self.invocations_timeout_s > MOST_TIMEOUT_S or not 0 <= self.invocations_max_retries <= MOST_RETRIES:
            raise BadParameters(f"an invocation has at most {MOST_TIMEOUT_S} s and {MOST_RETRIES} retries (H-27)")
        self.processing.check()
        lines = (self.split_type, self.assemble_with) == ("Line", "Line")
        if self.processing.is_on and self.processing.media_type == CSV and not lines:
            raise BadFilter("filters and joins of text/csv want SplitType=Line and AssembleWith=Line (H-29)")

    def variables(self) -> dict[str, str]:
        """Return what the container finds in its environment: what the caller did not set is not there (H-25)."""
        spelled = {name: word for word, name in STRATEGIES.items()}
        told = {
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": self.max_payload_mb,
            "SAGEMAKER_BATCH_STRATEGY": spelled.get(self.batch_strategy or ""),
            "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": self.max_concurrent_transforms,
        }
        given = {name: str(value) for name, value in told.items() if value is not None}
        return {"SAGEMAKER_BATCH": "true", **given, **self.environ}

    def parameters(self, offered: Mapping[str, int | str]) -> Parameters:
        """Return what holds: the request's, else the container's, else the platform's (H-26).

        Raises:
            BadParameters: together they break a rule.
        """
        default = Parameters()
        strategy = STRATEGIES.get(str(offered.get("BatchStrategy", "")), default.batch_strategy)
        payload = offered.get("MaxPayloadInMB", default.max_payload_mb) if self.max_payload_mb is None else self.max_payload_mb
        requests = self.max_concurrent_transforms or offered.get("MaxConcurrentTransforms") or default.max_concurrent_transforms
        found = Parameters(int(requests), self.batch_strategy or strategy, int(payload))
        found.check()
        return found


@dataclass
class Transformed:
    """How a job ended."""

    parameters: Parameters
    outputs: list[Path] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """Input object to why it has no output."""

    @property
    def status(self) -> str:
        """Completed or Failed: one object that fails is enough (H-28)."""
        return "Failed" if self.failures else "Completed"


def offered_parameters(reply: Reply) -> dict[str, int | str]:
    """Return what an answer to /execution-parameters offers: nothing where the status is not 200.

    Raises:
        BadParameters: it is no JSON object of the three known names, or their values are not as they may be.
    """
    if reply.status != 200:
        return {}
    try:
        found = json.loads(reply.body)
    except ValueError:
        raise BadParameters(f"it answered 200 with what is no JSON: {reply.text[:80]!r}") from None
    if not isinstance(found, dict):
        raise BadParameters(f"it answered 200 with a JSON {type(found).__name__}, not an object: {reply.text[:80]}")
    unknown = found.keys() - {"MaxConcurrentTransforms", "BatchStrategy", "MaxPayloadInMB"}
    if unknown:
        raise BadParameters(f"it names {', '.join(sorted(unknown))}; the platform knows three names, and reads no other")
    for name in ("MaxConcurrentTransforms", "MaxPayloadInMB"):
        if type(found.get(name, 0)) is not int or found.get(name, 0) < 0:
            raise BadParameters(f"{name} is {json.dumps(found[name])}, not a whole number")
    if found.get("BatchStrategy", "MULTI_RECORD") not in STRATEGIES:
        raise BadParameters(f"BatchStrategy is {json.dumps(found['BatchStrategy'])}, not {' or '.join(STRATEGIES)}")
    return found


def run_job(platform: Platform, base: Path, job: TransformJob, inputs: Path, output: Path) -> Transformed:
    """Start a server over an /opt/ml as the job says, transform, and stop it.

    Raises:
        RuntimeError: the server did not become ready; the message has what it printed.
        ValueError: the platform would refuse the job, or what the container offers.
    """
    job.check()
    with serving(platform, base, job.variables()) as endpoint:
        return transform(endpoint, job, inputs, output)


def transform(
    endpoint: Endpoint, job: TransformJob, inputs: Path, output: Path, offered: Mapping[str, int | str] | None = None
) -> Transformed:
    """Transform a file, or every file below a folder, to `<name>.out` below `output`, with a server that has been started.

    What the server offers is asked for, unless `offered` says it.

    Raises:
        ValueError: the platform would refuse the job, or what the container offers.
    """
    job.check()
    told = offered_parameters(endpoint.get("/execution-parameters")) if offered is None else offered
    done = Transformed(job.parameters(told))
    with ThreadPoolExecutor(done.parameters.max_concurrent_transforms) as pool:
        sender = Sender(endpoint, job, done, pool)
        for path in sorted(inputs.rglob("*")) if inputs.is_dir() else [inputs]:
            if path.is_file():
                _transform_object(sender, path, output / path.relative_to(inputs if inputs.is_dir() else inputs.parent))
    return done


def _transform_object(sender: Sender, path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    finished = target.with_name(target.name + ".out")
    try:
        with _whole(finished) as file:
            for answer in sender.answers(path):
                file.write(answer)
                if sender.job.assemble_with == "Line":
                    file.write(b"\n")  # H-31: after each answer, whatever it ends with
    except (BadObject, BadFilter, Refused) as error:
        sender.done.failures[str(path)] = str(error)
    else:
        sender.done.outputs.append(finished)


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """Give a file that is at its place once it is complete, and nowhere otherwise."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
        shutil.move(part, path)
    finally:
        part.unlink(missing_ok=True)


class Refused(Exception):
    """A mini-batch that was not answered with 200, however often it was sent."""


@dataclass
class Sender:
    """Sends the mini-batches of one job's objects, several at once; answers come in the records' order."""

    endpoint: Endpoint
    job: TransformJob
    done: Transformed
    pool: ThreadPoolExecutor

    def answers(self, path: Path) -> Iterator[bytes]:
        """Yield what is written of each mini-batch of an object; no more are read of it than are on their way.

        Raises:
            Refused: one was not answered with 200; BadObject, BadFilter: the object can't be sent or joined.
        """
        parameters, waiting = self.done.parameters, deque[Future[bytes]]()
        try:
            for batch in mini_batches(path, self.job.split_type, parameters.batch_strategy, parameters.max_payload_mb):
                waiting.append(self.pool.submit(self._answer, batch))
                if len(waiting) >= parameters.max_concurrent_transforms:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _answer(self, batch: list[Record]) -> bytes:
        body = body_of(batch, self.done.parameters.batch_strategy)
        reply = self._send(self.job.processing.before(body))
        return self.job.processing.after(body, reply.body)

    def _send(self, body: bytes) -> Reply:
        """Send a body until it is answered with 200; a refusal that blames the body is final, as none would help [INF]."""
        chunked = self.done.parameters.max_payload_mb == 0
        for attempt in range(1 + self.job.invocations_max_retries):
            time.sleep(0.1 * attempt)
            said = self._once(_chunks(body) if chunked else body)
            if isinstance(said, Reply) and said.status == 200:
                return said
            if isinstance(said, Reply) and 400 <= said.status < 500 and said.status != 429:
                break
        told = f"{said.status}: {said.text[:500]}" if isinstance(said, Reply) else said
        raise Refused(f"a mini-batch of {len(body):,} bytes, sent {attempt + 1} times, was answered {told}")

    def _once(self, body: bytes | Iterable[bytes]) -> Reply | str:
        try:
            return self.endpoint.invoke(body, self.job.content_type, self.job.accept, timeout_s=self.job.invocations_timeout_s)
        except OSError as error:
            return f"not at all: {type(error).__name__} {error}"


def _chunks(body: bytes) -> Iterator[bytes]:
    """Yield the parts of a body whose length isn't told (H-26)."""
    yield from (body[start : start + CHUNK_BYTES] for start in range(0, len(body), CHUNK_BYTES))
