"""What a project has in the cloud of the tests: made by calls that are not counted, or by the verbs themselves."""

from __future__ import annotations

import http.server
import json
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

from snapshots import ANSWERS, client
from verbs import ROLE, URI, Ran, berth

from deploy.cloud import TAG

if TYPE_CHECKING:
    from local_test.cloud import Cloud

BUCKET = "berth-test"
MODEL = f"s3://{BUCKET}/berth/model.tar.gz"
RECORDS = f"s3://{BUCKET}/berth/records/"
ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com/berth"
TOPIC = "arn:aws:sns:us-east-1:123456789012:berth"
BLOB = {"mediaType": "application/octet-stream", "size": 3, "digest": "sha256:" + "0" * 64}
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": DOCKER, "config": BLOB, "layers": [BLOB]})
TAGS = [{"Key": TAG, "Value": "berth"}]
IMAGE = ("--uri", URI)
WHERE = (*IMAGE, "--role", ROLE)
ENDPOINT = ("endpoint", *WHERE, "--model-data", MODEL, "--instance-count", "2")
ASYNC = ("--kind", "async", "--async-output", f"s3://{BUCKET}/berth/{ANSWERS}")


def a_model(aws: Cloud) -> None:
    client(aws, "s3").create_bucket(Bucket=BUCKET)
    client(aws, "s3").put_bucket_tagging(Bucket=BUCKET, Tagging={"TagSet": TAGS})
    client(aws, "s3").put_object(Bucket=BUCKET, Key="berth/model.tar.gz", Body=b"a model")
    client(aws, "s3").put_object(Bucket=BUCKET, Key="berth/records/one.csv", Body=b"1,2\n3,4\n")


def a_role(aws: Cloud) -> None:
    statement = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    client(aws, "iam").create_role(RoleName="berth", AssumeRolePolicyDocument=trust)


def a_training_job(aws: Cloud) -> None:
    a_model(aws)
    aws.looks(5)
    good("train", *WHERE, "--bucket", BUCKET, "--no-wait")


