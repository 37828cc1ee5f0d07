"""The live session of a training: what changes while it runs, kept as a document; and where a run was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Self
from uuid import UUID

from easyml_server.domain.events import EventBody, FoldCompleted, IterationCompleted, StageStarted, StateChanged
from easyml_server.domain.experiments import Experiment, TrainingStage, TrainingState


@dataclass(frozen=True, slots=True)
class TrainingSession:
    """What a heartbeat says: state, stage, and how much of the countable work is done.

    `fold` of `folds` cross-validation fits are done; `iteration` of `iterations` belong to the fit that runs now, 0
    where the library does not tell.
    """

    experiment_id: UUID
    state: TrainingState
    stage: TrainingStage | None = None
    fold: int = 0
    folds: int = 0
    iteration: int = 0
    iterations: int = 0
    values: Mapping[str, float] = field(default_factory=dict)
    update_time: datetime | None = None

    @classmethod
    def of(cls, experiment: Experiment) -> Self:
        """The session of an experiment of which nothing runs: what an earlier try came to does not count."""
        return cls(experiment.id, experiment.state, folds=experiment.spec.folds, update_time=experiment.update_time)

    @property
    def progress(self) -> float | None:
        """Share of all fits that is done, between 0 and 1; None where it cannot be known."""
        if self.stage in (TrainingStage.EVALUATING, TrainingStage.EXPORTING):
            return None
        current = self.iteration / self.iterations if self.iterations else 0.0
        if not self.folds:
            return min(current, 1.0) if self.iterations else None
        fits_done = self.folds if self.stage is TrainingStage.FITTING else self.fold
        return min((fits_done + current) / (self.folds + 1), 1.0)

    def after(self, event: EventBody, time: datetime) -> TrainingSession:
        """The session once this event has happened."""
        match event:
            case StateChanged(state=state):
                return replace(self, state=state, update_time=time)
            case StageStarted(stage=stage):
                return replace(self, stage=stage, iteration=0, iterations=0, update_time=time)
            case FoldCompleted(fold=fold, folds=folds):
                return replace(self, fold=fold, folds=folds, iteration=0, iterations=0, update_time=time)
            case IterationCompleted(iteration=iteration, iterations=iterations, values=values):
                return replace(self, iteration=iteration, iterations=iterations, values=values, update_time=time)
            case _:
                return self


@dataclass(frozen=True, slots=True)
class MlflowRun:
    """Where an experiment was recorded for MLflow; until it is, `run_id` is empty, and `problem` says why."""

    experiment_id: UUID
    tracking_uri: str
    mlflow_experiment_id: str
    run_id: str
    artifact_uri: str
    model_uri: str
    create_time: datetime
    problem: str | None = None
