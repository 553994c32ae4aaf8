"""The models of a multi-model endpoint (contract 2.5): which are loaded, who is using them, what they take of memory.

One process serves them all, and only its event loop changes what is listed here; threads load and free. Nothing is ever
unloaded to make room: the platform decides what goes (H-24).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from contract.cgroup import memory_bytes
from contract.declaration import Declaration, Feature, Target
from contract.errors import DamagedModel, ModelLoaded, NoRoom, UnknownPath
from contract.manifest import MANIFEST, Manifest
from serving.cells import Matrix, short
from serving.heap import trim
from serving.predictor import FILES, Predictions, Predictor, load_predictor
from serving.schema import Schema
from serving.settings import MIB, Settings

T = TypeVar("T")

LOADERS = 2
"""Models read at once: a large one doesn't hold up a small one, and a crowd doesn't take every CPU."""
KEPT_TIMES, PEAK_TIMES, FIXED_BYTES = 6, 13, MIB // 2
"""What a loaded model costs: its file this many times, while it loads that many times, and a fixed part.

Measured with onnxruntime 1.32, 60 models each, by growth of resident memory after a trim: gradient boosting of 0.2 and 1.0 MB
5.9 and 6.0 times, forest of 3.9 MB 5.1 times (at the peak 12.9 and 12.3), ridge and mlp of a few kB 0.33 MB. With
PREDICTOR=sklearn it is model.joblib that counts, 20 models each: 1.0 to 1.8 times.
"""
OUT_OF_MEMORY = ("bad_alloc", "Failed to allocate memory")  # what onnxruntime says; its kinds derive from Exception alone


class Model:
    """One loaded model. It is the predictor that requests hold, so that the session has no other holder and can be dropped."""

    def __init__(self, name: str, url: str, predictor: Predictor, cost_bytes: int) -> None:
        self.name = name
        self.url = url
        self.cost_bytes = cost_bytes
        self.manifest = predictor.manifest
        self.schema = predictor.schema
        self._predictor: Predictor | None = predictor
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    def predict(self, matrix: Matrix) -> Predictions:
        """Return the predictions of (n_rows, n_features) float32.

        Raises:
            NoRoom: there was no memory for it; the platform unloads another model and asks again (H-24).
        """
        if self._predictor is None:
            raise RuntimeError(f"model {self.name!r} was dropped while it was in use")
        try:
            return self._predictor.predict(matrix)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise NoRoom(f"There was no memory to predict {len(matrix):,} rows. Unload a model, or send fewer rows.") from error

    def lend(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Return the work as a future; until it has ended, whoever has left meanwhile, the model stays."""
        self._users += 1
        self._unused.clear()
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._take_back)
        return asyncio.shield(task)

    async def drop(self) -> None:
        """Wait for the work in flight, then free the model's memory."""
        await self._unused.wait()
        self._predictor = None
        await asyncio.to_thread(free_memory)

    def _take_back(self, _: asyncio.Future[Any]) -> None:
        self._users -= 1
        if not self._users:
            self._unused.set()


class NoModel:
    """The default model of a multi-model endpoint, so that a server can start: no route leads to it."""

    def __init__(self) -> None:
        target = Target("nothing", "Each model of the endpoint has its own")
        about = "Models are loaded with POST /models and asked with POST /models/{name}/invoke."
        feature = Feature("nothing", "Each model of the endpoint has its own")
        declaration = Declaration("multi-model", "Multi-model endpoint", about, (feature,), target, ())
        sample = {"row": {"nothing": 0.0}, "prediction": 0.0}
        self.manifest = Manifest(declaration, (), (sample,), {}, {}, {}, {}, {}, {}, {})
        self.schema = Schema(declaration.features)

    def predict(self, matrix: Matrix) -> Predictions:
        """Return zeros."""
        return Predictions(np.zeros(len(matrix), dtype=np.float32))


