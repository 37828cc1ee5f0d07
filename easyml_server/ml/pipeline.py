"""The one stored pipeline: preprocessing fitted on the training rows, then the estimator. Library classes only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from easyml_server.domain.algorithms import Algorithm
from easyml_server.domain.models import SignatureColumn
from easyml_server.ml.prepare import Encoding, encoding_of, prepared_names

MAX_CATEGORIES: Final = 50
MIN_FREQUENCY: Final = 2

# These learn what a missing number means; for the others the median stands in.
_USE_MISSING: Final = frozenset({"hist_gradient_boosting", "xgboost", "lightgbm"})


def build_pipeline(
    algorithm: Algorithm, estimator: Any, inputs: Sequence[SignatureColumn], prepared: pd.DataFrame
) -> Pipeline:
    """An unfitted pipeline for prepared columns; `prepared` are the rows it will be fitted on.

    A column without a missing number in those rows is imputed even where the estimator could do without: it has not
    learned what a missing one means, and LightGBM would take it for zero.
    """
    positions: dict[str, list[int]] = {"numbers": [], "gaps": [], "booleans": [], "categories": []}
    names = prepared_names(inputs)
    position = 0
    for column, parts in zip(inputs, names, strict=True):
        encoding = encoding_of(column.storage_type, column.kind)
        for part in parts:
            positions[_branch(algorithm, encoding, prepared[part])].append(position)
            position += 1
    return Pipeline([("prepare", _transformer(algorithm, positions)), ("estimator", estimator)])


def _branch(algorithm: Algorithm, encoding: Encoding, values: pd.Series[Any]) -> str:
    if encoding is Encoding.CATEGORY:
        return "categories"
    if algorithm.name in _USE_MISSING and values.isna().any():
        return "gaps"
    return "booleans" if encoding is Encoding.BOOLEAN else "numbers"


def _transformer(algorithm: Algorithm, positions: dict[str, list[int]]) -> ColumnTransformer:
    """Columns are meant by position, so that names cannot be mistaken for anything else in a converted graph."""
    # Trees split at values, which scaling only moves; rounded to 32 bits in a graph they may fall on the other side.
    scaling = [StandardScaler()] if algorithm.scales_inputs else []
    branches = {
        "numbers": _steps(SimpleImputer(strategy="median", keep_empty_features=True), *scaling),
        "gaps": "passthrough",
        "booleans": _steps(SimpleImputer(strategy="most_frequent", keep_empty_features=True), *scaling),
        "categories": OneHotEncoder(
            handle_unknown="infrequent_if_exist",
            min_frequency=MIN_FREQUENCY,
            max_categories=MAX_CATEGORIES,
            sparse_output=False,
        ),
    }
    used = [(name, branches[name], columns) for name, columns in positions.items() if columns]
    return ColumnTransformer(used, sparse_threshold=0.0)


def _steps(*steps: Any) -> Any:
    if len(steps) == 1:
        return steps[0]
    return Pipeline([(type(step).__name__.lower(), step) for step in steps])
