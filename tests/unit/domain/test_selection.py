"""Which version is chosen, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from easyml_server.domain.algorithms import Task
from easyml_server.domain.experiments import Metric, Partition
from easyml_server.domain.models import Artifact, ArtifactFormat, ModelVersion
from easyml_server.domain.selection import Candidate, MetricCriterion, SelectionCriteria, rank
from tests.builders import TIME, a_project
from tests.unit.services.builders import a_version, measured

PROJECT = a_project(uuid4())
SKOPS, ONNX = (
    Artifact(format, f"model.{format}", size, "0" * 64)
    for format, size in ((ArtifactFormat.SKOPS, 5_000), (ArtifactFormat.ONNX, 1_000))
)
ACCURACY, LOSS = MetricCriterion(Metric.ACCURACY), MetricCriterion(Metric.LOG_LOSS)


def a_candidate(version: int, accuracy: float | None = 0.9, **changes: Any) -> ModelVersion:
    """The higher its number, the newer."""
    artifacts = changes.pop("artifacts", (SKOPS, ONNX))
    made = a_version(
        PROJECT,
        version=version,
        create_time=TIME + timedelta(minutes=version),
        metrics=() if accuracy is None else (measured(accuracy),),
    )
    return replace(made, manifest=replace(made.manifest, artifacts=artifacts), **changes)


def numbers(candidates: list[Candidate]) -> list[int]:
    return [candidate.version.version for candidate in candidates]


def test_the_best_by_the_primary_metric_comes_first() -> None:
    versions = [a_candidate(1, 0.8), a_candidate(2, 0.95), a_candidate(3, 0.9)]
    ranking = rank(versions, SelectionCriteria(ACCURACY))
    assert numbers(ranking) == [2, 3, 1]
    assert [each.rank for each in ranking] == [1, 2, 3]
    assert [each.reason for each in ranking] == [
        "Best accuracy: 0.95.",
        "accuracy is 0.9, after 0.95 of the one before.",
        "accuracy is 0.8, after 0.9 of the one before.",
    ]


def test_a_metric_to_minimize_is_minimized() -> None:
    versions = [a_candidate(n, metrics=(measured(loss, Metric.LOG_LOSS),)) for n, loss in ((1, 0.2), (2, 0.1))]
    ranking = rank(versions, SelectionCriteria(replace(LOSS, threshold=0.15)))
    assert numbers(ranking) == [2, 1]
    assert ranking[1].reason == "Log_loss is 0.2, and at most 0.15 is asked for."


def test_ties_are_decided_by_further_metrics_and_then_by_age() -> None:
    losses = {1: 0.3, 2: 0.1, 3: 0.3}
    versions = [a_candidate(n, metrics=(measured(0.9), measured(loss, Metric.LOG_LOSS))) for n, loss in losses.items()]
    ranking = rank(versions, SelectionCriteria(ACCURACY, (LOSS,)))
    assert numbers(ranking) == [2, 3, 1]
    assert ranking[1].reason == "log_loss is 0.3, after 0.1 of the one before."
    assert ranking[2].reason == "Accuracy is 0.9, as that of the one before, which is newer."
    assert numbers(rank(versions, SelectionCriteria(ACCURACY))) == [3, 2, 1]


def test_the_latest_is_preferred_only_among_those_that_meet_the_rest() -> None:
    versions = [a_candidate(1, 0.99), a_candidate(2, 0.9), a_candidate(3, 0.5)]
    ranking = rank(versions, SelectionCriteria(replace(ACCURACY, threshold=0.8), prefer_latest=True))
    assert numbers(ranking) == [2, 1, 3]
    assert ranking[0].reason == "Accuracy is 0.9, and it is the newest that meets the criteria."
    assert not ranking[2].eligible


def test_a_threshold_itself_is_good_enough() -> None:
    (only,) = rank([a_candidate(1, 0.9)], SelectionCriteria(replace(ACCURACY, threshold=0.9)))
    assert only.eligible


@pytest.mark.parametrize(
    ("version", "criteria", "reason"),
    [
        (a_candidate(1, None), SelectionCriteria(ACCURACY), "Accuracy is not known of its test rows."),
        (a_candidate(1, float("nan")), SelectionCriteria(ACCURACY), "Accuracy is not known of its test rows."),
        (
            a_candidate(1, metrics=(measured(0.9, partition=Partition.TRAIN),)),
            SelectionCriteria(ACCURACY),
            "Accuracy is not known of its test rows.",
        ),
        (a_candidate(1), SelectionCriteria(ACCURACY, (LOSS,)), "Log_loss is not known of its test rows."),
        (
            a_candidate(1),
            SelectionCriteria(MetricCriterion(Metric.RMSE)),
            "Rmse does not measure a classification.",
        ),
        (
            a_candidate(1),
            SelectionCriteria(ACCURACY, max_size_bytes=999),
            "It has 1,000 bytes, and at most 999 are asked for.",
        ),
        (
            a_candidate(1, artifacts=(SKOPS,)),
            SelectionCriteria(ACCURACY, max_size_bytes=1_000),
            "It has 5,000 bytes, and at most 1,000 are asked for.",
        ),
        (
            a_candidate(1),
            SelectionCriteria(ACCURACY, max_inference_time_ms=1),
            "Its inference time was not measured when it was trained (train it again).",
        ),
        (
            a_candidate(1, inference_time_ms=1.25),
            SelectionCriteria(ACCURACY, max_inference_time_ms=1),
            "A row takes 1.25 ms, and at most 1 ms is asked for.",
        ),
        (
            a_candidate(1),
            SelectionCriteria(ACCURACY, require_validation=True),
            "It was not cross-validated (train it with folds).",
        ),
        (
            a_candidate(1, 0.5),
            SelectionCriteria(replace(ACCURACY, threshold=0.6), max_size_bytes=1),
            "Accuracy is 0.5, and at least 0.6 is asked for; it has 1,000 bytes, and at most 1 are asked for.",
        ),
    ],
)
def test_what_is_not_eligible_says_all_that_it_lacks(
    version: ModelVersion, criteria: SelectionCriteria, reason: str
) -> None:
    (only,) = rank([version], criteria)
    assert (only.eligible, only.rank, only.reason) == (False, 0, reason)


def test_what_meets_every_limit_is_eligible() -> None:
    validated = (measured(0.9), measured(0.85, partition=Partition.VALIDATION))
    version = a_candidate(1, metrics=validated, inference_time_ms=1.0)
    criteria = SelectionCriteria(ACCURACY, max_size_bytes=1_000, max_inference_time_ms=1, require_validation=True)
    (only,) = rank([version], criteria)
    assert only.eligible
    assert (only.validated, only.size_bytes, [each.value for each in only.metrics]) == (True, 1_000, [0.9])


def test_a_regression_is_no_candidate_for_a_classification() -> None:
    version = a_candidate(1, metrics=(measured(0.1, Metric.RMSE),))
    regression = replace(version, manifest=replace(version.manifest, task=Task.REGRESSION))
    ranking = rank([regression, a_candidate(2)], SelectionCriteria(ACCURACY))
    assert numbers(ranking) == [2, 1]
    assert [each.eligible for each in ranking] == [True, False]


def test_nothing_to_rank_is_an_empty_ranking() -> None:
    assert rank([], SelectionCriteria(ACCURACY)) == []
