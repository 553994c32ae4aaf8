"""The same image elsewhere: V-1, V-2, V-4, Z-1, Z-2, C-1. What an image does not claim is not judged, unless it is asked."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from local_test.emulator import PING_S, Endpoint, Reply, stop
from local_test.rules.ending import ignores_sigterm
from local_test.rules.records import instances
from local_test.rules.wire import describe, send
from local_test.runners import Containers
from local_test.subject import Payload, Subject
from local_test.verdicts import Blocked, DoesNotApply, Rule, Severity, Unjudged, Violated

Made = TypeVar("Made")
SAGEMAKER_PORT = 8080
VERTEX_PORT, HEALTH, PREDICT = 8093, "/vertex/health", "/vertex/predict"
VERTEX = {
    "AIP_HTTP_PORT": str(VERTEX_PORT),
    "AIP_HEALTH_ROUTE": HEALTH,
    "AIP_PREDICT_ROUTE": PREDICT,
    "AIP_MODE": "PREDICTION",
    "AIP_FRAMEWORK": "CUSTOM_CONTAINER",
    "AIP_ENDPOINT_ID": "1234567890123456789",
    "AIP_DEPLOYED_MODEL_ID": "2345678901234567890",
    "AIP_PROJECT_NUMBER": "123456789012",
}
AZURE_ROOT = "/var/azureml-app/azureml-models/subject/1"
PROBED = ("/ping", "/", "/health", "/healthz", "/v2/health/ready")
SCORED = ("/score", "/invocations", "/predict")
"""Where a probe and a payload may go on Azure: any path will do there, and the owner's is not known here."""
CLOUD_RUN_PORT, CLOUD_RUN_STOP_S = 8094, 10
CLOUD_RUN = {"PORT": str(CLOUD_RUN_PORT), "K_SERVICE": "subject", "K_REVISION": "subject-00001", "K_CONFIGURATION": "subject"}


@dataclass(frozen=True)
class OnVertex:
    """What a bare start with Vertex AI's variables answered."""

    seconds_to_ready: float
    predicted: Reply | None
    """None where the payload has no instances."""


@dataclass(frozen=True)
class OnAzure:
    """What a bare start with the model below AZUREML_MODEL_DIR answered."""

    probed: str
    """The path that answered 200."""
    scored: str
    """The path that took the payload, empty where there is none."""
    predicted: Reply | None


def vertex_bare_start(subject: Subject) -> str:
    """Judge whether a start without a word serves on Vertex AI's port, and answers on its health route."""
    seconds = _on_vertex(subject).seconds_to_ready
    return f"started without a word, GET {HEALTH} on port {VERTEX_PORT} answered 200 after {seconds:.2f} s"


def vertex_predicts_each_instance(subject: Subject) -> str:
    """Judge whether `instances` are answered with as many `predictions`."""
    reply = _on_vertex(subject).predicted
    if reply is None or subject.payload is None:
        raise Unjudged('the payload has no instances: give one in JSON, such as {"instances": [[1, 2]]}')
    return f"POST {PREDICT}: {predictions_of(reply, subject.payload)}"


def azure_probe_is_answered(subject: Subject) -> str:
    """Judge whether a start without a word, with the model below AZUREML_MODEL_DIR, answers a probe."""
    return f"started without a word, GET {_on_azure(subject).probed} answered 200"


def azure_model_is_found(subject: Subject) -> str:
    """Judge whether the model is found where Azure mounts it: the payload is predicted."""
    found = _on_azure(subject)
    if found.predicted is None:
        raise Unjudged("no payload was given: --payload FILE --content-type TYPE")
    if found.predicted.status != 200:
        paths = " or ".join(SCORED)
        told = f"with the model in {AZURE_ROOT}/model the payload to {paths} was answered with {describe(found.predicted)}"
        _unless_asked(subject, "azure", told)
    return f"with the model in {AZURE_ROOT}/model, POST {found.scored} answered 200"


