"""The version as the Catalog API takes it: `DetailsDocument` of AddDeliveryOptions, for who would rather not fill in forms.

Source: "Add a new version" of machine learning products in the AWS Marketplace API Reference (MachineLearningProduct@1.0).
"""

from __future__ import annotations

from typing import Any

from contract.declaration import Declaration, Feature
from deploy.errors import BadSettings
from deploy.market.pages import Material, described, page, taken

MOST_NOTES = 30_000
"""Characters of ReleaseNotes; the only length that the reference names."""
REPOSITORY = "https://github.com/OWNER/REPOSITORY"
"""Stands for the repository that is not set yet."""
ARN, ROLE = "ALGORITHM_ARN", "ACCESS_ROLE_ARN"
"""Stand for what `publish algorithm` makes, and for a role that AWS Marketplace may assume."""


def version(material: Material) -> dict[str, Any]:
    """Return the document; what is the seller's to fill in stands in capitals.

    Raises:
        BadSettings: the release notes are longer than the API takes.
    """
    if len(material.notes) >= MOST_NOTES:
        raise BadSettings(
            f"The release notes of {material.release} have {len(material.notes):,} characters; AWS Marketplace takes less than "
            f"{MOST_NOTES:,}. Shorten what CHANGELOG.md says of it."
        )
    return {
        "Version": {"VersionTitle": material.release, "ReleaseNotes": material.notes},
        "DeliveryOptions": [{"Details": {"SageMakerAlgorithmDeliveryOptionDetails": _details(material)}}],
    }


def _details(material: Material) -> dict[str, Any]:
    declaration, place = material.declaration, (material.kit.kit_url or REPOSITORY).rstrip("/")
    first = material.samples.exchanges[0]
    return {
        "SageMakerAlgorithmArn": ARN,
        "AccessRoleArn": ROLE,
        "SampleNotebookUrl": f"{place}/blob/main/notebook.ipynb",
        "RepositoryUrl": place,
        "UsageInstructions": page("usage", material),
        "InputProperties": {
            "Description": f"{described(declaration)}\n\nA row has {len(declaration.features)} columns; inputs.md has formats.",
            "Limitations": "25 MB and 60 s a request; 100 MB a mini-batch. A row that can't be read refuses its request.",
            "SampleInput": {
                "RealtimeInferenceUrl": f"{place}/blob/main/samples/realtime/{first.name}",
                "BatchTransformUrl": f"{place}/blob/main/samples/batch/rows.csv",
            },
            "Parameters": [_parameter(feature) for feature in declaration.features],
            **_attributes(declaration),
        },
        "OutputProperties": {
            "Description": f"{declaration.target.name}: {declaration.target.meaning}. One answer a row, in order.",
            "SampleOutput": {
                "RealtimeInferenceUrl": f"{place}/blob/main/samples/realtime/{first.answer_name}",
                "BatchTransformUrl": f"{place}/blob/main/samples/batch-answer/rows.csv.out",
            },
            "Parameters": [
                {"Name": declaration.target.name, "Description": declaration.target.meaning or "Answer", "AlwaysReturned": True}
            ],
        },
        "RecommendedInstanceTypes": dict.fromkeys(
            ("BatchTransform", "RealtimeInference", "Training"), material.listing.validation_type
        ),
    }


def _parameter(feature: Feature) -> dict[str, Any]:
    return {
        "Name": feature.name,
        "Description": feature.meaning,
        "Constraints": taken(feature),
        "Required": not feature.nullable,
    }


def _attributes(declaration: Declaration) -> dict[str, Any]:
    """Return what X-Amzn-SageMaker-Custom-Attributes may ask for: intervals, where a number is predicted."""
    if declaration.target.kind == "class":
        return {}
    told = {"Description": "Answer low and high beside each prediction", "Constraints": "true or false", "Required": False}
    return {"SageMakerCustomAttributes": [{"Name": "intervals", **told}]}
