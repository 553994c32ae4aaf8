"""From data to a registered model, a search, files of answers and single calls: `train`, `tune`, `approve`, `batch`, `invoke`,
`async`."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from conftest import ROOT, SAMPLE
from test_report import CARD_SCHEMA
from verbs import ROLE, URI, Ran, berth

from contract.media import ANSWERED, SERVED
from deploy.jobs.artifact import MOST_BYTES
from deploy.jobs.bucket import ENDINGS
from deploy.jobs.samples import BODIES, sample_body, sample_rows
from model import DECLARATION
from training.sources import ENDINGS as READ

BUCKET = "sagemaker-us-east-1-123456789012"
IMAGE = ("--uri", URI, "--role", ROLE)
TRAIN = ("train", *IMAGE)
SAGEMAKER = ServiceModel(Loader().load_service_model("sagemaker", "service-2"))
VPC = ("--subnets", "subnet-1", "--subnets", "subnet-2", "--security-groups", "sg-1")


def packed(folder: Path) -> bytes:
    """Return model.tar.gz of a model directory, as the platform packs it."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        archive.add(folder, ".")
    return whole.getvalue()


@pytest.fixture(scope="session")
def artifact(model_dir: Path) -> bytes:
    return packed(model_dir)


@pytest.fixture
def trains(aws, artifact: bytes):
    """A cloud whose training jobs leave a real model."""
    aws.script("training-job", "*", metrics={"validation:rmse": 4.9}, artifact=artifact, logs=["round 1", "round 2"])
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="models")
    s3.put_object(Bucket="models", Key="model.tar.gz", Body=artifact)
    return aws


def asked(aws, operation: str) -> list[dict[str, Any]]:
    """Return the requests of an operation."""
    return [call.request for call in aws.calls if call.operation == operation]


def done(ran: Ran) -> Ran:
    assert ran.exit_code == 0, ran.output
    return ran


def refused(*words: str) -> str:
    """Return why a verb is refused before any call."""
    ran = berth(*words)
    assert ran.exit_code == 2, ran.output
    return ran.output


def objects(aws, bucket: str = BUCKET) -> dict[str, bytes]:
    s3 = aws.client("s3")
    listed = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {item["Key"]: s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read() for item in listed}


def tags(aws, arn: str) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in aws.client("sagemaker").list_tags(ResourceArn=arn)["Tags"]}


def package(aws, version: int = 1) -> dict[str, Any]:
    arn = f"arn:aws:sagemaker:us-east-1:123456789012:model-package/berth/{version}"
    return aws.client("sagemaker").describe_model_package(ModelPackageName=arn)


# train


def test_training_goes_from_a_folder_to_a_version_in_the_registry(trains) -> None:
    said = done(berth(*TRAIN)).output
    (job,) = asked(trains, "CreateTrainingJob")
    assert job["AlgorithmSpecification"]["TrainingImage"] == URI
    assert job["Tags"] == [{"Key": "berth:project", "Value": "berth"}]
    assert package(trains)["ModelApprovalStatus"] == "PendingManualApproval"
    assert "validation:rmse: 4.9" in said
    assert f"s3://{BUCKET}/berth/models/{job['TrainingJobName']}/output/model.tar.gz" in said
    assert said.endswith("Next: python -m deploy approve\n")


def test_a_second_run_makes_nothing(trains) -> None:
    done(berth(*TRAIN))
    before = len(trains.calls), objects(trains)
    done(berth(*TRAIN))
    later = [call.operation for call in trains.calls][before[0] :]
    assert not [name for name in later if name.startswith(("Create", "Put", "Update"))]
    assert objects(trains) == before[1]


def test_other_settings_are_another_job_and_the_same_in_another_order_are_not(trains) -> None:
    knobs = ("--hyperparameter", "max_iter=60"), ("--hyperparameter", "seed=3")
    done(berth(*TRAIN, *knobs[0], *knobs[1]))
    done(berth(*TRAIN, *knobs[1], *knobs[0]))
    done(berth(*TRAIN, *knobs[0]))
    jobs = asked(trains, "CreateTrainingJob")
    assert [job["HyperParameters"] for job in jobs] == [{"max_iter": "60", "seed": "3"}, {"max_iter": "60"}]


def test_again_trains_once_more_and_what_goes_on_is_not_doubled(trains) -> None:
    trains.looks(1_000)
    done(berth(*TRAIN, "--no-wait"))
    done(berth(*TRAIN, "--no-wait", "--again"))
    assert len(asked(trains, "CreateTrainingJob")) == 1
    trains.looks(1)
    done(berth(*TRAIN))
    done(berth(*TRAIN, "--again"))
    first, second = asked(trains, "CreateTrainingJob")
    assert first.pop("TrainingJobName") != second.pop("TrainingJobName")
    assert first == second
    done(berth(*TRAIN))
    assert len(asked(trains, "CreateTrainingJob")) == 2