def cloud_run_port_and_stop(subject: Subject) -> str:
    """Judge whether a start without a word listens on PORT, and SIGTERM ends it in Cloud Run's time."""
    seconds, stopped_s = _face(subject, "cloudrun", lambda: _on_cloud_run(subject))
    if stopped_s >= CLOUD_RUN_STOP_S and ignores_sigterm(subject):
        raise Blocked("H-6")
    if stopped_s >= CLOUD_RUN_STOP_S:
        raise Violated(f"it had not ended {CLOUD_RUN_STOP_S} s after SIGTERM, when Cloud Run sends SIGKILL")
    return f"it listened on PORT={CLOUD_RUN_PORT} after {seconds:.2f} s, and ended {stopped_s:.2f} s after SIGTERM"


def predictions_of(reply: Reply, payload: Payload) -> str:
    """Return how many predictions came for the payload's instances.

    Raises:
        Violated: not as many, or another document.
        Unjudged: instances were made from rows of CSV, which the container may take in another shape, and refuses.
    """
    sent, are_own = instances(payload)
    if reply.status != 200:
        if not are_own and reply.status < 500:
            raise Unjudged(f"rows of the payload as instances: {describe(reply)}; give the payload as JSON with instances")
        raise Violated(f"{len(sent)} instances were answered with {describe(reply)}")
    try:
        document: Any = json.loads(reply.body)
    except ValueError:
        raise Violated(f"instances were answered with no JSON: {describe(reply)}") from None
    found = document.get("predictions") if isinstance(document, dict) else None
    if not isinstance(found, list) or len(found) != len(sent):
        many = f"{len(found)} predictions" if isinstance(found, list) else "no list of predictions"
        raise Violated(f"{len(sent)} instances were answered with {many}: {describe(reply)}")
    return f"{len(sent)} instances, {len(found)} predictions"


def instances_body(payload: Payload | None) -> bytes | None:
    """Return the payload as a document with instances; None where it has none."""
    found, are_own = instances(payload) if payload else ([], False)
    if not found or payload is None:
        return None
    return payload.body if are_own else json.dumps({"instances": found}).encode()


def patience_s(subject: Subject, platform: str) -> float:
    """Return how long a start may take: what `serve` took, several times, unless the platform is asked for.

    Raises:
        DoesNotApply: `serve` does not get ready, and this platform was not asked for.
    """
    if platform in subject.asked:
        return subject.start_s
    try:
        return min(subject.start_s, 5 + 3 * subject.endpoint.seconds_to_ready)
    except (Violated, OSError) as error:
        raise DoesNotApply(f"serve does not become ready, and --platform {platform} was not asked for: {error}") from error


def _on_vertex(subject: Subject) -> OnVertex:
    def make() -> OnVertex:
        def is_healthy(endpoint: Endpoint) -> bool:
            return _is_there(subject, endpoint, HEALTH, {200})

        patience = patience_s(subject, "vertex")
        with subject.serving(VERTEX, words=(), port=VERTEX_PORT, ready=is_healthy, patience_s=patience) as endpoint:
            body = instances_body(subject.payload)
            predicted = endpoint.invoke(body, "application/json", path=PREDICT) if body else None
            return OnVertex(endpoint.seconds_to_ready, predicted)

    return _face(subject, "vertex", make)


def _on_azure(subject: Subject) -> OnAzure:
    def make() -> OnAzure:
        probed = dict[str, int]()

        def is_ready(endpoint: Endpoint) -> bool:  # the first path that is there tells: a page at / may come before the model
            probed.update({path: endpoint.get(path).status for path in PROBED})
            return next((status for status in probed.values() if status not in {404, 405}), 0) == 200

        with subject.serving(
            {"AZUREML_MODEL_DIR": AZURE_ROOT},
            words=(),
            ready=is_ready,
            with_model=False,
            mounts=(f"{subject.model}:{AZURE_ROOT}/model:ro",),
            patience_s=patience_s(subject, "azure"),
        ) as endpoint:
            path = next(path for path, status in probed.items() if status == 200)
            return OnAzure(path, *_scored(endpoint, subject.payload))

    return _face(subject, "azure", make)


def _scored(endpoint: Endpoint, payload: Payload | None) -> tuple[str, Reply | None]:
    """Return which path took the payload, and what it answered; what one that is there said, where none did."""
    if payload is None:
        return "", None
    replies = {}
    for path in SCORED:
        replies[path] = endpoint.invoke(payload.body, payload.content_type, path=path)
        if replies[path].status == 200:
            return path, replies[path]
    there = next((path for path, reply in replies.items() if reply.status not in {404, 405}), SCORED[0])
    return there, replies[there]


