"""Pushing: what an image must be, both engines, real registries, ECR, gates, and every way in which it can break."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import registries
from botocore.loaders import Loader
from click.testing import CliRunner
from conftest import ROOT, docker_client, lacking, long, registry_program
from registries import DOCKER, OCI, SECRET, USER

from deploy.__main__ import main
from deploy.cloud import TAG
from deploy.errors import Rejected
from deploy.images import engine, gates
from deploy.images.acceptance import accept, tag_of
from deploy.images.credentials import credentials_for
from deploy.images.engine import LocalImage
from local_test.payloads import csv_body

REVISION = "0123456789abcdef0123456789abcdef01234567"
LABEL = "org.opencontainers.image."
LABELS = {"title": "Tiny", "version": "1.2.0", "revision": REVISION, "source": "https://example.org/tiny", "licenses": "MIT"}
TAG_NAME = "1.2.0-0123456789ab"
UNJUDGED = ("--skip-scan", "--skip-conformance")
ENGINES = ("docker", "podman")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to run in, and engines that are logged in nowhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(engine, "PAUSE_S", 0.0)
    (tmp_path / "auth.json").write_text("{}")


@pytest.fixture(scope="module", autouse=True)
def models() -> Iterator[None]:
    """Have all sessions read the services' models once."""
    loader, patch = Loader(), pytest.MonkeyPatch()
    patch.setattr("botocore.session.create_loader", lambda *_, **__: loader)
    yield
    patch.undo()


Make = Callable[..., str]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """A function that makes an image of one small file and some labels, once, and returns its name; all are gone afterwards."""
    made: dict[tuple, str] = {}

    def make_image(name: str = "docker", content: str = "one", processor: str = "", **labels: str) -> str:
        key = (name, content, processor, *labels.items())
        if key not in made:
            client = program(name)
            made[key] = f"berth-push:{len(made)}"
            folder = tmp_path_factory.mktemp("image")
            (folder / "content").write_text(content)
            with tarfile.open(folder / "image.tar", "w") as archive:
                archive.add(folder / "content", "content")
            changes = [f"--change=LABEL {LABEL}{one}={text}" for one, text in {**LABELS, **labels}.items() if text]
            also = [f"--arch={processor}"] if processor else []  # Podman's alone
            subprocess.run(
                [client, "import", *also, *changes, folder / "image.tar", made[key]], check=True, capture_output=True
            )
        return made[key]

    yield make_image
    for (name, *_), image in made.items():
        told = subprocess.run([program(name), "image", "inspect", image], check=False, capture_output=True, text=True)
        for one in json.loads(told.stdout or "[]"):  # by its digest: with all names that pushes have given it
            subprocess.run([program(name), "image", "rm", "--force", one["Id"]], check=False, capture_output=True)


def program(name: str) -> str:
    """Return an engine's client; skip where there is none."""
    return docker_client() if name == "docker" else shutil.which(name) or lacking(f"there is no {name}")


def deploy(*words: str, code: int = 0) -> str:
    """Run a verb, and return what it prints for people."""
    done = CliRunner().invoke(main, words)
    assert done.exit_code == code, done.output + str(done.exc_info)
    return done.output


def push(image: str, *words: str, code: int = 0) -> str:
    return deploy("push", "--image", image, *UNJUDGED, *words, code=code)


def pushed() -> dict:
    return json.loads(Path("build/pushed.json").read_text())


# ---- to a registry, by either engine


@pytest.mark.parametrize("name", ENGINES)
def test_an_image_is_pushed_under_version_and_commit_as_dockers_manifest(make: Make, registry: str, name: str) -> None:  # T-7
    said = push(make(name), "--engine", name, "--registry", f"{registry}/{name}", "--repository", "plain")
    uri = pushed()["uri"]
    assert uri.startswith(f"{registry}/{name}/plain@sha256:")
    assert f"Pushed: {uri}\n" in said
    assert said.splitlines()[-1].startswith("Next: python -m deploy ")
    assert registries.tags(registry, f"{name}/plain") == [TAG_NAME]
    assert registries.media_type(registry, f"{name}/plain", uri.partition("@")[2]) == DOCKER
    record = {**pushed(), "time": ""}
    assert record == {
        "uri": uri,
        "digest": uri.partition("@")[2],
        "tag": TAG_NAME,
        "version": "1.2.0",
        "revision": REVISION,
        "time": "",
    }