def test_waiting_goes_on_where_it_was_left(trains) -> None:
    said = done(berth(*TRAIN, "--no-wait")).output
    assert "Next: python -m deploy train" in said
    assert not asked(trains, "CreateModelPackage")
    done(berth(*TRAIN))
    assert len(asked(trains, "CreateTrainingJob")) == len(asked(trains, "CreateModelPackage")) == 1


def test_every_setting_of_network_keys_and_spot_is_in_the_request(trains) -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/1"
    flags = ("--isolation", "--encrypt-traffic", "--volume-key", key, "--output-key", key, "--spot", *VPC)
    sizes = ("--training-type", "ml.m5.xlarge", "--training-count", "2", "--volume-gb", "50", "--input-mode", "FastFile")
    done(berth(*TRAIN, *flags, *sizes))
    (job,) = asked(trains, "CreateTrainingJob")
    assert job["EnableNetworkIsolation"] is job["EnableInterContainerTrafficEncryption"] is True
    assert job["VpcConfig"] == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    assert job["OutputDataConfig"]["KmsKeyId"] == job["ResourceConfig"]["VolumeKmsKeyId"] == key
    assert (
        job["ResourceConfig"] | {"InstanceType": "ml.m5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 50}
        == job["ResourceConfig"]
    )
    assert job["EnableManagedSpotTraining"] is True
    assert job["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}
    assert job["CheckpointConfig"]["S3Uri"].startswith(f"s3://{BUCKET}/berth/checkpoints/berth-")
    assert job["InputDataConfig"][0]["InputMode"] == job["AlgorithmSpecification"]["TrainingInputMode"] == "FastFile"
    put = trains.client("s3").head_object(Bucket=BUCKET, Key=next(iter(objects(trains))))
    assert (put["ServerSideEncryption"], put["SSEKMSKeyId"]) == ("aws:kms", key)
    assert asked(trains, "CreateModelPackage")[0]["SecurityConfig"] == {"KmsKeyId": key}


def test_checkpoints_of_another_attempt_are_those_of_the_first(trains) -> None:
    done(berth(*TRAIN, "--spot"))
    done(berth(*TRAIN, "--spot", "--again"))
    first, second = asked(trains, "CreateTrainingJob")
    assert first["CheckpointConfig"] == second["CheckpointConfig"]


def test_channels_in_s3_stay_there_and_those_here_are_copied_once_by_content(trains, tmp_path: Path) -> None:
    (tmp_path / "rows" / "part").mkdir(parents=True)
    for name in ("a.csv", "part/b.csv", "README.md", ".hidden.csv"):
        (tmp_path / "rows" / name).write_text((SAMPLE / "boston_house_prices.csv").read_text())
    here, there = f"training={tmp_path / 'rows'}", "validation=s3://other/held/out/"
    flags = ("--channel", here, "--channel", there, "--content-types", "validation=text/csv; label_size=1")
    done(berth(*TRAIN, *flags))
    (job,) = asked(trains, "CreateTrainingJob")
    training, validation = job["InputDataConfig"]
    place = training["DataSource"]["S3DataSource"]["S3Uri"].removeprefix(f"s3://{BUCKET}/")
    assert validation["DataSource"]["S3DataSource"]["S3Uri"] == "s3://other/held/out/"
    assert validation["ContentType"] == "text/csv; label_size=1"
    assert sorted(key.removeprefix(place) for key in objects(trains) if key.startswith(place)) == ["a.csv", "part/b.csv"]
    (tmp_path / "rows" / "a.csv").write_text("other\n")
    done(berth(*TRAIN, *flags))
    assert asked(trains, "CreateTrainingJob")[1]["InputDataConfig"][0] != training


def test_an_interrupted_copy_is_finished(trains) -> None:
    trains.fail(2, "refused", operation="PutObject")
    flags = ("--channel", f"training={ROOT / 'model' / 'sample'}", "--channel", f"validation={ROOT / 'model' / 'sample'}")
    assert berth(*TRAIN, *flags).exit_code == 1
    done(berth(*TRAIN, *flags))
    copied = [request["Key"] for request in asked(trains, "PutObject") if "/data/" in request["Key"]]
    assert len(copied) == 3  # the second was refused once
    assert len(set(copied)) == 2


def test_all_that_train_reads_is_copied() -> None:
    assert set(READ) <= set(ENDINGS)


def test_the_bucket_is_closed_encrypted_tagged_and_takes_tls_alone(trains) -> None:
    done(berth(*TRAIN))
    s3 = trains.client("s3")
    assert set(s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"].values()) == {True}
    (rule,) = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    (statement,) = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert s3.get_bucket_tagging(Bucket=BUCKET)["TagSet"] == [{"Key": "berth:project", "Value": "berth"}]


@pytest.mark.parametrize("operation", ["PutPublicAccessBlock", "PutBucketEncryption", "PutBucketPolicy", "PutBucketTagging"])
def test_a_bucket_whose_making_was_interrupted_is_finished(trains, operation: str) -> None:
    trains.fail(1, "refused", operation=operation)
    assert berth(*TRAIN).exit_code == 1
    done(berth(*TRAIN))
    s3 = trains.client("s3")
    assert s3.get_public_access_block(Bucket=BUCKET)
    assert s3.get_bucket_encryption(Bucket=BUCKET)
    assert s3.get_bucket_policy(Bucket=BUCKET)
    assert s3.get_bucket_tagging(Bucket=BUCKET)


def test_somebodys_bucket_is_left_as_it_is(trains) -> None:
    s3 = trains.client("s3")
    s3.create_bucket(Bucket="theirs")
    s3.put_object(Bucket="theirs", Key="rows", Body=b"1")
    done(berth(*TRAIN, "--bucket", "theirs"))
    assert not asked(trains, "PutBucketPolicy")
    assert BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]


def test_in_another_region_the_bucket_has_its_location(trains) -> None:
    ran = done(berth(*TRAIN, "--region", "eu-west-1", "--dry-run"))
    made = next(one["request"] for one in ran.requests if one["operation"] == "CreateBucket")
    assert made["CreateBucketConfiguration"] == {"LocationConstraint": "eu-west-1"}


def test_a_failed_job_says_its_reason_what_to_do_and_how_its_log_ends(trains) -> None:
    trains.script("training-job", "*", outcome="failed", reason="AlgorithmError: exit code: 137", logs=["one", "killed"])
    ran = berth(*TRAIN)
    assert ran.exit_code == 1
    assert "AlgorithmError: exit code: 137" in ran.output
    assert "larger instance type" in ran.output
    assert "killed" in ran.output
    again = berth(*TRAIN)
    assert "--again" in again.output
    assert len(asked(trains, "CreateTrainingJob")) == 1


def test_a_stopped_job_is_not_registered_and_says_what_it_saved(trains) -> None:
    trains.script("training-job", "*", outcome="stopped")
    ran = berth(*TRAIN)
    assert ran.exit_code == 1
    assert "What it had saved is at s3://" in ran.output
    assert not asked(trains, "CreateModelPackage")


@pytest.mark.parametrize("verb", ["train", "tune", "batch"])
def test_stop_stops_the_job_that_goes_on(trains, verb: str) -> None:
    words = {"train": TRAIN, "tune": ("tune", *IMAGE), "batch": BATCH}[verb]
    none = berth(*words, "--stop")
    assert none.exit_code == 0
    assert "nothing is to be stopped" in none.output
    trains.looks(1_000)
    done(berth(*words, "--no-wait"))
    done(berth(*words, "--stop"))
    stops = {"train": "StopTrainingJob", "tune": "StopHyperParameterTuningJob", "batch": "StopTransformJob"}
    assert len(asked(trains, stops[verb])) == 1


def test_a_log_that_cant_be_read_stops_nothing(trains) -> None:
    trains.fail(1, "refused", times=50, operation="DescribeLogStreams")
    done(berth(*TRAIN))


REFUSALS = {
    "unknown knob": (("--hyperparameter", "max_itre=5"), "did you mean max_iter?"),
    "knob out of range": (("--hyperparameter", "seed=-1"), "seed is '-1'"),
    "subnets alone": (("--subnets", "subnet-1"), "no security groups"),
    "groups alone": (("--security-groups", "sg-1"), "no subnets"),
    "input mode": (("--input-mode", "Stream"), "File, FastFile, Pipe"),
    "distribution": (("--distribution", "Half"), "FullyReplicated, ShardedByS3Key"),
    "spot without time": (("--spot", "--max-wait-s", "60"), "T-28"),
    "month": (("--max-run-s", "3000000"), "T-30"),
    "channel's name": (("--channel", "a b=s3://b/c"), "T-19"),
    "channel's place": (("--channel", "training=nowhere"), "not here"),
    "bucket's place": (("--channel", "training=s3:///x"), "no place in S3"),
    "content type": (("--content-types", "test=text/csv"), "no such channel"),
    "shards": (("--training-count", "2", "--distribution", "ShardedByS3Key"), "estimator=lightgbm"),
    "another registry": (("--uri", f"docker.io/me/berth@{URI[-71:]}"), "T-8"),
    "no type": (("--training-type", "m5.large"), "ml.m5.large was expected"),
    "Arm": (("--training-type", "ml.m7g.large"), "is Arm"),
    "disks": (("--training-type", "ml.m5d.large", "--volume-key", "key"), "disks of its own"),
    "none": (("--training-count", "0"), "--training-count 1"),
    "profile": (("--profile", "nobody"), "nobody"),
}


@pytest.mark.parametrize(("flags", "why"), REFUSALS.values(), ids=REFUSALS)
def test_what_cant_be_trained_is_refused_with_the_reason_before_any_call(aws, flags: tuple[str, ...], why: str) -> None:
    assert why in refused(*TRAIN, *flags)
    assert aws.calls == []


def test_an_image_of_another_registry_is_reached_over_a_vpc(trains) -> None:
    done(berth(*TRAIN, *VPC, "--uri", f"registry.example/berth@{URI[-71:]}"))
    specification = asked(trains, "CreateTrainingJob")[0]["AlgorithmSpecification"]
    assert specification["TrainingImageConfig"] == {"TrainingRepositoryAccessMode": "Vpc"}


def test_a_role_of_the_stack_is_taken_where_none_is_set(trains) -> None:
    ran = berth("train", "--uri", URI)
    assert ran.exit_code == 1
    assert "--role" in ran.output
    outputs = {name: {"Value": f"{ROLE}-{name}"} for name in ("TrainingRoleArn", "HostingRoleArn")}
    template = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}, "Outputs": outputs}
    trains.client("cloudformation").create_stack(StackName="berth-roles", TemplateBody=json.dumps(template))
    done(berth("train", "--uri", URI))
    assert asked(trains, "CreateTrainingJob")[0]["RoleArn"] == f"{ROLE}-TrainingRoleArn"


