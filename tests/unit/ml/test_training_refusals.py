"""Bad tables, targets, splits and settings: each fails with its reason, a way out, and no file left behind."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from easyml_server.domain.algorithms import Task
from easyml_server.domain.datasets import ColumnKind, StorageType
from easyml_server.domain.events import LogLine
from easyml_server.domain.experiments import (
    FailureKind,
    FailureReason,
    Metric,
    Objective,
    Split,
    SplitKind,
    TrainingStage,
)
from easyml_server.domain.training import TrainingFailed
from easyml_server.ml import export, training, training_data
from easyml_server.ml.refusal import LibraryRefusal, failure_of, refusal_sentence, words_of
from tests.unit.ml.training_jobs import AN_ID, FEATURES, a_job, a_mixed_table, fail, run

INT, DOUBLE, STRING, BOOL, TIME = (
    StorageType.INT64,
    StorageType.DOUBLE,
    StorageType.STRING,
    StorageType.BOOL,
    StorageType.TIMESTAMP,
)
R = FailureReason
X = (DOUBLE, [float(i) for i in range(40)])
SECRET = "Zaphod"


@pytest.mark.parametrize(
    ("target", "task", "reason", "says"),
    [
        ((STRING, ["a"] * 40), Task.CLASSIFICATION, R.UNSUITABLE_TARGET, "same class"),
        ((INT, [5] * 40), Task.REGRESSION, R.UNSUITABLE_TARGET, "same number"),
        ((STRING, ["a", "b"] * 20), Task.REGRESSION, R.UNSUITABLE_TARGET, "classification"),
        ((BOOL, [True, False] * 20), Task.REGRESSION, R.UNSUITABLE_TARGET, "classification"),
        ((TIME, list(range(40))), Task.REGRESSION, R.UNSUITABLE_TARGET, "another column"),
        ((DOUBLE, [float("inf"), *map(float, range(39))]), Task.REGRESSION, R.UNSUITABLE_TARGET, "infinite"),
        ((DOUBLE, [float("inf")] * 20 + [1.0] * 20), Task.CLASSIFICATION, R.UNSUITABLE_TARGET, "regression"),
        ((DOUBLE, [i / 7 for i in range(40)]), Task.CLASSIFICATION, R.UNSUITABLE_TARGET, "regression"),
        ((INT, list(range(40))), Task.CLASSIFICATION, R.UNSUITABLE_TARGET, "regression"),
        ((STRING, [str(i) for i in range(40)]), Task.CLASSIFICATION, R.UNSUITABLE_TARGET, "fewer classes"),
        ((STRING, [None] * 40), Task.CLASSIFICATION, R.TOO_FEW_ROWS, "0 rows"),
        ((DOUBLE, [float("nan")] * 40), Task.REGRESSION, R.TOO_FEW_ROWS, "0 rows"),
        ((STRING, ["a", "b", "a"] + [None] * 37), Task.CLASSIFICATION, R.TOO_FEW_ROWS, "3 rows"),
        ((STRING, ["a"] * 39 + [SECRET]), Task.CLASSIFICATION, R.IMPOSSIBLE_SPLIT, "split by chance"),
    ],
)
def test_a_target_that_does_not_suit(tmp_path: Path, target: Any, task: Task, reason: FailureReason, says: str) -> None:
    algorithm = "decision_tree"
    failure = fail(a_job(tmp_path, {"x": X, "y": target}, target="y", task=task, algorithm=algorithm))
    assert (failure.kind, failure.reason) == (FailureKind.USER, reason)
    assert says in failure.message
    assert SECRET not in failure.message
    assert failure.stage in (TrainingStage.LOADING, TrainingStage.PREPARING)


def test_three_rows(tmp_path: Path) -> None:
    table = {"x": (DOUBLE, [1.0, 2.0, 3.0]), "y": (DOUBLE, [1.0, 2.0, 3.0])}
    failure = fail(a_job(tmp_path, table, target="y", task=Task.REGRESSION, algorithm="ridge"))
    assert failure.reason is R.TOO_FEW_ROWS


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ((DOUBLE, [None] * 40), ColumnKind.NUMERIC),
        ((DOUBLE, [float("inf")] * 40), ColumnKind.NUMERIC),
        ((STRING, ["a"] * 40), ColumnKind.CATEGORICAL),
        ((STRING, [f"a long text {i}" for i in range(40)]), ColumnKind.TEXT),
    ],
)
def test_nothing_to_learn_from(tmp_path: Path, column: Any, kind: ColumnKind) -> None:
    table = {"x": column, "y": (STRING, ["a", "b"] * 20)}
    failure = fail(a_job(tmp_path, table, target="y", kinds={"x": kind}))
    assert failure.reason is R.NO_FEATURES


@pytest.mark.parametrize(
    ("split", "says"),
    [
        (Split(SplitKind.GROUP, column="same"), "different values"),
        (Split(SplitKind.TIME, column="same"), "whose values are text"),
        (Split(SplitKind.TIME, column="gaps"), "rows without a time"),
        (Split(SplitKind.COLUMN, column="same", test_values=("nowhere",)), "without rows"),
    ],
)
def test_a_split_that_cannot_be_made(tmp_path: Path, split: Split, says: str) -> None:
    table = {
        "x": X,
        "same": (STRING, ["a"] * 40),
        "gaps": (INT, [None, *range(39)]),
        "y": (STRING, ["a", "b"] * 20),
    }
    failure = fail(a_job(tmp_path, table, target="y", features=("x",), split=split))
    assert failure.reason is R.IMPOSSIBLE_SPLIT
    assert says in failure.message


@pytest.mark.parametrize(
    ("algorithm", "settings", "says"),
    [
        ("logistic_regression", {"solver": "lbfgs", "l1_ratio": 0.5}, "lbfgs"),
        ("logistic_regression", {"solver": "liblinear"}, "liblinear"),
        ("linear_svc", {"penalty": "l1", "loss": "hinge"}, "hinge"),
        ("k_neighbors", {"n_neighbors": 5000}, "n_neighbors"),
        ("random_forest", {"bootstrap": False, "max_samples": 0.5}, "max_sample"),
        ("gradient_boosting", {"loss": "exponential"}, "log_loss"),
        ("gaussian_nb", {"var_smoothing": 0.0}, "not finite"),
    ],
)
def test_settings_that_the_library_refuses(tmp_path: Path, algorithm: str, settings: dict[str, Any], says: str) -> None:
    job = a_job(
        tmp_path, a_mixed_table(80), target="level", features=FEATURES, algorithm=algorithm, hyperparameters=settings
    )
    failure = fail(job)
    assert (failure.kind, failure.reason) == (FailureKind.USER, R.FIT_REFUSED)
    assert says in failure.message
    assert failure.stage in (TrainingStage.FITTING, TrainingStage.EVALUATING)


@pytest.mark.parametrize(
    ("algorithm", "settings", "says"),
    [
        ("hist_gradient_boosting", {"loss": "quantile"}, "quantile"),
        ("hist_gradient_boosting", {"loss": "gamma"}, "gamma"),
        ("xgboost", {"objective": "reg:gamma"}, "gamma"),
        ("lightgbm", {"objective": "poisson"}, "label"),
    ],
)
def test_settings_that_do_not_suit_the_numbers(
    tmp_path: Path, algorithm: str, settings: dict[str, Any], says: str
) -> None:
    table = {"x": X, "y": (DOUBLE, [i - 20.5 for i in range(40)])}
    job = a_job(tmp_path, table, target="y", task=Task.REGRESSION, algorithm=algorithm, hyperparameters=settings)
    failure = fail(job)
    assert failure.reason is R.FIT_REFUSED
    assert says in failure.message


@pytest.mark.parametrize(
    ("objective", "reason", "says"),
    [
        (Objective(Metric.ACCURACY, positive_class="high"), R.UNSUITABLE_TARGET, "two classes"),
        (Objective(Metric.F1), R.UNSUITABLE_TARGET, "f1_macro"),
        (Objective(Metric.ACCURACY, class_weights={SECRET: 2.0}), R.UNSUITABLE_TARGET, "spelling"),
        (Objective(Metric.ACCURACY, weight_column="city"), R.FIT_REFUSED, "no numbers"),
        (Objective(Metric.ACCURACY, weight_column="size"), R.FIT_REFUSED, "no weight"),
        (Objective(Metric.ACCURACY, weight_column="nowhere"), R.FIT_REFUSED, "no column"),
    ],
)
def test_an_objective_that_does_not_suit(
    tmp_path: Path, objective: Objective, reason: FailureReason, says: str
) -> None:
    failure = fail(a_job(tmp_path, a_mixed_table(), target="level", features=FEATURES, objective=objective))
    assert failure.reason is reason
    assert says in failure.message
    assert SECRET not in failure.message


def test_a_positive_class_that_is_none(tmp_path: Path) -> None:
    table = {"x": X, "y": (STRING, ["a", "b"] * 20)}
    objective = Objective(Metric.F1, positive_class=SECRET)
    assert fail(a_job(tmp_path, table, target="y", objective=objective)).reason is R.UNSUITABLE_TARGET


def test_settings_for_classes_in_a_regression(tmp_path: Path) -> None:
    job = a_job(
        tmp_path,
        a_mixed_table(),
        target="score",
        task=Task.REGRESSION,
        algorithm="ridge",
        features=FEATURES,
        objective=Objective(Metric.RMSE, balance_classes=True),
    )
    assert fail(job).reason is R.FIT_REFUSED


@pytest.mark.parametrize(
    "objective", [Objective(Metric.ACCURACY, balance_classes=True), Objective(Metric.ACCURACY, weight_column="w")]
)
def test_weights_for_an_algorithm_without_them(tmp_path: Path, objective: Objective) -> None:
    table = {"x": X, "w": (DOUBLE, [1.0] * 40), "y": (STRING, ["a", "b"] * 20)}
    failure = fail(a_job(tmp_path, table, target="y", features=("x",), algorithm="k_neighbors", objective=objective))
    assert failure.reason is R.FIT_REFUSED
    assert "weights" in failure.message


def test_one_side_without_any_weight(tmp_path: Path) -> None:
    table = {"x": X, "w": (INT, [1] * 20 + [0] * 20), "t": (INT, list(range(40))), "y": (STRING, ["a", "b"] * 20)}
    job = a_job(
        tmp_path,
        table,
        target="y",
        features=("x",),
        split=Split(SplitKind.TIME, column="t"),
        objective=Objective(Metric.ACCURACY, weight_column="w"),
    )
    assert fail(job).reason is R.IMPOSSIBLE_SPLIT


def test_a_model_that_is_too_large(tmp_path: Path) -> None:
    failure = fail(a_job(tmp_path, a_mixed_table(), target="level", features=FEATURES, max_model_bytes=1000))
    assert (failure.kind, failure.reason) == (FailureKind.USER, R.MODEL_TOO_LARGE)
    assert failure.stage is TrainingStage.EXPORTING


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 10_000, 150_000])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, size: int) -> None:
    job = a_job(tmp_path, a_mixed_table(), target="level", features=FEATURES)
    with file_size_limit(size):
        failure = fail(job)
    assert (failure.kind, failure.reason) == (FailureKind.SYSTEM, R.DISK_FULL)


def test_a_table_that_is_not_there_is_a_defect_whose_place_is_logged(tmp_path: Path) -> None:
    job = a_job(tmp_path, a_mixed_table(), target="level", features=FEATURES)
    Path(job.table_path).unlink()
    outcome, reports = run(job)
    assert isinstance(outcome, TrainingFailed)
    assert (outcome.failure.kind, outcome.failure.reason) == (FailureKind.SYSTEM, R.INTERNAL)
    assert str(AN_ID) in outcome.failure.message
    logged = [report.text for report in reports if isinstance(report, LogLine)]
    assert "read_frame" in logged[0]
    assert job.table_path not in logged[0]


def test_memory_that_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(training_data, "read_frame", no_memory)
    failure = fail(a_job(tmp_path, a_mixed_table(), target="level", features=FEATURES))
    assert failure.reason is R.OUT_OF_MEMORY
    boosted = failure_of(LibraryRefusal(ValueError("std::bad_alloc")), AN_ID, ())
    assert boosted.reason is R.OUT_OF_MEMORY


def test_a_defect_in_fitting_is_not_the_users_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise AttributeError(SECRET)

    monkeypatch.setattr(training, "fit_estimator", broken)
    outcome, reports = run(a_job(tmp_path, a_mixed_table(), target="level", features=FEATURES))
    assert isinstance(outcome, TrainingFailed)
    assert outcome.failure.reason is R.INTERNAL
    assert SECRET not in str(outcome) + str(reports)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"could not convert string to float: '{SECRET}'", "could not convert string to float: …"),
        (f"y contains previously unseen labels: ['{SECRET}' 'l2']", "y contains previously unseen labels: …"),
        (
            "Solver lbfgs supports only 'l2' penalties, got 0.5 \"l1_ratio\".",
            "Solver lbfgs supports only 'l2' penalties, got 0.5 \"l1_ratio\"",
        ),
        (
            "[12:00:01] /workspace/src/objective.cu:83: label must be positive.\nStack trace:\n  [bt] (0)",
            "label must be positive",
        ),
        ("", "it gave no reason"),
    ],
)
def test_a_librarys_word_is_passed_on_without_cells(said: str, told: str) -> None:
    sentence = refusal_sentence(ValueError(said), words_of(None, {"penalty": "l2", "x": "l1_ratio"}))
    assert sentence == f"The library refused these settings on this data: {told}."


def test_an_error_of_the_disk_that_is_not_fullness_is_a_defect() -> None:
    assert failure_of(OSError(5, os.strerror(5)), AN_ID, ()).reason is R.INTERNAL
    assert failure_of(OSError(28, os.strerror(28)), AN_ID, ()).reason is R.DISK_FULL


def test_a_setting_that_leads_to_an_unknown_type_is_found_when_it_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TRUSTED_TYPES", ())
    failure = fail(a_job(tmp_path, a_mixed_table(), target="level", features=FEATURES, algorithm="decision_tree"))
    assert failure.reason is R.INTERNAL
