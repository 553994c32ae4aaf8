"""Finding an image in a registry: by its digest, in ECR or elsewhere, as whoever is logged in there."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import registries
from conftest import registry_program
from registries import DOCKER, SECRET, USER

from deploy.cloud import Cloud
from deploy.errors import BadSettings, DeployError, NotThere, Refused, Rejected, Unknown
from deploy.images import registry as of_images
from deploy.images.credentials import HUB_KEY, credentials_for
from deploy.images.distribution import Registry, is_local
from deploy.images.registry import Record, place_in, pushed
from deploy.settings import Account, Image

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to run in, with no engine, and logins of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


class NoCloud:
    """An account of which only the project's name may be asked."""

    account = Account(name="Berth")


def put(address: str, name: str, tag: str) -> str:
    """Put an image of Docker's kind into a registry; return its digest."""
    config = registries.put_blob(address, name, b'{"architecture": "amd64", "os": "linux", "config": {"Labels": {"a": "b"}}}')
    described = {"mediaType": "application/vnd.docker.container.image.v1+json", **config}
    return registries.put_manifest(
        address, name, tag, {"schemaVersion": 2, "mediaType": DOCKER, "config": described, "layers": []}
    )


# ---- pushed


def test_an_image_by_its_digest_is_taken_as_it_is_and_nothing_is_asked() -> None:
    uri = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/berth@{DIGEST}"
    assert pushed(NoCloud(), Image(uri=uri)) == uri


@pytest.mark.parametrize("uri", ["registry.example/berth:1", "registry.example/berth", f"berth@{DIGEST}0", f"@{DIGEST}"])
def test_an_image_without_a_digest_is_refused(uri: str) -> None:
    with pytest.raises(BadSettings, match="REPOSITORY@sha256:DIGEST was expected"):
        pushed(NoCloud(), Image(uri=uri))


def test_an_image_in_a_registry_is_found_by_its_tag(registry: str) -> None:
    digest = put(registry, "team/berth", "1.0")
    assert pushed(NoCloud(), Image(registry=f"{registry}/team", image_tag="1.0")) == f"{registry}/team/berth@{digest}"


def test_an_image_that_is_not_in_the_registry_is_to_be_pushed(registry: str) -> None:
    with pytest.raises(NotThere, match="python -m deploy push"):
        pushed(NoCloud(), Image(registry=registry, image_tag="nowhere"))


@pytest.mark.parametrize("put_other", [registries.put_oci, registries.put_index])
def test_an_image_that_sagemaker_does_not_take_is_not_handed_on(registry: str, put_other) -> None:  # T-7
    put_other(registry, "oci/berth", "1.0")
    with pytest.raises(Rejected, match=r"application/vnd\.oci\.image"):
        pushed(NoCloud(), Image(registry=f"{registry}/oci", image_tag="1.0"))


def test_without_an_engine_it_is_the_image_that_was_pushed_last(registry: str) -> None:
    digest = put(registry, "last/berth", "2.0")
    Record("elsewhere/berth@" + DIGEST, DIGEST, "2.0", "2.0", "", "").write()
    assert pushed(NoCloud(), Image(registry=f"{registry}/last")) == f"{registry}/last/berth@{digest}"


def test_without_an_engine_and_a_push_the_image_has_to_be_named() -> None:
    with pytest.raises(NotThere, match="--uri REPOSITORY@sha256:DIGEST") as caught:
        pushed(NoCloud(), Image())
    assert "docker is not installed" in caught.value.message


def test_a_damaged_record_is_no_record() -> None:
    of_images.RECORD.parent.mkdir()
    of_images.RECORD.write_text("[1")
    with pytest.raises(NotThere):
        pushed(NoCloud(), Image())


def test_an_image_in_ecr_is_found_by_its_tag(ecr_aws, registry: str) -> None:
    ecr_aws.client("ecr").create_repository(repositoryName="berth")
    digest = put(registry, "berth", "3.0")
    found = pushed(Cloud(Account(region="us-east-1")), Image(image_tag="3.0"))
    assert found == f"{registry}/berth@{digest}"


def test_an_image_that_is_not_in_ecr_is_to_be_pushed(ecr_aws) -> None:
    cloud = Cloud(Account(region="us-east-1"))
    with pytest.raises(NotThere, match="python -m deploy push"):
        pushed(cloud, Image(repository="unmade", image_tag="1"))
    ecr_aws.client("ecr").create_repository(repositoryName="empty")
    with pytest.raises(NotThere, match="python -m deploy push"):
        pushed(cloud, Image(repository="empty", image_tag="1"))


def test_an_image_of_ocis_kind_in_ecr_is_not_handed_on(ecr_aws, registry: str) -> None:
    ecr_aws.client("ecr").create_repository(repositoryName="oci")
    registries.put_oci(registry, "oci", "1")
    with pytest.raises(Rejected, match="alone \\(T-7\\)"):
        pushed(Cloud(Account(region="us-east-1")), Image(repository="oci", image_tag="1"))


def test_docker_hub_is_named_as_its_images_are() -> None:
    place = place_in("Berth", Image(registry="docker.io/someone"), "1.0")
    assert place.reference == "docker.io/someone/berth:1.0"


# ---- what a registry answers


def test_a_configuration_is_read_with_its_labels(registry: str) -> None:
    put(registry, "read", "1")
    found = Registry(registry)
    held = found.held("read", "1")
    assert found.configuration("read", held)["config"] == {"Labels": {"a": "b"}}


