"""Records ended experiments for MLflow, as the outbox says; when tracking is down, later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from easyml_server.domain.errors import EasyMLError, NotFound
from easyml_server.domain.events import FoldCompleted, IterationCompleted, TrainingEvent
from easyml_server.domain.experiments import Experiment, TrainingState
from easyml_server.domain.faults import fault_point
from easyml_server.domain.projects import Project
from easyml_server.domain.sessions import MlflowRun
from easyml_server.ports.artifacts import ArtifactStore, VersionKey
from easyml_server.ports.store import Intent, Store, UnitOfWork
from easyml_server.ports.tracker import MetricPoint, RecordedRun, RunRecord, Tracker
from easyml_server.services.mirroring import Mirroring
from easyml_server.services.outbox import Handler

RECORD_RUN = "record_run"
LOG_PAGE = 500
STATUS = {
    TrainingState.SUCCEEDED: "FINISHED",
    TrainingState.FAILED: "FAILED",
    TrainingState.CANCELLED: "KILLED",
}

log = structlog.get_logger(__name__)


class RunRecorder:
    """The handler of the intent above."""

    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        tracker: Tracker,
        mirroring: Mirroring,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._tracker = tracker
        self._mirroring = mirroring
        self._clock = clock

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By kind of intent."""
        return {RECORD_RUN: self._record}

    async def _record(self, intent: Intent) -> None:
        async with self._store.read() as work:
            experiment = await _with_what_is_left(work, await work.experiments.load(intent.subject_id))
            project = await work.projects.load(experiment.project_id)
            config = await work.projects.get_config(project.id)
            events: list[TrainingEvent] = []
            while page := await work.experiments.list_events(
                experiment.id, events[-1].sequence if events else 0, LOG_PAGE
            ):
                events.extend(page)
        run = MlflowRun(experiment.id, self._tracker.uri, "", "", "", "", self._clock())
        name = config.mlflow_experiment or default_experiment(project)
        try:
            recorded = await self._with_its_model(experiment, name, events)
        except EasyMLError as error:
            async with self._store.begin() as work:
                await work.experiments.put_mlflow_run(replace(run, problem=error.message))
                await work.commit()
            raise
        fault_point("outbox.recorded")
        run = replace(
            run,
            mlflow_experiment_id=recorded.mlflow_experiment_id,
            run_id=recorded.run_id,
            artifact_uri=recorded.artifact_uri,
            model_uri=recorded.model_uri,
            create_time=self._clock(),
        )
        async with self._store.begin() as work:
            await work.experiments.put_mlflow_run(run)
            if experiment.model_version_id is not None:
                await self._mirroring.recorded(work, experiment.model_version_id)
            await work.outbox.done(intent)
            await work.commit()

    async def _with_its_model(self, experiment: Experiment, name: str, events: Sequence[TrainingEvent]) -> RecordedRun:
        async with AsyncExitStack() as stack:
            model_path = None
            if experiment.model_version_id is not None:
                key = VersionKey.of_model(experiment.project_id, experiment.model_version_id)
                model_path = await stack.enter_async_context(self._artifacts.held(key))
            return await self._tracker.record(self._record_of(experiment, name, events, model_path))

    def _record_of(
        self, experiment: Experiment, name: str, events: Sequence[TrainingEvent], model_path: Path | None
    ) -> RunRecord:
        has_model = experiment.model_version_id is not None
        return RunRecord(
            experiment_id=experiment.id,
            experiment_name=name,
            run_name=experiment.name,
            status=STATUS[experiment.state],
            start_time=experiment.start_time or experiment.create_time,
            end_time=experiment.end_time or self._clock(),
            parameters=dict(_parameters(experiment)),
            metrics=[*_final_metrics(experiment), *_history(events)],
            tags={
                "easyml.experiment_id": str(experiment.id),
                "easyml.project_id": str(experiment.project_id),
                "easyml.model_version_id": str(experiment.model_version_id) if has_model else "",
                "easyml.dataset_sha256": experiment.dataset_sha256,
                "easyml.split_sha256": experiment.split_sha256,
                "easyml.failure": experiment.failure.message if experiment.failure else "",
                **{f"label.{key}": value for key, value in experiment.labels.items()},
            },
            model_path=model_path,
        )


async def _with_what_is_left(work: UnitOfWork, experiment: Experiment) -> Experiment:
    """Its model may have been deleted while the record waited."""
    if experiment.model_version_id is None:
        return experiment
    try:
        await work.models.load_version(experiment.model_version_id)
    except NotFound:
        return replace(experiment, model_version_id=None)
    return experiment


def default_experiment(project: Project) -> str:
    """The MLflow experiment of a project that names none: its name, and enough of its id to be unique."""
    return f"{project.name} ({str(project.id)[:8]})"


def _parameters(experiment: Experiment) -> Iterator[tuple[str, str]]:
    spec = experiment.spec
    values: dict[str, Any] = {
        "algorithm": spec.algorithm,
        "task": spec.task.value,
        "target": spec.target,
        "dataset": experiment.dataset_name,
        "split": spec.split.kind.value,
        "test_size": spec.split.test_size,
        "folds": spec.folds,
        "random_seed": spec.random_seed,
        **{f"hyperparameters.{name}": value for name, value in spec.hyperparameters.items()},
    }
    for name, value in values.items():
        yield name, str(value)


def _final_metrics(experiment: Experiment) -> Iterator[MetricPoint]:
    time = experiment.end_time or experiment.update_time
    for value in experiment.metrics:
        yield MetricPoint(f"{value.partition.value}.{value.metric.value}", value.value, 0, time)


def _history(events: Sequence[TrainingEvent]) -> Iterator[MetricPoint]:
    for event in events:
        match event.body:
            case IterationCompleted(iteration=iteration, values=values, fold=fold):
                prefix = f"fold_{fold}." if fold else ""
                for name, number in values.items():
                    yield MetricPoint(f"{prefix}iteration.{name}", number, iteration, event.event_time)
            case FoldCompleted(fold=fold, metrics=metrics):
                for value in metrics:
                    yield MetricPoint(f"fold.{value.metric.value}", value.value, fold, event.event_time)
            case _:
                pass
