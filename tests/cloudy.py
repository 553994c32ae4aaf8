"""The AWS of the tests, a real registry beside it, and what many tests make there first."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.loaders import create_loader

from local_test.rehearsal.registry import registry as local_registry

if TYPE_CHECKING:
    from local_test.cloud import Cloud

ROLE = "arn:aws:iam::123456789012:role/berth"
BUCKET = "berth-test"
ONCE = Config(retries={"total_max_attempts": 1})
CANARY = {
    "BlueGreenUpdatePolicy": {
        "TrafficRoutingConfiguration": {
            "Type": "CANARY",
            "WaitIntervalInSeconds": 60,
            "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10},
        },
    },
    "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}]},
}
TUNING = {
    "Strategy": "Random",
    "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "rmse"},
    "ResourceLimits": {"MaxNumberOfTrainingJobs": 3, "MaxParallelTrainingJobs": 1},
    "ParameterRanges": {"IntegerParameterRanges": [{"Name": "depth", "MinValue": "2", "MaxValue": "8"}]},
}
DEFINITION = {
    "AlgorithmSpecification": {"TrainingImage": "berth:1", "TrainingInputMode": "File"},
    "RoleArn": ROLE,
    "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/tuned"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
}
TRAINING = {
    "TrainingImage": "berth:1",
    "SupportedTrainingInstanceTypes": ["ml.m5.large"],
    "TrainingChannels": [{"Name": "training", "SupportedContentTypes": ["text/csv"], "SupportedInputModes": ["File"]}],
}
INFERENCE = {
    "Containers": [{"Image": "berth:1", "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz"}],
    "SupportedContentTypes": ["text/csv"],
    "SupportedResponseMIMETypes": ["text/csv"],
}
TARGET = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/housing/variant/all",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
PRICE = {
    "serviceCode": "AmazonSageMaker",
    "product": {"attributes": {"instanceName": "ml.m5.large", "regionCode": "us-east-1", "component": "Hosting"}},
    "terms": {"OnDemand": {}},
}


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a real registry that allows deletes; it keeps what is pushed for the session."""
    from conftest import registry_program

    with local_registry(tmp_path_factory.mktemp("registry"), registry_program()) as address:
        yield address


@pytest.fixture(scope="session")
def aws_alone() -> Iterator[Cloud]:
    """A cloud without a registry, for all tests: `aws` is what they take."""
    from local_test.cloud import cloud  # moto takes a while to import

    with cloud() as running:
        yield running


@pytest.fixture
def aws(aws_alone: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """An empty cloud, to which every AWS client of this process and of those that it starts talks."""
    lead(aws_alone, monkeypatch)
    yield aws_alone
    aws_alone.reset()


@pytest.fixture(scope="session")
def aws_and_registry(registry: str) -> Iterator[Cloud]:
    """A cloud whose ECR is a real registry, for all tests: `ecr_aws` is what they take."""
    from local_test.cloud import cloud

    with cloud(registry) as running:
        yield running


@pytest.fixture
def ecr_aws(aws_and_registry: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """The same, with a real registry behind ECR; what was pushed there stays."""
    lead(aws_and_registry, monkeypatch)
    yield aws_and_registry
    aws_and_registry.reset()


def lead(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every AWS client talk to a cloud, whatever the machine has configured."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in aws.environ().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("botocore.session.create_loader", loader)
    monkeypatch.setattr("deploy.cloud.boto3", SimpleNamespace(Session=kept_session))


loader = cache(create_loader)
"""Reads a service's model once, not once a session."""
AFTER_CALL: list[Callable[[], None]] = []
"""Called after each call of a verb."""


def kept_session(profile_name: str | None = None, region_name: str | None = None) -> Any:
    """Return a session as boto3 does, whose clients are made once: that is half of what a verb takes here.

    They have no state that a verb could see, and others are made wherever a variable of AWS's is another.
    """
    return _kept(profile_name, region_name, tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))))


@cache
def _kept(profile_name: str | None, region_name: str | None, environ: tuple[tuple[str, str], ...]) -> Any:
    session = boto3.Session(profile_name=profile_name, region_name=region_name)
    clients: dict[tuple[str, str | None], Any] = {}

    def kept(service: str, *, region_name: str | None, config: Config) -> Any:
        key = (service, region_name)
        if key not in clients:
            clients[key] = session.client(service, region_name=region_name, config=config)
            clients[key].meta.events.register("after-call", lambda **_: [each() for each in AFTER_CALL])
        return clients[key]

    names = ("region_name", "get_partition_for_region", "get_available_regions")
    return SimpleNamespace(client=kept, **{name: getattr(session, name) for name in names})


