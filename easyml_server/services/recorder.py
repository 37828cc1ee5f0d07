"""Records ended experiments for MLflow, as the outbox says; when tracking is down, later.

Of several servers the one that claims an intent does it. If it dies, its claim ends soon, and another does it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import structlog

from easyml_server.domain.errors import EasyMLError, NotFound
from easyml_server.domain.events import FoldCompleted, IterationCompleted, TrainingEvent
from easyml_server.domain.experiments import Experiment, TrainingState
from easyml_server.domain.faults import fault_point
from easyml_server.domain.projects import Project
from easyml_server.domain.sessions import MlflowRun
from easyml_server.ports.artifacts import ArtifactStore
from easyml_server.ports.store import Intent, Store
from easyml_server.ports.tracker import MetricPoint, RunRecord, Tracker

RECORD_RUN = "record_run"
POLL_SECONDS = 5.0
FIRST_RETRY_SECONDS = 2.0
MAX_RETRY_SECONDS = 300.0
CLAIM_SECONDS = 30.0
"""An intent that was not done, and not prolonged for this long, is somebody else's to do."""
PROLONG_SECONDS = 10.0
LOG_PAGE = 500
STATUS = {
    TrainingState.SUCCEEDED: "FINISHED",
    TrainingState.FAILED: "FAILED",
    TrainingState.CANCELLED: "KILLED",
}

log = structlog.get_logger(__name__)


class RunRecorder:
    """Works off the outbox."""

    def __init__(self, store: Store, artifacts: ArtifactStore, tracker: Tracker, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._artifacts = artifacts
        self._tracker = tracker
        self._clock = clock
        self._wanted = asyncio.Event()

    def wake(self) -> None:
        """An intent was committed."""
        self._wanted.set()

    async def run(self) -> None:
        """Work off intents until cancelled."""
        while True:
            self._wanted.clear()
            try:
                await self.work_off()
            except EasyMLError as error:
                log.warning("outbox_unreadable", error=error.message)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wanted.wait()

    async def recover(self) -> None:
        """At the start of the only server: nobody is at work on anything."""
        async with self._store.begin() as work:
            await work.outbox.release(self._clock())
            await work.commit()

    async def work_off(self) -> None:
        """Do everything that is due now."""
        while (intent := await self._claim()) is not None:
            await self._do(intent)

    async def _claim(self) -> Intent | None:
        now = self._clock()
        async with self._store.read() as work:
            # Mostly there is nothing to do, and nobody needs to wait for a look.
            if not await work.outbox.due(now, 1):
                return None
        async with self._store.begin() as work:
            intent = await work.outbox.claim(RECORD_RUN, now, now + timedelta(seconds=CLAIM_SECONDS))
            await work.commit()
        return intent

    async def _do(self, intent: Intent) -> None:
        prolonging = asyncio.create_task(self._prolong(intent))
        try:
            await self._record(intent)
        except NotFound:
            # The experiment was deleted before it was recorded.
            await self._done(intent)
        except Exception as error:  # whatever tracking fails with, the intent stays
            delay = min(FIRST_RETRY_SECONDS * 2**intent.attempts, MAX_RETRY_SECONDS)
            log.warning("run_not_recorded", experiment_id=str(intent.subject_id), retry_seconds=delay, error=str(error))
            async with self._store.begin() as work:
                await work.outbox.retry(intent, self._clock() + timedelta(seconds=delay))
                await work.commit()
        finally:
            prolonging.cancel()

    async def _prolong(self, intent: Intent) -> None:
        while True:
            await asyncio.sleep(PROLONG_SECONDS)
            with suppress(EasyMLError):
                async with self._store.begin() as work:
                    await work.outbox.prolong(intent, self._clock() + timedelta(seconds=CLAIM_SECONDS))
                    await work.commit()

    async def _record(self, intent: Intent) -> None:
        async with self._store.read() as work:
            experiment = await work.experiments.load(intent.subject_id)
            project = await work.projects.load(experiment.project_id)
            config = await work.projects.get_config(project.id)
            events: list[TrainingEvent] = []
            while page := await work.experiments.list_events(
                experiment.id, events[-1].sequence if events else 0, LOG_PAGE
            ):
                events.extend(page)
        recorded = await self._tracker.record(
            self._record_of(experiment, config.mlflow_experiment or default_experiment(project), events)
        )
        fault_point("outbox.recorded")
        run = MlflowRun(
            experiment_id=experiment.id,
            tracking_uri=recorded.tracking_uri,
            mlflow_experiment_id=recorded.mlflow_experiment_id,
            run_id=recorded.run_id,
            artifact_uri=recorded.artifact_uri,
            model_uri=recorded.model_uri,
            create_time=self._clock(),
        )
        async with self._store.begin() as work:
            await work.experiments.put_mlflow_run(run)
            await work.outbox.done(intent)
            await work.commit()

    async def _done(self, intent: Intent) -> None:
        async with self._store.begin() as work:
            await work.outbox.done(intent)
            await work.commit()

    def _record_of(self, experiment: Experiment, name: str, events: Sequence[TrainingEvent]) -> RunRecord:
        spec = experiment.spec
        has_model = experiment.model_version_id is not None
        model_path = (
            self._artifacts.model_path(experiment.project_id, experiment.model_version_id)
            if experiment.model_version_id is not None
            else None
        )
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
            table_path=self._artifacts.dataset_path(experiment.project_id, spec.dataset_version_id),
        )


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
