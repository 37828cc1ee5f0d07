"""How trainings end: the model's files moved into place, then one transaction with the outcome and the last events.

The database may be away just then. What was trained for hours is not given up for that: the outcome is kept and written
again until it is written, somebody else has taken the training over, or the server stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import structlog

from easyml_server.domain.errors import EasyMLError, LimitReached, NotFound, Reason, Stale, Unavailable
from easyml_server.domain.events import EventBody, Finished, LogLevel, LogLine, StateChanged, TrainingEvent
from easyml_server.domain.experiments import Experiment, Failure, FailureKind, FailureReason, TrainingState
from easyml_server.domain.faults import fault_point
from easyml_server.domain.models import ModelVersion
from easyml_server.domain.results import ModelResults
from easyml_server.domain.training import Outcome, TrainingFailed, TrainingInterrupted, TrainingSucceeded
from easyml_server.ports.artifacts import FILES_PART, ArtifactStore, VersionKey
from easyml_server.ports.store import Store
from easyml_server.services.logs import TrainingLog
from easyml_server.services.recorder import RECORD_RUN
from easyml_server.services.versions import ADD_MODEL_VERSION

FIRST_RETRY_SECONDS = 0.5
MAX_RETRY_SECONDS = 30.0
MAX_ATTEMPTS = 3
"""A training that was cut off by the end of its server, or of where it ran, this often is not tried again."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ending:
    """What is written down at once: the experiment as it is from then on, its last events, and its model."""

    experiment: Experiment
    last_events: tuple[EventBody, ...]
    version: ModelVersion | None = None
    results: ModelResults | None = None
    files: VersionKey | None = None
    if_cancelled: Ending | None = None
    """What is written instead, if its user has cancelled the training where it did not run."""


