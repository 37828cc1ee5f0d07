"""Use cases of trainings and experiments."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID, uuid4

from easyml_server.domain.errors import InvalidInput, LimitReached, NotSignedIn, Reason, Stale, WrongState
from easyml_server.domain.events import StateChanged, TrainingEvent
from easyml_server.domain.experiments import (
    Direction,
    Experiment,
    Metric,
    Partition,
    TrainingSpec,
    TrainingState,
)
from easyml_server.domain.limits import Limits
from easyml_server.domain.pages import Page, PageRequest
from easyml_server.domain.projects import Deleted
from easyml_server.domain.requests import RequestKey
from easyml_server.domain.sessions import TrainingSession
from easyml_server.domain.users import Caller
from easyml_server.ports.signals import Signals, Topic
from easyml_server.ports.store import ExperimentFilter, Store, UnitOfWork
from easyml_server.services.auth import AuthService
from easyml_server.services.events import EventHub, Heartbeat, StoredEvent, Watcher
from easyml_server.services.plans import Plan, RequestedTraining, plan, replan
from easyml_server.services.projects import checked_name
from easyml_server.services.requests import find_first_result, remember

QUEUE_RETRY_SECONDS = 5.0
FIRST_SEQUENCE = 1


class Dispatcher(Protocol):
    """Who runs queued trainings; see `services.dispatcher`."""

    def wake(self) -> None:
        """Something was queued."""
        ...

    def cancel(self, experiment_id: UUID) -> None:
        """Stop a training that runs here."""
        ...


@dataclass(frozen=True, slots=True)
class Compared:
    """One row of a comparison; rank 0 and no value where the metric was not measured."""

    rank: int
    experiment: Experiment
    value: float | None
    duration: timedelta | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Experiments side by side, best first."""

    rows: tuple[Compared, ...]
    metric: Metric
    partition: Partition
    direction: Direction
    differing: tuple[str, ...]
    same_test_rows: bool


class TrainingService:
    """Use cases of TrainingService."""

    def __init__(
        self,
        store: Store,
        auth: AuthService,
        hub: EventHub,
        dispatcher: Dispatcher,
        limits: Limits,
        clock: Callable[[], datetime],
        signals: Signals,
    ) -> None:
        self._store = store
        self._auth = auth
        self._hub = hub
        self._watcher = Watcher(store, hub, clock)
        self._dispatcher = dispatcher
        self._limits = limits
        self._clock = clock
        self._signals = signals

    async def start(
        self,
        caller: Caller,
        key: RequestKey | None,
        request: RequestedTraining,
        *,
        validate_only: bool,
    ) -> tuple[Experiment | None, Plan]:
        """Check a training and queue it."""
        async with self._store.begin() as work:
            await work.projects.get(request.project_id, caller)
            now = self._clock()
            first = await find_first_result(work, caller, key, now)
            if first is not None:
                experiment = await work.experiments.get(first, caller)
                return experiment, await replan(work, experiment)
            planned = await plan(work, caller, request, self._limits)
            await self._check_room(work, request.project_id)
            if validate_only:
                return None, planned
            experiment = self._queued(caller, request, planned)
            await work.experiments.add(experiment)
            session = TrainingSession(experiment.id, TrainingState.QUEUED, folds=planned.spec.folds, update_time=now)
            first_event = TrainingEvent(experiment.id, FIRST_SEQUENCE, now, StateChanged(TrainingState.QUEUED))
            await work.experiments.add_events([first_event], session, experiment.fencing)
            await remember(work, caller, key, experiment.id, now)
            await work.commit()
        self._dispatcher.wake()
        self._signals.send(Topic.QUEUE, experiment.id)
        return experiment, planned

    async def watch(
        self, caller: Caller, experiment_id: UUID, after: int
    ) -> AsyncGenerator[StoredEvent | Heartbeat, None]:
        """The events of a training; ends with an error when the caller's session ends meanwhile."""
        experiment = await self.get(caller, experiment_id)
        if after > experiment.last_sequence:
            raise InvalidInput.at(
                "after_sequence",
                f"The newest event has the sequence {experiment.last_sequence}; continue at that or before.",
            )
        async for item in self._watcher.watch(experiment, after):
            if isinstance(item, Heartbeat) and not await self._auth.still_valid(caller):
                raise NotSignedIn("The session has ended; sign in again.", Reason.TOKEN_EXPIRED)
            yield item

    async def cancel(self, caller: Caller, experiment_id: UUID) -> Experiment:
        """Ask a training to stop; an ended one is returned as it is."""
        async with self._store.begin() as work:
            experiment = await work.experiments.get(experiment_id, caller)
            if experiment.state.terminal or experiment.state is TrainingState.CANCELLING:
                return experiment
            experiment = replace(
                experiment,
                state=TrainingState.CANCELLING,
                update_time=self._clock(),
                etag=uuid4().hex,
                queue_position=0,
            )
            await work.experiments.save(experiment)
            await work.commit()
        self._dispatcher.cancel(experiment_id)
        self._signals.send(Topic.CANCEL, experiment_id)
        return experiment

    async def get(self, caller: Caller, experiment_id: UUID) -> Experiment:
        """One experiment."""
        async with self._store.read() as work:
            return await work.experiments.get(experiment_id, caller)

    async def list(
        self, caller: Caller, project_id: UUID, page: PageRequest, only: ExperimentFilter
    ) -> Page[Experiment]:
        """The experiments of a project."""
        async with self._store.read() as work:
            await work.projects.get(project_id, caller)
            return await work.experiments.list(project_id, page, only)

    async def compare(
        self, caller: Caller, ids: Sequence[UUID], metric: Metric | None, partition: Partition | None
    ) -> Comparison:
        """Put experiments of one project side by side, best first."""
        async with self._store.read() as work:
            experiments = [await work.experiments.get(experiment_id, caller) for experiment_id in ids]
        if len({experiment.project_id for experiment in experiments}) > 1:
            raise InvalidInput.at("experiment_ids", "These experiments belong to several projects; compare one's only.")
        if len({experiment.spec.task for experiment in experiments}) > 1:
            raise InvalidInput.at(
                "experiment_ids", "Classification and regression have no metric in common; compare one task's only."
            )
        return compare(experiments, metric or experiments[0].spec.objective.metric, partition or Partition.TEST)

    async def delete(self, caller: Caller, experiment_id: UUID, etag: str, *, validate_only: bool) -> Deleted:
        """Delete an ended experiment; its model version stays."""
        async with self._store.begin() as work:
            experiment = await work.experiments.get(experiment_id, caller)
            if not experiment.state.terminal:
                raise WrongState(
                    f"The training is {experiment.state.value}; cancel it first.",
                    metadata={"state": experiment.state.value},
                )
            if etag and etag != experiment.etag:
                raise Stale("The experiment was changed by somebody else; read it again, then repeat your change.")
            if not validate_only:
                await work.experiments.delete(experiment_id, etag)
                await work.commit()
        return Deleted(experiments=1)

    async def _check_room(self, work: UnitOfWork, project_id: UUID) -> None:
        for whose, maximum, setting in (
            (project_id, self._limits.queued_per_project, "EASYML_QUEUED_PER_PROJECT"),
            (None, self._limits.queue_length, "EASYML_QUEUE_LENGTH"),
        ):
            if await work.experiments.count_active(whose) >= maximum:
                raise LimitReached(
                    f"{maximum} trainings wait already ({setting}); try again when some have ended.",
                    retry_after=QUEUE_RETRY_SECONDS,
                    metadata={"limit": setting, "maximum": str(maximum)},
                )

    def _queued(self, caller: Caller, request: RequestedTraining, planned: Plan) -> Experiment:
        now = self._clock()
        name = request.name or f"{planned.spec.algorithm} on {planned.dataset_name}"
        return Experiment(
            id=uuid4(),
            project_id=request.project_id,
            name=checked_name(name)[:255],
            labels=request.labels,
            state=TrainingState.QUEUED,
            spec=planned.spec,
            dataset_name=planned.dataset_name,
            dataset_sha256=planned.dataset_sha256,
            creator_id=caller.user_id,
            create_time=now,
            update_time=now,
            etag=uuid4().hex,
            last_sequence=FIRST_SEQUENCE,
        )


