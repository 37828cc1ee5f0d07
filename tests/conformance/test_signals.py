"""Signals between servers on one PostgreSQL: heard by the others, also after a connection was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg
import pytest

from easyml_server.ports.signals import Topic
from easyml_server.repositories.sql.signals import APPLICATION, CHANNEL, PostgresSignals
from tests.postgresql import PostgresServer

SECONDS = 30


class Ear:
    """What one server hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Topic, UUID]] = []
        self.missed = 0
        self._changed = asyncio.Condition()

    async def _note(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def receive(self, topic: Topic, subject_id: UUID) -> None:
        self.heard.append((topic, subject_id))
        self._tell()

    def miss(self) -> None:
        self.missed += 1
        self._tell()

    def _tell(self) -> None:
        self.telling = asyncio.ensure_future(self._note())

    async def until_missed(self, times: int) -> None:
        async with asyncio.timeout(SECONDS), self._changed:
            await self._changed.wait_for(lambda: self.missed >= times)

    async def until_heard(self, topic: Topic, subject_id: UUID) -> None:
        async with asyncio.timeout(SECONDS), self._changed:
            await self._changed.wait_for(lambda: (topic, subject_id) in self.heard)


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    name = asyncio.run(postgres.create_database())
    yield postgres.database_url(name)
    asyncio.run(postgres.drop_database(name))


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[tuple[PostgresSignals, Ear]]:
    """A server that listens."""
    signals, ear = PostgresSignals(url), Ear()
    task = asyncio.create_task(signals.run(ear.receive, ear.miss))
    try:
        await ear.until_missed(1)
        yield signals, ear
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def execute(url: str, statement: str, *values: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement, *values)
    finally:
        await connection.close()


async def test_the_others_hear_and_the_sender_does_not(url: str) -> None:
    subject = uuid4()
    async with listening(url) as (first, own), listening(url) as (second, ear), listening(url) as (_, third):
        first.send(Topic.EVENTS, subject)
        for each in (ear, third):
            await each.until_heard(Topic.EVENTS, subject)
        # What comes after it has passed it.
        second.send(Topic.CANCEL, subject)
        await own.until_heard(Topic.CANCEL, subject)
    assert own.heard == [(Topic.CANCEL, subject)]


async def test_many_signals_all_arrive_and_equal_ones_go_together(url: str) -> None:
    subjects = [uuid4() for _ in range(1_000)]
    last = uuid4()
    async with listening(url) as (signals, _), listening(url) as (_, ear):
        for subject in subjects * 3:
            signals.send(Topic.EVENTS, subject)
        signals.send(Topic.QUEUE, last)
        await ear.until_heard(Topic.QUEUE, last)
    assert ear.heard == [*((Topic.EVENTS, subject) for subject in subjects), (Topic.QUEUE, last)]


async def test_a_lost_connection_is_made_again_and_said(url: str) -> None:
    subject = uuid4()
    async with listening(url) as (signals, own), listening(url) as (_, ear):
        statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1"
        await execute(url, f"{statement} AND datname = current_database()", APPLICATION)
        await asyncio.gather(own.until_missed(2), ear.until_missed(2))
        signals.send(Topic.EVENTS, subject)
        await ear.until_heard(Topic.EVENTS, subject)


async def test_what_another_release_says_is_passed_over(url: str) -> None:
    subject = uuid4()
    async with listening(url) as (_, ear):
        for payload in ("", "?", f"sender new-topic:{subject} events:no-id", f"sender events:{subject}"):
            await execute(url, "SELECT pg_notify($1, $2)", CHANNEL, payload)
        await ear.until_heard(Topic.EVENTS, subject)
    assert len(ear.heard) == 1
