"""What a new requirements.lock would change, as a pull request tells it: what the pins allow, and what they hold back."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import Failed
from deploy.supply.findings import canonical

LOCK_S = 900
Versions = Mapping[str, Mapping[str, str]]
"""Section of the lock -> package -> its version; where Pythons get different ones, all of them."""


@dataclass(frozen=True)
class Change:
    """A package whose version would be another one; nothing stands for a package that is not there."""

    package: str
    old: str
    new: str
    sections: tuple[str, ...]


def relocked(root: Path, *, relaxed: bool = False) -> str:
    """Return the lock that `make lock` would write now.

    Args:
        root: of the repository, with its .venv; nothing in it is changed.
        relaxed: as if pyproject.toml pinned nothing exactly, but asked for what it pins or newer.

    Raises:
        Failed: the versions can't be chosen; the resolver's words are in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / ".ci").mkdir()
        (scratch / ".ci" / "lock").write_text((root / ".ci" / "lock").read_text())
        (scratch / ".venv").symlink_to((root / ".venv").resolve())
        project = (root / "pyproject.toml").read_text()
        (scratch / "pyproject.toml").write_text(PIN.sub(r"\1>=\2", project) if relaxed else project)
        try:
            done = subprocess.run(  # noqa: S603
                ["/usr/bin/env", "bash", scratch / ".ci" / "lock"], capture_output=True, text=True, timeout=LOCK_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"Choosing versions took over {LOCK_S} s. Run `make lock` by itself, then again.") from None
    if done.returncode:
        raise Failed(
            f"No versions could be chosen ({'pins relaxed' if relaxed else 'make lock'}): {done.stderr[-1500:].strip()}"
        )
    return done.stdout


PIN = re.compile(r'("[\w.-]+(?:\[[\w,]+\])?)==(\d)')
"""An exact version in pyproject.toml."""


def versions(lock: str) -> Versions:
    """Return what each section of a lock installs."""
    found: dict[str, dict[str, str]] = {}
    for section, text in re.findall(r"^# == (\S+) ==\n(.*?)(?=^# == )", lock, re.MULTILINE | re.DOTALL):
        told: dict[str, list[str]] = defaultdict(list)
        for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
            told[name].append(version)
        found[section] = {name: ", ".join(each) for name, each in told.items()}
    return found


def changes(old: Versions, new: Versions) -> list[Change]:
    """Return what differs between two locks, a change once with all of its sections."""
    where: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for section in {**old, **new}:
        before, after = old.get(section, {}), new.get(section, {})
        for package in {**before, **after}:
            pair = before.get(package, ""), after.get(package, "")
            if pair[0] != pair[1]:
                where[package, *pair].append(section)
    return [Change(*key, tuple(sections)) for key, sections in sorted(where.items())]


def held_back(project: str, allowed: Versions, newest: Versions) -> list[Change]:
    """Return the packages that pyproject.toml pins below what fits with all the rest.

    Args:
        project: text of pyproject.toml.
        allowed: what the pins allow.
        newest: the same without pins.
    """
    pinned: dict[str, set[str]] = defaultdict(set)
    for name, version in re.findall(r'"([\w.-]+)(?:\[[\w,]+\])?==(\d[^"]*)"', project):
        pinned[canonical(name)].add(version)
    behind = [change for change in changes(allowed, newest) if change.old and change.new and change.package in pinned]
    # What one extra pins at two generations on purpose, as the SageMaker SDK's, is not behind.
    return [change for change in behind if change.new not in pinned[change.package]]


def as_markdown(within: Sequence[Change], beyond: Sequence[Change]) -> str:
    """Return the body of a pull request.

    Args:
        within: what the pins allow.
        beyond: what they hold back.
    """
    return "\n".join(_lines(within, beyond)) + "\n"


def _lines(within: Sequence[Change], beyond: Sequence[Change]) -> Iterator[str]:
    yield "## What has come out since\n"
    if within:
        yield "`requirements.lock` chosen anew, within what `pyproject.toml` allows:\n"
        yield from _table(within)
    else:
        yield "`requirements.lock` is what `pyproject.toml` allows: nothing newer fits."
    if beyond:
        yield "\nNot in this change. Pinned in `pyproject.toml`, with the newest version that fits with all the rest:\n"
        yield from _table(beyond)


def _table(told: Sequence[Change]) -> Iterator[str]:
    yield "| package | from | to | sections |\n|---|---|---|---|"
    for one in told:
        yield f"| {one.package} | {one.old or '-'} | {one.new or '-'} | {', '.join(one.sections)} |"
