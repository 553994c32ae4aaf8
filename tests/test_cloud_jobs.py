"""Jobs, algorithms and model packages of the AWS that stands in: how they end and what they leave."""

from __future__ import annotations

import io
import tarfile

import pytest
from cloudy import (
    BUCKET,
    INFERENCE,
    ROLE,
    TRAINING,
    container,
    make_bucket,
    make_config,
    make_model,
    make_training_job,
    refusal,
    settle,
    transform,
    tune,
)

# Jobs


def test_a_training_job_leaves_its_model_its_metrics_and_its_lines(aws) -> None:
    s3 = make_bucket(aws)
    make_training_job(aws)
    aws.script("training-job", "job", metrics={"validation:rmse": 3.5}, logs=["validation:rmse=3.5"])
    described = [aws.client("sagemaker").describe_training_job(TrainingJobName="job") for _ in range(3)]
    assert [each["SecondaryStatus"] for each in described] == ["Starting", "Training", "Completed"]
    assert [(each["MetricName"], each["Value"]) for each in described[2]["FinalMetricDataList"]] == [("validation:rmse", 3.5)]
    uri = described[2]["ModelArtifacts"]["S3ModelArtifacts"]
    assert uri == f"s3://{BUCKET}/out/job/output/model.tar.gz"
    body = s3.get_object(Bucket=BUCKET, Key="out/job/output/model.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert archive.getnames() == ["model"]
    events = aws.client("logs").filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix="job/")
    assert [event["message"] for event in events["events"]] == ["validation:rmse=3.5"]


def test_a_training_job_leaves_the_bytes_it_was_given(aws) -> None:
    s3 = make_bucket(aws)
    aws.script("training-job", "*", artifact=b"trained elsewhere")
    for name in ("one", "two"):
        make_training_job(aws, name)
        settle(aws, "describe_training_job", TrainingJobName=name)
        assert s3.get_object(Bucket=BUCKET, Key=f"out/{name}/output/model.tar.gz")["Body"].read() == b"trained elsewhere"


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        ({"outcome": "failed", "reason": "UserError: no channel"}, "Failed", "UserError: no channel"),
        ({"outcome": "failed"}, "Failed", "AlgorithmError"),
        ({"outcome": "capacity"}, "Failed", "CapacityError"),
        ({"outcome": "stopped"}, "Stopped", ""),
    ],
)
def test_a_training_job_ends_as_its_script_says(aws, script, status, reason) -> None:
    make_bucket(aws)
    aws.script("training-job", "job", **script)
    make_training_job(aws)
    described = settle(aws, "describe_training_job", TrainingJobName="job")
    assert described["TrainingJobStatus"] == status
    assert described.get("FailureReason", "").startswith(reason)


def test_a_job_whose_bucket_is_missing_fails_and_says_so(aws) -> None:
    make_training_job(aws)
    described = settle(aws, "describe_training_job", TrainingJobName="job")
    assert described["TrainingJobStatus"] == "Failed"
    assert "NoSuchBucket" in described["FailureReason"]


def test_a_training_job_that_is_stopped_keeps_its_model(aws) -> None:
    s3 = make_bucket(aws)
    make_training_job(aws)
    client = aws.client("sagemaker")
    client.stop_training_job(TrainingJobName="job")
    described = [client.describe_training_job(TrainingJobName="job")["TrainingJobStatus"] for _ in range(3)]
    assert described == ["Stopping", "Stopping", "Stopped"]
    assert s3.head_object(Bucket=BUCKET, Key="out/job/output/model.tar.gz")["ContentLength"] > 0
    assert "in status Stopped" in refusal(client.stop_training_job, TrainingJobName="job")[1]


def test_a_transform_job_writes_an_output_for_each_input(aws) -> None:
    make_model(aws)
    s3 = aws.client("s3")
    for key in ("in/a.csv", "in/deep/b.csv", "other.csv"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
    transform(aws)
    assert settle(aws, "describe_transform_job", TransformJobName="batch")["TransformJobStatus"] == "Completed"
    written = s3.list_objects_v2(Bucket=BUCKET, Prefix="predicted/")["Contents"]
    assert [each["Key"] for each in written] == ["predicted/a.csv.out", "predicted/deep/b.csv.out"]


def test_a_transform_job_asks_the_container_of_its_model(aws) -> None:
    make_model(aws)
    s3 = aws.client("s3")
    s3.put_object(Bucket=BUCKET, Key="in/a.csv", Body=b"1,2")
    with container() as url:
        aws.serve("housing", url)
        transform(aws)
        settle(aws, "describe_transform_job", TransformJobName="batch")
        s3.put_object(Bucket=BUCKET, Key="in/b.csv", Body=b"bad")
        transform(aws, "second")
        described = settle(aws, "describe_transform_job", TransformJobName="second")
    assert s3.get_object(Bucket=BUCKET, Key="predicted/a.csv.out")["Body"].read() == b"1,2"
    assert (described["TransformJobStatus"], "answered 400: bad" in described["FailureReason"]) == ("Failed", True)


def test_a_transform_job_without_input_fails_and_one_that_is_stopped_writes_nothing(aws) -> None:
    make_model(aws)
    transform(aws)
    described = settle(aws, "describe_transform_job", TransformJobName="batch")
    assert (described["TransformJobStatus"], "No objects found" in described["FailureReason"]) == ("Failed", True)
    aws.client("s3").put_object(Bucket=BUCKET, Key="in/a.csv", Body=b"1")
    transform(aws, "stopped")
    aws.client("sagemaker").stop_transform_job(TransformJobName="stopped")
    assert settle(aws, "describe_transform_job", TransformJobName="stopped")["TransformJobStatus"] == "Stopped"
    assert "Contents" not in aws.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="predicted/")


def test_a_tuning_job_tells_its_best_training_job(aws) -> None:
    make_bucket(aws)
    aws.script("hyper-parameter-tuning-job", "tuning", objectives=[3.0, 1.5, 2.0])
    tune(aws)
    client = aws.client("sagemaker")
    named = {"HyperParameterTuningJobName": "tuning"}
    before = client.describe_hyper_parameter_tuning_job(**named)
    assert (before["HyperParameterTuningJobStatus"], before["TrainingJobStatusCounters"]["InProgress"]) == ("InProgress", 3)
    described = settle(aws, "describe_hyper_parameter_tuning_job", **named)
    best = described["BestTrainingJob"]
    assert (best["FinalHyperParameterTuningJobObjectiveMetric"]["Value"], best["TunedHyperParameters"]) == (1.5, {"depth": "5"})
    assert described["TrainingJobStatusCounters"]["Completed"] == 3
    jobs = client.list_training_jobs_for_hyper_parameter_tuning_job(**named, StatusEquals="Completed")["TrainingJobSummaries"]
    assert len(jobs) == 3
    one = client.describe_training_job(TrainingJobName=best["TrainingJobName"])
    assert (one["TuningJobArn"], one["HyperParameters"]) == (described["HyperParameterTuningJobArn"], {"depth": "5"})


@pytest.mark.parametrize(("outcome", "status"), [("failed", "Failed"), ("stopped", "Stopped")])
def test_a_tuning_job_that_fails_or_is_stopped_takes_its_training_jobs_along(aws, outcome, status) -> None:
    make_bucket(aws)
    aws.script("hyper-parameter-tuning-job", "tuning", outcome=outcome)
    tune(aws)
    described = settle(aws, "describe_hyper_parameter_tuning_job", HyperParameterTuningJobName="tuning")
    assert described["HyperParameterTuningJobStatus"] == status
    assert {each["TrainingJobStatus"] for each in aws.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]} == {
        status
    }
    assert "BestTrainingJob" not in described


# The model registry, Marketplace


def test_versions_of_a_group_are_numbered_approved_and_filtered(aws) -> None:
    client = aws.client("sagemaker")
    client.create_model_package_group(ModelPackageGroupName="group")
    arns = [
        client.create_model_package(ModelPackageGroupName="group", InferenceSpecification=INFERENCE)["ModelPackageArn"]
        for _ in range(3)
    ]
    assert [arn.rpartition("model-package/")[2] for arn in arns] == ["group/1", "group/2", "group/3"]
    described = settle(aws, "describe_model_package", ModelPackageName=arns[1])
    assert (described["ModelPackageStatus"], described["ModelApprovalStatus"]) == ("Completed", "PendingManualApproval")
    client.update_model_package(
        ModelPackageArn=arns[1], ModelApprovalStatus="Approved", CustomerMetadataProperties={"commit": "abc"}
    )
    approved = client.list_model_packages(ModelPackageGroupName="group", ModelApprovalStatus="Approved")
    assert [each["ModelPackageVersion"] for each in approved["ModelPackageSummaryList"]] == [2]
    assert client.describe_model_package(ModelPackageName=arns[1])["CustomerMetadataProperties"] == {"commit": "abc"}
    assert refusal(client.delete_model_package_group, ModelPackageGroupName="group")[0] == "ConflictException"
    client.delete_model_package(ModelPackageName=arns[2])
    again = client.create_model_package(ModelPackageGroupName="group", InferenceSpecification=INFERENCE)["ModelPackageArn"]
    assert again.endswith("group/4")


def test_a_model_is_made_of_a_package_and_its_image_is_the_packages(aws) -> None:
    make_bucket(aws)
    client = aws.client("sagemaker")
    client.create_model_package_group(ModelPackageGroupName="group")
    arn = client.create_model_package(ModelPackageGroupName="group", InferenceSpecification=INFERENCE)["ModelPackageArn"]
    client.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer={"ModelPackageName": arn})
    make_config(aws, "c", "m")
    client.create_endpoint(EndpointName="e", EndpointConfigName="c")
    images = settle(aws, "describe_endpoint", EndpointName="e")["ProductionVariants"][0]["DeployedImages"]
    assert [image["SpecifiedImage"] for image in images] == ["berth:1"]


def test_an_algorithm_is_validated_and_fails_as_its_script_says(aws) -> None:
    client = aws.client("sagemaker")
    aws.script("algorithm", "bad", outcome="failed", reason="a CVE")
    for name in ("good", "bad"):
        client.create_algorithm(AlgorithmName=name, TrainingSpecification=TRAINING)
    assert refusal(client.delete_algorithm, AlgorithmName="good")[0] == "ConflictException"
    good, bad = (settle(aws, "describe_algorithm", AlgorithmName=name) for name in ("good", "bad"))
    assert (good["AlgorithmStatus"], bad["AlgorithmStatus"]) == ("Completed", "Failed")
    assert bad["AlgorithmStatusDetails"]["ImageScanStatuses"][0]["FailureReason"] == "a CVE"
