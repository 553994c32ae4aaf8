"""What one text cell means, in a training file and in a request alike."""

from __future__ import annotations

import math

# An empty cell, and what pandas, R and databases write for one; compared in lower case.
MISSING_WORDS = frozenset({"", "nan", "null", "na"})


def is_missing(cell: str) -> bool:
    """Say whether a cell holds no value."""
    return cell.strip().lower() in MISSING_WORDS


def read_number(cell: str) -> float | None:
    """Return the finite number that a cell spells, or None. Python's `1_000` and non-Latin digits are no numbers here."""
    if "_" in cell or not cell.isascii():
        return None
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
