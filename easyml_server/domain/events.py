"""The history of a training: what happened, in order. `sequence` is 1, 2, 3 … per experiment, without gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

from easyml_server.domain.experiments import Failure, MetricValue, TrainingStage, TrainingState, TrainingWarning


class LogLevel(StrEnum):
    """Weight of a log line; names as in the contract."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The state changed."""

    state: TrainingState
    type: Literal["state_changed"] = "state_changed"


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage began."""

    stage: TrainingStage
    type: Literal["stage_started"] = "stage_started"


@dataclass(frozen=True, slots=True)
class FoldCompleted:
    """A fold (counted from 1) was fitted and scored on its held-out rows."""

    fold: int
    folds: int
    metrics: tuple[MetricValue, ...]
    type: Literal["fold_completed"] = "fold_completed"


@dataclass(frozen=True, slots=True)
class IterationCompleted:
    """The library reported an iteration (from 1; `iterations` 0 where unknown); `fold` 0 is the final fit."""

    iteration: int
    iterations: int
    values: Mapping[str, float] = field(default_factory=dict)
    fold: int = 0
    type: Literal["iteration_completed"] = "iteration_completed"


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of text."""

    level: LogLevel
    text: str
    type: Literal["log_line"] = "log_line"


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """What the worker uses."""

    memory_bytes: int
    cpu_seconds: float
    type: Literal["resource_usage"] = "resource_usage"


@dataclass(frozen=True, slots=True)
class WarningRaised:
    """Something was noticed."""

    warning: TrainingWarning
    type: Literal["warning"] = "warning"


@dataclass(frozen=True, slots=True)
class Finished:
    """The training ended; always the last event."""

    state: TrainingState
    metrics: tuple[MetricValue, ...] = ()
    model_version_id: UUID | None = None
    failure: Failure | None = None
    type: Literal["finished"] = "finished"


EventBody = (
    StateChanged
    | StageStarted
    | FoldCompleted
    | IterationCompleted
    | LogLine
    | ResourceUsage
    | WarningRaised
    | Finished
)


@dataclass(frozen=True, slots=True)
class TrainingEvent:
    """One step of the history."""

    experiment_id: UUID
    sequence: int
    event_time: datetime
    body: EventBody
