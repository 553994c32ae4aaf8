"""The toolkit's handler service over the toolkit's decoders and encoders: only the model is ours."""

import numpy as np
from sagemaker_inference.default_handler_service import DefaultHandlerService
from sagemaker_inference.default_inference_handler import DefaultInferenceHandler
from sagemaker_inference.transformer import Transformer


class Sums(DefaultInferenceHandler):
    """A model that answers each row's weighted sum."""

    def default_model_fn(self, model_dir, context=None):
        return np.loadtxt(f"{model_dir}/weights.csv", delimiter=",")

    def default_predict_fn(self, data, model, context=None):
        return np.atleast_2d(data) @ model


service = DefaultHandlerService(Transformer(default_inference_handler=Sums()))


def handle(data, context):
    """Load the model at the first call; predict at all others."""
    if data is None:
        return service.initialize(context)
    return service.handle(data, context)
