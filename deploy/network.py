"""Roles and networks, as the requests of every verb have them."""

from __future__ import annotations

from typing import Any

import click

from deploy.cloud import Cloud
from deploy.errors import BadSettings, NotThere
from deploy.settings import Network

ROLES = {
    "training": ("roles", "TrainingRoleArn"),
    "hosting": ("roles", "HostingRoleArn"),
    "validation": ("market", "ValidationRoleArn"),
}
"""Who runs, and the stack (deploy/templates/) and its output that has the role."""
NO_ROLE = "arn:aws:iam::111122223333:role/ROLE"
"""Stands in the requests that --dry-run prints where there is no role yet."""


def vpc_of(network: Network) -> dict[str, Any]:
    """Return `VpcConfig` for a request, or nothing where no subnets are set.

    Raises:
        BadSettings: subnets without security groups, or the other way round.
    """
    if bool(network.subnets) != bool(network.security_groups):
        there, lacking = ("subnets", "security groups") if network.subnets else ("security groups", "subnets")
        raise BadSettings(f"There are {there} but no {lacking}; a VPC takes both: --subnets NAME --security-groups NAME.")
    if not network.subnets:
        return {}
    return {"VpcConfig": {"Subnets": list(network.subnets), "SecurityGroupIds": list(network.security_groups)}}


def role_of(cloud: Cloud, network: Network, use: str) -> str:
    """Return the ARN of the role that SageMaker runs as: the one that is set, else that of its stack.

    Args:
        cloud: the account.
        network: may name the role.
        use: training, hosting or validation.

    Raises:
        NotThere: no role is set, and the stack is not there or has none.
    """
    if network.role:
        return network.role
    template, output = ROLES[use]
    stack = f"{cloud.account.name}-{template}"
    try:
        found = cloud.read("cloudformation", "describe_stacks", StackName=stack)["Stacks"][0].get("Outputs", [])
    except NotThere:
        found = []
    arn = next((str(one["OutputValue"]) for one in found if one["OutputKey"] == output), "")
    if arn:
        return arn
    cure = f"Name one with --role ARN, or make the stack {stack} from deploy/templates/{template}.yaml (docs/pipeline.md)."
    if not cloud.account.dry_run:
        raise NotThere(f"No role is set, and no stack {stack} with the output {output} was found. {cure}")
    click.echo(f"No role is there yet: {NO_ROLE} stands for it. {cure}")
    return NO_ROLE
