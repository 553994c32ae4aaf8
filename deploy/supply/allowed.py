"""The findings that are let pass for a while, each with a reason and a last day: no entry is for ever."""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from deploy.errors import BadSettings
from deploy.supply.findings import Finding, canonical

LONGEST_DAYS = 183
"""Half a year: whoever needs longer looks again and says so."""


@dataclass(frozen=True)
class Allowed:
    """One entry: `[[allow]]` in the file, all of its fields given."""

    id: str
    package: str
    reason: str
    expires: dt.date
    """The last day on which it holds."""

    def covers(self, finding: Finding) -> bool:
        """Say whether a finding is the one that it speaks of."""
        return self.id in finding.names and canonical(self.package) == canonical(finding.package)

    def __str__(self) -> str:
        return f"{self.id} in {self.package}, until {self.expires}: {self.reason}"


@dataclass(frozen=True)
class Allowance:
    """The entries of a file on one day, and what they did."""

    holding: tuple[Allowed, ...] = ()
    expired: tuple[Allowed, ...] = ()

    def entry_of(self, finding: Finding) -> Allowed | None:
        """Return the entry that lets a finding pass."""
        return next((entry for entry in self.holding if entry.covers(finding)), None)

    def unused(self, findings: Iterable[Finding]) -> list[Allowed]:
        """Return the entries that no finding needs any more."""
        told = list(findings)
        return [entry for entry in self.holding if not any(entry.covers(finding) for finding in told)]


def read_allowance(path: Path, today: dt.date) -> Allowance:
    """Return what a file lets pass today.

    Args:
        path: a TOML file of `[[allow]]` tables.
        today: entries hold up to and on their last day.

    Raises:
        BadSettings: it can't be read, or an entry lacks a field, has one too many, or holds for too long.
    """
    try:
        told = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadSettings(f"The file of allowed findings {path} can't be read: {error}") from None
    tables = told.get("allow", [])
    if set(told) - {"allow"} or not isinstance(tables, list):
        raise BadSettings(f"{path} has {', '.join(told)}; tables that begin with [[allow]] were expected, and nothing else.")
    entries = [_entry(table, f"{path}, entry {number}", today) for number, table in enumerate(tables, 1)]
    _check_once(entries, path)
    return Allowance(
        tuple(entry for entry in entries if entry.expires >= today), tuple(entry for entry in entries if entry.expires < today)
    )


def _entry(table: Any, where: str, today: dt.date) -> Allowed:
    wanted = [field.name for field in fields(Allowed)]
    if not isinstance(table, dict) or set(table) != set(wanted):
        found = ", ".join(table) if isinstance(table, dict) else repr(table)
        raise BadSettings(f"{where} has {found or 'nothing'}; it takes {', '.join(wanted)}, and each of them.")
    for name in ("id", "package", "reason"):
        if not isinstance(table[name], str) or not table[name].strip():
            raise BadSettings(f"{where}: {name} is {table[name]!r}; a text was expected.")
    expires = table["expires"]
    if isinstance(expires, dt.datetime) or not isinstance(expires, dt.date):
        raise BadSettings(f"{where}: expires is {expires!r}; a date without quotes was expected, such as {today}.")
    if expires > (last := today + dt.timedelta(days=LONGEST_DAYS)):
        raise BadSettings(f"{where} holds until {expires}; name a day up to {last}, and look again then.")
    return Allowed(**table)


def _check_once(entries: Sequence[Allowed], path: Path) -> None:
    seen: set[tuple[str, str]] = set()
    for entry in entries:
        if (entry.id, entry.package) in seen:
            raise BadSettings(f"{path} has {entry.id} in {entry.package} twice; keep one of both.")
        seen.add((entry.id, entry.package))
