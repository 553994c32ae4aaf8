"""`scan`: whether an image has a vulnerability that is known and grave; what could not be looked at is no pass."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from deploy.cloud import Cloud
from deploy.errors import BadSettings, DeployError, Rejected, Unscanned
from deploy.options import takes
from deploy.programs import ROOT
from deploy.settings import Account, Gate
from deploy.supply.allowed import Allowance, Allowed, read_allowance
from deploy.supply.ecr import region_of, scan_of, stored
from deploy.supply.findings import GATES, Finding, Scan, united
from deploy.supply.scanners import grype, pip_audit

CLEAN, FOUND, NOT_SCANNED = 0, 1, 2


@dataclass(frozen=True)
class Judgement:
    """What all scanners said of an image, held against a gate."""

    image: str
    gate: str
    scans: tuple[Scan, ...]
    allowance: Allowance

    @property
    def findings(self) -> list[Finding]:
        """What was found, each once, the gravest first."""
        return united(finding for scan in self.scans for finding in scan.findings)

    @property
    def blocking(self) -> list[Finding]:
        """The findings that the image fails by."""
        return [finding for finding in self.findings if self.verdict(finding) == "blocks"]

    @property
    def unused(self) -> list[Allowed]:
        """Entries of the allowance that no finding needs."""
        return self.allowance.unused(self.findings)

    @property
    def unscanned(self) -> list[Scan]:
        """The scans that failed."""
        return [scan for scan in self.scans if scan.error]

    def verdict(self, finding: Finding) -> str:
        """Return what becomes of a finding: blocks, allowed or below."""
        if not finding.reaches(self.gate):
            return "below"
        return "allowed" if self.allowance.entry_of(finding) else "blocks"

    def exit_code(self, *, unscanned_ok: bool) -> int:
        """Return 0 where the image passes, 1 where findings or expired entries stop it, 2 where it could not be scanned."""
        if self.blocking or self.allowance.expired:
            return FOUND
        return NOT_SCANNED if self.unscanned and not unscanned_ok else CLEAN

    def as_json(self, exit_code: int) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "image": self.image,
            "fail_on": self.gate,
            "passed": exit_code == CLEAN,
            "exit_code": exit_code,
            "scans": [scan.as_json() for scan in self.scans],
            "findings": [{**finding.as_json(), "verdict": self.verdict(finding)} for finding in self.findings],
            "expired": [str(entry) for entry in self.allowance.expired],
            "unused": [str(entry) for entry in self.unused],
        }


@click.command()
@click.argument("image")
@takes(Account, Gate)
@click.option("--no-allow", is_flag=True, help="Let nothing pass, whatever the file of allowed findings says (M-9).")
@click.option("--unscanned-ok", is_flag=True, help="Pass although something could not be scanned.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write all findings to this file.")
@click.option("--all", "every", is_flag=True, help="Print the findings below the gate too.")
def scan(
    account: Account, gate: Gate, *, image: str, no_allow: bool, unscanned_ok: bool, file: Path | None, every: bool
) -> None:
    """Look for known vulnerabilities in IMAGE, and fail by those at or above --fail-on.

    An image is looked into by grype where that is installed, else by ECR where it is there (the full reference with account
    and Region); requirements.lock by pip-audit. Exit status: 0 passed, 1 findings, 2 something could not be scanned.
    """
    if gate.fail_on not in GATES:
        raise BadSettings(f"--fail-on is {gate.fail_on!r}; one of {', '.join(GATES)} was expected.")
    allowance = Allowance() if no_allow else allowance_of(gate.allow)
    judgement = Judgement(image, gate.fail_on, (look_into(account, image), pip_audit(ROOT)), allowance)
    code = judgement.exit_code(unscanned_ok=unscanned_ok)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(judgement.as_json(code), indent=2) + "\n")
    for line in lines_of(judgement, every=every):
        click.echo(line)
    if code == FOUND:
        raise Rejected(
            f"{image} does not pass. Build anew on newer packages, or name the finding in {gate.allow}, with a reason."
        )
    if code == NOT_SCANNED:
        raise Unscanned(
            "Not all could be scanned, so that a lack of findings means nothing. --unscanned-ok passes all the same."
        )
    click.echo(f"{image} passes" + (", THOUGH NOT ALL WAS SCANNED." if judgement.unscanned else "."))
    if not region_of(image):
        click.echo(f"Next: python -m deploy push --image {image}")


def allowance_of(name: str) -> Allowance:
    """Return what a file lets pass today; nothing where the default file is not there."""
    path = Path(name)
    if name == Gate.allow:
        path = ROOT / name
        if not path.exists():
            return Allowance()
    return read_allowance(path, dt.datetime.now(dt.UTC).date())


def look_into(account: Account, image: str) -> Scan:
    """Return what a scanner finds in an image: grype, else ECR, else why there is none."""
    if told := grype(image):
        return told
    region = region_of(image)
    if not region:
        error = (
            "grype is not on PATH, and this is no image in ECR, which could scan it. Install grype, or push the image and scan"
        )
        return Scan("none", image, error=f"{error} ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME@DIGEST.")
    try:
        cloud = Cloud(replace(account, region=region))
        return scan_of(cloud, stored(cloud, image))
    except DeployError as error:
        return Scan("ECR", image, error=error.message)


def lines_of(judgement: Judgement, *, every: bool) -> Iterable[str]:
    """Yield the report for people: what was scanned, a table, and what it comes to."""
    for told in judgement.scans:
        state = f"COULD NOT SCAN: {told.error}" if told.error else f"{len(told.findings)} findings"
        yield f"{told.scanner}, {told.subject}: {state}" + (f" ({told.note})" if told.note else "")
    shown = [finding for finding in judgement.findings if every or judgement.verdict(finding) != "below"]
    if shown:
        yield from _table([HEADINGS, *(_row(judgement, finding) for finding in shown)])
    for entry in judgement.allowance.expired:
        yield f"EXPIRED: {entry}. Update the package, or look again and give the entry another day."
    for entry in judgement.unused:
        yield f"Not needed any more, remove it: {entry}"
    yield _sum(judgement)


HEADINGS = ("severity", "package", "version", "fixed in", "id", "type", "found by", "verdict")


def _row(judgement: Judgement, finding: Finding) -> Sequence[str]:
    entry = judgement.allowance.entry_of(finding)
    verdict = judgement.verdict(finding)
    return (
        finding.severity,
        finding.package,
        finding.version,
        ", ".join(finding.fixed_in) or "-",
        finding.id,
        finding.type,
        ", ".join(finding.source),
        f"allowed until {entry.expires}: {entry.reason}" if entry and verdict == "allowed" else verdict,
    )


def _table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _sum(judgement: Judgement) -> str:
    """Say how many findings there are of each severity, and of each verdict."""
    graveness = Counter(finding.severity for finding in judgement.findings)
    verdicts = Counter(judgement.verdict(finding) for finding in judgement.findings)
    counted = ", ".join(f"{number} {word}" for word, number in graveness.items()) or "none"
    return f"Findings: {counted}. From {judgement.gate} on: {verdicts['blocks']} block, {verdicts['allowed']} allowed."
