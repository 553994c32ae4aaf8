"""What `serve` takes from the environment (contract 2.10) and its flags, read once."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contract.cgroup import cpus, memory_bytes
from contract.errors import BadSetting
from contract.paths import Paths
from contract.settings import read_choice, read_flag, read_integer

MIB = 2**20
BASE_BYTES = 128 * MIB
"""Kept for the first process and the model before workers are counted."""
WORKER_BYTES = 128 * MIB
"""Kept for each further worker: its own pages and the bodies it may hold."""
VERTEX_ROUTE = "/v1/endpoints/{endpoint}/deployedModels/{model}:predict"  # V-1
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
    keepalive_s: int
    """BERTH_KEEPALIVE: seconds an idle connection is kept, and a new one has for its first headers; 75, which is longer
    than the 60 of the usual load balancers, so that it is never us who close under a request."""
    slot_wait_s: float
    """BERTH_QUEUE_TIMEOUT: seconds a large body waits for an inference slot, else 503; 10."""
    max_payload_bytes: int
    """SAGEMAKER_MAX_PAYLOAD_IN_MB: a larger body is 413; 25 MiB (H-12), in batch 100."""
    bodies_bytes: int
    """BERTH_BODIES_MB: what all bodies that a worker reads or computes may hold, else 503; a quarter of the container's
    memory shared by the workers, and at least two of the largest bodies."""
    batch: bool
    """SAGEMAKER_BATCH: whether this is a batch transform job, and bodies are parts of files."""
    concurrent_transforms: int
    """SAGEMAKER_MAX_CONCURRENT_TRANSFORMS: how many requests at once the job was told to send (H-25); as many as workers."""
    bad_rows: str
    """BAD_ROWS: `fail`, or `null` to answer a placeholder for a row that can't be used and carry on with the rest."""
    intervals: bool
    """BERTH_INTERVALS: whether predictions come with their intervals when a request doesn't say; false."""
    metering_dimension: str
    """BERTH_METERING_DIMENSION: send X-Amzn-Inference-Metering (H-41) with this dimension, such as inference.count."""
    default_accept: str
    """SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT: the answer's format when a request names none (H-18)."""
    log_level: int
    """SAGEMAKER_CONTAINER_LOG_LEVEL: as Python's logging counts, 10 debug to 50 critical; 20."""
    image_version: str
    """BERTH_VERSION: set by the image; shown by `/metadata`."""
    image_revision: str
    """BERTH_REVISION: the commit the image was built from."""
    access_log: bool
    """BERTH_ACCESS_LOG: write a line of JSON on standard output for each request but probes and `/metrics`; false."""
    predictor: str
    """PREDICTOR: `onnx`, `sklearn` to unpickle model.joblib: only from an author you trust, or `tflite` for the int8 model
    that `export` left in edge/, in the image's edge target."""
    delegate: str
    """TFLITE_DELEGATE: `none`, or with PREDICTOR=tflite the library that runs the model on an accelerator, such as
    libedgetpu.so.1; `auto` tries the Edge TPU's and goes on without it. One worker then: one process holds a device."""
    multi_model: bool
    """SAGEMAKER_MULTI_MODEL: whether models are loaded by HTTP (H-23), by one worker; none is loaded at the start."""
    models_max_bytes: int
    """BERTH_MODELS_MAX_MB: what loaded models may take, else 507 (H-24); three quarters of what the server leaves of memory."""
    model_name: str
    """`--model_name` (K-2), else BERTH_MODEL_NAME: what the paths of KServe and V2 call the model; else its own name."""
    model_folder: Path | None
    """`--model_dir` (K-2), else AZUREML_MODEL_DIR (Z-2): where the model is, or a folder above it; else /opt/ml/model."""
    health_route: str
    """AIP_HEALTH_ROUTE: where Vertex AI asks for health; empty where no AIP_* is set."""
    predict_route: str
    """AIP_PREDICT_ROUTE: where Vertex AI sends predictions; empty elsewhere."""
    storage_uri: str
    """AIP_STORAGE_URI: where Vertex AI keeps the model; read when there is none in /opt/ml/model."""
    fetch: tuple[str, ...]
    """BERTH_FETCH: a command that copies a model from AIP_STORAGE_URI; called with the address and the folder to copy to."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], port: int | None = None, **flags: str | None) -> Settings:
        """Return the settings of an environment.

        Args:
            environ: the variables.
            port: of the flag, None without it.
            flags: `model_name` and `model_dir`, where they were given.

        Raises:
            BadSetting: a variable has a value it doesn't take.
        """
        batch = read_flag(environ, "SAGEMAKER_BATCH")
        multi_model = read_flag(environ, "SAGEMAKER_MULTI_MODEL")
        default_s, default_mb = (3_600, 100) if batch else (60, 25)
        timeout_s = read_integer(environ, "SAGEMAKER_MODEL_SERVER_TIMEOUT", default_s, (1, 86_400))
        max_mb = read_integer(environ, "SAGEMAKER_MAX_PAYLOAD_IN_MB", default_mb, (0, 1_024)) or default_mb
        predictor, delegate = _predictor(environ, multi_model)
        workers = _workers(environ, alone=multi_model or delegate != "none")
        bodies_mb = max(2 * max_mb, memory_bytes() // 4 // workers // MIB)
        return cls(
            paths=Paths.from_environ(environ),
            port=_port(environ) if port is None else read_integer({"--port": str(port)}, "--port", port, (1, 65_535)),
            workers=workers,
            timeout_s=timeout_s,
            body_timeout_s=0.9 * timeout_s,
            keepalive_s=read_integer(environ, "BERTH_KEEPALIVE", 75, (1, 3_600)),
            slot_wait_s=float(read_integer(environ, "BERTH_QUEUE_TIMEOUT", 10, (0, 86_400))),
            max_payload_bytes=max_mb * MIB,
            bodies_bytes=read_integer(environ, "BERTH_BODIES_MB", bodies_mb, (1, 2**30)) * MIB,
            batch=batch,
            concurrent_transforms=read_integer(environ, "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", workers, (1, 10_000)),
            bad_rows=read_choice(environ, "BAD_ROWS", ("fail", "null")),
            intervals=read_flag(environ, "BERTH_INTERVALS"),
            metering_dimension=environ.get("BERTH_METERING_DIMENSION", "").strip(),
            default_accept=_default_accept(environ),
            log_level=read_integer(environ, "SAGEMAKER_CONTAINER_LOG_LEVEL", 20, (0, 50)),
            image_version=environ.get("BERTH_VERSION", ""),
            image_revision=environ.get("BERTH_REVISION", ""),
            access_log=read_flag(environ, "BERTH_ACCESS_LOG"),
            predictor=predictor,
            delegate=delegate,
            multi_model=multi_model,
            models_max_bytes=read_integer(environ, "BERTH_MODELS_MAX_MB", _default_models_mb(), (1, 2**30)) * MIB,
            model_name=_model_name(flags.get("model_name") or environ.get("BERTH_MODEL_NAME", "")),
            model_folder=_folder(flags.get("model_dir") or environ.get("AZUREML_MODEL_DIR", "")),
            health_route=_vertex_route(environ, "AIP_HEALTH_ROUTE"),
            predict_route=_vertex_route(environ, "AIP_PREDICT_ROUTE"),
            storage_uri=environ.get("AIP_STORAGE_URI", "").strip(),
            fetch=_command(environ, "BERTH_FETCH"),
        )


def _port(environ: Mapping[str, str]) -> int:
    name = next((name for name in PORT_VARIABLES if environ.get(name, "").strip()), "PORT")
    return read_integer(environ, name, 8080, (1, 65_535))


def _predictor(environ: Mapping[str, str], multi_model: bool) -> tuple[str, str]:
    """Return what serves, and the delegate that it uses."""
    predictor = read_choice(environ, "PREDICTOR", ("onnx", "sklearn", "tflite"))
    delegate = environ.get("TFLITE_DELEGATE", "").strip() or "none"
    if delegate != "none" and (predictor != "tflite" or multi_model):
        raise BadSetting(
            f"TFLITE_DELEGATE is {delegate[:60]!r}; it goes with PREDICTOR=tflite and one model, and PREDICTOR is {predictor}"
            f"{' of several' if multi_model else ''}. Set it to none.",
            setting="TFLITE_DELEGATE",
        )
    return predictor, delegate


def _workers(environ: Mapping[str, str], *, alone: bool) -> int:
    workers = read_integer(environ, "SAGEMAKER_MODEL_SERVER_WORKERS", _default_workers(), (1, 1_024))
    return 1 if alone else workers


def _default_workers() -> int:
    return max(1, min(cpus(), (memory_bytes() - BASE_BYTES) // WORKER_BYTES))


def _default_models_mb() -> int:
    """Return three quarters of what the server leaves: a quarter is for bodies, and for a model while it loads."""
    return max(64, (memory_bytes() - BASE_BYTES) * 3 // 4 // MIB)


def _default_accept(environ: Mapping[str, str]) -> str:
    from serving.encoders import ENCODERS

    name = "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"
    value = environ.get(name, "").strip().lower()
    if value and value not in ENCODERS:
        raise BadSetting(f"{name} is {value!r}; it takes one of: {', '.join(ENCODERS)}.", setting=name)
    return value


def _model_name(name: str) -> str:
    """Return the name, which is a part of a path."""
    if not re.fullmatch(r"[^/\s{}]{0,255}", name.strip()):
        raise BadSetting(
            f"The model's name is {name[:60]!r}; a path's part was expected, without blanks, slashes and braces.",
            setting="BERTH_MODEL_NAME",
        )
    return name.strip()


def _folder(path: str) -> Path | None:
    return Path(path.strip()) if path.strip() else None


def _vertex_route(environ: Mapping[str, str], name: str) -> str:
    """Return a route that Vertex AI sets; it has a default on Vertex AI alone, which any variable of its own betrays."""
    route = environ.get(name, "").strip()
    if not route:
        return VERTEX_ROUTE if any(key.startswith("AIP_") and value for key, value in environ.items()) else ""
    if not route.startswith("/") or "{" in route:
        raise BadSetting(f"{name} is {route[:60]!r}; a path that starts with / and has no braces was expected.", setting=name)
    return route


def _command(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(environ.get(name, "")))
    except ValueError as error:
        raise BadSetting(f"{name} can't be split into words: {error}.", setting=name) from None
