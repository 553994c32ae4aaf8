"""docs/rules.md: every rule has a row, and every test that a row names exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROWS = re.findall(r"^\| ([A-Z]-\d+) \| .* \| (.*) \|$", (ROOT / "docs" / "rules.md").read_text(), re.MULTILINE)
EXPECTED = {"T": 39, "H": 45, "V": 5, "Z": 3, "K": 3, "C": 4}


def test_every_rule_of_training_and_hosting_has_one_row() -> None:
    wanted = [f"{letter}-{number}" for letter, last in EXPECTED.items() for number in range(1, last + 1)]
    assert [rule for rule, _ in ROWS] == wanted


def test_every_test_that_a_row_names_exists() -> None:
    named = [name for _, holds in ROWS for name in re.findall(r"(test_\w+)::(\w+)", holds)]
    assert len(named) > 100
    missing = [f"{file}::{test}" for file, test in named if not _defines(file, test)]
    assert missing == []


def test_a_row_names_a_test_or_says_why_there_is_none() -> None:
    assert [rule for rule, holds in ROWS if "::" not in holds and len(holds) < len("Platform")] == []
    assert [rule for rule, holds in ROWS if "@" in holds] == []


def _defines(file: str, test: str) -> bool:
    return bool(re.search(rf"^(?:async )?def {test}\(", (ROOT / "tests" / f"{file}.py").read_text(), re.MULTILINE))