@pytest.mark.parametrize("name", ENGINES)
def test_a_second_push_finds_the_first(make: Make, registry: str, name: str) -> None:
    words = ("--engine", name, "--registry", f"{registry}/{name}", "--repository", "twice")
    push(make(name), *words)
    first = pushed()["uri"]
    said = push(make(name), *words)
    assert f"{TAG_NAME} is there already." in said
    assert "Push berth-push" not in said
    assert pushed()["uri"] == first


@pytest.mark.parametrize("name", ENGINES)
def test_another_image_never_takes_a_tag_that_is_there(make: Make, registry: str, name: str) -> None:
    words = ("--engine", name, "--registry", f"{registry}/{name}", "--repository", "moved")
    push(make(name), *words)
    digest = pushed()["digest"]
    said = push(make(name, content="two"), *words, code=1)
    assert "is another image" in said
    assert "--image-tag" in said
    assert pushed()["digest"] == digest
    push(make(name, content="two"), *words, "--image-tag", "other")
    assert registries.tags(registry, f"{name}/moved") == [TAG_NAME, "other"]


def test_what_was_pulled_by_the_digest_is_the_image_that_was_pushed(make: Make, registry: str) -> None:
    image, docker = make("docker"), program("docker")
    push(image, "--engine", "docker", "--registry", registry, "--repository", "pulled")
    subprocess.run([docker, "pull", "--quiet", pushed()["uri"]], check=True, capture_output=True)
    told = [[docker, "image", "inspect", "--format", "{{.Id}}", one] for one in (image, pushed()["uri"])]
    ids = {subprocess.run(command, check=True, capture_output=True, text=True).stdout for command in told}
    assert len(ids) == 1


@pytest.mark.parametrize(("put", "word"), [(registries.put_oci, "an OCI manifest"), (registries.put_index, "an OCI index")])
def test_a_tag_that_is_of_ocis_kind_is_refused_with_the_cure(
    make: Make, registry: str, put: Callable, word: str
) -> None:  # T-7
    put(registry, "of-oci", TAG_NAME)
    said = push(make("docker"), "--engine", "docker", "--registry", registry, "--repository", "of-oci", code=1)
    assert f"is {word} (application/vnd.oci.image." in said
    assert "--provenance=false" in said
    assert not Path("build/pushed.json").exists()


def test_podman_pushes_what_it_keeps_as_oci_in_dockers_form(make: Make, registry: str) -> None:
    image, podman = make("podman"), program("podman")
    kept = subprocess.run([podman, "image", "inspect", image], check=True, capture_output=True, text=True).stdout
    assert json.loads(kept)[0]["ManifestType"] == OCI
    push(image, "--engine", "podman", "--registry", registry, "--repository", "converted")
    assert registries.media_type(registry, "converted", TAG_NAME) == DOCKER


# ---- the real image


INVOKE = """
import sys, time, urllib.request as r
for _ in range(300):
    try:
        r.urlopen("http://127.0.0.1:8080/ping", timeout=2)
        break
    except OSError:
        time.sleep(0.2)
asked = r.Request("http://127.0.0.1:8080/invocations", sys.argv[1].encode(), {"Content-Type": "text/csv"})
print(r.urlopen(asked, timeout=10).read().decode())
"""


