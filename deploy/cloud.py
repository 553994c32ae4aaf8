"""AWS, as the verbs use it: every call goes through here, is said before it changes anything, and fails in words.

Whatever is made has a name that follows from what it is (deploy/names.py), so that a second run finds it, and the project's
tags.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import boto3
import click
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.model import OperationModel
from botocore.validate import ParamValidator

from deploy.errors import FAILURES, AlreadyThere, BadSettings, NotThere, explained
from deploy.names import without
from deploy.settings import Account

TAG = "berth:project"
"""What all of a project carries, with its name: `status` and `delete` find it by that."""
DRY = "Nothing was changed. Next: the same command without --dry-run"
"""The last line of a verb with --dry-run."""
Request = dict[str, Any]
Response = dict[str, Any]


class Cloud:
    """An AWS account's Region, seen by one project."""

    def __init__(self, account: Account) -> None:
        self.account = account
        try:
            self._session = boto3.Session(profile_name=account.profile or None, region_name=account.region or None)
        except BotoCoreError as error:
            raise explained(error, "the AWS configuration") from None
        if not self._session.region_name:
            raise BadSettings("No AWS Region is set. Name one: --region us-east-1, or in the settings file's [account].")
        self.region: str = self._session.region_name
        self._clients: dict[str, Any] = {}

    @cached_property
    def account_id(self) -> str:
        """The account's twelve digits."""
        return str(self.read("sts", "get_caller_identity")["Account"])

    @property
    def tags(self) -> Mapping[str, str]:
        """What all that is made carries."""
        return {**self.account.tag, TAG: self.account.name}

    @property
    def place(self) -> str:
        """Where changes are made, for people."""
        return f"{self.region}, account {self.account_id}"

    @property
    def partition(self) -> str:
        """How the Region's ARNs begin: aws, aws-cn, .."""
        return str(self._session.get_partition_for_region(self.region))

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of something of this account and Region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account_id}:{resource}"

    def regions(self, service: str) -> list[str]:
        """Return the Regions of this partition that have a service; it is here first, where it is here at all."""
        there: list[str] = self._session.get_available_regions(service, self.partition)
        return sorted(there, key=lambda region: region != self.region)

    def client(self, service: str, region: str = "") -> Any:
        """Return boto3's client: for presigned addresses and transfers; calls are made with `read` and `change`."""
        key = f"{service} {region}"
        if key not in self._clients:
            # Standard mode tries three times, and again only what may safely be tried again. AWS_MAX_ATTEMPTS says otherwise.
            config = Config(retries={"mode": "standard"}, connect_timeout=10)
            self._clients[key] = self._session.client(service, region_name=region or None, config=config)
        return self._clients[key]

    def read(self, service: str, operation: str, *, in_region: str = "", **request: Any) -> Response:
        """Return the answer to a call that changes nothing.

        Raises:
            NotThere: what it asks about does not exist.
            DeployError: AWS refused, or could not be reached.
        """
        return self._call(service, operation, request, in_region)

    def find(self, service: str, operation: str, **request: Any) -> Response | None:
        """Return the answer of `read`, or None where what it asks about does not exist."""
        try:
            return self.read(service, operation, **request)
        except NotThere:
            return None

    def pages(self, service: str, operation: str, key: str, **request: Any) -> Iterator[Any]:
        """Yield what a listing has under `key`, page by page; errors as `read`."""
        try:
            for page in self.client(service).get_paginator(operation).paginate(**request):
                yield from page.get(key, [])
        except FAILURES as error:
            raise explained(error, _action(service, operation)) from None

    def change(self, service: str, operation: str, what: str, *, costs: str = "", **request: Any) -> Response:
        """Say what is done and where, and do it; with --dry-run print the request instead, and return nothing.

        Args:
            service: as boto3 names it.
            operation: as boto3 names it.
            what: in words, such as `Create endpoint berth`.
            costs: an hour, in words (deploy/prices.py); empty where it costs nothing by itself.
            request: without tags: where the operation takes some, the project's are put in. `Tags=None` is for what is there
                already, and takes them only when it is made.

        Raises:
            AlreadyThere: what it makes exists.
            DeployError: AWS refused or could not be reached; or the request is none that botocore takes.
        """
        model = self._model(service, operation)
        request = self._tagged(model, request)
        click.echo(f"{what} ({self.place})" + (f"; {costs}" if costs else ""))
        if self.account.dry_run:
            report = ParamValidator().validate(request, model.input_shape)
            if report.has_errors():
                raise BadSettings(
                    f"{_action(service, operation)} can't be asked with these settings: {report.generate_report()}"
                )
            click.echo(json.dumps({"service": service, "operation": model.name, "request": request}, indent=2, default=_shown))
            return {}
        return self._call(service, operation, request)

    def make(
        self, service: str, operation: str, what: str, found: Callable[[], Response | None], *, costs: str = "", **request: Any
    ) -> Response:
        """Return what `found` finds; where it is not there, make it first.

        A call whose answer was lost is safe to make again: what exists then is what it made, for its name says what it is.
        """
        there = found()
        if there is not None:
            click.echo(f"{what}: it is there.")
            return there
        try:
            self.change(service, operation, what, costs=costs, **request)
        except AlreadyThere:
            click.echo("It is there already.")
        return {} if self.account.dry_run else self._now(found, what)

    def _now(self, found: Callable[[], Response | None], what: str) -> Response:
        there = found()
        if there is None:
            raise NotThere(f"{what}: AWS took the request, but does not show what it made. Run the same command again.")
        return there

    def _call(self, service: str, operation: str, request: Mapping[str, Any], region: str = "") -> Response:
        try:
            answer: Response = getattr(self.client(service, region), operation)(**request)
        except FAILURES as error:
            raise explained(error, _action(service, operation)) from None
        return answer

    def _model(self, service: str, operation: str) -> OperationModel:
        client = self.client(service)
        model: OperationModel = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[operation])
        return model

    def _tagged(self, model: OperationModel, request: Request) -> Request:
        """Return a request with the project's tags, in the way that its operation takes them."""
        members = {} if model.name in NO_TAGS else model.input_shape.members
        name = next((name for name in ("Tags", "tags") if name in members), "")
        if not name:
            return request
        if request.get(name, ()) is None:
            return without(request, name)
        if members[name].type_name == "map":
            return {**request, name: {**self.tags, **request.get(name, {})}}
        key, value = ("key", "value") if "key" in members[name].member.members else ("Key", "Value")
        return {**request, name: [*({key: one, value: text} for one, text in self.tags.items()), *request.get(name, [])]}


NO_TAGS = {"AddTags", "CreateAlgorithm", "CreateModelPackage"}
"""Operations whose tags are what they are about; a version, which has the tags of its package group; and what is sold, which
goes by its product, so that `delete` leaves it."""


def _shown(value: Any) -> str:
    """Return what JSON has no word for, as --dry-run prints it: a body by its size or its file."""
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    return f"<{value.name}>" if hasattr(value, "name") else str(value)


def _action(service: str, operation: str) -> str:
    return f"{service}:{re.sub(r'(?:^|_)([a-z0-9])', lambda found: found[1].upper(), operation)}"
