"""What a registry holds, read by the API that all have: whoever pushed it, and with whichever engine.

Source: the distribution specification of OCI and Docker, `GET /v2/NAME/manifests/REFERENCE` and `GET /v2/NAME/blobs/DIGEST`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import Any
from urllib.request import Request

from deploy.errors import AGAIN, Refused, Unknown

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
"""Of one platform: the only one that SageMaker takes (T-7)."""
MANIFESTS = {
    DOCKER_MANIFEST: "Docker's manifest of one platform",
    "application/vnd.docker.distribution.manifest.list.v2+json": "Docker's list of several platforms",
    "application/vnd.oci.image.manifest.v1+json": "an OCI manifest",
    "application/vnd.oci.image.index.v1+json": "an OCI index",
}
"""What a tag can name, in words. A registry gives what it holds where all are accepted."""
TIMEOUT_S = 30
HUB = "docker.io"
HUB_API = "registry-1.docker.io"
Credentials = tuple[str, str]
"""User and secret."""


@dataclass(frozen=True)
class Held:
    """What a tag or digest names in a registry."""

    digest: str
    media_type: str
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What came over HTTP."""

    status: int
    headers: Message
    body: bytes


def is_local(host: str) -> bool:
    """Say whether a registry is on this machine: Docker speaks plain HTTP to such a one."""
    return re.fullmatch(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?", host) is not None


class Registry:
    """A registry, read with some credentials or with none."""

    def __init__(self, host: str, credentials: Callable[[], Credentials | None] = lambda: None) -> None:
        """Take its host as in an image's name, and what tells user and secret once they are asked for."""
        self._base = f"{'http' if is_local(host) else 'https'}://{HUB_API if host == HUB else host}/v2"
        self._credentials = credentials
        self._authorization = ""
        through = [urllib.request.ProxyHandler({})] if is_local(host) else []  # a proxy reaches nothing of this machine
        self._open = urllib.request.build_opener(*through).open

    def held(self, repository: str, reference: str) -> Held | None:
        """Return what a tag or digest names; None where there is no such.

        Raises:
            Refused: the registry wants other credentials, or answers what is no manifest.
            Unknown: it does not answer.
        """
        found = self._get(f"{repository}/manifests/{reference}", ", ".join(MANIFESTS))
        if found is None:
            return None
        digest = f"sha256:{hashlib.sha256(found.body).hexdigest()}"
        if reference.startswith("sha256:") and digest != reference:
            raise Refused(f"The registry answers {digest} where {reference} was asked for: what it holds is damaged.")
        media_type = found.headers.get("Content-Type", "").partition(";")[0]
        return Held(digest, media_type, _document(found.body, f"{repository}:{reference}"))

    def configuration(self, repository: str, held: Held) -> Mapping[str, Any]:
        """Return the configuration of an image of one platform: its labels, and the digests of its layers; {} of an index."""
        digest = held.manifest.get("config", {}).get("digest")
        found = self._get(f"{repository}/blobs/{digest}", "*/*") if digest else None
        return _document(found.body, f"{repository}@{digest}") if found else {}

    def _get(self, path: str, accept: str) -> Answer | None:
        """Return an answer of 200; None where there is none; logs in where it is asked to."""
        answer = self._fetch(self._request(path, accept))
        challenge = answer.headers.get("WWW-Authenticate", "")
        if answer.status == 401 and challenge:
            self._authorization = self._answer_to(challenge)
            answer = self._fetch(self._request(path, accept))
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise _refusal(answer.status, f"{self._base}/{path}")
        return answer

    def _request(self, path: str, accept: str) -> Request:
        request = Request(f"{self._base}/{path}", headers={"Accept": accept})  # noqa: S310  # its scheme is ours
        if self._authorization:
            # Not sent on where a blob lies elsewhere: S3 refuses what has two kinds of authorization.
            request.add_unredirected_header("Authorization", self._authorization)
        return request

    def _fetch(self, request: Request) -> Answer:
        """Return the answer, whatever its status; raises Unknown where there is none."""
        try:
            with self._open(request, timeout=TIMEOUT_S) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, b"")
        except (OSError, HTTPException) as error:
            raise Unknown(f"{request.host} does not answer: {error}. {AGAIN}") from None

    def _answer_to(self, challenge: str) -> str:
        """Return the header that a challenge asks for: the credentials, or a token that is given for them."""
        known = self._credentials()
        basic = "Basic " + base64.b64encode(":".join(known).encode()).decode() if known else ""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() != "bearer":
            return basic
        asked = urllib.request.parse_keqv_list(urllib.request.parse_http_list(rest))
        query = urllib.parse.urlencode([(name, text) for name, text in asked.items() if name in {"service", "scope"}])
        realm = asked.get("realm", "")
        if not (realm.startswith("https://") or is_local(urllib.parse.urlsplit(realm).netloc)):
            raise Refused(f"The registry wants a token from {realm!r}; credentials are sent by https alone.")
        request = Request(f"{realm}?{query}", headers={"Authorization": basic} if basic else {})  # noqa: S310
        answer = self._fetch(request)
        if answer.status != 200:
            raise _refusal(answer.status, realm)
        told = _document(answer.body, realm)
        return f"Bearer {told.get('token') or told.get('access_token', '')}"


def _refusal(status: int, address: str) -> Refused:
    if status in {401, 403}:
        return Refused(f"{address} answered {status}: log in as one who may read it, with docker login or podman login.")
    if status >= 500 or status == 429:
        return Unknown(f"{address} answered {status}. {AGAIN}")
    return Refused(f"{address} answered {status}. Is a registry there?")


def _document(body: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refused(f"{what}: the registry's answer is no JSON object. Is it a registry?")
    return found
