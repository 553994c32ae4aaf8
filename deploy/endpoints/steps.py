"""How an update moves traffic from the old instances to the new ones, as UpdateEndpoint takes it (H-42); pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.endpoints.combinations import BOUNDS
from deploy.errors import BadSettings
from deploy.settings import Update

LIMITS = (600, 28800)
"""Seconds that an update may take: API:MaximumExecutionTimeoutInSeconds."""
STARTING_S = 1800
"""What is allowed, beside the steps, for instances to be found and to start; an update that needs less ends sooner."""


@dataclass(frozen=True)
class Steps:
    """The steps of an update."""

    strategy: str
    count: int
    """New instances; 0 for a serverless endpoint, which is counted in per cent."""
    size: int
    """Of a step, in instances or per cent; 0 where there is but one."""
    number: int
    bake_s: int

    def __str__(self) -> str:
        """Return them in words."""
        if not self.size:
            return f"all at once, then {self.bake_s} s in which alarms are watched"
        share = f"{self.size} of {self.count} instances" if self.count else f"{self.size} per cent of the traffic"
        if self.strategy == "canary":
            return f"canary: {share} first, {self.bake_s} s later the rest"
        return f"{self.strategy}: {share} each {self.bake_s} s, in {self.number} steps"


def steps_of(update: Update, count: int, *, plain: bool = False) -> Steps:
    """Return the steps that an update takes.

    Args:
        update: may name a strategy.
        count: new instances; 0 for a serverless endpoint.
        plain: all at once, unless a strategy is named.

    Raises:
        BadSettings: a step can't be a part of what there is.
    """
    strategy = update.strategy or ("all-at-once" if plain or count == 1 else "canary")
    if strategy == "all-at-once":
        return Steps(strategy, count, 0, 1, update.bake_s)
    if count == 1:
        raise BadSettings(
            f"One instance can't be updated by {strategy}: a step is at most half of the instances (H-42). "
            "Take --strategy all-at-once, whose alarms turn it back as well, or two instances: --instance-count 2."
        )
    size = _share(update.step_percent, BOUNDS[strategy], count) if count else update.step_percent
    number = 2 if strategy == "canary" else math.ceil((count or 100) / size)
    return Steps(strategy, count, size, number, update.bake_s)


def deployment(update: Update, steps: Steps, alarms: Sequence[str]) -> dict[str, Any]:
    """Return DeploymentConfig.

    Raises:
        BadSettings: the steps take longer than the update may.
    """
    size = {"Type": "INSTANCE_COUNT" if steps.count else "CAPACITY_PERCENT", "Value": steps.size}
    routing: dict[str, Any] = {"WaitIntervalInSeconds": steps.bake_s}
    limit = _limit(update, steps)
    if steps.strategy == "rolling":
        policy = {"RollingUpdatePolicy": {"MaximumBatchSize": size, **routing, "MaximumExecutionTimeoutInSeconds": limit}}
    else:
        routing["Type"] = steps.strategy.replace("-", "_").upper()
        if steps.size:
            routing["CanarySize" if steps.strategy == "canary" else "LinearStepSize"] = size
        policy = {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": routing,
                "TerminationWaitInSeconds": update.keep_old_s,
                "MaximumExecutionTimeoutInSeconds": limit,
            }
        }
    watched = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]}} if alarms else {}
    return {**policy, **watched}


def _share(percent: int, bounds: tuple[int, int], count: int) -> int:
    """Return a share of the instances as a number, within what the strategy takes: per cent of a few would be no whole one."""
    low, high = (count * bound / 100 for bound in bounds)
    return max(1, math.ceil(low), min(round(count * percent / 100), math.floor(high)))


def _limit(update: Update, steps: Steps) -> int:
    needed = steps.number * steps.bake_s + update.keep_old_s
    limit = update.limit_s or min(max(needed + STARTING_S, LIMITS[0]), LIMITS[1])
    if needed >= limit:
        raise BadSettings(
            f"The update ({steps}) waits {needed} s in all, and may take {limit} s. "
            "Take larger steps (--step-percent), a shorter --bake-s, or a longer --limit-s (up to 28800)."
        )
    return limit
