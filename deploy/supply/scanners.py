"""The programs that look for vulnerabilities on this machine: grype in an image, pip-audit in the lock.

A scanner that can't look says why; that is no pass.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.supply.findings import Finding, Scan, severity

SCAN_S = 900
"""grype fetches its database of several hundred megabytes first, and unpacks the image."""
SECTIONS = ("image", "fast")
"""Of requirements.lock: what the image holds."""
PINNED = re.compile(r"^([\w.-]+)==([^\s;]+)(?: *;[^\\\n]*)?((?: *\\\n +--hash=\S+)+)", re.MULTILINE)
"""A requirement of the lock: name, version, hashes; its marker is passed over."""


def grype(image: str) -> Scan | None:
    """Return what grype finds in an image, Debian and Python packages alike; None where grype is not installed.

    It looks into the image itself rather than its SBOM, and so sees also what no package manager has put there.
    """
    program = shutil.which("grype")
    if program is None:
        return None
    try:
        done = _run([program, "--quiet", "--output", "json", image])
        report = json.loads(done.stdout) if done.returncode == 0 else None
    except subprocess.TimeoutExpired:
        return Scan("grype", image, error=f"grype took over {SCAN_S} s. Run `grype {image}` by itself, then again.")
    except json.JSONDecodeError as error:
        return Scan("grype", image, error=f"grype printed no JSON: {error}")
    if report is None:
        return Scan("grype", image, error=f"grype failed: {_last_line(done.stderr)}")
    return Scan("grype", image, tuple(_of_grype(match) for match in report.get("matches") or []), _grype_note(report))


def _of_grype(match: Any) -> Finding:
    vulnerability, artifact = match["vulnerability"], match["artifact"]
    return Finding(
        id=vulnerability["id"],
        package=artifact["name"],
        version=artifact["version"],
        type=artifact["type"],
        severity=severity(vulnerability.get("severity")),
        source=("grype",),
        aliases=tuple(
            related["id"] for related in match.get("relatedVulnerabilities") or [] if related["id"] != vulnerability["id"]
        ),
        fixed_in=tuple((vulnerability.get("fix") or {}).get("versions") or ()),
    )


def _grype_note(report: Any) -> str:
    """Return which grype it was, how old its knowledge is, and whether it was told to ignore something."""
    descriptor = report.get("descriptor") or {}
    database = descriptor.get("db") or {}
    built = (database.get("status") or database).get("built", "")  # since its sixth schema one level deeper
    ignored = len(report.get("ignoredMatches") or [])
    return (
        f"grype {descriptor.get('version', '')}"
        + (f", its database of {built}" if built else "")
        + (f", {ignored} more ignored by rules of its own" if ignored else "")
    )


def pip_audit(root: Path) -> Scan:
    """Return what pip-audit knows of what requirements.lock puts into the image, whatever Python that has.

    Its JSON has no severities, so its findings are unrated. PIP_AUDIT_VULNERABILITY_SERVICE=osv and PIP_AUDIT_OSV_URL ask
    another service than PyPI's. Where PyPI answers `not found`, as mirrors without its JSON API do, pip-audit itself counts
    the package as skipped and ends well: here that is a failure.
    """
    subject = f"requirements.lock, {' and '.join(SECTIONS)}"
    packages: list[dict[str, Any]] = []
    trouble = ""
    try:
        for requirements in rounds((root / "requirements.lock").read_text()):
            packages += _audited(requirements)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        trouble = f"pip-audit failed: {error}"
    skipped = [package["skip_reason"] for package in packages if "skip_reason" in package]
    if skipped and not trouble:
        trouble = f"pip-audit could not look up {len(skipped)} of {len(packages)} packages, such as: {skipped[0]}"
    findings = tuple(_of_pip_audit(package, told) for package in packages for told in package.get("vulns", ()))
    return Scan("pip-audit", subject, findings, f"{len(packages) - len(skipped)} packages", trouble)


def rounds(lock: str) -> list[str]:
    """Return requirements files of the lock's sections that together name all versions that any Python may get.

    pip-audit reads markers by the Python that runs it, which need not be the image's, and refuses a package with two
    versions: so markers are dropped, and a second version goes into the next file.

    Raises:
        ValueError: the lock is not as .ci/lock writes it, so that something would be left out.
    """
    found = [re.search(rf"^# == {section} ==\n(.*?)(?=^# == )", lock, re.MULTILINE | re.DOTALL) for section in SECTIONS]
    text = "".join(section[1] for section in found if section)
    pinned = PINNED.findall(text)
    if not all(found) or not pinned or len(pinned) != len(re.findall("^[^ #\n]", text, re.MULTILINE)):
        raise ValueError(f"requirements.lock has not the form that `make lock` gives it, in {' or '.join(SECTIONS)}")
    files: list[dict[str, str]] = []
    for name, version, hashes in pinned:
        file = next((file for file in files if name not in file), None)
        if file is None:
            files.append(file := {})
        file[name] = f"{name}=={version} {hashes.strip()}\n"
    return ["".join(file.values()) for file in files]


def _audited(requirements: str) -> list[dict[str, Any]]:
    """Return what pip-audit says of each package; raises ValueError where it says nothing."""
    options = ["--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off", "--desc", "off"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text(requirements)
        done = _run([sys.executable, "-m", "pip_audit", *options, "--aliases", "on", "--requirement", str(file)])
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        raise ValueError(_last_line(done.stderr) or f"it ended with {done.returncode}") from None
    return packages


def _of_pip_audit(package: dict[str, Any], told: dict[str, Any]) -> Finding:
    return Finding(
        id=told["id"],
        package=package["name"],
        version=package["version"],
        type="python",
        severity="unrated",
        source=("pip-audit",),
        aliases=tuple(told.get("aliases") or ()),
        fixed_in=tuple(told.get("fix_versions") or ()),
    )


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=SCAN_S, check=False)  # noqa: S603


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][-500:]