def a_version(aws: Cloud) -> None:
    sagemaker = client(aws, "sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="berth", Tags=TAGS)
    container = {"Image": URI, "ModelDataUrl": MODEL}
    types = {"SupportedContentTypes": ["text/csv"], "SupportedResponseMIMETypes": ["text/csv"]}
    arn = sagemaker.create_model_package(
        ModelPackageGroupName="berth",
        ModelApprovalStatus="PendingManualApproval",
        InferenceSpecification={"Containers": [container], **types},
    )["ModelPackageArn"]
    while sagemaker.describe_model_package(ModelPackageName=arn)["ModelPackageStatus"] != "Completed":
        pass


def an_image(aws: Cloud) -> str:
    """Put an image into ECR, and return its address."""
    ecr = client(aws, "ecr")
    made = ecr.create_repository(repositoryName="berth", tags=TAGS)["repository"]["repositoryUri"]
    image = ecr.put_image(repositoryName="berth", imageManifest=MANIFEST, imageTag="1")["image"]["imageId"]
    return f"{made}@{image['imageDigest']}"


def a_release(aws: Cloud) -> None:
    """Put the image that WHERE names into ECR, under a tag with its version."""
    a_model(aws)
    client(aws, "ecr").create_repository(repositoryName="berth", tags=TAGS)
    client(aws, "ecr").put_image(
        repositoryName="berth", imageManifest=MANIFEST, imageTag="0.1.0-0123456789ab", imageDigest=URI.partition("@")[2]
    )


def an_endpoint_with_a_finding(aws: Cloud) -> None:
    a_model(aws)
    client(aws, "s3").create_bucket(Bucket="sagemaker-us-east-1-123456789012")
    client(aws, "s3").put_bucket_tagging(Bucket="sagemaker-us-east-1-123456789012", Tagging={"TagSet": TAGS})
    client(aws, "sns").create_topic(Name="berth", Tags=TAGS)
    aws.findings("berth", "*", [{"name": "CVE-2026-0001", "severity": "HIGH", "attributes": []}])
    served(aws, an_image(aws))


def an_endpoint(aws: Cloud) -> None:
    a_model(aws)
    good(*ENDPOINT)


def an_updated_endpoint(aws: Cloud) -> None:
    an_endpoint(aws)
    good(*ENDPOINT, "--environment", "A=B")


def an_endpoint_that_answers(aws: Cloud) -> None:
    an_endpoint(aws)
    aws.serve("*", echo())


def an_async_endpoint(aws: Cloud) -> None:
    a_model(aws)
    good("endpoint", *WHERE, "--model-data", MODEL, *ASYNC)
    aws.serve("*", echo())


def all_of_it(aws: Cloud) -> None:
    """A project with everything that `delete` knows, and jobs that run."""
    a_model(aws)
    a_version(aws)
    served(aws)
    jobs(aws)
    client(aws, "ecr").create_repository(repositoryName="berth", tags=TAGS)
    aws.looks(5)  # the jobs run on through two runs


def served(aws: Cloud, image: str = URI) -> None:
    """An endpoint with its scaling, its alarm and its log."""
    sagemaker, scaling = client(aws, "sagemaker"), client(aws, "application-autoscaling")
    container = {"Image": image, "ModelDataUrl": MODEL}
    sagemaker.create_model(ModelName="berth-model", PrimaryContainer=container, ExecutionRoleArn=ROLE, Tags=TAGS)
    variant = {"VariantName": "AllTraffic", "ModelName": "berth-model", "InstanceType": "ml.m5.large"}
    variants = [{**variant, "InitialInstanceCount": 2}]
    sagemaker.create_endpoint_config(EndpointConfigName="berth-config", ProductionVariants=variants, Tags=TAGS)
    sagemaker.create_endpoint(EndpointName="berth", EndpointConfigName="berth-config", Tags=TAGS)
    while sagemaker.describe_endpoint(EndpointName="berth")["EndpointStatus"] != "InService":
        pass
    target = {"ServiceNamespace": "sagemaker", "ResourceId": "endpoint/berth/variant/AllTraffic"}
    target["ScalableDimension"] = "sagemaker:variant:DesiredInstanceCount"
    scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=4, Tags={TAG: "berth"})
    client(aws, "cloudwatch").put_metric_alarm(
        AlarmName="berth-errors",
        MetricName="Invocation5XXErrors",
        Namespace="AWS/SageMaker",
        EvaluationPeriods=1,
        Threshold=0.1,
        Period=60,
        Statistic="Average",
        ComparisonOperator="GreaterThanThreshold",
        Tags=TAGS,
    )
    client(aws, "logs").create_log_group(logGroupName="/aws/sagemaker/Endpoints/berth")


def jobs(aws: Cloud) -> None:
    """A training job that is done; and one of each kind that runs."""
    sagemaker = client(aws, "sagemaker")
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 1}
    definition = {
        "AlgorithmSpecification": {"TrainingImage": URI, "TrainingInputMode": "File"},
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/berth/models"},
        "ResourceConfig": {**resources, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }
    sagemaker.create_training_job(TrainingJobName="berth-done", Tags=TAGS, **definition)
    while sagemaker.describe_training_job(TrainingJobName="berth-done")["TrainingJobStatus"] != "Completed":
        pass
    sagemaker.create_training_job(TrainingJobName="berth-runs", Tags=TAGS, **definition)
    sagemaker.create_transform_job(
        TransformJobName="berth-batch",
        ModelName="berth-model",
        TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": RECORDS}}},
        TransformOutput={"S3OutputPath": f"s3://{BUCKET}/berth/batch"},
        TransformResources=resources,
        Tags=TAGS,
    )


def good(*words: str) -> Ran:
    ran = berth(*words)
    assert ran.exit_code == 0, ran.output
    return ran


@cache
def echo() -> str:
    """The URL of a container that answers every request with its body."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


class Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/csv")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass
