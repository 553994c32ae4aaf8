"""What Amazon ECR found in an image that it holds: its basic scan and the enhanced one of Amazon Inspector, read as one."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deploy.cloud import Cloud
from deploy.errors import BadSettings, DeployError, Failed, NotThere, Refused
from deploy.supply.findings import Finding, Scan, severity
from deploy.waiting import State, wait

REFERENCE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?"
    r"/(?P<repository>[^:@]+)(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
"""An image in ECR, as a program that pulls it writes it."""
READABLE = ("COMPLETE", "ACTIVE")
"""States of a scan with findings to read: the basic one is done, the enhanced one goes on for as long as the image is there."""
RUNNING = ("IN_PROGRESS", "PENDING")
CURE = "Scan it by another way (grype), or have the repository scan on push (M-9)."
MOST_WAIT_S = 1_800
STALE_DAYS = 2
"""A basic scan knows what was known on its day; ECR starts one a day at most."""
TYPES = {"OS": "deb", "PIP": "python", "PIPENV": "python", "POETRY": "python", "PYTHONPKG": "python"}
"""Inspector's package managers, as this repository names the types; Berth's image is Debian."""


@dataclass(frozen=True)
class Stored:
    """An image that ECR holds."""

    account: str
    repository: str
    digest: str

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}"

    @property
    def key(self) -> dict[str, Any]:
        """What names it in ECR's requests."""
        return {"registryId": self.account, "repositoryName": self.repository, "imageId": {"imageDigest": self.digest}}


def region_of(reference: str) -> str:
    """Return the Region of an image in ECR; nothing where a reference names another registry's, or one of this machine."""
    found = REFERENCE.fullmatch(reference)
    return found["region"] if found else ""


def stored(cloud: Cloud, reference: str) -> Stored:
    """Return the image that a reference means, its tag looked up; the cloud is that of the image's Region.

    Raises:
        NotThere: ECR has no such image.
        BadSettings: it is no reference to an image in ECR.
    """
    found = REFERENCE.fullmatch(reference)
    if not found:
        raise BadSettings(
            f"{reference} is no image in ECR: ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME@sha256:DIGEST was expected."
        )
    digest = found["digest"]
    if not digest:
        request = {"registryId": found["account"], "repositoryName": found["repository"]}
        told = cloud.read("ecr", "describe_images", **request, imageIds=[{"imageTag": found["tag"] or "latest"}])
        digest = str(told["imageDetails"][0]["imageDigest"])
    return Stored(found["account"], found["repository"], digest)


def scan_of(cloud: Cloud, image: Stored, *, again: bool = False) -> Scan:
    """Return what ECR found; waits for a scan that runs, and starts one where there was none.

    Args:
        cloud: how to ask, and how often to look.
        image: which.
        again: start a new basic scan, as the last one knows only what was known then; ECR takes one a day.
    """
    note = ""
    try:
        known = _state(cloud, image).status
        if again or not known:
            note = _start(cloud, image)
        if cloud.account.wait and (known or not note):
            began = time.monotonic()
            wait(cloud, f"Scan of {image}", lambda: _state(cloud, image, time.monotonic() - began))
        return _read(cloud, image, note)
    except DeployError as error:
        return Scan("ECR", str(image), error=f"{error.message} {note}".strip())


def _state(cloud: Cloud, image: Stored, waited_s: float = 0) -> State:
    """Look once; without a scan the status is empty."""
    try:
        answer = cloud.read("ecr", "describe_image_scan_findings", **image.key, maxResults=1)
    except NotThere as error:
        if "ScanNotFound" not in error.message:
            raise
        answer = {"imageScanStatus": {"status": ""}}
    status, why = answer["imageScanStatus"]["status"], answer["imageScanStatus"].get("description", "")
    if status not in (*READABLE, *RUNNING, ""):
        return State(status, failure=f"{why or 'ECR does not say why'}. {CURE}")
    late = f"not done after {MOST_WAIT_S // 60} minutes. Run the same command again later." if waited_s > MOST_WAIT_S else ""
    return State(status, done=status in READABLE, failure=late if status not in READABLE else "")


