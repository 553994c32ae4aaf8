"""The rules of what an image is and holds, against images of a few files that are built here and never started."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from conftest import long
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from trees import build_from, tree_elsewhere

from local_test.conformance import judge
from local_test.contents import Contents
from local_test.entry import Entry
from local_test.layers import differences, save
from local_test.rules import RULES, contents, image
from local_test.rules.contents import has_no_grave_vulnerability, is_not_too_large, secrets
from local_test.rules.image import fault_of, manifest_is_accepted, stored_media_type
from local_test.runners import Containers
from local_test.subject import Subject
from local_test.verdicts import Status, Unjudged, Violated

SCRIPT = b"#!/bin/sh\nexec sleep 60\n"
SOUND_FILES = {
    "usr/local/bin/train": SCRIPT,
    "usr/local/bin/serve": SCRIPT,
    "bin/sh": b"\x7fELF",
    "etc/os-release": b'ID=debian\nVERSION_ID="13"\n',
    "opt/ml/code/train.py": b"print()",
}
SOUND = """
FROM scratch
COPY files /
LABEL com.amazonaws.sagemaker.capabilities.multi-models=true
ENV GPG_KEY=7169605F62C751356D054A26A821E680E5FA6305 TOKEN_FILE=/run/secrets/token MODE=fast
CMD ["serve"]
"""
FAULTY_FILES = {
    "usr/local/bin/serve": SCRIPT.replace(b"\n", b"\r\n"),
    "bin/sh": b"\x7fELF",
    "opt/ml/model/model.bin": b"weights",
    "var/lib/apt/lists/debian_main": bytes(6_000_000),
    "etc/passwd": b"root:x:0:0::/home/admin:/bin/sh\n",
    "home/admin/.aws/credentials": b"[default]\n",
}
FAULTY = """
FROM scratch
COPY files /
LABEL com.amazonaws.sagemaker.capabilities.multi-model=true
ENV DB_PASSWORD=swordfish REGION=eu-west-1
USER app
CMD serve
"""
SWALLOWS = "\nENTRYPOINT python3 /app/main.py\n"
TINI = '\nENTRYPOINT ["/usr/bin/tini", "--", "python3", "/app/main.py"]\n'


@pytest.fixture(scope="module")
def build(docker, tmp_path_factory):
    """A function: build an image of some files by a Dockerfile, return its tag; all are removed at the end."""
    tags = []

    def built(dockerfile, files):
        folder = tmp_path_factory.mktemp("image")
        for name, data in files.items():
            path = folder / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o755)
        (folder / "Dockerfile").write_text(dockerfile)
        tags.append(f"berth-rules:{folder.name}")
        done = subprocess.run([docker, "build", "--quiet", "--tag", tags[-1], folder], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return tags[-1]

    yield built
    subprocess.run([docker, "image", "rm", "--force", *tags], capture_output=True)


def verdicts_on(tag, folder, train_data=None):
    """Return what the rules that start nothing say of an image, by their names."""
    rules = [rule for rule in RULES if rule in (*image.RULES, *contents.RULES)]
    with closing(Subject(Containers(tag), folder, train_data)) as subject:
        return {verdict.rule.name: verdict for verdict in judge(subject, rules)}


@pytest.fixture(scope="module")
def faulty(build, tmp_path_factory):
    """What is said of an image with many faults."""
    folder = tmp_path_factory.mktemp("faulty")
    return verdicts_on(build(FAULTY, FAULTY_FILES), folder, train_data=folder)


def test_a_sound_image_breaks_no_rule(build, tmp_path):
    verdicts = verdicts_on(build(SOUND, SOUND_FILES), tmp_path)
    told = {name: verdict.seen for name, verdict in verdicts.items() if verdict.status is not Status.PASSED}
    assert told.keys() <= {"has_no_grave_vulnerability"}, told


@pytest.mark.parametrize(
    ("rule", "evidence"),
    [
        ("train_is_a_program", "there is no train on PATH"),
        ("serve_is_a_program", "serve has Windows line ends: its interpreter is taken to be '/bin/sh\\r'"),
        ("command_is_no_shell_line", "CMD is a line for a shell: /bin/sh -c serve"),
        ("nothing_is_baked_in", "1 files lie below /opt/ml, such as /opt/ml/model/model.bin"),
        ("labels_are_well_formed", "capabilities.multi-models is probably meant"),
        ("user_is_root", "USER is app"),
        ("holds_no_secret", "ENV DB_PASSWORD"),
        ("holds_no_secret", "/home/admin/.aws/credentials"),
        ("scanner_knows_the_system", "there is no /etc/os-release"),
        ("carries_no_caches", "package managers left 6 MB: /var/lib/apt/lists 6 MB"),
    ],
)
def test_a_fault_is_found_by_its_rule(faulty, rule, evidence):
    assert faulty[rule].status is Status.FAILED
    assert evidence in faulty[rule].seen


def test_what_is_no_fault_is_not_taken_for_one(faulty):
    passed = {"entrypoint_takes_the_word", "entrypoint_is_no_init", "architecture_is_amd64", "is_not_too_large"}
    assert {name for name, verdict in faulty.items() if verdict.status is Status.PASSED} == passed | {"manifest_is_accepted"}


def test_a_secret_is_named_and_not_shown(faulty):
    assert "swordfish" not in faulty["holds_no_secret"].seen


def test_an_image_for_serving_alone_needs_no_train_where_no_training_was_asked_for(build, tmp_path):
    serves = {name: data for name, data in SOUND_FILES.items() if not name.endswith("/train")}
    verdicts = verdicts_on(build(SOUND, serves), tmp_path)
    assert verdicts["train_is_a_program"].status is Status.NOT_APPLICABLE
    assert [name for name, verdict in verdicts.items() if verdict.status is Status.FAILED] == []


@pytest.mark.parametrize(("line", "rule"), [(SWALLOWS, "entrypoint_takes_the_word"), (TINI, "entrypoint_is_no_init")])
def test_an_entrypoint_that_takes_the_word_for_itself_is_found(build, tmp_path, line, rule):
    files = {**SOUND_FILES, "usr/bin/tini": b"\x7fELF"}
    verdicts = verdicts_on(build(SOUND + line, files), tmp_path)
    assert {name for name, verdict in verdicts.items() if verdict.status is Status.FAILED} == {rule}


def test_what_looks_into_an_image_leaves_no_container(docker, build, tmp_path):
    tag = build(SOUND, SOUND_FILES)
    verdicts_on(tag, tmp_path)
    left = subprocess.run([docker, "ps", "--all", "--quiet", "--filter", f"ancestor={tag}"], capture_output=True, text=True)
    assert left.stdout == ""


# ---- what the image is made of

ASK = """
dpkg-query --show --showformat '${Package} ${Version} ${Architecture} ${source:Package} ${source:Version}\\n'
echo ---
python3 -c 'from importlib.metadata import distributions; [print(one.name, one.version) for one in distributions()]'
"""


@pytest.fixture(scope="module")
def installed(docker, image):
    """What dpkg and Python say is in the image: rows of five, rows of two."""
    done = subprocess.run([docker, "run", "--rm", "--network", "none", image, "sh", "-c", ASK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    debian, python = done.stdout.split("---\n")
    return [row.split(" ") for row in debian.splitlines()], [row.split(" ") for row in python.splitlines()]


@pytest.fixture(scope="module")
def sbom(image):
    """The text of the image's SBOM."""
    with Contents(Containers(image)) as inside:
        return inside.read("/opt/berth/sbom.cdx.json").decode()


