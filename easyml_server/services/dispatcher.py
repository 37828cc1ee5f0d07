"""Runs queued trainings: claims them, hands each to the trainer, and writes down how it ended, once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

import structlog

from easyml_server.domain.errors import EasyMLError, Stale
from easyml_server.domain.events import EventBody, Finished, LogLevel, LogLine, StateChanged, WarningRaised
from easyml_server.domain.experiments import (
    Experiment,
    Failure,
    FailureKind,
    FailureReason,
    TrainingState,
    TrainingWarning,
)
from easyml_server.domain.limits import Limits
from easyml_server.domain.models import ModelVersion
from easyml_server.domain.sessions import TrainingSession
from easyml_server.domain.training import Outcome, Report, SplitMade, TrainingFailed, TrainingJob, TrainingSucceeded
from easyml_server.ports.artifacts import ArtifactStore
from easyml_server.ports.store import Store
from easyml_server.ports.trainer import Trainer
from easyml_server.services.events import EventHub, TrainingLog
from easyml_server.services.recorder import RECORD_RUN
from easyml_server.services.uploads import TABLE_FILE

POLL_SECONDS = 2.0
"""How often the queue is looked at when nobody wakes us."""
MAX_ATTEMPTS = 3
"""A training that was cut off by the end of its server this often is not tried again."""

log = structlog.get_logger(__name__)


class TrainingDispatcher:
    """Claims trainings while the trainer has free slots."""

    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        trainer: Trainer,
        hub: EventHub,
        limits: Limits,
        clock: Callable[[], datetime],
        recorded: Callable[[], None],
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._trainer = trainer
        self._hub = hub
        self._limits = limits
        self._clock = clock
        self._recorded = recorded
        self._wanted = asyncio.Event()
        self._running: dict[UUID, _Run] = {}
        self._stopping = False

    def wake(self) -> None:
        """Something was queued."""
        self._wanted.set()

    def cancel(self, experiment_id: UUID) -> None:
        """Stop a training that runs here; a queued one is ended by the next look at the queue."""
        run = self._running.get(experiment_id)
        if run is not None:
            run.cancel_for_user()
        self.wake()

    async def recover(self) -> None:
        """After a crash: what ran is queued again, a few times; what was being cancelled is cancelled."""
        async with self._store.read() as work:
            unfinished = await work.experiments.unfinished()
        for experiment in unfinished:
            if experiment.state is TrainingState.CANCELLING:
                await self._end_without_run(experiment, TrainingState.CANCELLED)
            elif experiment.fencing >= MAX_ATTEMPTS:
                await self._end_without_run(experiment, TrainingState.FAILED, _stopped_too_often())
            else:
                await self._requeue(experiment)

    async def run(self) -> None:
        """Claim and run trainings until cancelled."""
        while True:
            try:
                while len(self._running) < self._trainer.slots and await self._start_next():
                    pass
                await self._end_cancelled()
            except EasyMLError as error:
                log.warning("queue_unreadable", error=error.message)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wanted.wait()
            self._wanted.clear()

    async def stop(self) -> None:
        """Stop all runs; their trainings are queued again, for the next server."""
        self._stopping = True
        runs = list(self._running.values())
        for run in runs:
            run.cancel()
        await asyncio.gather(*(run.done() for run in runs), return_exceptions=True)

    async def _start_next(self) -> bool:
        async with self._store.begin() as work:
            projects = [run.experiment.project_id for run in self._running.values()]
            experiment = await work.experiments.claim(self._clock(), projects, self._limits.trainings_per_project)
            if experiment is None:
                return False
            session = await work.experiments.find_session(experiment.id)
            await work.commit()
        run = _Run(experiment)
        self._running[experiment.id] = run
        run.start(self._train(run, session or TrainingSession(experiment.id, experiment.state)))
        return True

    async def _train(self, run: _Run, session: TrainingSession) -> None:
        experiment = run.experiment
        work_path = self._artifacts.new_work_path()
        try:
            with self._hub.use(experiment.id) as feed:
                training_log = TrainingLog(self._store, feed, experiment, session, self._clock)
                run.log = training_log
                training_log.add(StateChanged(TrainingState.RUNNING))
                writer = asyncio.create_task(training_log.run())
                try:
                    outcome = await self._outcome(run, training_log, work_path)
                finally:
                    training_log.stop()
                    await writer
                await self._write_down(run, training_log, outcome, work_path)
        except Stale:
            log.warning("training_taken_over", experiment_id=str(experiment.id))
        except Exception:
            # The row stays RUNNING; recovery at the next start queues it again.
            log.exception("training_not_written_down", experiment_id=str(experiment.id))
        finally:
            del self._running[experiment.id]
            await self._artifacts.remove(work_path)
            self.wake()

    async def _outcome(self, run: _Run, training_log: TrainingLog, work_path: Path) -> Outcome | None:
        """How the training ended; None if it was stopped, by its user or with the server."""

        def report(report: Report) -> None:
            if isinstance(report, SplitMade):
                run.experiment = replace(
                    run.experiment,
                    train_rows=report.train_rows,
                    test_rows=report.test_rows,
                    split_sha256=report.split_sha256,
                )
                return
            if isinstance(report, WarningRaised):
                run.warnings.append(report.warning)
            training_log.add(report)

        job = await self._job(run.experiment, work_path)
        run.training = asyncio.create_task(self._trainer.train(job, report))
        if run.cancelled:
            run.training.cancel()
        try:
            return await run.training
        except asyncio.CancelledError:
            return None
        except Exception:
            log.exception("trainer_failed", experiment_id=str(run.experiment.id))
            return TrainingFailed(
                Failure(
                    FailureKind.SYSTEM,
                    FailureReason.INTERNAL,
                    f"The training could not be run; report this with the id {run.experiment.id}.",
                )
            )

    async def _job(self, experiment: Experiment, work_path: Path) -> TrainingJob:
        async with self._store.read() as work:
            version = await work.datasets.get_version(experiment.spec.dataset_version_id)
        table = self._artifacts.dataset_path(experiment.project_id, version.id) / TABLE_FILE
        return TrainingJob(
            experiment_id=experiment.id,
            spec=experiment.spec,
            schema=version.schema,
            table_path=str(table),
            output_path=str(work_path),
            memory_bytes=self._limits.worker_memory_bytes,
            max_model_bytes=self._limits.max_model_bytes,
            log_line_bytes=self._limits.log_line_bytes,
        )

    async def _write_down(self, run: _Run, training_log: TrainingLog, outcome: Outcome | None, work_path: Path) -> None:
        match outcome:
            case TrainingSucceeded():
                await self._succeed(run, training_log, outcome, work_path)
            case TrainingFailed(failure=failure):
                await self._end(run, training_log, TrainingState.FAILED, failure)
            case None if self._stopping and not run.by_user:
                await self._put_back(run, training_log)
            case None:
                await self._end(run, training_log, TrainingState.CANCELLED)

    async def _succeed(self, run: _Run, training_log: TrainingLog, outcome: TrainingSucceeded, work_path: Path) -> None:
        version = _model_version(run.experiment, outcome, self._clock())
        final_path = self._artifacts.model_path(version.project_id, version.id)
        try:
            await self._artifacts.publish(work_path, final_path)
        except EasyMLError as error:
            failure = Failure(FailureKind.SYSTEM, FailureReason.DISK_FULL, error.message)
            await self._end(run, training_log, TrainingState.FAILED, failure)
            return
        run.experiment = replace(
            run.experiment,
            metrics=outcome.metrics,
            confusion_matrices=outcome.confusion_matrices,
            model_version_id=version.id,
        )
        try:
            await self._end(run, training_log, TrainingState.SUCCEEDED, version=version)
        except EasyMLError:
            await self._artifacts.remove(final_path)
            raise

    async def _end(
        self,
        run: _Run,
        training_log: TrainingLog,
        state: TrainingState,
        failure: Failure | None = None,
        version: ModelVersion | None = None,
    ) -> None:
        """Write the outcome with its last events in one transaction."""
        now = self._clock()
        ended = replace(
            run.experiment,
            state=state,
            failure=failure,
            warnings=tuple(run.warnings),
            end_time=now,
            update_time=now,
            etag=uuid4().hex,
        )
        async with self._store.begin() as work:
            if version is not None:
                await work.models.add_version(version)
            bodies = (
                StateChanged(state),
                Finished(state, ended.metrics, ended.model_version_id, failure),
            )
            events = await training_log.finish(work, *bodies)
            await work.experiments.save(ended)
            await work.outbox.add(RECORD_RUN, ended.id, now)
            await work.commit()
        training_log.publish(events)
        self._recorded()

    async def _put_back(self, run: _Run, training_log: TrainingLog) -> None:
        """Queue it again for the next server."""
        queued = _as_new(run.experiment, self._clock())
        async with self._store.begin() as work:
            events = await training_log.finish(work, *_cut_off_events())
            await work.experiments.save(queued)
            await work.commit()
        training_log.publish(events)

    async def _requeue(self, experiment: Experiment) -> None:
        await self._outside_a_run(experiment, _as_new(experiment, self._clock()), _cut_off_events())

    async def _end_without_run(
        self, experiment: Experiment, state: TrainingState, failure: Failure | None = None
    ) -> None:
        now = self._clock()
        ended = replace(experiment, state=state, failure=failure, end_time=now, update_time=now, etag=uuid4().hex)
        events = (StateChanged(state), Finished(state, failure=failure))
        await self._outside_a_run(experiment, ended, events)

    async def _outside_a_run(self, experiment: Experiment, changed: Experiment, bodies: tuple[EventBody, ...]) -> None:
        with self._hub.use(experiment.id) as feed:
            async with self._store.begin() as work:
                session = await work.experiments.find_session(experiment.id)
                session = session or TrainingSession(experiment.id, experiment.state)
                training_log = TrainingLog(self._store, feed, experiment, session, self._clock)
                events = await training_log.finish(work, *bodies)
                await work.experiments.save(changed)
                await work.commit()
            training_log.publish(events)

    async def _end_cancelled(self) -> None:
        """End what was cancelled in the queue, or between its claim and its start."""
        async with self._store.read() as work:
            unfinished = await work.experiments.unfinished()
        for experiment in unfinished:
            if experiment.state is not TrainingState.CANCELLING:
                continue
            run = self._running.get(experiment.id)
            if run is None:
                await self._end_without_run(experiment, TrainingState.CANCELLED)
            else:
                run.cancel_for_user()


class _Run:
    """One training that runs here."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.warnings: list[TrainingWarning] = []
        self.training: asyncio.Task[Outcome] | None = None
        self.log: TrainingLog | None = None
        self.cancelled = False
        self.by_user = False
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Run in a task of its own."""
        self._task = asyncio.create_task(work)

    def cancel_for_user(self) -> None:
        """Stop it because its user said so."""
        if not self.by_user and self.log is not None:
            self.by_user = True
            self.log.add(StateChanged(TrainingState.CANCELLING))
        self.by_user = True
        self.cancel()

    def cancel(self) -> None:
        """Stop the training; how it ended is still written down."""
        self.cancelled = True
        if self.training is not None:
            self.training.cancel()

    async def done(self) -> None:
        """Wait until it is written down."""
        if self._task is not None:
            await self._task


def _as_new(experiment: Experiment, now: datetime) -> Experiment:
    return replace(
        experiment,
        state=TrainingState.QUEUED,
        metrics=(),
        confusion_matrices=(),
        train_rows=0,
        test_rows=0,
        split_sha256="",
        start_time=None,
        update_time=now,
        etag=uuid4().hex,
    )


def _cut_off_events() -> tuple[EventBody, ...]:
    text = "The server was stopped while this ran; it is queued again and starts from the beginning."
    return LogLine(LogLevel.WARNING, text), StateChanged(TrainingState.QUEUED)


def _stopped_too_often() -> Failure:
    return Failure(
        FailureKind.SYSTEM,
        FailureReason.SERVER_STOPPED,
        f"The server was stopped {MAX_ATTEMPTS} times while this ran; start it again when the server runs steadily.",
    )


def _model_version(experiment: Experiment, outcome: TrainingSucceeded, now: datetime) -> ModelVersion:
    return ModelVersion(
        id=uuid4(),
        project_id=experiment.project_id,
        model_id=uuid4(),
        model_name=experiment.spec.model_name,
        version=0,
        description="",
        labels={},
        experiment_id=experiment.id,
        dataset_version_id=experiment.spec.dataset_version_id,
        hyperparameters=experiment.spec.hyperparameters,
        primary_metric=experiment.spec.objective.metric,
        metrics=outcome.metrics,
        manifest=outcome.manifest,
        creator_id=experiment.creator_id,
        create_time=now,
        update_time=now,
        etag=uuid4().hex,
    )
