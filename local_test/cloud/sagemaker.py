"""SageMaker's operations, each with what answers it: those of the table of resources, and those with a rule of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from local_test.cloud import endpoints, jobs, packages, resources, tuning
from local_test.cloud.resources import RESOURCES, found
from local_test.cloud.shapes import has
from local_test.cloud.wire import Asked, Refused
from local_test.cloud.world import Record, World

Answer = Callable[[World, Asked], dict[str, Any] | None]
"""What answers an operation; None leaves it to moto."""
MOST_TAGS = 50


def operations() -> dict[str, Answer]:
    """Return every operation of SageMaker's that is answered here."""
    verbs = {"Create": resources.create, "Describe": resources.describe, "Delete": resources.delete}
    table: dict[str, Answer] = {}
    for name, resource in RESOURCES.items():
        table |= {f"{verb}{name}": partial(_generic, answer=answer, resource=resource) for verb, answer in verbs.items()}
        table[f"List{name}s"] = partial(_generic, answer=resources.list_all, resource=resource)
    return {name: answer for name, answer in {**table, **_OWN}.items() if has("sagemaker", name)}


def _generic(world: World, asked: Asked, *, answer: Callable[..., dict[str, Any]], resource: Any) -> dict[str, Any]:
    return answer(world, asked, resource)


def _named(world: World, asked: Asked, kind: str) -> Record:
    return found(world, asked, RESOURCES[kind], asked.request[f"{kind}Name"])


def _update_endpoint(world: World, asked: Asked) -> dict[str, Any]:
    return endpoints.update(world, asked, _named(world, asked, "Endpoint"))


def _weigh_endpoint(world: World, asked: Asked) -> dict[str, Any]:
    return endpoints.weigh(world, asked, _named(world, asked, "Endpoint"))


def _stop_training(world: World, asked: Asked) -> dict[str, Any]:
    jobs.stop(world, _named(world, asked, "TrainingJob"))
    return {}


def _stop_transform(world: World, asked: Asked) -> dict[str, Any]:
    jobs.stop(world, _named(world, asked, "TransformJob"))
    return {}


def _stop_tuning(world: World, asked: Asked) -> dict[str, Any]:
    tuning.stop(world, _named(world, asked, "HyperParameterTuningJob"))
    return {}


def _list_tuned(world: World, asked: Asked) -> dict[str, Any]:
    children = tuning.children(_named(world, asked, "HyperParameterTuningJob"))
    status = asked.request.get("StatusEquals")
    return resources.page([child for child in children if status in {None, child.status}], asked)


def _update_package(world: World, asked: Asked) -> dict[str, Any]:
    record = found(world, asked, RESOURCES["ModelPackage"], asked.request["ModelPackageArn"])
    packages.update(world, record, asked.request)
    return {"ModelPackageArn": record.arn}


def _add_tags(world: World, asked: Asked) -> dict[str, Any] | None:
    record = _tagged(world, asked)
    if record is None:
        return None
    tags = {**record.tags, **{tag["Key"]: tag["Value"] for tag in asked.request["Tags"]}}
    if len(tags) > MOST_TAGS:
        raise Refused("ValidationException", f"{record.arn} would have {len(tags)} tags; {MOST_TAGS} are allowed.")
    record.tags = tags
    return {"Tags": resources.tags_of(record)}


def _delete_tags(world: World, asked: Asked) -> dict[str, Any] | None:
    record = _tagged(world, asked)
    if record is None:
        return None
    record.tags = {key: value for key, value in record.tags.items() if key not in asked.request["TagKeys"]}
    return {}


def _list_tags(world: World, asked: Asked) -> dict[str, Any] | None:
    record = _tagged(world, asked)
    return None if record is None else {"Tags": resources.tags_of(record)}


def _tagged(world: World, asked: Asked) -> Record | None:
    """Return what has an ARN, or nothing where it is of a kind that is moto's."""
    arn = asked.request["ResourceArn"]
    if not resources.owned([arn]):
        return None
    record = resources.by_arn(world, arn)
    if record is None:
        raise Refused("ValidationException", f'Could not find resource "{arn}".')
    return record


_OWN: dict[str, Answer] = {
    "UpdateEndpoint": _update_endpoint,
    "UpdateEndpointWeightsAndCapacities": _weigh_endpoint,
    "StopTrainingJob": _stop_training,
    "StopTransformJob": _stop_transform,
    "StopHyperParameterTuningJob": _stop_tuning,
    "ListTrainingJobsForHyperParameterTuningJob": _list_tuned,
    "UpdateModelPackage": _update_package,
    "AddTags": _add_tags,
    "DeleteTags": _delete_tags,
    "ListTags": _list_tags,
}
