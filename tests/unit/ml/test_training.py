"""What a training notices, weighs, reports and stores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from easyml_server.domain.algorithms import Task
from easyml_server.domain.datasets import ColumnKind, StorageType
from easyml_server.domain.events import FoldCompleted, IterationCompleted, LogLine
from easyml_server.domain.experiments import (
    Metric,
    Objective,
    Partition,
    Split,
    SplitKind,
    TrainingWarningKind,
)
from easyml_server.domain.training import SplitMade, TrainingSucceeded
from easyml_server.ml import graphs
from easyml_server.ml.export import load_pipeline
from easyml_server.ml.frames import read_frame
from easyml_server.ml.prepare import prepare
from tests.unit.ml.training_jobs import FEATURES, a_job, a_mixed_table, again, succeed, warnings_of

INT, DOUBLE, STRING, BOOL = StorageType.INT64, StorageType.DOUBLE, StorageType.STRING, StorageType.BOOL
W = TrainingWarningKind
RNG = np.random.default_rng(5)
NOISE = (DOUBLE, RNG.normal(size=60).tolist())
ANSWER = (STRING, ["no", "yes"] * 30)


def value(outcome: TrainingSucceeded, metric: Metric, partition: Partition = Partition.TEST) -> float:
    return next(m.value for m in outcome.metrics if (m.metric, m.partition) == (metric, partition))


@pytest.mark.parametrize(
    ("column", "kind", "warning", "kept"),
    [
        ((DOUBLE, [None] * 60), ColumnKind.NUMERIC, W.ALL_NULL_COLUMN, False),
        ((INT, [4] * 60), ColumnKind.NUMERIC, W.CONSTANT_COLUMN, False),
        ((STRING, ["a"] * 60), ColumnKind.CATEGORICAL, W.CONSTANT_COLUMN, False),
        ((BOOL, [True] * 60), ColumnKind.BOOLEAN, W.CONSTANT_COLUMN, False),
        ((STRING, [f"some words {i % 7}" for i in range(60)]), ColumnKind.TEXT, W.TEXT_COLUMN, False),
        ((STRING, [f"key-{i}" for i in range(60)]), ColumnKind.CATEGORICAL, W.IDENTIFIER_LIKE_COLUMN, True),
        ((INT, [1000 + i for i in range(60)]), ColumnKind.NUMERIC, W.IDENTIFIER_LIKE_COLUMN, True),
        ((DOUBLE, [float("inf"), 1e300, *RNG.normal(size=58)]), ColumnKind.NUMERIC, W.INFINITE_VALUES, True),
        ((DOUBLE, [float(i % 2) for i in range(60)]), ColumnKind.NUMERIC, W.POSSIBLE_LEAK, True),
    ],
)
def test_an_odd_column_is_warned_of_and_left_out_if_useless(
    tmp_path: Path, column: Any, kind: ColumnKind, warning: TrainingWarningKind, kept: bool
) -> None:
    job = a_job(tmp_path, {"x": NOISE, "odd": column, "y": ANSWER}, target="y", kinds={"odd": kind})
    outcome, reports = succeed(job)
    assert warnings_of(reports).get(warning) == ["odd"]
    assert [c.name for c in outcome.manifest.signature.inputs] == (["x", "odd"] if kept else ["x"])


def test_an_ordinary_table_is_not_warned_of(tmp_path: Path) -> None:
    _, reports = succeed(a_job(tmp_path, a_mixed_table(), target="level", features=FEATURES))
    assert warnings_of(reports) == {}
    assert not [report for report in reports if isinstance(report, LogLine)]


def test_a_column_that_is_the_target_of_a_regression_in_other_units_is_a_possible_leak(tmp_path: Path) -> None:
    amount = RNG.normal(size=60)
    table = {"x": NOISE, "cents": (DOUBLE, (amount * 100 + 3).tolist()), "y": (DOUBLE, amount.tolist())}
    _, reports = succeed(a_job(tmp_path, table, target="y", task=Task.REGRESSION, algorithm="ridge"))
    assert warnings_of(reports)[W.POSSIBLE_LEAK] == ["cents"]


def test_rows_without_a_target_are_left_out_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    table = a_mixed_table(80)
    gaps = dict(table)
    gaps["level"] = (STRING, [None, None, *table["level"][1][2:]])
    by_age = Split(SplitKind.COLUMN, column="member", test_values=("true",))
    features = tuple(name for name in FEATURES if name != "member")
    whole = succeed(a_job(tmp_path, table, target="level", features=features, split=by_age))[1]
    holed = succeed(a_job(tmp_path, gaps, target="level", features=features, split=by_age))[1]
    assert warnings_of(holed)[W.ROWS_WITHOUT_TARGET] == ["level"]
    first, second = (next(r for r in reports if isinstance(r, SplitMade)) for reports in (whole, holed))
    assert first.train_rows + first.test_rows == second.train_rows + second.test_rows + 2
    assert (first.test_rows == second.test_rows) == (first.split_sha256 == second.split_sha256)


def test_a_rare_class_is_warned_of(tmp_path: Path) -> None:
    table = {"x": NOISE, "y": (STRING, ["a"] * 30 + ["b"] * 26 + ["c"] * 4)}
    _, reports = succeed(a_job(tmp_path, table, target="y"))
    assert warnings_of(reports)[W.RARE_CLASS] == ["y"]


@pytest.mark.parametrize("algorithm", ["logistic_regression", "mlp", "sgd", "linear_svc", "svc"])
def test_a_solver_that_stops_early_is_warned_of_and_gives_a_model(tmp_path: Path, algorithm: str) -> None:
    settings = {"max_iter": 1} if algorithm != "linear_svc" else {"max_iter": 1, "tol": 1e-12}
    job = a_job(
        tmp_path, a_mixed_table(), target="level", features=FEATURES, algorithm=algorithm, hyperparameters=settings
    )
    _, reports = succeed(job)
    assert warnings_of(reports)[W.NOT_CONVERGED] == [""]


def test_a_side_with_one_class_leaves_curves_out_and_says_so(tmp_path: Path) -> None:
    table = {"x": NOISE, "t": (INT, list(range(60))), "y": (STRING, ["a", "b"] * 20 + ["a"] * 20)}
    job = a_job(
        tmp_path,
        table,
        target="y",
        features=("x",),
        split=Split(SplitKind.TIME, column="t"),
        objective=Objective(Metric.ROC_AUC),
    )
    outcome, reports = succeed(job)
    assert warnings_of(reports)[W.METRIC_UNDEFINED] == [""]
    on_test = {m.metric for m in outcome.metrics if m.partition is Partition.TEST}
    assert Metric.ROC_AUC not in on_test
    assert Metric.ACCURACY in on_test


def test_a_primary_metric_that_a_model_cannot_have_is_said_to_be_undefined(tmp_path: Path) -> None:
    job = a_job(
        tmp_path, {"x": NOISE, "y": ANSWER}, target="y", algorithm="linear_svc", objective=Objective(Metric.LOG_LOSS)
    )
    _, reports = succeed(job)
    assert len(warnings_of(reports)[W.METRIC_UNDEFINED]) == 2  # train and test


def test_folds_are_scored_apart_and_their_mean_is_the_validation_value(tmp_path: Path) -> None:
    outcome, reports = succeed(a_job(tmp_path, a_mixed_table(), target="level", features=FEATURES, folds=4))
    folds = [report for report in reports if isinstance(report, FoldCompleted)]
    assert [(f.fold, f.folds) for f in folds] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    scores = [m.value for f in folds for m in f.metrics if m.metric is Metric.ACCURACY]
    mean = next(m for m in outcome.metrics if (m.metric, m.partition) == (Metric.ACCURACY, Partition.VALIDATION))
    assert mean.value == pytest.approx(np.mean(scores))
    assert mean.standard_deviation == pytest.approx(np.std(scores))
    assert {report.fold for report in reports if isinstance(report, IterationCompleted)} == {0, 1, 2, 3, 4}


def test_folds_change_nothing_about_the_model(tmp_path: Path) -> None:
    job = a_job(tmp_path, a_mixed_table(), target="level", features=FEATURES, algorithm="extra_trees", folds=3)
    with_folds, without = succeed(job)[0], succeed(again(job, folds=0))[0]
    assert [m for m in with_folds.metrics if m.partition is Partition.TEST] == [
        m for m in without.metrics if m.partition is Partition.TEST
    ]


@pytest.mark.parametrize(
    ("classes", "output_type", "texts"),
    [
        ((BOOL, [False, True] * 30), BOOL, ("false", "true")),
        ((INT, [10, 9] * 30), INT, ("9", "10")),
        ((DOUBLE, [1.0, -2.0] * 30), INT, ("-2", "1")),
        ((STRING, ["b", "Łódź"] * 30), STRING, ("b", "Łódź")),
        ((STRING, ["", "prediction"] * 30), STRING, ("", "prediction")),
    ],
)
@pytest.mark.parametrize("algorithm", ["xgboost", "lightgbm", "logistic_regression", "svc", "hist_gradient_boosting"])
def test_classes_of_any_type_come_out_as_they_went_in(
    tmp_path: Path, algorithm: str, classes: Any, output_type: StorageType, texts: tuple[str, ...]
) -> None:
    signal = [float(i % 2 * 9 + i % 3) for i in range(60)]
    job = a_job(tmp_path, {"x": (DOUBLE, signal), "y": classes}, target="y", algorithm=algorithm)
    outcome, _ = succeed(job)
    signature = outcome.manifest.signature
    assert (signature.output_type, signature.classes) == (output_type, texts)
    assert outcome.manifest.parity.proved, outcome.manifest.parity.cause
    rows = prepare(read_frame(job.table_path, ["x"]), signature)
    predicted = load_pipeline(Path(job.output_path, "model.skops")).predict(rows)
    assert predicted.tolist() == classes[1]
    graph = graphs.ask_graph(graphs.open_graph(Path(job.output_path, "model.onnx").read_bytes()), rows)
    assert graph.predictions.astype(predicted.dtype).tolist() == classes[1]


def test_the_positive_class_decides_what_precision_is_of(tmp_path: Path) -> None:
    table = {"x": NOISE, "z": (DOUBLE, RNG.normal(size=60).tolist()), "y": (BOOL, [True, True, False] * 20)}
    job = a_job(tmp_path, table, target="y", objective=Objective(Metric.RECALL))
    last = succeed(job)[0]
    other = succeed(again(job, objective=Objective(Metric.RECALL, positive_class="False")))[0]
    matrix = last.confusion_matrices[1]
    assert matrix.labels == ("false", "true")
    assert value(last, Metric.RECALL) == pytest.approx(matrix.counts[3] / sum(matrix.counts[2:]))
    assert value(other, Metric.RECALL) == pytest.approx(matrix.counts[0] / sum(matrix.counts[:2]))


@pytest.mark.parametrize(
    ("objective", "class_weight"),
    [
        (Objective(Metric.ACCURACY, balance_classes=True), "balanced"),
        (Objective(Metric.ACCURACY, class_weights={"yes": 5.0}), {"yes": 5.0, "no": 1.0}),
    ],
)
def test_class_weights_do_what_the_librarys_own_do(tmp_path: Path, objective: Objective, class_weight: Any) -> None:
    signal = [i % 3 * 0.3 + n for i, n in enumerate(NOISE[1])]
    table = {"x": (DOUBLE, signal), "t": (INT, list(range(60))), "y": (STRING, ["no", "no", "yes"] * 20)}
    job = a_job(
        tmp_path, table, target="y", features=("x",), objective=objective, split=Split(SplitKind.TIME, column="t")
    )
    succeed(job)
    ours = load_pipeline(Path(job.output_path, "model.skops"))
    inputs = StandardScaler().fit_transform(np.array(signal[:48]).reshape(-1, 1))
    plain = LogisticRegression(class_weight=class_weight, max_iter=1000).fit(inputs, table["y"][1][:48])
    assert ours[-1].coef_ == pytest.approx(plain.coef_, rel=1e-4)


def test_a_row_of_weight_zero_teaches_nothing(tmp_path: Path) -> None:
    lies = ["yes" if i % 5 == 0 else answer for i, answer in enumerate(ANSWER[1])]
    table = {
        "x": (DOUBLE, [float(answer == "yes") + n / 99 for answer, n in zip(ANSWER[1], NOISE[1], strict=True)]),
        "w": (DOUBLE, [0.0 if i % 5 == 0 else 2.0 for i in range(60)]),
        "y": (STRING, lies),
    }
    objective = Objective(Metric.ACCURACY, weight_column="w")
    job = a_job(tmp_path, table, target="y", features=("x",), algorithm="decision_tree", objective=objective)
    outcome, _ = succeed(job)
    assert value(outcome, Metric.ACCURACY) == value(outcome, Metric.ACCURACY, Partition.TRAIN) == 1
    matrix = outcome.confusion_matrices[0]
    assert sum(matrix.counts) == 48  # rows, whatever they weigh


@pytest.mark.parametrize(
    "names",
    [
        ("label", "prediction", "probabilities", "variable"),
        ("c0", "c1", "c2", "transformed_column"),
        ("", " ", "a b", "price (€)"),
        ("x/y", 'quo"te', "new\nline", "[1]"),
    ],
)
@pytest.mark.parametrize("algorithm", ["logistic_regression", "lightgbm", "xgboost"])
def test_columns_may_have_any_name(tmp_path: Path, algorithm: str, names: tuple[str, ...]) -> None:
    table: dict[str, Any] = {name: (DOUBLE, RNG.normal(size=60).tolist()) for name in names[:3]}
    table[names[3]] = (STRING, ["a", "b", "c", "d"] * 15)
    table["the target"] = ANSWER
    outcome, _ = succeed(a_job(tmp_path, table, target="the target", algorithm=algorithm))
    assert outcome.manifest.parity.proved, outcome.manifest.parity.cause
    assert tuple(column.name for column in outcome.manifest.signature.inputs) == names


def test_many_categories_share_a_column_and_are_still_known(tmp_path: Path) -> None:
    places = [f"place {i % 90}" for i in range(300)]
    table = {"place": (STRING, places), "y": (DOUBLE, [float(i % 90) + i / 99 for i in range(300)])}
    job = a_job(tmp_path, table, target="y", task=Task.REGRESSION, algorithm="ridge")
    outcome, _ = succeed(job)
    assert outcome.manifest.parity.proved
    pipeline = load_pipeline(Path(job.output_path, "model.skops"))
    assert pipeline[-1].n_features_in_ == 50
    assert 80 < len(outcome.manifest.signature.inputs[0].categories) <= 90


def test_a_column_without_gaps_in_training_is_not_nullable(tmp_path: Path) -> None:
    table = {"whole": NOISE, "holed": (DOUBLE, [None, *NOISE[1][1:]]), "y": ANSWER}
    outcome, _ = succeed(a_job(tmp_path, table, target="y"))
    assert {c.name: c.nullable for c in outcome.manifest.signature.inputs} == {"whole": False, "holed": True}


def test_the_input_example_is_raw(tmp_path: Path) -> None:
    outcome, _ = succeed(a_job(tmp_path, a_mixed_table(), target="level", features=FEATURES))
    row = next(row for row in outcome.manifest.input_example if None not in row.values())
    assert isinstance(row["size"], float)
    assert isinstance(row["age"], int)
    assert isinstance(row["city"], str)
    assert isinstance(row["member"], bool)
    assert row["since"].endswith("Z")
    assert row["since"].startswith("202")


def test_another_seed_gives_another_split(tmp_path: Path) -> None:
    job = a_job(tmp_path, a_mixed_table(), target="level", features=FEATURES)
    other = again(job, split=replace(job.spec.split, seed=8))
    first, second = (next(r for r in succeed(j)[1] if isinstance(r, SplitMade)) for j in (job, other))
    assert first.split_sha256 != second.split_sha256
    assert first.test_rows == second.test_rows


def test_what_is_learned_comes_from_the_training_rows_alone(tmp_path: Path) -> None:
    """Imputation and scaling too: the test rows here would move both."""
    values: list[float | None] = [*map(float, range(48)), *[1e6] * 12]
    values[3] = None
    table = {"x": (DOUBLE, values), "t": (INT, list(range(60))), "y": ANSWER}
    job = a_job(tmp_path, table, target="y", features=("x",), split=Split(SplitKind.TIME, column="t"))
    succeed(job)
    numbers = load_pipeline(Path(job.output_path, "model.skops"))[0].named_transformers_["numbers"]
    assert numbers[0].statistics_[0] == np.median([i for i in range(48) if i != 3])
    assert numbers[1].mean_[0] < 48
