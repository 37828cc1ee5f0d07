"""Experiments: one training request and its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from easyml_server.domain.algorithms import Task


class TrainingState(StrEnum):
    """Where a training is; names as in the contract."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing changes any more."""
        return self in (TrainingState.SUCCEEDED, TrainingState.FAILED, TrainingState.CANCELLED)


class TrainingStage(StrEnum):
    """Parts of a training, in order; names as in the contract."""

    LOADING = "loading"
    PREPARING = "preparing"
    CROSS_VALIDATING = "cross_validating"
    FITTING = "fitting"
    EVALUATING = "evaluating"
    EXPORTING = "exporting"


class Partition(StrEnum):
    """A part of the rows; names as in the contract."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Direction(StrEnum):
    """Whether more is better; names as in the contract."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


class Metric(StrEnum):
    """Measures of a model; names as in the contract, which defines each."""

    ACCURACY = "accuracy"
    BALANCED_ACCURACY = "balanced_accuracy"
    PRECISION_MACRO = "precision_macro"
    PRECISION_WEIGHTED = "precision_weighted"
    RECALL_MACRO = "recall_macro"
    RECALL_WEIGHTED = "recall_weighted"
    F1_MACRO = "f1_macro"
    F1_WEIGHTED = "f1_weighted"
    ROC_AUC = "roc_auc"
    PR_AUC = "pr_auc"
    LOG_LOSS = "log_loss"
    MCC = "mcc"
    PRECISION = "precision"
    RECALL = "recall"
    F1 = "f1"
    MAE = "mae"
    MSE = "mse"
    RMSE = "rmse"
    R2 = "r2"
    MAPE = "mape"
    MEDIAN_AE = "median_ae"
    EXPLAINED_VARIANCE = "explained_variance"

    @property
    def direction(self) -> Direction:
        """Whether more of it is better."""
        return Direction.MINIMIZE if self in _MINIMIZED else Direction.MAXIMIZE

    @property
    def task(self) -> Task:
        """The task it measures."""
        return Task.REGRESSION if self in _REGRESSION else Task.CLASSIFICATION


_REGRESSION = frozenset(
    {Metric.MAE, Metric.MSE, Metric.RMSE, Metric.R2, Metric.MAPE, Metric.MEDIAN_AE, Metric.EXPLAINED_VARIANCE}
)
_MINIMIZED = frozenset({Metric.LOG_LOSS, Metric.MAE, Metric.MSE, Metric.RMSE, Metric.MAPE, Metric.MEDIAN_AE})
DEFAULT_METRIC = {Task.CLASSIFICATION: Metric.ACCURACY, Task.REGRESSION: Metric.RMSE}


class SplitKind(StrEnum):
    """Kinds of a split; the cases of the contract's `oneof`."""

    RANDOM = "random"
    STRATIFIED = "stratified"
    GROUP = "group"
    TIME = "time"
    COLUMN = "column"


class FailureKind(StrEnum):
    """Whose input caused a failure; names as in the contract."""

    USER = "user"
    SYSTEM = "system"


class FailureReason(StrEnum):
    """Typed causes of a failed training; names as in the contract."""

    UNSUITABLE_TARGET = "unsuitable_target"
    TOO_FEW_ROWS = "too_few_rows"
    IMPOSSIBLE_SPLIT = "impossible_split"
    NO_FEATURES = "no_features"
    FIT_REFUSED = "fit_refused"
    TIME_LIMIT = "time_limit"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_DIED = "worker_died"
    SERVER_STOPPED = "server_stopped"
    DISK_FULL = "disk_full"
    INTERNAL = "internal"
    MODEL_TOO_LARGE = "model_too_large"


class TrainingWarningKind(StrEnum):
    """What is noticed while training; names as in the contract."""

    IDENTIFIER_LIKE_COLUMN = "identifier_like_column"
    CONSTANT_COLUMN = "constant_column"
    ALL_NULL_COLUMN = "all_null_column"
    RARE_CLASS = "rare_class"
    NOT_CONVERGED = "not_converged"
    PARITY_NOT_PROVED = "parity_not_proved"
    ROWS_WITHOUT_TARGET = "rows_without_target"
    INFINITE_VALUES = "infinite_values"
    EVENTS_THINNED = "events_thinned"
    PARAMETER_ADJUSTED = "parameter_adjusted"
    POSSIBLE_LEAK = "possible_leak"
    TEXT_COLUMN = "text_column"
    METRIC_UNDEFINED = "metric_undefined"


@dataclass(frozen=True, slots=True)
class Split:
    """Which rows a model is tested on; folds are of the same kind.

    `column` is the group, time or deciding column; `test_values` go with SplitKind.COLUMN, which ignores `test_size`.
    """

    kind: SplitKind
    test_size: float = 0.2
    seed: int = 0
    column: str = ""
    test_values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Objective:
    """What a good model is."""

    metric: Metric
    positive_class: str = ""
    class_weights: Mapping[str, float] = field(default_factory=dict)
    balance_classes: bool = False
    weight_column: str = ""


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """What a training does, with everything filled in that the request left open."""

    dataset_id: UUID
    dataset_version_id: UUID
    target: str
    features: tuple[str, ...]
    task: Task
    algorithm: str
    hyperparameters: Mapping[str, Any]
    split: Split
    objective: Objective
    random_seed: int
    model_name: str
    max_seconds: float
    folds: int = 0
    split_experiment_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One measurement; `standard_deviation` is over the folds."""

    metric: Metric
    partition: Partition
    value: float
    standard_deviation: float | None = None


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
    """Counts of rows by true (row) and predicted (column) class, row by row."""

    labels: tuple[str, ...]
    counts: tuple[int, ...]
    partition: Partition


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a training ended without a model; the message holds no values of cells."""

    kind: FailureKind
    reason: FailureReason
    message: str
    stage: TrainingStage | None = None
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class TrainingWarning:
    """One thing that was noticed; the message holds no values of cells."""

    kind: TrainingWarningKind
    column: str
    message: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """One training request and its outcome."""

    id: UUID
    project_id: UUID
    name: str
    labels: Mapping[str, str]
    state: TrainingState
    spec: TrainingSpec
    dataset_name: str
    dataset_sha256: str
    creator_id: UUID
    create_time: datetime
    update_time: datetime
    etag: str
    metrics: tuple[MetricValue, ...] = ()
    confusion_matrices: tuple[ConfusionMatrix, ...] = ()
    train_rows: int = 0
    test_rows: int = 0
    split_sha256: str = ""
    model_version_id: UUID | None = None
    failure: Failure | None = None
    warnings: tuple[TrainingWarning, ...] = ()
    last_sequence: int = 0
    queue_position: int = 0
    mlflow_run_id: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None
    fencing: int = 0
    attempts: int = 0