def test_credentials_are_given_for_a_token_as_docker_hub_asks(registry: str) -> None:
    digest = put(registry, "a/b", "1")
    with registries.token_guarded(registry) as (guard, asked):
        held = Registry(guard, lambda: (USER, SECRET)).held("a/b", "1")
    assert held.digest == digest
    assert asked == [f"/token?service=registry&scope=repository%3Aa%2Fb%3Apull%2Cpush {USER}:{SECRET}"]


def test_a_token_is_asked_for_nobody_where_nobody_is_logged_in(registry: str) -> None:
    put(registry, "a/b", "1")
    with registries.token_guarded(registry) as (guard, asked):
        assert Registry(guard).held("a/b", "1") is not None
    assert len(asked) == 1


def test_credentials_go_to_no_server_without_tls() -> None:
    class Asking(registries.Passing):
        def answer(self) -> None:
            self.give(401, {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1.example.org/token"'}, b"")

    with registries.server(Asking) as address, pytest.raises(Refused, match="by https alone"):
        Registry(address, lambda: (USER, SECRET)).held("a", "1")


def test_a_wrong_login_is_told_of_without_the_secret(tmp_path: Path) -> None:
    with registries.guarded(registry_program(), tmp_path) as address:
        with pytest.raises(Refused, match="docker login") as caught:
            Registry(address, lambda: (USER, "wrong")).held("a", "1")
        assert Registry(address, lambda: (USER, SECRET)).held("a", "1") is None
    assert "wrong" not in caught.value.message


def test_credentials_are_not_sent_on_to_where_a_blob_lies(registry: str) -> None:
    put(registry, "moved", "1")
    seen: list[str | None] = []

    class Store(registries.Passing):
        def answer(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.give(*self.passed_on(registry))

    class Front(registries.Passing):
        def answer(self) -> None:
            if not self.headers.get("Authorization"):
                self.give(401, {"WWW-Authenticate": 'Basic realm="front"'}, b"")
            elif "/blobs/" in self.path:
                self.give(307, {"Location": f"http://{store}{self.path}"}, b"")
            else:
                self.give(*self.passed_on(registry))

    with registries.server(Store) as store, registries.server(Front) as front:
        found = Registry(front, lambda: (USER, SECRET))
        assert found.configuration("moved", found.held("moved", "1"))["config"] == {"Labels": {"a": "b"}}
    assert seen == [None]


def test_a_registry_that_does_not_answer_is_told_of() -> None:
    with pytest.raises(Unknown, match="does not answer"):
        Registry("127.0.0.1:9").held("a", "1")


def test_what_is_no_registry_is_told_of() -> None:
    class Page(registries.Passing):
        def answer(self) -> None:
            self.give(200, {"Content-Type": "text/html"}, b"<html>")

    with registries.server(Page) as address, pytest.raises(DeployError, match="Is it a registry"):
        Registry(address).held("a", "1")


def test_what_has_another_digest_than_it_was_asked_for_by_is_refused(registry: str) -> None:
    put(registry, "damaged", "1")

    class Damaged(registries.Passing):
        def answer(self) -> None:
            status, headers, body = self.passed_on(registry)
            self.give(status, headers, body + b" ")

    digest = Registry(registry).held("damaged", "1").digest
    with registries.server(Damaged) as address, pytest.raises(Refused, match="is damaged"):
        Registry(address).held("damaged", digest)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1:5000", True),
        ("localhost", True),
        ("localhost:1", True),
        ("[::1]:5", True),
        ("127.example.org", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_only_this_machine_is_spoken_to_without_tls(host: str, local: bool) -> None:
    assert is_local(host) == local


# ---- who is logged in


def keep(folder: Path, name: str, kept: dict) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(kept))


def encoded(text: str) -> dict:
    return {"auth": base64.b64encode(text.encode()).decode()}


def test_docker_and_podman_keep_logins_in_files(tmp_path: Path) -> None:
    keep(tmp_path, "config.json", {"auths": {"a.example": encoded(f"{USER}:{SECRET}")}})
    keep(tmp_path, "containers/auth.json", {"auths": {"b.example": encoded("other:secret")}})
    assert credentials_for("a.example") == (USER, SECRET)
    assert credentials_for("b.example") == ("other", "secret")
    assert credentials_for("c.example") is None


def test_docker_hub_has_a_name_of_its_own_there(tmp_path: Path) -> None:
    keep(tmp_path, "config.json", {"auths": {HUB_KEY: encoded(f"{USER}:{SECRET}")}})
    assert credentials_for("docker.io") == (USER, SECRET)


def test_a_helper_keeps_them_where_one_is_named(tmp_path: Path) -> None:
    keep(tmp_path, "config.json", {"credsStore": "none-here", "credHelpers": {"a.example": "ours"}})
    helper = tmp_path / "docker-credential-ours"
    helper.write_text('#!/bin/sh\nread host\necho "{\\"Username\\": \\"$1 $host\\", \\"Secret\\": \\"s\\"}"\n')
    helper.chmod(0o755)
    assert credentials_for("a.example") == ("get a.example", "s")
    assert credentials_for("b.example") is None


@pytest.mark.parametrize("kept", ["{", "[]", '{"auths": {"a.example": {"auth": "=="}}}', '{"auths": {"a.example": {}}}'])
def test_a_file_that_can_not_be_read_knows_nobody(tmp_path: Path, kept: str) -> None:
    (tmp_path / "config.json").write_text(kept)
    assert credentials_for("a.example") is None
