"""The measures of a model, each by `sklearn.metrics`; row weights count in all of them, class weights in none.

Classes are positions 0, 1, 2 … here. Classification (all maximized but log loss):

    ACCURACY             share of rows predicted right
    BALANCED_ACCURACY    mean of the recall of each class that occurs
    PRECISION_, RECALL_, F1_MACRO       mean over the classes; 0 for a class without a prediction
    PRECISION_, RECALL_, F1_WEIGHTED    the same, weighted by the rows of each class
    ROC_AUC              area under the ROC curve; for more than two classes the mean of each against the rest
    PR_AUC               average precision; likewise
    LOG_LOSS             cross-entropy of the probabilities; only where the model gives probabilities
    MCC                  Matthews correlation coefficient
    PRECISION, RECALL, F1               of the positive class; two classes only

Regression: MAE, MSE, RMSE, R2, MAPE (a fraction; none when a true value is zero), MEDIAN_AE, EXPLAINED_VARIANCE.

A measure without a value on some rows (no row of a class to draw its curve, one row for R2) is left out, never NaN.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from easyml_server.domain.algorithms import Task
from easyml_server.domain.experiments import ConfusionMatrix, Metric, MetricValue, Partition

# Above this a matrix is no longer something to look at, and two of them would fill an answer.
MAX_MATRIX_CLASSES: Final = 100

_TWO: Final = 2

Values = dict[Metric, float]


@dataclass(frozen=True, slots=True)
class Predictions:
    """What is true and what was predicted; positions of classes, or numbers.

    `scores` has a column per class (probabilities, else decision values; one column of them for two classes).
    """

    truth: NDArray[Any]
    predicted: NDArray[Any]
    weights: NDArray[np.float64] | None = None
    scores: NDArray[np.float64] | None = None
    are_probabilities: bool = False


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """All measures of a task."""
    return tuple(metric for metric in Metric if metric.task is task)


def measure(predictions: Predictions, class_count: int, positive: int) -> Values:
    """All measures that have a value here; `class_count` is 0 for a regression."""
    computed = _regression(predictions) if class_count == 0 else _classification(predictions, class_count, positive)
    values: Values = {}
    for metric, compute in computed:
        # What scikit-learn warns of here is an undefined value, which is then 0 by definition or not finite.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = float(compute())
        if math.isfinite(value):
            values[metric] = value
    return values


def expected_metrics(task: Task, class_count: int, *, probabilities: bool) -> tuple[Metric, ...]:
    """The measures that make sense for a model: the absence of another needs no warning."""
    two_only = {Metric.PRECISION, Metric.RECALL, Metric.F1}
    return tuple(
        metric
        for metric in metrics_of(task)
        if (metric is not Metric.LOG_LOSS or probabilities) and (metric not in two_only or class_count == _TWO)
    )


def as_metric_values(values: Values, partition: Partition) -> tuple[MetricValue, ...]:
    """In the form of events and results."""
    return tuple(MetricValue(metric, partition, value) for metric, value in values.items())


def over_folds(folds: Sequence[Values]) -> tuple[MetricValue, ...]:
    """Mean and standard deviation over the folds, of measures that every fold has."""
    everywhere = [metric for metric in folds[0] if all(metric in fold for fold in folds)]
    columns = {metric: np.array([fold[metric] for fold in folds]) for metric in everywhere}
    return tuple(
        MetricValue(metric, Partition.VALIDATION, float(column.mean()), float(column.std()))
        for metric, column in columns.items()
    )


def confusion_matrix(predictions: Predictions, classes: Sequence[str], partition: Partition) -> ConfusionMatrix | None:
    """Counts of rows, unweighted; none for more classes than can be looked at."""
    if not 0 < len(classes) <= MAX_MATRIX_CLASSES:
        return None
    counts = sklearn_metrics.confusion_matrix(predictions.truth, predictions.predicted, labels=np.arange(len(classes)))
    return ConfusionMatrix(tuple(classes), tuple(int(count) for count in counts.ravel()), partition)


_Computed = Iterator[tuple[Metric, Callable[[], Any]]]


def _classification(p: Predictions, class_count: int, positive: int) -> _Computed:
    m, weigh = sklearn_metrics, {"sample_weight": p.weights}
    yield Metric.ACCURACY, partial(m.accuracy_score, p.truth, p.predicted, **weigh)
    yield Metric.BALANCED_ACCURACY, partial(m.balanced_accuracy_score, p.truth, p.predicted, **weigh)
    for average, metrics in _AVERAGES.items():
        for metric, score in metrics:
            yield metric, partial(score, p.truth, p.predicted, average=average, zero_division=0.0, **weigh)
    if p.scores is not None:
        yield Metric.ROC_AUC, partial(_over_classes, m.roc_auc_score, p, p.scores, class_count, positive)
        yield Metric.PR_AUC, partial(_over_classes, m.average_precision_score, p, p.scores, class_count, positive)
        if p.are_probabilities:
            yield Metric.LOG_LOSS, partial(m.log_loss, p.truth, p.scores, labels=np.arange(class_count), **weigh)
    yield Metric.MCC, partial(m.matthews_corrcoef, p.truth, p.predicted, **weigh)
    if class_count == _TWO:
        for metric, score in _OF_POSITIVE:
            yield metric, partial(score, p.truth, p.predicted, pos_label=positive, zero_division=0.0, **weigh)


_AVERAGES: Final = {
    "macro": (
        (Metric.PRECISION_MACRO, sklearn_metrics.precision_score),
        (Metric.RECALL_MACRO, sklearn_metrics.recall_score),
        (Metric.F1_MACRO, sklearn_metrics.f1_score),
    ),
    "weighted": (
        (Metric.PRECISION_WEIGHTED, sklearn_metrics.precision_score),
        (Metric.RECALL_WEIGHTED, sklearn_metrics.recall_score),
        (Metric.F1_WEIGHTED, sklearn_metrics.f1_score),
    ),
}
_OF_POSITIVE: Final = (
    (Metric.PRECISION, sklearn_metrics.precision_score),
    (Metric.RECALL, sklearn_metrics.recall_score),
    (Metric.F1, sklearn_metrics.f1_score),
)


def _over_classes(
    score: Callable[..., Any], p: Predictions, scores: NDArray[np.float64], class_count: int, positive: int
) -> float:
    """The score of the positive class, or the mean of each class against the rest; NaN if a class is missing."""
    if len(np.unique(p.truth)) < class_count:
        return math.nan
    if class_count == _TWO:
        return float(score(p.truth == positive, scores_of(scores, positive), sample_weight=p.weights))
    each = [score(p.truth == c, scores[:, c], sample_weight=p.weights) for c in range(class_count)]
    return float(np.mean(each))


def scores_of(scores: NDArray[np.float64], positive: int) -> NDArray[np.float64]:
    """The scores of one of two classes."""
    if scores.ndim > 1:
        return scores[:, positive]
    return scores if positive == 1 else -scores


def _regression(p: Predictions) -> _Computed:
    m, weigh = sklearn_metrics, {"sample_weight": p.weights}
    yield Metric.MAE, partial(m.mean_absolute_error, p.truth, p.predicted, **weigh)
    yield Metric.MSE, partial(m.mean_squared_error, p.truth, p.predicted, **weigh)
    yield Metric.RMSE, partial(m.root_mean_squared_error, p.truth, p.predicted, **weigh)
    if len(p.truth) > 1:
        yield Metric.R2, partial(m.r2_score, p.truth, p.predicted, **weigh)
        yield Metric.EXPLAINED_VARIANCE, partial(m.explained_variance_score, p.truth, p.predicted, **weigh)
    if (p.truth != 0).all():
        yield Metric.MAPE, partial(m.mean_absolute_percentage_error, p.truth, p.predicted, **weigh)
    yield Metric.MEDIAN_AE, partial(m.median_absolute_error, p.truth, p.predicted, **weigh)
