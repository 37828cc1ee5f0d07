"""Opens units of work on SQLite or PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event, select
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from easyml_server.domain.disk import FULL, disk_full
from easyml_server.domain.errors import LimitReached, Reason, Unavailable
from easyml_server.domain.faults import fault_point
from easyml_server.repositories.documents.sql import SqlDocuments
from easyml_server.repositories.sql.datasets import DatasetVersion, SqlDatasetRepository
from easyml_server.repositories.sql.experiments import SqlExperimentRepository
from easyml_server.repositories.sql.models import ModelVersion, SqlModelRepository
from easyml_server.repositories.sql.outbox import SqlOutbox
from easyml_server.repositories.sql.projects import SqlProjectRepository
from easyml_server.repositories.sql.requests import SqlRequestRepository
from easyml_server.repositories.sql.users import SqlUserRepository

READERS = 4
BUSY_SECONDS = 10.0
RETRY_SECONDS = 1.0


class SqlUnitOfWork:
    """Fulfils `ports.store.UnitOfWork`."""

    def __init__(self, session: AsyncSession, committed: Callable[[], None] = lambda: None) -> None:
        self._session = session
        self._committed = committed
        documents = SqlDocuments(session)
        self.users = SqlUserRepository(session)
        self.projects = SqlProjectRepository(session, documents)
        self.datasets = SqlDatasetRepository(session)
        self.experiments = SqlExperimentRepository(session, documents)
        self.models = SqlModelRepository(session)
        self.requests = SqlRequestRepository(session)
        self.outbox = SqlOutbox(session)

    async def known_file_ids(self) -> frozenset[str]:
        """Ids of all dataset and model versions: what has files."""
        datasets = await self._session.scalars(select(DatasetVersion.id))
        models = await self._session.scalars(select(ModelVersion.id))
        return frozenset(str(identity) for identity in (*datasets, *models))

    async def commit(self) -> None:
        """Make everything durable."""
        try:
            fault_point("database.commit")
        except OSError as error:
            raise OperationalError("COMMIT", None, error) from error
        try:
            await self._session.commit()
        finally:
            # One whose answer did not come may have happened.
            self._committed()


class SqlStore:
    """Fulfils `ports.store.Store`.

    On SQLite one connection writes, so writers queue in the pool instead of failing on the file's lock, and a few read.
    On PostgreSQL both are the same engine.
    """

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine) -> None:
        self._writer = writer
        self._reader = reader
        self._commits = 0

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SqlUnitOfWork]:
        """One that writes."""
        async with _translated(), AsyncSession(self._writer, expire_on_commit=False, autoflush=False) as session:
            yield SqlUnitOfWork(session, self._count)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[SqlUnitOfWork]:
        """One that only reads."""
        async with _translated(), AsyncSession(self._reader, expire_on_commit=False, autoflush=False) as session:
            yield SqlUnitOfWork(session)

    @property
    def changes(self) -> int | None:
        """Commits so far: on SQLite this server is the only one that writes."""
        return self._commits if self._writer.dialect.name == "sqlite" else None

    def _count(self) -> None:
        self._commits += 1

    async def close(self) -> None:
        """Close all connections."""
        await self._writer.dispose()
        if self._reader is not self._writer:
            await self._reader.dispose()


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Errors of the database in the words of the domain."""
    try:
        yield
    except PoolTimeout as error:
        raise LimitReached(
            "The server is busy with other writes; try again.", Reason.OVERLOADED, retry_after=RETRY_SECONDS
        ) from error
    except (OperationalError, InterfaceError) as error:
        raise _meaning(error) from error


def _meaning(error: DBAPIError) -> Exception:
    if _is_full(error.orig):
        return disk_full()
    return Unavailable(
        "The database cannot be used just now; try again.",
        retry_after=RETRY_SECONDS,
        metadata={"part": "database"},
    )


def _is_full(error: BaseException | None) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return bool(code & 0xFF == sqlite3.SQLITE_FULL)
    return isinstance(error, OSError) and error.errno in FULL


def open_sqlite(path: str) -> SqlStore:
    """A store on a SQLite file, which must have been migrated."""
    return SqlStore(
        _sqlite_engine(path, connections=1, begin="BEGIN IMMEDIATE"),
        _sqlite_engine(path, connections=READERS, begin="BEGIN"),
    )


def _sqlite_engine(path: str, connections: int, begin: str) -> AsyncEngine:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        pool_size=connections,
        max_overflow=0,
        pool_timeout=BUSY_SECONDS,
        connect_args={"timeout": BUSY_SECONDS},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # The driver's own BEGIN comes too late and cannot be IMMEDIATE.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def start(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine
