"""The path of a request from body to answer, written once: read, decode, predict, encode. Platforms swap its two ends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from contract.cgroup import cpus
from contract.errors import Overloaded
from serving.cells import Matrix
from serving.codecs import is_packed
from serving.drift import Drift
from serving.encoders import Encoder
from serving.encodings import ZIP_BYTES, accepts_gzip, unzip, zipped
from serving.exchange import Answer, Budget, Request
from serving.intervals import asks_for, check_setting, with_intervals
from serving.models import Models
from serving.predictor import Predictor, self_test
from serving.schema import Schema
from serving.settings import Settings

T = TypeVar("T")
Reader = Callable[[bytes, Schema], tuple[Matrix, Encoder]]
"""A platform's two ends: bytes and columns to the matrix, and how its predictions are written."""

INLINE_BYTES = 16_384
"""Bodies up to this size are predicted on the event loop; larger ones in a thread, so that they don't hold up `/ping`."""
SLOTS = 2
"""Large bodies that a worker computes at once; the one worker of a multi-model endpoint as many as it has CPUs."""

log = logging.getLogger("gunicorn.error")


def is_small(request: Request, size_bytes: int) -> bool:
    """Say whether a body is predicted on the event loop: nobody knows how large a zipped one, or a Parquet, will be."""
    headers = request.headers
    return (
        size_bytes <= INLINE_BYTES
        and not headers.get(b"content-encoding")
        and not is_packed(headers.get(b"content-type", b"").decode("latin-1"))
    )


class Slots:
    """A few threads for long work, and a bounded wait for one."""

    def __init__(self, count: int, wait_s: float) -> None:
        self._wait_s = wait_s
        self._free = asyncio.Semaphore(count)
        # Its threads start with their first work, after the fork.
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="slot")

    async def run(self, work: Callable[[], T]) -> T:
        """Return what the work returns.

        Raises:
            Overloaded: no slot came free in time.
        """
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise Overloaded(
                f"Every inference slot was busy for {self._wait_s:g} s. Try again later, or add workers.", retry_after_s=1
            ) from None
        running = asyncio.get_running_loop().run_in_executor(self._pool, work)
        running.add_done_callback(self._release)
        return await asyncio.shield(running)  # a client that goes away doesn't stop the thread: its slot stays taken

    def _release(self, done: asyncio.Future[T]) -> None:
        self._free.release()
        if not done.cancelled():
            done.exception()  # looked at, so that nothing is logged where nobody waits any more


class Service:
    """One model, and the way from a body to an answer."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        self.predictor = predictor
        self.settings = settings
        self.drift = Drift(predictor.manifest.declaration.features, predictor.manifest.ranges)
        self.count_models: Callable[[], int] = lambda: 1
        check_setting(settings, predictor.manifest)
        self.models = Models(settings) if settings.multi_model else None
        self.slots = Slots(cpus() if settings.multi_model else SLOTS, settings.slot_wait_s)
        self.budget = Budget(settings.bodies_bytes)
        self.is_ready = True  # load_predictor has run the self-test (H-9)

    async def answer(self, request: Request, read: Reader, media_type: str, predictor: Predictor | None = None) -> Answer:
        """Predict the rows of a request's body.

        Args:
            request: its body is read here, before a slot is taken.
            read: bytes to the matrix and the encoder of its answer.
            media_type: of the answer.
            predictor: another model than the one that was loaded at the start.

        Raises:
            BerthError: the body can't be read, or there is no room.
        """
        try:
            limit = self.settings.max_payload_bytes
            whole = request.whole
            body = await self.read_body(request) if whole is None else request.take(whole, limit, self.budget)
            return await self._answer(request, body, read, media_type, predictor or self.predictor)
        finally:
            self.budget.give(request.held_bytes)

    async def read_body(self, request: Request) -> bytes:
        """Return a request's body, within the settings' limits; what it holds of the budget is the caller's to give back."""
        return await request.body(self.settings.max_payload_bytes, self.settings.body_timeout_s, self.budget)

    async def _answer(self, request: Request, body: bytes, read: Reader, media_type: str, chosen: Predictor) -> Answer:
        encoding = request.header(b"content-encoding")
        zips = accepts_gzip(request.header(b"accept-encoding"))

        def work() -> Answer:
            matrix, encode = read(unzip(body, encoding, self.settings.max_payload_bytes), chosen.schema)
            request.rows = len(matrix)
            if chosen is self.predictor:
                request.drift = self.drift.count(matrix)
            wide = asks_for(request, media_type, self.settings.intervals)
            answer = Answer(200, encode(with_intervals(chosen, matrix) if wide else chosen.predict(matrix)), media_type)
            self._meter(request, answer)
            return zipped(answer) if zips and len(answer.body) >= ZIP_BYTES else answer

        return work() if request.is_small or is_small(request, len(body)) else await self.slots.run(work)

    def _meter(self, request: Request, answer: Answer) -> None:
        """Say what an answer costs its caller, where a dimension is set: the rows predicted for it (H-41).

        Every platform's route goes through here, so that no way to a prediction is free. Placeholders aren't counted. None at
        all is said too: without the header the Marketplace charges an invocation as one.
        """
        if dimension := self.settings.metering_dimension:
            units = json.dumps({"Dimension": dimension, "ConsumedUnits": request.rows})
            answer.headers = (*answer.headers, (b"x-amzn-inference-metering", units.encode()))

    def test_again(self) -> None:
        """Find out, after a failure that has no name, whether the model still answers; the probes tell."""
        try:
            self_test(self.predictor)
        except Exception:
            log.exception("the self-test fails: /ping answers 503 from now on")
            self.is_ready = False
