"""What the rules of training share: how a job ended in words, and all that SageMaker writes beside the three config files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local_test.emulator import Outcome
from local_test.emulator.jobs import TrainingJob
from local_test.subject import Subject
from local_test.verdicts import Violated

SAID_LINES = 8
KILLED = {137, -9}


def patience_s(subject: Subject) -> float:
    """Return how long a job may take that does no more than the one that was trained first, on a machine grown busier too."""
    return 45 + 4 * subject.trained[1].seconds


def run(job: TrainingJob, limit_s: float) -> Outcome:
    """Run a job; raises Violated where it can't be started."""
    try:
        return job.run(limit_s=limit_s)
    except RuntimeError as error:
        raise Violated(str(error)) from error


def ended_well(job: TrainingJob, outcome: Outcome) -> bool:
    """Say whether a job ended with exit code 0 and left a model."""
    return outcome.exit_code == 0 and bool(files(job.model))


def files(folder: Path) -> list[Path]:
    """Return all files below a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def was_cut(outcome: Outcome, limit_s: float) -> bool:
    """Say whether a job was killed because it went on for too long."""
    return outcome.exit_code in KILLED and outcome.seconds >= limit_s


def why(outcome: Outcome, limit_s: float) -> str:
    """Return how a job ended, for a person: the failure file's text, or the end of what it printed."""
    said = outcome.failure.strip() or "\n".join(outcome.output.strip().splitlines()[-SAID_LINES:]) or "it printed nothing"
    if was_cut(outcome, limit_s):
        return f"train had not ended after {limit_s:.0f} s: {said}"
    if outcome.exit_code == 0:
        return f"train ended with exit code 0 and left no file in /opt/ml/model: {said}"
    return f"train ended with exit code {outcome.exit_code}: {said}"


def documents(job: TrainingJob) -> Mapping[str, Any]:
    """Return the config files that SageMaker writes beyond the three of every platform, as recorded from a real job."""
    shape = {"S3DataType": "S3_PREFIX", "S3DataDistributionType": "FULLY_REPLICATED", "TrainingInputMode": "FILE"}
    channels = [
        {"ChannelName": name, "DataSource": {"S3DataSource": {**shape, "S3Uri": f"s3://b/{name}"}}} for name in job.channels
    ]
    host = {"clusterSize": len(job.hosts), "hostNumber": job.hosts.index(job.host)}
    return {
        "init-config": {"inputChannels": channels, "hostConfig": host, "jobRunInfo": {"jobRunNumber": 1}},
        "trainingjobconfig": {
            "TrainingJobName": "conformance",
            "EnableManagedSpotTraining": True,
            "EnableNetworkIsolation": False,
            "HyperParameters": dict(job.hyperparameters),
            "InputDataConfig": channels,
            "OutputDataConfig": {"S3OutputPath": "s3://b/output", "KmsKeyId": ""},
            "ResourceConfig": {"InstanceCount": len(job.hosts), "InstanceType": "ml.m5.large", "VolumeSizeInGB": 30},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 3600},
            "Tags": [],
        },
        "metric-definition-regex": [],
        "upstreamoutputdataconfig": [],
        "debughookconfig": {"LocalPath": "/opt/ml/output/tensors", "CollectionConfigurations": None},
        "profilerconfig": {"DisableProfiler": True},
        "tensorboardoutputconfig": {"LocalPath": "/opt/ml/output/tensorboard"},
    }


def respelled(value: str) -> str:
    """Return another spelling of the same value, as another SDK sends it: quoted, or a bool in other case (T-14)."""
    if value.lower() in {"true", "false"}:
        return value.lower() if value != value.lower() else value.capitalize()
    return value if value.startswith(('"', "[", "{")) else json.dumps(value)
