"""How long a call waits for PostgreSQL: for a connection, for a lock, for an answer. What just fits is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from easyml_server.domain.errors import LimitReached, Reason, Unavailable
from easyml_server.domain.limits import PoolLimits
from easyml_server.repositories.sql.store import SqlStore, open_postgresql
from tests.builders import a_config, a_project, a_user
from tests.marks import limits
from tests.postgresql import PostgresServer

CONNECTIONS, SECONDS, STATEMENT_SECONDS = 2, 0.3, 2.0


@pytest.fixture
async def strict(postgres: PostgresServer, postgres_template: str) -> AsyncIterator[SqlStore]:
    """A store with little of everything."""
    name = await postgres.create_database(postgres_template)
    store = open_postgresql(postgres.database_url(name), PoolLimits(CONNECTIONS, SECONDS, SECONDS, STATEMENT_SECONDS))
    yield store
    await store.close()
    await postgres.drop_database(name)


@limits("DATABASE_CONNECTIONS", "DATABASE_WAIT_SECONDS")
async def test_a_call_waits_for_a_connection_and_no_longer_than_it_may(strict: SqlStore) -> None:
    async with strict.read() as one, strict.read() as two:
        await one.users.find_by_email("nobody@example.org")
        await two.users.find_by_email("nobody@example.org")
        with pytest.raises(LimitReached) as refused:
            async with strict.read() as three:
                await three.users.find_by_email("nobody@example.org")
    assert (refused.value.reason, refused.value.retry_after) == (Reason.OVERLOADED, 1.0)
    async with strict.read() as again:
        assert await again.users.find_by_email("nobody@example.org") is None


@limits("DATABASE_LOCK_SECONDS")
async def test_a_statement_waits_for_a_lock_and_no_longer_than_it_may(strict: SqlStore) -> None:
    user = a_user()
    project = a_project(user.id)
    async with strict.begin() as work:
        await work.users.add(user)
        await work.projects.add(project, a_config(project))
        await work.commit()
    async with strict.begin() as holder:
        await holder.projects.load(project.id)
        with pytest.raises(Unavailable) as refused:
            async with strict.begin() as waiting:
                await waiting.projects.load(project.id)
    assert refused.value.metadata == {"part": "database"}
    async with strict.begin() as work:
        assert (await work.projects.load(project.id)).id == project.id


@limits("DATABASE_STATEMENT_SECONDS")
async def test_a_statement_runs_no_longer_than_it_may(strict: SqlStore) -> None:
    async with strict.read() as work:
        await work.users._session.execute(text(f"SELECT pg_sleep({STATEMENT_SECONDS / 10})"))
    with pytest.raises(Unavailable):
        async with strict.read() as work:
            await work.users._session.execute(text(f"SELECT pg_sleep({10 * STATEMENT_SECONDS})"))
    async with strict.read() as work:
        assert await work.users.find_by_email("nobody@example.org") is None
