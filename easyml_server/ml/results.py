"""What predictions of the test rows say beyond metrics: classes, curves, calibration, residuals.

Row weights count in precision, recall, F1, curves and calibration, as they do in metrics. Rows are counted, and
residuals ranked, without them.
"""

from __future__ import annotations

import warnings
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

from easyml_server.domain.results import (
    CALIBRATION_BINS,
    CURVE_CLASSES,
    CURVE_POINTS,
    PAIRS,
    RESIDUAL_SHARES,
    CalibrationBin,
    ClassCurve,
    ClassificationResults,
    ClassResult,
    ModelResults,
    RegressionResults,
    ResidualQuantile,
    TrueAndPredicted,
)
from easyml_server.ml.metrics import Predictions, scores_of

_TWO: Final = 2
Numbers = NDArray[np.float64]


def results_of(predictions: Predictions, class_count: int, positive: int) -> ModelResults:
    """Of a classification, or of a regression where `class_count` is 0."""
    rows = len(predictions.truth)
    if class_count:
        return ModelResults(rows, classification=_classification(predictions, class_count, positive))
    return ModelResults(rows, regression=_regression(predictions))


def _classification(p: Predictions, class_count: int, positive: int) -> ClassificationResults:
    rows = np.bincount(p.truth, minlength=class_count)
    chosen = [positive] if class_count == _TWO else _with_most_rows(rows)
    curves = [_curve(p, each, class_count) for each in chosen] if p.scores is not None else []
    return ClassificationResults(
        classes=_classes(p, rows),
        curves=tuple(curve for curve in curves if curve is not None),
        left_out=max(class_count - CURVE_CLASSES, 0),
    )


def _classes(p: Predictions, rows: NDArray[np.int64]) -> tuple[ClassResult, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        precisions, recalls, f1s, _ = precision_recall_fscore_support(
            p.truth, p.predicted, labels=np.arange(len(rows)), sample_weight=p.weights, zero_division=0.0
        )
    columns = (each.tolist() for each in (precisions, recalls, f1s, rows))
    return tuple(ClassResult(*values) for values in zip(*columns, strict=True))


def _with_most_rows(rows: NDArray[np.int64]) -> list[int]:
    """Positions in order; of classes with as many rows the first ones."""
    return sorted(np.argsort(-rows, kind="stable")[:CURVE_CLASSES].tolist())


def _curve(p: Predictions, position: int, class_count: int) -> ClassCurve | None:
    """None where the test rows are all of the class, or none is: neither rate has a value then."""
    if p.scores is None:
        return None
    scores = scores_of(p.scores, position) if class_count == _TWO else p.scores[:, position]
    weights = np.ones(len(scores)) if p.weights is None else p.weights
    hits, misses = weights * (p.truth == position), weights * (p.truth != position)
    if not (hits.any() and misses.any() and np.isfinite(scores).all()):
        return None
    thresholds, recalls, false_positives, precisions = _at_thresholds(scores, hits, misses)
    points = _thinned(recalls + false_positives)
    return ClassCurve(
        position=position,
        thresholds=_at(points, thresholds),
        recalls=_at(points, recalls),
        false_positive_rates=_at(points, false_positives),
        precisions=_at(points, precisions),
        calibration=_calibration(scores, weights, hits) if p.are_probabilities else (),
    )


def _at(points: NDArray[np.int64], values: Numbers) -> tuple[float, ...]:
    return tuple(values[points].tolist())


def _at_thresholds(scores: Numbers, hits: Numbers, misses: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Thresholds, recalls, false positive rates and precisions, one for each different score, from the highest on."""
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last_of_equal = np.append(falling[1:] != falling[:-1], True)
    true, false = (np.cumsum(each[order])[last_of_equal] for each in (hits, misses))
    # Rows of weight 0 alone have no precision.
    counted = true + false > 0
    true, false = true[counted], false[counted]
    return falling[last_of_equal][counted], true / true[-1], false / false[-1], true / (true + false)


def _thinned(along: Numbers) -> NDArray[np.int64]:
    """Positions evenly along a rising curve, the first and the last included."""
    if len(along) <= CURVE_POINTS:
        return np.arange(len(along))
    wanted = np.linspace(along[0], along[-1], CURVE_POINTS)
    positions = np.searchsorted(along, wanted)
    positions[-1] = len(along) - 1
    return np.unique(positions)


def _calibration(scores: Numbers, weights: Numbers, hits: Numbers) -> tuple[CalibrationBin, ...]:
    bins = np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)

    def summed(values: Numbers | None) -> Any:
        return np.bincount(bins, values, CALIBRATION_BINS)

    rows, weight, probability, true = summed(None), summed(weights), summed(weights * scores), summed(hits)
    return tuple(
        CalibrationBin(
            lower=number / CALIBRATION_BINS,
            rows=int(rows[number]),
            mean_probability=float(probability[number] / weight[number]),
            share=float(true[number] / weight[number]),
        )
        for number in np.flatnonzero(weight).tolist()
    )


def _regression(p: Predictions) -> RegressionResults:
    true, predicted = (np.asarray(each, dtype=np.float64).ravel() for each in (p.truth, p.predicted))
    with np.errstate(over="ignore", invalid="ignore"):
        quantiles = np.quantile(true - predicted, RESIDUAL_SHARES)
    # Beyond the largest double there is no residual to tell.
    residuals = quantiles.tolist() if np.isfinite(quantiles).all() else []
    order = np.argsort(true, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, PAIRS).round().astype(np.int64))]
    return RegressionResults(
        residuals=tuple(map(ResidualQuantile, RESIDUAL_SHARES, residuals)),
        pairs=tuple(map(TrueAndPredicted, true[chosen].tolist(), predicted[chosen].tolist())),
    )
