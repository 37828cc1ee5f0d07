"""One suite, every engine: what one answers, all answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from easyml_server.repositories.sql.store import SqlStore
from tests.conformance.documents import Benches, benches
from tests.conformance.stores import (
    EmptyStore,
    mongodb_stores,
    postgresql_stores,
    postgresql_stores_again,
    postgresql_template,
    sqlite_stores,
)
from tests.conformance.trainers import SLOTS
from tests.dask import DaskCluster, dask_cluster
from tests.mongodb import MongoServer, mongodb
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


@pytest.fixture(scope="session")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """One MongoDB for the session."""
    with mongodb(tmp_path_factory.mktemp("mongodb")) as server:
        yield server


@pytest.fixture(scope="session")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """One Dask cluster for the session, its worker under a nanny as people start it."""
    with dask_cluster(tmp_path_factory.mktemp("dask")) as cluster:
        cluster.add_worker(threads=SLOTS, nanny=True)
        yield cluster


ENGINES = ["sqlite", "postgresql", "sqlite+mongodb", "postgresql+mongodb"]


@pytest.fixture(params=ENGINES)
def empty_store(request: pytest.FixtureRequest) -> EmptyStore:
    """Makes empty stores of one engine, or of two."""
    rows, _, documents = request.param.partition("+")
    stores = _rows(request, rows)
    return mongodb_stores(stores, request.getfixturevalue("mongo")) if documents else stores


@pytest.fixture(params=ENGINES)
def document_benches(request: pytest.FixtureRequest) -> Benches:
    """Makes documents of one engine, or of two."""
    rows, _, documents = request.param.partition("+")
    return benches(_rows(request, rows), request.getfixturevalue("mongo") if documents else None)


@pytest.fixture
def sqlite_rows(migrated_database: Path, tmp_path: Path) -> EmptyStore:
    """SQLite, documents and all."""
    return sqlite_stores(migrated_database, tmp_path)


@pytest.fixture(scope="session")
def postgresql_rows(postgres: PostgresServer, postgres_template: str) -> EmptyStore:
    """PostgreSQL, documents and all."""
    return postgresql_stores_again(postgres, postgres_template)


@pytest.fixture
def new_postgresql_rows(postgres: PostgresServer, postgres_template: str) -> EmptyStore:
    """The same for tests that change tables, or ask what statements cost."""
    return postgresql_stores(postgres, postgres_template)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_store(request: pytest.FixtureRequest) -> EmptyStore:
    """Makes empty stores of one engine alone, in databases that nobody had before."""
    return _rows(request, "new_postgresql" if request.param == "postgresql" else request.param)


def _rows(request: pytest.FixtureRequest, engine: str) -> EmptyStore:
    made: EmptyStore = request.getfixturevalue(f"{engine}_rows")
    return made


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """Where stories run, which are told by hypothesis outside of any loop."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def stores(
    request: pytest.FixtureRequest, runner: asyncio.Runner, mongo: MongoServer
) -> Iterator[Mapping[str, SqlStore]]:
    """One of each engine, to be asked alike."""

    rows = {name: _rows(request, name) for name in ("sqlite", "postgresql")}
    empty = {**rows, "postgresql+mongodb": mongodb_stores(rows["postgresql"], mongo)}

    async def opened(stack: AsyncExitStack) -> Mapping[str, SqlStore]:
        return {name: await stack.enter_async_context(make()) for name, make in empty.items()}

    stack = AsyncExitStack()
    try:
        yield runner.run(opened(stack))
    finally:
        runner.run(stack.aclose())


@pytest.fixture
async def store(empty_store: EmptyStore) -> AsyncIterator[SqlStore]:
    """A store of its own for each test."""
    async with empty_store() as store:
        yield store
