"""The supply chain: what scanners find becomes one judgement, what can't be scanned is no pass, and news is told once."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from cloudy import BUCKET, make_config, make_model, settle
from conftest import ROOT

from deploy.cloud import TAG
from deploy.errors import NotThere, Refused
from deploy.settings import Account
from deploy.supply import scan as scanning
from deploy.supply.allowed import read_allowance
from deploy.supply.ecr import Stored, region_of, scan_of
from deploy.supply.findings import Finding, united
from deploy.supply.fresh import fresh, images_of_endpoints, rescanned
from deploy.supply.news import news_of
from deploy.supply.relock import as_markdown, changes, held_back, versions
from deploy.supply.scanners import pip_audit, rounds

DIGEST = "sha256:" + "5" * 64


def today():
    """The day by UTC, of now: a run may begin on the day before."""
    return dt.datetime.now(dt.UTC).date()


def finding(name="CVE-2026-1", package="libxml2", severity="high", **more):
    return Finding(name, package, more.pop("version", "1.0"), more.pop("type", "deb"), severity, ("grype",), **more)


# ---- stand-ins: a grype that prints what it is told to, in the form of anchore's schema, and a service of OSV's kind


def match(name, severity, package="libxml2", kind="deb", version="2.12.7", fixed=("2.12.7-1",), related=()):
    """One of grype's matches, as `grype --output json` has them."""
    return {
        "vulnerability": {
            "id": name,
            "dataSource": f"https://security-tracker.debian.org/tracker/{name}",
            "namespace": "debian:distro:debian:13",
            "severity": severity,
            "urls": [],
            "description": "",
            "cvss": [],
            "fix": {"versions": list(fixed), "state": "fixed" if fixed else "not-fixed"},
            "advisories": [],
            "risk": 0.1,
        },
        "relatedVulnerabilities": [{"id": alias, "dataSource": "", "namespace": "nvd:cpe"} for alias in related],
        "matchDetails": [{"type": "exact-direct-match", "matcher": "dpkg-matcher", "searchedBy": {}, "found": {}}],
        "artifact": {
            "id": "0",
            "name": package,
            "version": version,
            "type": kind,
            "locations": [],
            "language": "",
            "licenses": [],
            "cpes": [],
            "purl": f"pkg:deb/debian/{package}@{version}?distro=debian-13",
            "upstreams": [],
        },
    }


