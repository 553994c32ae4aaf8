"""SageMaker's runtime: a call to an endpoint goes to the container that was named for it, and what it answers comes back."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse

from botocore.exceptions import ClientError
from werkzeug import Response

from local_test.cloud import container, inside, stream
from local_test.cloud.container import Said
from local_test.cloud.wire import Asked, Refused
from local_test.cloud.world import ACCOUNT, Record, World

PREFIX = "X-Amzn-SageMaker-"
PASSED = (
    "Content-Type",
    "Accept",
    *(
        f"{PREFIX}{name}"
        for name in (
            "Custom-Attributes",
            "Target-Model",
            "Target-Variant",
            "Target-Container-Hostname",
            "Inference-Id",
            "Enable-Explanations",
            "Inference-Component",
            "Session-Id",
            "Prefix-Aware-Id",
        )
    ),
)
"""All that the container gets of a caller's headers (H-13)."""
RETURNED = ("Content-Type", f"{PREFIX}Custom-Attributes", f"{PREFIX}New-Session-Id", f"{PREFIX}Closed-Session-Id")
TOLD = 2_048
"""How much of a container's error the caller sees (H-15)."""
REAL_TIME_S, STREAM_S, ASYNC_S = 60.0, 480.0, 900.0


def invoke(world: World, asked: Asked) -> Response:
    """Answer InvokeEndpoint."""
    record = _endpoint(world, asked)
    if record.facts.get("AsyncInferenceConfig"):
        raise Refused("ValidationError", f"Endpoint {record.name} is asynchronous: use InvokeEndpointAsync.")
    said = container.send(_url(world, record), _body(asked), _passed(asked), REAL_TIME_S)
    if not 200 <= said.status < 300:
        raise _model_error(record, said)
    variant = asked.request.get("TargetVariant") or record.facts["ProductionVariants"][0]["VariantName"]
    headers = {name: said.headers[name.lower()] for name in RETURNED if name.lower() in said.headers}
    return Response(said.body, 200, {**headers, "x-Amzn-Invoked-Production-Variant": variant})


def invoke_later(world: World, asked: Asked) -> Response:
    """Answer InvokeEndpointAsync: the input is read, and the output written, after the caller has its answer (H-32)."""
    record, headers = _endpoint(world, asked), _headers(asked)
    config = record.facts.get("AsyncInferenceConfig")
    if not config:
        raise Refused("ValidationError", f"Endpoint {record.name} is not asynchronous: use InvokeEndpoint.")
    source, body = headers.get(f"{PREFIX}InputLocation".lower(), ""), _body(asked)
    if bool(source) == bool(body):
        raise Refused("ValidationError", "Exactly one of InputLocation and Body must be given.")
    identity, name = headers.get(f"{PREFIX}Inference-Id".lower()) or str(uuid.uuid4()), str(uuid.uuid4())
    places = config["OutputConfig"]
    output = f"{places.get('S3OutputPath', '').rstrip('/')}/{name}.out"
    failure = f"{places.get('S3FailurePath', places.get('S3OutputPath', '')).rstrip('/')}/{name}-error.out"
    job = _Later(world, asked.region, source, body, output, failure)
    threading.Thread(target=job.run, args=(_url(world, record), _passed_later(asked)), daemon=True).start()
    told = {f"{PREFIX}OutputLocation": output, f"{PREFIX}FailureLocation": failure}
    return Response(json.dumps({"InferenceId": identity}), 202, told, content_type="application/json")


def invoke_streaming(world: World, asked: Asked) -> Response:
    """Answer InvokeEndpointWithResponseStream: what the container sends goes on as it comes (H-21)."""
    record = _endpoint(world, asked)
    try:
        connection, answered = container.begin(_url(world, record), _body(asked), _passed_streaming(asked), STREAM_S)
    except (OSError, HTTPException) as error:
        raise _model_error(record, Said(0, {}, f"{type(error).__name__} {error}".encode())) from error
    if answered.status != 200:
        raise _model_error(record, Said(answered.status, {}, answered.read()))
    told = {f"{PREFIX}Content-Type": answered.headers.get("Content-Type", "")}
    return Response(stream.parts(_chunks(connection, answered)), 200, told, content_type=stream.KIND)


def _chunks(connection: HTTPConnection, answered: HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := answered.read1(65_536):
            yield chunk
    finally:
        connection.close()


@dataclass(frozen=True)
class _Later:
    """One asynchronous call."""

    world: World
    region: str
    source: str
    body: bytes
    output: str
    failure: str

    def run(self, url: str, headers: dict[str, str]) -> None:
        """Read, ask, write the answer or why there is none."""
        try:
            body = self.body or inside.get(self.world, self.region, self.source)
        except ClientError as error:
            self._put(self.failure, f"The input can't be read: {error}".encode())
            return
        said = container.send(url, body, headers, ASYNC_S)
        if said.status == 200:
            self._put(self.output, said.body)
        else:
            self._put(self.failure, f"The model answered {said.status}: ".encode() + said.body[:TOLD])

    def _put(self, uri: str, body: bytes) -> None:
        with suppress(ClientError):  # where it can't be written nobody is told, the caller least
            inside.put(self.world, self.region, uri, body)


def _endpoint(world: World, asked: Asked) -> Record:
    """Return an endpoint that can answer.

    Raises:
        Refused: there is none of this name, or it is not in service.
    """
    name = asked.request["EndpointName"]
    record = world.find(asked.region, "Endpoint", name)
    if record is None or record.status not in {"InService", "Updating", "RollingBack"}:
        raise Refused("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.")
    return record


def _url(world: World, record: Record) -> str:
    url = world.served.get(record.name) or world.served.get("*")
    if not url:
        raise Refused(
            "ServiceUnavailable", f'Nothing answers for {record.name} here: name it with serve("{record.name}", URL).', 503
        )
    return url


def _body(asked: Asked) -> bytes:
    return asked.http.get_data() if asked.http else b""


def _passed(asked: Asked) -> dict[str, str]:
    headers = _headers(asked)
    return {name: headers[name.lower()] for name in PASSED if name.lower() in headers}


def _passed_streaming(asked: Asked) -> dict[str, str]:
    """Return what the container gets of a streaming call, which asks for a media type in a header of its own."""
    accept = _headers(asked).get(f"{PREFIX}Accept".lower())
    return {**_passed(asked), **({"Accept": accept} if accept else {})}


def _passed_later(asked: Asked) -> dict[str, str]:
    """Return what the container gets of an asynchronous call, whose own headers tell of the body in S3."""
    headers, named = _headers(asked), ("Content-Type", "Accept")
    told = {name: headers[f"{PREFIX}{name}".lower()] for name in named if f"{PREFIX}{name}".lower() in headers}
    return {**{name: value for name, value in _passed(asked).items() if name not in named}, **told}


def _headers(asked: Asked) -> dict[str, str]:
    """Return a request's headers, their names in small letters."""
    return {name.lower(): value for name, value in asked.http.headers.items()} if asked.http else {}


def _model_error(record: Record, said: Said) -> Refused:
    """Return the error of H-15; a container that does not answer in time is a 500 of its own."""
    status = said.status or 500
    text = said.body[:TOLD].decode(errors="replace")
    message = f'Received {"client" if status < 500 else "server"} error ({status}) from primary with message "{text}".'
    log = f"arn:aws:logs:{record.region}:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/{record.name}"
    return Refused("ModelError", message, 424, OriginalStatusCode=status, OriginalMessage=text, LogStreamArn=log)
