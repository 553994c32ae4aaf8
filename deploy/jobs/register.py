"""The model registry: each trained model is a version of the project's package group, with its metrics and its card (H-45)."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

import click

from contract.media import ANSWERED, SERVED
from deploy.cloud import DRY, Cloud, Request, Response
from deploy.jobs.approve import decide
from deploy.jobs.artifact import Artifact, read_artifact
from deploy.jobs.bucket import put
from deploy.jobs.models import summaries
from deploy.jobs.samples import sample_body
from deploy.names import checked
from deploy.settings import Network, Package
from model import DECLARATION

REALTIME = ("ml.m5.large", "ml.m5.xlarge", "ml.c6i.large", "ml.c6i.xlarge")
TRANSFORM = ("ml.m5.large", "ml.m5.xlarge", "ml.c6i.large", "ml.c6i.xlarge")
"""What a version says it runs on; any instance with a CPU does."""
MOST_METADATA, LONGEST_METADATA, LONGEST_TOKEN = 50, 256, 36
JSON = "application/json"


def next_step(package: Package) -> str:
    """Return the command that follows on a registered version."""
    return f"Next: python -m deploy {'endpoint' if package.approve else 'approve'}"


def register(cloud: Cloud, network: Network, package: Package, job: Response) -> str:
    """Make a training job's model a version of the package group, once, and return its ARN.

    Args:
        cloud: the account.
        network: the key that encrypts.
        package: the group, and whether the version is approved at once.
        job: what AWS tells of the completed training job.
    """
    group = _group(cloud, package)
    found = _version(cloud, group, job)
    if found is None:
        request = _request(cloud, network, package, job)
        what = f"Register the model of {job['TrainingJobName']} as a version of {group}"
        found = cloud.make(
            "sagemaker",
            "create_model_package",
            what,
            lambda: _version(cloud, group, job),
            ModelPackageGroupName=group,
            ClientToken=hashlib.sha256(f"{group} {job['TrainingJobArn']}".encode()).hexdigest()[:LONGEST_TOKEN],
            **request,
        )
    elif package.approve:
        decide(cloud, str(found["ModelPackageArn"]), "Approved", "Approved when it was registered.")
    arn = str(found.get("ModelPackageArn", ""))
    click.echo(f"Version: {arn}" if arn else "Version: not made yet")
    return arn


def rehearse(cloud: Cloud, network: Network, package: Package, job: Response | None) -> None:
    """Print what would be asked of the model registry; a version's request follows from what training leaves."""
    if job and job["TrainingJobStatus"] == "Completed":
        register(cloud, network, package, job)
    else:
        _group(cloud, package)
        click.echo("The version is registered when there is a model: its request follows from what training leaves.")
    click.echo(DRY)


def _group(cloud: Cloud, package: Package) -> str:
    group = checked(package.group or cloud.account.name)
    cloud.make(
        "sagemaker",
        "create_model_package_group",
        f"Create model package group {group}",
        lambda: cloud.find("sagemaker", "describe_model_package_group", ModelPackageGroupName=group),
        ModelPackageGroupName=group,
        ModelPackageGroupDescription=DECLARATION.title,
    )
    return group


def _version(cloud: Cloud, group: str, job: Response) -> Response | None:
    """Return the version that a job's model is, by its description's beginning."""
    begins = f"Training job {job['TrainingJobName']}:"
    listed = summaries(cloud, group)
    return next((one for one in listed if str(one.get("ModelPackageDescription", "")).startswith(begins)), None)


