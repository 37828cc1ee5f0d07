"""The log of a training and its watchers: stored before shown, no gap, no repeat, nobody slowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import cast
from uuid import uuid4

import pytest

from easyml_server.domain.errors import InvalidInput, Reason, Stale, Unavailable
from easyml_server.domain.events import Finished, IterationCompleted, StateChanged, TrainingEvent
from easyml_server.domain.experiments import Experiment, TrainingState
from easyml_server.domain.leases import Abandoned, Lease
from easyml_server.domain.sessions import TrainingSession
from easyml_server.repositories.sql.store import SqlStore, SqlUnitOfWork
from easyml_server.services.events import (
    REMEMBERED_EVENTS,
    EventHub,
    Feed,
    Heartbeat,
    Watcher,
)
from easyml_server.services.groups import TOGETHER_AT_ONCE
from easyml_server.services.logs import TrainingLog
from tests.builders import a_config, a_project, a_user
from tests.unit.services.builders import a_dataset, a_spec, an_experiment


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
async def experiment(store: SqlStore) -> Experiment:
    """A stored experiment that was claimed."""
    user = a_user()
    project = a_project(user.id)
    async with store.begin() as work:
        await work.users.add(user)
        await work.projects.add(project, a_config(project))
        dataset = a_dataset(project.id, user.id)
        await work.datasets.add(dataset)
        spec = a_spec(dataset_id=dataset.id, dataset_version_id=dataset.current.id)
        await work.experiments.add(an_experiment(project.id, user.id, spec=spec))
        claimed = await work.queue.claim(now(), Lease(uuid4()), 1)
        await work.commit()
    assert claimed is not None
    return claimed


def a_log(store: SqlStore, feed: Feed, experiment: Experiment) -> TrainingLog:
    return TrainingLog(store, feed, experiment, TrainingSession(experiment.id, experiment.state), now, now())


async def sequences(items: AsyncIterator[object]) -> list[int]:
    return [item.event.sequence async for item in items if not isinstance(item, Heartbeat)]  # type: ignore[attr-defined]


async def test_events_are_numbered_without_gaps_and_stored(store: SqlStore, experiment: Experiment) -> None:
    log = a_log(store, Feed(), experiment)
    for iteration in range(1, 6):
        log.add(IterationCompleted(iteration, 5))
    await log.flush()
    async with store.read() as work:
        events = await work.experiments.list_events(experiment.id, 0, 100)
        stored = await work.experiments.load(experiment.id)
        session = await work.experiments.find_session(experiment.id)
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5]
    assert stored.last_sequence == 5
    assert session is not None
    assert (session.iteration, session.iterations) == (5, 5)


async def test_nothing_is_shown_before_it_is_stored(store: SqlStore, experiment: Experiment) -> None:
    feed = Feed()
    log = a_log(store, feed, experiment)
    log.add(StateChanged(TrainingState.RUNNING))
    assert not feed.recent
    await log.flush()
    assert [stored.event.sequence for stored in feed.recent] == [1]


async def test_a_log_whose_training_was_taken_over_stores_nothing(store: SqlStore, experiment: Experiment) -> None:
    log = a_log(store, Feed(), replace(experiment, fencing=experiment.fencing - 1))
    log.add(StateChanged(TrainingState.RUNNING))
    with pytest.raises(Stale):
        await log.flush()
    async with store.read() as work:
        assert not await work.experiments.list_events(experiment.id, 0, 10)


class CountingStore:
    """A store that counts units of work, and how many are open at once, unless it is away."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._open = 0
        self.largest = 0
        self.total = 0
        self.away = False

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SqlUnitOfWork]:
        self.total += 1
        if self.away:
            # As asking for a connection does.
            await asyncio.sleep(0)
            raise Unavailable("The database cannot be used just now; try again.")
        self._open += 1
        self.largest = max(self.largest, self._open)
        try:
            async with self._store.begin() as work:
                yield work
        finally:
            self._open -= 1


@dataclass
class Many:
    """Trainings that run in one server, with a log each."""

    store: SqlStore
    counting: CountingStore
    experiments: list[Experiment]
    logs: list[TrainingLog]

    async def flush(self) -> list[BaseException | None]:
        return await asyncio.gather(*(log.flush() for log in self.logs), return_exceptions=True)

    async def stored(self) -> list[list[int]]:
        async with self.store.read() as work:
            found = [await work.experiments.list_events(each.id, 0, 100) for each in self.experiments]
        return [[event.sequence for event in events] for events in found]


@pytest.fixture
async def many(store: SqlStore, experiment: Experiment) -> AsyncIterator[Many]:
    """Ten of them, each with an event to be stored."""
    hub, counting = EventHub(), CountingStore(store)
    experiments = [replace(experiment, id=uuid4()) for _ in range(10)]
    async with store.begin() as work:
        for each in experiments:
            await work.experiments.add(each)
        await work.commit()
    with ExitStack() as stack:
        logs = [a_log(cast("SqlStore", counting), stack.enter_context(hub.use(each.id)), each) for each in experiments]
        for log in logs:
            log.add(StateChanged(TrainingState.RUNNING))
        yield Many(store, counting, experiments, logs)


