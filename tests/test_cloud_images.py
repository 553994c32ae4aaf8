"""ECR of the AWS that stands in, with a real registry behind it: digests, tags, scans, deletes."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from datetime import UTC, datetime

import pytest
from cloudy import ROLE, make_config, push, refusal, settle

# ECR before a real registry


@pytest.fixture
def repository(ecr_aws):
    """A repository of a name that no other test has pushed to, of immutable tags, scanned on push."""
    name = f"berth-{time.monotonic_ns()}"
    ecr_aws.client("ecr").create_repository(
        repositoryName=name, imageTagMutability="IMMUTABLE", imageScanningConfiguration={"scanOnPush": True}
    )
    return name


def test_repositories_stand_in_the_registry_and_its_token_is_valid(ecr_aws, registry, repository) -> None:
    client = ecr_aws.client("ecr")
    described = client.describe_repositories(repositoryNames=[repository])["repositories"][0]
    assert described["repositoryUri"] == f"{registry}/{repository}"
    token = client.get_authorization_token()["authorizationData"][0]
    assert token["proxyEndpoint"] == f"http://{registry}"
    assert token["expiresAt"] > datetime.now(UTC)
    assert b64decode(token["authorizationToken"]).startswith(b"AWS:")


def test_digests_sizes_and_tags_are_the_registrys(ecr_aws, registry, repository) -> None:
    client = ecr_aws.client("ecr")
    digest, other = push(registry, repository, "1", b"one"), push(registry, repository, "2", b"other")
    assert push(registry, repository, "also-1", b"one") == digest
    found = client.describe_images(repositoryName=repository, imageIds=[{"imageTag": "1"}])["imageDetails"]
    assert [(each["imageDigest"], each["imageTags"]) for each in found] == [(digest, ["1", "also-1"])]
    assert found[0]["imageSizeInBytes"] == 3 + len(b'{"os": "linux", "architecture": "amd64"}')
    assert found[0]["imageManifestMediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    listed = client.list_images(repositoryName=repository)["imageIds"]
    assert {(each["imageTag"], each["imageDigest"]) for each in listed} == {("1", digest), ("also-1", digest), ("2", other)}
    one = client.batch_get_image(repositoryName=repository, imageIds=[{"imageDigest": digest}, {"imageTag": "none"}])
    assert json.loads(one["images"][0]["imageManifest"])["schemaVersion"] == 2
    assert one["failures"][0]["failureCode"] == "ImageNotFound"


def test_images_and_repositories_that_are_missing_are_said_to_be(ecr_aws, repository) -> None:
    client = ecr_aws.client("ecr")
    missing = refusal(client.describe_images, repositoryName=repository, imageIds=[{"imageTag": "none"}])
    assert missing[0] == "ImageNotFoundException"
    assert refusal(client.describe_images, repositoryName="none")[0] == "RepositoryNotFoundException"
    assert (
        refusal(client.describe_image_scan_findings, repositoryName=repository, imageId={"imageTag": "none"})[0]
        == "ImageNotFoundException"
    )


def test_a_manifest_gets_a_further_tag_but_no_tag_another_manifest(ecr_aws, registry, repository) -> None:
    client = ecr_aws.client("ecr")
    digest = push(registry, repository, "1", b"one")
    text = client.batch_get_image(repositoryName=repository, imageIds=[{"imageTag": "1"}])["images"][0]["imageManifest"]
    image = client.put_image(repositoryName=repository, imageManifest=text, imageTag="2")["image"]["imageId"]
    assert image == {"imageDigest": digest, "imageTag": "2"}
    found = refusal(client.put_image, repositoryName=repository, imageManifest=text, imageTag="2")
    assert found[0] == "ImageTagAlreadyExistsException"


def test_a_scan_finds_what_was_given(ecr_aws, registry, repository) -> None:
    client = ecr_aws.client("ecr")
    digest = push(registry, repository, "1")
    described = client.describe_image_scan_findings(repositoryName=repository, imageId={"imageTag": "1"})
    assert (described["imageScanStatus"]["status"], described["imageScanFindings"]["findings"]) == ("COMPLETE", [])
    given = {"name": "CVE-2026-1", "severity": "HIGH", "attributes": [{"key": "package_name", "value": "openssl"}]}
    ecr_aws.findings(repository, digest, [given])
    described = client.describe_image_scan_findings(repositoryName=repository, imageId={"imageDigest": digest})
    assert described["imageScanFindings"]["findings"] == [given]
    assert described["imageScanFindings"]["findingSeverityCounts"] == {"HIGH": 1}


def test_what_is_not_scanned_on_push_has_no_findings_until_a_scan_is_begun(ecr_aws, registry) -> None:
    client, name = ecr_aws.client("ecr"), f"berth-{time.monotonic_ns()}"
    client.create_repository(repositoryName=name)
    push(registry, name, "1")
    request = {"repositoryName": name, "imageId": {"imageTag": "1"}}
    assert refusal(client.describe_image_scan_findings, **request)[0] == "ScanNotFoundException"
    client.start_image_scan(**request)
    client.get_waiter("image_scan_complete").wait(**request, WaiterConfig={"Delay": 0.05, "MaxAttempts": 5})


def test_images_are_deleted_from_the_registry_and_a_full_repository_only_by_force(ecr_aws, registry, repository) -> None:
    client = ecr_aws.client("ecr")
    push(registry, repository, "1", b"one")
    push(registry, repository, "2", b"two")
    gone = client.batch_delete_image(repositoryName=repository, imageIds=[{"imageTag": "1"}, {"imageTag": "none"}])
    assert [(each["imageTag"],) for each in gone["imageIds"]] == [("1",)]
    assert [each["imageTag"] for each in client.list_images(repositoryName=repository)["imageIds"]] == ["2"]
    assert refusal(client.delete_repository, repositoryName=repository)[0] == "RepositoryNotEmptyException"
    client.delete_repository(repositoryName=repository, force=True)
    assert refusal(client.list_images, repositoryName=repository)[0] == "RepositoryNotFoundException"


def test_an_endpoint_tells_the_digest_of_the_image_it_runs(ecr_aws, registry, repository) -> None:
    digest = push(registry, repository, "1")
    client = ecr_aws.client("sagemaker")
    image = f"{registry}/{repository}:1"
    client.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": image})
    make_config(ecr_aws, "c", "m")
    client.create_endpoint(EndpointName="e", EndpointConfigName="c")
    found = settle(ecr_aws, "describe_endpoint", EndpointName="e")["ProductionVariants"][0]["DeployedImages"][0]
    assert (found["SpecifiedImage"], found["ResolvedImage"]) == (image, f"{registry}/{repository}@{digest}")
