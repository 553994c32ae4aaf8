"""What is published already, as AWS tells it: the versions of a product, and whether one is what it is now asked to be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.cloud import Cloud, Request, Response
from deploy.errors import NotThere
from deploy.market.product import COLUMNS, PRODUCT, REQUEST
from deploy.waiting import State

DONE, FAILED = "Completed", "Failed"


@dataclass(frozen=True)
class Kind:
    """What is sold: an algorithm, or a model that is trained already."""

    word: str
    """Of `publish`."""
    title: str
    noun: str
    """In the names of members."""
    find: Callable[[Cloud, str], Response | None]
    """Returns what AWS tells of a version; None where it is not there."""
    listed: Callable[[Cloud, str], Iterator[Response]]
    """Yields what AWS lists with a text in its name, the newest first."""
    make: Callable[[Cloud, str, Request], Response]
    """Makes a version where it is not there; the text says what is done."""
    remove: str
    """The command that removes a version, but for its name."""


def last_version(cloud: Cloud, kind: Kind, product: str, name: str) -> Response | None:
    """Return a product's newest version that passed its validation, but for the one of a name; None where there is none."""
    for summary in kind.listed(cloud, product):
        other, status = str(summary[f"{kind.noun}Name"]), summary.get(f"{kind.noun}Status", "")
        is_version = re.fullmatch(rf"{re.escape(product)}-[0-9].*", other) and status == DONE and other != name
        if is_version and tags_of(cloud, str(summary[f"{kind.noun}Arn"])).get(PRODUCT) == product:
            return kind.find(cloud, other)
    return None


def tags_of(cloud: Cloud, arn: str) -> dict[str, str]:
    """Return the tags of a version."""
    return {one["Key"]: one["Value"] for one in cloud.pages("sagemaker", "list_tags", "Tags", ResourceArn=arn)}


def differences(request: Request, there: Response, tags: Mapping[str, str]) -> list[str]:
    """Return what is published otherwise than asked for, by where it stands; what AWS adds by itself counts for nothing."""
    asked = {one["Key"]: one["Value"] for one in request.get("Tags", [])}
    columns = [] if asked.get(COLUMNS) == tags.get(COLUMNS) else ["the model's columns"]
    if asked.get(REQUEST) == tags.get(REQUEST):
        return columns
    found = [*_other({key: value for key, value in request.items() if key != "Tags"}, there, ""), *columns]
    return found or ["what it was asked for with"]


def look(cloud: Cloud, kind: Kind, name: str) -> State:
    """Return how far a version's validation is.

    Raises:
        NotThere: there is no such version.
    """
    there = kind.find(cloud, name)
    if there is None:
        raise NotThere(f"There is no {kind.title} {name} any more.")
    status = str(there[f"{kind.noun}Status"])
    steps = list(_steps(there.get(f"{kind.noun}StatusDetails", {})))
    if status == FAILED:
        return State(status, failure=reasons(there, kind))
    under_way = ", ".join(f"{title} {state}" for title, state, _ in steps)
    return State(status, under_way, done=status == DONE)


def reasons(there: Response, kind: Kind) -> str:
    """Return why a version failed, in AWS's words, and what to do."""
    name = there[f"{kind.noun}Name"]
    told = [
        f"{title}: {why or state}"
        for title, state, why in _steps(there.get(f"{kind.noun}StatusDetails", {}))
        if state == FAILED
    ]
    return (
        f"{'; '.join(told) or 'AWS gives no reason'}. `python -m deploy publish check` rehearses it here. Nobody has seen this "
        f"version: `{kind.remove} {name}` removes it, and its name can be used again."
    )


def _steps(details: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield each step of a validation, its status and why it failed."""
    for member, title in (("ImageScanStatuses", "scan of the image"), ("ValidationStatuses", "validation")):
        for one in details.get(member, []):
            yield title, str(one.get("Status", "")), str(one.get("FailureReason", ""))


def _other(asked: Any, there: Any, where: str) -> Iterator[str]:
    if isinstance(asked, dict) and isinstance(there, dict):
        for name, value in asked.items():
            yield from _other(value, there.get(name), f"{where}.{name}".lstrip("."))
    elif isinstance(asked, list) and isinstance(there, list) and len(asked) == len(there):
        for index, (value, other) in enumerate(zip(asked, there, strict=True)):
            yield from _other(value, other, f"{where}[{index}]")
    elif asked != there:
        yield where


def _algorithm(cloud: Cloud, name: str) -> Response | None:
    return cloud.find("sagemaker", "describe_algorithm", AlgorithmName=name)


def _algorithms(cloud: Cloud, text: str) -> Iterator[Response]:
    return cloud.pages("sagemaker", "list_algorithms", "AlgorithmSummaryList", NameContains=text, **NEWEST)


def _make_algorithm(cloud: Cloud, what: str, request: Request) -> Response:
    name = request["AlgorithmName"]
    return cloud.make("sagemaker", "create_algorithm", what, lambda: _algorithm(cloud, name), **request)


def _package(cloud: Cloud, name: str) -> Response | None:
    return cloud.find("sagemaker", "describe_model_package", ModelPackageName=name)


def _packages(cloud: Cloud, text: str) -> Iterator[Response]:
    asked = {"ModelPackageType": "Unversioned", "NameContains": text, **NEWEST}
    return cloud.pages("sagemaker", "list_model_packages", "ModelPackageSummaryList", **asked)


def _make_package(cloud: Cloud, what: str, request: Request) -> Response:
    name = request["ModelPackageName"]
    return cloud.make("sagemaker", "create_model_package", what, lambda: _package(cloud, name), **request)


NEWEST = {"SortBy": "CreationTime", "SortOrder": "Descending"}
ALGORITHM = Kind(
    "algorithm",
    "algorithm",
    "Algorithm",
    _algorithm,
    _algorithms,
    _make_algorithm,
    "aws sagemaker delete-algorithm --algorithm-name",
)
MODEL = Kind(
    "model",
    "model package",
    "ModelPackage",
    _package,
    _packages,
    _make_package,
    "aws sagemaker delete-model-package --model-package-name",
)