def _on_cloud_run(subject: Subject) -> tuple[float, float]:
    """Return the seconds until something answered on PORT, and from SIGTERM to the end."""

    def listens(endpoint: Endpoint) -> bool:
        return _is_there(subject, endpoint, "/", set(range(100, 600)))

    patience = patience_s(subject, "cloudrun")
    with subject.serving(CLOUD_RUN, words=(), port=CLOUD_RUN_PORT, ready=listens, patience_s=patience) as endpoint:
        asked = time.monotonic()
        stop(endpoint.program, CLOUD_RUN_STOP_S)
        return endpoint.seconds_to_ready, time.monotonic() - asked


def _is_there(subject: Subject, endpoint: Endpoint, path: str, wanted: Collection[int]) -> bool:
    """Say whether a path is answered as wanted; raises Violated where the server is ready as on SageMaker, and it is not."""
    is_ready = _is_ready_for_sagemaker(subject, endpoint)  # asked first: it may become ready between the two
    try:
        status = endpoint.get(path).status
    except OSError as error:
        if not is_ready:
            raise
        raise Violated(f"/ping answers 200 on port {SAGEMAKER_PORT}, and {path} does not: {error}") from error
    if is_ready and status not in wanted:
        raise Violated(f"/ping answers 200, and {path} {status}")
    return status in wanted


def _is_ready_for_sagemaker(subject: Subject, endpoint: Endpoint) -> bool:
    """Say whether /ping is answered, on this port or on SageMaker's."""
    here = urlsplit(endpoint.program.url)
    for port in (here.port, SAGEMAKER_PORT) if isinstance(subject.platform, Containers) else (here.port,):
        with contextlib.suppress(OSError):
            if send(f"http://{here.hostname}:{port}", None, {}, method="GET", path="/ping", patience_s=PING_S).status == 200:
                return True
    return False


def _face(subject: Subject, platform: str, make: Callable[[], Made]) -> Made:
    """Return what a start as on a platform gave; where it failed and nobody asked for the platform, it does not apply."""
    try:
        return subject.once(platform, make)
    except (Violated, OSError) as error:
        _unless_asked(subject, platform, str(error))


def _unless_asked(subject: Subject, platform: str, told: str) -> NoReturn:
    if platform in subject.asked:
        raise Violated(told)
    ended = re.match(r"it (ended with exit code \d+|was not ready within [\d.]+ s)", told)
    gist = f"{ended[0]}: {told.splitlines()[-1].strip()}" if ended else told  # of a log, the last line tells most
    raise DoesNotApply(f"it does not claim to (--platform {platform} judges it all the same): {gist}")


RULES = (
    Rule(
        "V-1",
        "Vertex AI: a start without a word serves on AIP_HTTP_PORT and answers AIP_HEALTH_ROUTE",
        Severity.ELSEWHERE,
        "Have CMD serve where AIP_HTTP_PORT is set, on that port, and route AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE.",
        vertex_bare_start,
        platform="vertex",
    ),
    Rule(
        "V-4",
        "Vertex AI: instances are answered with as many predictions",
        Severity.ELSEWHERE,
        'Answer {"instances": [..]} with {"predictions": [..]}, one an instance, in order.',
        vertex_predicts_each_instance,
        ("vertex_bare_start",),
        platform="vertex",
    ),
    Rule(
        "Z-1",
        "Azure ML: a start without a word answers a probe",
        Severity.ELSEWHERE,
        "Have CMD serve, on port 8080, with a route for probes.",
        azure_probe_is_answered,
        platform="azure",
    ),
    Rule(
        "Z-2",
        "Azure ML: the model is found below AZUREML_MODEL_DIR",
        Severity.ELSEWHERE,
        "Look for the model in AZUREML_MODEL_DIR, and in the folders below it: Azure adds one.",
        azure_model_is_found,
        ("azure_probe_is_answered",),
        platform="azure",
    ),
    Rule(
        "C-1",
        "Cloud Run: a start without a word listens on PORT, and ends within 10 s of SIGTERM",
        Severity.ELSEWHERE,
        "Have CMD serve on PORT where it is set, and end on SIGTERM before Cloud Run kills.",
        cloud_run_port_and_stop,
        ("entrypoint_takes_the_word",),
        platform="cloudrun",
    ),
)
