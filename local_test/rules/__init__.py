"""The rules, as one table: a function a rule. The order is that of judging: what others need stands before them."""

from __future__ import annotations

from local_test.rules import batch, data, hosts, inputs, multimodel, ping, spot, stopping, training
from local_test.verdicts import Rule

RULES: tuple[Rule, ...] = (
    *training.RULES,
    *inputs.RULES,
    *data.RULES,
    *stopping.RULES,
    *spot.RULES,
    *hosts.RULES,
    *ping.RULES,
    *batch.RULES,
    *multimodel.RULES,
)
