"""`publish check`: the good product passes, and each of more than 25 broken ones is named by its rule."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import pytest
import registries
from click.testing import CliRunner
from conftest import ROOT, long
from flawed import EDITS, FLAWS, Flaw

from deploy.jobs.training import METRICS
from deploy.market import vulnerabilities
from deploy.market.check import PARTS, STAND_IN, check
from deploy.market.product import algorithm_request, package_request
from deploy.market.served import SERVED
from deploy.market.trained import TRAINED, judged
from deploy.market.verdicts import Status, Verdict, exit_status
from deploy.settings import Gate
from deploy.supply import scan as scanning
from deploy.supply.findings import Scan
from local_test.validation import AROUND, MARK, kept
from model import DECLARATION

AT_ONCE = 4
SELLER = "111122223333"
GOOD = "none"
Ran = tuple[int, str, list[dict]]
"""Exit status, what was printed, and the verdicts."""


def request_of() -> dict:
    """Return the good product's request."""
    return deepcopy(algorithm_request(DECLARATION, METRICS, STAND_IN))


def here(folder: Path, *words: str, request: dict | None = None) -> Ran:
    """Run the check in this process."""
    asked, told = folder / "request.json", folder / "told.json"
    asked.write_text(json.dumps(request or request_of()))
    done = CliRunner().invoke(check, [*words, "--request", str(asked), "--json", str(told)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.output, json.loads(told.read_text())["verdicts"]


def beside(folder: Path, *words: str) -> Ran:
    """Run the check as a program, with no AWS account and no settings."""
    told = folder / "told.json"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "deploy", "publish", "check", *words, "--json", told],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert told.exists(), done.stdout
    return done.returncode, done.stdout, json.loads(told.read_text())["verdicts"]


def broken(verdicts: list[dict]) -> set[str]:
    """Return the numbers of the rules that are broken."""
    return {verdict["number"] for verdict in verdicts if verdict["status"] == "broken"}


# ---- the request


def test_the_good_request_breaks_no_rule(tmp_path: Path) -> None:
    code, said, verdicts = here(tmp_path, "berth:test", "--only", "request")
    assert (code, broken(verdicts)) == (0, set()), said
    assert len(verdicts) > 10
    assert "berth:test passes." in said


@pytest.mark.parametrize("fault", EDITS)
def test_a_broken_request_is_named_by_its_rule(tmp_path: Path, fault: str) -> None:
    number, edit = EDITS[fault]
    edit(request := request_of())
    code, said, verdicts = here(tmp_path, "berth:test", "--only", "request", "--seller", SELLER, request=request)
    assert code == 1, said
    assert number in broken(verdicts), said
    assert all(verdict["fix"] for verdict in verdicts if verdict["status"] == "broken")


def test_what_a_request_lacks_for_its_jobs_is_told_and_no_job_is_tried(tmp_path: Path) -> None:
    request = request_of()
    del request["InferenceSpecification"]
    code, said, verdicts = here(
        tmp_path, "berth:test", *(f"--only={part}" for part in PARTS if part not in {"image", "scan"}), request=request
    )
    assert (code, "M-1" in broken(verdicts)) == (1, True), said
    assert [one["part"] for one in verdicts if one["status"] == "not judged"] == ["training", "serving", "rules"]


def test_a_model_package_is_checked_with_its_model(tmp_path: Path, model_dir: Path) -> None:
    package = package_request(DECLARATION, STAND_IN, "s3://product/model.tar.gz")
    (tmp_path / "package.json").write_text(json.dumps(package))
    words = [*("--only", "request"), *("--request", str(tmp_path / "package.json"))]
    lacking = CliRunner().invoke(check, ["berth:test", *words])
    assert (lacking.exit_code, "--model model.tar.gz was expected" in lacking.output) == (2, True)
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(model_dir, ".")
    assert here(tmp_path, "berth:test", "--only", "request", "--model", str(tmp_path / "model.tar.gz"), request=package)[0] == 0


def test_there_are_more_than_25_broken_products() -> None:
    assert len(EDITS) + sum(not flaw.is_long for flaw in FLAWS) >= 25
    assert {flaw.part for flaw in FLAWS} < set(PARTS)


# ---- the image


def test_an_oci_manifest_is_named(tmp_path: Path, docker: str, image: str, registry: str) -> None:
    name = f"{registry}/certify-oci:1"
    subprocess.run([docker, "tag", image, name], check=True)
    registries.put_oci(registry, "certify-oci", "1")
    try:
        code, said, verdicts = here(tmp_path, name, "--only", "image")
    finally:
        subprocess.run([docker, "image", "rm", name], check=True, capture_output=True)
    assert (code, broken(verdicts)) == (1, {"T-7"}), said
    assert "an OCI manifest" in said
    assert "--provenance=false" in said


def test_an_image_for_arm_is_named(tmp_path: Path, docker: str) -> None:
    name = "certify-arm:test"
    load_for_arm(docker, name, tmp_path / "image.tar")
    try:
        code, said, verdicts = here(tmp_path, name, "--only", "image")
    finally:
        subprocess.run([docker, "image", "rm", name], check=True, capture_output=True)
    assert (code, broken(verdicts)) == (1, {"T-7"}), said
    assert "linux/arm64" in said


def load_for_arm(docker: str, name: str, packed: Path) -> None:
    """Load an image of one empty layer that is for arm64."""
    layer = io.BytesIO()
    tarfile.open(fileobj=layer, mode="w").close()
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {"architecture": "arm64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer.getvalue(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(packed, "w") as archive:
        for path, content in files.items():
            about = tarfile.TarInfo(path)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    subprocess.run([docker, "load", "--input", packed], check=True, capture_output=True)


# ---- vulnerabilities, with stand-ins for the scanners


def match(severity: str, *, fixed: tuple[str, ...] = ()) -> dict:
    """Return one of grype's matches, as it prints them."""
    return {
        "vulnerability": {"id": f"CVE-2026-{severity}", "severity": severity, "fix": {"versions": list(fixed)}},
        "artifact": {"name": "libxml2", "version": "2.12.7", "type": "deb"},
    }


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function: have a `grype` on PATH that finds these things in these images, and nothing found in the lock."""

    def put(**found: tuple[dict, ...]) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, matches in found.items():
            (folder / f"{name}.json").write_text(json.dumps({"matches": matches}))
        (folder / "grype").write_text(f'#!/bin/sh\nfor image; do :; done\ncat "{folder}/$(echo $image | tr : _).json"\n')
        (folder / "grype").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setattr(vulnerabilities, "pip_audit", lambda _root: Scan("pip-audit", "requirements.lock"))

    return put


@pytest.fixture
def no_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    """No grype on this machine."""
    monkeypatch.setattr("deploy.supply.scanners.shutil.which", lambda _name: None)
    monkeypatch.setattr(vulnerabilities, "pip_audit", lambda _root: Scan("pip-audit", "requirements.lock"))


@pytest.mark.parametrize(("severity", "fixed"), [("Critical", ("2.13",)), ("High", ())], ids=["critical", "high without a fix"])
def test_a_grave_vulnerability_fails_and_a_cleaner_base_is_named(
    tmp_path: Path, scans: Callable[..., None], severity: str, fixed: tuple[str, ...]
) -> None:
    scans(berth_test=(match(severity, fixed=fixed),), debian_old=(match("High"), match("Critical")), debian_new=(match("Low"),))
    words = ("--only", "scan", "--base-candidates", "debian:old", "--base-candidates", "debian:new")
    code, said, verdicts = here(tmp_path, "berth:test", *words)
    assert (code, broken(verdicts)) == (1, {"M-9"}), said
    assert "make image BASE_IMAGE=debian:new" in said
    assert "debian:old: 2 critical or high of 2 findings; debian:new: 0 critical or high of 1 findings" in said


def test_what_is_let_pass_elsewhere_fails_here(
    tmp_path: Path, scans: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=30)
    (tmp_path / Gate.allow).parent.mkdir()
    (tmp_path / Gate.allow).write_text(
        f'[[allow]]\nid = "CVE-2026-High"\npackage = "libxml2"\nreason = "far"\nexpires = {soon}\n'
    )
    monkeypatch.setattr(scanning, "ROOT", tmp_path)
    assert len(scanning.allowance_of(Gate.allow).holding) == 1
    scans(berth_test=(match("High"),))
    assert here(tmp_path, "berth:test", "--only", "scan")[0] == 1


def test_no_scanner_is_no_pass_unless_that_is_excused(tmp_path: Path, no_scanner: None) -> None:
    code, said, _ = here(tmp_path, "berth:test", "--only", "scan")
    assert code == 2, said
    assert "grype is not on PATH" in said
    assert here(tmp_path, "berth:test", "--only", "scan", "--unscanned-ok")[0] == 0


def test_a_base_that_is_no_cleaner_is_not_recommended(tmp_path: Path, scans: Callable[..., None]) -> None:
    scans(berth_test=(match("High"),), debian_old=(match("High"),))
    said = here(tmp_path, "berth:test", "--only", "scan", "--base-candidates", "debian:old")[1]
    assert "None of the bases is cleaner" in said
    assert "BASE_IMAGE" not in said


def test_a_mark_far_above_the_end_of_a_log_is_noted() -> None:
    log = f"x{'y' * 1_000}6.57{MARK},{'z' * 1_000}\n" + "a line\n" * 100_000
    noted = kept(log)
    assert log[:100] not in noted
    assert noted.partition("\n")[0] == f"{'y' * (AROUND - 4)}6.57{MARK},{'z' * (AROUND - 1)}"
    assert kept("short\n") == "short\n"


# ---- the jobs, in containers


@pytest.fixture(scope="module")
def checked(
    docker: str, image: str, model_dir: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Ran]]:
    """A function: what the check says of a flaw's image, of its own part; of the good one's, of both jobs."""
    folder = tmp_path_factory.mktemp("certify")
    model = folder / "model.tar.gz"
    with tarfile.open(model, "w:gz") as archive:
        archive.add(model_dir, ".")
    named = {item.name for item in request.session.items}
    wanted = [
        flaw
        for flaw in FLAWS
        if is_wanted(flaw) and f"{test_a_broken_product_is_named_by_its_rule.__name__}[{flaw.name}]" in named
    ]

    def work(flaw: Flaw) -> Ran:
        flaw.build(docker, image)
        place = folder / flaw.name
        place.mkdir()
        served = ["--model", str(model)] if flaw.part == "serving" else []
        return beside(place, flaw.image, "--only", flaw.part, "--start-s", "20", *served)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun = {GOOD: pool.submit(beside, folder, image, "--only", "image", "--only", "training", "--only", "serving")}
        begun |= {flaw.name: pool.submit(work, flaw) for flaw in wanted}
        try:
            yield lambda name: begun[name].result()
        finally:
            pool.shutdown(cancel_futures=True)
            names = [flaw.image for flaw in wanted]
            subprocess.run([docker, "image", "rm", "--force", *names], capture_output=True, check=False)


def is_wanted(flaw: Flaw) -> bool:
    """Say whether this run tries a flaw."""
    return not flaw.is_long or os.environ.get("LONG") == "1"


def test_the_good_product_passes(checked: Callable[[str], Ran]) -> None:
    code, said, verdicts = checked(GOOD)
    assert (code, broken(verdicts)) == (0, set()), said
    assert len(verdicts) == 3 + len(TRAINED) + len(SERVED)


@pytest.mark.parametrize("flaw", [pytest.param(flaw, marks=[long] if flaw.is_long else [], id=flaw.name) for flaw in FLAWS])
def test_a_broken_product_is_named_by_its_rule(flaw: Flaw, checked: Callable[[str], Ran]) -> None:
    code, said, verdicts = checked(flaw.name)
    assert (code, broken(verdicts)) == (1, {flaw.number}), said
    assert "would not be certified" in said


@long
def test_the_whole_check_passes_the_good_product(tmp_path: Path, image: str) -> None:
    code, said, verdicts = beside(tmp_path, image, "--unscanned-ok")
    assert (code, broken(verdicts)) == (0, set()), said
    assert {verdict["part"] for verdict in verdicts} == set(PARTS)


# ---- what is judged of facts alone


SERVER = {
    "started": True,
    "ready_s": 1.0,
    "why": "",
    "slowest_ping_s": 0.01,
    "pings": 20,
    "ping_lines": 0,
    "parameters": {"status": 404, "text": "", "seconds": 0},
    "transform": {"failures": {}, "objects": {"a.csv.out": [3, 3]}, "seconds": 1},
    "answers": {"text/csv": {"status": 200, "seconds": 1, "content_type": "text/csv; charset=utf-8", "text": "1", "bytes": 1}},
    "bad": {"status": 400, "seconds": 0},
    "largest": {"status": 413, "seconds": 2, "bytes": 10, "text": "too large"},
    "stop_s": 1.0,
    "changed": ["/tmp", "/tmp/x", "/opt", "/opt/ml"],
    "output": "started",
}


@pytest.mark.parametrize(
    ("edit", "number"),
    [
        ({}, None),
        ({"largest": {"status": 200, "seconds": 61, "bytes": 10, "text": ""}}, "M-11"),
        ({"largest": {"status": 200, "seconds": 6, "bytes": 26_000_000, "text": ""}}, "M-11"),
        ({"largest": {"status": None, "seconds": 6, "bytes": 0, "text": "ConnectionResetError"}}, "M-11"),
        ({"answers": {"text/csv": {**SERVER["answers"]["text/csv"], "seconds": 61}}}, "M-11"),
        ({"parameters": {"status": 200, "text": "<html>"}}, "M-11"),
        ({"stop_s": 30.1}, "H-6"),
        ({"changed": ["/etc", "/etc/passwd"]}, "M-14"),
        ({"ready_s": None, "why": "/ping answered 503"}, "H-7"),
    ],
)
def test_what_a_server_did_is_judged(edit: dict, number: str | None) -> None:
    facts = {"mark": "000731941", "serving": {**SERVER, **edit}}
    verdicts = judged(SERVED, facts, request_of(), "serving")
    assert {verdict.number for verdict in verdicts if verdict.status is Status.BROKEN} == ({number} - {None})


def test_a_log_line_with_data_is_told_without_the_data() -> None:
    facts = {"mark": "000731941", "serving": {**SERVER, "output": "row 6.575000731941,4 refused"}}
    told = [one for one in judged(SERVED, facts, request_of(), "serving") if one.status is Status.BROKEN]
    assert [one.number for one in told] == ["H-37"]
    assert "731941" not in told[0].seen


@pytest.mark.parametrize(
    ("statuses", "code"),
    [((), 2), ((Status.KEPT,), 0), ((Status.KEPT, Status.UNJUDGED), 2), ((Status.UNJUDGED, Status.BROKEN), 1)],
)
def test_what_was_not_judged_is_no_pass(statuses: tuple[Status, ...], code: int) -> None:
    assert exit_status([Verdict("M-1", "title", status) for status in statuses]) == code
