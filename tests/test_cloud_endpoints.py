"""Endpoints of the AWS that stands in: their states, deployments and rollbacks, and calls to them."""

from __future__ import annotations

from contextlib import contextmanager
from queue import Queue

import pytest
from botocore.exceptions import ClientError
from cloudy import BUCKET, CANARY, ONCE, Container, container, make_config, make_endpoint, make_model, refusal, ring, settle

# Endpoints


def test_an_endpoint_is_created_while_it_is_looked_at(aws) -> None:
    make_model(aws)
    make_config(aws, "first")
    client = aws.client("sagemaker")
    client.create_endpoint(EndpointName="housing", EndpointConfigName="first")
    described = [client.describe_endpoint(EndpointName="housing") for _ in range(4)]
    assert [each["EndpointStatus"] for each in described] == ["Creating", "Creating", "InService", "InService"]
    assert "ProductionVariants" not in described[0]
    variant = described[2]["ProductionVariants"][0]
    assert (variant["VariantName"], variant["CurrentInstanceCount"], variant["CurrentWeight"]) == ("all", 1, 1.0)
    assert variant["DeployedImages"][0]["SpecifiedImage"] == "berth:1"
    aws.looks(0)
    client.create_endpoint(EndpointName="at-once", EndpointConfigName="first")
    assert client.describe_endpoint(EndpointName="at-once")["EndpointStatus"] == "InService"


def test_an_endpoint_fails_as_its_script_says_and_can_then_only_be_deleted(aws) -> None:
    make_model(aws)
    make_config(aws, "first")
    client = aws.client("sagemaker")
    aws.script("endpoint", "housing", outcome="failed", reason="no ping")
    client.create_endpoint(EndpointName="housing", EndpointConfigName="first")
    described = settle(aws, "describe_endpoint", EndpointName="housing")
    assert (described["EndpointStatus"], described["FailureReason"]) == ("Failed", "no ping")
    assert "can only be deleted" in refusal(client.update_endpoint, EndpointName="housing", EndpointConfigName="first")[1]
    client.delete_endpoint(EndpointName="housing")
    for _ in range(2):
        assert client.describe_endpoint(EndpointName="housing")["EndpointStatus"] == "Deleting"
    assert refusal(client.describe_endpoint, EndpointName="housing")[1].startswith("Could not find endpoint ")
    client.create_endpoint(EndpointName="housing", EndpointConfigName="first")
    assert settle(aws, "describe_endpoint", EndpointName="housing")["EndpointStatus"] == "InService"


def test_an_endpoint_in_progress_is_neither_updated_nor_deleted(aws) -> None:
    make_model(aws)
    make_config(aws, "first")
    client = aws.client("sagemaker")
    client.create_endpoint(EndpointName="housing", EndpointConfigName="first")
    for _ in range(2):
        for refused in (
            lambda: client.delete_endpoint(EndpointName="housing"),
            lambda: client.update_endpoint(EndpointName="housing", EndpointConfigName="first"),
        ):
            with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
                refused()
        settle(aws, "describe_endpoint", EndpointName="housing")
        client.update_endpoint(EndpointName="housing", EndpointConfigName="first")


def test_a_canary_shows_what_is_to_come_and_then_is_what_runs(aws) -> None:
    make_endpoint(aws)
    make_config(aws, "second", count=3)
    ring(aws, "OK")
    client = aws.client("sagemaker")
    client.update_endpoint(EndpointName="housing", EndpointConfigName="second", DeploymentConfig=CANARY)
    first, second, third = [client.describe_endpoint(EndpointName="housing") for _ in range(3)]
    assert [each["EndpointStatus"] for each in (first, second, third)] == ["Updating", "Updating", "InService"]
    pending = [each["PendingDeploymentSummary"] for each in (first, second)]
    assert [each["EndpointConfigName"] for each in pending] == ["second", "second"]
    states = [each["ProductionVariants"][0]["VariantStatus"][0]["Status"] for each in pending]
    assert states == ["Creating", "Baking"]
    assert (first["EndpointConfigName"], first["ProductionVariants"][0]["CurrentInstanceCount"]) == ("housing", 1)
    assert (third["EndpointConfigName"], third["ProductionVariants"][0]["CurrentInstanceCount"]) == ("second", 3)
    assert "PendingDeploymentSummary" not in third
    assert third["LastDeploymentConfig"] == CANARY


@pytest.mark.parametrize(
    ("kind", "name", "percent", "needs"),
    [
        ("CANARY", "CanarySize", 51, "1 to 50"),
        ("LINEAR", "LinearStepSize", 9, "10 to 50"),
        ("LINEAR", "CanarySize", 10, "needs Linear"),
    ],
)
def test_a_step_of_a_deployment_that_the_platform_does_not_allow_is_refused(aws, kind, name, percent, needs) -> None:
    make_endpoint(aws)
    routing = {"Type": kind, "WaitIntervalInSeconds": 60, name: {"Type": "CAPACITY_PERCENT", "Value": percent}}
    found = refusal(
        aws.client("sagemaker").update_endpoint,
        EndpointName="housing",
        EndpointConfigName="housing",
        DeploymentConfig={"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}},
    )
    assert needs in found[1]


@pytest.mark.parametrize(
    ("variant", "more", "what"),
    [
        ({}, {}, "needs either InstanceType"),
        ({"InstanceType": "ml.m5.large", "InitialInstanceCount": 1, "ServerlessConfig": {}}, {}, "needs either InstanceType"),
        (
            {"ServerlessConfig": {}},
            {"VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}},
            "combined with VpcConfig",
        ),
    ],
)
def test_variants_whose_parts_do_not_go_together_are_refused(aws, variant, more, what) -> None:
    make_model(aws)
    if "ServerlessConfig" in variant:
        variant = {**variant, "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}
    variants = [{"VariantName": "all", "ModelName": "housing", **variant}]
    client = aws.client("sagemaker")
    assert what in refusal(client.create_endpoint_config, EndpointConfigName="c", ProductionVariants=variants, **more)[1]


def test_an_alarm_that_rings_rolls_an_update_back(aws) -> None:
    make_endpoint(aws)
    make_config(aws, "second", count=3)
    client = aws.client("sagemaker")
    client.update_endpoint(EndpointName="housing", EndpointConfigName="second", DeploymentConfig=CANARY)
    assert client.describe_endpoint(EndpointName="housing")["EndpointStatus"] == "Updating"
    ring(aws)
    described = [client.describe_endpoint(EndpointName="housing") for _ in range(3)]
    assert [each["EndpointStatus"] for each in described] == ["RollingBack", "RollingBack", "InService"]
    assert "errors" in described[2]["FailureReason"]
    assert (described[2]["EndpointConfigName"], described[2]["ProductionVariants"][0]["CurrentInstanceCount"]) == ("housing", 1)
    ring(aws, "OK")
    client.update_endpoint(EndpointName="housing", EndpointConfigName="second", RetainDeploymentConfig=True)
    described = settle(aws, "describe_endpoint", EndpointName="housing")
    assert (described["EndpointConfigName"], "FailureReason" in described) == ("second", False)
    assert described["LastDeploymentConfig"] == CANARY


@pytest.mark.parametrize(
    ("outcome", "status"), [("failed", "InService"), ("capacity", "InService"), ("stuck", "UpdateRollbackFailed")]
)
def test_an_update_that_fails_goes_back_if_it_can(aws, outcome, status) -> None:
    make_endpoint(aws)
    make_config(aws, "second")
    aws.script("endpoint", "housing", outcome=outcome)
    aws.client("sagemaker").update_endpoint(EndpointName="housing", EndpointConfigName="second")
    described = settle(aws, "describe_endpoint", EndpointName="housing")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == (status, "housing")
    assert described["FailureReason"]


def test_a_configuration_in_use_may_be_deleted_and_the_endpoint_goes_on(aws) -> None:
    make_endpoint(aws)
    client = aws.client("sagemaker")
    client.delete_endpoint_config(EndpointConfigName="housing")
    described = client.describe_endpoint(EndpointName="housing")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", "housing")


def test_weights_and_numbers_change_and_are_kept_over_an_update_if_told(aws) -> None:
    make_endpoint(aws)
    make_config(aws, "second")
    client = aws.client("sagemaker")
    wanted = [{"VariantName": "all", "DesiredWeight": 0.5, "DesiredInstanceCount": 4}]
    client.update_endpoint_weights_and_capacities(EndpointName="housing", DesiredWeightsAndCapacities=wanted)
    variant = client.describe_endpoint(EndpointName="housing")["ProductionVariants"][0]
    assert (variant["DesiredInstanceCount"], variant["CurrentInstanceCount"]) == (4, 1)
    settle(aws, "describe_endpoint", EndpointName="housing")
    client.update_endpoint(EndpointName="housing", EndpointConfigName="second", RetainAllVariantProperties=True)
    variant = settle(aws, "describe_endpoint", EndpointName="housing")["ProductionVariants"][0]
    assert (variant["CurrentWeight"], variant["CurrentInstanceCount"]) == (0.5, 4)
    wanted = [{"VariantName": "other", "DesiredWeight": 1.0}]
    request = {"EndpointName": "housing", "DesiredWeightsAndCapacities": wanted}
    assert "other" in refusal(client.update_endpoint_weights_and_capacities, **request)[1]


def test_capture_shadow_async_and_serverless_are_described(aws) -> None:
    make_model(aws)
    client = aws.client("sagemaker")
    variant = {"VariantName": "all", "ModelName": "housing", "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5}}
    client.create_endpoint_config(EndpointConfigName="serverless", ProductionVariants=[variant])
    shadow = {"VariantName": "next", "ModelName": "housing", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 50,
        "DestinationS3Uri": f"s3://{BUCKET}/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    later = {"OutputConfig": {"S3OutputPath": f"s3://{BUCKET}/later"}}
    make_config(aws, "rich", DataCaptureConfig=capture, ShadowProductionVariants=[shadow], AsyncInferenceConfig=later)
    for name in ("serverless", "rich"):
        client.create_endpoint(EndpointName=name, EndpointConfigName=name)
    found = settle(aws, "describe_endpoint", EndpointName="serverless")["ProductionVariants"][0]
    assert found["CurrentServerlessConfig"] == variant["ServerlessConfig"]
    assert "CurrentInstanceCount" not in found
    found = settle(aws, "describe_endpoint", EndpointName="rich")
    assert (found["DataCaptureConfig"]["CaptureStatus"], found["DataCaptureConfig"]["CurrentSamplingPercentage"]) == (
        "Started",
        50,
    )
    assert [each["VariantName"] for each in found["ShadowProductionVariants"]] == ["next"]
    assert found["AsyncInferenceConfig"] == later


# Calls to endpoints


def test_a_call_reaches_the_container_with_the_headers_the_platform_lets_through(aws) -> None:
    make_endpoint(aws)
    with container() as url:
        aws.serve("housing", url)
        answered = aws.client("sagemaker-runtime").invoke_endpoint(
            EndpointName="housing",
            Body=b"1,2",
            ContentType="text/csv",
            Accept="application/json",
            CustomAttributes="trace=1",
            InferenceId="one",
        )
    assert answered["Body"].read() == b"1,2"
    assert (answered["ContentType"], answered["InvokedProductionVariant"]) == ("application/json", "all")
    assert answered["CustomAttributes"] == "X-Amzn-SageMaker-Custom-Attributes,X-Amzn-SageMaker-Inference-Id"


def test_a_streamed_call_comes_in_parts_of_the_media_type_that_was_asked_for(aws) -> None:
    make_endpoint(aws)
    runtime = aws.client("sagemaker-runtime", config=ONCE)
    with container() as url:
        aws.serve("housing", url)
        answered = runtime.invoke_endpoint_with_response_stream(
            EndpointName="housing", Body=b"x" * 200_000, ContentType="text/csv", Accept="application/json"
        )
        parts = [event["PayloadPart"]["Bytes"] for event in answered["Body"]]
        with pytest.raises(runtime.exceptions.ModelError) as error:
            runtime.invoke_endpoint_with_response_stream(EndpointName="housing", Body=b"bad")
    assert (answered["ContentType"], len(parts) > 1, b"".join(parts)) == ("application/json", True, b"x" * 200_000)
    assert error.value.response["OriginalStatusCode"] == 400


@contextmanager
def noting():
    """A container that notes the media types it is told."""
    seen = Queue()

    class Noting(Container):
        def do_POST(self):  # noqa: N802 http.server calls it so
            seen.put((self.headers.get("Content-Type"), self.headers.get("Accept")))
            super().do_POST()

    with container(Noting) as url:
        yield url, seen


def test_an_asynchronous_call_gives_the_container_the_media_types_of_its_body(aws) -> None:
    make_endpoint(aws, AsyncInferenceConfig={"OutputConfig": {"S3OutputPath": f"s3://{BUCKET}/later"}})
    with noting() as (url, seen):
        aws.serve("housing", url)
        aws.client("sagemaker-runtime").invoke_endpoint_async(
            EndpointName="housing",
            InputLocation=f"s3://{BUCKET}/model.tar.gz",
            ContentType="text/csv",
            Accept="application/json",
        )
        assert seen.get(timeout=10) == ("text/csv", "application/json")


def test_an_error_of_the_container_is_a_model_error(aws) -> None:
    make_endpoint(aws)
    runtime = aws.client("sagemaker-runtime", config=ONCE)
    with container() as url:
        aws.serve("*", url)
        with pytest.raises(runtime.exceptions.ModelError) as error:
            runtime.invoke_endpoint(EndpointName="housing", Body=b"bad")
    answered = error.value.response
    assert (answered["OriginalStatusCode"], answered["OriginalMessage"]) == (400, "bad")
    with pytest.raises(runtime.exceptions.ModelError) as error:  # nothing listens there any more
        runtime.invoke_endpoint(EndpointName="housing", Body=b"1")
    assert error.value.response["OriginalStatusCode"] == 500


def test_only_an_endpoint_in_service_that_something_answers_for_is_called(aws) -> None:
    runtime = aws.client("sagemaker-runtime", config=ONCE)
    assert refusal(runtime.invoke_endpoint, EndpointName="housing", Body=b"1")[1].endswith("not found.")
    make_endpoint(aws)
    assert 'serve("housing", URL)' in refusal(runtime.invoke_endpoint, EndpointName="housing", Body=b"1")[1]


def test_an_asynchronous_call_leaves_its_answer_or_why_there_is_none(aws) -> None:
    places = {"S3OutputPath": f"s3://{BUCKET}/later", "S3FailurePath": f"s3://{BUCKET}/failed"}
    make_endpoint(aws, AsyncInferenceConfig={"OutputConfig": places})
    s3, runtime = aws.client("s3"), aws.client("sagemaker-runtime", config=ONCE)
    s3.put_object(Bucket=BUCKET, Key="in/good", Body=b"1,2")
    s3.put_object(Bucket=BUCKET, Key="in/bad", Body=b"bad")
    with container() as url:
        aws.serve("housing", url)
        expected = {"good": ("OutputLocation", b"1,2"), "bad": ("FailureLocation", b"The model answered 400: bad")}
        for name, (where, text) in expected.items():
            answered = runtime.invoke_endpoint_async(EndpointName="housing", InputLocation=f"s3://{BUCKET}/in/{name}")
            key = answered[where].removeprefix(f"s3://{BUCKET}/")
            s3.get_waiter("object_exists").wait(Bucket=BUCKET, Key=key, WaiterConfig={"Delay": 0.05, "MaxAttempts": 200})
            assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == text
        refused = refusal(runtime.invoke_endpoint, EndpointName="housing", Body=b"1")
    assert "InvokeEndpointAsync" in refused[1]