@pytest.fixture
def grype_prints(tmp_path, monkeypatch):
    """A function: have a `grype` on PATH that prints these matches, or runs these lines of shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(*matches, script=None, **more):
        report = {
            "matches": list(matches),
            "source": {"type": "image", "target": {"userInput": "berth:test"}},
            "distro": {"name": "debian", "version": "13", "idLike": []},
            "descriptor": {"name": "grype", "version": "0.104.0", "db": {"status": {"built": "2026-11-26T06:00:00Z"}}},
            **more,
        }
        (folder / "report.json").write_text(json.dumps(report))
        (folder / "grype").write_text("#!/bin/sh\n" + (script or f'echo "$@" > {folder}/asked\ncat {folder}/report.json\n'))
        (folder / "grype").chmod(0o755)
        return folder

    return put


@pytest.fixture
def no_grype(monkeypatch):
    """No grype on this machine."""
    monkeypatch.setattr("deploy.supply.scanners.shutil.which", lambda _name: None)


@pytest.fixture(scope="module")
def audited():
    """What the real pip-audit says where its service knows two vulnerabilities of the lock's packages."""
    known = {
        ("flask", pin("flask")): [vulnerability("PYSEC-2026-7", "flask", "99.1", ["CVE-2026-7"])],
        ("jinja2", pin("jinja2")): [vulnerability("PYSEC-2026-8", "jinja2", "99.2")],
    }

    class Service(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            vulns = known.get((asked["package"]["name"], asked["version"]))
            body = json.dumps({"vulns": vulns} if vulns else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server, pytest.MonkeyPatch.context() as patch:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ask_osv(patch, f"http://127.0.0.1:{server.server_port}/v1/query")
        told = pip_audit(ROOT)
        server.shutdown()
    return told


def ask_osv(patch, url):
    """Have pip-audit ask a service of OSV's kind."""
    patch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
    patch.setenv("PIP_AUDIT_OSV_URL", url)
    patch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def audited_lock(audited, monkeypatch):
    """A lock in which the real pip-audit found two vulnerabilities."""
    monkeypatch.setattr(scanning, "pip_audit", lambda _root: audited)


@pytest.fixture
def clean_lock(monkeypatch):
    """A lock in which nothing is found."""
    monkeypatch.setattr(scanning, "pip_audit", lambda _root: scanning.Scan("pip-audit", "requirements.lock"))


def run(*words, image="berth:test"):
    """Return exit status and output of `python -m deploy scan`."""
    done = CliRunner().invoke(scanning.scan, [image, *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.output


def vulnerability(name, package, fixed, aliases=()):
    """One of OSV's records."""
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}]
    affected = [{"package": {"name": package, "ecosystem": "PyPI"}, "ranges": ranges}]
    return {"id": name, "schema_version": "1.6.0", "summary": "bad", "aliases": list(aliases), "affected": affected}


def pin(package):
    """Return a version that the lock pins."""
    return re.search(rf"^{package}==([^\s;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)[1]


# ---- grype


@pytest.mark.parametrize(
    ("severity", "gate", "status"),
    [
        ("High", "high", 1),
        ("Critical", "high", 1),
        ("Medium", "high", 0),
        ("Medium", "medium", 1),
        ("Low", "medium", 0),
        ("Low", "low", 1),
        ("Negligible", "low", 0),
        ("Unknown", "low", 0),
        ("High", "critical", 0),
    ],
)
def test_a_finding_stops_the_image_from_the_named_severity_on(grype_prints, clean_lock, severity, gate, status):
    grype_prints(match("CVE-2026-1", severity))
    assert run("--fail-on", gate)[0] == status


def test_the_report_names_what_to_update_and_to_what(grype_prints, clean_lock, tmp_path):
    folder = grype_prints(match("CVE-2026-1", "High"), match("CVE-2026-2", "Low", fixed=()), ignoredMatches=[{}, {}])
    status, output = run("--json", str(tmp_path / "scan.json"))
    assert status == 1
    assert re.search(r"^high +libxml2 +2\.12\.7 +2\.12\.7-1 +CVE-2026-1 +deb +grype +blocks$", output, re.MULTILINE)
    assert "CVE-2026-2" not in output
    assert "grype 0.104.0, its database of 2026-11-26T06:00:00Z, 2 more ignored by rules of its own" in output
    assert "1 high, 1 low. From high on: 1 block, 0 allowed." in output
    assert (folder / "asked").read_text().split()[-1] == "berth:test"
    report = json.loads((tmp_path / "scan.json").read_text())
    assert (report["passed"], report["exit_code"], report["fail_on"]) == (False, 1, "high")
    assert report["findings"][0] == {
        "id": "CVE-2026-1",
        "package": "libxml2",
        "version": "2.12.7",
        "type": "deb",
        "severity": "high",
        "source": ["grype"],
        "aliases": [],
        "fixed_in": ["2.12.7-1"],
        "verdict": "blocks",
    }


def test_all_findings_are_shown_when_asked_for(grype_prints, clean_lock):
    grype_prints(match("CVE-2026-2", "Low", fixed=()))
    status, output = run("--all")
    assert status == 0
    assert re.search(r"^low +libxml2 +2\.12\.7 +- +CVE-2026-2 .* below$", output, re.MULTILINE)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'the vulnerability database was built 6 days ago' >&2; exit 1", "was built 6 days ago"),
        ("echo not found", "printed no JSON"),
    ],
)
def test_a_scanner_that_fails_is_no_pass(grype_prints, clean_lock, script, told):
    grype_prints(script=script)
    status, output = run()
    assert status == 2
    assert "COULD NOT SCAN: grype" in output
    assert told in output


def test_without_any_scanner_of_images_the_scan_fails_unless_told_otherwise(no_grype, clean_lock):
    status, output = run()
    assert status == 2
    assert "grype is not on PATH" in output
    status, output = run("--unscanned-ok")
    assert status == 0
    assert "berth:test passes, THOUGH NOT ALL WAS SCANNED." in output


def test_findings_weigh_more_than_what_could_not_be_scanned(grype_prints, monkeypatch):
    grype_prints(match("CVE-2026-1", "High"))
    monkeypatch.setattr(scanning, "pip_audit", lambda _root: scanning.Scan("pip-audit", "the lock", error="no network"))
    assert run()[0] == 1
    assert run("--unscanned-ok")[0] == 1


@pytest.mark.parametrize(("severity", "status"), [("Low", 0), ("High", 1)])
def test_the_program_ends_with_the_status_that_a_pipeline_reads(grype_prints, tmp_path, severity, status):
    grype_prints(match("CVE-2026-1", severity))
    (tmp_path / "pip_audit.py").write_text("""print('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}')""")
    command = [sys.executable, "-m", "deploy", "scan", "berth:test", "--json", tmp_path / "scan.json"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert json.loads((tmp_path / "scan.json").read_text())["exit_code"] == status
    assert ("does not pass" in done.stderr) == (status == 1)


@pytest.mark.parametrize("gate", ["negligible", "unrated", "severe", "High"])
def test_a_gate_that_is_none_is_refused(gate):
    status, output = run("--fail-on", gate)
    assert status == 2
    assert "one of low, medium, high, critical was expected" in output


# ---- the lock, by the real pip-audit


def test_what_pip_audit_finds_blocks_as_nobody_has_rated_it(audited_lock, grype_prints):
    grype_prints()
    status, output = run("--fail-on", "critical")
    assert status == 1
    assert re.search(r"^unrated +flask +\S+ +99\.1 +PYSEC-2026-7 +python +pip-audit +blocks$", output, re.MULTILINE)
    assert re.search(r"^unrated +jinja2 +\S+ +99\.2 +PYSEC-2026-8 +python +pip-audit +blocks$", output, re.MULTILINE)


def test_a_finding_of_both_scanners_is_told_once_with_the_rating_of_the_one_that_rates(audited_lock, grype_prints):
    grype_prints(match("GHSA-x", "Medium", "Flask", "python", pin("flask"), ("99.1",), ["CVE-2026-7"]))
    output = run("--all")[1]
    rows = re.findall(r"^.* flask .*$", output, re.MULTILINE | re.IGNORECASE)
    assert len(rows) == 1
    assert re.search(r"^medium +Flask .* GHSA-x +python +grype, pip-audit +below$", rows[0])


def test_every_package_of_the_lock_was_asked_about(audited):
    pins = {
        pinned for text in rounds((ROOT / "requirements.lock").read_text()) for pinned in re.findall(r"^\S+==\S+", text, re.M)
    }
    assert (audited.error, audited.note) == ("", f"{len(pins)} packages")


def test_without_its_service_pip_audit_is_no_pass(monkeypatch):
    ask_osv(monkeypatch, "http://127.0.0.1:9/v1/query")
    assert "pip-audit failed" in pip_audit(ROOT).error


def test_packages_that_the_service_does_not_know_are_no_pass(monkeypatch, tmp_path):
    # What pip-audit 2.10.1 printed, ending with 0, where PyPI's mirror had no JSON API.
    skipped = {"name": "zipp", "skip_reason": "Dependency not found on PyPI and could not be audited: zipp (4.1.2)"}
    report = {"dependencies": [skipped, {"name": "flask", "version": "3.1.3", "vulns": []}], "fixes": []}
    (tmp_path / "pip_audit.py").write_text(f"print({json.dumps(report)!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "could not look up 2 of 4 packages, such as: Dependency not found on PyPI" in pip_audit(ROOT).error


def test_without_pip_audit_the_lock_is_not_scanned(monkeypatch, tmp_path):
    (tmp_path / "pip_audit.py").write_text("raise ModuleNotFoundError('No module named pip_audit')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "No module named pip_audit" in pip_audit(ROOT).error


def test_every_version_that_the_lock_may_install_is_audited_whatever_python_runs():
    lock = (ROOT / "requirements.lock").read_text()
    files = rounds(lock)
    found = [re.findall(r"^(\S+)==(\S+)", text, re.MULTILINE) for text in files]
    assert all(len(dict(pins)) == len(pins) for pins in found), "pip-audit refuses a name with two versions"
    assert not any(";" in text for text in files)
    wanted = versions(lock)
    assert {name for pins in found for name, _ in pins} == {*wanted["image"], *wanted["fast"]}
    assert sorted(version for pins in found for name, version in pins if name == "numpy") == wanted["image"]["numpy"].split(
        ", "
    )


@pytest.mark.parametrize(
    "lock", ["", "# == image ==\n# == fast ==\n# == end ==\n", "# == fast ==\n# == image ==\na>=1\n# == end ==\n"]
)
def test_a_lock_that_is_read_in_part_is_an_error(lock):
    with pytest.raises(ValueError, match="make lock"):
        rounds(lock)


# ---- the allowance


def entry(**changed):
    """Return an allowance file's text with one entry."""
    fields = {"id": '"CVE-2026-1"', "package": '"libxml2"', "reason": '"not reachable"', "expires": str(today()), **changed}
    return "[[allow]]\n" + "".join(f"{name} = {value}\n" for name, value in fields.items() if value)


@pytest.fixture
def allow(tmp_path):
    """A function: write an allowance file, return the flag that names it."""

    def write(text):
        path = tmp_path / "allow.toml"
        path.write_text(text)
        return ["--allow", str(path)]

    return write


def test_an_entry_lets_its_finding_pass_up_to_its_last_day(grype_prints, clean_lock, allow):
    grype_prints(match("CVE-2026-1", "High"))
    status, output = run(*allow(entry()))
    assert status == 0
    assert f"allowed until {today()}: not reachable" in output


def test_an_entry_may_name_an_alias(grype_prints, clean_lock, allow):
    grype_prints(match("GHSA-x", "High", related=["CVE-2026-1"]))
    assert run(*allow(entry()))[0] == 0


def test_an_entry_speaks_of_its_package_alone(grype_prints, clean_lock, allow):
    grype_prints(match("CVE-2026-1", "High", "libxslt1.1"))
    status, output = run(*allow(entry()))
    assert status == 1
    assert "Not needed any more, remove it: CVE-2026-1 in libxml2" in output


@pytest.mark.parametrize("matches", [[], [match("CVE-2026-1", "High")]], ids=["without a finding", "with its finding"])
def test_an_expired_entry_fails_and_is_named(grype_prints, clean_lock, allow, matches):
    grype_prints(*matches)
    status, output = run(*allow(entry(expires=today() - dt.timedelta(days=1))))
    assert status == 1
    assert "EXPIRED: CVE-2026-1 in libxml2" in output


def test_nothing_is_let_pass_where_none_may(grype_prints, clean_lock, allow):
    grype_prints(match("CVE-2026-1", "High"))
    assert run(*allow(entry()), "--no-allow")[0] == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (entry(reason=None), "entry 1 has id, package, expires; it takes id, package, reason, expires"),
        (entry(until="1"), "it takes id, package, reason, expires, and each of them"),
        (entry(reason='" "'), "reason is ' '; a text was expected"),
        (entry(expires='"2026-12-31"'), "a date without quotes was expected"),
        (entry(expires="2026-12-31T00:00:00"), "a date without quotes was expected"),
        (entry(expires="2999-12-31"), "holds until 2999-12-31; name a day up to"),
        (entry() + entry(), "has CVE-2026-1 in libxml2 twice"),
        ("[allow]\nid = 1\n", "tables that begin with [[allow]]"),
        ("[[allowed]]\n", "has allowed; tables that begin with [[allow]]"),
        ("[[allow", "can't be read"),
    ],
)
def test_an_allowance_that_can_not_hold_is_refused(allow, text, told):
    status, output = run(*allow(text))
    assert status == 2
    assert told in re.sub(r"\s+", " ", output)


def test_an_allowance_that_is_named_and_not_there_is_refused(tmp_path):
    assert run("--allow", str(tmp_path / "none.toml"))[0] == 2


def test_the_allowance_of_this_repository_can_be_read():
    assert read_allowance(ROOT / "deploy" / "allow.toml", today()).expired == ()


# ---- one finding


def test_findings_of_different_packages_or_versions_stay_apart():
    several = [
        finding(),
        finding(package="libxml2-utils"),
        finding(version="2.0"),
        finding(type="python"),
        finding("CVE-2026-2"),
    ]
    assert len(united(several)) == len(several)


def test_python_packages_are_the_same_however_they_are_spelled():
    one, other = finding(package="scikit_learn", type="python"), finding(package="Scikit-Learn", type="python")
    assert len(united([one, other])) == 1


def test_the_graver_of_two_ratings_counts():
    assert united([finding(severity="low"), finding(severity="critical")])[0].severity == "critical"
    assert united([finding(severity="unrated"), finding(severity="unrated")])[0].severity == "unrated"


# ---- ECR

ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
BASIC = {
    "name": "CVE-2026-1",
    "uri": "https://security-tracker.debian.org/tracker/CVE-2026-1",
    "severity": "HIGH",
    "attributes": [{"key": "package_version", "value": "2.12.7"}, {"key": "package_name", "value": "libxml2"}],
}
ENHANCED = {
    "findingArn": "arn:aws:inspector2:us-east-1:123456789012:finding/0",
    "severity": "CRITICAL",
    "status": "ACTIVE",
    "title": "CVE-2026-2 - libc6, flask",
    "type": "PACKAGE_VULNERABILITY",
    "fixAvailable": "YES",
    "packageVulnerabilityDetails": {
        "vulnerabilityId": "CVE-2026-2",
        "relatedVulnerabilities": ["GHSA-y"],
        "vulnerablePackages": [
            {
                "name": "libc6",
                "packageManager": "OS",
                "version": "2.41",
                "release": "12",
                "epoch": 0,
                "fixedInVersion": "2.41-13",
            },
            {"name": "zlib1g", "packageManager": "OS", "version": "1.3", "release": "1", "epoch": 1},
            {"name": "flask", "packageManager": "PYTHONPKG", "version": "3.1.3", "fixedInVersion": "NotAvailable"},
        ],
    },
}


class Answers:
    """A cloud that gives these answers of DescribeImageScanFindings in turn, and the last one for ever."""

    def __init__(self, *answers, start=None):
        self.account = Account(poll_s=0)
        self.answers = list(answers)
        self.start = start
        self.started = 0
        self.asked = []

    def read(self, _service, _operation, **request):
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def change(self, _service, _operation, _what, **_request):
        self.started += 1
        if self.start:
            raise self.start


def answer(status="COMPLETE", findings=(), enhanced=(), days=0, **more):
    """One answer of DescribeImageScanFindings."""
    done = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    found = {"findings": list(findings), "enhancedFindings": list(enhanced), "imageScanCompletedAt": done}
    return {"imageScanStatus": {"status": status, "description": f"it is {status}"}, "imageScanFindings": found, **more}


IMAGE = Stored("123456789012", "berth", DIGEST)
NO_SCAN = NotThere("ecr:DescribeImageScanFindings was refused: ScanNotFoundException: Image scan does not exist")


def test_a_finding_of_ecrs_basic_scan_is_read():
    told = scan_of(Answers(answer(findings=[BASIC])), IMAGE)
    assert (told.error, told.findings) == ("", (Finding("CVE-2026-1", "libxml2", "2.12.7", "deb", "high", ("ECR",)),))


def test_a_finding_of_ecrs_enhanced_scan_is_one_for_each_of_its_packages():
    told = scan_of(Answers(answer("ACTIVE", enhanced=[ENHANCED, {**ENHANCED, "status": "CLOSED"}], days=90)), IMAGE)
    assert told.error == ""
    assert [(one.package, one.version, one.type, one.fixed_in) for one in told.findings] == [
        ("libc6", "2.41-12", "deb", ("2.41-13",)),
        ("zlib1g", "1:1.3-1", "deb", ()),
        ("flask", "3.1.3", "python", ()),
    ]
    assert {(one.id, one.severity, one.aliases) for one in told.findings} == {("CVE-2026-2", "critical", ("GHSA-y",))}


def test_all_pages_of_findings_are_read():
    several = [{**BASIC, "name": f"CVE-2026-{number}"} for number in range(3)]
    pages = [answer(findings=[one], nextToken="more") for one in several[:2]] + [answer(findings=several[2:])]
    cloud = Answers(answer(), answer(), *pages)
    assert [one.id for one in scan_of(cloud, IMAGE).findings] == ["CVE-2026-0", "CVE-2026-1", "CVE-2026-2"]
    assert [request.get("nextToken") for request in cloud.asked[2:]] == [None, "more", "more"]


def test_a_scan_that_runs_is_waited_for():
    cloud = Answers(answer("PENDING"), answer("PENDING"), answer("IN_PROGRESS"), answer(findings=[BASIC]))
    assert len(scan_of(cloud, IMAGE).findings) == 1
    assert cloud.started == 0


def test_a_scan_is_started_where_there_was_none():
    cloud = Answers(NO_SCAN, NO_SCAN, answer("IN_PROGRESS"), answer(findings=[BASIC]))
    assert len(scan_of(cloud, IMAGE).findings) == 1
    assert cloud.started == 1


def test_where_no_scan_is_and_none_can_be_started_that_is_said():
    told = scan_of(Answers(NO_SCAN, start=Refused("ValidationException: This feature is disabled")), IMAGE)
    assert "ScanNotFound" in told.error
    assert "This feature is disabled" in told.error


def test_looking_again_starts_a_new_scan_and_makes_do_with_todays_where_ecr_takes_no_other():
    cloud = Answers(answer(findings=[BASIC]), start=Refused("LimitExceededException: once a day"))
    told = scan_of(cloud, IMAGE, again=True)
    assert (cloud.started, told.error, len(told.findings)) == (1, "", 1)
    assert "once a day" in told.note


@pytest.mark.parametrize("status", ["FAILED", "UNSUPPORTED_IMAGE", "SCAN_ELIGIBILITY_EXPIRED", "FINDINGS_UNAVAILABLE"])
def test_a_scan_that_has_no_findings_to_give_is_no_pass(status):
    told = scan_of(Answers(answer(status)), IMAGE)
    assert f"it is {status}" in told.error


def test_old_findings_of_a_basic_scan_are_no_pass():
    assert "9 days old" in scan_of(Answers(answer(days=9)), IMAGE).error


def test_a_scan_is_not_waited_for_where_told_so():
    cloud = Answers(answer("IN_PROGRESS"))
    cloud.account = Account(wait=False)
    assert "is IN_PROGRESS" in scan_of(cloud, IMAGE).error


@pytest.mark.parametrize(
    ("reference", "region"),
    [
        (f"{ECR}/berth:1", "us-east-1"),
        (f"{ECR}/team/berth@{DIGEST}", "us-east-1"),
        (f"{ECR}/berth:1@{DIGEST}", "us-east-1"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/berth", "cn-north-1"),
        ("berth:latest", ""),
        ("docker.io/someone/berth:1", ""),
    ],
)
def test_an_image_in_ecr_is_told_from_others(reference, region):
    assert region_of(reference) == region


@pytest.fixture
def in_ecr(aws):
    """An image in ECR; its digest."""
    ecr = aws.client("ecr")
    ecr.create_repository(repositoryName="berth", imageScanningConfiguration={"scanOnPush": False})
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "layers": []}
    put = ecr.put_image(repositoryName="berth", imageManifest=json.dumps(manifest), imageTag="1")
    return put["image"]["imageId"]["imageDigest"]


def test_an_image_in_ecr_is_scanned_there_where_grype_is_not_installed(aws, in_ecr, no_grype, clean_lock):
    aws.findings("berth", in_ecr, [BASIC])
    status, output = run("--poll-s", "0", image=f"{ECR}/berth:1")
    assert status == 1, output
    assert "Start ECR's scan of berth@sha256:" in output
    assert re.search(r"^high +libxml2 +2\.12\.7 .* ECR +blocks$", output, re.MULTILINE)
    assert run("--poll-s", "0", image=f"{ECR}/berth@{in_ecr}")[0] == 1
    assert [call.operation for call in aws.calls].count("StartImageScan") == 1


def test_an_image_that_ecr_does_not_have_is_no_pass(aws, in_ecr, no_grype, clean_lock):
    status, output = run(image=f"{ECR}/berth:2")
    assert status == 2
    assert "COULD NOT SCAN" in output


# ---- what has come out since


def lock(**pins):
    return (
        "# == image ==\n"
        + "".join(f"{name}=={version} \\\n    --hash=sha256:0\n" for name, version in pins.items())
        + "# == end ==\n"
    )


def test_a_change_of_the_lock_is_told_with_its_sections():
    old = {"image": {"numpy": "2.4, 2.5", "gone": "1"}, "test": {"numpy": "2.4, 2.5"}}
    new = {"image": {"numpy": "2.4, 2.6", "new": "1"}, "test": {"numpy": "2.4, 2.6"}}
    body = as_markdown(changes(old, new), [])
    assert "| numpy | 2.4, 2.5 | 2.4, 2.6 | image, test |" in body
    assert "| gone | 1 | - | image |" in body
    assert "| new | - | 1 | image |" in body


def test_a_pin_that_holds_a_package_back_is_told_apart_from_what_the_lock_may_take():
    allowed, newest = versions(lock(flask="3.1.3", werkzeug="3.1")), versions(lock(flask="4.0", werkzeug="4.0"))
    behind = held_back('image = ["Flask==3.1.3", "werkzeug>=3"]', allowed, newest)
    assert [(one.package, one.old, one.new) for one in behind] == [("flask", "3.1.3", "4.0")]


def test_what_two_extras_pin_at_two_generations_and_what_only_comes_along_is_not_behind():
    allowed, newest = versions(lock(sagemaker="2.257")), versions(lock(sagemaker="3.27", flask="3.1.3"))
    assert held_back('sdk2 = ["sagemaker==2.257"]\nsdk3 = ["sagemaker==3.27"]\nimage = ["flask==3.1.3"]', allowed, newest) == []


def test_a_lock_that_is_the_newest_says_so():
    assert "nothing newer fits" in as_markdown([], [])


# ---- news


def test_a_finding_is_news_for_endpoints_that_were_not_told():
    found = {"a": [finding("CVE-1"), finding("CVE-2")], "b": [finding("CVE-1", version="2.0")]}
    running = {"a": ["one", "two"], "b": ["three"]}
    news = news_of(found, running, {"one": ["CVE-1 libxml2", "CVE-2 libxml2"], "two": ["CVE-2 libxml2"]}, lambda _finding: True)
    assert [(one.key, one.images, one.endpoints) for one in news] == [("CVE-1 libxml2", ("a", "b"), ("three", "two"))]


def test_the_subject_is_one_that_sns_takes():
    news = news_of({"a": [finding("CVE-ä", "p" * 200)]}, {"a": ["one"]}, {}, lambda _finding: True)[0]
    assert len(news.subject) == 100
    assert news.subject.isascii()


@pytest.fixture
def deployed(aws, in_ecr):
    """Two endpoints of the project that run the image in ECR, one of another project, a topic, and a queue that hears it."""
    make_model(aws, "housing")
    sagemaker = aws.client("sagemaker")
    sagemaker.create_model(
        ModelName="m",
        ExecutionRoleArn="arn:aws:iam::123456789012:role/berth",
        PrimaryContainer={"Image": f"{ECR}/berth@{in_ecr}"},
    )
    make_config(aws, "c", "m")
    for name, project in (("one", "berth"), ("two", "berth"), ("foreign", "other")):
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName="c", Tags=[{"Key": TAG, "Value": project}])
        settle(aws, "describe_endpoint", EndpointName=name)
    topic = aws.client("sns").create_topic(Name="news")["TopicArn"]
    queue = aws.client("sqs").create_queue(QueueName="heard")["QueueUrl"]
    arn = aws.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    aws.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)

    def heard():
        told = aws.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        for one in told:
            aws.client("sqs").delete_message(QueueUrl=queue, ReceiptHandle=one["ReceiptHandle"])
        return [json.loads(one["Body"]) for one in told]

    return SimpleNamespace(digest=in_ecr, topic=topic, heard=heard, find=lambda *found: aws.findings("berth", in_ecr, found))


