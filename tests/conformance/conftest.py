"""One suite, every engine: what one answers, all answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from easyml_server.repositories.sql.store import SqlStore
from tests.conformance.stores import EmptyStore, postgresql_stores, postgresql_template, sqlite_stores
from tests.postgresql import PostgresServer, postgresql


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One PostgreSQL for the session."""
    with postgresql(tmp_path_factory.mktemp("postgresql") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """A migrated database to copy."""
    return asyncio.run(postgresql_template(postgres))


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_store(request: pytest.FixtureRequest, tmp_path: Path) -> EmptyStore:
    """Makes empty stores of one engine."""
    if request.param == "sqlite":
        return sqlite_stores(tmp_path)
    return postgresql_stores(request.getfixturevalue("postgres"), request.getfixturevalue("postgres_template"))


@pytest.fixture
async def store(empty_store: EmptyStore) -> AsyncIterator[SqlStore]:
    """A store of its own for each test."""
    async with empty_store() as store:
        yield store