def compare(experiments: Sequence[Experiment], metric: Metric, partition: Partition) -> Comparison:
    """Rank by one metric on one partition; equal values share a rank, those without a value come last."""
    if metric.task is not experiments[0].spec.task:
        raise InvalidInput.at("metric", f"{metric.value} does not measure {experiments[0].spec.task.value}.")
    sign = -1 if metric.direction is Direction.MAXIMIZE else 1
    values = {experiment.id: measured(experiment, metric, partition) for experiment in experiments}
    scores = sorted(sign * value for value in values.values() if value is not None)

    def rank(experiment: Experiment) -> int:
        value = values[experiment.id]
        return 0 if value is None else scores.index(sign * value) + 1

    rows = [
        Compared(rank(experiment), experiment, values[experiment.id], duration(experiment))
        for experiment in experiments
    ]
    rows.sort(key=lambda row: (row.rank == 0, row.rank, row.experiment.create_time))
    return Comparison(
        rows=tuple(rows),
        metric=metric,
        partition=partition,
        direction=metric.direction,
        differing=differing([experiment.spec for experiment in experiments]),
        same_test_rows=len({(e.dataset_sha256, e.split_sha256) for e in experiments}) == 1
        and bool(experiments[0].split_sha256),
    )


def measured(experiment: Experiment, metric: Metric, partition: Partition) -> float | None:
    """The value of a metric, if it was measured."""
    found = (v.value for v in experiment.metrics if v.metric is metric and v.partition is partition)
    return next(found, None)


def duration(experiment: Experiment) -> timedelta | None:
    """How long it ran, if it has ended."""
    if experiment.start_time is None or experiment.end_time is None:
        return None
    return experiment.end_time - experiment.start_time


def differing(specs: Sequence[TrainingSpec]) -> tuple[str, ...]:
    """Hyperparameters that are not the same in all, by name."""
    names = sorted({name for spec in specs for name in spec.hyperparameters})
    missing = object()

    def value(spec: TrainingSpec, name: str) -> Any:
        return spec.hyperparameters.get(name, missing)

    return tuple(name for name in names if any(value(s, name) != value(specs[0], name) for s in specs))
