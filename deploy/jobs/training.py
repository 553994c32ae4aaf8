"""What a training job is asked with: the parts that a training job and each job of a tuning job share."""

from __future__ import annotations

from contract.errors import BadHyperparameters
from contract.hyperparameters import parse_hyperparameters
from contract.job import MODES
from contract.tuning import metric_definitions
from deploy.cloud import Cloud, Request
from deploy.endpoints.combinations import ECR, HERE
from deploy.errors import BadSettings
from deploy.instances import check_instances
from deploy.jobs.channels import checked_channels, input_data
from deploy.names import named
from deploy.network import role_of, vpc_of
from deploy.settings import Image, Network, Pairs, Training
from model import DECLARATION
from model.metrics import metrics_of

DISTRIBUTIONS = ("FullyReplicated", "ShardedByS3Key")
LONGEST_RUN_S = 28 * 86_400
"""T-30."""
RETRIES = 2
"""Attempts after an error of AWS's own; no other error is tried again (T-30)."""
LONGEST_VALUE = 2_500
"""T-13."""
METRICS = metrics_of(DECLARATION.target)


def checked(training: Training, image: Image, network: Network) -> None:
    """Refuse what no training job takes, before any call.

    Raises:
        BadSettings: with the reason.
    """
    vpc_of(network)
    checked_channels(training)
    check_hyperparameters(training.hyperparameter)
    check_instances("training_type", training.training_type, training.training_count, network)
    for name, value, choices in (
        ("input_mode", training.input_mode, MODES),
        ("distribution", training.distribution, DISTRIBUTIONS),
    ):
        if value not in choices:
            raise BadSettings(f"{name} is {value!r}; it takes {', '.join(choices)}.")
    if not 1 <= training.max_run_s <= LONGEST_RUN_S:
        raise BadSettings(f"max_run_s is {training.max_run_s}; 1 to {LONGEST_RUN_S}, 28 days, was expected (T-30).")
    if training.spot and training.max_wait_s < training.max_run_s:
        raise BadSettings(
            f"A spot job's max_wait_s ({training.max_wait_s}) includes its run: max_run_s ({training.max_run_s}) at least "
            "(T-28). Set --max-wait-s higher or --max-run-s lower."
        )
    estimator = training.hyperparameter.get("estimator", "")
    if training.training_count > 1 and training.distribution == "ShardedByS3Key" and estimator != "lightgbm":
        raise BadSettings(
            "Only estimator=lightgbm learns from a channel that is shared out over several instances; the others fit on the "
            "first, of all rows. Set --hyperparameter estimator=lightgbm, or --distribution FullyReplicated."
        )
    if is_private(image) and not network.subnets:
        raise BadSettings(
            f"SageMaker takes images of ECR; one of another registry ({image.registry or image.uri}) only over a VPC (T-8): "
            "set --subnets and --security-groups, or push to ECR."
        )


def is_private(image: Image) -> bool:
    """Return whether an image is in a registry that SageMaker reaches over a VPC alone: any but ECR (T-8)."""
    host = (image.uri or image.registry).partition("/")[0]
    return bool(host) and not ECR.fullmatch(host) and not HERE.fullmatch(host)


def check_hyperparameters(given: Pairs) -> None:
    """Refuse hyperparameters that `train` would refuse, by its own parser.

    Raises:
        BadSettings: a name is unknown, or a value out of its range.
    """
    try:
        parse_hyperparameters(given, DECLARATION.hyperparameters)
    except BadHyperparameters as error:
        raise BadSettings(f"{error.message}\n`container/train --help` lists them all.") from None
    for name, value in given.items():
        if len(value) > LONGEST_VALUE:
            raise BadSettings(f"Hyperparameter {name} has {len(value):,} characters; {LONGEST_VALUE:,} is the most (T-13).")


def definition(cloud: Cloud, training: Training, network: Network, *, image: Image, uri: str, bucket: str) -> Request:
    """Return what a training job and a tuning job's `TrainingJobDefinition` have in common; what is here is copied first.

    Args:
        cloud: the account.
        training: its settings.
        network: role, keys, network.
        image: where it is kept.
        uri: the image with its digest.
        bucket: of data and models.
    """
    outputs = outputs_of(cloud, bucket)
    return {
        "AlgorithmSpecification": {
            "TrainingImage": uri,
            "TrainingInputMode": training.input_mode,
            "MetricDefinitions": metric_definitions(METRICS),
            **({"TrainingImageConfig": {"TrainingRepositoryAccessMode": "Vpc"}} if is_private(image) else {}),
        },
        "RoleArn": role_of(cloud, network, "training"),
        "InputDataConfig": input_data(cloud, training, network, f"{outputs}/data"),
        "OutputDataConfig": {"S3OutputPath": f"{outputs}/models", **_key("KmsKeyId", network.output_key)},
        "ResourceConfig": {
            "InstanceType": training.training_type,
            "InstanceCount": training.training_count,
            "VolumeSizeInGB": training.volume_gb,
            **_key("VolumeKmsKeyId", network.volume_key),
        },
        "StoppingCondition": {
            "MaxRuntimeInSeconds": training.max_run_s,
            **({"MaxWaitTimeInSeconds": training.max_wait_s} if training.spot else {}),
        },
        "EnableNetworkIsolation": network.isolation,
        "EnableInterContainerTrafficEncryption": network.encrypt_traffic,
        "EnableManagedSpotTraining": training.spot,
        "RetryStrategy": {"MaximumRetryAttempts": RETRIES},
        **vpc_of(network),
    }


def checkpoints(cloud: Cloud, bucket: str, kind: str, request: Request) -> Request:
    """Return CheckpointConfig of spot jobs: the prefix is that of these settings, so that another attempt goes on there."""
    return {"S3Uri": f"{outputs_of(cloud, bucket)}/checkpoints/{named(cloud.account.name, kind, request)}"}


def outputs_of(cloud: Cloud, bucket: str) -> str:
    """Return the s3:// prefix of all that a project's jobs read and leave."""
    return f"s3://{bucket}/{cloud.account.name}"


def _key(name: str, key: str) -> dict[str, str]:
    return {name: key} if key else {}
