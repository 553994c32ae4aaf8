"""The AWS that stands in: one door for all services, faults when told, what it refuses, lists and tags."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError
from cloudy import (
    BUCKET,
    INFERENCE,
    ONCE,
    PRICE,
    ROLE,
    TARGET,
    TRAINING,
    code,
    container,
    make_bucket,
    make_config,
    make_endpoint,
    make_model,
    make_training_job,
    refusal,
    settle,
    transform,
    tune,
)
from conftest import ROOT

from local_test.cloud import attach, wire
from local_test.cloud.front import ANSWERS

# Everything, once


def test_every_operation_of_the_stand_in_answers_a_real_client_as_its_model_says(aws) -> None:
    with container() as url:
        tour(aws, url)
    called = {(call.service, call.operation) for call in aws.calls if call.status < 300}
    assert set(ANSWERS) <= called, sorted(set(ANSWERS) - called)


def tour(aws, url):
    sagemaker = aws.client("sagemaker")
    make_endpoint(aws)
    tour_hosting(sagemaker, aws, url)
    tour_jobs(sagemaker, aws)
    tour_registry(sagemaker)
    tour_beside(aws)
    for kind in ("training_jobs", "transform_jobs", "hyper_parameter_tuning_jobs", "algorithms", "model_package_groups"):
        assert getattr(sagemaker, f"list_{kind}")()["ResponseMetadata"]["HTTPStatusCode"] == 200


def tour_hosting(sagemaker, aws, url):
    aws.serve("housing", url)
    runtime = aws.client("sagemaker-runtime")
    assert runtime.invoke_endpoint(EndpointName="housing", Body=b"1")["Body"].read() == b"1"
    streamed = runtime.invoke_endpoint_with_response_stream(EndpointName="housing", Body=b"12")["Body"]
    assert b"".join(event["PayloadPart"]["Bytes"] for event in streamed) == b"12"
    make_config(aws, "async", AsyncInferenceConfig={"OutputConfig": {"S3OutputPath": f"s3://{BUCKET}/later"}})
    sagemaker.update_endpoint(EndpointName="housing", EndpointConfigName="async")
    settle(aws, "describe_endpoint", EndpointName="housing")
    runtime.invoke_endpoint_async(EndpointName="housing", InputLocation=f"s3://{BUCKET}/model.tar.gz")
    weights = [{"VariantName": "all", "DesiredInstanceCount": 2}]
    sagemaker.update_endpoint_weights_and_capacities(EndpointName="housing", DesiredWeightsAndCapacities=weights)
    settle(aws, "describe_endpoint", EndpointName="housing")
    sagemaker.describe_model(ModelName="housing")
    sagemaker.describe_endpoint_config(EndpointConfigName="async")
    sagemaker.list_models()
    sagemaker.list_endpoints()
    sagemaker.list_endpoint_configs()
    sagemaker.delete_endpoint(EndpointName="housing")
    sagemaker.delete_endpoint_config(EndpointConfigName="async")


def tour_jobs(sagemaker, aws):
    aws.client("s3").put_object(Bucket=BUCKET, Key="in/a.csv", Body=b"1\n")
    make_training_job(aws)
    transform(aws)
    tune(aws)
    sagemaker.stop_training_job(TrainingJobName="job")
    sagemaker.stop_transform_job(TransformJobName="batch")
    sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="tuning")
    settle(aws, "describe_training_job", TrainingJobName="job")
    settle(aws, "describe_transform_job", TransformJobName="batch")
    settle(aws, "describe_hyper_parameter_tuning_job", HyperParameterTuningJobName="tuning")
    sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(HyperParameterTuningJobName="tuning")
    sagemaker.delete_training_job(TrainingJobName="job")
    sagemaker.delete_hyper_parameter_tuning_job(HyperParameterTuningJobName="tuning")
    sagemaker.delete_model(ModelName="housing")


def tour_registry(sagemaker):
    sagemaker.create_algorithm(AlgorithmName="berth", TrainingSpecification=TRAINING)
    for _ in range(3):
        described = sagemaker.describe_algorithm(AlgorithmName="berth")
    assert described["AlgorithmStatus"] == "Completed"
    sagemaker.delete_algorithm(AlgorithmName="berth")
    sagemaker.create_model_package_group(ModelPackageGroupName="group")
    sagemaker.describe_model_package_group(ModelPackageGroupName="group")
    arn = sagemaker.create_model_package(ModelPackageGroupName="group", InferenceSpecification=INFERENCE)["ModelPackageArn"]
    sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    assert sagemaker.describe_model_package(ModelPackageName=arn)["ModelApprovalStatus"] == "Approved"
    assert len(sagemaker.list_model_packages(ModelPackageGroupName="group")["ModelPackageSummaryList"]) == 1
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}])
    sagemaker.list_tags(ResourceArn=arn)
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["a"])
    sagemaker.delete_model_package(ModelPackageName=arn)
    sagemaker.delete_model_package_group(ModelPackageGroupName="group")


def tour_beside(aws):
    aws.client("iam").simulate_principal_policy(PolicySourceArn=ROLE, ActionNames=["s3:GetObject"])
    aws.client("pricing").get_products(ServiceCode="AmazonSageMaker")
    aws.client("resourcegroupstaggingapi").get_resources()
    aws.quotas([{"ServiceCode": "sagemaker", "QuotaCode": "L-1", "QuotaName": "ml.m5.large for endpoint usage", "Value": 4.0}])
    quotas, quota = aws.client("service-quotas"), {"ServiceCode": "sagemaker", "QuotaCode": "L-1"}
    assert quotas.list_service_quotas(ServiceCode="sagemaker")["Quotas"][0]["Value"] == 4.0
    quotas.list_aws_default_service_quotas(ServiceCode="sagemaker")
    assert quotas.get_service_quota(**quota)["Quota"]["Value"] == 4.0
    quotas.get_aws_default_service_quota(**quota)
    scaling = aws.client("application-autoscaling")
    arn = scaling.register_scalable_target(**TARGET, MinCapacity=1, MaxCapacity=3, Tags={"a": "b"})["ScalableTargetARN"]
    scaling.tag_resource(ResourceARN=arn, Tags={"c": "d"})
    scaling.untag_resource(ResourceARN=arn, TagKeys=["a"])
    assert scaling.list_tags_for_resource(ResourceARN=arn)["Tags"] == {"c": "d"}
    scaling.describe_scaling_activities(ServiceNamespace="sagemaker")
    scaling.deregister_scalable_target(**TARGET)
    ecr = aws.client("ecr")
    ecr.create_repository(repositoryName="berth", imageScanningConfiguration={"scanOnPush": True})
    image = ecr.put_image(repositoryName="berth", imageManifest=manifest(), imageTag="1")["image"]["imageId"]
    ecr.describe_images(repositoryName="berth")
    ecr.list_images(repositoryName="berth")
    ecr.batch_get_image(repositoryName="berth", imageIds=[image])
    ecr.start_image_scan(repositoryName="berth", imageId=image)
    ecr.describe_image_scan_findings(repositoryName="berth", imageId=image)
    ecr.batch_delete_image(repositoryName="berth", imageIds=[image])
    ecr.delete_repository(repositoryName="berth")


def manifest() -> str:
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    blob = {"mediaType": "application/octet-stream", "size": 3, "digest": "sha256:" + "0" * 64}
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "config": blob, "layers": [blob]})


@pytest.mark.parametrize(
    ("service", "call", "request_"),
    [
        ("sts", "get_caller_identity", {}),
        ("iam", "list_roles", {}),
        ("s3", "list_buckets", {}),
        ("cloudwatch", "describe_alarms", {}),
        ("logs", "describe_log_groups", {}),
        ("cloudformation", "describe_stacks", {}),
        ("sns", "list_topics", {}),
        ("events", "list_rules", {}),
        ("ecr", "describe_repositories", {}),
        ("codebuild", "list_projects", {}),
        ("ec2", "describe_subnets", {}),
        ("kms", "list_keys", {}),
    ],
)
def test_what_is_motos_passes_the_same_door(aws, service, call, request_) -> None:
    assert getattr(aws.client(service), call)(**request_)["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert [(made.service, made.operation.lower(), made.status) for made in aws.calls] == [
        (service, call.replace("_", ""), 200)
    ]


def test_what_nobody_has_is_said_to_be_missing_and_not_tried_again(aws) -> None:
    found = refusal(aws.client("sagemaker").list_flow_definitions)
    assert found[0] == "UnknownOperationException"
    assert "sagemaker:ListFlowDefinitions" in found[1]
    assert len(aws.calls) == 1


def test_clients_of_this_process_need_only_the_variables(aws) -> None:
    boto3.client("sagemaker").list_models()
    assert [(call.service, call.operation) for call in aws.calls] == [("sagemaker", "ListModels")]


def test_operations_of_s3_are_told_apart_by_query_and_headers(aws) -> None:
    s3 = make_bucket(aws)
    s3.put_bucket_tagging(Bucket=BUCKET, Tagging={"TagSet": []})
    s3.upload_fileobj(io.BytesIO(b"x" * 9_000_000), BUCKET, "folder/large")
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "folder/large"})
    s3.list_objects_v2(Bucket=BUCKET, Prefix="folder/")
    assert s3.get_object(Bucket=BUCKET, Key="folder/large")["ContentLength"] == 9_000_000
    operations = [call.operation for call in aws.calls]
    parts = ["CreateMultipartUpload", "UploadPart", "UploadPart", "CompleteMultipartUpload"]
    assert operations == ["CreateBucket", "PutBucketTagging", *parts, "CopyObject", "ListObjectsV2", "GetObject"]
    assert aws.calls[-1].request["Key"] == "folder/large"


def test_every_service_that_is_answered_here_is_in_the_docs(aws) -> None:
    titles = {
        "sagemaker": "SageMaker",
        "sagemaker-runtime": "SageMaker runtime",
        "iam": "IAM",
        "pricing": "Price List",
        "ecr": "ECR, with `--registry`",
        "service-quotas": "Service Quotas",
        "application-autoscaling": "application-autoscaling",
        "resourcegroupstaggingapi": "Resource Groups Tagging",
    }
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs" / "rehearsed.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(["service", *(titles[service] for service in {service for service, _ in ANSWERS})])


def test_many_threads_may_call_at_once(aws) -> None:
    make_bucket(aws)
    names = [f"job-{number}" for number in range(8)]

    def train(name: str) -> str:
        make_training_job(aws, name)
        aws.client("s3").put_object(Bucket=BUCKET, Key=name, Body=b"1")
        return settle(aws, "describe_training_job", TrainingJobName=name)["TrainingJobStatus"]

    with ThreadPoolExecutor(len(names)) as pool:
        assert list(pool.map(train, names)) == ["Completed"] * len(names)


def test_a_bucket_policy_is_enforced_but_for_conditions(aws) -> None:
    s3 = make_bucket(aws)
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"}
    without_tls = {**deny, "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [without_tls]}))
    assert json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"] == [without_tls]
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"")
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [without_tls, deny]}))
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=BUCKET, Key="b", Body=b"")
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


# Faults


KINDS = [
    ("sagemaker", "list_models", "ThrottlingException", "AccessDeniedException"),
    ("cloudwatch", "describe_alarms", "ThrottlingException", "AccessDeniedException"),
    ("iam", "list_roles", "Throttling", "AccessDenied"),
    ("s3", "list_buckets", "SlowDown", "AccessDenied"),
]
"""A service of each protocol: JSON, CBOR, forms, REST; and its words."""


@pytest.mark.parametrize(("service", "call", "throttled", "refused"), KINDS)
def test_an_error_that_is_planned_comes_once_in_the_words_of_the_service(aws, service, call, throttled, refused) -> None:
    client = aws.client(service, config=ONCE)
    for kind, expected in (("throttled", throttled), ("refused", refused), ("broken", "Internal")):
        aws.fail(1, kind)
        assert refusal(getattr(client, call))[0].startswith(expected)
        getattr(client, call)()
    assert [made.fault for made in aws.calls] == ["throttled", "", "refused", "", "broken", ""]


@pytest.mark.parametrize(("service", "call", "throttled", "refused"), KINDS)
def test_botocore_retries_one_throttled_call_away_and_gives_up_after_five(aws, service, call, throttled, refused) -> None:
    client = aws.client(service, config=Config(retries={"mode": "standard", "total_max_attempts": 2}))
    aws.fail(1, "throttled")
    getattr(client, call)()
    aws.fail(1, "throttled", times=2)
    assert refusal(getattr(client, call))[0] == throttled


def test_a_dropped_call_has_done_nothing_and_a_lost_one_all(aws) -> None:
    client = aws.client("sagemaker", config=ONCE)
    for kind, names in (("dropped", []), ("lost", ["housing"])):
        aws.fail(1, kind, operation="CreateModelPackageGroup")
        with pytest.raises(ConnectionClosedError):
            client.create_model_package_group(ModelPackageGroupName="housing")
        listed = client.list_model_package_groups()["ModelPackageGroupSummaryList"]
        assert [group["ModelPackageGroupName"] for group in listed] == names
    assert [(call.fault, call.status) for call in aws.calls if call.fault] == [("dropped", 0), ("lost", 0)]


def test_a_lost_call_to_moto_is_done_too(aws) -> None:
    s3 = aws.client("s3", config=ONCE)
    aws.fail(1, "lost")
    with pytest.raises(ConnectionClosedError):
        s3.create_bucket(Bucket=BUCKET)
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == [BUCKET]


def test_a_lost_create_that_botocore_sends_again_finds_what_it_made(aws) -> None:
    make_bucket(aws)
    aws.fail(1, "lost")
    with pytest.raises(ClientError) as error:
        make_training_job(aws)
    assert code(error) == "ResourceInUse"


def test_a_lost_model_package_is_not_made_twice_as_its_token_is_the_same(aws) -> None:
    client = aws.client("sagemaker")
    client.create_model_package_group(ModelPackageGroupName="group")
    aws.fail(1, "lost")
    arn = client.create_model_package(ModelPackageGroupName="group", InferenceSpecification=INFERENCE)["ModelPackageArn"]
    assert arn.endswith("/group/1")
    assert len(client.list_model_packages(ModelPackageGroupName="group")["ModelPackageSummaryList"]) == 1


def test_faults_count_calls_from_now_and_those_of_one_operation_if_told(aws) -> None:
    client = aws.client("sagemaker", config=ONCE)
    aws.fail(3, "refused")
    client.list_models()
    client.list_models()
    assert refusal(client.list_models)[0] == "AccessDeniedException"
    aws.fail(2, "refused", operation="ListEndpoints")
    client.list_endpoints()
    client.list_models()
    assert refusal(client.list_endpoints)[0] == "AccessDeniedException"


def test_faults_to_come_can_be_called_off_and_a_wrong_one_is_refused(aws) -> None:
    aws.fail(1, "refused", times=100)
    aws.calm()
    aws.client("sagemaker").list_models()
    with pytest.raises(ValueError, match="dropped, lost, a number"):
        aws.fail(1, "slow")


def test_the_stand_ins_own_calls_are_neither_counted_nor_failed(aws) -> None:
    make_bucket(aws)
    make_training_job(aws)
    client = aws.client("sagemaker")
    aws.fail(4, "refused", times=50)
    for _ in range(3):
        described = client.describe_training_job(TrainingJobName="job")
    assert described["TrainingJobStatus"] == "Completed"
    assert [call.service for call in aws.calls] == ["s3", "sagemaker", "sagemaker", "sagemaker", "sagemaker"]


# What is refused


@pytest.mark.parametrize("name", ["a" * 64, "no_underscore", "-dash", "dot.ted"])
def test_a_name_that_is_too_long_or_of_wrong_characters_is_refused(aws, name) -> None:
    found = refusal(aws.client("sagemaker").create_model_package_group, ModelPackageGroupName=name)
    assert found[0] == "ValidationException"
    assert "ModelPackageGroupName" in found[1]


def raw(aws, operation: str, request: dict) -> tuple[int, dict]:
    """Send what no client would: unsigned but for the scope, unchecked."""
    scope = "AWS4-HMAC-SHA256 Credential=testing/20261126/us-east-1/sagemaker/aws4_request, SignedHeaders=host, Signature=0"
    headers = {"X-Amz-Target": f"SageMaker.{operation}", "Authorization": scope, "Content-Type": "application/x-amz-json-1.1"}
    with pytest.raises(HTTPError) as error:
        urlopen(Request(aws.url, json.dumps(request).encode(), headers), timeout=20)
    return error.value.code, json.loads(error.value.read())


@pytest.mark.parametrize(
    ("operation", "request_", "what"),
    [
        ("CreateEndpoint", {"EndpointName": "a"}, "EndpointConfigName"),
        ("CreateEndpoint", {"EndpointName": "a", "EndpointConfigName": "b", "Color": "red"}, "Color"),
        ("ListEndpoints", {"MaxResults": 101}, "at most 100"),
        ("ListEndpoints", {"StatusEquals": "Green"}, "enum"),
        ("CreateModelPackageGroup", {"ModelPackageGroupName": 3}, "ModelPackageGroupName"),
    ],
)
def test_a_request_that_its_model_forbids_is_refused(aws, operation, request_, what) -> None:
    status, answered = raw(aws, operation, request_)
    assert (status, answered["__type"]) == (400, "ValidationException")
    assert what in answered["message"]


def test_an_answer_that_its_model_forbids_is_our_defect_and_is_raised(aws, monkeypatch) -> None:
    monkeypatch.setitem(ANSWERS, ("sagemaker", "ListModels"), lambda world, asked: {"Models": [{"ModelName": "only"}]})
    assert refusal(aws.client("sagemaker", config=ONCE).list_models)[0] == "InternalFailure"
    with pytest.raises(AssertionError, match="ModelArn"):
        aws.reset()


def test_what_exists_is_not_made_again_and_what_is_missing_not_described(aws) -> None:
    make_endpoint(aws)
    make_training_job(aws)
    client = aws.client("sagemaker")
    with pytest.raises(ClientError, match=r'already existing model "arn:aws:sagemaker:us-east-1:123456789012:model/housing"'):
        make_model(aws)
    with pytest.raises(ClientError, match="already existing endpoint configuration"):
        make_config(aws, "housing")
    again = refusal(client.create_endpoint, EndpointName="housing", EndpointConfigName="housing")
    assert again[1].startswith("Cannot create already existing endpoint ")
    with pytest.raises(ClientError, match="ResourceInUse"):
        make_training_job(aws)
    assert refusal(client.describe_endpoint, EndpointName="none")[1].startswith("Could not find endpoint ")
    assert refusal(client.delete_model, ModelName="none")[1].startswith("Could not find model ")
    assert refusal(client.describe_training_job, TrainingJobName="none")[1] == "Requested resource not found."


def test_what_a_request_names_must_be_there(aws) -> None:
    make_bucket(aws)
    client = aws.client("sagemaker")
    with pytest.raises(ClientError, match=r'Could not find model "arn'):
        make_config(aws, "config", "none")
    found = refusal(client.create_endpoint, EndpointName="e", EndpointConfigName="none")
    assert found[1].startswith("Could not find endpoint configuration ")
    container = {"Image": "berth:1", "ModelDataUrl": f"s3://{BUCKET}/none.tar.gz"}
    found = refusal(client.create_model, ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=container)
    assert found == ("ValidationException", f"Could not find model data at s3://{BUCKET}/none.tar.gz.")
    with pytest.raises(ClientError, match="Could not find model"):
        transform(aws)
    found = refusal(client.create_model_package, ModelPackageGroupName="none", InferenceSpecification=INFERENCE)
    assert found[1].endswith("does not exist.")


# Lists and tags


def test_lists_come_in_pages_and_filter_by_name_status_and_time(aws) -> None:
    make_bucket(aws)
    client = aws.client("sagemaker")
    for number in range(12):
        make_training_job(aws, f"job-{number:02d}")
    client.stop_training_job(TrainingJobName="job-03")
    first = client.list_training_jobs()
    assert first["TrainingJobSummaries"][0]["TrainingJobName"] == "job-11"
    assert len(first["TrainingJobSummaries"]) == 10
    pages = client.get_paginator("list_training_jobs").paginate(SortBy="Name", PaginationConfig={"PageSize": 5})
    names = [each["TrainingJobName"] for page in pages for each in page["TrainingJobSummaries"]]
    assert names == [f"job-{number:02d}" for number in range(12)]
    assert len(client.list_training_jobs(NameContains="-1")["TrainingJobSummaries"]) == 2
    stopping = client.list_training_jobs(StatusEquals="Stopping")["TrainingJobSummaries"]
    assert [each["TrainingJobName"] for each in stopping] == ["job-03"]
    assert client.list_training_jobs(CreationTimeAfter=datetime(2999, 1, 1, tzinfo=UTC))["TrainingJobSummaries"] == []


def test_tags_are_given_added_taken_and_listed(aws) -> None:
    make_model(aws, Tags=[{"Key": "berth", "Value": "housing"}])
    client = aws.client("sagemaker")
    arn = client.describe_model(ModelName="housing")["ModelArn"]
    client.add_tags(ResourceArn=arn, Tags=[{"Key": "berth", "Value": "other"}, {"Key": "commit", "Value": "abc"}])
    assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "berth", "Value": "other"}, {"Key": "commit", "Value": "abc"}]
    client.delete_tags(ResourceArn=arn, TagKeys=["berth"])
    assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "commit", "Value": "abc"}]
    found = refusal(client.add_tags, ResourceArn=arn, Tags=[{"Key": str(number), "Value": ""} for number in range(50)])
    assert "51 tags; 50 are allowed" in found[1]
    assert "Could not find" in refusal(client.list_tags, ResourceArn=arn.replace("housing", "none"))[1]


def test_one_list_has_all_that_has_a_tag_whoever_keeps_it(aws) -> None:
    tag = [{"Key": "berth", "Value": "housing"}]
    make_model(aws, Tags=tag)
    make_config(aws, "housing", Tags=tag)
    aws.client("sagemaker").create_endpoint(EndpointName="housing", EndpointConfigName="housing", Tags=tag)
    aws.client("ecr").create_repository(repositoryName="housing", tags=tag)
    aws.client("sns").create_topic(Name="housing", Tags=tag)
    aws.client("events").put_rule(Name="housing", ScheduleExpression="rate(1 day)", Tags=tag)
    aws.client("application-autoscaling").register_scalable_target(
        **TARGET, MinCapacity=1, MaxCapacity=2, Tags={"berth": "housing"}
    )
    make_config(aws, "not-ours")
    client = aws.client("resourcegroupstaggingapi")
    wanted = [{"Key": "berth", "Values": ["housing"]}]
    pages = client.get_paginator("get_resources").paginate(TagFilters=wanted, PaginationConfig={"PageSize": 2})
    arns = [each["ResourceARN"] for page in pages for each in page["ResourceTagMappingList"]]
    kinds = [arn.split(":", 2)[2].split(":us-east-1:123456789012:")[0] for arn in arns]
    assert sorted(kinds) == ["application-autoscaling", "ecr", "events", "sagemaker", "sagemaker", "sagemaker", "sns"]
    only = client.get_resources(TagFilters=wanted, ResourceTypeFilters=["sagemaker:endpoint", "ecr"])
    assert len(only["ResourceTagMappingList"]) == 2
    assert client.get_resources(TagFilters=[{"Key": "berth", "Values": ["other"]}])["ResourceTagMappingList"] == []


def test_what_is_being_deleted_leaves_the_list_after_some_looks(aws) -> None:
    make_endpoint(aws)
    client, tags = aws.client("sagemaker"), aws.client("resourcegroupstaggingapi")
    client.add_tags(
        ResourceArn=client.describe_endpoint(EndpointName="housing")["EndpointArn"], Tags=[{"Key": "a", "Value": "b"}]
    )
    client.delete_endpoint(EndpointName="housing")
    seen = [len(tags.get_resources(TagFilters=[{"Key": "a"}])["ResourceTagMappingList"]) for _ in range(3)]
    assert seen == [1, 1, 0]


def test_regions_have_nothing_in_common(aws) -> None:
    make_model(aws)
    assert aws.client("sagemaker", region_name="eu-west-1").list_models()["Models"] == []


# Prices, quotas, scaling


def test_the_policy_simulator_allows_all_but_what_was_denied(aws) -> None:
    aws.deny("iam:PassRole")
    context = {"ContextKeyName": "aws:RequestTag/a", "ContextKeyValues": ["<&>"], "ContextKeyType": "string"}
    found = aws.client("iam").simulate_principal_policy(
        PolicySourceArn=ROLE,
        ActionNames=["s3:GetObject", "iam:PassRole"],
        ResourceArns=["arn:aws:s3:::bucket/<&>", "*"],
        ContextEntries=[context],
    )["EvaluationResults"]
    assert [(each["EvalActionName"], each["EvalResourceName"], each["EvalDecision"]) for each in found] == [
        ("s3:GetObject", "arn:aws:s3:::bucket/<&>", "allowed"),
        ("iam:PassRole", "arn:aws:s3:::bucket/<&>", "implicitDeny"),
        ("s3:GetObject", "*", "allowed"),
        ("iam:PassRole", "*", "implicitDeny"),
    ]


def test_prices_are_those_that_were_given_and_come_as_json_in_text(aws) -> None:
    client = aws.client("pricing")
    filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in PRICE["product"]["attributes"].items()]
    assert client.get_products(ServiceCode="AmazonSageMaker", Filters=filters)["PriceList"] == []
    other = {**PRICE, "product": {"attributes": {**PRICE["product"]["attributes"], "instanceName": "ml.c5.large"}}}
    aws.prices([other, PRICE])
    found = client.get_products(ServiceCode="AmazonSageMaker", Filters=filters)["PriceList"]
    assert [json.loads(text) for text in found] == [PRICE]
    assert len(client.get_products(ServiceCode="AmazonSageMaker")["PriceList"]) == 2


def test_a_target_that_is_deregistered_takes_its_policies_along(aws) -> None:
    client = aws.client("application-autoscaling")
    client.register_scalable_target(**TARGET, MinCapacity=1, MaxCapacity=3)
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    policy = {"TargetValue": 70.0, "PredefinedMetricSpecification": metric}
    client.put_scaling_policy(
        PolicyName="p", PolicyType="TargetTrackingScaling", TargetTrackingScalingPolicyConfiguration=policy, **TARGET
    )
    assert len(client.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]) == 1
    client.deregister_scalable_target(**TARGET)
    assert client.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"] == []
    client.register_scalable_target(**TARGET, MinCapacity=1, MaxCapacity=3)
    assert client.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"] == []


def test_scaling_activities_are_those_that_were_given_the_newest_first(aws) -> None:
    times = {"StartTime": 1.0, "Description": "", "Cause": "", "StatusCode": "Successful"}
    aws.activities([{**TARGET, **times, "ActivityId": name} for name in ("older", "newer")])
    client = aws.client("application-autoscaling")
    found = client.describe_scaling_activities(ServiceNamespace="sagemaker", ResourceId=TARGET["ResourceId"])
    assert [each["ActivityId"] for each in found["ScalingActivities"]] == ["newer", "older"]
    found = client.describe_scaling_activities(ServiceNamespace="sagemaker", ResourceId="endpoint/other/variant/all")
    assert found["ScalingActivities"] == []


# As a process


@contextmanager
def process():
    """A cloud in a process of its own; what it prints first, and how it ends."""
    command = [sys.executable, "-m", "local_test.cloud"]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield [running.stdout.readline().strip() for _ in range(9)]
    finally:
        running.terminate()
        _, error = running.communicate(timeout=20)
    assert (running.returncode, error) == (0, "")


def test_another_process_serves_a_cloud_and_is_told_the_same_things() -> None:
    with process() as (unset, *lines):
        assert unset == "unset AWS_PROFILE AWS_SESSION_TOKEN"
        variables = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        aws = attach(variables["AWS_ENDPOINT_URL"])
        assert aws.environ() == variables
        aws.fail(1, "refused")
        with pytest.raises(ClientError, match="AccessDenied"):
            aws.client("sagemaker", config=ONCE).list_models()
        make_bucket(aws)
        aws.script("training-job", "job", artifact=b"\x00\xff")
        make_training_job(aws)
        settle(aws, "describe_training_job", TrainingJobName="job")
        body = aws.client("s3").get_object(Bucket=BUCKET, Key="out/job/output/model.tar.gz")["Body"].read()
        assert body == b"\x00\xff"
        assert aws.calls[0].fault == "refused"
        aws.reset()
        assert aws.calls == []
        assert aws.client("s3").list_buckets()["Buckets"] == []


def test_a_control_that_is_not_there_is_refused_with_those_that_are(aws) -> None:
    with pytest.raises(HTTPError) as error:
        urlopen(Request(f"{aws.url}/_cloud/nothing", b"{}"), timeout=20)
    assert (error.value.code, b"fail" in error.value.read()) == (404, True)
    with pytest.raises(ValueError, match="completed, failed"):
        aws.script("endpoint", "housing", outcome="green")
    with pytest.raises(ValueError, match="training-job"):
        aws.script("trainingjob", "housing")


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -1, 2**40, 1.5, True, False, None], "b": {"c": "é", "d": b"\x00\xff"}},
        {"text": "x" * 70_000, "none": [], "empty": {}},
    ],
)
def test_answers_in_cbor_are_read_as_they_were_meant(value) -> None:
    from botocore.parsers import RpcV2CBORParser

    assert RpcV2CBORParser().parse_data_item(io.BufferedReader(io.BytesIO(wire.to_cbor(value)))) == value