# --dry-run


BATCH = ("batch", *IMAGE, "--batch-input", str(SAMPLE), "--batch-data", "s3://models/model.tar.gz")


@pytest.mark.parametrize("words", [TRAIN, ("tune", *IMAGE), BATCH, ("async",)], ids=lambda words: words[0])
def test_a_dry_run_changes_nothing_and_prints_what_is_asked_later(trains, words: tuple[str, ...]) -> None:
    before = len(trains.calls)
    ran = done(berth(*words, "--dry-run"))
    assert not [call for call in trains.calls[before:] if call.operation.startswith(("Create", "Put", "Update", "Invoke"))]
    assert ran.requests
    if words[0] == "async":
        return
    done(berth(*words))
    sent = [call for call in trains.calls if call.operation.startswith(("Create", "PutObject"))]
    printed = [(one["operation"], one["request"]) for one in ran.requests if one["service"] == "sagemaker"]
    assert printed == [(call.operation, call.request) for call in sent if call.service == "sagemaker"][: len(printed)]


def test_a_dry_run_over_a_finished_job_prints_its_registration(trains) -> None:
    done(berth(*TRAIN, "--no-wait"))
    for _ in range(3):
        trains.client("sagemaker").describe_training_job(
            TrainingJobName=asked(trains, "CreateTrainingJob")[0]["TrainingJobName"]
        )
    ran = done(berth(*TRAIN, "--dry-run"))
    assert [one["operation"] for one in ran.requests] == [
        "CreateModelPackageGroup",
        "PutObject",
        "PutObject",
        "CreateModelPackage",
    ]
    assert not asked(trains, "CreateModelPackage")


