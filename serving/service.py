"""The path of a request from body to answer, written once: read, decode, predict, encode. Platforms swap its two ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from contract.errors import Overloaded
from serving.encoders import Encoder
from serving.exchange import Answer, Request
from serving.predictor import Predictor, self_test
from serving.schema import Matrix, Schema
from serving.settings import Settings

T = TypeVar("T")
Reader = Callable[[bytes, Schema], tuple[Matrix, Encoder]]
"""A platform's two ends: bytes and columns to the matrix, and how its predictions are written."""

INLINE_BYTES = 16_384
"""Bodies up to this size are predicted on the event loop; larger ones in a thread, so that they don't hold up `/ping`."""
SLOTS = 2
"""Large bodies that a worker computes at once."""

log = logging.getLogger("gunicorn.error")


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
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._free.release()


class Service:
    """One model, and the way from a body to an answer."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        self.predictor = predictor
        self.settings = settings
        self.slots = Slots(SLOTS, settings.slot_wait_s)
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
        body = await request.body(self.settings.max_payload_bytes, self.settings.body_timeout_s)
        chosen = predictor or self.predictor

        def work() -> bytes:
            matrix, encode = read(body, chosen.schema)
            request.rows = len(matrix)
            return encode(chosen.predict(matrix))

        return Answer(200, work() if len(body) <= INLINE_BYTES else await self.slots.run(work), media_type)

    def test_again(self) -> None:
        """Find out, after a failure that has no name, whether the model still answers; the probes tell."""
        try:
            self_test(self.predictor)
        except Exception:
            log.exception("the self-test fails: /ping answers 503 from now on")
            self.is_ready = False
