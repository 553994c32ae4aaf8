"""What scanners find, in one shape; whatever finds it, a vulnerability of a package is told once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

SEVERITIES = ("unknown", "negligible", "low", "medium", "high", "critical", "unrated")
"""In rising order. `unknown`: its source rates findings, and has not come to this one. `unrated`: its source rates none, so
that nobody has said that it is harmless; it counts as the gravest."""
GATES = ("low", "medium", "high", "critical")
NAMED = {"informational": "negligible", "undefined": "unknown", "untriaged": "unknown", "": "unknown"}
"""Other scanners' words for a severity."""


@dataclass(frozen=True)
class Finding:
    """A vulnerability of one version of one package."""

    id: str
    package: str
    version: str
    type: str
    """What the package is: `deb`, `python`, or the scanner's word."""
    severity: str
    source: tuple[str, ...]
    """Which scanners found it."""
    aliases: tuple[str, ...] = ()
    fixed_in: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """All that it is called."""
        return {self.id, *self.aliases}

    @property
    def rank(self) -> int:
        """How grave it is, to compare with others."""
        return SEVERITIES.index(self.severity)

    def reaches(self, gate: str) -> bool:
        """Say whether it is as grave as a gate's severity, or graver."""
        return self.rank >= SEVERITIES.index(gate)

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Scan:
    """What one scanner said, or why it said nothing."""

    scanner: str
    subject: str
    """What it looked at."""
    findings: tuple[Finding, ...] = ()
    note: str = ""
    error: str = ""
    """Why it could not look, or not at all of it: then a lack of findings means nothing."""

    def as_json(self) -> dict[str, Any]:
        """Return it for machines, with its findings counted."""
        return {**asdict(self), "findings": len(self.findings)}


def severity(word: str | None) -> str:
    """Return a scanner's word for a severity as ours; what is none of them is unknown."""
    said = (word or "").lower()
    said = NAMED.get(said, said)
    return said if said in SEVERITIES else "unknown"


def united(findings: Iterable[Finding]) -> list[Finding]:
    """Return each vulnerability of a package once, the gravest first.

    Two findings are one where package, version and type are the same and they share a name: pip-audit tells PYSEC-2026-1 with
    its alias CVE-2026-1, grype GHSA-.. with the same.
    """
    told: list[Finding] = []
    for finding in findings:
        same = next((one for one in told if _is_same(one, finding)), None)
        if same is None:
            told.append(finding)
        else:
            told[told.index(same)] = _joined(same, finding)
    return sorted(told, key=lambda one: (-one.rank, one.package, one.id))


def canonical(package: str) -> str:
    """Return a package's name as it is compared: Python's may be written with hyphens, dots or underscores."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _is_same(one: Finding, other: Finding) -> bool:
    found, told = ((canonical(each.package), each.version, each.type) for each in (one, other))
    return found == told and not one.names.isdisjoint(other.names)


def _joined(one: Finding, other: Finding) -> Finding:
    """Return both as one: the graver rating of those that rate."""
    rated = [each.severity for each in (one, other) if each.severity != "unrated"]
    return replace(
        one,
        severity=max(rated, key=SEVERITIES.index) if rated else "unrated",
        source=_distinct(one.source + other.source),
        aliases=tuple(sorted((one.names | other.names) - {one.id})),
        fixed_in=_distinct(one.fixed_in + other.fixed_in),
    )


def _distinct(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))
