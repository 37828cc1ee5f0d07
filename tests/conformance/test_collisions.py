"""Units of work that get into each other's way on PostgreSQL: one is refused, whole, and may be repeated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text

from easyml_server.artifacts.local import LocalArtifacts
from easyml_server.domain.errors import Unavailable
from easyml_server.domain.events import LogLevel, LogLine
from easyml_server.domain.experiments import TrainingState
from easyml_server.domain.projects import Project
from easyml_server.domain.sessions import TrainingSession
from easyml_server.repositories.sql.store import SqlStore
from easyml_server.services.events import EventHub
from easyml_server.services.logs import TrainingLog
from easyml_server.services.outcomes import OutcomeWriter
from tests.builders import TIME
from tests.conformance.stores import postgresql_stores
from tests.conformance.test_queue import claimed
from tests.conformance.test_store import owner_of, with_experiments, with_project
from tests.postgresql import PostgresServer


@pytest.fixture
async def store(postgres: PostgresServer, postgres_template: str) -> AsyncIterator[SqlStore]:
    async with postgresql_stores(postgres, postgres_template)() as store:
        yield store


async def rename_both(store: SqlStore, name: str, projects: list[Project], both_have_one: asyncio.Barrier) -> None:
    async with store.begin() as work:
        for number, project in enumerate(projects):
            found = await work.projects.get(project.id, owner_of(project))
            await work.projects.save(replace(found, name=f"{name} {number}", etag=uuid4().hex), "")
            if number == 0:
                await both_have_one.wait()
        await work.commit()


async def test_a_deadlock_ends_one_of_two_which_can_be_repeated(store: SqlStore) -> None:
    first, second = await with_project(store), await with_project(store)
    both_have_one = asyncio.Barrier(2)
    found = await asyncio.gather(
        rename_both(store, "a", [first, second], both_have_one),
        rename_both(store, "b", [second, first], both_have_one),
        return_exceptions=True,
    )
    (refused,) = [each for each in found if each is not None]
    assert isinstance(refused, Unavailable)
    assert refused.retry_after
    won = "ab"[found.index(None)]
    lost = "ab"[found.index(refused)]

    async def names() -> set[str]:
        async with store.read() as work:
            return {(await work.projects.load(project.id)).name for project in (first, second)}

    # Of the one that was refused nothing is there, until it comes again.
    assert await names() == {f"{won} 0", f"{won} 1"}
    await rename_both(store, lost, [first, second], asyncio.Barrier(1))
    assert await names() == {f"{lost} 0", f"{lost} 1"}


WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")


async def somebody_waits(store: SqlStore) -> None:
    """Return once a unit of work waits for another one's lock."""
    async with asyncio.timeout(30):
        while True:
            async with store.read() as work:
                if await work.users._session.scalar(WAITING):
                    return
            await asyncio.sleep(0.01)


async def test_a_training_that_is_being_changed_holds_up_the_events_of_no_other(store: SqlStore) -> None:
    experiments = await with_experiments(store, await with_project(store), 4)
    hub = EventHub()
    with ExitStack() as stack:
        logs = [
            TrainingLog(
                store, stack.enter_context(hub.use(each.id)), each, TrainingSession.of(each), lambda: TIME, TIME
            )
            for each in experiments
        ]
        for log in logs:
            log.add(LogLine(LogLevel.INFO, "here"))
        async with store.begin() as work:
            await work.experiments.load(experiments[0].id)
            flushing = [asyncio.create_task(log.flush()) for log in logs]
            async with asyncio.timeout(30):
                await asyncio.gather(*flushing[1:])
            await somebody_waits(store)
            assert not flushing[0].done()
        await flushing[0]
    async with store.read() as work:
        assert [(await work.experiments.load(each.id)).last_sequence for each in experiments] == [1] * 4


async def test_a_cancel_that_is_being_stored_is_not_written_over(store: SqlStore, tmp_path: Path) -> None:
    running, _ = await claimed(store)
    writer = OutcomeWriter(store, LocalArtifacts(tmp_path, 0, tmp_path / "work"), lambda: TIME, lambda: None)
    with EventHub().use(running.id) as feed:
        log = TrainingLog(store, feed, running, TrainingSession.of(running), lambda: TIME, TIME)
        async with store.begin() as work:
            found = await work.experiments.load(running.id)
            await work.experiments.save(replace(found, state=TrainingState.CANCELLING, etag=uuid4().hex))
            putting_back = asyncio.create_task(writer.put_back(running, log))
            await somebody_waits(store)
            await work.commit()
        await putting_back
    async with store.read() as work:
        assert (await work.experiments.load(running.id)).state is TrainingState.CANCELLED
