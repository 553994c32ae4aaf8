"""What LightGBM needs to be exported as scikit-learn's own trees are: a converter for skl2onnx.

The library is imported only where an estimator of it is at hand: with it comes Dask.
"""

from __future__ import annotations

from typing import Any

ML_OPSET = 3
"""The newest operators for trees that onnxmltools 1.16 writes; 5 has others."""


def is_lightgbm(estimator: Any) -> bool:
    """Say whether an estimator is LightGBM's."""
    return type(estimator).__module__.startswith("lightgbm.")


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