# The model registry


@pytest.fixture
def registered(trains) -> dict[str, Any]:
    done(berth(*TRAIN))
    (request,) = asked(trains, "CreateModelPackage")
    return request


def test_a_version_has_the_metrics_of_the_report(trains, registered, model_dir: Path) -> None:
    source = registered["ModelMetrics"]["ModelQuality"]["Statistics"]
    stored = json.loads(objects(trains)[source["S3Uri"].removeprefix(f"s3://{BUCKET}/")])
    assert stored == json.loads((model_dir / "report" / "metrics.json").read_text())
    assert registered["DriftCheckBaselines"]["ModelQuality"]["Statistics"] == source


def test_a_versions_card_is_the_reports_with_the_places_and_within_the_schema(registered) -> None:
    content = registered["ModelCard"]["ModelCardContent"]
    card = json.loads(content)
    assert len(content) <= 100_000
    assert {"model_overview", "intended_uses", "training_details", "evaluation_details"} <= card.keys()
    assert card["model_overview"]["model_artifact"] == [registered["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]]
    details = card["training_details"]["training_job_details"]
    assert details.pop("training_environment") == {"container_image": [URI]}
    (place,) = details.pop("training_datasets")
    assert place.startswith(f"s3://{BUCKET}/berth/data/training-")
    jsonschema.validate(card, CARD_SCHEMA)


def test_a_version_tells_image_data_and_job(registered, manifest: dict) -> None:
    told = registered["CustomerMetadataProperties"]
    assert len(told) <= 50
    assert all(0 < len(value) <= 256 for value in told.values())
    assert told["data-sha256"] == manifest["data"]["sha256"]
    assert told["image-digest"] == URI.partition("@")[2] == registered["InferenceSpecification"]["Containers"][0]["ImageDigest"]
    assert told["validation:rmse"] == f"{manifest['metrics']['validation:rmse']:.6g}"


def test_a_versions_sample_payload_is_rows_that_the_model_answers(trains, registered, endpoint) -> None:
    place = registered["SamplePayloadUrl"].removeprefix(f"s3://{BUCKET}/")
    with tarfile.open(fileobj=io.BytesIO(objects(trains)[place])) as archive:
        file = archive.extractfile("payload.csv")
        assert file
        body = file.read()
    answer = endpoint.invoke(body, "text/csv")
    assert answer.status == 200
    assert len(answer.body.splitlines()) == 3


def test_a_versions_instance_types_and_tags_are_what_the_api_takes(trains, registered) -> None:
    specification, shape = registered["InferenceSpecification"], SAGEMAKER.shape_for("InferenceSpecification")
    for name in ("SupportedRealtimeInferenceInstanceTypes", "SupportedTransformInstanceTypes"):
        assert set(specification[name]) <= set(shape.members[name].member.enum)
    assert "Tags" not in registered  # a version has those of its group
    assert tags(trains, "arn:aws:sagemaker:us-east-1:123456789012:model-package-group/berth") == {"berth:project": "berth"}


def test_what_a_version_says_it_takes_and_answers_is_what_serve_reads_and_writes() -> None:
    from serving.decoders import DECODERS
    from serving.encoders import ENCODERS

    assert set(SERVED) == set(DECODERS)
    assert set(ANSWERED) == set(ENCODERS)


@pytest.mark.parametrize("kind", ["dropped", "lost"])
def test_a_version_whose_answer_was_lost_is_not_made_twice(trains, kind: str) -> None:
    trains.fail(1, kind, times=4, operation="CreateModelPackage")
    berth(*TRAIN)
    done(berth(*TRAIN))
    listed = trains.client("sagemaker").list_model_packages(ModelPackageGroupName="berth")["ModelPackageSummaryList"]
    assert len(listed) == 1


def test_a_model_without_a_manifest_is_registered_with_what_is_known(trains) -> None:
    trains.script("training-job", "*", metrics={"validation:rmse": 1.0})
    said = done(berth(*TRAIN)).output
    assert "has no manifest.json" in said
    assert "ModelMetrics" not in asked(trains, "CreateModelPackage")[0]


@pytest.mark.parametrize(
    "broken",
    [b"no archive", packed(SAMPLE)[:900], b""],
    ids=["not gzip", "cut off", "empty"],
)
def test_what_is_no_model_is_not_registered(trains, broken: bytes) -> None:
    trains.script("training-job", "*", artifact=broken)
    ran = berth(*TRAIN)
    assert ran.exit_code == 1
    assert "is no model that `train` wrote" in ran.output
    assert not asked(trains, "CreateModelPackage")


def test_a_link_in_place_of_the_manifest_is_not_followed(trains) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        entry = tarfile.TarInfo("manifest.json")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    trains.script("training-job", "*", artifact=whole.getvalue())
    ran = berth(*TRAIN)
    assert ran.exit_code == 1
    assert "no regular file" in ran.output


def test_a_manifest_beyond_all_measure_is_not_read(trains) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        entry = tarfile.TarInfo("manifest.json")
        entry.size = MOST_BYTES + 1
        archive.addfile(entry, io.BytesIO(b" " * entry.size))
    trains.script("training-job", "*", artifact=whole.getvalue())
    ran = berth(*TRAIN)
    assert ran.exit_code == 1
    assert "8,388,608 at most are read" in ran.output


# approve


def test_approve_says_what_and_is_said_once(trains, registered) -> None:
    said = done(berth("approve", "--because", "better than the last")).output
    assert "validation:rmse: 4.95886" in said
    assert said.endswith("Next: python -m deploy endpoint\n")
    assert package(trains)["ApprovalDescription"] == "better than the last"
    assert "is Approved already" in done(berth("approve", "1")).output
    assert len(asked(trains, "UpdateModelPackage")) == 1
    done(berth("approve", "1", "--reject"))
    assert package(trains)["ModelApprovalStatus"] == "Rejected"


@pytest.mark.parametrize(("version", "why"), [("2", "no version '2'. There are 1"), ("oldest", "no version 'oldest'")])
def test_approve_names_the_versions_where_that_one_is_not_there(registered, version: str, why: str) -> None:
    ran = berth("approve", version)
    assert ran.exit_code == 1
    assert why in ran.output


def test_a_group_without_versions_says_train_first(aws) -> None:
    ran = berth("approve")
    assert ran.exit_code == 1
    assert "python -m deploy train" in ran.output


def test_approve_at_once_approves_what_is_registered_and_what_was(trains) -> None:
    done(berth(*TRAIN))
    said = done(berth(*TRAIN, "--approve")).output
    assert package(trains)["ModelApprovalStatus"] == "Approved"
    assert said.endswith("Next: python -m deploy endpoint\n")


# tune


def test_tuning_searches_one_estimator_and_registers_the_best(trains, artifact: bytes) -> None:
    trains.script("hyper-parameter-tuning-job", "*", objectives=[5.0, 3.0, 4.0], artifact=artifact)
    said = done(berth("tune", *IMAGE, *VPC, "--isolation", "--jobs", "3", "--estimator", "ridge")).output
    (request,) = asked(trains, "CreateHyperParameterTuningJob")
    config, job = request["HyperParameterTuningJobConfig"], request["TrainingJobDefinition"]
    assert len(request["HyperParameterTuningJobName"]) <= 32
    assert config["ResourceLimits"] == {"MaxNumberOfTrainingJobs": 3, "MaxParallelTrainingJobs": 2}
    assert [one["Name"] for one in config["ParameterRanges"]["ContinuousParameterRanges"]] == ["alpha"]
    assert job["StaticHyperParameters"] == {"estimator": "ridge"}
    assert job["EnableNetworkIsolation"]
    assert job["VpcConfig"]
    assert request["Tags"] == [{"Key": "berth:project", "Value": "berth"}]
    best = asked(trains, "CreateModelPackage")[0]["CustomerMetadataProperties"]["training-job"]
    assert best.startswith(request["HyperParameterTuningJobName"] + "-002")
    assert "alpha:" in said
    done(berth("tune", *IMAGE, *VPC, "--isolation", "--jobs", "3", "--estimator", "ridge"))
    assert len(asked(trains, "CreateHyperParameterTuningJob")) == len(asked(trains, "CreateModelPackage")) == 1


def test_what_is_set_is_not_searched(trains) -> None:
    done(berth("tune", *IMAGE, "--hyperparameter", "max_iter=60", "--hyperparameter", "seed=7"))
    (request,) = asked(trains, "CreateHyperParameterTuningJob")
    config = request["HyperParameterTuningJobConfig"]
    searched = [one["Name"] for found in config["ParameterRanges"].values() for one in found]
    assert "max_iter" not in searched
    assert searched
    assert config["RandomSeed"] == 7
    assert request["TrainingJobDefinition"]["StaticHyperParameters"]["max_iter"] == "60"


NOT_TUNED = {
    "hyperband": (("--search", "Hyperband"), "T-38"),
    "grid": (("--search", "Grid"), "Grid searches categories alone"),
    "unknown": (("--search", "Luck"), "Bayesian, Random, Grid"),
    "estimator": (("--estimator", "auto"), "auto"),
    "two estimators": (("--hyperparameter", "estimator=ridge"), "estimator is ridge"),
    "nothing left": (("--estimator", "ridge", "--hyperparameter", "alpha=1"), "is left to search"),
    "parallel": (("--jobs", "2", "--parallel", "3"), "--parallel lower"),
    "another registry": (("--uri", f"docker.io/me/berth@{URI[-71:]}", *VPC), "TrainingImageConfig"),
}


@pytest.mark.parametrize(("flags", "why"), NOT_TUNED.values(), ids=NOT_TUNED)
def test_what_cant_be_tuned_is_refused_with_the_reason_before_any_call(aws, flags: tuple[str, ...], why: str) -> None:
    assert why in refused("tune", *IMAGE, *flags)
    assert aws.calls == []


def test_a_search_that_failed_says_why(trains) -> None:
    trains.script("hyper-parameter-tuning-job", "*", outcome="failed", reason="No training job succeeded.")
    ran = berth("tune", *IMAGE)
    assert ran.exit_code == 1
    assert "No training job succeeded." in ran.output


# batch


def test_batch_answers_a_folder_with_the_approved_model(trains) -> None:
    done(berth(*TRAIN, "--approve"))
    said = done(berth("batch", *IMAGE, *VPC, "--isolation", "--batch-input", str(SAMPLE), "--bad-rows", "placeholder")).output
    (model,), (job,) = asked(trains, "CreateModel"), asked(trains, "CreateTransformJob")
    assert model["PrimaryContainer"] == {
        "Image": URI,
        "ModelDataUrl": model["PrimaryContainer"]["ModelDataUrl"],
        "Mode": "SingleModel",
    }
    assert model["PrimaryContainer"]["ModelDataUrl"].endswith("/output/model.tar.gz")
    assert model["EnableNetworkIsolation"]
    assert model["VpcConfig"]
    assert job["ModelName"] == model["ModelName"]
    assert job["Environment"] == {"BAD_ROWS": "null"}
    assert job["MaxPayloadInMB"] * job["MaxConcurrentTransforms"] <= 100
    assert job["TransformInput"]["SplitType"] == job["TransformOutput"]["AssembleWith"] == "Line"
    assert job["ModelClientConfig"] == {"InvocationsTimeoutInSeconds": 3600, "InvocationsMaxRetries": 3}
    assert "boston_house_prices.csv.out" in said
    assert [key for key in objects(trains) if key.endswith(".out")] == [
        f"berth/batch/{job['TransformJobName']}/boston_house_prices.csv.out"
    ]


def test_batch_twice_is_one_job_and_again_is_another(trains) -> None:
    for flags in ((), (), ("--again",)):
        done(berth(*BATCH, *flags))
    assert len(asked(trains, "CreateTransformJob")) == 2
    assert len(asked(trains, "CreateModel")) == 1


def test_answers_behind_their_records(trains, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(sample_body("text/csv"))
    flags = ("--batch-input", str(tmp_path / "rows.csv"), "--join-input", "--batch-output", "s3://answers/here")
    trains.client("s3").create_bucket(Bucket="answers")
    done(berth(*BATCH[:5], *BATCH[7:], *flags))
    (job,) = asked(trains, "CreateTransformJob")
    assert job["DataProcessing"] == {"JoinSource": "Input"}
    assert job["TransformInput"]["ContentType"] == job["TransformOutput"]["Accept"]
    assert job["TransformOutput"]["S3OutputPath"] == "s3://answers/here"


def test_a_failed_batch_names_the_files_without_answers_and_the_remedy_for_bad_rows(trains, tmp_path: Path) -> None:
    for name in ("good.csv", "bad.csv"):
        (tmp_path / name).write_bytes(sample_body("text/csv"))
    place = trains.client("s3")
    place.create_bucket(Bucket="answers")
    place.put_object(Bucket="answers", Key="here/good.csv.out", Body=b"1\n")
    trains.script("transform-job", "*", outcome="failed", reason="ClientError: 400")
    ran = berth(*BATCH, "--batch-input", str(tmp_path), "--batch-output", "s3://answers/here")
    assert ran.exit_code == 1
    (said,) = (one for one in ran.output.splitlines() if one.startswith("Without answers: "))
    assert said.endswith("/bad.csv.")
    assert "good" not in said
    assert "--bad-rows placeholder" in ran.output


NO_BATCH = {
    "too much": (("--transforms", "20"), "H-26"),
    "no payload": (("--payload-mb", "0"), "H-26"),
    "split": (("--split", "RecordIO"), "Line, None"),
    "strategy": (("--record-strategy", "All"), "MultiRecord, SingleRecord"),
    "bad rows": (("--bad-rows", "drop"), "fail, placeholder"),
    "join whole": (("--join-input", "--split", "None"), "H-29"),
    "join numbers": (("--join-input", "--record-type", "application/x-npy"), "H-29"),
    "join header": (("--join-input", "--batch-input", str(SAMPLE / "boston_house_prices.csv")), "H-30"),
    "nowhere": (("--batch-input", "nowhere.csv"), "not here"),
    "another registry": (("--uri", f"docker.io/me/berth@{URI[-71:]}", *VPC), "ECR alone"),
    "nothing": (("--batch-input", ""), "No input is set"),
}


@pytest.mark.parametrize(("flags", "why"), NO_BATCH.values(), ids=NO_BATCH)
def test_what_cant_be_batched_is_refused_with_the_reason_before_any_call(aws, flags: tuple[str, ...], why: str) -> None:
    assert why in refused(*BATCH, *flags)
    assert aws.calls == []


def test_the_newest_model_is_the_approved_one_else_the_last_trained_but_none_that_was_rejected(trains) -> None:
    def chosen() -> str:
        return done(berth("batch", *IMAGE, "--batch-input", str(SAMPLE), "--no-wait")).output.partition("\n")[0]

    for seed in ("1", "2"):
        done(berth(*TRAIN, "--hyperparameter", f"seed={seed}"))
    first, second = (job["TrainingJobName"] for job in asked(trains, "CreateTrainingJob"))
    assert chosen() == f"Model: that of training job {second}; no version of berth is approved."
    done(berth("approve", "2", "--reject"))
    assert first in chosen()
    done(berth("approve", "1", "--reject"))
    ran = berth("batch", *IMAGE, "--batch-input", str(SAMPLE))
    assert ran.exit_code == 1
    assert "python -m deploy train" in ran.output
    done(berth("approve", "1"))
    assert chosen() == "Model: version 1 of berth, approved."


# invoke and async


@pytest.fixture
def hosted(trains, endpoint) -> Callable[..., Any]:
    """A function that makes an endpoint, behind which a real server of the model answers."""

    def host(**more: Any) -> Any:
        sagemaker = trains.client("sagemaker")
        sagemaker.create_model(
            ModelName="m", PrimaryContainer={"Image": URI, "ModelDataUrl": "s3://models/model.tar.gz"}, ExecutionRoleArn=ROLE
        )
        variant = {"VariantName": "one", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant], **more)
        sagemaker.create_endpoint(EndpointName="berth", EndpointConfigName="c")
        trains.looks(1)
        for _ in range(2):
            sagemaker.describe_endpoint(EndpointName="berth")
        trains.serve("berth", endpoint.program.url)
        return trains

    return host


@pytest.mark.parametrize("content_type", BODIES)
def test_invoke_sends_sample_rows_and_prints_the_models_answer_alone(hosted, endpoint, content_type: str) -> None:
    hosted()
    ran = done(berth("invoke", "--content-type", content_type))
    direct = endpoint.invoke(sample_body(content_type), content_type)
    assert ran.stdout.strip() == direct.body.decode().strip()
    assert "variant one" in ran.output


def test_invoke_takes_a_file_standard_input_and_another_answers_type(hosted, tmp_path: Path) -> None:
    hosted()
    (tmp_path / "row.csv").write_bytes(sample_body("text/csv").splitlines()[0])
    from_file = done(berth("invoke", "--payload", str(tmp_path / "row.csv"), "--accept", "application/json")).stdout
    piped = done(berth("invoke", "--payload", "-", "--accept", "application/json", given=(tmp_path / "row.csv").read_bytes()))
    assert from_file == piped.stdout
    assert len(json.loads(from_file)["predictions"]) == 1


def test_the_models_own_words_reach_the_caller(hosted) -> None:
    hosted()
    ran = berth("invoke", "--payload", "-", given=b"1,2\n")
    assert ran.exit_code == 1
    assert "The model answered 400" in ran.output
    assert "takes 6" in ran.output
    assert "{" not in ran.output


@pytest.mark.parametrize("verb", ["invoke", "async"])
def test_an_endpoint_that_is_not_there_says_what_makes_one(aws, verb: str) -> None:
    ran = berth(verb)
    assert ran.exit_code == 1
    assert "python -m deploy endpoint" in ran.output


def test_a_body_that_no_endpoint_takes_is_not_sent(aws, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"1\n" * (13 * 2**20))
    assert "H-12" in refused("invoke", "--payload", str(tmp_path / "large"))
    assert "can't be read" in refused("invoke", "--payload", str(tmp_path / "none"))
    assert "--payload FILE" in berth("invoke", "--content-type", "image/png").output
    assert aws.calls == []


ASYNC = {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://answers/out", "S3FailurePath": "s3://answers/bad"}}}


def test_async_waits_for_the_answer_and_prints_it_last(hosted, endpoint) -> None:
    aws = hosted(**ASYNC)
    aws.client("s3").create_bucket(Bucket="answers")
    ran = done(berth("async"))
    direct = endpoint.invoke(sample_body("text/csv"), "text/csv")
    assert ran.stdout.endswith(f"\n{direct.text.strip()}\n")
    assert "s3://answers/out/" in ran.output


def test_async_says_what_went_wrong(hosted) -> None:
    aws = hosted(**ASYNC)
    aws.client("s3").create_bucket(Bucket="answers")
    ran = berth("async", "--payload", "-", given=b"1,2\n")
    assert ran.exit_code == 1
    assert "takes 6" in ran.output


def test_async_without_waiting_says_where_the_answer_will_be(hosted) -> None:
    aws = hosted(**ASYNC)
    aws.client("s3").create_bucket(Bucket="answers")
    place = done(berth("async", "--no-wait")).output.rpartition("Next: aws s3 cp s3://answers/")[2].removesuffix(" -\n")
    until = time.monotonic() + 20
    while place not in objects(aws, "answers"):
        assert time.monotonic() < until


def test_sample_rows_have_the_declarations_columns(tmp_path: Path) -> None:
    rows = sample_rows()
    assert [list(row) for row in rows] == [DECLARATION.feature_names] * 3
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(Exception, match="has no CSV file with a header of CHAS"):
        sample_rows(tmp_path)
