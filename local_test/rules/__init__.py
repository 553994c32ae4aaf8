"""The rules, as one table: a function a rule. The order is that of judging: what others need stands before them."""

from __future__ import annotations

from local_test.rules import (
    batch,
    contents,
    data,
    ending,
    errors,
    formats,
    headers,
    hosts,
    image,
    inputs,
    isolation,
    kserve,
    launch,
    limits,
    multimodel,
    ping,
    platforms,
    rows,
    spot,
    stopping,
    training,
    words,
)
from local_test.verdicts import Rule

RULES: tuple[Rule, ...] = (
    *image.RULES,
    *contents.RULES,
    *launch.RULES,
    *ping.RULES,
    *isolation.RULES,
    *ending.RULES,
    *training.RULES,
    *inputs.RULES,
    *data.RULES,
    *stopping.RULES,
    *spot.RULES,
    *hosts.RULES,
    *words.RULES,
    *batch.RULES,
    *multimodel.RULES,
    *formats.RULES,
    *errors.RULES,
    *rows.RULES,
    *headers.RULES,
    *limits.RULES,
    *platforms.RULES,
    *kserve.RULES,
)
