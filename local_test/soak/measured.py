"""docs/measured.md: a section a measurement, each with its command, date and commit; measuring again replaces its section."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from contract.files import write_text
from local_test.runners import ROOT

Table: TypeAlias = tuple[str, str, Sequence[str], list[list[str]]]
"""Title, command, columns and rows: what `section` takes."""
HEADING = "# Measured\n\nWritten by `make soak`. The machine is shared: ratios hold better than times.\n"


def section(title: str, command: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with its title, and the command that makes it."""
    return told(title, command, table(columns, rows))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *("| " + " | ".join(row) + " |" for row in rows)]
    return "\n".join(lines)


def told(title: str, command: str, text: str) -> str:
    """Return a section of Markdown: title, command, when and where it was measured, and what was found."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    where = f"{os.cpu_count()} CPUs ({platform.machine()}), {memory:.0f} GiB, Python {platform.python_version()}"
    return f"## {title}\n\n`{command}`, {datetime.now(UTC):%Y-%m-%d}, commit {_commit()}: {where}\n\n{text}\n"


def put(target: Path, sections: Sequence[str], heading: str = HEADING) -> None:
    """Write sections, each of one table or more, over those of the same titles; others stay as they are.

    `heading` is what comes before all of them.
    """
    everything = "\n".join([target.read_text() if target.exists() else "", *sections])
    _, *parts = re.split(r"^(?=## )", everything, flags=re.MULTILINE)
    by_title = {text.splitlines()[0]: text.rstrip() + "\n" for text in parts}
    write_text(target, "\n".join([heading, *by_title.values()]))


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
