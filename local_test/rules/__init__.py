"""The rules, as one table: a function a rule. The order is that of judging: what others need stands before them."""

from __future__ import annotations

from local_test.rules import contents, ending, image, isolation, launch, ping, words
from local_test.verdicts import Rule

RULES: tuple[Rule, ...] = (
    *image.RULES,
    *contents.RULES,
    *launch.RULES,
    *ping.RULES,
    *words.RULES,
    *isolation.RULES,
    *ending.RULES,
)
