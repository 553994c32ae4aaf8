"""Rules on the jobs of the validation: they use what is declared, as a buyer would (M-5)."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.cloud import Request
from deploy.market.sold import Fault, Sold

DECLARE = "Declare it, or use what is declared"


def training_faults(sold: Sold) -> Iterator[Fault]:
    """Yield what the validation's training job does that is not declared, or leaves out that is required."""
    if not sold.is_algorithm:
        return
    if sold.profiles and not sold.trainings:
        yield "The validation has no training job", "Give one: an algorithm is validated by training"
    for job in sold.trainings:
        given = {one.get("ChannelName", ""): one for one in job.get("InputDataConfig", [])}
        for name, channel in sold.channels.items():
            if channel.get("IsRequired") and name not in given:
                yield f"The validation lacks the channel {name}, which is required", "Give it sample data"
        for name, one in given.items():
            if name not in sold.channels:
                yield f"The validation has the channel {name}, which is not declared", DECLARE
            else:
                yield from _channel(sold.channels[name], one, job.get("TrainingInputMode", ""))
        kind = job.get("ResourceConfig", {}).get("InstanceType", "")
        if kind not in sold.training.get("SupportedTrainingInstanceTypes", []):
            yield f"The validation trains on {kind}, which is not among SupportedTrainingInstanceTypes", DECLARE


def transform_faults(sold: Sold) -> Iterator[Fault]:
    """Yield what the validation's transform job does that is not declared."""
    if sold.profiles and not sold.transforms:
        yield "The validation has no transform job", "Give one: the listing is validated by answers, too"
    for job in sold.transforms:
        asked, answered = job.get("TransformInput", {}), job.get("TransformOutput", {})
        used = (
            ("SupportedContentTypes", asked.get("ContentType", "")),
            ("SupportedResponseMIMETypes", answered.get("Accept", "")),
            ("SupportedTransformInstanceTypes", job.get("TransformResources", {}).get("InstanceType", "")),
        )
        for name, value in used:
            if value not in sold.inference.get(name, []):
                yield f"The validation's transform job uses {value or 'nothing'}, which is not among {name}", DECLARE
        if (asked.get("SplitType", "None") == "Line") != (answered.get("AssembleWith", "None") == "Line"):
            yield "The transform job splits lines and does not join them, or the other way round (H-29)", "Set both to Line"


def _channel(declared: Request, given: Request, mode: str) -> Iterator[Fault]:
    name = declared.get("Name", "")
    used = (
        ("SupportedContentTypes", given.get("ContentType", "")),
        ("SupportedInputModes", given.get("InputMode") or mode),
        ("SupportedCompressionTypes", given.get("CompressionType", "None")),
    )
    for member, value in used:
        if member in declared and value not in declared[member]:
            yield f"The validation's channel {name} uses {value or 'nothing'}, which is not among its {member}", DECLARE
    if not given.get("DataSource", {}).get("S3DataSource", {}).get("S3Uri", "").startswith("s3://"):
        yield f"The validation's channel {name} is not in S3", "Name s3://BUCKET/PREFIX of data that may be published"
