"""Experiments side by side."""

from __future__ import annotations

from datetime import timedelta

import pytest

from easyml_server.domain.algorithms import Task
from easyml_server.domain.errors import InvalidInput
from easyml_server.domain.experiments import Direction, Metric, Partition
from easyml_server.services.trainings import compare, differing
from tests.builders import TIME
from tests.unit.services.builders import a_spec, an_experiment, measured


def test_the_best_comes_first_and_equals_share_a_rank() -> None:
    experiments = [an_experiment(metrics=(measured(value),)) for value in (0.5, 0.9, 0.9, 0.7)]
    found = compare(experiments, Metric.ACCURACY, Partition.TEST)
    assert [(row.rank, row.value) for row in found.rows] == [(1, 0.9), (1, 0.9), (3, 0.7), (4, 0.5)]
    assert found.direction is Direction.MAXIMIZE


def test_less_is_better_where_the_metric_says_so() -> None:
    experiments = [an_experiment(metrics=(measured(value, Metric.LOG_LOSS),)) for value in (0.5, 0.2)]
    found = compare(experiments, Metric.LOG_LOSS, Partition.TEST)
    assert [row.value for row in found.rows] == [0.2, 0.5]


def test_one_without_the_value_comes_last_and_has_no_rank() -> None:
    experiments = [an_experiment(), an_experiment(metrics=(measured(0.1),))]
    found = compare(experiments, Metric.ACCURACY, Partition.TEST)
    assert [(row.rank, row.value) for row in found.rows] == [(1, 0.1), (0, None)]


def test_a_metric_of_another_task_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput) as refused:
        compare([an_experiment(), an_experiment()], Metric.RMSE, Partition.TEST)
    assert refused.value.violations[0].field == "metric"


def test_equal_splits_are_told_from_others() -> None:
    same = [an_experiment(split_sha256="a" * 64) for _ in range(2)]
    assert compare(same, Metric.ACCURACY, Partition.TEST).same_test_rows
    other = [*same, an_experiment(split_sha256="b" * 64)]
    assert not compare(other, Metric.ACCURACY, Partition.TEST).same_test_rows
    unknown = [an_experiment(), an_experiment()]
    assert not compare(unknown, Metric.ACCURACY, Partition.TEST).same_test_rows


def test_the_duration_is_known_once_it_has_ended() -> None:
    ended = an_experiment(start_time=TIME, end_time=TIME + timedelta(seconds=3))
    rows = compare([ended, an_experiment(start_time=TIME)], Metric.ACCURACY, Partition.TEST).rows
    assert {row.duration for row in rows} == {timedelta(seconds=3), None}


def test_settings_that_differ_are_named_also_where_one_has_none() -> None:
    specs = [
        a_spec(hyperparameters={"max_depth": 3, "seed": 1}),
        a_spec(hyperparameters={"max_depth": None, "seed": 1}),
        a_spec(task=Task.CLASSIFICATION, hyperparameters={"max_depth": 3, "seed": 1, "C": 1.0}),
    ]
    assert differing(specs) == ("C", "max_depth")
