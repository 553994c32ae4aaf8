"""The steps of an endpoint: made, updated, turned back by an alarm, rolled back, scaled, asked, deleted with all behind it."""

from __future__ import annotations

import json
import time
from typing import Any

from local_test import payloads
from local_test.cloud.inside import place
from local_test.rehearsal.programs import Running, StepFailed
from local_test.rehearsal.remains import remains
from local_test.rehearsal.stage import PROJECT, Model, Stage, deploying
from local_test.sdk import LocalModeError, check_predictions, csv_predictions, expected_predictions

SIZE = "--instance-count=2"
"""A canary is a part of several instances."""
ALARM = f"{PROJECT}-errors"
"""The alarm that `endpoint` makes for an update."""
ROWS = "rows.csv"
MANY, FEW = 1_000, 2
"""Looks that see a state in progress: while an alarm is to go off, and otherwise."""
UPDATE_S = 60
MOST = 4
ALL = ("--models", "--images", "--jobs", "--data", "--logs")


def first(it: Stage) -> str:
    """Make the endpoint of the first version, and ask it with `invoke`."""
    (it.folder / ROWS).write_bytes(payloads.csv_body(it.models[0].manifest))
    it.deploy("endpoint", SIZE)
    it.hosting.follow(PROJECT)
    _check(it.models[0], it.deploy("invoke", "--payload", ROWS).stdout, "invoke")
    return "InService; `invoke` gives the manifest's predictions"


def canary(it: Stage) -> str:
    """Update to the second version by a canary whose alarms stay quiet."""
    said = it.deploy("endpoint", SIZE).said
    deployment = it.endpoint()["LastDeploymentConfig"]
    policy = deployment["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]["Type"]
    alarms = [alarm["AlarmName"] for alarm in deployment["AutoRollbackConfiguration"]["Alarms"]]
    if (policy, alarms) != ("CANARY", [ALARM]):
        raise StepFailed(f"The update was {policy} with alarms {alarms}; CANARY with {ALARM} was expected:\n{said}")
    _answers(it, 1)
    return "InService; the second version's predictions"


def turned_back(it: Stage) -> str:
    """Update to a third version; the alarm goes off meanwhile, and the second goes on answering."""
    before = it.endpoint()["EndpointConfigName"]
    it.aws.looks(MANY)
    with it.started(deploying(*_third(it)), BERTH_ACCOUNT_POLL_S="0.2") as running:
        _wait_for_update(it, running)
        _alarm(it, "ALARM")
        it.aws.looks(FEW)
        ran = running.wait(UPDATE_S).expect(1)
    if ALARM not in ran.stderr or "turned back" not in ran.stderr:
        raise StepFailed(f"The verb says neither that it was turned back nor by {ALARM}:\n{ran.said}")
    if it.endpoint()["EndpointConfigName"] != before:
        raise StepFailed(f"The endpoint has {it.endpoint()['EndpointConfigName']}; {before} was expected.")
    _answers(it, 1)
    return f"exit status 1, names {ALARM}; the second version answers on"


def third(it: Stage) -> str:
    """Update to the third version once the alarm is quiet again: the same command, carried on."""
    _alarm(it, "OK")
    it.deploy(*_third(it))
    _answers(it, 0)
    return "InService; the third version is of the first model"


def rollback(it: Stage) -> str:
    """Go back to the second version."""
    it.deploy("rollback")
    _answers(it, 1)
    return "the second version's predictions"


def autoscale(it: Stage) -> str:
    """Let the endpoint scale."""
    it.deploy("autoscale", f"--max-count={MOST}")
    (target,) = it.aws.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")[
        "ScalableTargets"
    ]
    return f"{target['MinCapacity']} to {target['MaxCapacity']} instances"


