"""Metrics against numbers worked out by hand, and what has no value."""

from __future__ import annotations

import math

import numpy as np
import pytest

from easyml_server.domain.algorithms import Task
from easyml_server.domain.experiments import Metric, Partition
from easyml_server.ml.metrics import (
    Predictions,
    confusion_matrix,
    expected_metrics,
    measure,
    metrics_of,
    over_folds,
)

TRUTH = np.array([0, 0, 0, 1, 1, 0, 1, 0])
PREDICTED = np.array([0, 0, 1, 1, 0, 0, 1, 0])
SCORES = np.array([0.1, 0.2, 0.7, 0.9, 0.4, 0.3, 0.8, 0.05])


def two_classes(**changes: object) -> Predictions:
    probabilities = np.column_stack([1 - SCORES, SCORES])
    given = {"truth": TRUTH, "predicted": PREDICTED, "scores": probabilities, "are_probabilities": True}
    return Predictions(**{**given, **changes})  # type: ignore[arg-type]


def test_a_side_with_one_class_has_no_curves_and_no_nan() -> None:
    values = measure(two_classes(truth=np.zeros(8, dtype=int)), 2, 1)
    assert Metric.ROC_AUC not in values
    assert Metric.PR_AUC not in values
    assert all(math.isfinite(value) for value in values.values())


def test_without_a_prediction_of_a_class_precision_is_zero() -> None:
    values = measure(two_classes(predicted=np.zeros(8, dtype=int)), 2, 1)
    assert values[Metric.PRECISION] == values[Metric.F1] == 0


def test_one_row_has_no_r2() -> None:
    values = measure(Predictions(np.array([2.0]), np.array([1.0])), 0, 0)
    assert Metric.R2 not in values
    assert values[Metric.MAE] == 1


def test_a_true_zero_has_no_percentage() -> None:
    assert Metric.MAPE not in measure(Predictions(np.array([0.0, 1.0]), np.array([1.0, 1.0])), 0, 0)


def test_two_classes() -> None:
    values = measure(two_classes(), 2, 1)
    assert set(values) == set(metrics_of(Task.CLASSIFICATION))
    assert values[Metric.ACCURACY] == pytest.approx(6 / 8)
    assert values[Metric.PRECISION] == values[Metric.RECALL] == values[Metric.F1] == pytest.approx(2 / 3)
    assert values[Metric.BALANCED_ACCURACY] == values[Metric.RECALL_MACRO] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert values[Metric.RECALL_WEIGHTED] == pytest.approx(6 / 8)
    assert values[Metric.ROC_AUC] == pytest.approx(14 / 15)  # of 15 pairs one is in the wrong order
    assert values[Metric.PR_AUC] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert values[Metric.MCC] == pytest.approx((2 * 4 - 1 * 1) / (3 * 5))
    losses = -np.log(np.where(TRUTH == 1, SCORES, 1 - SCORES))
    assert values[Metric.LOG_LOSS] == pytest.approx(losses.mean())


def test_the_other_class_can_be_the_positive_one() -> None:
    values = measure(two_classes(), 2, 0)
    assert values[Metric.PRECISION] == pytest.approx(4 / 5)
    assert values[Metric.ROC_AUC] == pytest.approx(14 / 15)
    turned = measure(two_classes(scores=SCORES - 0.5, are_probabilities=False), 2, 0)
    assert turned[Metric.ROC_AUC] == values[Metric.ROC_AUC]
    assert turned[Metric.PR_AUC] == values[Metric.PR_AUC]


def test_decision_values_draw_curves_and_have_no_log_loss() -> None:
    values = measure(two_classes(scores=SCORES - 0.5, are_probabilities=False), 2, 1)
    assert values[Metric.ROC_AUC] == pytest.approx(14 / 15)
    assert Metric.LOG_LOSS not in values


