"""An endpoint as it stands, and waiting for it; what may not be done to it is refused before anything is changed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.cloud import TAG, Cloud
from deploy.endpoints.alarms import states_of
from deploy.endpoints.variants import VARIANT, kind_of
from deploy.errors import BadSettings, Failed, NotThere, Refused
from deploy.waiting import State, wait

MOVING = ("Creating", "Updating", "RollingBack", "SystemUpdating")
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
PHASES = {
    "Creating": "new instances start",
    "Updating": "capacity changes",
    "ActivatingTraffic": "traffic moves to new instances",
    "Baking": "alarms are watched",
    "Deleting": "old instances are removed",
}
"""API:ProductionVariantStatus, in words."""
CAUSES = (
    (
        "ping|health check",
        "The container started, but /ping did not answer 200 in time (H-7). A large model may need a longer --startup-s.",
    ),
    ("capacity", "AWS has no such instance free: take another --instance-type, or try again later."),
    ("CannotStart|exec format|entrypoint|not found in \\$PATH", "The container can't be started (H-1, T-7)."),
    ("download|timed? ?out", "The model may be too large for the time it has: a longer --download-s."),
    (
        "access|denied|forbidden|permission|403|assume",
        "The role of the endpoint must be allowed to read the image, the model and its key (deploy/templates/roles.yaml).",
    ),
    ("memory|resource", "The model needs more memory than there is: a larger --instance-type or --memory-mb."),
)
"""What a FailureReason speaks of, and what it most often means."""


@dataclass(frozen=True)
class Standing:
    """An endpoint of the project's."""

    name: str
    arn: str
    status: str
    config: str
    """Name of the configuration that answers."""
    coming: str
    """Name of the one that is on its way; empty when nothing moves."""
    kind: str
    instance_type: str
    """Empty for a serverless endpoint."""
    count: int
    """Instances that there are now."""
    scaled: bool
    """Whether their number is application autoscaling's affair."""
    config_arn: str
    """Empty where the configuration has been deleted."""

    def refuse(self, kind: str, instance_type: str) -> None:
        """Raise BadSettings where an endpoint that stands can't become what is asked of it."""
        if self.kind and kind != self.kind:
            raise BadSettings(
                f"Endpoint {self.name} is {self.kind}, and can't be made {kind}: AWS makes none with instances serverless "
                "(DOC:serverless-endpoints-update), promises no way back, and callers ask an asynchronous one in another way. "
                f"Take another name: --endpoint {self.name[:50]}-{kind}."
            )
        if self.scaled and self.instance_type and instance_type != self.instance_type:
            raise BadSettings(
                f"Endpoint {self.name} scales by itself, and as long as it does AWS refuses another instance type "
                f"({self.instance_type}, wanted: {instance_type}; DOC:endpoint-scaling-update). "
                "Run `python -m deploy autoscale --fixed`, update, and `autoscale` again."
            )

    @property
    def keeps_count(self) -> bool:
        """Whether an update leaves the number of instances as it is, rather than as the configuration says.

        One that has scaled to zero starts as many as the configuration says: the update would try none otherwise.
        """
        return self.scaled and self.count > 0


def standing(cloud: Cloud, name: str) -> Standing | None:
    """Return an endpoint as it is; None where there is none.

    Raises:
        Refused: it is not the project's.
        Failed: it is in a state that only deletion leads out of.
    """
    there = cloud.find("sagemaker", "describe_endpoint", EndpointName=name)
    if there is None:
        return None
    arn, status, config = str(there["EndpointArn"]), str(there["EndpointStatus"]), str(there["EndpointConfigName"])
    tags = {tag["Key"]: tag["Value"] for tag in cloud.pages("sagemaker", "list_tags", "Tags", ResourceArn=arn)}
    if tags.get(TAG) != cloud.account.name:
        raise Refused(
            f"Endpoint {name} is there, but not of project {cloud.account.name} ({TAG} is {tags.get(TAG)!r}). "
            "Take another name with --endpoint, or give it that tag if it may be changed."
        )
    if status not in (*MOVING, "InService"):
        raise Failed(f"Endpoint {name} is {status}: {_why(name, there)}")
    coming = str(there.get("PendingDeploymentSummary", {}).get("EndpointConfigName", ""))
    described = cloud.find("sagemaker", "describe_endpoint_config", EndpointConfigName=config) or {}
    variant = described.get("ProductionVariants", [{}])[0]
    return Standing(
        name=name,
        arn=arn,
        status=status,
        config=config,
        coming=coming or (config if status == "Creating" else ""),
        kind=kind_of(described) if described else "",
        instance_type=str(variant.get("InstanceType", "")),
        count=int((there.get("ProductionVariants") or [{}])[0].get("CurrentInstanceCount", 0)),
        scaled=bool(target_of(cloud, name)),
        config_arn=str(described.get("EndpointConfigArn", "")),
    )


