"""M-9: no critical or high vulnerability, whether a fix is out or not, and whatever this project lets pass elsewhere.

Other bases are scanned by the same scanner, so that the cleaner one is named by what was seen of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.market.verdicts import Status, Verdict
from deploy.settings import Account
from deploy.supply.allowed import Allowance
from deploy.supply.findings import Scan
from deploy.supply.scan import Judgement, look_into
from deploy.supply.scanners import pip_audit

ROOT = Path(__file__).resolve().parents[2]
GATE = "high"
TITLE = "no critical or high vulnerability is known, fixed or not"
SHOWN = 8


def judge(account: Account, image: str, candidates: Sequence[str], *, unscanned_ok: bool) -> Verdict:
    """Return what the scanners say of an image.

    Args:
        account: where ECR is asked, where no scanner is here.
        image: as the engine here or a registry knows it.
        candidates: other images to build on, scanned only where this one fails.
        unscanned_ok: excuse what could not be scanned.
    """
    judgement = Judgement(image, GATE, (look_into(account, image), pip_audit(ROOT)), Allowance())
    said = "; ".join(f"{scan.scanner} ({scan.subject}): {scan.error or _count(scan)}" for scan in judgement.scans)
    if judgement.blocking:
        named = ", ".join(f"{one.id} in {one.package} ({one.severity})" for one in judgement.blocking[:SHOWN])
        told = f"{len(judgement.blocking)} critical or high: {named}. {said}"
        return Verdict("M-9", TITLE, Status.BROKEN, told, _cure(account, judgement, candidates), "scan")
    if judgement.unscanned:
        fix = "Install grype, or push the image and name it as ECR has it. --unscanned-ok goes on without."
        return Verdict("M-9", TITLE, Status.UNJUDGED, said, fix, "scan", unscanned_ok)
    return Verdict("M-9", TITLE, Status.KEPT, said, part="scan")


def _cure(account: Account, judgement: Judgement, candidates: Sequence[str]) -> str:
    """Return what to do: to build on the cleanest of some bases that was scanned."""
    if not candidates:
        return (
            "Build anew on newer packages. Or name other bases, --base-candidates IMAGE: they are scanned, and the cleaner "
            "one is named. deploy/allow.toml counts for nothing here."
        )
    scans = {name: look_into(account, name) for name in candidates}
    shown = "; ".join(f"{name}: {scan.error or _count(scan)}" for name, scan in scans.items())
    seen = {name: _grave(scan) for name, scan in scans.items() if not scan.error}
    best = min(seen, key=lambda name: seen[name], default="")
    if best and seen[best] < _grave(judgement.scans[0]):
        return f"Build on the cleaner base: make image BASE_IMAGE={best}. Scanned: {shown}."
    return f"None of the bases is cleaner; name others, --base-candidates IMAGE. Scanned: {shown}."


def _grave(scan: Scan) -> int:
    return sum(finding.reaches(GATE) for finding in scan.findings)


def _count(scan: Scan) -> str:
    return f"{_grave(scan)} critical or high of {len(scan.findings)} findings"