@pytest.fixture
def store() -> Iterator[list[str]]:
    """Podman with an empty store of its own, so that all it has comes from a registry; it is emptied afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="bp-"))  # Podman takes 50 characters
    podman = [program("podman"), "--root", str(folder / "store"), "--runroot", str(folder / "run")]
    yield podman
    subprocess.run([*podman, "rm", "--all", "--force"], check=False, capture_output=True)
    subprocess.run([*podman, "image", "rm", "--all", "--force"], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def test_the_pulled_image_serves_the_same_predictions(
    docker: str, image: str, model_dir: Path, pushed_image: tuple[str, str], store: list[str], tmp_path: Path
) -> None:
    registry, _ = pushed_image  # it has the layers
    push(image, "--engine", "docker", "--registry", registry, "--repository", "real", "--allow-dirty")
    uri = pushed()["uri"]
    subprocess.run([docker, "image", "rm", f"{registry}/real:{pushed()['tag']}"], check=True, capture_output=True)
    kinds = registries.media_types(registry, "real", uri.partition("@")[2])
    assert kinds[0] == DOCKER  # T-7
    assert kinds[1] == "application/vnd.docker.container.image.v1+json"
    assert set(kinds[2:]) == {"application/vnd.docker.image.rootfs.diff.tar.gzip"}
    subprocess.run([*store, "pull", "--quiet", "--tls-verify=false", uri], check=True, capture_output=True)
    payload = csv_body(json.loads((model_dir / "manifest.json").read_text())).decode()
    model = shutil.copytree(model_dir, tmp_path / "model")
    here, there = predicted([docker], image, model, payload), predicted(store, uri, model, payload)
    assert here == there
    assert len(here.split()) == len(payload.splitlines())


def predicted(client: list[str], image: str, model: Path, payload: str) -> str:
    """Return what a container of an image answers."""
    limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=4000:4000"]
    command = [*client, "run", "--detach", "--network=none", *limits, f"--volume={model}:/opt/ml/model:ro", image, "serve"]
    container = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        asked = [*client, "exec", container, "python3", "-c", INVOKE, payload]
        return subprocess.run(asked, check=True, capture_output=True, text=True, timeout=90).stdout
    finally:
        subprocess.run([*client, "rm", "--force", container], check=True, capture_output=True)


# ---- what is refused before anything is sent


LOCAL = LocalImage(
    name="an:image",
    identity="sha256:" + "ab" * 32,
    platform="linux/amd64",
    labels={LABEL + name: text for name, text in LABELS.items()},
    size_bytes=1,
    created="",
    layers=(),
    manifest_type="",
)


def test_a_sound_image_is_accepted() -> None:
    accept(LOCAL, dirty=False)
    accept(replace(LOCAL, manifest_type=DOCKER), dirty=False)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"platform": "linux/arm64"}, "It is for linux/arm64; SageMaker runs linux/amd64 alone (T-7)"),
        ({"manifest_type": OCI}, "an OCI manifest (application/vnd.oci.image.manifest.v1+json)"),
        ({"manifest_type": registries.INDEX}, "an OCI index (application/vnd.oci.image.index.v1+json)"),
        ({"manifest_type": registries.LIST}, "Docker's list of several platforms"),
        ({"labels": {}}, "It lacks the labels org.opencontainers.image.title, "),
        ({"labels": {**LOCAL.labels, LABEL + "revision": f"{REVISION}-dirty"}}, "is in no commit"),
        ({"labels": {**LOCAL.labels, LABEL + "revision": "unknown"}}, "--allow-dirty"),
    ],
    ids=["platform", "oci", "index", "list", "labels", "dirty", "unknown"],
)
def test_what_sagemaker_would_not_take_is_refused_with_what_to_do(change: dict, told: str) -> None:
    with pytest.raises(Rejected) as caught:
        accept(replace(LOCAL, **change), dirty=False)
    assert told in caught.value.message
    assert "make image" in caught.value.message


def test_all_reasons_are_told_at_once() -> None:
    with pytest.raises(Rejected) as caught:
        accept(replace(LOCAL, platform="linux/arm64", labels={}), dirty=False)
    assert "linux/arm64" in caught.value.message
    assert "lacks the labels" in caught.value.message


def test_an_image_larger_than_serverless_endpoints_take_is_told_of(capsys: pytest.CaptureFixture) -> None:  # H-33
    accept(replace(LOCAL, size_bytes=11_000_000_000), dirty=False)
    assert "11.0 GB" in capsys.readouterr().out


def test_images_of_no_commit_have_tags_of_their_own() -> None:
    dirty = {**LOCAL.labels, LABEL + "revision": f"{REVISION}-dirty"}
    assert tag_of(replace(LOCAL, labels=dirty)) == f"{TAG_NAME}-dirty.abababab"
    assert tag_of(replace(LOCAL, labels={**dirty, LABEL + "revision": "unknown"})) == "1.2.0-unknown.abababab"
    accept(replace(LOCAL, labels=dirty), dirty=True)


def test_a_version_with_signs_that_no_registry_takes_makes_a_tag_all_the_same() -> None:
    assert tag_of(replace(LOCAL, labels={**LOCAL.labels, LABEL + "version": "1.2.0+cpu"})) == "1.2.0-cpu-0123456789ab"


def test_an_image_for_another_processor_is_not_sent(make: Make, registry: str) -> None:
    said = push(make("podman", processor="arm64"), "--engine", "podman", "--registry", registry, "--repository", "arm", code=1)
    assert "linux/arm64" in said
    assert registries.tags(registry, "arm") == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--registry", "someone"), "docker.io/someone may be meant"),
        (("--registry", "docker.io"), "docker.io/SOMEONE"),
        (("--registry", "127.0.0.1:1", "--repository", "Upper"), "no repository's name"),
        (("--registry", "127.0.0.1:1", "--image-tag", "latest"), "'latest' is no tag to push"),
        (("--registry", "127.0.0.1:1", "--image-tag", "a b"), "'a b' is no tag to push"),
        (("--registry", "127.0.0.1:1", "--repository", "/".join(["long" * 10] * 6)), "longer than the 255 characters"),
        (("--region", "us-east-1", "--image-tag", "latest"), "'latest' is no tag to push"),
        (("--region", "us-east-1", "--repository", "Upper"), "no repository's name"),
        (("--region", "us-east-1", "--keep-images", "0"), "--keep-images 0 keeps no image"),
    ],
    ids=["no host", "hub of nobody", "name", "latest", "tag", "long", "latest in ECR", "name in ECR", "none kept"],
)
def test_a_place_that_can_not_be_is_refused_before_any_call(make: Make, words: tuple[str, ...], told: str) -> None:
    assert told in push(make("docker"), *words, code=2)


def test_an_image_that_is_not_here_is_to_be_built_first() -> None:
    program("docker")
    said = push("berth-push:nowhere", "--engine", "docker", "--registry", "127.0.0.1:1", code=1)
    assert "make image IMAGE=berth-push:nowhere" in said


def test_without_an_engine_each_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = push("berth:latest", "--registry", "127.0.0.1:1", code=1)
    assert "docker is not installed; podman is not installed" in said


def test_an_engine_that_does_not_run_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program("docker")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    said = push("berth:latest", "--engine", "docker", "--registry", "127.0.0.1:1", code=1)
    assert "No container engine answers (docker: " in said
    assert "nobody.sock" in said


INSPECTED = """
case "$1 $2" in
  "info --format") echo '{"ServerVersion": "29.0", "DockerRootDir": "/nowhere"}' ;;
  "image inspect") cat inspected.json ;;
