"""Training and transform jobs: in progress for some looks, then completed, failed or stopped, and what they leave."""

from __future__ import annotations

import io
import tarfile
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from local_test.cloud import container, inside
from local_test.cloud.wire import Asked, Refused
from local_test.cloud.world import Record, Script, World, now

MODEL = b"not a model: nothing was trained here\n"
ENDED = {"Completed", "Failed", "Stopped"}
INVOKE_S = 600.0
"""ModelClientConfig's default (H-27)."""
_RUNTIME_S = 86_400
"""StoppingCondition's default (T-30)."""


def check(world: World, asked: Asked) -> None:
    """Refuse a training job without an algorithm or resources, which the model leaves open."""
    for member in ("AlgorithmSpecification", "ResourceConfig"):
        if member not in asked.request:
            raise Refused("ValidationException", f"{member} must be given.")
    specification = asked.request["AlgorithmSpecification"]
    if ("TrainingImage" in specification) == ("AlgorithmName" in specification):
        raise Refused("ValidationException", "Exactly one of TrainingImage and AlgorithmName must be given.")


def check_transform(world: World, asked: Asked) -> None:
    """Refuse a transform job whose model is not there."""
    if world.find(asked.region, "Model", asked.request["ModelName"]) is None:
        raise Refused("ValidationException", f'Could not find model "{asked.request["ModelName"]}".')


def start_training(world: World, record: Record) -> None:
    """Begin to train."""
    record.request.setdefault("StoppingCondition", {"MaxRuntimeInSeconds": _RUNTIME_S})
    place = record.request["OutputDataConfig"]["S3OutputPath"].rstrip("/")
    record.facts |= {
        "ModelArtifacts": {"S3ModelArtifacts": f"{place}/{record.name}/output/model.tar.gz"},
        "TrainingStartTime": record.created,
        "SecondaryStatusTransitions": [],
    }
    record.turn("InProgress")
    _mark(record, "Starting")
    record.plan = [partial(_trained, world, record)]


def start_transform(world: World, record: Record) -> None:
    """Begin to transform."""
    record.facts["TransformStartTime"] = record.created
    record.turn("InProgress")
    record.plan = [partial(_transformed, world, record)]


def glance(world: World, record: Record) -> None:
    """Show that a job which was seen starting has come to train."""
    if record.status == "InProgress" and record.looks == 1:
        _mark(record, "Training")


def stop(world: World, record: Record) -> None:
    """Begin to stop a job."""
    if record.status in ENDED:
        raise Refused("ValidationException", f"The request was rejected because the job is in status {record.status}.")
    record.turn("Stopping")
    if record.kind == "TrainingJob":
        _mark(record, "Stopping")
    record.plan, record.looks = [partial(_stopped, world, record)], 0


def end(world: World, record: Record) -> None:
    """Delete a job, unless it runs."""
    if record.status not in ENDED:
        raise Refused("ValidationException", f"{record.arn} is {record.status}: stop it before it is deleted.")
    world.drop(record)


def settle(world: World, record: Record, script: Script) -> None:
    """End a training job as a script says."""
    failed = script.is_failed or not _left(world, record, script)
    outcome = "Failed" if failed else {"stopped": "Stopped"}.get(script.outcome, "Completed")
    if script.is_failed:
        record.facts["FailureReason"] = script.why("AlgorithmError: the container ended with exit code 1.")
    record.facts |= {"TrainingEndTime": now(), "TrainingTimeInSeconds": 60, "BillableTimeInSeconds": 60}
    record.facts["FinalMetricDataList"] = [
        {"MetricName": name, "Value": value, "Timestamp": now()} for name, value in script.metrics.items()
    ]
    record.turn(outcome)
    _mark(record, outcome)
    _log(world, record, script)


def _trained(world: World, record: Record) -> None:
    settle(world, record, world.script("training-job", record.name))


