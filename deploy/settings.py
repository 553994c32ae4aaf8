"""What the verbs of `python -m deploy` can be told: each setting once, with its meaning, its type and its default.

A section is a table of the settings file, and a verb takes whole sections. A flag wins over the environment, that over the
file, that over the default (deploy/options.py). docs/deploy.md lists them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, TypeAlias

from deploy.market.settings import Kit, Listing

Texts: TypeAlias = tuple[str, ...]
Pairs: TypeAlias = Mapping[str, str]


def pairs() -> Pairs:
    """Return no pairs: the default of a setting that takes them."""
    return {}


@dataclass(frozen=True)
class Account:
    """Where, as whom, and how carefully."""

    section: ClassVar[str] = "account"

    name: Annotated[str, "What all is named after, and found by: the project"] = "berth"
    region: Annotated[str, "AWS Region; without one, what the AWS configuration says"] = ""
    profile: Annotated[str, "Profile of the AWS configuration"] = ""
    tag: Annotated[Pairs, "NAME=VALUE, put on all that is made, beside the project's own tags"] = field(default_factory=pairs)
    dry_run: Annotated[bool, "Print the requests that would change something instead of sending them"] = False
    yes: Annotated[bool, "Don't ask before anything is deleted"] = False
    wait: Annotated[bool, "Wait until what was started has ended"] = True
    poll_s: Annotated[float, "Seconds between two looks at what is waited for"] = 15.0


@dataclass(frozen=True)
class Image:
    """Which image, and where it is kept."""

    section: ClassVar[str] = "image"

    image: Annotated[str, "The image as the engine here knows it"] = "berth:latest"
    registry: Annotated[str, "Where it is pushed to, such as docker.io/someone; without one, the account's ECR"] = ""
    repository: Annotated[str, "Its name there; without one, the project's"] = ""
    image_tag: Annotated[str, "Its tag there; without one, made of its version and revision labels"] = ""
    uri: Annotated[str, "An image that is in a registry already, as REPOSITORY@sha256:DIGEST; nothing is looked up then"] = ""
    engine: Annotated[str, "docker or podman; without one, whichever is there"] = ""
    image_key: Annotated[str, "KMS key that encrypts the ECR repository, when it is made"] = ""
    keep_images: Annotated[int, "Images that the ECR repository's lifecycle policy keeps"] = 50


@dataclass(frozen=True)
class Gate:
    """What an image has to pass before it is pushed."""

    section: ClassVar[str] = "gate"

    fail_on: Annotated[str, "Severity from which on a finding stops the image: low, medium, high, critical"] = "high"
    allow: Annotated[str, "File of findings that are let pass, each with a reason and the day it ends"] = "deploy/allow.toml"
    allow_dirty: Annotated[bool, "Push an image although its sources are in no commit"] = False
    skip_scan: Annotated[bool, "Push without a scan"] = False
    skip_conformance: Annotated[bool, "Push without judging the image by the platforms' rules"] = False


@dataclass(frozen=True)
class Fresh:
    """Coming back to what was pinned and pushed, on a schedule."""

    section: ClassVar[str] = "fresh"

    topic: Annotated[str, "ARN of the SNS topic that is told of new findings"] = ""
    memory: Annotated[
        str, "s3://BUCKET/KEY of what was told; without one, PROJECT/told.json in the account's SageMaker bucket"
    ] = ""
    new_lock: Annotated[str, "File that the new requirements.lock is written to"] = "build/requirements.lock"
    body: Annotated[str, "File that what has changed is written to, as a pull request's body"] = "build/fresh.md"


@dataclass(frozen=True)
class Network:
    """Roles, keys and networks of whatever runs in SageMaker."""

    section: ClassVar[str] = "network"

    role: Annotated[str, "ARN of the role that jobs and endpoints run as; without one, that of the roles' stack"] = ""
    subnets: Annotated[Texts, "Subnets that containers are attached to"] = ()
    security_groups: Annotated[Texts, "Security groups of the same; both or neither"] = ()
    isolation: Annotated[bool, "Containers reach no network at all (M-7)"] = False
    encrypt_traffic: Annotated[bool, "Encrypt what the hosts of a training job send each other"] = False
    volume_key: Annotated[str, "KMS key of the instances' volumes"] = ""
    output_key: Annotated[str, "KMS key of what is written to S3: models, batch output, asynchronous answers"] = ""


@dataclass(frozen=True)
class Storage:
    """Where data, models and answers are kept."""

    section: ClassVar[str] = "storage"

    bucket: Annotated[str, "Bucket of data and models; without one, sagemaker-REGION-ACCOUNT, made where it is not there"] = ""


@dataclass(frozen=True)
class Jobs:
    """Which job is meant, where the same has been started before."""

    section: ClassVar[str] = "jobs"

    again: Annotated[bool, "Do it once more although the same job has ended"] = False


@dataclass(frozen=True)
class Training:
    """A training job, and each job of a tuning job."""

    section: ClassVar[str] = "training"

    channel: Annotated[Pairs, "NAME=s3://BUCKET/PREFIX, or NAME=FOLDER, which is copied to the bucket first"] = field(
        default_factory=pairs
    )
    hyperparameter: Annotated[Pairs, "NAME=VALUE"] = field(default_factory=pairs)
    training_type: Annotated[str, "Instance type"] = "ml.m5.large"
    training_count: Annotated[int, "Instances"] = 1
    volume_gb: Annotated[int, "Size of each instance's volume"] = 30
    max_run_s: Annotated[int, "Seconds after which a job is stopped"] = 3600
    spot: Annotated[bool, "Spare capacity: cheaper, and interrupted now and then; checkpoints are kept (T-29)"] = False
    max_wait_s: Annotated[int, "Seconds that a spot job may take, waiting included"] = 7200
    input_mode: Annotated[str, "File, FastFile or Pipe (T-20, T-21)"] = "File"
    distribution: Annotated[str, "FullyReplicated, or ShardedByS3Key over the instances (T-23)"] = "FullyReplicated"
    content_types: Annotated[Pairs, "CHANNEL=MEDIA/TYPE of files whose names have no known ending"] = field(
        default_factory=pairs
    )


@dataclass(frozen=True)
class Tuning:
    """A search for hyperparameters."""

    section: ClassVar[str] = "tuning"

    estimator: Annotated[str, "Whose hyperparameters are searched"] = "hist_gradient_boosting"
    jobs: Annotated[int, "Training jobs in all"] = 20
    parallel: Annotated[int, "Training jobs at a time"] = 2
    search: Annotated[str, "Strategy: Bayesian, Random, Hyperband or Grid"] = "Bayesian"


@dataclass(frozen=True)
class Package:
    """The model registry."""

    section: ClassVar[str] = "package"

    group: Annotated[str, "Model package group; without one, the project's name"] = ""
    approve: Annotated[bool, "Approve the version at once; otherwise it waits for `approve`"] = False


@dataclass(frozen=True)
class Endpoint:
    """An endpoint and what stands behind it."""

    section: ClassVar[str] = "endpoint"

    endpoint: Annotated[str, "Its name, the project's or one that begins with it and a hyphen; without one, the project's"] = ""
    kind: Annotated[str, "realtime, serverless, async or multi-model"] = "realtime"
    model_data: Annotated[
        str, "s3://..model.tar.gz (multi-model: a prefix); without one, the newest model that is approved or trained"
    ] = ""
    environment: Annotated[Pairs, "NAME=VALUE, settings of `serve`"] = field(default_factory=pairs)
    instance_type: Annotated[str, "Instance type"] = "ml.m5.large"
    instance_count: Annotated[int, "Instances"] = 1
    memory_mb: Annotated[int, "Serverless: memory, whole gigabytes up to 6144"] = 2048
    concurrency: Annotated[int, "Serverless: requests at a time; asynchronous: on an instance"] = 4
    async_output: Annotated[str, "Asynchronous: s3:// prefix of the answers"] = ""
    async_failure: Annotated[
        str, "Asynchronous: s3:// prefix of what failed; without one, failures/ under that of the answers"
    ] = ""
    success_topic: Annotated[str, "Asynchronous: SNS topic told of answers"] = ""
    error_topic: Annotated[str, "Asynchronous: SNS topic told of failures"] = ""
    capture_percent: Annotated[int, "Share of requests that data capture keeps; 0 keeps none"] = 0
    capture_output: Annotated[str, "s3:// prefix of what is captured"] = ""
    capture_key: Annotated[str, "KMS key of what is captured; without one, that of what is written to S3"] = ""
    shadow_model_data: Annotated[str, "A second model that gets copies of the requests, and whose answers nobody sees"] = ""
    shadow_percent: Annotated[int, "Share of the requests that are copied to it"] = 100
    download_s: Annotated[int, "Seconds that an instance has to fetch the model"] = 600
    startup_s: Annotated[int, "Seconds that a container has until /ping answers (H-7)"] = 480


@dataclass(frozen=True)
class Update:
    """How an endpoint gets from one configuration to another."""

    section: ClassVar[str] = "update"

    strategy: Annotated[
        str,
        "How traffic moves: canary, linear, rolling or all-at-once (H-42); without one, canary where there are two instances "
        "or more",
    ] = ""
    step_percent: Annotated[int, "Share of the first step (canary), or of each (linear, rolling)"] = 10
    bake_s: Annotated[int, "Seconds after a step, in which alarms may turn it back"] = 300
    keep_old_s: Annotated[int, "Seconds for which the old instances stay when all is done"] = 0
    limit_s: Annotated[int, "Seconds that it may take in all; 0: what the steps need"] = 0
    alarms: Annotated[Texts, "CloudWatch alarms that turn it back, instead of those that are made"] = ()
    guard: Annotated[bool, "Let alarms turn it back"] = True
    error_percent: Annotated[float, "Share of requests answered with 5xx, over which the alarm that is made goes off"] = 1.0
    latency_ms: Annotated[float, "Latency (p99) over which a second alarm goes off; 0 makes none"] = 0.0
    to_config: Annotated[str, "rollback: the endpoint configuration to go to; without one, that before the last update"] = ""


@dataclass(frozen=True)
class Scaling:
    """How many instances an endpoint has."""

    section: ClassVar[str] = "scaling"

    min_count: Annotated[int, "Instances at least; 0 for asynchronous endpoints alone"] = 1
    max_count: Annotated[int, "Instances at most"] = 4
    invocations: Annotated[float, "Requests a minute that an instance is to have"] = 1000.0
    backlog: Annotated[float, "Asynchronous: requests that may wait for each instance"] = 5.0
    scale_in_s: Annotated[int, "Seconds between two steps to fewer instances"] = 300
    scale_out_s: Annotated[int, "Seconds between two steps to more"] = 60
    fixed: Annotated[bool, "Scale no longer: remove what scales, and leave the instances as they are"] = False


@dataclass(frozen=True)
class Call:
    """One request to an endpoint."""

    section: ClassVar[str] = "call"

    payload: Annotated[str, "File with the request's body; - for standard input; without one, the model's sample rows"] = ""
    content_type: Annotated[str, "Media type of the body"] = "text/csv"
    accept: Annotated[str, "Media type of the answer; without one, that of the request"] = ""
    target_model: Annotated[str, "Multi-model: which"] = ""


@dataclass(frozen=True)
class Batch:
    """A batch transform job."""

    section: ClassVar[str] = "batch"

    batch_input: Annotated[str, "s3:// prefix, or a file or folder here that is copied to the bucket first"] = ""
    batch_output: Annotated[str, "s3:// prefix of the answers; without one, beside the input"] = ""
    batch_data: Annotated[str, "s3://..model.tar.gz; without one, the newest model that is approved or trained"] = ""
    record_type: Annotated[str, "Media type of the input's records, and of the answers"] = "text/csv"
    split: Annotated[str, "Line, or None: a file is a record (H-30)"] = "Line"
    record_strategy: Annotated[str, "MultiRecord or SingleRecord (H-26)"] = "MultiRecord"
    payload_mb: Annotated[int, "Size of a mini-batch"] = 6
    transforms: Annotated[int, "Mini-batches at a time on an instance; times their size at most 100 MB (H-26)"] = 4
    batch_type: Annotated[str, "Instance type"] = "ml.m5.large"
    batch_count: Annotated[int, "Instances"] = 1
    join_input: Annotated[bool, "Put each answer behind its own record (H-29)"] = False
    bad_rows: Annotated[str, "fail, or placeholder: an answer that says so in place of a bad row's (H-28)"] = "fail"


SECTIONS: tuple[type, ...] = (
    Account,
    Image,
    Gate,
    Fresh,
    Network,
    Storage,
    Jobs,
    Training,
    Tuning,
    Package,
    Endpoint,
    Update,
    Scaling,
    Call,
    Batch,
    Listing,
    Kit,
)
