"""An endpoint's life: created, updated at once or step by step, rolled back by an alarm, deleted; each takes some looks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from local_test.cloud import inside, variants
from local_test.cloud.wire import Asked, Refused
from local_test.cloud.world import ACCOUNT, Record, Script, World, now


def check_config(world: World, asked: Asked) -> None:
    """Refuse a configuration whose models are not there, or whose parts don't go together."""
    variants.check(asked.request)
    for variant in variants.asked(asked.request):
        name = variant.get("ModelName")
        if name and world.find(asked.region, "Model", name) is None:
            arn = f"arn:aws:sagemaker:{asked.region}:{ACCOUNT}:model/{name.lower()}"
            raise Refused("ValidationException", f'Could not find model "{arn}".')


def check(world: World, asked: Asked) -> None:
    """Refuse an endpoint whose configuration is not there."""
    _config(world, asked.region, asked.request["EndpointConfigName"])


def start(world: World, record: Record) -> None:
    """Begin to create."""
    record.turn("Creating")
    _remember(world, record, record.request["EndpointConfigName"])
    record.plan = [partial(_created, world, record)]


def glance(world: World, record: Record) -> None:
    """While an update goes on: show how far it is, and go back if an alarm rings."""
    if record.status != "Updating":
        return
    ringing = _ringing(world, record)
    if ringing:
        _roll_back(record, f"Alarm {', '.join(ringing)} is in ALARM: the deployment was rolled back.")
    elif record.facts.get("PendingDeploymentSummary"):
        state = "Creating" if record.looks < 1 else "Baking"
        for variant in record.facts["PendingDeploymentSummary"]["ProductionVariants"]:
            variant["VariantStatus"] = [{"Status": state, "StartTime": record.facts["LastModifiedTime"]}]


def update(world: World, asked: Asked, record: Record) -> dict[str, Any]:
    """Begin to put another configuration in the place of this one (UpdateEndpoint)."""
    _refuse_unless_idle(record)
    request, name = asked.request, asked.request["EndpointConfigName"]
    config = _config(world, asked.region, name)
    deployment = request.get("DeploymentConfig")
    _check_deployment(deployment or {})
    if request.get("RetainDeploymentConfig") and deployment is None:
        deployment = record.facts.get("LastDeploymentConfig")
    kept = dict(record.facts["_current"]) if request.get("RetainAllVariantProperties") else {}
    record.turn("Updating")
    pending = variants.pending(world, record, config.request)
    record.facts |= {
        "PendingDeploymentSummary": {"EndpointConfigName": name, "StartTime": now(), **pending},
        "LastDeploymentConfig": deployment,
        "FailureReason": None,
    }
    record.plan, record.looks = [partial(_updated, world, record, (name, dict(config.request), kept))], 0
    return {"EndpointArn": record.arn}


def _check_deployment(deployment: Mapping[str, Any]) -> None:
    """Refuse steps that are too small or too large (H-42), which the model does not say."""
    routing = deployment.get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration", {})
    rolling = deployment.get("RollingUpdatePolicy", {})
    steps = (("CanarySize", routing, 1), ("LinearStepSize", routing, 10), ("MaximumBatchSize", rolling, 5))
    for name, policy, least in steps:
        size = policy.get(name, {})
        if size.get("Type") == "CAPACITY_PERCENT" and not least <= size["Value"] <= 50:
            raise Refused("ValidationException", f"{name} must be {least} to 50 percent of the capacity, not {size['Value']}.")
    wanted = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}.get(routing.get("Type", ""))
    if wanted and wanted not in routing:
        raise Refused("ValidationException", f"A {routing['Type']} needs {wanted}.")


def weigh(world: World, asked: Asked, record: Record) -> dict[str, Any]:
    """Begin to change weights and numbers of instances (UpdateEndpointWeightsAndCapacities)."""
    _refuse_unless_idle(record)
    wanted = {each["VariantName"]: each for each in asked.request["DesiredWeightsAndCapacities"]}
    unknown = wanted.keys() - {each["VariantName"] for each in record.facts["ProductionVariants"]}
    if unknown:
        raise Refused("ValidationException", f"The variant(s) {sorted(unknown)} do not exist in {record.arn}.")
    record.turn("Updating")
    for variant in record.facts["ProductionVariants"]:
        variant |= variants.desired(wanted.get(variant["VariantName"], {}))
    record.plan, record.looks = [partial(_weighed, record)], 0
    return {"EndpointArn": record.arn}


