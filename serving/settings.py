"""What `serve` takes from the environment (contract 2.10) and its flags, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from contract.cgroup import cpus, memory_bytes
from contract.errors import BadSetting
from contract.paths import Paths
from contract.settings import read_choice, read_flag, read_integer

MIB = 2**20
BASE_BYTES = 128 * MIB
"""Kept for the first process and the model before workers are counted."""
WORKER_BYTES = 128 * MIB
"""Kept for each further worker: its own pages and the bodies it may hold."""
PORT_VARIABLES = ("SAGEMAKER_BIND_TO_PORT", "AIP_HTTP_PORT", "PORT")  # C-3


@dataclass(frozen=True)
class Settings:
    """One field a variable."""

    paths: Paths
    """SAGEMAKER_BASE_DIR: where /opt/ml is."""
    port: int
    """`--port`, SAGEMAKER_BIND_TO_PORT (H-2), AIP_HTTP_PORT (V-1), PORT (C-1), in this order; else 8080."""
    workers: int
    """SAGEMAKER_MODEL_SERVER_WORKERS; else one a CPU that the cgroup grants, as far as its memory goes."""
    timeout_s: int
    """SAGEMAKER_MODEL_SERVER_TIMEOUT: seconds until a silent worker is replaced; 60, with SAGEMAKER_BATCH 3,600 (H-27)."""
    body_timeout_s: float
    """Nine tenths of SAGEMAKER_MODEL_SERVER_TIMEOUT: seconds for a body to arrive whole, else 408."""
    slot_wait_s: float
    """BERTH_QUEUE_TIMEOUT: seconds a large body waits for an inference slot, else 503; 10."""
    max_payload_bytes: int
    """SAGEMAKER_MAX_PAYLOAD_IN_MB: a larger body is 413; 25 MiB (H-12), in batch 100."""
    default_accept: str
    """SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT: the answer's format when a request names none (H-18)."""
    log_level: int
    """SAGEMAKER_CONTAINER_LOG_LEVEL: as Python's logging counts, 10 debug to 50 critical; 20."""
    image_version: str
    """BERTH_VERSION: set by the image; shown by `/metadata`."""
    image_revision: str
    """BERTH_REVISION: the commit the image was built from."""
    predictor: str
    """PREDICTOR: `onnx`, or `sklearn` to unpickle model.joblib: only from an author you trust."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], port: int | None = None) -> Settings:
        """Return the settings of an environment.

        Raises:
            BadSetting: a variable has a value it doesn't take.
        """
        batch = read_flag(environ, "SAGEMAKER_BATCH")
        default_mb = 100 if batch else 25
        timeout_s = read_integer(environ, "SAGEMAKER_MODEL_SERVER_TIMEOUT", 3_600 if batch else 60, (1, 86_400))
        return cls(
            paths=Paths.from_environ(environ),
            port=_port(environ) if port is None else read_integer({"--port": str(port)}, "--port", port, (1, 65_535)),
            workers=read_integer(environ, "SAGEMAKER_MODEL_SERVER_WORKERS", _default_workers(), (1, 1_024)),
            timeout_s=timeout_s,
            body_timeout_s=0.9 * timeout_s,
            slot_wait_s=float(read_integer(environ, "BERTH_QUEUE_TIMEOUT", 10, (0, 86_400))),
            max_payload_bytes=(read_integer(environ, "SAGEMAKER_MAX_PAYLOAD_IN_MB", default_mb, (0, 1_024)) or default_mb)
            * MIB,
            default_accept=_default_accept(environ),
            log_level=read_integer(environ, "SAGEMAKER_CONTAINER_LOG_LEVEL", 20, (0, 50)),
            image_version=environ.get("BERTH_VERSION", ""),
            image_revision=environ.get("BERTH_REVISION", ""),
            predictor=read_choice(environ, "PREDICTOR", ("onnx", "sklearn")),
        )


def _port(environ: Mapping[str, str]) -> int:
    name = next((name for name in PORT_VARIABLES if environ.get(name, "").strip()), "PORT")
    return read_integer(environ, name, 8080, (1, 65_535))


def _default_workers() -> int:
    return max(1, min(cpus(), (memory_bytes() - BASE_BYTES) // WORKER_BYTES))


def _default_accept(environ: Mapping[str, str]) -> str:
    from serving.encoders import ENCODERS

    name = "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"
    value = environ.get(name, "").strip().lower()
    if value and value not in ENCODERS:
        raise BadSetting(f"{name} is {value!r}; it takes one of: {', '.join(ENCODERS)}.", setting=name)
    return value
