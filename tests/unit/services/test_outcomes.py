"""How trainings end when the database, the clock or another server gets in the way."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog

from easyml_server.artifacts.local import LocalArtifacts
from easyml_server.domain.algorithms import Task
from easyml_server.domain.datasets import StorageType
from easyml_server.domain.errors import Unavailable
from easyml_server.domain.events import Finished, IterationCompleted, TrainingEvent
from easyml_server.domain.experiments import Experiment, TrainingState
from easyml_server.domain.leases import Lease
from easyml_server.domain.limits import Limits
from easyml_server.domain.models import ModelManifest, Parity, Signature
from easyml_server.domain.training import Outcome, Report, TrainingJob, TrainingSucceeded
from easyml_server.ports.artifacts import VersionKey
from easyml_server.ports.signals import Alone
from easyml_server.repositories.sql import store as stores
from easyml_server.repositories.sql.store import SqlStore, SqlUnitOfWork, open_sqlite
from easyml_server.services import outcomes
from easyml_server.services.dispatcher import TrainingDispatcher
from easyml_server.services.events import EventHub, Heartbeat, Watcher
from easyml_server.services.recorder import RECORD_RUN
from tests.builders import TIME, a_config, a_project, a_user
from tests.unit.services.builders import a_dataset, a_spec, an_experiment, some_results

HOUR = timedelta(hours=1)
MANIFEST = ModelManifest(
    Task.CLASSIFICATION, "gaussian_nb", "y", Signature((), "y", StorageType.STRING), (), Parity(proved=False), {}
)


class Clock:
    """A clock that somebody sets."""

    def __init__(self) -> None:
        self.time = TIME

    def __call__(self) -> datetime:
        self.time += timedelta(milliseconds=1)
        return self.time


class OneTraining:
    """A trainer whose trainings write a file, report, let something happen, report again, and succeed."""

    slots = 1

    def __init__(self, happens: Callable[[], None]) -> None:
        self._happens = happens

    async def train(self, job: TrainingJob, report: Callable[[Report], None]) -> Outcome:
        """See Trainer.train."""
        await asyncio.to_thread(Path(job.output_path, "manifest.json").write_text, "{}")
        report(IterationCompleted(1, 2))
        self._happens()
        report(IterationCompleted(2, 2))
        return TrainingSucceeded((), (), some_results(), MANIFEST)


class World:
    """A queued training, and what it takes to run it."""

    def __init__(self, store: SqlStore, database: Path, folder: Path) -> None:
        self.store = store
        self.database = database
        self.artifacts = LocalArtifacts(folder, 0, folder / "work")
        self.hub = EventHub()
        self.clock = Clock()

    async def queue(self) -> UUID:
        user = a_user()
        project = a_project(user.id)
        async with self.store.begin() as work:
            await work.users.add(user)
            await work.projects.add(project, a_config(project))
            dataset = a_dataset(project.id, user.id)
            await work.datasets.add(dataset)
            spec = a_spec(dataset_id=dataset.id, dataset_version_id=dataset.current.id)
            experiment = an_experiment(project.id, user.id, spec=spec)
            await work.experiments.add(experiment)
            await work.commit()
        self.artifacts.path(VersionKey.of_dataset(project.id, dataset.current.id)).mkdir(parents=True)
        return experiment.id

    @asynccontextmanager
    async def running(
        self, happens: Callable[[], None], trainer: OneTraining | None = None
    ) -> AsyncIterator[TrainingDispatcher]:
        """A dispatcher at work."""
        dispatcher = self.dispatcher(trainer or OneTraining(happens))
        task = asyncio.create_task(dispatcher.run())
        try:
            yield dispatcher
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await dispatcher.stop()

    def dispatcher(self, trainer: OneTraining) -> TrainingDispatcher:
        """One of a server that was just started."""
        lease = Lease(uuid4())
        return TrainingDispatcher(
            self.store, self.artifacts, trainer, self.hub, Limits(), self.clock, lambda: None, lease, Alone()
        )

    async def load(self, experiment_id: UUID) -> Experiment:
        async with self.store.read() as work:
            return await work.experiments.load(experiment_id)

    async def watch(self, experiment_id: UUID) -> list[TrainingEvent]:
        """All events, to the end."""
        items = Watcher(self.store, self.hub, self.clock).watch(await self.load(experiment_id), 0)
        return [item.event async for item in items if not isinstance(item, Heartbeat)]

    def locked(self) -> sqlite3.Connection:
        """Another process writes to the database, and does not come to an end."""
        other = sqlite3.connect(self.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        return other

    def folders(self) -> list[Path]:
        return list(self.artifacts.root.glob("files/*/models/*"))


@pytest.fixture
async def world(migrated_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(stores, "BUSY_SECONDS", 0.01)
    monkeypatch.setattr(outcomes, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(outcomes, "MAX_RETRY_SECONDS", 0.01)
    database = tmp_path / "easyml.db"
    shutil.copy(migrated_database, database)
    store = open_sqlite(str(database))
    yield World(store, database, tmp_path)
    await store.close()


class Told:
    """What was written to the log, to wait for."""

    def __init__(self) -> None:
        self._events: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def __call__(self, _logger: object, _method: str, entry: Any) -> Any:
        self._events[entry["event"]].set()
        raise structlog.DropEvent

    async def of(self, event: str) -> None:
        """Return once this was said."""
        async with asyncio.timeout(60):
            await self._events[event].wait()


@pytest.fixture
def told() -> Iterator[Told]:
    # In place: loggers that were used before keep the list.
    processors = structlog.get_config()["processors"]
    before = list(processors)
    told = Told()
    processors[:] = [told]
    yield told
    processors[:] = before


class SlowToEnd(OneTraining):
    """A trainer that needs its time to end a worker."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.begun, self.asked, self.end, self.ended = (asyncio.Event() for _ in range(4))

    async def train(self, job: TrainingJob, report: Callable[[Report], None]) -> Outcome:  # noqa: ARG002 (the port's)
        """See Trainer.train."""
        self.begun.set()
        try:
            return await asyncio.Future[Outcome]()
        finally:
            self.asked.set()
            await self.end.wait()
            self.ended.set()