def test_a_weight_counts_like_that_many_rows() -> None:
    weights = np.array([1, 2, 1, 3, 1, 1, 2, 1])
    several = np.repeat(np.arange(8), weights)
    weighted = measure(two_classes(weights=weights.astype(float)), 2, 1)
    rows = two_classes()
    assert rows.scores is not None
    repeated = measure(Predictions(TRUTH[several], PREDICTED[several], None, rows.scores[several], True), 2, 1)
    assert weighted == pytest.approx(repeated)


def test_weights_count_in_every_metric_of_a_regression() -> None:
    truth, predicted, weights = np.array([1.0, 2, 4, 3]), np.array([1.5, 2, 3, 5]), np.array([1, 3, 1, 2])
    several = np.repeat(np.arange(4), weights)
    weighted = measure(Predictions(truth, predicted, weights.astype(float)), 0, 0)
    repeated = measure(Predictions(truth[several], predicted[several]), 0, 0)
    del weighted[Metric.MEDIAN_AE], repeated[Metric.MEDIAN_AE]  # scikit-learn's weighted median does not interpolate
    assert weighted == pytest.approx(repeated)


def test_a_regression() -> None:
    values = measure(Predictions(np.array([1.0, 2, 4, 5]), np.array([2.0, 2, 3, 9])), 0, 0)
    assert set(values) == set(metrics_of(Task.REGRESSION))
    assert values[Metric.MAE] == 1.5
    assert values[Metric.MSE] == 4.5
    assert values[Metric.RMSE] == pytest.approx(4.5**0.5)
    assert values[Metric.R2] == pytest.approx(1 - 18 / 10)
    assert values[Metric.MAPE] == pytest.approx((1 + 0 + 1 / 4 + 4 / 5) / 4)
    assert values[Metric.MEDIAN_AE] == 1
    assert values[Metric.EXPLAINED_VARIANCE] == pytest.approx(1 - 3.5 / 2.5)


def test_more_classes_have_the_mean_of_each_against_the_rest() -> None:
    truth = np.array([0, 1, 2, 0, 1, 2])
    scores = np.eye(3)[[0, 1, 2, 1, 1, 2]] * 0.8 + 0.1
    values = measure(
        Predictions(truth, scores.argmax(axis=1), None, scores / scores.sum(axis=1, keepdims=True), True), 3, 2
    )
    assert values[Metric.ROC_AUC] == pytest.approx((0.75 + 0.875 + 1) / 3)
    assert not {Metric.PRECISION, Metric.RECALL, Metric.F1} & set(values)


def test_folds_have_a_mean_and_a_deviation_where_all_have_a_value() -> None:
    means = over_folds([{Metric.ACCURACY: 0.5, Metric.ROC_AUC: 0.5}, {Metric.ACCURACY: 0.7}])
    assert [(m.metric, m.partition) for m in means] == [(Metric.ACCURACY, Partition.VALIDATION)]
    assert means[0].value == pytest.approx(0.6)
    assert means[0].standard_deviation == pytest.approx(0.1)


def test_a_confusion_matrix_has_true_rows_and_predicted_columns() -> None:
    matrix = confusion_matrix(two_classes(weights=np.full(8, 9.0)), ["no", "yes"], Partition.TEST)
    assert matrix is not None
    assert matrix.labels == ("no", "yes")
    assert matrix.counts == (4, 1, 1, 2)
    assert confusion_matrix(Predictions(np.array([1.0]), np.array([1.0])), [], Partition.TEST) is None
    assert confusion_matrix(two_classes(), [str(i) for i in range(101)], Partition.TEST) is None


def test_what_makes_no_sense_for_a_model_is_not_expected() -> None:
    assert Metric.LOG_LOSS not in expected_metrics(Task.CLASSIFICATION, 2, probabilities=False)
    assert Metric.F1 not in expected_metrics(Task.CLASSIFICATION, 3, probabilities=True)
    assert set(expected_metrics(Task.CLASSIFICATION, 2, probabilities=True)) == set(metrics_of(Task.CLASSIFICATION))
