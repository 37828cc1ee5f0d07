"""The converters to ONNX that skl2onnx does not bring, or brings unfit for this scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from easyml_server.ml.graph_preprocessing import register_preprocessing
from easyml_server.ml.graph_trees import TreeConverters


def register_converters(*, double: bool) -> TreeConverters:
    """Make them known to skl2onnx, for a graph in 64 bits or 32; the latest call counts.

    Returned are those that still have to `plant` their trees in the graph.
    """
    register_preprocessing(double=double)
    _register_boosters()
    _register_histograms()
    trees = TreeConverters()
    trees.register()
    return trees


def _register_boosters() -> None:
    from lightgbm import LGBMClassifier, LGBMRegressor
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes as classes,
    )
    from skl2onnx.common.shape_calculator import (
        calculate_linear_regressor_output_shapes as numbers,
    )
    from xgboost import XGBClassifier, XGBRegressor

    words = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    update_registered_converter(
        LGBMClassifier, "LightGbmLGBMClassifier", classes, convert_lightgbm, options=words, overwrite=True
    )
    update_registered_converter(
        LGBMRegressor, "LightGbmLGBMRegressor", numbers, convert_lightgbm, options={"split": None}, overwrite=True
    )
    update_registered_converter(
        XGBClassifier, "XGBoostXGBClassifier", classes, convert_xgboost, options=words, overwrite=True
    )
    update_registered_converter(XGBRegressor, "XGBoostXGBRegressor", numbers, convert_xgboost, overwrite=True)


def _register_histograms() -> None:
    """Histogram boosting: skl2onnx hands NumPy's numbers and truths to onnx, which takes Python's numbers only."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common._registration import get_shape_calculator
    from skl2onnx.operator_converters import random_forest
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    for kind, convert, options in (
        (
            HistGradientBoostingClassifier,
            random_forest.convert_sklearn_random_forest_classifier,
            {"zipmap": [True, False, "columns"], "raw_scores": [True, False], "nocl": [True, False]},
        ),
        (HistGradientBoostingRegressor, random_forest.convert_sklearn_random_forest_regressor_converter, None),
    ):
        alias = f"Sklearn{kind.__name__}"
        update_registered_converter(
            kind, alias, get_shape_calculator(alias), _with_plain_numbers(convert), options=options, overwrite=True
        )


def _with_plain_numbers(convert: Callable[..., None]) -> Callable[..., None]:
    def converted(scope: Any, operator: Any, container: Any) -> None:
        convert(scope, operator, _PlainNumbers(container))

    return converted


class _PlainNumbers:
    """A converter's container whose attributes are Python numbers."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, *arguments: Any, **attributes: Any) -> None:
        self._container.add_node(*arguments, **{name: _plain(value) for name, value in attributes.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return int(value)
    return value.item() if isinstance(value, np.generic) else value
