"""What LightGBM needs to be exported as scikit-learn's own trees are: thresholds in float32, and a converter for skl2onnx.

The library is imported only where an estimator of it is at hand: with it comes Dask.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

ML_OPSET = 3
"""The newest operators for trees that onnxmltools 1.16 writes; 5 has others."""


def is_lightgbm(estimator: Any) -> bool:
    """Say whether an estimator is LightGBM's."""
    return type(estimator).__module__.startswith("lightgbm.")


def snap_thresholds(estimator: Any) -> None:
    """Round the thresholds of a fitted estimator's trees down to float32, in place.

    They can be changed only in the text that LightGBM saves a model as.
    """
    from lightgbm import Booster

    text = re.sub(r"(?m)^threshold=(.+)$", lambda line: f"threshold={_down(line[1])}", estimator.booster_.model_to_string())
    text = re.sub(r"(?m)^tree_sizes=.*\n", "", text)  # the trees' lengths in bytes, which no longer hold; reading goes without
    estimator._Booster = Booster(model_str=text)


def teach_skl2onnx() -> dict[str, int]:
    """Tell skl2onnx of onnxmltools' converter, twice does no harm; return the operator sets that it can write."""
    from lightgbm import LGBMClassifier, LGBMRegressor
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from skl2onnx import get_latest_tested_opset_version, update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    update_registered_converter(
        LGBMRegressor,
        "LightGbmLGBMRegressor",
        calculate_linear_regressor_output_shapes,
        convert_lightgbm,
        options={"split": None},
    )
    update_registered_converter(
        LGBMClassifier,
        "LightGbmLGBMClassifier",
        calculate_linear_classifier_output_shapes,
        convert_lightgbm,
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
    )
    return {"": get_latest_tested_opset_version(), "ai.onnx.ml": ML_OPSET}


def _down(thresholds: str) -> str:
    """Return the numbers of a line, each as the largest float32 that is not above it, in digits that give it back."""
    exact = np.array(thresholds.split(), dtype=np.float64)
    nearest = exact.astype(np.float32)
    snapped = np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    return " ".join(repr(float(value)) for value in snapped)
