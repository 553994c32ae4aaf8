"""SageMaker's part at a multi-model endpoint, played here: models are brought when asked for, and the longest unused go."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from local_test.emulator import INVOKE_S, STOP_SERVING_S, Endpoint, Reply, stop, wait_until_ready
from local_test.runners import Containers, Launch, Platform, Program

CONNECTIONS = 6
"""As many as even a backlog of five holds beside a worker that takes one."""


@dataclass
class FrontEnd:
    """Answers for target models: brings, loads, evicts, asks again. Threads may call it at once."""

    endpoint: Endpoint
    base: Path
    """The endpoint's /opt/ml on this machine; models are brought to `models/` below it."""
    store: Mapping[str, Path]
    """Target model to its folder, as the bucket's prefix has them."""
    seen_base: str = ""
    """The same /opt/ml as the endpoint sees it, where that is another: in a container."""
    keeps: bool = True
    """ModelCacheSetting: whether a model stays after its call."""
    loads: int = 0
    evictions: int = 0
    _loaded: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def invoke(self, target: str, body: bytes, content_type: str = "text/csv", accept: str = "") -> Reply:
        """Ask a target model; what the server answers after 507 and an eviction counts."""
        while True:
            refused = self._ensure_loaded(target)
            path, named = f"/models/{self.name(target)}/invoke", {"X-Amzn-SageMaker-Target-Model": target}
            reply = refused or self.endpoint.invoke(body, content_type, accept, path, more=named)
            if refused is None and reply.status == 404:  # evicted meanwhile, by another call
                self._look_again(target)
                continue
            if reply.status != 507 or not self._evict():
                break
        if not self.keeps:
            self._unload(target)
        return reply

    def name(self, target: str) -> str:
        """Return what the platform calls a target model: an opaque hash."""
        return opaque(target)

    def empty(self) -> None:
        """Unload every model."""
        while self._evict():
            pass

    def _ensure_loaded(self, target: str) -> Reply | None:
        """Load a model where it isn't; return the reply of a load that failed."""
        with self._lock:
            if target in self._loaded:
                self._loaded.move_to_end(target)
                return None
            folder = self.base / "models" / self.name(target) / "model"
            if not folder.exists():
                shutil.copytree(self.store[target], folder, copy_function=link)
            url = f"{self.seen_base or self.base}/models/{self.name(target)}/model"
            body = json.dumps({"model_name": self.name(target), "url": url}).encode()
            reply = self.endpoint.invoke(body, "application/json", path="/models")
            while reply.status == 507 and self._evict():  # with the lock held: room that another call makes is seen
                reply = self.endpoint.invoke(body, "application/json", path="/models")
            if reply.status not in {200, 409}:
                return reply
            self.loads += 1
            self._loaded[target] = None
            return None

    def _look_again(self, target: str) -> None:
        """Forget a model where it is still not loaded: another call may have brought it back."""
        with self._lock:
            if self.endpoint.get(f"/models/{self.name(target)}").status == 404:
                self._forget(target)

    def _evict(self) -> bool:
        """Unload the least recently used model; say whether there was one."""
        with self._lock:
            if not self._loaded:
                return False
            self._unload(next(iter(self._loaded)))
            self.evictions += 1
            return True

    def _unload(self, target: str) -> None:
        with self._lock:
            if self._forget(target):
                self.endpoint.delete(f"/models/{self.name(target)}")
                shutil.rmtree(self.base / "models" / self.name(target))

    def _forget(self, target: str) -> bool:
        with self._lock:
            known = target in self._loaded
            self._loaded.pop(target, None)
            return known


@dataclass
class Host:
    """The same, a step at a time: for who judges each step."""

    endpoint: Endpoint
    base: Path
    seen_base: str
    """The same folder as the server sees it."""
    model: Path

    def bring(self, target: str) -> tuple[str, str]:
        """Copy the model to where the platform would, and return its name, an opaque hash, and its url."""
        name = opaque(target)
        folder = self.base / "models" / name / "model"
        if not folder.exists():
            shutil.copytree(self.model, folder, copy_function=link)
        return name, f"{self.seen_base}/models/{name}/model"

    def load(self, name: str, url: str) -> Reply:
        """Have a model loaded."""
        return self.post(json.dumps({"model_name": name, "url": url}).encode())

    def post(self, body: bytes) -> Reply:
        """Send a body to POST /models."""
        return self.endpoint.invoke(body, "application/json", "application/json", "/models")


@contextmanager
def serving_models(
    platform: Platform, base: Path, store: Mapping[str, Path], environ: Mapping[str, str] | None = None, keeps: bool = True
) -> Iterator[FrontEnd]:
    """Start a server for many models, none of them loaded, give what asks them by name, and stop it as the platform does.

    Args:
        platform: what runs `serve`.
        base: an empty folder for the models that are brought.
        store: target model to its folder, unpacked.
        environ: what is added to the environment.
        keeps: whether a model stays after its call.

    Raises:
        RuntimeError: the server ended, or was not ready in time; the message has what it printed.
    """
    (base / "models").mkdir(parents=True)
    variables = {"SAGEMAKER_MULTI_MODEL": "true", **(environ or {})}
    program = _start(platform, base, variables)
    endpoint = Endpoint(program)
    try:
        wait_until_ready(endpoint)
        yield FrontEnd(endpoint, base, store, "/opt/ml" if isinstance(platform, Containers) else "", keeps)
    finally:
        stop(program, STOP_SERVING_S)


def opaque(target: str) -> str:
    """Return what the platform calls a target model: a hash that tells nothing (H-24)."""
    return sha256(target.encode()).hexdigest()[:32]


def ask_at_once(endpoint: Endpoint, path: str) -> list[tuple[int, str]]:
    """Return status and text of what is answered on connections that were all open before the first was asked.

    So each of several workers takes some: one that is asked at once and answers at once would take them all.
    """
    address = urlsplit(endpoint.program.url)
    connections = [HTTPConnection(address.hostname or "", address.port, timeout=INVOKE_S) for _ in range(CONNECTIONS)]

    def ask(connection: HTTPConnection) -> tuple[int, str]:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")

    try:
        for connection in connections:
            connection.connect()
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return list(pool.map(ask, connections))
    finally:
        for connection in connections:
            connection.close()


def link(source: str, target: str) -> None:
    """Copy a file without its bytes, where that can be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _start(platform: Platform, base: Path, variables: Mapping[str, str]) -> Program:
    if isinstance(platform, Containers):
        return platform.launch(Launch(("serve",), variables, (f"{base / 'models'}:/opt/ml/models:ro",)))  # H-4: read-only
    return platform.start("serve", base, variables)
