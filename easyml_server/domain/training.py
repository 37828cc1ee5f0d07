"""What a training worker is told, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from easyml_server.domain.datasets import TableSchema
from easyml_server.domain.events import (
    FoldCompleted,
    IterationCompleted,
    LogLine,
    ResourceUsage,
    StageStarted,
    WarningRaised,
)
from easyml_server.domain.experiments import ConfusionMatrix, Failure, MetricValue, TrainingSpec
from easyml_server.domain.models import ModelManifest
from easyml_server.domain.results import ModelResults


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One training for a worker.

    `table_path` is the version's Parquet; the worker writes the model and `manifest.json` into `output_path`, an empty
    folder of its own. `memory_bytes` is watched as resident memory by whoever runs the worker; 0 leaves it to them.
    """

    experiment_id: UUID
    spec: TrainingSpec
    schema: TableSchema
    table_path: str
    output_path: str
    memory_bytes: int
    max_model_bytes: int
    log_line_bytes: int = 8192


@dataclass(frozen=True, slots=True)
class SplitMade:
    """Rows on each side, and SHA-256 over the sorted row numbers of the test side (little-endian int64)."""

    train_rows: int
    test_rows: int
    split_sha256: str
    type: Literal["split_made"] = "split_made"


@dataclass(frozen=True, slots=True)
class TrainingSucceeded:
    """The model lies in the job's folder; everything was flushed to disk. `inference_time_ms` is for one row."""

    metrics: tuple[MetricValue, ...]
    confusion_matrices: tuple[ConfusionMatrix, ...]
    results: ModelResults
    manifest: ModelManifest
    inference_time_ms: float | None = None
    type: Literal["succeeded"] = "succeeded"


@dataclass(frozen=True, slots=True)
class TrainingFailed:
    """There is no model."""

    failure: Failure
    type: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class TrainingInterrupted:
    """Where it ran is gone, through no fault of the training: it may be tried again, from the beginning.

    `cause` is the beginning of a sentence.
    """

    cause: str


Report = StageStarted | FoldCompleted | IterationCompleted | LogLine | ResourceUsage | WarningRaised | SplitMade
Outcome = TrainingSucceeded | TrainingFailed
WorkerMessage = Report | Outcome
