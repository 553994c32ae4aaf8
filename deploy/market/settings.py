"""What the verbs of `publish` can be told, beside the sections of deploy/settings.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar


@dataclass(frozen=True)
class Listing:
    """What is sold on AWS Marketplace."""

    section: ClassVar[str] = "listing"

    product: Annotated[str, "Name of the product; without one, the project's"] = ""
    release: Annotated[str, "Version that buyers see, such as 1.2.0; without one, the image's"] = ""
    breaking: Annotated[bool, "Publish although it breaks who uses the last version"] = False
    releases: Annotated[str, "Folder of what buyers saw of each version; keep it with the sources"] = "docs/releases"
    sample: Annotated[
        str,
        "File or folder, or s3:// prefix, that the validation trains on; buyers can see it (M-5); without one, model/sample",
    ] = ""
    sold_model: Annotated[
        str, "s3://..model.tar.gz of a model package; without one, the newest that is approved or trained"
    ] = ""
    training_types: Annotated[
        tuple[str, ...], "Instance types that buyers may train on; without any, some of m5, c5 and c6i"
    ] = ()
    realtime_types: Annotated[tuple[str, ...], "The same of endpoints"] = ()
    transform_types: Annotated[tuple[str, ...], "The same of batch transform jobs"] = ()
    validation_type: Annotated[str, "Instance type of the validation's jobs; one of the above"] = "ml.m5.large"
    metering: Annotated[str, "Dimension that answered rows are counted under, such as inference.count (H-41)"] = ""


@dataclass(frozen=True)
class Kit:
    """What a listing says that only its seller knows."""

    section: ClassVar[str] = "kit"

    seller: Annotated[str, "Who sells, as the license text names it"] = ""
    support: Annotated[str, "Where buyers get help: a mail address or a page"] = ""
    kit_url: Annotated[str, "https:// address of the public Git repository that holds the listing's kit"] = ""
    algorithm_arn: Annotated[Mapping[str, str], "REGION=ARN of the algorithm as subscribers see it, for the notebook"] = field(
        default_factory=dict
    )