async def test_a_cancel_that_comes_again_does_not_disturb_the_end_of_the_worker(world: World) -> None:
    experiment_id = await world.queue()
    trainer = SlowToEnd()
    async with world.running(lambda: None, trainer) as dispatcher:
        await trainer.begun.wait()
        dispatcher.cancel(experiment_id)
        await trainer.asked.wait()
        dispatcher.cancel(experiment_id)
        await asyncio.sleep(0)
        trainer.end.set()
        await world.watch(experiment_id)
    assert trainer.ended.is_set()
    assert (await world.load(experiment_id)).state is TrainingState.CANCELLED


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
async def test_a_clock_that_jumps_puts_nothing_out_of_order(world: World, jump: timedelta) -> None:
    def set_clock() -> None:
        world.clock.time += jump

    experiment_id = await world.queue()
    async with world.running(set_clock):
        events = await world.watch(experiment_id)
    experiment = await world.load(experiment_id)
    assert experiment.state is TrainingState.SUCCEEDED
    assert [event.sequence for event in events] == list(range(1, experiment.last_sequence + 1))
    times = [event.event_time for event in events]
    assert times == sorted(times)
    assert experiment.start_time is not None
    assert experiment.end_time is not None
    assert experiment.start_time <= experiment.end_time
    # It is recorded by the clock as it is now, not in an hour.
    async with world.store.read() as work:
        assert [intent.subject_id for intent in await work.outbox.due((RECORD_RUN,), world.clock(), 10)] == [
            experiment_id
        ]


async def test_an_outcome_waits_for_a_locked_database(world: World, told: Told) -> None:
    experiment_id = await world.queue()
    others: list[sqlite3.Connection] = []
    async with world.running(lambda: others.append(world.locked())):
        await told.of("outcome_waits")
        assert len(world.folders()) == 1
        others[0].close()
        events = await world.watch(experiment_id)
    experiment = await world.load(experiment_id)
    assert isinstance(events[-1].body, Finished)
    assert [event.sequence for event in events] == list(range(1, experiment.last_sequence + 1))
    assert experiment.state is TrainingState.SUCCEEDED
    assert [path.name for path in world.folders()] == [str(experiment.model_version_id)]


async def test_an_outcome_that_waited_is_given_up_when_somebody_else_has_taken_over(world: World, told: Told) -> None:
    experiment_id = await world.queue()
    others: list[sqlite3.Connection] = []
    async with world.running(lambda: others.append(world.locked())):
        await told.of("outcome_waits")
        others[0].execute("UPDATE ml_experiments SET fencing = fencing + 1")
        others[0].execute("COMMIT")
        others[0].close()
        await told.of("training_taken_over")
    assert (await world.load(experiment_id)).state is TrainingState.RUNNING
    assert world.folders() == []


async def test_an_outcome_that_could_not_be_written_is_left_to_the_next_server(world: World, told: Told) -> None:
    experiment_id = await world.queue()
    others: list[sqlite3.Connection] = []
    async with world.running(lambda: others.append(world.locked())) as dispatcher:
        await told.of("outcome_waits")
        await dispatcher.stop()
    others[0].close()
    await world.dispatcher(OneTraining(lambda: None)).recover()
    assert (await world.load(experiment_id)).state is TrainingState.QUEUED
    async with world.running(lambda: None):
        events = await world.watch(experiment_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert (await world.load(experiment_id)).state is TrainingState.SUCCEEDED


class UnansweredEnd:
    """A COMMIT of the end of a training that is done and not answered; then something happens."""

    def __init__(self, world: World, happens: str) -> None:
        self._world = world
        self._happens = happens
        self._commit = SqlUnitOfWork.commit
        self._lost = False

    async def commit(self, work: SqlUnitOfWork) -> None:
        await self._commit(work)
        with sqlite3.connect(self._world.database) as other:
            ended = other.execute("SELECT count(*) FROM ml_experiments WHERE state = 'succeeded'").fetchone()[0]
            if ended and not self._lost:
                self._lost = True
                other.execute("PRAGMA foreign_keys=ON")
                other.execute(self._happens)
                other.commit()
                raise Unavailable("The database cannot be used just now; try again.", retry_after=1.0)


@pytest.mark.parametrize(
    ("happens", "stays"), [("DELETE FROM ml_experiments", True), ("DELETE FROM projects", False)], ids=lambda each: each
)
async def test_the_files_of_an_end_that_was_stored_unheard_stay_as_long_as_its_version(
    world: World, told: Told, monkeypatch: pytest.MonkeyPatch, happens: str, stays: bool
) -> None:
    """Its experiment may be deleted before the server asks what became of it; the model version outlives that."""
    unanswered = UnansweredEnd(world, happens)

    async def commit(work: SqlUnitOfWork) -> None:
        await unanswered.commit(work)

    monkeypatch.setattr(SqlUnitOfWork, "commit", commit)
    await world.queue()
    async with world.running(lambda: None) as dispatcher:
        await told.of("outcome_waits")
        await told.of("training_deleted")
        await dispatcher.stop()
    async with world.store.read() as work:
        known = await work.known_file_ids()
    assert {path.name for path in world.folders()} == {path.name for path in world.folders()} & known
    assert bool(world.folders()) == stays