esac
"""


def test_what_a_newer_docker_keeps_as_an_index_is_refused_before_it_is_sent(recorder: Callable[[str, str], Path]) -> None:
    """Docker's containerd store pushes what was built; this plays what its inspect says, by Docker's documentation."""
    config = {"Labels": LOCAL.labels}
    kept = {"Descriptor": {"mediaType": registries.INDEX, "digest": LOCAL.identity, "size": 856}}
    told = {"Id": LOCAL.identity, "Os": "linux", "Architecture": "amd64", "Config": config, "Size": 1, **kept}
    Path("inspected.json").write_text(json.dumps([told]))
    noted = recorder("docker", INSPECTED)
    said = push("berth:latest", "--engine", "docker", "--registry", "127.0.0.1:1", code=1)
    assert "keeps it as an OCI index" in said
    assert [line.split()[0] for line in noted.read_text().splitlines()] == ["info", "image"]


# ---- what breaks on the way


def broken(*ways: str, method: str = "PUT", part: str = "/manifests/") -> Callable[[str, str], str]:
    """Return what breaks the first requests of a kind, each in a way of its own."""
    left = list(ways)
    return lambda asked, path: left.pop(0) if left and asked == method and part in path else ""


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("way", ["drop", "lose"])
def test_a_push_that_breaks_is_repeated(make: Make, registry: str, name: str, way: str) -> None:
    with registries.unsteady(registry, broken(way)) as proxy:
        said = push(make(name), "--engine", name, "--registry", f"{proxy}/{name}", "--repository", f"broken-{way}")
    assert ("Once more in" in said) == (name == "docker")  # Podman repeats by itself
    assert registries.tags(registry, f"{name}/broken-{way}") == [TAG_NAME]


def test_a_registry_that_stays_broken_is_told_of_and_the_next_run_carries_on(make: Make, registry: str) -> None:
    words = ("--engine", "docker", "--repository", "carried-on")
    with registries.unsteady(registry, broken(*["drop"] * 3)) as proxy:
        said = push(make("docker"), *words, "--registry", proxy, code=1)
        assert f"broke {engine.TRIES} times" in said
        assert "Run the same command again" in said
        assert not Path("build/pushed.json").exists()
        push(make("docker"), *words, "--registry", proxy)
    assert registries.tags(registry, "carried-on") == [TAG_NAME]


def test_an_answer_of_which_nothing_is_known_is_not_taken_for_a_push(make: Make, registry: str) -> None:
    reads = broken("", "drop", method="GET")
    with registries.unsteady(registry, reads) as proxy:
        said = push(make("docker"), "--registry", proxy, "--repository", "unread", code=1)
        assert "does not answer" in said
        assert not Path("build/pushed.json").exists()
        assert "there already" in push(make("docker"), "--registry", proxy, "--repository", "unread")


@pytest.mark.parametrize("name", ENGINES)
def test_what_ctrl_c_has_stopped_is_finished_by_the_next_run(make: Make, registry: str, name: str) -> None:
    stalled, released = threading.Event(), threading.Event()

    def stalls(method: str, path: str) -> str:
        if method != "PUT" or "/manifests/" not in path or stalled.is_set():
            return ""
        stalled.set()
        released.wait(60)
        return "drop"

    with registries.unsteady(registry, stalls) as proxy:
        words = ("--image", make(name), "--engine", name, "--registry", f"{proxy}/{name}", "--repository", "stopped", *UNJUDGED)
        command = [sys.executable, "-m", "deploy", "push", *words]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        running = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True, start_new_session=True)
        assert stalled.wait(60)
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        said = running.communicate(timeout=60)[1]
        released.set()
        assert running.returncode == 130
        assert "run the same command again to carry on" in said
        assert not Path("build/pushed.json").exists()
        deploy("push", *words)
    assert registries.tags(registry, f"{name}/stopped") == [TAG_NAME]


# ---- logins


@pytest.mark.parametrize("name", ENGINES)
def test_a_registry_that_wants_a_login_is_logged_in_to_by_the_person(make: Make, tmp_path: Path, name: str) -> None:
    with registries.guarded(registry_program(), tmp_path) as address:
        said = push(make(name), "--engine", name, "--registry", address, code=1)
        assert f"{name} login {address}" in said
        engine.engine_of(name).login(address, USER, SECRET)
        push(make(name), "--engine", name, "--registry", address)
        assert credentials_for(address) == (USER, SECRET)
        assert "there already" in push(make(name), "--engine", name, "--registry", address)


def test_a_wrong_secret_is_told_of_and_not_shown(tmp_path: Path) -> None:
    program("docker")
    with registries.guarded(registry_program(), tmp_path) as address, pytest.raises(Exception, match="did not take") as caught:
        engine.engine_of("docker").login(address, USER, "wrong secret")
    assert "wrong secret" not in str(caught.value)


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """A function that puts a program first on PATH: it notes its words and standard input, then does what a script says."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def record(name: str, script: str) -> Path:
        noted = folder / f"{name}.noted"
        (folder / name).write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {noted}\n{script}\n')
        (folder / name).chmod(0o755)
        return noted

    return record


