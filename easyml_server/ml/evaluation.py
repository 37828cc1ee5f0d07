"""Asks a fitted pipeline about rows and measures what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from easyml_server.domain.experiments import (
    ConfusionMatrix,
    FailureReason,
    MetricValue,
    Partition,
    TrainingWarning,
    TrainingWarningKind,
)
from easyml_server.ml.estimators import answers_most_probable
from easyml_server.ml.features import Warn
from easyml_server.ml.metrics import (
    Predictions,
    Values,
    as_metric_values,
    confusion_matrix,
    expected_metrics,
    measure,
)
from easyml_server.ml.objective import Aim
from easyml_server.ml.refusal import Refused, library_refusals


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured on some rows; the matrix is None for a regression, or too many classes."""

    predictions: Predictions
    values: Values
    metrics: tuple[MetricValue, ...]
    matrix: ConfusionMatrix | None


def evaluate(
    pipeline: Pipeline, prepared: pd.DataFrame, rows: NDArray[np.int64], aim: Aim, partition: Partition
) -> Evaluation:
    """Predict rows and measure the predictions."""
    with library_refusals():
        predictions = _predict(pipeline, prepared.iloc[rows], rows, aim)
    values = measure(predictions, len(aim.target.labels), aim.positive)
    matrix = confusion_matrix(predictions, aim.target.classes, partition)
    return Evaluation(predictions, values, as_metric_values(values, partition), matrix)


def warn_of_undefined(values: Values, partition: Partition, pipeline: Pipeline, aim: Aim, warn: Warn) -> None:
    """Tell which metrics have no value; one that never makes sense for such a model only if it was asked for."""
    expected = expected_metrics(
        aim.objective.metric.task, len(aim.target.labels), probabilities=hasattr(pipeline, "predict_proba")
    )
    undefined = [metric for metric in dict.fromkeys((aim.objective.metric, *expected)) if metric not in values]
    if undefined:
        message = f"On the {partition} rows these metrics have no value: {', '.join(undefined)}."
        warn(TrainingWarning(TrainingWarningKind.METRIC_UNDEFINED, "", message))


def _predict(pipeline: Pipeline, asked: pd.DataFrame, rows: NDArray[np.int64], aim: Aim) -> Predictions:
    """Preprocessing is done once, since labels and scores are asked for apart."""
    weights = aim.weights_to_measure(rows)
    prepare, estimator = pipeline[0], pipeline[-1]
    inputs = prepare.transform(asked)
    if not len(aim.target.labels):
        predicted = estimator.predict(inputs)
        _check_finite(predicted)
        return Predictions(aim.target.values[rows], predicted, weights)
    predicted, scores, are_probabilities = _classes(estimator, inputs)
    codes = aim.target.codes_of(predicted)
    return Predictions(aim.target.codes[rows], codes, weights, scores, are_probabilities)


def _classes(estimator: Any, inputs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64], bool]:
    """Classes, and probabilities, else decision values; 32-bit probabilities are made to sum to 1 again."""
    if not hasattr(estimator, "predict_proba"):
        return estimator.predict(inputs), np.asarray(estimator.decision_function(inputs), dtype=np.float64), False
    probabilities = np.asarray(estimator.predict_proba(inputs), dtype=np.float64)
    _check_finite(probabilities)
    if answers_most_probable(estimator):
        predicted = estimator.classes_.take(probabilities.argmax(axis=1))
    else:
        predicted = estimator.predict(inputs)
    return predicted, probabilities / probabilities.sum(axis=1, keepdims=True), True


def _check_finite(predicted: NDArray[Any]) -> None:
    if not np.isfinite(predicted).all():
        raise Refused(
            FailureReason.FIT_REFUSED,
            "The fitted model predicts numbers that are not finite; use a smaller learning rate, more regularization, "
            "or smaller values in the columns.",
        )
