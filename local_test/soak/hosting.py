"""What hosting costs and what happens when things go wrong, measured on a running server; `make soak` writes it down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from local_test import payloads
from local_test.emulator import serving
from local_test.procfs import children
from local_test.runners import Processes

Body = Callable[..., bytes]
BODIES: dict[str, tuple[str, Body]] = {
    "CSV": ("text/csv", payloads.csv_body),
    "JSON, rows by name": ("application/json", payloads.json_body),
    "JSON, columns": ("application/json", payloads.columns_body),
    "JSON Lines": ("application/jsonlines", payloads.jsonlines_body),
    "npy": ("application/x-npy", payloads.npy_body),
    "Parquet": ("application/x-parquet", payloads.parquet_body),
}


def body_memory(base: Path, size_mb: int, names: Sequence[str] = tuple(BODIES)) -> dict[str, float]:
    """Send one body of about `size_mb` to a fresh server of one worker; return its peak above a small request's, in bodies.

    What the worker's own children take, such as the decoder of Parquet, counts.
    """
    manifest = json.loads((base / "model" / "manifest.json").read_text())
    environ = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(size_mb + 1)}
    times = {}
    for name in names:
        media_type, make = BODIES[name]
        body = _body(manifest, make, size_mb * 2**20)
        with serving(Processes(), base, environ) as endpoint:
            endpoint.invoke(make(manifest), media_type)
            worker = children(endpoint.program.popen.pid)[0]  # type: ignore[attr-defined]
            before = _peak_bytes(worker)
            reply = endpoint.invoke(body, media_type)
            if reply.status != 200:
                raise RuntimeError(f"{name}: {reply.status} {reply.text[:500]}")
            times[name] = (_peak_bytes(worker) - before) / len(body)
    return times


def _body(manifest: Mapping[str, Any], make: Body, size: int) -> bytes:
    sample = payloads.sample_rows(manifest)
    of_1000 = len(make(manifest, [sample[0]] * 1_000))
    return make(manifest, [sample[row % 3] for row in range(int(1_000 * size / of_1000 * 0.8))])


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    own = 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
    return own + sum(_peak_bytes(child) for child in children(pid))
