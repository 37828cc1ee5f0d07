"""What is told while fitting is true, and telling it changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from easyml_server.domain.algorithms import Algorithm, Task
from easyml_server.domain.catalogue import ALGORITHMS, find_algorithm
from easyml_server.domain.events import IterationCompleted
from easyml_server.ml.estimators import build_estimator
from easyml_server.ml.progress import Rows, Watch, fit_estimator

TOLD = [algorithm for algorithm in ALGORITHMS if algorithm.reports_iterations]
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "random_forest": [{}, {"n_estimators": 7}, {"bootstrap": False}, {"max_samples": 0.5, "n_estimators": 25}],
    "extra_trees": [{}, {"n_estimators": 1}, {"bootstrap": True}],
    "gradient_boosting": [{"subsample": 0.5, "max_features": "sqrt"}, {"n_iter_no_change": 3}],
    "xgboost": [{"subsample": 0.5, "colsample_bytree": 0.5}],
    "lightgbm": [{"subsample": 0.5, "subsample_freq": 1, "min_child_samples": 2}],
    "logistic_regression": [{}, {"solver": "liblinear"}],
}
CASES = [(algorithm, settings) for algorithm in TOLD for settings in VARIANTS[algorithm.name]]


def some_rows(task: Task, *, weighted: bool) -> tuple[Rows, Rows]:
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(120, 4))
    score = inputs[:, 0] - inputs[:, 1] + rng.normal(0, 0.3, 120)
    target = np.where(score > 0, "yes", "no") if task is Task.CLASSIFICATION else score
    weights = rng.uniform(0.5, 2, 120) if weighted else None
    rows = Rows(inputs, target, weights)
    rest = Rows(inputs[90:], target[90:], None if weights is None else weights[90:])
    return rows.head(90), rest


def told_fit(algorithm: Algorithm, settings: dict[str, Any], sides: tuple[Rows, Rows], fold: int = 0) -> Any:
    events: list[IterationCompleted] = []
    estimator = build_estimator(algorithm, algorithm.complete(settings), 4_294_967_295)
    return fit_estimator(algorithm, estimator, *sides, Watch(events.append, fold)), events


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("algorithm", "settings"), CASES, ids=lambda x: str(getattr(x, "name", x)))
def test_a_told_fit_gives_the_same_model_as_one_plain_fit(
    algorithm: Algorithm, settings: dict[str, Any], weighted: bool
) -> None:
    learned, held_out = some_rows(algorithm.task, weighted=weighted)
    told, _ = told_fit(algorithm, settings, (learned, held_out))
    plain = build_estimator(algorithm, algorithm.complete(settings), 4_294_967_295)
    coded = algorithm.name == "xgboost" and algorithm.task is Task.CLASSIFICATION
    target = (learned.target == "yes").astype(int) if coded else learned.target
    plain.fit(learned.inputs, target, sample_weight=learned.weights)
    method = "predict_proba" if algorithm.predicts_probabilities else "predict"
    assert_array_equal(getattr(told, method)(held_out.inputs), getattr(plain, method)(held_out.inputs))
    if not coded:
        assert str(told.get_params()) == str(plain.get_params())  # as text, because of NaN
        assert vars(told).keys() - {"evals_result_"} == vars(plain).keys()


@pytest.mark.parametrize("algorithm", TOLD, ids=lambda a: f"{a.task}-{a.name}")
def test_iterations_count_up_to_the_last_and_values_are_named_by_their_rows(algorithm: Algorithm) -> None:
    sides = some_rows(algorithm.task, weighted=False)
    for fold, held_out in ((0, "test"), (2, "validation")):
        _, events = told_fit(algorithm, {}, sides, fold)
        assert {event.fold for event in events} == {fold}
        assert events[-1].iterations in (0, events[-1].iteration)
        names = {name.partition("_")[0] for event in events for name in event.values}
        assert names <= {"train", held_out}
        if algorithm.name in ("xgboost", "lightgbm", "logistic_regression"):
            assert names == {"train", held_out}


def test_the_losses_that_are_told_are_those_of_the_fitted_model() -> None:
    algorithm = find_algorithm(Task.CLASSIFICATION, "xgboost")
    assert algorithm is not None
    learned, held_out = some_rows(Task.CLASSIFICATION, weighted=False)
    model, events = told_fit(algorithm, {}, (learned, held_out))
    probability = model.predict_proba(held_out.inputs)[:, 1]
    loss = -np.log(np.where(held_out.target == "yes", probability, 1 - probability)).mean()
    assert events[-1].values["test_logloss"] == pytest.approx(loss, rel=1e-4)


def test_xgboost_predicts_the_classes_it_was_given() -> None:
    algorithm = find_algorithm(Task.CLASSIFICATION, "xgboost")
    assert algorithm is not None
    sides = some_rows(Task.CLASSIFICATION, weighted=False)
    model, _ = told_fit(algorithm, {}, sides)
    assert set(model.predict(sides[1].inputs)) <= {"yes", "no"}
    assert model.classes_.tolist() == ["no", "yes"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # of no matter here
@pytest.mark.parametrize("algorithm", [a for a in ALGORITHMS if not a.reports_iterations], ids=lambda a: a.name)
def test_an_algorithm_that_cannot_tell_tells_nothing(algorithm: Algorithm) -> None:
    _, events = told_fit(algorithm, {}, some_rows(algorithm.task, weighted=False))
    assert events == []
