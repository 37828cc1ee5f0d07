"""Where runs are recorded for MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One value of a metric at a step."""

    key: str
    value: float
    step: int
    time: datetime


@dataclass(frozen=True, slots=True)
class RunRecord:
    """All that is recorded of one ended experiment. `model_path` is the version's folder, if there is a model."""

    experiment_id: UUID
    experiment_name: str
    run_name: str
    status: str  # FINISHED, FAILED, KILLED
    start_time: datetime
    end_time: datetime
    parameters: Mapping[str, str]
    metrics: Sequence[MetricPoint]
    tags: Mapping[str, str]
    model_path: Path | None = None


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """Where a run was recorded."""

    tracking_uri: str
    mlflow_experiment_id: str
    run_id: str
    artifact_uri: str
    model_uri: str
    details: Mapping[str, Any]


class Tracker(Protocol):
    """Records runs through one tracking process; recording the same experiment again changes nothing."""

    async def record(self, record: RunRecord) -> RecordedRun:
        """Record one run. Raises Unavailable when tracking is down; the caller tries again later."""
        ...

    async def export_model(self, model_path: Path, target: Path) -> None:
        """Write a model version as a zip of an MLflow model folder."""
        ...
