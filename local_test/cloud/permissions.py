"""IAM's policy simulator, which moto has not: everything is allowed but what was denied; no policy is read."""

from __future__ import annotations

from typing import Any

from local_test.cloud.wire import Asked
from local_test.cloud.world import World


def simulate(world: World, asked: Asked) -> dict[str, Any]:
    """Answer SimulatePrincipalPolicy: a decision for each action on each resource."""
    results = [
        {
            "EvalActionName": action,
            "EvalResourceName": resource,
            "EvalDecision": "implicitDeny" if action in world.denied else "allowed",
            "MatchedStatements": [],
            "MissingContextValues": [],
        }
        for resource in asked.request.get("ResourceArns", ["*"])
        for action in asked.request["ActionNames"]
    ]
    return {"EvaluationResults": results, "IsTruncated": False}