def make_model(aws: Cloud, name: str = "housing", **more: object) -> None:
    """A model, its data in the bucket, which is made if need be."""
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="model.tar.gz", Body=b"a model")
    container = {"Image": "berth:1", "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz"}
    aws.client("sagemaker").create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container, **more)


def make_config(aws: Cloud, name: str, model: str = "housing", count: int = 1, **more: object) -> None:
    """A configuration of an endpoint with one variant."""
    variant = {"VariantName": "all", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": count}
    aws.client("sagemaker").create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **more)


def make_endpoint(aws: Cloud, name: str = "housing", **more: object) -> None:
    """An endpoint in service, of one model and one configuration of the same name."""
    make_model(aws, name)
    make_config(aws, name, name, **more)
    aws.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=name)
    settle(aws, "describe_endpoint", EndpointName=name)


def make_training_job(aws: Cloud, name: str = "job", **more: object) -> None:
    """A training job that has begun; the bucket must be there for it to complete."""
    request = {
        "TrainingJobName": name,
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingImage": "berth:1", "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }
    aws.client("sagemaker").create_training_job(**{**request, **more})


def settle(aws: Cloud, describe: str, **named: str) -> dict:
    """Describe something until it is no more in progress; return what it is then."""
    client = aws.client("sagemaker")
    for _ in range(20):
        found = getattr(client, describe)(**named)
        if not {"Creating", "Updating", "RollingBack", "InProgress", "Stopping", "Pending"} & set(statuses(found)):
            return found
    raise AssertionError(f"still in progress: {found}")


def statuses(found: dict) -> list[str]:
    return [value for key, value in found.items() if key.endswith("Status") and isinstance(value, str)]


def push(registry: str, repository: str, tag: str, content: bytes = b"layer") -> str:
    """Push an image of one layer to a registry, as Docker does, and return its digest."""
    descriptors = [upload(registry, repository, blob) for blob in (b'{"os": "linux", "architecture": "amd64"}', content)]
    kinds = ("application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip")
    config, layer = ({"mediaType": kind, **each} for kind, each in zip(kinds, descriptors, strict=True))
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]}).encode()
    url = f"http://{registry}/v2/{repository}/manifests/{tag}"
    with urlopen(Request(url, manifest, {"Content-Type": kind}, method="PUT"), timeout=20) as answered:
        return answered.headers["Docker-Content-Digest"]


def upload(registry: str, repository: str, blob: bytes) -> dict:
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    with urlopen(Request(f"http://{registry}/v2/{repository}/blobs/uploads/", b"", method="POST"), timeout=20) as begun:
        place = begun.headers["Location"]
    url = f"{place}{'&' if '?' in place else '?'}digest={digest}"
    headers = {"Content-Type": "application/octet-stream"}
    urlopen(Request(url, blob, headers, method="PUT"), timeout=20).close()
    return {"size": len(blob), "digest": digest}


def code(error: pytest.ExceptionInfo) -> str:
    return error.value.response["Error"]["Code"]


def said(error: pytest.ExceptionInfo) -> str:
    return error.value.response["Error"]["Message"]


def refusal(call, **request) -> tuple[str, str]:
    """The code and the message that a call is refused with."""
    with pytest.raises(ClientError) as error:
        call(**request)
    return code(error), said(error)


def make_bucket(aws):
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    return s3


def transform(aws, name="batch"):
    aws.client("sagemaker").create_transform_job(
        TransformJobName=name,
        ModelName="housing",
        TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/in/"}}},
        TransformOutput={"S3OutputPath": f"s3://{BUCKET}/predicted"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )


def tune(aws, name="tuning"):
    aws.client("sagemaker").create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name, HyperParameterTuningJobConfig=TUNING, TrainingJobDefinition=DEFINITION
    )


def ring(aws, state="ALARM", name="errors"):
    cloudwatch = aws.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1.0,
        ComparisonOperator="GreaterThanThreshold",
    )
    cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="told so")


class Container(BaseHTTPRequestHandler):
    """Answers with the body it got, and tells in a header which others it saw; a body of `bad` is a 400."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400 if body == b"bad" else 200)
        self.send_header("Content-Type", self.headers.get("Accept", "text/csv"))
        self.send_header("Content-Length", str(len(body)))
        seen = ",".join(sorted(name for name in self.headers if name.lower().startswith("x-")))
        self.send_header("X-Amzn-SageMaker-Custom-Attributes", seen)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def container(handler: type[BaseHTTPRequestHandler] = Container):
    """The URL of a container."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
