"""Endpoints: made, updated, turned back, rolled back, scaled; each request, each refusal, and what a second run does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.validate import ParamValidator
from cloudy import BUCKET
from conftest import ROOT
from snapshots import client, snapshot
from verbs import ROLE, URI, Ran, berth

from deploy.cloud import TAG
from deploy.endpoints.combinations import RULES, Asked, refuse, refuse_scaling
from deploy.endpoints.steps import deployment, steps_of
from deploy.errors import BadSettings
from deploy.settings import Endpoint, Image, Network, Scaling, Update

if TYPE_CHECKING:
    from local_test.cloud import Cloud

PACKAGE = "arn:aws:sagemaker:us-east-1:123456789012:model-package/berth/3"
READS = ("Describe", "List", "Get", "Head")
PRICE = {
    "product": {
        "attributes": {"usagetype": "Host:ml.m5.large", "regionCode": "us-east-1", "instanceName": "ml.m5.large"},
    },
    "publicationDate": "2026-11-20T00:00:00Z",
    "terms": {"OnDemand": {"x": {"priceDimensions": {"y": {"pricePerUnit": {"USD": "0.5"}}}}}},
}


def model(number: int) -> str:
    return f"s3://{BUCKET}/{number}/model.tar.gz"


def deploy(number: int, *words: str) -> Ran:
    """Run `endpoint` for one of the models."""
    return berth("endpoint", "--role", ROLE, "--uri", URI, "--model-data", model(number), *words)


@pytest.fixture
def there(aws: Cloud) -> Cloud:
    """A cloud with two models in S3, in which a state in progress is seen once."""
    s3 = client(aws, "s3")
    s3.create_bucket(Bucket=BUCKET)
    for number in (1, 2):
        s3.put_object(Bucket=BUCKET, Key=f"{number}/model.tar.gz", Body=b"a model")
    aws.looks(1)
    return aws


@pytest.fixture
def standing(there: Cloud) -> Cloud:
    """The same with an endpoint of the first model."""
    assert deploy(1).exit_code == 0
    return there


@pytest.fixture
def updated(standing: Cloud) -> Cloud:
    """The same, updated to the second model."""
    assert deploy(2).exit_code == 0
    return standing


def described(aws: Cloud, name: str = "berth") -> dict[str, Any]:
    return client(aws, "sagemaker").describe_endpoint(EndpointName=name)


def tags_of(aws: Cloud, config: str) -> dict[str, str]:
    arn = client(aws, "sagemaker").describe_endpoint_config(EndpointConfigName=config)["EndpointConfigArn"]
    return {tag["Key"]: tag["Value"] for tag in client(aws, "sagemaker").list_tags(ResourceArn=arn)["Tags"]}


def asked(aws: Cloud, operation: str) -> dict[str, Any]:
    """Return the last request for an operation."""
    return [call.request for call in aws.calls if call.operation == operation][-1]


def changes(aws: Cloud, since: int = 0) -> list[str]:
    return [call.operation for call in aws.calls[since:] if not call.operation.startswith(READS)]


def ring(aws: Cloud, name: str) -> None:
    client(aws, "cloudwatch").set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="a test")


# Made


def test_an_endpoint_is_made_of_a_model_a_configuration_and_itself_all_tagged(there: Cloud) -> None:
    there.prices([PRICE])
    ran = deploy(1, "--instance-count", "2", "--tag", "team=housing")
    assert ran.exit_code == 0, ran.output
    assert changes(there) == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]
    assert described(there)["EndpointStatus"] == "InService"
    for operation in changes(there):
        assert {"Key": TAG, "Value": "berth"} in asked(there, operation)["Tags"]
        assert {"Key": "team", "Value": "housing"} in asked(there, operation)["Tags"]
    assert asked(there, "CreateModel")["PrimaryContainer"]["Image"] == URI
    assert "us-east-1, account 123456789012" in ran.output
    assert "0.5 USD an hour each, 2 instances 1 USD an hour (AWS Price List, 2026-11-20)" in ran.output
    assert ran.output.endswith("Next: python -m deploy invoke\n")


def test_a_second_run_changes_nothing(standing: Cloud) -> None:
    before, calls = snapshot(standing), len(standing.calls)
    ran = deploy(1)
    assert ran.exit_code == 0
    assert "already" in ran.output
    assert changes(standing, calls) == []
    assert snapshot(standing) == before


def test_a_dry_run_prints_what_a_run_would_ask_and_changes_nothing(there: Cloud) -> None:
    dry = deploy(1, "--dry-run")
    assert dry.exit_code == 0
    assert changes(there) == []
    printed = {request["operation"]: request["request"] for request in dry.requests}
    deploy(1)
    assert list(printed) == changes(there)
    assert all(printed[operation] == asked(there, operation) for operation in printed)


KEYS = ("--volume-key", "alias/volume", "--output-key", "alias/output")
ASYNC = ("--kind", "async", "--async-output", "s3://answers/here")
CAPTURE = ("--capture-percent", "20", "--capture-output", "s3://seen/")
TYPES = {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json", "application/jsonlines"]}
MODES = [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}]
CONFIGS = {
    "realtime": (
        ("--instance-type", "ml.c5.xlarge", "--instance-count", "3", "--startup-s", "900", "--download-s", "1200"),
        {
            "ProductionVariants": [
                {
                    "VariantName": "AllTraffic",
                    "InitialVariantWeight": 1.0,
                    "InstanceType": "ml.c5.xlarge",
                    "InitialInstanceCount": 3,
                    "ModelDataDownloadTimeoutInSeconds": 1200,
                    "ContainerStartupHealthCheckTimeoutInSeconds": 900,
                    "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
                }
            ]
        },
    ),
    "serverless": (
        ("--kind", "serverless", "--memory-mb", "3072", "--concurrency", "20"),
        {
            "ProductionVariants": [
                {
                    "VariantName": "AllTraffic",
                    "InitialVariantWeight": 1.0,
                    "ServerlessConfig": {"MemorySizeInMB": 3072, "MaxConcurrency": 20},
                }
            ]
        },
    ),
    "asynchronous": (
        (*ASYNC, "--success-topic", "arn:aws:sns:us-east-1:123456789012:good", "--concurrency", "2", *KEYS),
        {
            "AsyncInferenceConfig": {
                "OutputConfig": {
                    "S3OutputPath": "s3://answers/here",
                    "S3FailurePath": "s3://answers/here/failures",
                    "NotificationConfig": {"SuccessTopic": "arn:aws:sns:us-east-1:123456789012:good"},
                    "KmsKeyId": "alias/output",
                },
                "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2},
            },
            "KmsKeyId": "alias/volume",
        },
    ),
    "data capture": (
        (*CAPTURE, *KEYS),
        {
            "DataCaptureConfig": {
                "EnableCapture": True,
                "InitialSamplingPercentage": 20,
                "DestinationS3Uri": "s3://seen/",
                "CaptureOptions": MODES,
                "CaptureContentTypeHeader": TYPES,
                "KmsKeyId": "alias/output",
            }
        },
    ),
    "data capture with a key of its own": (
        (*CAPTURE, *KEYS, "--capture-key", "alias/capture"),
        {"DataCaptureConfig": {"KmsKeyId": "alias/capture"}},
    ),
    "shadow": (
        ("--shadow-model-data", model(2), "--shadow-percent", "25"),
        {
            "ProductionVariants": [{"VariantName": "AllTraffic", "InitialVariantWeight": 1.0}],
            "ShadowProductionVariants": [{"VariantName": "Shadow", "InitialVariantWeight": 0.25}],
        },
    ),
}


@pytest.mark.parametrize(("words", "expected"), CONFIGS.values(), ids=CONFIGS)
def test_the_configuration_is_what_the_settings_say(there: Cloud, words: tuple[str, ...], expected: dict[str, Any]) -> None:
    ran = deploy(1, "--dry-run", *words)
    assert ran.exit_code == 0, ran.output
    request = next(each["request"] for each in ran.requests if each["operation"] == "CreateEndpointConfig")
    assert holds(request, expected), json.dumps(request, indent=1)


def holds(found: Any, expected: Any) -> bool:
    """Say whether all that is expected is there."""
    if isinstance(expected, dict):
        return all(name in found and holds(found[name], value) for name, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(holds, found, expected))
    return found == expected


def test_network_isolation_environment_and_role_are_the_models(there: Cloud) -> None:
    words = ("--subnets", "subnet-1", "--subnets", "subnet-2", "--security-groups", "sg-1", "--isolation")
    ran = deploy(1, "--dry-run", *words, "--environment", "BERTH_WORKERS=2")
    request = next(each["request"] for each in ran.requests if each["operation"] == "CreateModel")
    assert request["VpcConfig"] == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    assert request["EnableNetworkIsolation"] is True
    assert request["PrimaryContainer"]["Environment"] == {"BERTH_WORKERS": "2"}
    assert request["ExecutionRoleArn"] == ROLE


def test_a_multi_model_endpoint_takes_a_prefix(there: Cloud) -> None:
    ran = berth("endpoint", "--role", ROLE, "--uri", URI, "--kind", "multi-model", "--model-data", f"s3://{BUCKET}/many/")
    assert ran.exit_code == 0, ran.output
    container = asked(there, "CreateModel")["PrimaryContainer"]
    assert (container["Mode"], container["ModelDataUrl"]) == ("MultiModel", f"s3://{BUCKET}/many/")


def test_a_model_package_brings_its_own_image(there: Cloud) -> None:
    ran = berth("endpoint", "--role", ROLE, "--model-data", PACKAGE, "--dry-run")
    assert ran.exit_code == 0, ran.output
    assert ran.requests[0]["request"]["PrimaryContainer"] == {"ModelPackageName": PACKAGE}


def test_a_model_that_is_not_in_s3_is_told_before_anything_is_made(there: Cloud) -> None:
    ran = deploy(3)
    assert ran.exit_code == 1
    assert f"There is no {model(3)}" in ran.output
    assert changes(there) == []


def test_an_endpoint_of_another_project_is_left_alone(standing: Cloud) -> None:
    ran = deploy(1, "--name", "other", "--endpoint", "berth")
    assert ran.exit_code == 1
    assert "not of project other" in ran.output
    assert changes(standing)[3:] == []


def test_a_failed_creation_names_the_reason_the_log_and_what_to_do_and_deletes_nothing(there: Cloud) -> None:
    there.script("endpoint", "berth", outcome="failed", reason="The primary container did not pass the ping health check.")
    ran = deploy(1)
    assert ran.exit_code == 1
    for told in ("did not pass the ping health check", "--startup-s", "/aws/sagemaker/Endpoints/berth", "make doctor"):
        assert told in ran.output
    again = deploy(1)
    assert again.exit_code == 1
    assert "is Failed" in again.output
    assert "python -m deploy delete" in again.output
    assert "DeleteEndpoint" not in changes(there)


REASONS = {
    "CapacityError: Unable to provision requested ML compute capacity.": "another --instance-type",
    "Failed to download model data. Access denied.": "--download-s",
    "Could not assume role.": "roles.yaml",
    "CannotStartContainerError: exec format error": "can't be started",
}


@pytest.mark.parametrize(("reason", "told"), REASONS.items(), ids=list(REASONS.values()))
def test_a_reason_of_awss_is_followed_by_what_it_most_often_means(there: Cloud, reason: str, told: str) -> None:
    there.script("endpoint", "berth", outcome="failed", reason=reason)
    assert told in deploy(1).output


# Updated


def test_an_update_goes_on_beside_what_answers_and_says_how_far_it_is(standing: Cloud) -> None:
    before = described(standing)["EndpointConfigName"]
    standing.looks(2)
    ran = deploy(2, "--instance-count", "4")
    assert ran.exit_code == 0, ran.output
    assert changes(standing)[3:] == [
        "CreateModel",
        "CreateEndpointConfig",
        "PutMetricAlarm",
        "AddTags",
        "AddTags",
        "UpdateEndpoint",
    ]
    request = asked(standing, "UpdateEndpoint")
    assert request["DeploymentConfig"]["AutoRollbackConfiguration"] == {"Alarms": [{"AlarmName": "berth-errors"}]}
    assert "RetainAllVariantProperties" not in request
    for told in ("canary: 1 of 4 instances first", "alarms are watched", "0 of 4 instances are new", "both run"):
        assert told in ran.output
    now = described(standing)
    assert now["EndpointConfigName"] != before
    assert now["EndpointConfigName"] == request["EndpointConfigName"]
    assert tags_of(standing, now["EndpointConfigName"])["berth:previous-config"] == before


def test_the_alarm_that_is_made_looks_at_the_share_of_failures(standing: Cloud) -> None:
    deploy(2, "--error-percent", "5", "--latency-ms", "200")
    alarms = {alarm["AlarmName"]: alarm for alarm in client(standing, "cloudwatch").describe_alarms()["MetricAlarms"]}
    errors, latency = alarms["berth-errors"], alarms["berth-latency"]
    assert (errors["MetricName"], errors["Statistic"], errors["Threshold"]) == ("Invocation5XXErrors", "Average", 0.05)
    assert (latency["MetricName"], latency["ExtendedStatistic"], latency["Threshold"]) == ("ModelLatency", "p99", 200_000)
    assert {each["Name"]: each["Value"] for each in errors["Dimensions"]} == {
        "EndpointName": "berth",
        "VariantName": "AllTraffic",
    }
    assert len(asked(standing, "UpdateEndpoint")["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]) == 2


def test_an_alarm_that_goes_off_turns_an_update_back_and_is_named(standing: Cloud) -> None:
    before = described(standing)["EndpointConfigName"]
    assert deploy(2, "--no-wait").exit_code == 0
    ring(standing, "berth-errors")
    ran = deploy(2)
    assert ran.exit_code == 1
    for told in ("was turned back", f"{before} answers as before", "In ALARM: berth-errors", "/aws/sagemaker/Endpoints/berth"):
        assert told in ran.output
    assert described(standing)["EndpointConfigName"] == before
    assert changes(standing).count("UpdateEndpoint") == 1

    back = berth("rollback")  # what an alarm turned back is not rolled back once more
    assert back.exit_code == 0, back.output
    assert "nothing is to be rolled back" in back.output
    assert changes(standing).count("UpdateEndpoint") == 1

    again = deploy(2)
    assert again.exit_code == 1
    assert "berth-errors is in ALARM now" in again.output
    assert deploy(2, "--no-guard").exit_code == 0
    assert described(standing)["EndpointConfigName"] != before


def test_an_update_that_fails_by_itself_is_told_too(standing: Cloud) -> None:
    standing.script("endpoint", "berth", outcome="failed", reason="The new fleet ran out of memory.")
    ran = deploy(2)
    assert ran.exit_code == 1
    for told in ("was turned back", "ran out of memory", "a larger --instance-type"):
        assert told in ran.output


def test_an_update_that_can_not_even_go_back_is_told(standing: Cloud) -> None:
    standing.script("endpoint", "berth", outcome="stuck", reason="Neither went.")
    for _ in range(2):
        ran = deploy(2)
        assert ran.exit_code == 1
        assert "UpdateRollbackFailed" in ran.output
        assert "Old and new instances answer" in ran.output


def test_alarms_of_ones_own_are_used_as_they_are_and_must_exist(standing: Cloud) -> None:
    ran = deploy(2, "--alarms", "mine")
    assert ran.exit_code == 1
    assert "There is no alarm mine" in ran.output
    assert "UpdateEndpoint" not in changes(standing)
    client(standing, "cloudwatch").put_metric_alarm(
        AlarmName="mine", Namespace="x", MetricName="y", Statistic="Sum", Period=60, EvaluationPeriods=1, Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    assert deploy(2, "--alarms", "mine").exit_code == 0
    config = asked(standing, "UpdateEndpoint")["DeploymentConfig"]
    assert config["AutoRollbackConfiguration"] == {"Alarms": [{"AlarmName": "mine"}]}
    assert "PutMetricAlarm" not in changes(standing)


def test_a_run_that_was_stopped_is_carried_on_not_begun_anew(standing: Cloud) -> None:
    assert deploy(2, "--no-wait").exit_code == 0
    assert described(standing)["EndpointStatus"] == "Updating"
    assert deploy(2).exit_code == 0
    assert changes(standing).count("UpdateEndpoint") == 1


def test_one_change_at_a_time(standing: Cloud) -> None:
    standing.looks(5)
    deploy(2, "--no-wait")
    refused = deploy(1, "--no-wait", "--instance-count", "2")
    assert refused.exit_code == 1
    assert "one change at a time" in refused.output
    assert deploy(1, "--instance-count", "2").exit_code == 0
    assert changes(standing).count("UpdateEndpoint") == 2
    assert described(standing)["ProductionVariants"][0]["CurrentInstanceCount"] == 2


STEPS = {
    "one instance": ({}, 1, "all at once, then 300 s in which alarms are watched"),
    "two": ({}, 2, "canary: 1 of 2 instances first, 300 s later the rest"),
    "many": ({"step_percent": 25}, 20, "canary: 5 of 20 instances first, 300 s later the rest"),
    "none to count": ({}, 0, "canary: 10 per cent of the traffic first, 300 s later the rest"),
    "linear": ({"strategy": "linear", "bake_s": 60}, 7, "linear: 1 of 7 instances each 60 s, in 7 steps"),
    "linear of a few": ({"strategy": "linear", "step_percent": 50}, 3, "linear: 1 of 3 instances each 300 s, in 3 steps"),
    "rolling": ({"strategy": "rolling", "step_percent": 5}, 41, "rolling: 3 of 41 instances each 300 s, in 14 steps"),
    "linear, none to count": (
        {"strategy": "linear", "step_percent": 20},
        0,
        "linear: 20 per cent of the traffic each 300 s, in 5 steps",
    ),
}


@pytest.mark.parametrize(("given", "count", "words"), STEPS.values(), ids=STEPS)
def test_steps_are_whole_instances_and_fit_what_the_api_takes(given: dict[str, Any], count: int, words: str) -> None:
    update = Update(**given)
    steps = steps_of(update, count)
    assert str(steps) == words
    config = deployment(update, steps, ["an alarm"])
    shape = boto3.client("sagemaker", region_name="us-east-1").meta.service_model.shape_for("DeploymentConfig")
    assert not ParamValidator().validate(config, shape).has_errors()
    if count and steps.size:
        assert steps.size <= count / 2  # API:TrafficRoutingConfig
        assert steps.size >= count * {"canary": 0, "linear": 0.1, "rolling": 0.05}[steps.strategy]
    limit = next(iter(config.values()))["MaximumExecutionTimeoutInSeconds"]
    assert limit > steps.number * steps.bake_s


@pytest.mark.parametrize("strategy", ["canary", "linear", "rolling"])
def test_one_instance_is_not_updated_by_parts(standing: Cloud, strategy: str) -> None:
    ran = deploy(2, "--strategy", strategy)
    assert ran.exit_code == 2
    assert "at most half of the instances" in ran.output
    assert changes(standing)[3:] == []


def test_steps_that_take_longer_than_an_update_may_are_refused() -> None:
    update = Update(strategy="linear", bake_s=3600)
    with pytest.raises(BadSettings, match="waits 36000 s in all, and may take 28800 s"):
        deployment(update, steps_of(update, 10), ())
    update = Update(limit_s=600)
    with pytest.raises(BadSettings, match="waits 600 s in all"):
        deployment(update, steps_of(update, 10), ())


KIND_CHANGES = {"serverless": ("--kind", "serverless"), "asynchronous": ASYNC}


@pytest.mark.parametrize("words", KIND_CHANGES.values(), ids=KIND_CHANGES)
def test_an_endpoint_keeps_its_kind(standing: Cloud, words: tuple[str, ...]) -> None:
    ran = deploy(1, *words)
    assert ran.exit_code == 2
    assert "is realtime, and can't be made" in ran.output
    assert changes(standing)[3:] == []


# Rolled back


def test_a_rollback_goes_to_the_configuration_before_and_a_second_one_nowhere(updated: Cloud) -> None:
    new = described(updated)["EndpointConfigName"]
    old = tags_of(updated, new)["berth:previous-config"]
    ran = berth("rollback")
    assert ran.exit_code == 0, ran.output
    assert described(updated)["EndpointConfigName"] == old
    policy = asked(updated, "UpdateEndpoint")["DeploymentConfig"]
    assert "AutoRollbackConfiguration" not in policy
    assert policy["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"] == {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}

    before, calls = snapshot(updated), len(updated.calls)
    again = berth("rollback")
    assert again.exit_code == 0
    assert "nothing is to be rolled back" in again.output
    assert f"rollback --to-config {new}" in again.output
    assert changes(updated, calls) == []
    assert snapshot(updated) == before


def test_what_was_rolled_back_can_be_gone_forth_to_and_come_back_from(updated: Cloud) -> None:
    new = described(updated)["EndpointConfigName"]
    berth("rollback")
    old = described(updated)["EndpointConfigName"]
    assert berth("rollback", "--to-config", new).exit_code == 0
    assert described(updated)["EndpointConfigName"] == new
    assert berth("rollback").exit_code == 0
    assert described(updated)["EndpointConfigName"] == old


def test_a_rollback_that_was_stopped_is_carried_on_not_turned_round(updated: Cloud) -> None:
    old = tags_of(updated, described(updated)["EndpointConfigName"])["berth:previous-config"]
    assert berth("rollback", "--no-wait").exit_code == 0
    assert berth("rollback").exit_code == 0
    assert described(updated)["EndpointConfigName"] == old
    assert changes(updated).count("UpdateEndpoint") == 2


def test_a_rollback_during_an_update_waits_for_it_and_goes_back(updated: Cloud) -> None:
    second = described(updated)["EndpointConfigName"]
    deploy(1, "--instance-count", "2", "--no-wait")
    assert berth("rollback").exit_code == 0
    assert described(updated)["EndpointConfigName"] == second


def test_a_rollback_while_an_alarm_turns_an_update_back_leaves_that_to_it(updated: Cloud) -> None:
    second = described(updated)["EndpointConfigName"]
    updated.looks(3)
    deploy(1, "--instance-count", "2", "--no-wait")
    ring(updated, "berth-errors")
    assert described(updated)["EndpointStatus"] == "RollingBack"
    assert berth("rollback").exit_code == 0
    assert described(updated)["EndpointConfigName"] == second
    assert changes(updated).count("UpdateEndpoint") == 2


def test_a_rollback_step_by_step_is_guarded(updated: Cloud) -> None:
    deploy(2, "--instance-count", "4")
    deploy(1, "--instance-count", "4")
    ran = berth("rollback", "--strategy", "linear", "--step-percent", "25")
    assert ran.exit_code == 0, ran.output
    policy = asked(updated, "UpdateEndpoint")["DeploymentConfig"]
    routing = policy["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert (routing["Type"], routing["LinearStepSize"]["Value"]) == ("LINEAR", 1)
    assert policy["AutoRollbackConfiguration"] == {"Alarms": [{"AlarmName": "berth-errors"}]}


def test_a_rollback_refuses_what_an_update_does(there: Cloud) -> None:
    for number in (1, 2):
        assert deploy(number, "--kind", "serverless").exit_code == 0
    for words, told in ((("--strategy", "rolling"), "can't be updated by rolling"), (("--bake-s", "4000"), "0 to 3600")):
        ran = berth("rollback", *words)
        assert ran.exit_code == 2
        assert told in ran.output
    assert berth("rollback", "--strategy", "canary").exit_code == 0
    routing = asked(there, "UpdateEndpoint")["DeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing["CanarySize"] == {"Type": "CAPACITY_PERCENT", "Value": 10}


def test_a_rollback_in_a_dry_run_changes_nothing(updated: Cloud) -> None:
    calls = len(updated.calls)
    ran = berth("rollback", "--dry-run")
    assert [request["operation"] for request in ran.requests] == ["UpdateEndpoint"]
    assert changes(updated, calls) == []


def test_a_rollback_without_a_way_back_says_so(standing: Cloud) -> None:
    ran = berth("rollback")
    assert ran.exit_code == 1
    assert "is the first configuration" in ran.output
    assert berth("rollback", "--endpoint", "none").output.count("There is no endpoint none") == 1


GONE = {"configuration": "has been deleted", "model": "of configuration"}


@pytest.mark.parametrize(("what", "told"), GONE.items(), ids=GONE)
def test_a_rollback_to_what_was_deleted_is_refused(updated: Cloud, what: str, told: str) -> None:
    sagemaker = client(updated, "sagemaker")
    old = tags_of(updated, described(updated)["EndpointConfigName"])["berth:previous-config"]
    variant = sagemaker.describe_endpoint_config(EndpointConfigName=old)["ProductionVariants"][0]
    if what == "model":
        sagemaker.delete_model(ModelName=variant["ModelName"])
    else:
        sagemaker.delete_endpoint_config(EndpointConfigName=old)
    ran = berth("rollback")
    assert ran.exit_code == 1
    assert told in ran.output
    assert changes(updated).count("UpdateEndpoint") == 1


def test_a_rollback_takes_no_configuration_of_others(standing: Cloud) -> None:
    assert deploy(2, "--name", "other").exit_code == 0
    ran = berth("rollback", "--to-config", described(standing, "other")["EndpointConfigName"])
    assert ran.exit_code == 1
    assert "is not of project berth" in ran.output


# Scaled


def policies(aws: Cloud) -> dict[str, dict[str, Any]]:
    found = client(aws, "application-autoscaling").describe_scaling_policies(ServiceNamespace="sagemaker")
    return {policy["PolicyName"]: policy for policy in found["ScalingPolicies"]}


def targets(aws: Cloud) -> list[tuple[str, int, int]]:
    found = client(aws, "application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
    return [(each["ResourceId"], each["MinCapacity"], each["MaxCapacity"]) for each in found["ScalableTargets"]]


def test_a_real_time_endpoint_scales_by_its_requests(standing: Cloud) -> None:
    ran = berth("autoscale", "--min-count", "2", "--max-count", "6", "--invocations", "500")
    assert ran.exit_code == 0, ran.output
    assert targets(standing) == [("endpoint/berth/variant/AllTraffic", 2, 6)]
    assert policies(standing)["berth-work"]["TargetTrackingScalingPolicyConfiguration"] == {
        "TargetValue": 500.0,
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
        "ScaleOutCooldown": 60,
        "ScaleInCooldown": 300,
    }
    before, calls = snapshot(standing), len(standing.calls)
    assert berth("autoscale", "--min-count", "2", "--max-count", "6", "--invocations", "500").exit_code == 0
    assert changes(standing, calls) == []
    assert snapshot(standing) == before


def test_tags_are_given_when_scaling_is_registered_and_not_when_it_is_changed(standing: Cloud) -> None:
    berth("autoscale")
    assert asked(standing, "RegisterScalableTarget")["Tags"] == {TAG: "berth"}
    berth("autoscale", "--max-count", "9")
    assert "Tags" not in asked(standing, "RegisterScalableTarget")
    assert targets(standing)[0][2] == 9


@pytest.fixture
def queue(there: Cloud) -> Cloud:
    """The same with an asynchronous endpoint that scales to zero."""
    assert deploy(1, *ASYNC).exit_code == 0
    assert berth("autoscale", "--min-count", "0", "--backlog", "3").exit_code == 0
    return there


def test_an_asynchronous_endpoint_scales_to_zero_and_is_woken_by_a_request(queue: Cloud) -> None:
    found = policies(queue)
    tracking = found["berth-work"]["TargetTrackingScalingPolicyConfiguration"]
    assert (tracking["TargetValue"], tracking["CustomizedMetricSpecification"]["MetricName"]) == (
        3.0,
        "ApproximateBacklogSizePerInstance",
    )
    step = found["berth-wake"]["StepScalingPolicyConfiguration"]
    assert step["StepAdjustments"] == [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}]
    alarms = client(queue, "cloudwatch").describe_alarms(AlarmNames=["berth-wake"])["MetricAlarms"]
    assert [(alarm["MetricName"], alarm["AlarmActions"]) for alarm in alarms] == [
        ("HasBacklogWithoutCapacity", [found["berth-wake"]["PolicyARN"]])
    ]
    calls = len(queue.calls)
    assert berth("autoscale", "--min-count", "0", "--backlog", "3").exit_code == 0
    assert changes(queue, calls) == []


def test_what_wakes_is_removed_where_one_instance_always_is(queue: Cloud) -> None:
    assert berth("autoscale", "--min-count", "1").exit_code == 0
    assert set(policies(queue)) == {"berth-work"}
    assert not client(queue, "cloudwatch").describe_alarms(AlarmNames=["berth-wake"])["MetricAlarms"]


def test_an_endpoint_scales_no_longer_when_that_is_asked_for(queue: Cloud) -> None:
    assert berth("autoscale", "--fixed").exit_code == 0
    assert (policies(queue), targets(queue)) == ({}, [])
    calls = len(queue.calls)
    again = berth("autoscale", "--fixed")
    assert again.exit_code == 0
    assert "does not scale" in again.output
    assert changes(queue, calls) == []


def test_an_update_keeps_the_number_of_instances_that_scaling_has_chosen(standing: Cloud) -> None:
    standing.prices([PRICE])
    berth("autoscale")
    scale_to(standing, 3)
    ran = deploy(2)
    assert ran.exit_code == 0
    assert "3 instances 1.5 USD an hour" in ran.output
    request = asked(standing, "UpdateEndpoint")
    assert request["RetainAllVariantProperties"] is True
    assert request["ExcludeRetainedVariantProperties"] == [{"VariantPropertyType": "DesiredWeight"}]
    routing = request["DeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing["CanarySize"] == {"Type": "INSTANCE_COUNT", "Value": 1}
    assert described(standing)["ProductionVariants"][0]["CurrentInstanceCount"] == 3


def test_an_update_of_an_endpoint_at_zero_starts_an_instance_to_try_it(queue: Cloud) -> None:
    scale_to(queue, 0)
    assert deploy(2, *ASYNC).exit_code == 0
    assert "RetainAllVariantProperties" not in asked(queue, "UpdateEndpoint")
    assert described(queue)["ProductionVariants"][0]["CurrentInstanceCount"] == 1


def scale_to(aws: Cloud, count: int) -> None:
    """Do what application autoscaling does."""
    wanted = [{"VariantName": "AllTraffic", "DesiredInstanceCount": count}]
    client(aws, "sagemaker").update_endpoint_weights_and_capacities(EndpointName="berth", DesiredWeightsAndCapacities=wanted)
    while described(aws)["EndpointStatus"] != "InService":
        pass


def test_another_instance_type_is_refused_while_an_endpoint_scales(standing: Cloud) -> None:
    berth("autoscale")
    ran = deploy(1, "--instance-type", "ml.c5.large")
    assert ran.exit_code == 2
    assert "autoscale --fixed" in ran.output
    berth("autoscale", "--fixed")
    assert deploy(1, "--instance-type", "ml.c5.large").exit_code == 0


def test_a_serverless_endpoint_is_not_scaled(there: Cloud) -> None:
    assert deploy(1, "--kind", "serverless").exit_code == 0
    ran = berth("autoscale")
    assert ran.exit_code == 2
    assert "scales by itself" in ran.output
    assert "RegisterScalableTarget" not in changes(there)


SCALINGS = {
    "zero of a real-time endpoint": (Scaling(min_count=0), "realtime", "only an asynchronous one"),
    "serverless": (Scaling(), "serverless", "scales by itself"),
    "the wrong way round": (Scaling(min_count=5), "", "--min-count 5 is over --max-count 4"),
    "none": (Scaling(min_count=0, max_count=0), "", "--max-count is 1 or more"),
    "no work": (Scaling(invocations=0), "", "--invocations and --backlog are over 0"),
    "no time": (Scaling(scale_in_s=-1), "", "are 0 or more"),
}


@pytest.mark.parametrize(("scaling", "kind", "told"), SCALINGS.values(), ids=SCALINGS)
def test_scaling_that_can_not_be_is_refused(scaling: Scaling, kind: str, told: str) -> None:
    with pytest.raises(BadSettings, match=told):
        refuse_scaling(scaling, kind)
    if not kind:  # what needs no look at the endpoint
        assert berth("autoscale", "--min-count", "9").exit_code == 2


# Refused

MANY, MULTI = f"s3://{BUCKET}/many/", {"kind": "multi-model", "model_data": f"s3://{BUCKET}/many/"}
SERVERLESS = {"kind": "serverless"}
SHADOWED = {"shadow_model_data": model(2)}
QUEUE = {"kind": "async", "async_output": "s3://answers/"}
REFUSED = {
    "kind": ({"kind": "magic"}, {}, {}, {}, "The kind is one of"),
    "strategy": ({}, {"strategy": "hope"}, {}, {}, "The strategy is one of"),
    "serverless and a VPC": (SERVERLESS, {}, {"subnets": ("s",), "security_groups": ("g",)}, {}, "in no VPC"),
    "serverless and isolation": (SERVERLESS, {}, {"isolation": True}, {}, "can't be isolated"),
    "serverless and capture": (
        {**SERVERLESS, "capture_percent": 1, "capture_output": "s3://x/"},
        {},
        {},
        {},
        "no data capture",
    ),
    "serverless and shadow": ({**SERVERLESS, **SHADOWED}, {}, {}, {}, "one variant, so no shadow"),
    "serverless and a volume key": (SERVERLESS, {}, {"volume_key": "k"}, {}, "no volume that a key could encrypt"),
    "serverless and half a gigabyte": ({**SERVERLESS, "memory_mb": 1536}, {}, {}, {}, "1024, 2048, 3072"),
    "serverless and 201 at a time": ({**SERVERLESS, "concurrency": 201}, {}, {}, {}, "1 to 200"),
    "serverless by rolling": (SERVERLESS, {"strategy": "rolling"}, {}, {}, "can't be updated by rolling"),
    "asynchronous and shadow": ({**QUEUE, **SHADOWED}, {}, {}, {}, "An asynchronous endpoint has no shadow"),
    "multi-model and shadow": ({**MULTI, **SHADOWED}, {}, {}, {}, "A multi-model endpoint has no shadow"),
    "Inf1 and shadow": ({"instance_type": "ml.inf1.xlarge", **SHADOWED}, {}, {}, {}, "Inf1 instances have no shadow"),
    "no share of shadow": ({**SHADOWED, "shadow_percent": 0}, {}, {}, {}, "1 to 100 per cent"),
    "two variants by rolling": (SHADOWED, {"strategy": "rolling"}, {}, {}, "two variants"),
    "Inf1 by canary": ({"instance_type": "ml.inf1.xlarge"}, {"strategy": "canary"}, {}, {}, "updated all at once"),
    "multi-model and one model": ({"kind": "multi-model", "model_data": model(1)}, {}, {}, {}, "takes the prefix"),
    "a folder as model": ({"model_data": "s3://x/folder/"}, {}, {}, {}, "is a model.tar.gz in S3"),
    "Docker Hub": ({}, {}, {}, {"registry": "docker.io/someone"}, "SageMaker hosts images of ECR"),
    "an image of another registry": ({}, {}, {}, {"uri": "quay.io/x@sha256:" + "a" * 64}, "SageMaker hosts images of ECR"),
    "Arm": ({"instance_type": "ml.c7g.large"}, {}, {}, {}, "made for linux/amd64"),
    "disks of its own": ({"instance_type": "ml.m5d.large"}, {}, {"volume_key": "k"}, {}, "disks of its own"),
    "no instance": ({"instance_count": 0}, {}, {}, {}, "begins with one instance"),
    "a long environment": ({"environment": {"A": "x" * 1025}}, {}, {}, {}, "100 entries at most"),
    "asynchronous without a place": ({"kind": "async"}, {}, {}, {}, "name where with --async-output"),
    "101 per cent": ({"capture_percent": 101, "capture_output": "s3://x/"}, {}, {}, {}, "0 to 100 per cent"),
    "capture without a place": ({"capture_percent": 1}, {}, {}, {}, "name where with --capture-output"),
    "a short start": ({"startup_s": 10}, {}, {}, {}, "are 60 to 3600"),
    "long baking": ({}, {"bake_s": 3601}, {}, {}, "are 0 to 3600"),
    "a short update": ({}, {"limit_s": 10}, {}, {}, "is 600 to 28800"),
    "a canary of most": ({}, {"strategy": "canary", "step_percent": 51}, {}, {}, "A canary is 1 to 50 per cent"),
    "rolling that keeps": ({}, {"strategy": "rolling", "keep_old_s": 1}, {}, {}, "keeps none"),
    "alarms": ({}, {"alarms": tuple("abcdefghijk")}, {}, {}, "10 alarms at most"),
    "alarms that do nothing": ({}, {"alarms": ("a",), "guard": False}, {}, {}, "one or the other"),
    "any error at all": ({}, {"error_percent": 0}, {}, {}, "over 0 and under 100"),
}


def combined(row: tuple[Any, ...]) -> Asked:
    endpoint, update, network, image, _ = row
    return Asked(Endpoint(**endpoint), Update(**update), Network(**network), Image(**image))


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_combined_is_refused_with_the_reason(row: tuple[Any, ...]) -> None:
    with pytest.raises(BadSettings) as refused:
        refuse(combined(row))
    assert row[-1] in refused.value.message


def test_every_rule_refuses_something_and_not_what_is_usual() -> None:
    reached = {rule.reason for row in REFUSED.values() for rule in RULES if rule.broken(combined(row))}
    assert reached == {rule.reason for rule in RULES}
    for usual in (Endpoint(), Endpoint(**SERVERLESS), Endpoint(**QUEUE), Endpoint(**MULTI), Endpoint(**SHADOWED)):
        refuse(Asked(usual, Update(), Network(), Image()))
    for here in ("127.0.0.1:5000/berth", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/berth"):
        refuse(Asked(Endpoint(), Update(), Network(), Image(uri=f"{here}@sha256:{'a' * 64}")))


def test_the_page_about_endpoints_lists_every_rule() -> None:
    page = (ROOT / "docs" / "endpoints.md").read_text()
    table = page.partition("<!-- rules -->\n")[2].partition("<!-- end of rules -->")[0].splitlines()[2:]
    assert table == [f"| {rule.reason} | {rule.source} |" for rule in RULES]


def test_the_refusal_has_every_reason_and_comes_before_any_call(there: Cloud) -> None:
    calls = len(there.calls)
    ran = deploy(1, "--kind", "serverless", "--isolation", "--volume-key", "k")
    assert ran.exit_code == 2
    assert "can't be isolated" in ran.output
    assert "no volume that a key could encrypt" in ran.output
    assert len(there.calls) == calls


def test_arm_is_told_by_the_familys_letter() -> None:
    arm = ("ml.m6g.large", "ml.c6gn.large", "ml.r8g.medium", "ml.m6gd.large")
    intel = ("ml.m5.large", "ml.g4dn.xlarge", "ml.g5.xlarge", "ml.c6in.large", "ml.p6e-gb200.36xlarge", "ml.trn1.2xlarge")
    rule = next(rule for rule in RULES if "linux/amd64" in rule.reason)
    plain = Asked(Endpoint(), Update(), Network(), Image())
    assert all(rule.broken(replace(plain, endpoint=Endpoint(instance_type=each))) for each in arm)
    assert not any(rule.broken(replace(plain, endpoint=Endpoint(instance_type=each))) for each in intel)
