"""The rules, as one table: a function a rule. The order is that of judging: what others need stands before them."""

from __future__ import annotations

from local_test.rules import errors, formats, headers, kserve, limits, ping, platforms, rows
from local_test.verdicts import Rule

RULES: tuple[Rule, ...] = (
    *ping.RULES,
    *formats.RULES,
    *errors.RULES,
    *rows.RULES,
    *headers.RULES,
    *limits.RULES,
    *platforms.RULES,
    *kserve.RULES,
)
