"""The catalogue against the libraries: names, defaults and bounds are theirs."""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from easyml_server.domain.algorithms import Algorithm, Hyperparameter, HyperparameterType, Task
from easyml_server.domain.catalogue import ALGORITHMS, find_algorithm
from easyml_server.ml.estimators import build_estimator

# What EasyML decides itself: seeds, threads, output, classes' weights; and what takes arrays or functions.
NOT_OFFERED = {
    *("random_state", "n_jobs", "verbose", "class_weight", "warm_start", "copy_X"),
    *("penalty", "dual", "intercept_scaling", "probability", "decision_function_shape", "criterion", "init"),
    *("monotonic_cst", "interaction_cst", "categorical_features", "scoring", "metric_params", "estimator", "oob_score"),
    *("priors", "alpha_init", "lambda_init", "compute_score", "importance_type", "objective", "loss", "n_jobs"),
}

# Better defaults than the library's, and why.
OTHER_DEFAULTS = {
    ("logistic_regression", "max_iter"): "100 iterations do not converge on many tables",
    ("linear_svc", "max_iter"): "1,000 iterations do not converge on many tables",
    ("huber", "max_iter"): "100 iterations do not converge on many tables",
    ("mlp", "max_iter"): "200 passes do not converge on many tables",
    ("svc", "gamma"): "null is the library's 'scale': the schema has one type, a number",
    ("svr", "gamma"): "null is the library's 'scale': the schema has one type, a number",
    ("mlp", "batch_size"): "null is the library's 'auto': the schema has one type, a whole number",
    ("hist_gradient_boosting", "early_stopping"): "null is the library's 'auto': the schema has one type",
}

SETTINGS = [(a, p) for a in ALGORITHMS for p in a.hyperparameters]
each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: f"{a.task}-{a.name}")
each_setting = pytest.mark.parametrize(
    ("algorithm", "parameter"),
    SETTINGS,
    ids=lambda x: x.name if isinstance(x, Hyperparameter) else f"{x.task}-{x.name}",
)


def _class_of(algorithm: Algorithm) -> Any:
    module, _, name = algorithm.implementation.rpartition(".")
    return getattr(import_module(module), name)


def _library_defaults(algorithm: Algorithm) -> dict[str, Any]:
    parameters = inspect.signature(_class_of(algorithm).__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.name != "self"}


def test_all_algorithms_are_there() -> None:
    names = {task: {a.name for a in ALGORITHMS if a.task is task} for task in Task}
    assert len(names[Task.CLASSIFICATION]) == 15
    assert len(names[Task.REGRESSION]) == 18
    assert len(ALGORITHMS) == 33


def test_an_algorithm_is_found_by_task_and_name() -> None:
    found = find_algorithm(Task.REGRESSION, "random_forest")
    assert found is not None
    assert found.implementation.endswith("RandomForestRegressor")
    assert find_algorithm(Task.CLASSIFICATION, "ridge") is None


@each_setting
def test_a_default_is_the_librarys_unless_there_is_a_reason(algorithm: Algorithm, parameter: Hyperparameter) -> None:
    if algorithm.implementation.startswith("xgboost"):
        return  # proved below: its classes leave every default to the library underneath
    default = _library_defaults(algorithm)[parameter.name]
    if (algorithm.name, parameter.name) in OTHER_DEFAULTS:
        assert parameter.default != default
    else:
        wanted = list(default) if isinstance(default, tuple) else default
        assert parameter.default == wanted
        assert isinstance(parameter.default, bool) == isinstance(wanted, bool)


@pytest.mark.parametrize("task", Task)
def test_the_defaults_of_xgboost_are_what_it_uses_when_nothing_is_said(task: Task) -> None:
    algorithm = find_algorithm(task, "xgboost")
    assert algorithm is not None
    inputs, target = np.arange(20.0).reshape(10, 2), np.arange(10) % 2
    plain = _class_of(algorithm)().fit(inputs, target)
    ours = build_estimator(algorithm, algorithm.complete({}), 0).fit(inputs, target)
    assert plain.n_estimators is None
    assert ours.get_booster().num_boosted_rounds() == plain.get_booster().num_boosted_rounds()
    assert _tree_settings(ours) == _tree_settings(plain)


def _tree_settings(model: Any) -> dict[str, Any]:
    learner = json.loads(model.get_booster().save_config())["learner"]
    return dict(learner["gradient_booster"]["tree_train_param"]) | learner["learner_train_param"]


@each_algorithm
def test_the_librarys_settings_are_offered_or_left_out_on_purpose(algorithm: Algorithm) -> None:
    if algorithm.implementation.startswith("xgboost"):
        return
    offered = {p.name for p in algorithm.hyperparameters}
    assert set(_library_defaults(algorithm)) - offered - NOT_OFFERED <= {"kwargs", "precompute", "shuffle"}
    assert not offered & {"random_state", "n_jobs", "verbose", "class_weight"}


@each_setting
def test_a_schema_accepts_its_own_default_range_and_choices(algorithm: Algorithm, parameter: Hyperparameter) -> None:
    assert parameter.problem_with(parameter.default) is None
    assert parameter.description.endswith(".")
    assert len(parameter.description) > 4
    if parameter.search_range:
        assert parameter.search_range.low < parameter.search_range.high
        assert parameter.search_range.low > 0 or not parameter.search_range.log_scale
        assert parameter.problem_with(parameter.search_range.low) is None
        assert parameter.problem_with(parameter.search_range.high) is None
    assert set(parameter.search_choices) <= set(parameter.choices)
    assert bool(parameter.choices) == (parameter.type is HyperparameterType.CHOICE)


@each_setting
def test_the_library_accepts_what_the_schema_accepts(algorithm: Algorithm, parameter: Hyperparameter) -> None:
    """One value at a time: whether settings suit each other is for the library to say when it fits."""
    values: list[Any] = [parameter.default, *parameter.choices]
    values += [parameter.search_range.low, parameter.search_range.high] if parameter.search_range else []
    values += [parameter.minimum] if parameter.minimum is not None and not parameter.exclusive_minimum else []
    values += [None] if parameter.nullable else []
    for value in values:
        chosen = [value] if parameter.type is HyperparameterType.INTEGER_LIST and not isinstance(value, list) else value
        estimator = build_estimator(algorithm, algorithm.complete({parameter.name: chosen}), 0)
        if hasattr(estimator, "_validate_params") and algorithm.implementation.startswith("sklearn"):
            estimator._validate_params()


@pytest.mark.parametrize("seed", [0, 4_294_967_295])
@each_algorithm
def test_an_estimator_has_one_thread_and_the_seed(algorithm: Algorithm, seed: int) -> None:
    settings = build_estimator(algorithm, algorithm.complete({}), seed).get_params()
    assert settings.get("n_jobs") in (None, 1)
    if "random_state" in settings:
        assert settings["random_state"] == (seed if algorithm.implementation.startswith("sklearn") else seed % 2**31)
