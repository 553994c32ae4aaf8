"""What an HTTP request asks of AWS, and how an answer or an error looks in the protocol it was asked in."""

from __future__ import annotations

import io
import json
import re
import struct
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from botocore.parsers import RpcV2CBORParser
from werkzeug import Request, Response

from local_test.cloud import forms, shapes

SIGNED = {
    "monitoring": "cloudwatch",
    "tagging": "resourcegroupstaggingapi",
    "servicequotas": "service-quotas",
    "elasticloadbalancing": "elbv2",
}
"""The name that signs a service's requests, where it isn't the client's name."""
PATHS = {"sagemaker": "sagemaker-runtime", "s3": "s3"}
"""Services of REST, by the name that signs: the operation stands in method and path."""
INSIDE = "berth-inside"
"""In the user agent of the stand-in's own calls: they are neither counted nor failed."""


class Refused(Exception):
    """An error that AWS answers with: code, message, and the status of HTTP."""

    def __init__(self, code: str, message: str, status: int = 400, **facts: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.facts = code, message, status, facts


@dataclass(frozen=True)
class Asked:
    """One request to AWS."""

    service: str
    """As boto3.client takes it."""
    operation: str
    request: dict[str, Any]
    """The parsed body where it is JSON, CBOR or a form; else what stands in path and query."""
    region: str
    protocol: str
    """json, cbor, query, rest-json or rest-xml."""
    inside: bool = False
    http: Request | None = field(default=None, repr=False)


def read(request: Request) -> Asked:
    """Tell service, operation and parameters of a request."""
    signed, region = _scope(request.headers.get("Authorization", ""), request.args.get("X-Amz-Credential", ""))
    protocol, name, parameters = _asked(request, signed)
    where = "sagemaker-runtime" if (signed, protocol) == ("sagemaker", "rest-json") else SIGNED.get(signed, signed)
    return Asked(where, name, parameters, region, protocol, INSIDE in request.headers.get("User-Agent", ""), request)


def answer(asked: Asked, given: Mapping[str, Any]) -> Response:
    """Return a successful answer, in the protocol that was asked in."""
    if asked.protocol == "query":
        shape = shapes.operation(asked.service, asked.operation).output_shape
        return Response(forms.answered(asked.operation, given, shape), 200, content_type="text/xml")
    if asked.protocol == "cbor":
        return _cbor(given, 200)
    return Response(json.dumps(given, default=_plain), 200, content_type="application/x-amz-json-1.1")


def error(asked: Asked, refused: Refused) -> Response:
    """Return an error, as botocore reads it in this protocol."""
    code, message = refused.code, refused.message
    if asked.protocol == "cbor":
        return _cbor({"__type": code, "message": message, **refused.facts}, refused.status)
    if asked.protocol in {"query", "rest-xml"}:
        inner = f"<Error><Type>Sender</Type><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
        whole = inner if asked.protocol == "rest-xml" else f"<ErrorResponse>{inner}<RequestId>0</RequestId></ErrorResponse>"
        return Response(whole, refused.status, content_type="text/xml")
    said = json.dumps({"__type": code, "message": message, **refused.facts}, default=_plain)
    return Response(said, refused.status, {"x-amzn-ErrorType": code}, content_type="application/x-amz-json-1.1")


def _scope(authorization: str, credential: str) -> tuple[str, str]:
    """Return the name that signs and the Region, out of a signature of version 4."""
    found = re.search(r"[^/]+/\d{8}/([^/]+)/([^/]+)/aws4_request", authorization or unquote(credential))
    return (found[2].lower(), found[1]) if found else ("", "us-east-1")


def _asked(request: Request, signed: str) -> tuple[str, str, dict[str, Any]]:
    """Return protocol, operation and parameters."""
    target, body = request.headers.get("X-Amz-Target", ""), request.get_data()
    if request.headers.get("Smithy-Protocol") == "rpc-v2-cbor":
        return "cbor", request.path.rpartition("/")[2], _from_cbor(body) if body else {}
    if target:
        return "json", target.rpartition(".")[2], _object(body)
    if signed not in PATHS and request.mimetype == "application/x-www-form-urlencoded":
        form = {key: values[-1] for key, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        return "query", form.pop("Action", ""), form
    protocol = "rest-xml" if signed == "s3" or not signed else "rest-json"
    name, parameters = _routed(request, PATHS.get(signed, "s3" if not signed else ""))
    return protocol, name, parameters


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _routed(request: Request, service: str) -> tuple[str, dict[str, Any]]:
    """Return the operation of REST whose path, query and headers say the most of a request, and what stands in them."""
    best: tuple[int, str, dict[str, Any]] = (-1, f"{request.method} {request.path}", {})
    for method, path, name, wanted in _routes(service) if service else ():
        found = path.fullmatch(request.path) if method == request.method else None
        if found and all(_has(request, *each) for each in wanted) and len(wanted) > best[0]:
            best = (len(wanted), name, {key: value for key, value in found.groupdict().items() if value})
    return best[1], {**best[2], **request.args.to_dict()}


def _has(request: Request, place: str, name: str) -> bool:
    return name in (request.args if place == "querystring" else request.headers)


@cache
def _routes(name: str) -> list[tuple[str, re.Pattern[str], str, tuple[tuple[str, str], ...]]]:
    """Return method, pattern of the path, operation, and what must stand in query and headers, of a service of REST."""
    service = shapes.service(name)
    routes = []
    for each in service.operation_names:
        http = service.operation_model(each).http
        path, _, query = http["requestUri"].partition("?")
        literal = [("querystring", part.partition("=")[0]) for part in query.split("&") if part]
        wanted = (*literal, *_required(service.operation_model(each).input_shape))
        routes.append((http["method"], re.compile(_template(path)), each, wanted))
    return routes


def _required(shape: Any) -> Iterator[tuple[str, str]]:
    for name in shape.required_members if shape else ():
        place = shape.members[name].serialization
        if place.get("location") in {"querystring", "header"}:
            yield place["location"], place["name"]


def _template(path: str) -> str:
    whole = re.sub(r"/\{(\w+)\+\}", r"/(?P<\1>.+)", path)
    return re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", whole) + "/?"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, bytes):
        return b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _from_cbor(body: bytes) -> dict[str, Any]:
    return RpcV2CBORParser().parse_data_item(io.BufferedReader(io.BytesIO(body)))


def _cbor(given: Mapping[str, Any], status: int) -> Response:
    return Response(to_cbor(given), status, {"smithy-protocol": "rpc-v2-cbor"}, content_type="application/cbor")


def to_cbor(value: Any) -> bytes:
    """Return the CBOR (RFC 8949) of what answers are made of: botocore reads it and writes only requests."""
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[value]
    if isinstance(value, datetime):
        return b"\xc1" + to_cbor(value.timestamp())
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        return _head(3, len(value.encode())) + value.encode()
    if isinstance(value, Mapping):
        return _head(5, len(value)) + b"".join(to_cbor(key) + to_cbor(item) for key, item in value.items())
    return _head(4, len(value)) + b"".join(map(to_cbor, value))


def _head(major: int, number: int) -> bytes:
    """Return the first bytes of an item: its type, and its number or length in eight bytes."""
    return bytes([major << 5 | 27]) + struct.pack(">Q", number)