def purls(sbom, kind):
    """Return the addresses of an SBOM's packages of one kind."""
    found = [PackageURL.from_string(part["purl"]) for part in json.loads(sbom)["components"] if "purl" in part]
    return [package for package in found if package.type == kind]


def test_the_sbom_names_every_debian_package_with_its_version_and_source(installed, sbom):
    told = {}
    for package in purls(sbom, "deb"):
        assert (package.namespace, package.qualifiers["distro"]) == ("debian", "debian-13")
        source, _, version = package.qualifiers.get("upstream", package.name).partition("@")
        told[package.name, package.version, package.qualifiers["arch"]] = source, version or package.version
    assert told == {(name, version, arch): (source, of_source) for name, version, arch, source, of_source in installed[0]}


def test_the_sbom_names_every_python_distribution_with_its_version(installed, sbom):
    wanted = {(re.sub("[-_.]+", "-", name).lower(), version) for name, version in installed[1]}
    assert {(package.name, package.version) for package in purls(sbom, "pypi")} == wanted
    assert ("onnxruntime", "1.32.0") in wanted


def test_each_component_of_the_sbom_says_of_itself_what_its_address_says(sbom):
    parts = [(part, PackageURL.from_string(part["purl"])) for part in json.loads(sbom)["components"] if "purl" in part]
    assert all(part["version"] == package.version for part, package in parts)
    assert all(re.sub("[-_.]+", "-", part["name"]).lower() == re.sub("[-_.]+", "-", package.name) for part, package in parts)


