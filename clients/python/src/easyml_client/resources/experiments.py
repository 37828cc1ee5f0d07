"""Experiments: what was asked of a training, and what came out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from easyml.v1 import experiment_pb2, training_service_pb2
from easyml_client.resources.base import Resource


class MetricValue(Resource[experiment_pb2.MetricValue]):
    """One measurement: `metric` as in "accuracy", `partition` is "train", "validation" or "test"."""

    metric: str
    partition: str
    value: float
    standard_deviation: float | None


class ConfusionMatrix(Resource[experiment_pb2.ConfusionMatrix]):
    """Counts by true class (rows) and predicted class (columns), row by row."""

    labels: tuple[str, ...]
    counts: tuple[int, ...]
    partition: str

    @property
    def rows(self) -> tuple[tuple[int, ...], ...]:
        """One row per true class."""
        width = len(self.labels)
        return tuple(self.counts[start : start + width] for start in range(0, len(self.counts), width or 1))


class Failure(Resource[experiment_pb2.Failure]):
    """Why a training ended without a model; `kind` is "user" (change the request) or "system" (try again)."""

    kind: str | None
    reason: str | None
    message: str
    stage: str | None
    exit_code: int | None


class TrainingWarning(Resource[experiment_pb2.TrainingWarning]):
    """What was noticed while training."""

    kind: str | None
    column: str | None
    message: str


class Objective(Resource[experiment_pb2.Objective]):
    """What a good model is."""

    metric: str | None
    direction: str | None
    positive_class: str | None
    class_weights: Mapping[str, float]
    balance_classes: bool
    weight_column: str | None


class CrossValidation(Resource[experiment_pb2.CrossValidation]):
    """Scores over folds."""

    folds: int


class TrainingSpec(Resource[experiment_pb2.TrainingSpec]):
    """What was asked for, with what was left open filled in; the split is in `proto.split`."""

    dataset_id: str
    dataset_version_id: str | None
    target: str
    features: tuple[str, ...]
    task: str | None
    algorithm: str
    hyperparameters: Mapping[str, Any] | None
    split_experiment_id: str | None
    test_size: float | None
    cross_validation: CrossValidation | None
    objective: Objective | None
    random_seed: int | None
    model_name: str | None
    max_duration: dt.timedelta | None


class Experiment(Resource[experiment_pb2.Experiment]):
    """One training request and its outcome.

    `state` is "queued", "running", "cancelling", "succeeded", "failed" or "cancelled".
    """

    id: str
    project_id: str
    name: str
    labels: Mapping[str, str]
    state: str
    spec: TrainingSpec | None
    dataset_name: str
    dataset_sha256: str
    metrics: tuple[MetricValue, ...]
    confusion_matrices: tuple[ConfusionMatrix, ...]
    train_rows: int
    test_rows: int
    split_sha256: str
    model_version_id: str | None
    failure: Failure | None
    warnings: tuple[TrainingWarning, ...]
    last_sequence: int
    queue_position: int
    mlflow_run_id: str | None
    creator_id: str
    create_time: dt.datetime
    start_time: dt.datetime | None
    end_time: dt.datetime | None
    update_time: dt.datetime
    etag: str

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("succeeded", "failed", "cancelled")

    def metric(self, name: str, partition: str = "test") -> float | None:
        """One value, such as metric("accuracy"); None if it was not measured."""
        return next((m.value for m in self.metrics if (m.metric, m.partition) == (name, partition)), None)


class TrainingPlan(Resource[training_service_pb2.TrainingPlan]):
    """What a training would do."""

    spec: TrainingSpec | None
    rows: int
    estimated_memory_bytes: int
    estimated_duration: dt.timedelta | None


class ComparedExperiment(Resource[training_service_pb2.ComparedExperiment]):
    """One row of a comparison; rank 1 is best, 0 has no value."""

    rank: int
    experiment: Experiment
    value: float | None
    duration: dt.timedelta | None


class Comparison(Resource[training_service_pb2.CompareExperimentsResponse]):
    """Experiments, best first. Unless `same_test_rows`, the values do not compare."""

    experiments: tuple[ComparedExperiment, ...]
    metric: str
    partition: str
    direction: str
    differing_hyperparameters: tuple[str, ...]
    same_test_rows: bool
