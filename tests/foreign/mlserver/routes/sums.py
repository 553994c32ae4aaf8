"""A runtime of MLServer's that answers SageMaker's two paths too, by custom handlers."""

from fastapi import Response
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.handlers import custom_handler
from mlserver.types import InferenceRequest, InferenceResponse
from pydantic import BaseModel


class Instances(BaseModel):
    """What is asked."""

    instances: list[list[float]]


class Predictions(BaseModel):
    """What is answered."""

    predictions: list[float]


class Sums(MLModel):
    """A model that answers each row's sum."""

    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("sums", rows.sum(axis=1))])

    @custom_handler(rest_path="/ping", rest_method="GET")
    async def ping(self) -> Response:
        return Response()

    @custom_handler(rest_path="/invocations")
    async def invocations(self, request: Instances) -> Predictions:
        return Predictions(predictions=[sum(row) for row in request.instances])