class OutcomeWriter:
    """Writes down how trainings ended, each once."""

    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        clock: Callable[[], datetime],
        recorded: Callable[[], None],
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._clock = clock
        self._recorded = recorded
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Try once more what could not be written, then leave it to the next server."""
        self._stopping.set()

    async def write(
        self, experiment: Experiment, outcome: Outcome | None, training_log: TrainingLog, work_path: Path | None
    ) -> None:
        """Write the outcome; None is a training that its user stopped. Raises Stale if it was taken over."""
        ending = await self._ending(experiment, outcome, training_log.now(), work_path)
        await self._insist(ending, training_log)
        self._recorded()

    async def put_back(self, experiment: Experiment, training_log: TrainingLog) -> None:
        """Queue a training again, for the next server."""
        queued = Ending(as_new(experiment, training_log.now()), cut_off_events())
        await self._insist_unless_cancelled(queued, experiment, training_log)

    async def put_back_interrupted(
        self, experiment: Experiment, interrupted: TrainingInterrupted, training_log: TrainingLog
    ) -> None:
        """Queue a training again whose place was lost, unless that happened too often."""
        now = training_log.now()
        if experiment.attempts < MAX_ATTEMPTS:
            ending = Ending(as_new(experiment, now), interrupted_events(interrupted))
        else:
            failure = Failure(FailureKind.SYSTEM, FailureReason.WORKER_DIED, _lost_too_often(interrupted))
            ending = ended(experiment, TrainingState.FAILED, now, failure)
        await self._insist_unless_cancelled(ending, experiment, training_log)

    async def _insist_unless_cancelled(self, ending: Ending, experiment: Experiment, training_log: TrainingLog) -> None:
        """A cancel that another server stored since the last renewal of the lease is in the row, and nowhere here."""
        cancelled = ended(experiment, TrainingState.CANCELLED, training_log.now())
        events = StateChanged(TrainingState.CANCELLING), *cancelled.last_events
        await self._insist(replace(ending, if_cancelled=replace(cancelled, last_events=events)), training_log)
        self._recorded()

    async def _ending(
        self, experiment: Experiment, outcome: Outcome | None, now: datetime, work_path: Path | None
    ) -> Ending:
        match outcome:
            case TrainingSucceeded() if work_path is not None:
                return await self._success(experiment, outcome, now, work_path)
            case TrainingFailed(failure=failure):
                return ended(experiment, TrainingState.FAILED, now, failure)
            case _:
                return ended(experiment, TrainingState.CANCELLED, now)

    async def _success(
        self, experiment: Experiment, outcome: TrainingSucceeded, now: datetime, work_path: Path
    ) -> Ending:
        version = _model_version(experiment, outcome, now)
        files = VersionKey.of_model(version.project_id, version.id)
        fault_point("training.trained")
        try:
            await self._publish(work_path, files)
        except EasyMLError as error:
            if self._stopping.is_set() and _out_of_reach(error):
                raise
            return ended(experiment, TrainingState.FAILED, now, files_failure(error))
        experiment = replace(
            experiment,
            metrics=outcome.metrics,
            confusion_matrices=outcome.confusion_matrices,
            model_version_id=version.id,
        )
        success = ended(experiment, TrainingState.SUCCEEDED, now)
        return replace(success, version=version, results=outcome.results, files=files)

    async def _publish(self, work_path: Path, files: VersionKey) -> None:
        """Files that cannot be reached are waited for, as the database is."""
        for delay in delays():
            try:
                await self._artifacts.publish(work_path, files)
            except Unavailable as error:
                if self._stopping.is_set() or not _out_of_reach(error):
                    raise
                log.warning("model_waits_for_files", version_id=str(files.version_id), seconds=delay)
            else:
                return
            await self._pause(delay)

    async def _insist(self, ending: Ending, training_log: TrainingLog) -> None:
        """Write until it is written."""
        training_log.end(ending.last_events)
        fault_point("training.published")
        try:
            for delay in delays():
                try:
                    return await self._commit(ending, training_log)
                except (Unavailable, LimitReached) as error:
                    if self._stopping.is_set():
                        raise
                    experiment_id = str(ending.experiment.id)
                    log.warning("outcome_waits", experiment_id=experiment_id, seconds=delay, error=error.message)
                await self._pause(delay)
        except (Stale, NotFound):
            # Whatever else was raised, it may have been written: the next start compares files and rows.
            if ending.files is not None:
                await self._remove_unless_kept(ending.files)
            raise

    async def _remove_unless_kept(self, files: VersionKey) -> None:
        """A try whose answer did not come may have stored the version, and the experiment was deleted since."""
        try:
            async with self._store.read() as work:
                await work.models.load_version(files.version_id)
        except NotFound:
            await self._artifacts.remove(files)
        except EasyMLError:
            # Left to housekeeping, which removes what has no row.
            self._artifacts.committed(files)
            raise
        else:
            self._artifacts.committed(files)

    async def _commit(self, ending: Ending, training_log: TrainingLog) -> None:
        events = await self._store_once(ending, training_log)
        if ending.files is not None:
            self._artifacts.committed(ending.files)
        fault_point("training.committed")
        training_log.publish(events)

    async def _store_once(self, ending: Ending, training_log: TrainingLog) -> Sequence[TrainingEvent]:
        async with self._store.begin() as work:
            stored = await work.experiments.load(ending.experiment.id)
            if stored.fencing == ending.experiment.fencing and training_log.stored_up_to(stored.last_sequence):
                # Written by a try whose answer did not come, whatever was done to it since.
                return training_log.pending
            if stored.state is TrainingState.CANCELLING and ending.if_cancelled is not None:
                ending = ending.if_cancelled
                training_log.end(ending.last_events)
            if ending.version is not None:
                stored_version = await work.models.add_version(ending.version)
                if ending.results is not None:
                    await work.models.put_results(stored_version, ending.results)
                await work.outbox.add(ADD_MODEL_VERSION, ending.version.id, self._clock())
            events = await training_log.store_pending(work)
            await work.experiments.save(ending.experiment)
            if ending.experiment.state.terminal:
                await work.outbox.add(RECORD_RUN, ending.experiment.id, self._clock())
            await work.commit()
        return events

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


def ended(experiment: Experiment, state: TrainingState, now: datetime, failure: Failure | None = None) -> Ending:
    """The end of a training; it is never before its start, whatever became of the clock meanwhile."""
    time = max(now, experiment.start_time or now)
    changed = replace(experiment, state=state, failure=failure, end_time=time, update_time=time, etag=uuid4().hex)
    finished = Finished(state, changed.metrics, changed.model_version_id, failure)
    return Ending(changed, (StateChanged(state), finished))


def as_new(experiment: Experiment, now: datetime) -> Experiment:
    """As it was before it was tried."""
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


def cut_off_events() -> tuple[EventBody, ...]:
    """What the log says of a try that its server did not live to see the end of."""
    text = "The server was stopped while this ran; it is queued again and starts from the beginning."
    return LogLine(LogLevel.WARNING, text), StateChanged(TrainingState.QUEUED)


def interrupted_events(interrupted: TrainingInterrupted) -> tuple[EventBody, ...]:
    """What the log says of a try whose place was lost."""
    text = f"{interrupted.cause}; the training is queued again and starts from the beginning."
    return LogLine(LogLevel.WARNING, text), StateChanged(TrainingState.QUEUED)


def _lost_too_often(interrupted: TrainingInterrupted) -> str:
    return (
        f"{interrupted.cause}, and it was tried {MAX_ATTEMPTS} times; see why workers are lost (memory is a common "
        "reason), then start the training again."
    )


def files_failure(error: EasyMLError) -> Failure:
    """A training that could not have its files, or put them anywhere."""
    damaged = error.reason is Reason.CHECKSUM_MISMATCH
    return Failure(FailureKind.SYSTEM, FailureReason.INTERNAL if damaged else FailureReason.DISK_FULL, error.message)


def _out_of_reach(error: EasyMLError) -> bool:
    """Nothing is wrong with the disk here, and what was trained is still in the work folder."""
    return error.metadata.get("part") == FILES_PART


def delays() -> Iterator[float]:
    """Seconds between one try and the next, without end."""
    delay = FIRST_RETRY_SECONDS
    while True:
        yield delay
        delay = min(2 * delay, MAX_RETRY_SECONDS)


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
        inference_time_ms=outcome.inference_time_ms,
    )