def test_the_sbom_is_cyclonedx_of_the_named_version_and_says_which_system_it_is(sbom):
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom) is None
    document = json.loads(sbom)
    assert document["specVersion"] == "1.6"
    systems = [(part["name"], part["version"]) for part in document["components"] if part["type"] == "operating-system"]
    assert systems == [("debian", "13")]
    refs = {part["bom-ref"] for part in document["components"]}
    assert {ref for edge in document["dependencies"] for ref in edge.get("dependsOn", ())} == refs


def test_the_sbom_holds_nothing_that_changes_from_build_to_build(sbom):
    document = json.loads(sbom)
    assert not {"serialNumber"} & set(document)
    assert "timestamp" not in document["metadata"]


def test_what_writes_the_sbom_is_not_in_the_image_which_grows_by_the_sbom_alone(docker, image, installed, sbom):
    assert not {"cyclonedx-bom", "cyclonedx-python-lib", "debsbom", "lxml", "jsonschema", "pip"} & {
        name for name, _ in installed[1]
    }
    with Contents(Containers(image)) as inside:
        programs = {Path(member.name).name for member in inside.below("/opt/berth/container")}
    assert programs == {"container", "train", "serve", "start"}
    history = [docker, "history", "--human=false", "--no-trunc", "--format", "{{.Size}} {{.CreatedBy}}", image]
    steps = subprocess.run(history, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [int(step.split()[0]) for step in steps if "/sbom/" in step] == [len(sbom)]


# ---- the same inputs give the same image


def test_images_with_the_same_files_are_the_same(docker, build, tmp_path):
    one, other = (save(docker, build(SOUND, SOUND_FILES), tmp_path / name) for name in ("one", "other"))
    assert not [line for line in differences(one, other) if "time" not in line and "created" not in line]


def test_a_file_that_differs_is_named_with_what_differs(docker, build, tmp_path):
    one = save(docker, build(SOUND, SOUND_FILES), tmp_path / "one")
    other = save(
        docker, build(SOUND + "ENV MODE=slow\n", {**SOUND_FILES, "bin/sh": b"\x7fELF2", "new": b""}), tmp_path / "other"
    )
    told = "\n".join(differences(one, other))
    assert re.search(r"^  bin/sh: .*content$", told, re.MULTILINE)
    assert re.search("^  new: only in the second$", told, re.MULTILINE)
    assert not re.search("opt/ml/code/train.py: .*content", told)
    assert "configuration: config is" in told


@long
def test_the_same_inputs_give_the_same_layers_wherever_and_whenever_they_are_built(docker, image, tmp_path):
    # Another folder, other times of the files, another umask, and nothing from the cache.
    elsewhere = tree_elsewhere(tmp_path / "elsewhere")
    command = [docker, "build", "--no-cache", "--file", "container/Dockerfile", "--tag", "berth-again:test", "."]
    build_from(elsewhere, command)
    try:
        told = list(differences(save(docker, image, tmp_path / "one"), save(docker, "berth-again:test", tmp_path / "other")))
    finally:
        subprocess.run([docker, "image", "rm", "berth-again:test"], capture_output=True)
    assert not [line for line in told if not line.startswith("configuration: ")], "\n".join(told)


# ---- what needs no engine


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (Entry("serve"), "there is no serve on PATH"),
        (Entry("serve", "/bin/serve", 0o644, SCRIPT), "/bin/serve is not executable: its mode is 644"),
        (Entry("serve", "/bin/serve", 0o755, b"import os\n"), "neither a program nor a script whose first line begins with #!"),
        (Entry("serve", "/bin/serve", 0o755, b"#!/usr/bin/env python3\r\n"), "Windows line ends"),
        (Entry("serve", "/bin/serve", 0o755, SCRIPT, interpreter_missing=True), "run by /bin/sh, and that is not in the image"),
        (Entry("serve", "/bin/serve", 0o755, SCRIPT), ""),
        (Entry("serve", "/bin/serve", 0o755, b"\x7fELF\x02\x01\x01"), ""),
    ],
    ids=["not there", "no exec bit", "no first line", "CRLF", "no interpreter", "a script", "a program"],
)
def test_a_file_that_no_engine_can_start_is_told_by_what_it_lacks(entry, told):
    fault = fault_of(entry)
    assert told in fault if told else fault == ""