async def test_many_trainings_store_their_groups_together_and_leave_connections_to_others(many: Many) -> None:
    for round_ in range(1, 4):
        assert await many.flush() == [None] * 10
        assert await many.stored() == [list(range(1, round_ + 1))] * 10
        for log in many.logs:
            assert not log.pending
            log.add(IterationCompleted(round_, 3))
    # The first has nobody to wait for; all others go together.
    assert many.counting.total <= 3 * (TOGETHER_AT_ONCE + 1)
    assert many.counting.largest <= TOGETHER_AT_ONCE


async def test_who_was_overtaken_is_told_and_the_others_are_stored(many: Many, experiment: Experiment) -> None:
    spared = {each.id for each in (experiment, *many.experiments[1:])}
    async with many.store.begin() as work:
        taken = await work.queue.take_over(Abandoned.ALL, spared)
        await work.commit()
    assert taken is not None
    assert taken.id == many.experiments[0].id
    overtaken, *others = await many.flush()
    assert isinstance(overtaken, Stale)
    assert others == [None] * 9
    assert await many.stored() == [[], *[[1]] * 9]


async def test_while_the_database_is_away_all_are_told_at_once_and_keep_their_events(many: Many) -> None:
    many.counting.away = True
    assert {type(each) for each in await many.flush()} == {Unavailable}
    assert many.counting.total <= TOGETHER_AT_ONCE + 1
    many.counting.away = False
    assert await many.flush() == [None] * 10
    assert await many.stored() == [[1]] * 10


async def test_who_has_what_cannot_be_stored_fails_alone(many: Many) -> None:
    many.logs[3].add(IterationCompleted(1, 2, {"\0": 1.0}))
    found = await many.flush()
    assert [type(each) for each in found if each is not None] == [InvalidInput]
    assert await many.stored() == [[] if number == 3 else [1] for number in range(10)]


async def test_what_was_asked_for_by_somebody_who_gave_up_is_stored_once(many: Many) -> None:
    flushing = [asyncio.create_task(log.flush()) for log in many.logs]
    await asyncio.sleep(0)
    for task in flushing[::2]:
        task.cancel()
    await asyncio.gather(*flushing, return_exceptions=True)
    assert await many.flush() == [None] * 10
    assert await many.stored() == [[1]] * 10


async def test_watchers_from_every_place_see_the_rest_once(store: SqlStore, experiment: Experiment) -> None:
    hub = EventHub()
    with hub.use(experiment.id) as feed:
        log = a_log(store, feed, experiment)
        for iteration in range(1, 4):
            log.add(IterationCompleted(iteration, 6))
        await log.flush()
        watchers = [
            asyncio.create_task(sequences(Watcher(store, hub, now).watch(experiment, after))) for after in range(4)
        ]
        for iteration in range(4, 7):
            log.add(IterationCompleted(iteration, 6))
            await log.flush()
        log.add(Finished(TrainingState.SUCCEEDED))
        await log.flush()
        found = await asyncio.gather(*watchers)
    assert found == [[1, 2, 3, 4, 5, 6, 7], [2, 3, 4, 5, 6, 7], [3, 4, 5, 6, 7], [4, 5, 6, 7]]


async def test_a_watcher_that_lags_behind_memory_reads_the_log(store: SqlStore, experiment: Experiment) -> None:
    hub = EventHub()
    count = REMEMBERED_EVENTS + 700
    with hub.use(experiment.id) as feed:
        log = a_log(store, feed, experiment)
        for iteration in range(count):
            log.add(IterationCompleted(iteration + 1, count))
        log.add(Finished(TrainingState.SUCCEEDED))
        await log.flush()
        assert feed.since(0) is None
        assert await sequences(Watcher(store, hub, now).watch(experiment, 0)) == list(range(1, count + 2))


async def test_a_quiet_stream_has_heartbeats(store: SqlStore, experiment: Experiment) -> None:
    async for item in Watcher(store, EventHub(), now).watch(experiment, 0, heartbeat_seconds=0.01):
        assert isinstance(item, Heartbeat)
        assert item.session.state is TrainingState.RUNNING
        assert item.session.progress is None
        break


async def test_a_draining_server_sends_watchers_away_with_the_time_to_come_back(
    store: SqlStore, experiment: Experiment
) -> None:
    hub = EventHub()
    watching = Watcher(store, hub, now).watch(experiment, 0, heartbeat_seconds=0.01)
    assert isinstance(await anext(watching), Heartbeat)
    hub.drain()
    with pytest.raises(Unavailable) as refused:
        await anext(watching)
    assert refused.value.reason is Reason.SERVER_DRAINING
    assert refused.value.retry_after


async def test_watching_an_ended_training_from_its_last_event_ends_at_once(
    store: SqlStore, experiment: Experiment
) -> None:
    ended = replace(experiment, state=TrainingState.SUCCEEDED, last_sequence=9)
    assert await sequences(Watcher(store, EventHub(), now).watch(ended, 9)) == []


def test_a_feed_nobody_uses_is_forgotten() -> None:
    hub, identity = EventHub(), uuid4()
    with hub.use(identity) as first, hub.use(identity) as second:
        assert first is second
    assert hub.find(identity) is None


def test_a_feed_gives_what_is_newer_or_says_that_it_cannot() -> None:
    feed, identity = Feed(), uuid4()
    assert feed.since(0) is None
    feed.publish([TrainingEvent(identity, sequence, now(), IterationCompleted(sequence, 0)) for sequence in (4, 5, 6)])
    assert feed.since(2) is None
    assert [stored.event.sequence for stored in feed.since(3) or ()] == [4, 5, 6]
    assert feed.since(6) == []
