"""The rules that a product is held against before AWS is asked: one table, each rule with its number, its finding and its fix.

None of them asks anything: they judge a request of CreateAlgorithm or CreateModelPackage, and whose it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from deploy.cloud import Request
from deploy.instances import ARM
from deploy.market.knobs import value_faults
from deploy.market.rehearsed import training_faults, transform_faults
from deploy.market.shapes import is_whole, shape_faults
from deploy.market.sold import Fault, Sold
from deploy.market.training import channel_faults, distributed_faults, hyperparameter_faults, metric_faults, objective_faults

ECR = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/([^@:\s]+)(?::([^@\s]+))?(?:@(\S+))?")
OPEN = frozenset(
    [
        "us-east-1",
        "us-east-2",
        "us-west-1",
        "us-west-2",
        "ca-central-1",
        "sa-east-1",
        "eu-central-1",
        "eu-north-1",
        "eu-west-1",
        "eu-west-2",
        "eu-west-3",
        "ap-northeast-1",
        "ap-northeast-2",
        "ap-northeast-3",
        "ap-south-1",
        "ap-southeast-1",
        "ap-southeast-2",
    ]
)
"""Regions that every account has without asking for them."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Broken:
    """A rule that a product breaks."""

    rule: str
    """Its number in the contract; API where the service's own model says so."""
    found: str
    fix: str

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.rule}: {self.found}. {self.fix}."


@dataclass(frozen=True)
class Rule:
    """What must hold, and what finds where it does not."""

    number: str
    title: str
    faults: Callable[[Sold], Iterator[Fault]]


def judge(request: Request, account: str, region: str, lines: Sequence[str] = ()) -> list[Broken]:
    """Return the rules that a request breaks, in the table's order; none where it is to be sent.

    Args:
        request: of CreateAlgorithm, or of CreateModelPackage.
        account: the seller's twelve digits.
        region: where it is sent.
        lines: what the training job prints of its metrics; without them no expression is tried.
    """
    sold = Sold(request, account, region, tuple(lines))
    broken = [Broken("API", found, "Correct the request") for found in shape_faults(sold.operation, request)]
    if is_whole(sold.operation, request):
        broken += [Broken(rule.number, found, fix) for rule in RULES for found, fix in rule.faults(sold)]
    return broken


def _certified(sold: Sold) -> Iterator[Fault]:
    for name in ("InferenceSpecification", "ValidationSpecification"):
        if not sold.request.get(name):
            yield f"There is no {name}", "What is listed has one: build the request with `python -m deploy publish`"
    if sold.request.get("CertifyForMarketplace") is not True:
        yield "CertifyForMarketplace is not true", "Set it: it can't be changed once the product is made"


def _served(sold: Sold) -> Iterator[Fault]:
    inference = sold.inference
    for name in (
        "SupportedTransformInstanceTypes",
        "SupportedRealtimeInferenceInstanceTypes",
        "SupportedContentTypes",
        "SupportedResponseMIMETypes",
    ):
        found = inference.get(name, [])
        if not found:
            yield f"{name} is empty", "Name one at least: a product is called by them"
        elif len(set(found)) < len(found):
            yield f"{name} names something twice", "Name each once"


def _profile(sold: Sold) -> Iterator[Fault]:
    count = len(sold.profiles)
    if count != 1:
        yield f"There are {count} validation profiles", "Give exactly one"


def _packed(sold: Sold) -> Iterator[Fault]:
    if sold.is_algorithm:
        return
    if sold.request.get("ModelPackageGroupName") or not sold.request.get("ModelPackageName"):
        yield (
            "It is a version of a group",
            "Name it with ModelPackageName, and leave the group out: no version can be certified",
        )
    for container in sold.containers:
        data = container.get("ModelDataUrl", "")
        if not re.fullmatch(r"s3://[^/]+/.+\.tar\.gz", data):
            yield f"ModelDataUrl is {data or 'missing'}", "Name s3://BUCKET/..model.tar.gz, as a training job leaves it"


def _region(sold: Sold) -> Iterator[Fault]:
    if sold.region not in OPEN:
        yield f"The product would be made in {sold.region}, which accounts have to opt in to", "Publish from us-east-2, for one"


def _image(sold: Sold) -> Iterator[Fault]:
    for image, digest in sold.images:
        found = ECR.fullmatch(image)
        if found is None:
            yield f"{image} is not in ECR", "Push it to the seller's own: `python -m deploy push` without --registry"
            continue
        account, region, _, tag, _ = found.groups()
        if account != sold.account:
            yield f"{image} is of account {account}", f"Push it to ECR of {sold.account}, whose product it is"
        if region != sold.region:
            yield f"{image} is in {region}", f"Push it to ECR in {sold.region}, where the product is made"
        if not tag:
            yield f"{image} has no tag", "Name its tag: an image without one is not scanned"
        if digest and not DIGEST.fullmatch(digest):
            yield f"The digest {digest} of {image} is none", "Give sha256: and 64 digits, as push prints them"


def _machines(sold: Sold) -> Iterator[Fault]:
    arm = sorted({kind for kind in sold.instance_types if ARM.match(kind)})
    if arm:
        yield f"{', '.join(arm)} have Arm processors", "Leave them out: the image is made for linux/amd64"


def _payload(sold: Sold) -> Iterator[Fault]:
    for job in sold.transforms:
        size_mb, count = job.get("MaxPayloadInMB", 6), job.get("MaxConcurrentTransforms", 1)
        if size_mb * count > 100:
            yield f"{count} mini-batches of {size_mb} MB at a time are {size_mb * count} MB", "Keep the product to 100 MB"


RULES = (
    Rule("M-1", "An algorithm or a package that is listed infers, is validated and is certified", _certified),
    Rule("M-2", "Channels have names of their own, and one is required", channel_faults),
    Rule("M-2", "A metric's expression reads one number from what the job prints", metric_faults),
    Rule("M-2", "An objective is one of the metrics", objective_faults),
    Rule("M-3", "A hyperparameter's type, bounds and default agree, as text", hyperparameter_faults),
    Rule("M-4", "Instance types, content types and response types are named", _served),
    Rule("M-5", "There is exactly one validation profile", _profile),
    Rule("M-5", "The validation trains with what is declared", training_faults),
    Rule("M-5", "The validation sets hyperparameters as they are declared", value_faults),
    Rule("M-5", "The validation asks for answers in what is declared", transform_faults),
    Rule("M-6", "A package has a name of its own and a model.tar.gz", _packed),
    Rule("M-8", "The image is in the seller's own ECR, in the same Region, with a tag", _image),
    Rule("M-8", "The Region is one that every account has", _region),
    Rule("M-11", "Mini-batches at a time are 100 MB at most", _payload),
    Rule("T-7", "The image runs on what the product names", _machines),
    Rule("T-36", "Several instances are trained on where that is said", distributed_faults),
)
