"""What is sold, as CreateAlgorithm and CreateModelPackage take it: from the declaration and a few places, and nothing asked.

The same declaration and the same places give the same bytes. Whether AWS would take it is what deploy/market/rules.py judges.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from contract.declaration import Declaration
from contract.job import TRAINING
from contract.media import ANSWERED, CSV, SERVED
from contract.metrics import Metric
from contract.tuning import training_specification
from deploy.cloud import Request
from deploy.names import fingerprint
from deploy.settings import Texts

INSTANCES = ("ml.m5.large", "ml.m5.xlarge", "ml.m5.2xlarge", "ml.c5.xlarge", "ml.c5.2xlarge", "ml.c6i.xlarge", "ml.c6i.2xlarge")
"""What a product says it trains and answers on, unless told; any instance with a CPU of amd64 does."""
PROFILE = "validation"
"""The one profile (M-5)."""
LONGEST_RUN_S = 3_600
"""Of the validation's training job; the sample takes seconds."""
VOLUME_GB = 30
METERING = "BERTH_METERING_DIMENSION"
"""What `serve` counts answered rows under, where it is set (H-41)."""
LONGEST_ABOUT = 1_024
"""Of a description."""
PRODUCT, COLUMNS, REQUEST = "berth:product", "berth:columns", "berth:request"
"""Tags of what is sold: its product; fingerprints of what it takes and answers, which no other member says, and of all that was
asked for, since AWS may tell it in other words."""


@dataclass(frozen=True)
class Offer:
    """A version of a product, and where its parts are."""

    product: str
    release: str
    """Such as 1.2.0."""
    image: str
    """In ECR, with its tag (M-8)."""
    digest: str
    """sha256:.. of the same."""
    role: str
    """ARN of the role that the validation's jobs run as."""
    data: str
    """s3:// of a folder with the rows that the validation trains on; buyers can see it (M-5)."""
    records: str
    """s3:// of a folder with the rows that it asks answers for."""
    outputs: str
    """s3:// prefix of what its jobs write."""
    training_types: Texts = INSTANCES
    realtime_types: Texts = INSTANCES
    transform_types: Texts = INSTANCES
    validation_type: str = INSTANCES[0]
    metering: str = ""
    """The dimension that answered rows are counted under; empty counts none."""

    @property
    def name(self) -> str:
        """What the version is called."""
        return version_name(self.product, self.release)


def version_name(product: str, release: str) -> str:
    """Return what a version of a product is called: dots can't stand in a name (H-44)."""
    return f"{product}-{re.sub('[^A-Za-z0-9]+', '-', release)}"


def algorithm_request(declaration: Declaration, metrics: tuple[Metric, ...], offer: Offer) -> Request:
    """Return CreateAlgorithm's request (M-1 to M-5)."""
    request = {
        "AlgorithmName": offer.name,
        "AlgorithmDescription": described(declaration),
        "TrainingSpecification": {
            "TrainingImage": offer.image,
            "TrainingImageDigest": offer.digest,
            "SupportedTrainingInstanceTypes": list(offer.training_types),
            **training_specification(declaration, metrics),
        },
        "InferenceSpecification": _inference(offer, {}),
        "ValidationSpecification": {
            "ValidationRole": offer.role,
            "ValidationProfiles": [
                {
                    "ProfileName": PROFILE,
                    "TrainingJobDefinition": _training_job(offer),
                    "TransformJobDefinition": _transform_job(offer),
                }
            ],
        },
        "CertifyForMarketplace": True,  # M-1: it can't be set later
    }
    return request | {"Tags": _tags(declaration, offer, request)}


def package_request(declaration: Declaration, offer: Offer, model_data: str) -> Request:
    """Return CreateModelPackage's request (M-6).

    Args:
        declaration: the model's.
        offer: the version.
        model_data: s3://..model.tar.gz.
    """
    request = {
        "ModelPackageName": offer.name,
        "ModelPackageDescription": described(declaration),
        "InferenceSpecification": _inference(offer, {"ModelDataUrl": model_data}),
        "ValidationSpecification": {
            "ValidationRole": offer.role,
            "ValidationProfiles": [{"ProfileName": PROFILE, "TransformJobDefinition": _transform_job(offer)}],
        },
        "CertifyForMarketplace": True,
    }
    return request | {"Tags": _tags(declaration, offer, request)}


def described(declaration: Declaration) -> str:
    """Return what a product says of itself, on one line."""
    whole = " ".join(f"{declaration.title.rstrip('.')}. {declaration.about}".split())
    return whole if len(whole) <= LONGEST_ABOUT else f"{whole[: LONGEST_ABOUT - 3].rstrip()}..."


def columns_of(declaration: Declaration) -> dict[str, Any]:
    """Return what a model takes and answers, as far as a buyer's program depends on it."""
    told = declaration.to_json()
    features = [
        {key: list(one[key]) if key == "choices" else one[key] for key in ("name", "kind", "unit", "choices", "nullable")}
        for one in told["features"]
    ]
    target = told["target"]
    answer = {key: target[key] for key in ("name", "kind", "unit")} | {"labels": list(target["labels"])}
    return {"features": features, "answer": answer}


def _inference(offer: Offer, model: Request) -> Request:
    """M-4, and the image of M-10: the one that trains."""
    environment = {"Environment": {METERING: offer.metering}} if offer.metering else {}
    return {
        "Containers": [{"Image": offer.image, "ImageDigest": offer.digest, **model, **environment}],
        "SupportedTransformInstanceTypes": list(offer.transform_types),
        "SupportedRealtimeInferenceInstanceTypes": list(offer.realtime_types),
        "SupportedContentTypes": list(SERVED),
        "SupportedResponseMIMETypes": list(ANSWERED),
    }


def _training_job(offer: Offer) -> Request:
    return {
        "TrainingInputMode": "File",
        "InputDataConfig": [
            {
                "ChannelName": TRAINING[0],
                "DataSource": {"S3DataSource": _s3(offer.data) | {"S3DataDistributionType": "FullyReplicated"}},
                "ContentType": CSV,
                "CompressionType": "None",
                "RecordWrapperType": "None",
            }
        ],
        "OutputDataConfig": {"S3OutputPath": f"{offer.outputs}/models"},
        "ResourceConfig": {"InstanceType": offer.validation_type, "InstanceCount": 1, "VolumeSizeInGB": VOLUME_GB},
        "StoppingCondition": {"MaxRuntimeInSeconds": LONGEST_RUN_S},
    }


def _transform_job(offer: Offer) -> Request:
    """A line a record, as buyers send them; how many at a time is what /execution-parameters says (H-26)."""
    return {
        "TransformInput": {
            "DataSource": {"S3DataSource": _s3(offer.records)},
            "ContentType": CSV,
            "CompressionType": "None",
            "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": f"{offer.outputs}/answers", "Accept": CSV, "AssembleWith": "Line"},
        "TransformResources": {"InstanceType": offer.validation_type, "InstanceCount": 1},
    }


def _s3(uri: str) -> Request:
    return {"S3DataType": "S3Prefix", "S3Uri": uri}


def _tags(declaration: Declaration, offer: Offer, request: Request) -> list[dict[str, str]]:
    """Not the project's: what is sold goes by its product, and `delete` leaves it."""
    told = {PRODUCT: offer.product, COLUMNS: fingerprint(columns_of(declaration)), REQUEST: fingerprint(request)}
    return [{"Key": key, "Value": value} for key, value in told.items()]