def refresh(deployed, *words, topic=True):
    """Return exit status and output of `python -m deploy fresh --no-relock`."""
    flags = [
        "--no-relock",
        "--poll-s",
        "0",
        "--memory",
        f"s3://{BUCKET}/told.json",
        *(["--topic", deployed.topic] if topic else []),
    ]
    done = CliRunner().invoke(fresh, [*flags, *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.output


def test_a_new_finding_is_announced_once_with_package_fix_and_endpoints(deployed):
    deployed.find({**BASIC, "severity": "LOW"})
    assert refresh(deployed)[0] == 0
    assert deployed.heard() == []
    deployed.find(BASIC)
    status, output = refresh(deployed)
    assert (status, "1 new findings from high on" in output) == (0, True), output
    [message] = deployed.heard()
    assert message["Subject"] == "High: CVE-2026-1 in libxml2, run by 2 endpoints"
    for part in ("libxml2 2.12.7 (deb)", "Fixed in: no version is known yet", "us-east-1", "one, two", deployed.digest):
        assert part in message["Message"]
    assert "foreign" not in message["Message"]
    assert refresh(deployed)[0] == 0
    assert deployed.heard() == []


def test_a_run_that_is_cut_short_tells_the_rest_next_time_and_nothing_twice(aws, deployed):
    deployed.find(*({**BASIC, "name": f"CVE-2026-{number}"} for number in range(3)))
    aws.fail(2, "refused", operation="Publish")
    assert refresh(deployed)[0] == 1
    assert len(deployed.heard()) == 1
    assert refresh(deployed)[0] == 0
    assert len(deployed.heard()) == 2


def test_where_nothing_can_be_remembered_nothing_is_told(deployed):
    deployed.find(BASIC)
    status, output = refresh(deployed, "--memory", "s3://no-such-bucket-of-ours/told.json")
    assert status == 1
    assert "--memory s3://BUCKET/KEY" in output
    assert deployed.heard() == []


@pytest.mark.parametrize("address", ["told.json", "s3://bucket", "s3:///key", "https://bucket/key"])
def test_an_address_of_the_memory_that_is_none_is_refused(deployed, address):
    status, output = refresh(deployed, "--memory", address)
    assert status == 2
    assert "s3://BUCKET/KEY was expected" in output


def test_an_allowed_finding_is_no_news(deployed, allow):
    deployed.find(BASIC)
    assert refresh(deployed, *allow(entry()))[0] == 0
    assert deployed.heard() == []


def test_an_endpoint_that_comes_to_run_it_later_is_told_of_alone(aws, deployed):
    deployed.find(BASIC)
    refresh(deployed)
    deployed.heard()
    aws.client("sagemaker").create_endpoint(EndpointName="three", EndpointConfigName="c", Tags=[{"Key": TAG, "Value": "berth"}])
    settle(aws, "describe_endpoint", EndpointName="three")
    refresh(deployed)
    [message] = deployed.heard()
    assert "run by 1 endpoint" in message["Subject"]
    assert "three" in message["Message"]


def test_an_endpoint_that_is_gone_is_forgotten(aws, deployed):
    deployed.find(BASIC)
    refresh(deployed)
    for name in ("one", "two"):
        aws.client("sagemaker").delete_endpoint(EndpointName=name)
    aws.looks(0)
    status, output = refresh(deployed)
    assert status == 0
    assert "0 endpoints of berth run 0 images" in output
    assert json.loads(aws.client("s3").get_object(Bucket=BUCKET, Key="told.json")["Body"].read()) == {"told": {}}


def test_without_a_topic_news_fails_and_is_not_taken_for_told(deployed):
    deployed.find(BASIC)
    status, output = refresh(deployed, topic=False)
    assert status == 1
    assert "nobody was told" in output
    refresh(deployed)
    assert len(deployed.heard()) == 1


def test_an_image_that_can_not_be_scanned_is_named(aws, deployed):
    sagemaker = aws.client("sagemaker")
    sagemaker.create_model(
        ModelName="d",
        ExecutionRoleArn="arn:aws:iam::123456789012:role/berth",
        PrimaryContainer={"Image": "docker.io/someone/berth:1"},
    )
    make_config(aws, "d", "d")
    sagemaker.create_endpoint(EndpointName="hub", EndpointConfigName="d", Tags=[{"Key": TAG, "Value": "berth"}])
    settle(aws, "describe_endpoint", EndpointName="hub")
    deployed.find(BASIC)
    status, output = refresh(deployed)
    assert status == 2
    assert "docker.io/someone/berth:1 is not in ECR of us-east-1" in re.sub(r"\s+", " ", output)
    assert len(deployed.heard()) == 1, "the others are announced all the same"


@pytest.mark.parametrize("variants", ["ProductionVariants", "ShadowProductionVariants"])
def test_the_image_that_sagemaker_pulled_goes_before_what_a_model_names(variants):
    deployed = [{"SpecifiedImage": "berth:1", "ResolvedImage": f"{ECR}/berth@{DIGEST}"}]
    cloud = SimpleNamespace(
        account=Account(),
        pages=lambda *_asked, **_how: [{"ResourceARN": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/one"}],
        find=lambda *_asked, **_how: {variants: [{"DeployedImages": deployed}], "EndpointConfigName": "c"},
    )
    assert images_of_endpoints(cloud) == {f"{ECR}/berth@{DIGEST}": ["one"]}


def test_an_endpoint_whose_image_is_not_known_is_named():
    answers = {"describe_endpoint": {"EndpointConfigName": "c", "ProductionVariants": [{"VariantName": "all"}]}}
    cloud = SimpleNamespace(
        account=Account(),
        region="us-east-1",
        pages=lambda *_asked, **_how: [{"ResourceARN": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/one"}],
        find=lambda _service, operation, **_how: answers.get(operation),
    )
    assert rescanned(cloud, images_of_endpoints(cloud)) == ({}, ["What one runs is not in ECR of us-east-1"])


def test_a_dry_run_tells_nobody(aws, deployed):
    deployed.find(BASIC)
    assert refresh(deployed, "--dry-run")[0] == 2  # no scan was there, and none is started
    aws.client("ecr").start_image_scan(repositoryName="berth", imageId={"imageDigest": deployed.digest})
    status, output = refresh(deployed, "--dry-run")
    assert status == 0
    assert '"operation": "Publish"' in output
    assert deployed.heard() == []
    assert "Publish" not in {call.operation for call in aws.calls}