def test_the_secret_of_a_login_is_in_no_command(recorder: Callable[[str, str], Path], tmp_path: Path) -> None:
    noted = recorder("docker", f"cat > {tmp_path}/stdin")
    engine.Engine("docker", False, "", "").login("registry.example", "AWS", SECRET)
    assert noted.read_text() == "login --username AWS --password-stdin registry.example\n"
    assert (tmp_path / "stdin").read_text() == SECRET


# ---- to ECR


@pytest.fixture
def ecr(ecr_aws):
    """ECR, with a real registry behind it."""
    return ecr_aws


def state(ecr, registry: str, name: str) -> dict:
    """Return all that stands in ECR of a repository."""
    client = ecr.client("ecr")
    told = client.describe_repositories(repositoryNames=[name])["repositories"][0]
    told.pop("createdAt")
    policy = json.loads(client.get_lifecycle_policy(repositoryName=name)["lifecyclePolicyText"])
    tags = client.list_tags_for_resource(resourceArn=told["repositoryArn"])["tags"]
    return {"repository": told, "policy": policy, "tags": tags, "images": registries.tags(registry, name)}


def test_the_repository_is_made_as_it_should_be(make: Make, ecr, registry: str) -> None:
    said = push(make("docker"), "--repository", "made", "--keep-images", "7", "--tag", "team=a b")
    found = state(ecr, registry, "made")
    assert found["repository"]["imageTagMutability"] == "IMMUTABLE"
    assert found["repository"]["imageScanningConfiguration"] == {"scanOnPush": True}
    assert found["repository"]["encryptionConfiguration"] == {"encryptionType": "AES256"}
    assert {tag["Key"]: tag["Value"] for tag in found["tags"]} == {TAG: "berth", "team": "a b"}
    untagged, newest = (rule["selection"] for rule in found["policy"]["rules"])
    assert (untagged["tagStatus"], untagged["countNumber"]) == ("untagged", 1)
    assert (newest["tagStatus"], newest["countNumber"]) == ("any", 7)
    assert found["images"] == [TAG_NAME]
    assert said.splitlines()[-1] == f"Next: python -m deploy train --uri {pushed()['uri']}"
    assert "us-east-1, account 123456789012" in said