def end(world: World, record: Record) -> None:
    """Begin to delete; refused while something is in progress."""
    if record.status not in {"InService", "Failed", "OutOfService", "UpdateRollbackFailed"}:
        raise _busy(record)
    record.turn("Deleting")
    record.plan, record.looks = [partial(world.drop, record)], 0


def _created(world: World, record: Record) -> None:
    script = world.script("endpoint", record.name)
    if script.is_failed:
        record.turn("Failed")
        record.facts["FailureReason"] = script.why("The container did not pass the ping health check.")
    else:
        _deploy(world, record, {})


def _updated(world: World, record: Record, to: tuple[str, Mapping[str, Any], Mapping[str, Any]]) -> None:
    """Finish an update as the script says; what fails goes back to what ran before."""
    script: Script = world.script("endpoint", record.name)
    if script.is_failed:
        _roll_back(record, script.why("The new fleet did not pass the ping health check."))
    elif script.outcome == "stuck":
        record.turn("UpdateRollbackFailed")
        record.facts |= {"FailureReason": script.why("The rollback failed."), "PendingDeploymentSummary": None}
    else:
        name, config, kept = to
        record.facts |= {"EndpointConfigName": name, "_config": config, "PendingDeploymentSummary": None}
        _deploy(world, record, kept)


def _deploy(world: World, record: Record, kept: Mapping[str, Any]) -> None:
    record.facts |= variants.running(world, record, kept)
    record.facts["_current"] = {each["VariantName"]: each for each in record.facts["ProductionVariants"]}
    record.turn("InService")


def _weighed(record: Record) -> None:
    for variant in record.facts["ProductionVariants"]:
        variant |= variants.reached(variant)
    record.turn("InService")


def _roll_back(record: Record, reason: str) -> None:
    """Return to the configuration that ran before, which never ceased to (H-42)."""
    record.turn("RollingBack")
    record.facts |= {"FailureReason": reason, "PendingDeploymentSummary": None}
    record.plan, record.looks = [partial(record.turn, "InService")], 0


def _ringing(world: World, record: Record) -> list[str]:
    """Return which alarms of the deployment are in ALARM."""
    deployment = record.facts.get("LastDeploymentConfig") or {}
    alarms = deployment.get("AutoRollbackConfiguration", {}).get("Alarms", ())
    names = [alarm["AlarmName"] for alarm in alarms]
    if not names:
        return []
    known = inside.client(world, "cloudwatch", record.region).describe_alarms(AlarmNames=names)["MetricAlarms"]
    return [alarm["AlarmName"] for alarm in known if alarm["StateValue"] == "ALARM"]


def _config(world: World, region: str, name: str) -> Record:
    config = world.find(region, "EndpointConfig", name)
    if config is None:
        arn = f"arn:aws:sagemaker:{region}:{ACCOUNT}:endpoint-config/{name.lower()}"
        raise Refused("ValidationException", f'Could not find endpoint configuration "{arn}".')
    return config


def _remember(world: World, record: Record, name: str) -> None:
    """Keep what a configuration says now: it may be deleted while it is in use."""
    record.facts |= {"EndpointConfigName": name, "_config": dict(_config(world, record.region, name).request)}
    record.facts["LastDeploymentConfig"] = record.request.get("DeploymentConfig")


def _refuse_unless_idle(record: Record) -> None:
    if record.status == "Failed":  # API:DescribeEndpointOutput, EndpointStatus
        raise Refused("ValidationException", f'Cannot update endpoint "{record.arn}": it is Failed, and can only be deleted.')
    if record.status != "InService":
        raise _busy(record)


def _busy(record: Record) -> Refused:
    return Refused("ValidationException", f'Cannot update in-progress endpoint "{record.arn}".')
