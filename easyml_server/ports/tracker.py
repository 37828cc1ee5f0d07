"""Where runs are recorded for MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol
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

    mlflow_experiment_id: str
    run_id: str
    artifact_uri: str
    model_uri: str


@dataclass(frozen=True, slots=True)
class MirroredVersion:
    """A version of a model; `run_id` is None where there is no run of it, and it `waits` if there will be one."""

    id: UUID
    number: int
    description: str
    run_id: str | None
    waits: bool


@dataclass(frozen=True, slots=True)
class MirroredModel:
    """A model as it is to be in MLflow's registry: without versions it is not to be there.

    `name` and `tags` are those it gets when it is made; `aliases` say which version's id each points to.
    """

    id: UUID
    name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    versions: Sequence[MirroredVersion] = ()
    aliases: Mapping[str, UUID] = field(default_factory=dict)


class Tracker(Protocol):
    """Records runs through one tracking process; recording the same experiment again changes nothing."""

    @property
    def uri(self) -> str:
        """Where runs are recorded, without credentials."""
        ...

    async def record(self, record: RunRecord) -> RecordedRun:
        """Record one run. Raises Unavailable when tracking is down; the caller tries again later."""
        ...

    async def mirror(self, model: MirroredModel) -> None:
        """Bring MLflow's registered model to this; the same again changes nothing. Raises Unavailable."""
        ...

    async def export_model(self, model_path: Path, target: Path) -> None:
        """Write a model version as a zip of an MLflow model folder."""
        ...