def _start(cloud: Cloud, image: Stored) -> str:
    """Start a basic scan; where ECR takes none, return what it said: then the findings that are there have to do."""
    try:
        cloud.change("ecr", "start_image_scan", f"Start ECR's scan of {image}", **image.key)
    except Refused as error:
        return f"No new scan was started: {error.message}"
    return "No new scan was started: this is a dry run." if cloud.account.dry_run else ""


def _read(cloud: Cloud, image: Stored, note: str) -> Scan:
    findings: list[Finding] = []
    answer: dict[str, Any] = {}
    for answer in _pages(cloud, image):
        told = answer.get("imageScanFindings", {})
        findings += [_of_basic(one) for one in told.get("findings", ())]
        findings += [found for one in told.get("enhancedFindings", ()) for found in _of_enhanced(one)]
    if (status := answer["imageScanStatus"]["status"]) not in READABLE:
        raise Failed(f"The scan of {image} is {status}. Run the same command again later.")
    return Scan("ECR", str(image), tuple(findings), note, _stale(answer))


def _pages(cloud: Cloud, image: Stored) -> Iterator[dict[str, Any]]:
    more: dict[str, str] = {}
    while True:
        answer = cloud.read("ecr", "describe_image_scan_findings", **image.key, **more)
        yield answer
        if not answer.get("nextToken"):
            return
        more = {"nextToken": answer["nextToken"]}


def _stale(answer: dict[str, Any]) -> str:
    """Say where a basic scan is too old to mean something."""
    done = answer.get("imageScanFindings", {}).get("imageScanCompletedAt")
    if answer["imageScanStatus"]["status"] != "COMPLETE" or not isinstance(done, dt.datetime):
        return ""
    days = (dt.datetime.now(dt.UTC) - done).days
    return f"ECR's findings are {days} days old" if days > STALE_DAYS else ""


def _of_basic(told: dict[str, Any]) -> Finding:
    """Read a finding of the basic scan, which looks at the system's packages alone."""
    attributes = {one["key"]: one.get("value", "") for one in told.get("attributes", ())}
    fixed = attributes.get("patched_version", attributes.get("fixed_in_version", ""))
    return Finding(
        id=told["name"],
        package=attributes.get("package_name", "unknown"),
        version=attributes.get("package_version", "unknown"),
        type="deb",
        severity=severity(told.get("severity")),
        source=("ECR",),
        fixed_in=(fixed,) if fixed else (),
    )


def _of_enhanced(told: dict[str, Any]) -> Iterator[Finding]:
    """Read a finding of Inspector's: one for each package that it names."""
    details = told.get("packageVulnerabilityDetails") or {}
    if told.get("status") == "CLOSED" or not details:
        return
    for package in details.get("vulnerablePackages") or [{}]:
        fixed = package.get("fixedInVersion", "")
        yield Finding(
            id=details.get("vulnerabilityId") or told.get("title", "unknown"),
            package=package.get("name", "unknown"),
            version=_version(package),
            type=TYPES.get(package.get("packageManager", ""), package.get("packageManager", "unknown").lower()),
            severity=severity(told.get("severity")),
            source=("ECR",),
            aliases=tuple(details.get("relatedVulnerabilities") or ()),
            fixed_in=(fixed,) if fixed and fixed != "NotAvailable" else (),
        )


def _version(package: dict[str, Any]) -> str:
    """Return a version as Debian writes it: Inspector tells its epoch and its release apart."""
    epoch = f"{package['epoch']}:" if package.get("epoch") else ""
    release = f"-{package['release']}" if package.get("release") else ""
    return f"{epoch}{package.get('version', 'unknown')}{release}"