class Models:
    """The registry: names to loaded models, within a limit on what they cost."""

    def __init__(self, settings: Settings, memory: int | None = None) -> None:
        self.limit_bytes = settings.models_max_bytes
        self.used_bytes = 0
        """The cost of what is loaded, being loaded or not yet freed."""
        self._base = settings.paths.base
        self._kind = settings.predictor
        self._memory = memory or memory_bytes()
        self._rising_bytes = 0
        self._loaded: dict[str, Model] = {}
        self._loading: set[str] = set()
        self._under_way: set[asyncio.Future[Any]] = set()
        self._pool = ThreadPoolExecutor(LOADERS, thread_name_prefix="loader")  # its threads start after the fork

    def __len__(self) -> int:
        return len(self._loaded)

    def get(self, name: str) -> Model:
        """Return a loaded model.

        Raises:
            UnknownPath: none of this name is loaded.
        """
        model = self._loaded.get(name)
        if model is None:
            raise UnknownPath(f"No model {short(name)} is loaded. POST /models loads one, GET /models lists them.")
        return model

    def page(self, after: str | None, size: int) -> tuple[list[Model], bool]:
        """Return up to `size` models by name, those past `after`, and whether more follow.

        By name, and not by number: what is loaded or unloaded between two pages shifts nothing.
        """
        names = sorted(name for name in self._loaded if after is None or name > after)
        return [self._loaded[name] for name in names[:size]], len(names) > size

    async def load(self, name: str, url: str) -> Model:
        """Load the model of a folder under a name. Of several at once, one wins; it goes on if its caller leaves.

        Raises:
            ModelLoaded: the name is taken.
            UnknownPath: there is no such folder.
            DamagedModel: there is no sound model in it.
            NoRoom: it would be more than the limit, or than memory.
        """
        if name in self._loaded or name in self._loading:
            state = "loaded" if name in self._loaded else "being loaded"
            raise ModelLoaded(f"A model {short(name)} is {state} already. DELETE /models/{{name}} unloads it.")
        self._loading.add(name)
        return await self._to_its_end(self._load(name, url))

    async def unload(self, name: str) -> None:
        """Forget a model at once, and return when requests in flight have ended and its memory is free.

        Raises:
            UnknownPath: none of this name is loaded.
        """
        model = self.get(name)
        del self._loaded[name]
        await self._to_its_end(self._unload(model))

    async def _load(self, name: str, url: str) -> Model:
        try:
            folder = await self._in_thread(partial(find_model, url, self._base))
            size = _size(folder / FILES[self._kind])
            predictor = await self._read(folder, size)
            self._loaded[name] = model = Model(name, url, predictor, _cost(size))
            return model
        finally:
            self._loading.discard(name)

    async def _read(self, folder: Path, size: int) -> Predictor:
        cost, peak = _cost(size), FIXED_BYTES + PEAK_TIMES * size
        self._check_room(cost, peak)
        self.used_bytes += cost
        self._rising_bytes += peak
        try:
            return await self._in_thread(partial(_load_soundly, folder, self._kind))
        except BaseException:
            self.used_bytes -= cost
            raise
        finally:
            self._rising_bytes -= peak

    async def _unload(self, model: Model) -> None:
        await model.drop()
        await self._in_thread(trim)
        self.used_bytes -= model.cost_bytes

    def _check_room(self, cost: int, peak: int) -> None:
        """Hold the count against the limit, and what the process really has against the container's memory."""
        room = self.limit_bytes - self.used_bytes
        if cost > room:
            never = "It never will: raise BERTH_MODELS_MAX_MB or the container's memory."
            hint = never if cost > self.limit_bytes else "Unload one."
            raise NoRoom(
                f"The model takes {cost:,} bytes; {max(0, room):,} of {self.limit_bytes:,} are free. {hint}",
                needed_bytes=cost,
                limit_bytes=self.limit_bytes,
            )
        if resident_bytes() + self._rising_bytes + peak > self._memory:
            raise NoRoom(
                f"Loading the model takes up to {peak:,} bytes; the process has {resident_bytes():,} of the container's "
                f"{self._memory:,}. Unload one.",
                needed_bytes=peak,
            )

    def _in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _to_its_end(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Return work that goes on when its caller is cancelled, as gunicorn does when a client has gone."""
        task = asyncio.ensure_future(work)
        self._under_way.add(task)  # the loop alone would not keep it
        task.add_done_callback(self._under_way.discard)
        return asyncio.shield(task)


def find_model(url: str, base: Path) -> Path:
    """Return the folder that has the manifest: the one that is named, or the only one in it that does.

    Raises:
        UnknownPath: the folder does not exist, or lies outside `base`.
        DamagedModel: it holds no model, or several.
    """
    missing = UnknownPath(f"url {short(url)} does not exist below {base}. It names the folder of an unpacked model.")
    try:
        folder = Path(url).resolve()
        exists = folder.is_relative_to(base.resolve()) and folder.exists()
    except (ValueError, OSError, RuntimeError) as error:  # NUL, a name longer than any file's, a loop of links
        raise missing from error
    if not exists:
        raise missing
    try:
        candidates = [folder, *sorted(folder.iterdir())]
        found = [path for path in candidates if (path / MANIFEST).is_file()]
    except OSError as error:  # a file, no rights
        raise DamagedModel(f"url {short(url)} can't be read as a folder: {error}.", file=MANIFEST) from error
    if not found or (len(found) > 1 and found[0] != folder):
        names = [path.name for path in found]
        raise DamagedModel(f"{short(url)} has {MANIFEST} in {names or 'neither itself nor a folder in it'}.", file=MANIFEST)
    return found[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error, or what caused it, is a lack of memory."""
    if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def free_memory() -> None:
    """Give what was freed back to the system; glibc keeps it otherwise (346 of 346 MB, once 60 models were dropped).

    A dropped predictor is freed at once, without a search for cycles, which would hold the event loop for some 40 ms.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def resident_bytes() -> int:
    """Return the memory that this process has, 0 where the system doesn't tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _load_soundly(folder: Path, kind: str) -> Predictor:
    """Load and test as at a start."""
    try:
        return load_predictor(folder, kind)
    except Exception as error:
        if is_out_of_memory(error):
            raise NoRoom("There was no memory to load the model. Unload one.") from error
        raise


def _cost(size: int) -> int:
    return FIXED_BYTES + KEPT_TIMES * size


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # loading says what is wrong
