"""What another server stores reaches the watchers here: each group read once, however many watch, and in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from easyml_server.domain.events import Finished, IterationCompleted, TrainingEvent
from easyml_server.domain.experiments import Experiment, TrainingState
from easyml_server.ports.signals import Topic
from easyml_server.repositories.sql.store import SqlStore
from easyml_server.services import following
from easyml_server.services.events import EventHub, Feed, Heartbeat, StoredEvent, Watcher
from easyml_server.services.following import Follower
from easyml_server.services.logs import TrainingLog
from tests.builders import TIME
from tests.unit.services.test_events import a_log, experiment, now, sequences

__all__ = ["experiment"]

WATCHERS = 50
SECONDS = 30


class Progress:
    """Lets a test wait until things are as it needs them."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()

    async def made(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS), self._changed:
            await self._changed.wait_for(true)


class CountingStore:
    """Counts how often the log is read."""

    def __init__(self, store: SqlStore, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self.reads = 0

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Any]:
        async with self._store.read() as work:
            list_events = work.experiments.list_events

            async def counted(*args: Any) -> Any:
                events = await list_events(*args)
                self.reads += 1
                await self._progress.made()
                return events

            work.experiments.list_events = counted  # type: ignore[method-assign]  # to count
            yield work


class Told:
    """Signals that go to another server of this test."""

    def __init__(self) -> None:
        self.follower: Follower | None = None

    def send(self, topic: Topic, subject_id: UUID) -> None:
        if self.follower is not None and topic is Topic.EVENTS:
            self.follower.tell(subject_id)


def iteration(log: TrainingLog, number: int) -> None:
    log.add(IterationCompleted(number, 100))


@pytest.fixture
def signals() -> Told:
    return Told()


@asynccontextmanager
async def following_(follower: Follower) -> AsyncIterator[None]:
    task = asyncio.create_task(follower.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def collect(items: AsyncIterator[StoredEvent | Heartbeat], seen: list[int], progress: Progress) -> list[int]:
    async for item in items:
        if not isinstance(item, Heartbeat):
            seen.append(item.event.sequence)
            await progress.made()
    return seen


async def test_a_group_is_read_once_for_all_who_watch(store: SqlStore, experiment: Experiment, signals: Told) -> None:
    there, here = EventHub(signals), EventHub()
    progress = Progress()
    counting = CountingStore(store, progress)
    signals.follower = Follower(counting, here)  # type: ignore[arg-type]  # it only reads
    with there.use(experiment.id) as feed:
        log = a_log(store, feed, experiment)
        iteration(log, 1)
        await log.flush()
        seen: list[list[int]] = [[] for _ in range(WATCHERS)]
        watchers = [
            asyncio.create_task(
                collect(Watcher(counting, here, now).watch(experiment, 0), each, progress)  # type: ignore[arg-type]
            )
            for each in seen
        ]
        async with following_(signals.follower):
            # Everybody has read the log to its end and waits.
            await progress.until(lambda: counting.reads >= 2 * WATCHERS)
            before = counting.reads
            for number in range(2, 12):
                iteration(log, number)
                await log.flush()
                await progress.until(lambda number=number: all(each[-1:] == [number] for each in seen))  # type: ignore[misc]
            log.add(Finished(TrainingState.SUCCEEDED))
            await log.flush()
            found = await asyncio.gather(*watchers)
    assert found == [list(range(1, 13))] * WATCHERS
    assert counting.reads - before <= 2 * 11


async def test_what_nobody_told_of_is_found_by_looking(
    store: SqlStore, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.01)
    here, seen, progress = EventHub(), list[int](), Progress()
    log = a_log(store, Feed(), experiment)
    iteration(log, 1)
    await log.flush()
    watching = asyncio.create_task(collect(Watcher(store, here, now).watch(experiment, 0), seen, progress))
    await progress.until(lambda: seen == [1])
    async with following_(Follower(store, here)):
        iteration(log, 2)
        log.add(Finished(TrainingState.SUCCEEDED))
        await log.flush()
        assert await watching == [1, 2, 3]


async def test_a_run_that_changes_servers_is_watched_without_gap_or_repeat(
    store: SqlStore, experiment: Experiment, signals: Told
) -> None:
    """It ran here, is taken over there, comes back, and ends."""
    here = EventHub()
    signals.follower = Follower(store, here)
    there = EventHub(signals)
    async with following_(signals.follower):
        with here.use(experiment.id) as own, there.use(experiment.id) as others:
            watching = asyncio.create_task(sequences(Watcher(store, here, now).watch(experiment, 0)))
            for turn, feed in enumerate((own, others, own, others)):
                async with store.read() as work:
                    current = await work.experiments.load(experiment.id)
                log = a_log(store, feed, replace(current, fencing=experiment.fencing))
                for number in range(3):
                    iteration(log, 3 * turn + number + 1)
                    await log.flush()
            log.add(Finished(TrainingState.SUCCEEDED))
            await log.flush()
            assert await watching == list(range(1, 14))


def events_of(identity: UUID, *numbers: int) -> list[TrainingEvent]:
    return [TrainingEvent(identity, number, TIME, IterationCompleted(number, 0)) for number in numbers]


def numbers_of(feed: Feed) -> list[int]:
    return [stored.event.sequence for stored in feed.recent]


def test_a_feed_holds_each_event_once_and_never_a_gap() -> None:
    feed, identity = Feed(), uuid4()
    feed.publish(events_of(identity, 4, 5))
    # The same from the log, and more.
    feed.show(events_of(identity, 4, 5, 6))
    assert numbers_of(feed) == [4, 5, 6]
    feed.publish(events_of(identity, 6))
    assert numbers_of(feed) == [4, 5, 6]
    # 7 and 8 were stored elsewhere: who needs them reads the log.
    feed.publish(events_of(identity, 9))
    assert numbers_of(feed) == [9]
    assert feed.since(6) is None
    assert [stored.event.sequence for stored in feed.since(8) or []] == [9]


async def test_a_watcher_that_read_further_than_memory_goes_on_from_there(
    store: SqlStore, experiment: Experiment
) -> None:
    log = a_log(store, Feed(), experiment)
    for number in range(1, 5):
        iteration(log, number)
    log.add(Finished(TrainingState.SUCCEEDED))
    await log.flush()
    hub = EventHub()
    with hub.use(experiment.id) as feed:
        # This server knows of the beginning only.
        feed.show(events_of(experiment.id, 1, 2))
        follower = Follower(store, hub)
        follower.look_again()
        async with following_(follower):
            assert await sequences(Watcher(store, hub, now).watch(experiment, 3)) == [4, 5]