def test_a_key_encrypts_the_repository_where_one_is_set(make: Make, ecr, registry: str) -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
    push(make("docker"), "--repository", "encrypted", "--image-key", key)
    assert state(ecr, registry, "encrypted")["repository"]["encryptionConfiguration"] == {
        "encryptionType": "KMS",
        "kmsKey": key,
    }


def test_a_second_push_to_ecr_changes_nothing_but_what_was_set_anew(make: Make, ecr, registry: str) -> None:
    push(make("docker"), "--repository", "again")
    first = state(ecr, registry, "again")
    before = len(ecr.calls)
    push(make("docker"), "--repository", "again")
    assert {call.operation for call in ecr.calls[before:]} <= {
        *("GetCallerIdentity", "DescribeRepositories", "GetLifecyclePolicy", "GetAuthorizationToken")
    }
    assert state(ecr, registry, "again") == first
    push(make("docker"), "--repository", "again", "--keep-images", "3")
    assert state(ecr, registry, "again")["policy"]["rules"][1]["selection"]["countNumber"] == 3


def test_settings_that_name_another_image_are_told_of(make: Make, ecr, registry: str) -> None:
    uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/berth@sha256:" + "ab" * 32
    assert f"The settings still name {uri}" in push(make("docker"), "--repository", "named", "--uri", uri)


def test_somebody_elses_repository_and_policy_are_left_as_they_are(make: Make, ecr, registry: str) -> None:
    client = ecr.client("ecr")
    client.create_repository(repositoryName="theirs", imageTagMutability="MUTABLE")
    rule = {"rulePriority": 1, "selection": {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 1}}
    policy = {"rules": [{**rule, "action": {"type": "expire"}}]}
    client.put_lifecycle_policy(repositoryName="theirs", lifecyclePolicyText=json.dumps(policy))
    said = push(make("docker"), "--repository", "theirs")
    found = state(ecr, registry, "theirs")
    assert found["policy"] == policy
    assert found["repository"]["imageTagMutability"] == "MUTABLE"
    assert "put-image-tag-mutability" in said
    assert "put-image-scanning-configuration" in said
    assert found["images"] == [TAG_NAME]


def test_a_dry_run_prints_the_requests_and_changes_nothing(make: Make, ecr, registry: str) -> None:
    said = push(make("docker"), "--repository", "dry", "--dry-run")
    assert {call.operation for call in ecr.calls} <= {
        *("GetCallerIdentity", "DescribeRepositories", "GetLifecyclePolicy", "GetAuthorizationToken")
    }
    assert '"operation": "CreateRepository"' in said
    assert '"operation": "PutLifecyclePolicy"' in said
    assert "docker tag sha256:" in said
    assert "docker push 123456789012.dkr.ecr.us-east-1.amazonaws.com/dry:" + TAG_NAME in said
    assert "docker login --username AWS --password-stdin 123456789012.dkr.ecr.us-east-1.amazonaws.com" in said
    assert registries.tags(registry, "dry") == []
    assert not Path("build/pushed.json").exists()


# ---- gates


SCAN = """
import json, sys
from pathlib import Path
from deploy.supply.allowed import Allowance
from deploy.supply.findings import Finding, Scan
from deploy.supply.scan import Judgement

Path("scanned").open("a").write(" ".join(sys.argv[1:]) + "\\n")
image, path = sys.argv[-1], Path(sys.argv[sys.argv.index("--json") + 1])
found = Finding("CVE-1", "zlib", "1.0", "deb", "high", ("grype",))
clean, bad = Scan("grype", image), Scan("grype", image, (found,))
nobody, lock = Scan("none", image, error="no grype"), Scan("pip-audit", "requirements.lock", error="no network")
scans = {scans}
judgement = Judgement(image, "high", tuple(scans), Allowance())
code = judgement.exit_code(unscanned_ok=False)
path.write_text(json.dumps(judgement.as_json(code)))
sys.exit(code)
"""
"""A scan whose findings a test says; what it writes is what the real one writes of such findings."""


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """A function that has the scan find what an expression says: clean, bad, nobody, lock, by the image's name."""

    def find(expression: str) -> None:
        (tmp_path / "scan.py").write_text(SCAN.replace("{scans}", expression))
        monkeypatch.setattr(gates, "DEPLOY", (sys.executable, str(tmp_path / "scan.py")))

    return find