def batch(it: Stage) -> str:
    """Have a transform job of the second version answer a file, by its container."""
    it.hosting.follow(PROJECT)
    it.deploy("batch", "--batch-input", ROWS)
    (job,) = it.aws.client("sagemaker").list_transform_jobs()["TransformJobSummaries"]
    told = it.aws.client("sagemaker").describe_transform_job(TransformJobName=job["TransformJobName"])
    bucket, prefix = place(told["TransformOutput"]["S3OutputPath"])
    s3 = it.aws.client("s3")
    (answered,) = s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    _check(it.models[1], s3.get_object(Bucket=bucket, Key=answered["Key"])["Body"].read().decode(), "batch")
    return f"{answered['Key'].rpartition('/')[2]} has the second version's predictions"


def status(it: Stage) -> str:
    """Show all of it."""
    told: dict[str, Any] = json.loads(it.deploy("status", "--json").stdout)
    (endpoint,) = told["endpoints"]
    (variant,) = endpoint["variants"]
    found = (endpoint["status"], variant["scales"], variant["images"], told["unread"])
    expected: tuple[object, ...] = ("InService", [1, MOST], [it.uri], [])
    if found != expected:
        raise StepFailed(f"status shows {found}; {expected} was expected.")
    return f"{endpoint['status']}, {len(told['jobs'])} jobs, {len(told['packages'])} versions"


def delete(it: Stage) -> str:
    """Delete all of the project, and look whether something is left."""
    it.deploy("delete", "--yes", *ALL)
    said = it.deploy("delete", "--yes", *ALL).stdout
    if "Nothing is left" not in said:
        raise StepFailed(f"A second `delete` finds something left:\n{said}")
    if left := remains(it.aws, PROJECT):
        raise StepFailed("AWS still has what nobody deleted:\n" + "\n".join(left))
    return "nothing is left, by tag or by any list, but the roles' stack"


def _third(it: Stage) -> tuple[str, ...]:
    """Return the verb that asks for the first model's data with other settings of `serve`."""
    package = it.aws.client("sagemaker").list_model_packages(ModelPackageGroupName=PROJECT, SortOrder="Ascending")
    arn = package["ModelPackageSummaryList"][0]["ModelPackageArn"]
    described = it.aws.client("sagemaker").describe_model_package(ModelPackageName=arn)
    data = described["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    return "endpoint", SIZE, f"--model-data={data}", "--environment=SAGEMAKER_MODEL_SERVER_WORKERS=1"


def _wait_for_update(it: Stage, running: Running) -> None:
    """Wait until the update has begun: a listing, other than a look, moves nothing on."""
    until = time.monotonic() + UPDATE_S
    while it.aws.client("sagemaker").list_endpoints()["Endpoints"][0]["EndpointStatus"] != "Updating":
        if running.popen.poll() is not None or time.monotonic() > until:
            raise StepFailed(f"No update began within {UPDATE_S} s:\n{running.wait(1).said}")
        time.sleep(0.05)


def _alarm(it: Stage, state: str) -> None:
    it.aws.client("cloudwatch").set_alarm_state(AlarmName=ALARM, StateValue=state, StateReason="rehearsed")


def _answers(it: Stage, number: int) -> None:
    """Hold what the endpoint's configuration names against a model, ask it, and compare with the model's own rows."""
    it.endpoint()
    if it.hosting.artifacts[it.hosting.follow(PROJECT)] != it.models[number].artifact:
        raise StepFailed(
            f"The endpoint's configuration names another model than the one trained {('first', 'second')[number]}."
        )
    runtime, body = it.aws.client("sagemaker-runtime"), (it.folder / ROWS).read_bytes()
    answer = runtime.invoke_endpoint(EndpointName=PROJECT, Body=body, ContentType="text/csv")
    _check(it.models[number], answer["Body"].read().decode(), "the endpoint")


def _check(model: Model, answer: str, where: str) -> None:
    try:
        check_predictions(csv_predictions(answer), expected_predictions(model.manifest), where)
    except LocalModeError as error:
        raise StepFailed(str(error)) from None
