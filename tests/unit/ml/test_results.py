"""Results in detail, held against scikit-learn's own curves and counts by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from easyml_server.domain.results import (
    CURVE_CLASSES,
    CURVE_POINTS,
    PAIRS,
    RESIDUAL_SHARES,
    CalibrationBin,
    ClassCurve,
    ClassificationResults,
    ClassResult,
    RegressionResults,
)
from easyml_server.ml.metrics import Predictions
from easyml_server.ml.results import results_of
from easyml_server.repositories.documents.details import ModelResultDocument
from easyml_server.repositories.documents.encoding import bson_bytes, for_bson, for_json
from easyml_server.trainers import codec
from tests.integration.worker_entries import a_success

CHANCE = np.random.default_rng(11)
MOST_BYTES = 256 << 10


def classified(predictions: Predictions, classes: int, positive: int = 1) -> ClassificationResults:
    found = results_of(predictions, classes, positive)
    assert (found.regression, found.rows) == (None, len(predictions.truth))
    assert found.classification is not None
    return found.classification


def regressed(true: Any, predicted: Any) -> RegressionResults:
    found = results_of(Predictions(np.asarray(true), np.asarray(predicted)), 0, 0)
    assert (found.classification, found.rows) == (None, len(true))
    assert found.regression is not None
    return found.regression


def by_probability(
    truth: NDArray[np.int64], probabilities: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> Predictions:
    return Predictions(truth, probabilities.argmax(axis=1), weights, probabilities, are_probabilities=True)


def two_classes(rows: int, *, digits: int = 16) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    truth = CHANCE.integers(0, 2, rows)
    positive = np.clip(0.5 + (truth - 0.5) * 0.3 + CHANCE.normal(0, 0.2, rows), 0, 1).round(digits)
    return truth, np.column_stack([1 - positive, positive])


def only(curves: tuple[ClassCurve, ...]) -> ClassCurve:
    (curve,) = curves
    return curve


def test_a_class_that_no_test_row_has_and_nobody_predicted_is_all_zero_and_has_no_curve() -> None:
    truth, predicted = np.array([0, 0, 1]), np.array([0, 1, 1])
    scores = np.array([[0.8, 0.2, 0.0], [0.3, 0.7, 0.0], [0.1, 0.9, 0.0]])
    found = classified(Predictions(truth, predicted, None, scores, are_probabilities=True), 3)
    assert found.classes == (
        ClassResult(1.0, 0.5, pytest.approx(2 / 3), 2),
        ClassResult(0.5, 1.0, pytest.approx(2 / 3), 1),
        ClassResult(0.0, 0.0, 0.0, 0),
    )
    assert [curve.position for curve in found.curves] == [0, 1]


@pytest.mark.parametrize("scores", [None, np.array([0.1, float("inf"), 0.3, 0.2])], ids=["none", "infinite"])
def test_without_scores_that_can_be_ranked_there_is_no_curve(scores: NDArray[np.float64] | None) -> None:
    truth = np.array([0, 1, 0, 1])
    found = classified(Predictions(truth, truth, None, scores), 2)
    assert found.curves == ()
    assert [each.f1 for each in found.classes] == [1.0, 1.0]


def test_of_test_rows_of_one_class_there_is_no_curve() -> None:
    truth, probabilities = np.ones(5, np.int64), two_classes(5)[1]
    assert classified(by_probability(truth, probabilities), 2).curves == ()


@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("weighted", [False, True])
def test_curves_are_those_of_scikit_learn(positive: int, weighted: bool) -> None:
    truth, probabilities = two_classes(500, digits=1)
    weights = CHANCE.integers(0, 4, 500).astype(np.float64) if weighted else None
    curve = only(classified(by_probability(truth, probabilities, weights), 2, positive).curves)
    assert curve.position == positive
    said = sklearn_metrics.roc_curve(
        truth == positive, probabilities[:, positive], sample_weight=weights, drop_intermediate=False
    )
    # Theirs begins with a threshold that nothing reaches.
    for ours, theirs in zip((curve.false_positive_rates, curve.recalls, curve.thresholds), said, strict=True):
        assert ours == pytest.approx(theirs[1:].tolist())
    precisions, recalls, _ = sklearn_metrics.precision_recall_curve(
        truth == positive, probabilities[:, positive], sample_weight=weights
    )
    assert curve.precisions == pytest.approx(precisions[-2::-1].tolist())
    assert curve.recalls == pytest.approx(recalls[-2::-1].tolist())


def test_decision_values_have_curves_and_no_calibration() -> None:
    truth, probabilities = two_classes(50)
    decisions = 10 * probabilities[:, 1] - 5
    predictions = Predictions(truth, (decisions > 0).astype(np.int64), None, decisions)
    curve = only(classified(predictions, 2, positive=1).curves)
    assert (max(curve.thresholds), min(curve.thresholds)) == (decisions.max(), decisions.min())
    assert curve.calibration == ()
    # Of the other class the score is the opposite.
    assert only(classified(predictions, 2, positive=0).curves).thresholds[0] == -decisions.min()


@given(st.integers(2, 3_000), st.floats(0.02, 0.98))
def test_a_curve_has_at_most_a_hundred_points_and_both_ends(rows: int, share: float) -> None:
    chance = np.random.default_rng(rows)
    truth = (chance.random(rows) < share).astype(np.int64)
    truth[:2] = [0, 1]
    positive = chance.random(rows)
    curve = only(classified(by_probability(truth, np.column_stack([1 - positive, positive])), 2).curves)
    assert len(curve.thresholds) == min(rows, CURVE_POINTS) or rows > CURVE_POINTS >= len(curve.thresholds) > 50
    assert (curve.thresholds[0], curve.thresholds[-1]) == (positive.max(), positive.min())
    assert (curve.recalls[-1], curve.false_positive_rates[-1]) == (1.0, 1.0)
    for rates in (curve.recalls, curve.false_positive_rates):
        assert all(before <= after for before, after in pairwise(rates))
    whole = sklearn_metrics.roc_auc_score(truth, positive)
    area = np.trapezoid([0.0, *curve.recalls], [0.0, *curve.false_positive_rates])
    assert area == pytest.approx(whole, abs=0.03)


def test_calibration_compares_probabilities_with_what_came_true() -> None:
    truth = np.array([0, 1, 1, 1, 0, 1])
    positive = np.array([0.05, 0.75, 0.71, 0.79, 0.0, 1.0])
    weights = np.array([1.0, 1.0, 2.0, 1.0, 3.0, 1.0])
    predictions = by_probability(truth, np.column_stack([1 - positive, positive]), weights)
    bins = only(classified(predictions, 2).curves).calibration
    assert bins == (
        CalibrationBin(0.0, 2, pytest.approx(0.05 / 4), 0.0),
        CalibrationBin(0.7, 3, pytest.approx((0.75 + 2 * 0.71 + 0.79) / 4), 1.0),
        CalibrationBin(0.9, 1, 1.0, 1.0),
    )


def many_classes(classes: int) -> Predictions:
    truth = np.repeat(np.arange(classes), np.where(np.arange(classes) % 2, 6, 3))
    probabilities = CHANCE.random((len(truth), classes)) + 3 * (truth[:, None] == np.arange(classes))
    return by_probability(truth, probabilities / probabilities.sum(axis=1, keepdims=True))


def test_of_many_classes_those_with_the_most_rows_have_curves() -> None:
    found = classified(many_classes(30), 30)
    assert [curve.position for curve in found.curves] == list(range(1, 20, 2))
    assert found.left_out == 20
    assert [each.rows for each in found.classes] == [3, 6] * 15
    assert classified(many_classes(CURVE_CLASSES), CURVE_CLASSES).left_out == 0


def test_the_most_classes_that_can_be_learned_make_a_small_document() -> None:
    results = results_of(many_classes(1_000), 1_000, 999)
    body = ModelResultDocument.of(uuid4(), results).body()
    assert bson_bytes(for_bson(body)) < MOST_BYTES
    assert len(json.dumps(for_json(body))) < MOST_BYTES
    assert ModelResultDocument.from_body(body).to_domain() == results


@pytest.mark.parametrize("rows", [1, 2, PAIRS, 5_000])
def test_residuals_and_pairs_of_a_regression(rows: int) -> None:
    true = CHANCE.normal(size=rows)
    predicted = true + CHANCE.normal(0.5, 0.1, rows)
    found = regressed(true, predicted)
    quantiles = np.quantile(true - predicted, RESIDUAL_SHARES)
    assert [each.share for each in found.residuals] == list(RESIDUAL_SHARES)
    assert [each.residual for each in found.residuals] == pytest.approx(quantiles.tolist())
    assert len(found.pairs) == min(rows, PAIRS)
    rising = [pair.true for pair in found.pairs]
    assert rising == sorted(rising)
    assert (rising[0], rising[-1]) == (true.min(), true.max())
    known = dict(zip(true.tolist(), predicted.tolist(), strict=True))
    assert all(known[pair.true] == pair.predicted for pair in found.pairs)


def test_whole_numbers_are_told_as_such_and_residuals_beyond_a_double_not_at_all() -> None:
    found = regressed([3, 1, 2], [3.0, 1.5, 2.0])
    assert [(pair.true, pair.predicted) for pair in found.pairs] == [(1.0, 1.5), (2.0, 2.0), (3.0, 3.0)]
    assert regressed([1.7e308, 0.0], [-1.7e308, 0.0]).residuals == ()


def test_what_a_worker_tells_is_what_the_server_reads() -> None:
    outcome = replace(a_success(), results=results_of(by_probability(*two_classes(50)), 2, 1))
    assert codec.decode_training(codec.encode_training(outcome)) == outcome