def scanned(tmp_path: Path) -> list[str]:
    """Return what was scanned, in order."""
    path = tmp_path / "scanned"
    return [line.split()[-1] for line in path.read_text().splitlines()] if path.exists() else []


def verdict(status: str, severity: str = "fails on SageMaker") -> dict:
    """Return what `conformance --json` writes of a rule."""
    told = {"number": "H-7", "name": "becomes_ready", "title": "serve becomes ready", "severity": severity}
    return {**told, "platform": "sagemaker", "status": status, "seen": "it ended", "fix": "Start it.", "seconds": 0.1}


@pytest.fixture
def judged(recorder: Callable[[str, str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A function that has `make conformance` write verdicts; it returns the file of the words that make was called with."""

    def judge(*verdicts: dict) -> Path:
        (tmp_path / "verdicts.json").write_text(json.dumps(verdicts))
        script = f"""for word; do :; done; cp {tmp_path}/verdicts.json "${{word##*--json }}"; exit {int(bool(verdicts))}"""
        return recorder("make", script)

    return judge


def test_an_image_that_passes_both_gates_is_pushed(make: Make, registry: str, scans, judged, tmp_path: Path) -> None:
    scans("[clean]")
    noted = judged(verdict("passed"), verdict("not judged"), verdict("failed", "wasteful"))
    image = make("docker")
    said = deploy("push", "--image", image, "--engine", "docker", "--registry", registry, "--repository", "passed")
    assert registries.tags(registry, "passed") == [TAG_NAME]
    assert scanned(tmp_path) == [image]
    assert f"conformance IMAGE={image} ARGS=--engine docker --json " in noted.read_text()
    assert noted.read_text().startswith(f"--directory {ROOT} ")
    assert "Wasteful: H-7" in said


def test_settings_reach_the_scan(make: Make, registry: str, scans, tmp_path: Path) -> None:
    scans("[clean]")
    Path("berth.toml").write_text('[gate]\nfail_on = "low"\n[account.tag]\nteam = "a"\n')
    words = ("--settings", "berth.toml", "push", "--image", make("docker"), "--registry", registry, "--repository", "told")
    deploy(*words, "--skip-conformance", "--allow", "mine.toml")
    line = (tmp_path / "scanned").read_text()
    assert line.startswith("--settings berth.toml scan ")
    assert "--fail-on low" in line
    assert "--allow mine.toml" in line
    assert "--tag team=a" in line


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("[bad]", "does not pass the scan"),
        ("[clean, lock]", "could not be scanned"),
        ("[nobody]", "Install grype"),
        ("sys.exit(1)", "the scan failed (exit status 1"),
    ],
    ids=["findings", "lock unknown", "no scanner", "broken"],
)
def test_an_image_that_the_scan_rejects_is_not_pushed(make: Make, registry: str, scans, expression: str, told: str) -> None:
    scans(expression)
    words = ("--image", make("docker"), "--registry", registry, "--repository", "rejected", "--skip-conformance")
    said = deploy("push", *words, code=1)
    assert told in said
    assert "--skip-scan" in said
    assert registries.tags(registry, "rejected") == []


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [
        ([verdict("passed"), verdict("failed")], "it breaks 1 of the platforms' rules.\n  H-7 serve becomes ready (fails on"),
        ([verdict("not judged")], "could not be judged"),
        ([], "could not be judged"),
    ],
    ids=["broken rule", "nothing judged", "no verdicts"],
)
def test_an_image_that_conformance_rejects_is_not_pushed(
    make: Make, registry: str, judged, verdicts: list[dict], told: str
) -> None:
    judged(*verdicts)
    words = ("--image", make("docker"), "--registry", registry, "--repository", "rejected", "--skip-scan")
    said = deploy("push", *words, code=1)
    assert told in said
    assert "--skip-conformance" in said
    assert registries.tags(registry, "rejected") == []


def test_an_image_that_is_built_anew_while_it_is_judged_is_not_pushed(
    make: Make, registry: str, recorder, tmp_path: Path
) -> None:
    docker, image = program("docker"), make("docker", content="judged")
    (tmp_path / "verdicts.json").write_text(json.dumps([verdict("passed")]))
    again = f"{docker} tag {make('docker', content='anew')} {image}"
    recorder("make", f"""{again}; for word; do :; done; cp {tmp_path}/verdicts.json "${{word##*--json }}" """)
    words = ("--image", image, "--registry", registry, "--repository", "anew", "--skip-scan")
    assert "was built anew while it was judged" in deploy("push", *words, code=1)
    assert registries.tags(registry, "anew") == []


def test_without_a_scanner_here_ecr_scans_what_was_pushed(make: Make, ecr, registry: str, scans, tmp_path: Path) -> None:
    scans("[clean if '@sha256:' in image else nobody]")
    deploy("push", "--image", make("docker"), "--repository", "scanned-there", "--skip-conformance")
    assert scanned(tmp_path) == [make("docker"), pushed()["uri"]]


@pytest.mark.parametrize("found", ["bad", "nobody", "sys.exit(3)"])
def test_what_ecrs_scan_rejects_is_taken_back(make: Make, ecr, registry: str, scans, found: str) -> None:
    scans(f"[{found} if '@sha256:' in image else nobody]")
    words = ("--image", make("docker"), "--repository", "taken-back", "--skip-conformance")
    said = deploy("push", *words, code=1)
    assert "Take " in said
    assert not registries.holds(registry, "taken-back", TAG_NAME)
    assert not Path("build/pushed.json").exists()
    scans("[clean if '@sha256:' in image else nobody]")
    deploy("push", *words)
    assert registries.holds(registry, "taken-back", TAG_NAME)
    ecr.client("ecr").batch_delete_image(repositoryName="taken-back", imageIds=[{"imageTag": TAG_NAME}])


def test_an_image_that_was_there_before_stays_though_it_is_rejected(make: Make, ecr, registry: str, scans) -> None:
    words = ("--image", make("docker"), "--repository", "stays")
    push(*words[1:])
    scans("[bad if '@sha256:' in image else nobody]")
    assert "does not pass the scan" in deploy("push", *words, code=1)
    assert registries.tags(registry, "stays") == [TAG_NAME]


def test_the_real_scan_that_can_look_at_nothing_lets_nothing_through(
    make: Make, registry: str, monkeypatch: pytest.MonkeyPatch, recorder: Callable[[str, str], Path]
) -> None:
    recorder("grype", "exit 1")
    monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", "http://127.0.0.1:9")  # nobody listens there
    words = ("--image", make("docker"), "--registry", registry, "--repository", "unscanned", "--skip-conformance")
    assert "could not be scanned" in deploy("push", *words, code=1)
    assert registries.tags(registry, "unscanned") == []


# ---- every call of AWS fails once


KINDS = ("throttled", "refused", "broken", "dropped", "lost")
CALLS = 9
"""Of a first push."""


@pytest.fixture(scope="module")
def sound() -> dict:
    """What a push without a fault leaves; filled by the first test that wants it."""
    return {}


@pytest.mark.parametrize(
    ("number", "kind"), [(number, KINDS[number % len(KINDS)]) for number in range(1, CALLS + 1)], ids=lambda one: str(one)
)
def test_a_push_to_ecr_that_failed_anywhere_is_finished_by_the_next(
    make: Make, ecr, registry: str, sound: dict, number: int, kind: str
) -> None:
    finish(make, ecr, registry, sound, (number, kind))


@long
@pytest.mark.parametrize("number", range(1, CALLS + 1))
@pytest.mark.parametrize("kind", KINDS)
def test_each_failure_of_each_call_of_a_push_to_ecr_is_mended_by_the_next(
    make: Make, ecr, registry: str, sound: dict, number: int, kind: str
) -> None:
    finish(make, ecr, registry, sound, (number, kind))


def finish(make: Make, ecr, registry: str, sound: dict, fault: tuple[int, str]) -> None:
    """Have a call of a push fail, push again, and hold what stands then against what a push without a fault leaves."""
    image, name = make("docker"), f"faulty-{fault[0]}-{fault[1]}"
    if not sound:
        push(image, "--repository", "sound")
        assert len(ecr.calls) == CALLS
        sound.update(state(ecr, registry, "sound"))
        ecr.reset()
    ecr.fail(*fault)
    said = push(image, "--repository", name, code=1)
    assert "Run the same command again" in said or "roles.yaml" in said
    push(image, "--repository", name)
    assert json.loads(json.dumps(state(ecr, registry, name)).replace(name, "sound")) == sound
    assert pushed()["uri"].startswith(f"{registry}/{name}@sha256:")