def _request(cloud: Cloud, network: Network, package: Package, job: Response) -> Request:
    data = str(job["ModelArtifacts"]["S3ModelArtifacts"])
    image = str(job["AlgorithmSpecification"]["TrainingImage"])
    artifact = read_artifact(cloud, data)
    beside = f"{data.removesuffix('/output/model.tar.gz')}/registry"
    put(cloud, network, f"{beside}/samples.tar.gz", _samples(artifact))
    container = {"Image": image, "ModelDataUrl": data, **({"ImageDigest": digest} if (digest := _digest(image)) else {})}
    return {
        "ModelPackageDescription": f"Training job {job['TrainingJobName']}: {DECLARATION.title}"[:1024],
        "InferenceSpecification": {
            "Containers": [container],
            "SupportedContentTypes": list(SERVED),
            "SupportedResponseMIMETypes": list(ANSWERED),
            "SupportedRealtimeInferenceInstanceTypes": list(REALTIME),
            "SupportedTransformInstanceTypes": list(TRANSFORM),
        },
        "ModelApprovalStatus": "Approved" if package.approve else "PendingManualApproval",
        "MetadataProperties": _origin(artifact, job),
        "CustomerMetadataProperties": _metadata(artifact, job),
        "ModelCard": {"ModelCardContent": _card(artifact, job), "ModelCardStatus": "Draft"},
        "Domain": "MACHINE_LEARNING",
        "Task": "CLASSIFICATION" if DECLARATION.target.kind == "class" else "REGRESSION",
        "SamplePayloadUrl": f"{beside}/samples.tar.gz",
        **_quality(cloud, network, artifact, beside),
        **({"SecurityConfig": {"KmsKeyId": network.output_key}} if network.output_key else {}),
    }


def _quality(cloud: Cloud, network: Network, artifact: Artifact, beside: str) -> dict[str, Any]:
    """Return the metrics of the held-out rows, and the same as the baseline that later ones are compared with."""
    if not artifact.quality:
        return {}
    put(cloud, network, f"{beside}/quality.json", json.dumps(artifact.quality, indent=1).encode())
    source = {"ContentType": JSON, "S3Uri": f"{beside}/quality.json"}
    return {
        "ModelMetrics": {"ModelQuality": {"Statistics": source}},
        "DriftCheckBaselines": {"ModelQuality": {"Statistics": source}},
    }


def _card(artifact: Artifact, job: Response) -> str:
    """Return the report's card with what only AWS knows: where model, image and data are."""
    card: dict[str, Any] = json.loads(json.dumps(artifact.card)) or {
        "intended_uses": {"purpose_of_model": DECLARATION.about[:2048]}
    }
    card.setdefault("model_overview", {})["model_artifact"] = [job["ModelArtifacts"]["S3ModelArtifacts"]]
    details = card.setdefault("training_details", {}).setdefault("training_job_details", {})
    details["training_arn"] = job["TrainingJobArn"]
    details["training_environment"] = {"container_image": [job["AlgorithmSpecification"]["TrainingImage"]]}
    places = [channel["DataSource"].get("S3DataSource", {}).get("S3Uri", "") for channel in job.get("InputDataConfig", [])]
    details["training_datasets"] = [place for place in places if place][:15]
    card.setdefault("evaluation_details", [])
    return json.dumps(card, ensure_ascii=False)


def _origin(artifact: Artifact, job: Response) -> dict[str, str]:
    revision = str(artifact.manifest.get("origin", {}).get("image_revision", ""))
    return {"GeneratedBy": str(job["TrainingJobArn"]), **({"CommitId": revision} if revision else {})}


def _metadata(artifact: Artifact, job: Response) -> dict[str, str]:
    """Return what tells one version from another, in a list."""
    manifest: Mapping[str, Any] = artifact.manifest
    told = {
        "training-job": job["TrainingJobName"],
        "image-digest": _digest(str(job["AlgorithmSpecification"]["TrainingImage"])),
        "image-revision": manifest.get("origin", {}).get("image_revision", ""),
        "data-sha256": manifest.get("data", {}).get("sha256", ""),
        "estimator": manifest.get("trained_with", {}).get("estimator", ""),
        **{name: f"{value:.6g}" for name, value in manifest.get("metrics", {}).items()},
    }
    kept = [(name, str(value)[:LONGEST_METADATA]) for name, value in told.items() if value]
    return dict(kept[:MOST_METADATA])


def _digest(image: str) -> str:
    name, at, digest = image.partition("@")
    return digest if at and name else ""


def _samples(artifact: Artifact) -> bytes:
    """Return SamplePayloadUrl's archive: the rows that training stored, as CSV; the same rows give the same bytes."""
    rows = [sample["row"] for sample in artifact.manifest.get("samples", [])]
    body = sample_body("text/csv", rows)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("payload.csv")
        member.size = len(body)
        archive.addfile(member, io.BytesIO(body))
    return packed.getvalue()
