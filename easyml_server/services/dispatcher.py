"""Runs queued trainings: claims them under a lease, hands each to the trainer, and renews the leases while it runs.

Who loses a lease has been taken for dead (`services.takeover`): it stops that run and writes nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from uuid import UUID

import structlog

from easyml_server.domain.datasets import DatasetVersion
from easyml_server.domain.errors import EasyMLError, NotFound, Stale, Unavailable
from easyml_server.domain.events import StateChanged, WarningRaised
from easyml_server.domain.experiments import (
    Experiment,
    Failure,
    FailureKind,
    FailureReason,
    TrainingState,
    TrainingWarning,
)
from easyml_server.domain.faults import fault_point
from easyml_server.domain.leases import Abandoned, Lease
from easyml_server.domain.limits import Limits
from easyml_server.domain.sessions import TrainingSession
from easyml_server.domain.training import (
    Outcome,
    Report,
    SplitMade,
    TrainingFailed,
    TrainingInterrupted,
    TrainingJob,
)
from easyml_server.ports.artifacts import ArtifactStore, VersionKey
from easyml_server.ports.signals import Signals, Topic
from easyml_server.ports.store import Store
from easyml_server.ports.trainer import Trainer
from easyml_server.services.converting import TABLE_FILE
from easyml_server.services.events import EventHub
from easyml_server.services.logs import TrainingLog, latest_event_time
from easyml_server.services.outcomes import OutcomeWriter, delays, files_failure
from easyml_server.services.takeover import Takeover

POLL_SECONDS = 2.0
"""How often the queue is looked at when nobody wakes us."""
BEATS_PER_LEASE = 3

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
        lease: Lease,
        signals: Signals,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._trainer = trainer
        self._hub = hub
        self._limits = limits
        self._clock = clock
        self._lease = lease
        self._signals = signals
        self._outcomes = OutcomeWriter(store, artifacts, clock, recorded)
        self._takeover = Takeover(store, hub, clock, lease, recorded)
        self._wanted = asyncio.Event()
        self._beat = asyncio.Event()
        self._running: list[_Run] = []
        self._stopping = False

    def wake(self) -> None:
        """Something was queued."""
        self._wanted.set()

    def look_again(self) -> None:
        """Anything may have been queued, cancelled or taken over."""
        self._wanted.set()
        self._beat.set()

    def cancel(self, experiment_id: UUID) -> None:
        """Stop a training that runs here; a queued one is ended by the next look at the queue."""
        for run in self._running:
            if run.experiment.id == experiment_id:
                run.cancel_for_user()
        # One that is being claimed just now is found by the next renewal.
        self.look_again()

    async def recover(self) -> None:
        """At the start of the only server: whatever ran, nobody runs any more."""
        await self._takeover.take(Abandoned.ALL, ())

    async def run(self) -> None:
        """Claim and run trainings until cancelled."""
        while True:
            try:
                while len(self._running) < self._trainer.slots and await self._start_next():
                    pass
                await self._takeover.take(Abandoned.UNOWNED, self._ids())
            except EasyMLError as error:
                log.warning("queue_unreadable", error=error.message)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wanted.wait()
            self._wanted.clear()

    async def keep_leases(self) -> None:
        """Renew in time, and take over what others did not, until cancelled; also while this server stops."""
        while True:
            try:
                await self._renew()
                if not self._stopping and await self._takeover.take_lapsed(self._ids()):
                    self.wake()
            except EasyMLError as error:
                self._takeover.lost_touch()
                log.warning("leases_not_renewed", error=error.message)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(POLL_SECONDS, self._lease.seconds / BEATS_PER_LEASE)):
                    await self._beat.wait()
            self._beat.clear()

    async def stop(self) -> None:
        """Stop all runs; their trainings are queued again, for the next server."""
        self._stopping = True
        self._outcomes.stop()
        runs = list(self._running)
        for run in runs:
            run.cancel()
        await asyncio.gather(*(run.done() for run in runs), return_exceptions=True)

    async def _start_next(self) -> bool:
        async with self._store.begin() as work:
            experiment = await work.queue.claim(self._clock(), self._lease, self._limits.trainings_per_project)
            if experiment is None:
                return False
            # All that the run needs is read now: were the database away later, nobody would run what was claimed.
            version = await work.datasets.get_version(experiment.spec.dataset_version_id)
            latest = await latest_event_time(work, experiment)
            await work.commit()
        fault_point("training.claimed")
        run = _Run(experiment, version, latest)
        self._running.append(run)
        run.start(self._train(run, TrainingSession.of(experiment)))
        return True

    async def _train(self, run: _Run, session: TrainingSession) -> None:
        experiment = run.experiment
        try:
            with self._hub.use(experiment.id) as feed:
                run.log = training_log = TrainingLog(self._store, feed, experiment, session, self._clock, run.latest)
                training_log.add(StateChanged(TrainingState.RUNNING))
                writer = asyncio.create_task(training_log.run())
                try:
                    outcome = await self._outcome(run, training_log)
                finally:
                    training_log.stop()
                    await writer
                if outcome is None and run.lost:
                    log.warning("training_lost", experiment_id=str(experiment.id))
                else:
                    await self._write_down(run, outcome, training_log)
        except Stale:
            log.warning("training_taken_over", experiment_id=str(experiment.id))
        except NotFound:
            log.warning("training_deleted", experiment_id=str(experiment.id))
        except Exception:
            # The row stays RUNNING; once its lease has ended it is queued again.
            log.exception("training_not_written_down", experiment_id=str(experiment.id))
        finally:
            self._running.remove(run)
            if run.work_path is not None:
                await self._artifacts.discard(run.work_path)
            self.wake()
            self._signals.send(Topic.QUEUE, experiment.id)

    async def _write_down(
        self, run: _Run, outcome: Outcome | TrainingInterrupted | None, training_log: TrainingLog
    ) -> None:
        experiment = replace(run.experiment, warnings=tuple(run.warnings))
        if isinstance(outcome, TrainingInterrupted) and run.by_user:
            outcome = None
        if isinstance(outcome, TrainingInterrupted):
            await self._outcomes.put_back_interrupted(experiment, outcome, training_log)
        elif outcome is None and self._stopping and not run.by_user:
            await self._outcomes.put_back(experiment, training_log)
        else:
            await self._outcomes.write(experiment, outcome, training_log, run.work_path)

    async def _outcome(self, run: _Run, training_log: TrainingLog) -> Outcome | TrainingInterrupted | None:
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

        try:
            run.work_path = self._artifacts.new_work_path()
        except EasyMLError as error:
            return TrainingFailed(files_failure(error))
        run.training = asyncio.create_task(self._trained(run.experiment, run.version, run.work_path, report))
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

    async def _trained(
        self, experiment: Experiment, version: DatasetVersion, work_path: Path, report: Callable[[Report], None]
    ) -> Outcome | TrainingInterrupted:
        async with AsyncExitStack() as stack:
            try:
                folder = await self._folder(stack, VersionKey.of_dataset(experiment.project_id, version.id))
            except EasyMLError as error:
                return TrainingFailed(files_failure(error))
            job = self._job(experiment, version, folder / TABLE_FILE, work_path)
            return await self._trainer.train(job, report)

    async def _folder(self, stack: AsyncExitStack, key: VersionKey) -> Path:
        """The table's folder; files that cannot be reached just now are waited for."""
        for delay in delays():
            try:
                return await stack.enter_async_context(self._artifacts.held(key))
            except Unavailable as error:
                log.warning("training_waits_for_files", version_id=str(key.version_id), error=error.message)
            await asyncio.sleep(delay)
        raise AssertionError("delays have no end")

    def _job(self, experiment: Experiment, version: DatasetVersion, table: Path, work_path: Path) -> TrainingJob:
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

    async def _renew(self) -> None:
        runs = list(self._running)
        if not runs:
            return
        async with self._store.begin() as work:
            renewed = await work.queue.renew(self._lease, {run.experiment.id for run in runs})
            await work.commit()
        held = {(each.experiment_id, each.fencing): each for each in renewed}
        for run in runs:
            found = held.get((run.experiment.id, run.experiment.fencing))
            if found is None:
                run.lose()
            elif found.cancelling:
                run.cancel_for_user()

    def _ids(self) -> set[UUID]:
        return {run.experiment.id for run in self._running}


class _Run:
    """One training that runs here."""

    def __init__(self, experiment: Experiment, version: DatasetVersion, latest: datetime) -> None:
        self.experiment = experiment
        self.version = version
        self.latest = latest
        self.work_path: Path | None = None
        self.warnings: list[TrainingWarning] = []
        self.training: asyncio.Task[Outcome | TrainingInterrupted] | None = None
        self.log: TrainingLog | None = None
        self.cancelled = False
        self.by_user = False
        self.lost = False
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

    def lose(self) -> None:
        """Stop the training, which is somebody else's now; if it has ended already, this changes nothing."""
        self.lost = True
        self.cancel()

    def cancel(self) -> None:
        """Stop the training; how it ended is still written down."""
        # Once: a second time would interrupt the trainer while it ends the worker.
        if not self.cancelled and self.training is not None:
            self.training.cancel()
        self.cancelled = True

    async def done(self) -> None:
        """Wait until it is written down."""
        if self._task is not None:
            await self._task