@pytest.mark.parametrize(
    ("inspected", "media_type"),
    [
        ({"Descriptor": {"mediaType": "application/vnd.oci.image.index.v1+json"}}, "application/vnd.oci.image.index.v1+json"),
        ({"ManifestType": "application/vnd.oci.image.manifest.v1+json"}, "application/vnd.oci.image.manifest.v1+json"),
        ({"Id": "sha256:00"}, None),
    ],
    ids=["Docker's containerd store", "Podman", "Docker's older store"],
)
def test_the_stored_media_type_is_read_as_each_engine_tells_it_and_oci_is_refused(tmp_path, inspected, media_type):
    assert stored_media_type(inspected) == media_type
    subject = Subject(Containers("an:image"), tmp_path)
    subject.once("inspected", lambda: inspected)
    if media_type:
        with pytest.raises(Violated, match="oci"):
            manifest_is_accepted(subject)
    else:
        assert "schema 2" in manifest_is_accepted(subject)


@pytest.mark.parametrize(
    ("name", "value", "is_secret"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI", True),
        ("GITHUB_TOKEN", "abcdef", True),
        ("OPENAI_API_KEY", "abcdef", True),
        ("ANYTHING", "AKIA" + "A1" * 8, True),
        ("INDEX", "https://user:word@host/simple", True),
        ("GPG_KEY", "7169605F62C751356D054A26A821E680E5FA6305", False),
        ("TOKENIZERS_PARALLELISM", "false", False),
        ("DB_PASSWORD", "", False),
        ("DB_PASSWORD", "$FROM_OUTSIDE", False),
        ("API_TOKEN", "/run/secrets/token", False),
        ("INDEX", "https://host/simple", False),
    ],
)
def test_a_secret_is_told_from_its_name_or_its_look(name, value, is_secret):
    assert secrets({name: value}) == ([name] if is_secret else [])


@pytest.mark.parametrize(("gigabytes", "fits"), [(9.9, True), (10.1, False)])
def test_an_image_over_ten_gigabytes_is_wasteful(tmp_path, gigabytes, fits):
    subject = Subject(Containers("an:image"), tmp_path)
    subject.once("inspected", lambda: {"Size": int(gigabytes * 1e9)})
    if fits:
        assert is_not_too_large(subject) == "the image has 9.90 GB"
    else:
        with pytest.raises(Violated, match=r"10\.1 GB"):
            is_not_too_large(subject)


GRYPE = {"matches": [{"vulnerability": {"id": f"CVE-{n}", "severity": s}} for n, s in enumerate(["Low", "High", "Critical"])]}
TRIVY = {"Results": [{"Vulnerabilities": [{"VulnerabilityID": "CVE-1", "Severity": "HIGH"}]}, {"Target": "no packages"}]}


@pytest.mark.parametrize(
    ("scanner", "report", "told"),
    [("grype", GRYPE, "grype found 1 high, 1 critical: CVE-1, CVE-2"), ("trivy", TRIVY, "trivy found 1 high: CVE-1")],
)
def test_a_scanners_report_is_read(tmp_path, monkeypatch, scanner, report, told):
    put_on_path(tmp_path, monkeypatch, scanner, f"cat <<'EOF'\n{json.dumps(report)}\nEOF\n")
    with pytest.raises(Violated) as found:
        has_no_grave_vulnerability(Subject(Containers("an:image"), tmp_path))
    assert str(found.value) == told


def test_a_scanner_that_finds_nothing_lets_the_image_pass(tmp_path, monkeypatch):
    put_on_path(tmp_path, monkeypatch, "trivy", "echo '{}'\n")
    assert has_no_grave_vulnerability(Subject(Containers("an:image"), tmp_path)) == "trivy found nothing critical or high"


@pytest.mark.parametrize("scanner", ["grype", "no-scanner-at-all"])
def test_without_a_scanner_that_works_vulnerabilities_are_not_judged(tmp_path, monkeypatch, scanner):
    put_on_path(tmp_path, monkeypatch, scanner, "echo 'the database is too old' >&2; exit 1\n")
    with pytest.raises(Unjudged, match="the database is too old" if scanner == "grype" else "neither grype nor trivy"):
        has_no_grave_vulnerability(Subject(Containers("an:image"), tmp_path))


def put_on_path(folder, monkeypatch, name, script):
    """Have a shell script of that name be the only program on PATH but the system's."""
    program = folder / name
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin")