def needed(cloud: Cloud, name: str) -> Standing:
    """Return an endpoint as it is; raise NotThere where there is none."""
    there = standing(cloud, name)
    if there is None:
        raise NotThere(f"There is no endpoint {name} in {cloud.region}. Make it: `python -m deploy endpoint`.")
    return there


def target_of(cloud: Cloud, name: str) -> Mapping[str, Any]:
    """Return what application autoscaling has registered of an endpoint; empty where it does not scale."""
    targets = cloud.pages(
        "application-autoscaling",
        "describe_scalable_targets",
        "ScalableTargets",
        ServiceNamespace="sagemaker",
        ResourceIds=[resource_of(name)],
        ScalableDimension=DIMENSION,
    )
    return next(iter(targets), {})


def resource_of(name: str) -> str:
    """Return application autoscaling's name of an endpoint's variant."""
    return f"endpoint/{name}/variant/{VARIANT}"


def settle(cloud: Cloud, there: Standing, config: str) -> Standing:
    """Return an endpoint that nothing moves, or that moves to a configuration: AWS takes one change at a time.

    Raises:
        Refused: it is moving elsewhere, and is not to be waited for.
        Failed: what was waited for ended badly: such as an update that is being turned back.
    """
    if there.status == "InService" or there.coming == config or cloud.account.dry_run:
        return there
    if not cloud.account.wait:
        raise Refused(
            f"Endpoint {there.name} is {there.status}, and AWS takes one change at a time. Run this again when "
            "`python -m deploy status` says InService, or let it wait: --wait."
        )
    reach(cloud, there.name, "another configuration" if there.status == "RollingBack" else there.coming or there.config)
    return needed(cloud, there.name)


def reach(cloud: Cloud, name: str, config: str) -> None:
    """Wait until an endpoint answers by a configuration.

    Raises:
        Failed: it answers by another, for the update was turned back; or by none. Why is said, and what to do.
    """

    def look() -> State:
        there = cloud.read("sagemaker", "describe_endpoint", EndpointName=name)
        status = str(there["EndpointStatus"])
        if status in MOVING:
            return State(status, _progress(there))
        if status == "InService" and there["EndpointConfigName"] == config:
            return State(status, f"runs {config}", done=True)
        failure = _turned_back(cloud, there, config) if status == "InService" else _why(name, there)
        return State(status, failure=failure)

    wait(cloud, f"Endpoint {name}", look)


def _progress(there: Mapping[str, Any]) -> str:
    """Return in words how far an update is, where AWS tells."""
    said = []
    pending = there.get("PendingDeploymentSummary", {})
    for variant in (*pending.get("ProductionVariants", ()), *pending.get("ShadowProductionVariants", ())):
        words = [PHASES.get(state["Status"], state["Status"]) for state in variant.get("VariantStatus", ())]
        if variant.get("DesiredInstanceCount"):
            words.append(f"{variant.get('CurrentInstanceCount', 0)} of {variant['DesiredInstanceCount']} instances are new")
        if words:
            said.append(f"{variant['VariantName']}: {', '.join(words)}")
    return "; ".join(said)


def _turned_back(cloud: Cloud, there: Mapping[str, Any], config: str) -> str:
    watched = there.get("LastDeploymentConfig", {}).get("AutoRollbackConfiguration", {}).get("Alarms", ())
    states = states_of(cloud, [alarm["AlarmName"] for alarm in watched])
    ringing = [name for name, state in states.items() if state == "ALARM"]
    alarms = f" In ALARM: {', '.join(ringing)}." if ringing else ""
    return (
        f"the update to {config} was turned back, and {there['EndpointConfigName']} answers as before.{alarms} "
        f"{_reason(there)}{_advice(str(there['EndpointName']))}"
    )


def _why(name: str, there: Mapping[str, Any]) -> str:
    status = there["EndpointStatus"]
    if status == "Failed":
        end = " AWS takes nothing but the deletion of a failed endpoint: run `python -m deploy delete`, then `endpoint` again."
    elif status == "UpdateRollbackFailed":
        end = " Old and new instances answer: see `Rolling deployments` in AWS's guide, or delete it and make it again."
    elif status == "Deleting":
        return "it is being deleted; run this again when it is gone."
    else:
        end = " It answers nobody."
    return f"{_reason(there)}{_advice(name)}{end}"


def _reason(there: Mapping[str, Any]) -> str:
    reason = str(there.get("FailureReason") or "AWS gives no reason.")
    hints = [hint for pattern, hint in CAUSES if re.search(pattern, reason, re.IGNORECASE)]
    return " ".join([reason if reason.endswith(".") else f"{reason}.", *hints[:1]])


def _advice(name: str) -> str:
    return (
        f" What the container said is in log group /aws/sagemaker/Endpoints/{name}: `python -m deploy logs`. "
        "`make doctor IMAGE=IMAGE` starts the image here as SageMaker does, and says why it fails and what to do."
    )
