"""The one door: a request is counted, perhaps failed, and answered by the stand-in or by moto."""

from __future__ import annotations

import io
import traceback
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug import Request, Response
from werkzeug.test import EnvironBuilder

from local_test.cloud import (
    controls,
    faults,
    forms,
    images,
    permissions,
    pricing,
    quotas,
    runtime,
    sagemaker,
    scaling,
    shapes,
    tagging,
    wire,
)
from local_test.cloud.wire import Asked, Refused
from local_test.cloud.world import Call, World

Answer = Callable[[World, Asked], "dict[str, Any] | Response | None"]

ANSWERS: dict[tuple[str, str], Answer] = {
    **{("sagemaker", name): answer for name, answer in sagemaker.operations().items()},
    ("sagemaker-runtime", "InvokeEndpoint"): runtime.invoke,
    ("sagemaker-runtime", "InvokeEndpointAsync"): runtime.invoke_later,
    ("sagemaker-runtime", "InvokeEndpointWithResponseStream"): runtime.invoke_streaming,
    ("iam", "SimulatePrincipalPolicy"): permissions.simulate,
    ("pricing", "GetProducts"): pricing.products,
    ("ecr", "DescribeImages"): images.describe,
    ("ecr", "ListImages"): images.list_all,
    ("ecr", "BatchGetImage"): images.get,
    ("ecr", "PutImage"): images.put,
    ("ecr", "BatchDeleteImage"): images.delete,
    ("ecr", "DeleteRepository"): images.delete_repository,
    ("ecr", "StartImageScan"): images.scan,
    ("ecr", "DescribeImageScanFindings"): images.findings,
    ("application-autoscaling", "DescribeScalingActivities"): scaling.activities,
    ("application-autoscaling", "RegisterScalableTarget"): scaling.register,
    ("application-autoscaling", "DeregisterScalableTarget"): scaling.deregister,
    ("application-autoscaling", "ListTagsForResource"): scaling.tags,
    ("application-autoscaling", "TagResource"): scaling.tag,
    ("application-autoscaling", "UntagResource"): scaling.untag,
    ("service-quotas", "ListServiceQuotas"): quotas.list_all,
    ("service-quotas", "ListAWSDefaultServiceQuotas"): quotas.list_all,
    ("service-quotas", "GetServiceQuota"): quotas.get,
    ("service-quotas", "GetAWSDefaultServiceQuota"): quotas.get,
    ("resourcegroupstaggingapi", "GetResources"): tagging.found,
}
"""Service and operation to what answers it here; all else is moto's."""
INVALID = {"sagemaker": "ValidationException", "application-autoscaling": "ValidationException"}
"""How a service names a request that breaks its model; others: InvalidParameterException."""


class Front:
    """A WSGI application that is AWS, as far as it goes."""

    def __init__(self, world: World) -> None:
        """Stand before moto."""
        self.world = world
        self.moto: Any = _Dispatcher(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        request = Request(environ)
        if request.path.startswith(controls.PREFIX):
            response = controls.answered(self.world, request, self.reset)
        else:
            response = self._called(wire.read(request))
        return response(environ, start_response)

    def reset(self) -> None:
        """Forget everything, and have moto forget."""
        self.world.forget()
        Response.from_app(self.moto, EnvironBuilder("/moto-api/reset", method="POST").get_environ(), buffered=True)

    def _called(self, asked: Asked) -> Response:
        """Answer a call to AWS, as the faults will have it, and note it."""
        if asked.inside:
            return self._answered(asked)
        kind = faults.due(self.world, asked)
        if kind in {"", "lost"}:
            response = self._answered(asked)
        elif kind != "dropped":
            response = faults.answered(asked, kind)
        is_cut = kind in {"dropped", "lost"}
        status = 0 if is_cut else response.status_code
        self.world.calls.append(Call(asked.service, asked.operation, asked.request, status, kind))
        if is_cut:
            raise _closed(asked)
        return response

    def _answered(self, asked: Asked) -> Response:
        try:
            given = self._own(asked)
        except Refused as refused:
            return wire.error(asked, refused)
        except Exception:  # ours: said here, and raised where the test looks
            self.world.defects.append(f"{asked.service}:{asked.operation}\n{traceback.format_exc()}")
            return wire.error(asked, Refused("InternalFailure", traceback.format_exc(limit=-1), 500))
        if given is None:
            response = self._passed(asked)
            return images.rewritten(self.world, asked, response) if asked.service == "ecr" else response
        return given if isinstance(given, Response) else wire.answer(asked, given)

    def _own(self, asked: Asked) -> dict[str, Any] | Response | None:
        """Return the stand-in's answer, if it has one; it is held to the model, as the request is."""
        answer = ANSWERS.get((asked.service, asked.operation))
        if answer is None:
            return None
        model = shapes.operation(asked.service, asked.operation)
        if asked.protocol == "query":
            asked = replace(asked, request=forms.parsed(asked.request, model.input_shape))
        is_rest = asked.protocol == "rest-json"
        wrong = "" if is_rest else shapes.wrong(asked.request, model.input_shape)
        if wrong:
            raise Refused(INVALID.get(asked.service, "InvalidParameterException"), wrong)
        with self.world.lock if asked.service == "sagemaker" else nullcontext():
            given = answer(self.world, asked)
        if isinstance(given, dict):
            wrong = shapes.wrong(given, model.output_shape)
            if wrong:
                raise ValueError(f"{asked.operation} would answer what its model forbids: {wrong}")
        return given

    def _passed(self, asked: Asked) -> Response:
        """Return moto's answer."""
        if asked.http is None:
            raise ValueError("moto answers HTTP only")
        environ, body = dict(asked.http.environ), asked.http.get_data()
        environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        try:
            return Response.from_app(self.moto, environ, buffered=True)
        except NotImplementedError:
            said = f"Neither moto nor the stand-in has {asked.service}:{asked.operation} (docs/rehearsed.md)."
            return wire.error(asked, Refused("UnknownOperationException", said))
        except Exception as error:  # moto's server would answer with a page of HTML
            said = f"moto failed at {asked.service}:{asked.operation}: {type(error).__name__} {error}"
            return wire.error(asked, Refused("InternalFailure", said, 500))


class _Dispatcher(DomainDispatcherApplication):
    """Moto's own, which lists a folder of 200 others at each request to see whose it is; a host's backend stays the same."""

    def __init__(self, create_app: Callable[[Any], Any]) -> None:
        super().__init__(create_app)
        self.get_backend_for_host = cache(super().get_backend_for_host)  # type: ignore[method-assign]


def _closed(asked: Asked) -> ConnectionResetError:
    """Close a connection, and return what tells werkzeug that it is."""
    if asked.http is not None:
        connection = asked.http.environ["werkzeug.socket"]
        connection.shutdown(2)
    return ConnectionResetError("closed, as planned")
