"""Registries that tests push to: what is put there by hand, one that wants a login, one that breaks, one that gives tokens."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from local_test.rehearsal.registry import registry as local_registry

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
USER, SECRET = "someone", "a secret with: signs"
"""The secret has a colon, as tokens may; Basic authorization cuts at the first."""
HASH = "$2y$05$abcdefghijklmnopqrstuuCVNZ2zRtQPuC2e/PSxud2jMnpKJCYBK"


def put_blob(address: str, name: str, body: bytes) -> dict:
    """Put a blob into a registry; return what a manifest says of it."""
    digest = f"sha256:{sha256(body).hexdigest()}"
    place = _ask(address, "POST", f"/v2/{name}/blobs/uploads/")[1]["location"].partition(address)[2]
    assert _ask(address, "PUT", f"{place}&digest={digest}", body)[0] == 201
    return {"digest": digest, "size": len(body)}


def put_manifest(address: str, name: str, tag: str, manifest: dict) -> str:
    """Put a manifest into a registry; return its digest."""
    body = json.dumps(manifest).encode()
    status, headers, answer = _ask(address, "PUT", f"/v2/{name}/manifests/{tag}", body, {"Content-Type": manifest["mediaType"]})
    assert status == 201, answer
    return headers["docker-content-digest"]


def put_oci(address: str, name: str, tag: str) -> str:
    """Put an image as OCI has it into a registry; return its digest."""
    config = put_blob(address, name, b'{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}')
    described = {"mediaType": "application/vnd.oci.image.config.v1+json", **config}
    return put_manifest(address, name, tag, {"schemaVersion": 2, "mediaType": OCI, "config": described, "layers": []})


def put_index(address: str, name: str, tag: str) -> str:
    """Put an OCI index of one platform and an attestation into a registry, as buildx makes it; return its digest."""
    digest = put_oci(address, name, f"{tag}-amd64")
    manifests = [
        {"mediaType": OCI, "digest": digest, "size": 1, "platform": {"os": os, "architecture": architecture}}
        for os, architecture in (("linux", "amd64"), ("unknown", "unknown"))
    ]
    return put_manifest(address, name, tag, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})


def media_type(address: str, name: str, reference: str) -> str:
    """Return the media type of what a registry holds, whichever it is."""
    accepted = {"Accept": ", ".join((DOCKER, OCI, INDEX, LIST))}
    status, headers, _ = _ask(address, "GET", f"/v2/{name}/manifests/{reference}", headers=accepted)
    assert status == 200
    return headers["content-type"]


def media_types(address: str, name: str, digest: str) -> list[str]:
    """Return the media types of an image's manifest, of its configuration and of its layers."""
    manifest = json.loads(_ask(address, "GET", f"/v2/{name}/manifests/{digest}", headers={"Accept": DOCKER})[2])
    return [manifest["mediaType"], manifest["config"]["mediaType"], *(layer["mediaType"] for layer in manifest["layers"])]


def holds(address: str, name: str, reference: str) -> bool:
    """Say whether a registry holds a tag or a digest."""
    return _ask(address, "GET", f"/v2/{name}/manifests/{reference}", headers={"Accept": DOCKER})[0] == 200


def tags(address: str, name: str) -> list[str]:
    """Return a repository's tags."""
    status, _, body = _ask(address, "GET", f"/v2/{name}/tags/list")
    return sorted(json.loads(body)["tags"] or []) if status == 200 else []


@contextmanager
def guarded(program: str, folder: Path) -> Iterator[str]:
    """Run a real registry that only USER may use."""
    (folder / "users").write_text(f"{USER}:{HASH}\n")
    auth = {"htpasswd": {"realm": "test", "path": str(folder / "users")}}
    with local_registry(folder, program, auth=auth) as address:
        yield address


Breaks = Callable[[str, str], str]
"""From method and path: `drop` closes the connection before anything is done, `lose` after, anything else passes."""


class Passing(BaseHTTPRequestHandler):
    """Answers requests of every method by `answer`; passes them on to a registry where that wants it."""

    protocol_version = "HTTP/1.1"

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def passed_on(self, address: str) -> tuple[int, dict, bytes]:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self.chunks()
        headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        return _ask(address, self.command, self.path, body, headers)

    def chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline().strip(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def give(self, status: int, headers: dict, body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        size = headers.get("content-length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", size)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@contextmanager
def unsteady(address: str, breaks: Breaks) -> Iterator[str]:
    """Run a proxy of a registry that breaks some requests; give it as HOST:PORT."""

    class Handler(Passing):
        def answer(self) -> None:
            kind = breaks(self.command, self.path)
            if kind == "drop":
                self.close_connection = True
                return
            status, headers, body = self.passed_on(address)
            if kind == "lose":
                self.close_connection = True
                return
            self.give(status, headers, body)

    with server(Handler) as proxied:
        yield proxied


@contextmanager
def token_guarded(address: str) -> Iterator[tuple[str, list[str]]]:
    """Run a proxy of a registry that wants a bearer token, as Docker Hub does; give it, and what tokens were asked with."""
    asked: list[str] = []

    class Handler(Passing):
        def answer(self) -> None:
            if self.path.startswith("/token?"):
                asked.append(f"{self.path} {_credentials(self.headers.get('Authorization', ''))}")
                self.give(200, {}, json.dumps({"token": "the token"}).encode())
            elif self.headers.get("Authorization") == "Bearer the token":
                self.give(*self.passed_on(address))
            else:
                realm = f"http://{self.headers['Host']}/token"
                wanted = f'Bearer realm="{realm}",service="registry",scope="repository:a/b:pull,push"'
                self.give(401, {"WWW-Authenticate": wanted}, b"")

    with server(Handler) as guard:
        yield guard, asked


@contextmanager
def server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port of this machine; give HOST:PORT."""
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def _credentials(header: str) -> str:
    return base64.b64decode(header.removeprefix("Basic ")).decode()


def _ask(address: str, method: str, path: str, body: bytes = b"", headers: dict | None = None) -> tuple[int, dict, bytes]:
    connection = HTTPConnection(address, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answered = connection.getresponse()
        return answered.status, {name.lower(): value for name, value in answered.getheaders()}, answered.read()
    finally:
        connection.close()
