"""The rules, as one table: a function a rule. The order is that of judging: what others need stands before them."""

from __future__ import annotations

from local_test.rules import batch, multimodel, ping
from local_test.verdicts import Rule

RULES: tuple[Rule, ...] = (*ping.RULES, *batch.RULES, *multimodel.RULES)