def _stopped(world: World, record: Record) -> None:
    """End a job that was told to stop; a training job keeps the model it has (T-27)."""
    if record.kind == "TrainingJob":
        script = world.script("training-job", record.name)
        settle(world, record, Script("stopped", metrics=script.metrics, artifact=script.artifact, logs=script.logs))
    else:
        record.facts["TransformEndTime"] = now()
        record.turn("Stopped")


def _transformed(world: World, record: Record) -> None:
    script = world.script("transform-job", record.name)
    record.facts["TransformEndTime"] = now()
    if script.outcome != "completed":
        record.turn({"stopped": "Stopped"}.get(script.outcome, "Failed"))
        record.facts["FailureReason"] = script.why("ClientError: see job logs for more information")
        return
    try:
        _write(world, record, script)
        record.turn("Completed")
    except ClientError as error:
        record.turn("Failed")
        record.facts["FailureReason"] = f"ClientError: {error}"[:1024]


def _write(world: World, record: Record, script: Script) -> None:
    """Write an output for each input object, its name with .out behind (H-28)."""
    source = record.request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    target = record.request["TransformOutput"]["S3OutputPath"].rstrip("/")
    bucket, prefix = inside.place(source)
    folder = prefix if prefix.endswith("/") or not prefix else prefix.rpartition("/")[0] + "/"
    keys = inside.keys(world, record.region, source)
    for key in keys:
        body = inside.get(world, record.region, f"s3://{bucket}/{key}")
        predicted = _predicted(world, record, body) if script.artifact is None else script.artifact
        inside.put(world, record.region, f"{target}/{key.removeprefix(folder)}.out", predicted)
    if not keys:
        raise ClientError({"Error": {"Code": "NoSuchKey", "Message": f"No objects found below {source}"}}, "GetObject")


def _predicted(world: World, record: Record, body: bytes) -> bytes:
    """Return what the container of the job's model says to an object, sent whole; the object itself where there is none."""
    url = world.served.get(record.request["ModelName"])
    if not url:
        return body
    kinds = {
        "Content-Type": record.request["TransformInput"].get("ContentType"),
        "Accept": record.request["TransformOutput"].get("Accept"),
    }
    said = container.send(url, body, {name: kind for name, kind in kinds.items() if kind}, INVOKE_S)
    if said.status != 200:
        told = {"Code": "ModelError", "Message": f"the container answered {said.status}: {said.body.decode(errors='replace')}"}
        raise ClientError({"Error": told}, "Invocations")
    return said.body


def _left(world: World, record: Record, script: Script) -> bool:
    """Put the model where the job was told to; say whether it could."""
    uri = record.facts["ModelArtifacts"]["S3ModelArtifacts"]
    try:
        inside.put(world, record.region, uri, artifact() if script.artifact is None else script.artifact)
    except ClientError as error:
        record.facts["FailureReason"] = f"ClientError: can't write {uri}: {error}"[:1024]
        return False
    return True


def artifact() -> bytes:
    """Return a model.tar.gz of one small file: what a job leaves unless told."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        entry = tarfile.TarInfo("model")
        entry.size = len(MODEL)
        archive.addfile(entry, io.BytesIO(MODEL))
    return whole.getvalue()


def _mark(record: Record, status: str) -> None:
    """Note a secondary status, and when the one before it ended."""
    passed: list[dict[str, Any]] = record.facts["SecondaryStatusTransitions"]
    if passed:
        passed[-1]["EndTime"] = now()
    passed.append({"Status": status, "StartTime": now(), "StatusMessage": ""})
    record.facts["SecondaryStatus"] = status


def _log(world: World, record: Record, script: Script) -> None:
    """Write a job's lines where the platform does (T-39)."""
    logs, group = inside.client(world, "logs", record.region), "/aws/sagemaker/TrainingJobs"
    milliseconds = int(now().timestamp() * 1000)
    stream = f"{record.name}/algo-1-{milliseconds // 1000}"
    lines = script.logs or (f"{name}={value}" for name, value in script.metrics.items())
    events = [{"timestamp": milliseconds, "message": line} for line in lines]
    known = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    if group not in {each["logGroupName"] for each in known}:
        logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName=stream)
    if events:
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
