"""Opens units of work on SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic_core import from_json
from sqlalchemy import event, make_url, not_, select, update
from sqlalchemy.exc import DisconnectionError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from easyml_server.domain.faults import fault_point
from easyml_server.domain.limits import PoolLimits
from easyml_server.ports.documents import DocumentServer
from easyml_server.ports.store import STORED
from easyml_server.repositories.documents.outbox import OutboxDocuments
from easyml_server.repositories.documents.port import Documents
from easyml_server.repositories.documents.sql import SqlDocuments
from easyml_server.repositories.documents.versions import DocumentVersionRepository
from easyml_server.repositories.sql.attempts import SqlAttemptRepository
from easyml_server.repositories.sql.base import WRITES, StoreIdentity
from easyml_server.repositories.sql.datasets import DatasetVersion, SqlDatasetRepository
from easyml_server.repositories.sql.deployment_leases import SqlDeploymentLeases
from easyml_server.repositories.sql.deployments import SqlDeploymentRepository
from easyml_server.repositories.sql.errors import translated
from easyml_server.repositories.sql.experiments import SqlExperimentRepository
from easyml_server.repositories.sql.models import ModelVersion, SqlModelRepository
from easyml_server.repositories.sql.outbox import SqlOutbox
from easyml_server.repositories.sql.pending import SqlPendingDocuments
from easyml_server.repositories.sql.projects import SqlProjectRepository
from easyml_server.repositories.sql.queue import SqlTrainingQueue
from easyml_server.repositories.sql.requests import SqlRequestRepository
from easyml_server.repositories.sql.users import SqlUserRepository

READERS = 4
BUSY_SECONDS = 10.0


class SqlUnitOfWork:
    """Fulfils `ports.store.UnitOfWork`."""

    def __init__(self, session: AsyncSession, documents: Documents, committed: Callable[[], None]) -> None:
        self._session = session
        self._committed = committed
        self.documents = documents
        self.users = SqlUserRepository(session)
        self.projects = SqlProjectRepository(session, documents)
        self.datasets = SqlDatasetRepository(session, documents)
        self.experiments = SqlExperimentRepository(session, documents)
        self.queue = SqlTrainingQueue(session)
        self.models = SqlModelRepository(session, documents)
        self.deployments = SqlDeploymentRepository(session)
        self.deployment_leases = SqlDeploymentLeases(session)
        self.requests = SqlRequestRepository(session)
        self.attempts = SqlAttemptRepository(session)
        self.outbox = SqlOutbox(session)
        self.versions = DocumentVersionRepository(documents)
        self.pending = SqlPendingDocuments(session)

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
            STORED.set(True)
            self._committed()
            self.documents.committed()


class SqlStore:
    """Fulfils `ports.store.Store`.

    On SQLite one connection writes, so writers queue in the pool instead of failing on the file's lock, and a few read.
    On PostgreSQL both share a pool; units of work that only read see one moment, and those that write lock what they
    change.
    """

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine) -> None:
        self._writer = writer
        self._reader = reader
        self._commits = 0
        self._documents: Callable[[AsyncSession], Documents] = SqlDocuments

    def keep_documents_on(self, server: DocumentServer, wake: Callable[[], None]) -> None:
        """Units of work read documents there from now on; `wake` is called when some are to be applied."""
        self._documents = lambda session: OutboxDocuments(SqlPendingDocuments(session), server, wake)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SqlUnitOfWork]:
        """One that writes."""
        async with translated(), _session(self._writer, writes=True) as session:
            yield SqlUnitOfWork(session, self._documents(session), self._count)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[SqlUnitOfWork]:
        """One that only reads."""
        async with translated(), _session(self._reader, writes=False) as session:
            yield SqlUnitOfWork(session, self._documents(session), lambda: None)

    @property
    def changes(self) -> int | None:
        """Commits so far: on SQLite this server is the only one that writes."""
        return self._commits if self._writer.dialect.name == "sqlite" else None

    def _count(self) -> None:
        self._commits += 1

    async def identity(self) -> UUID:
        """Tells this database from every other one."""
        async with translated(), _session(self._reader, writes=False) as session:
            return (await session.scalars(select(StoreIdentity.id))).one()

    async def files_bound(self) -> bool:
        """Whether its files are at a place that carries its id."""
        async with translated(), _session(self._reader, writes=False) as session:
            return (await session.scalars(select(StoreIdentity.files_bound))).one()

    async def bind_files(self) -> bool:
        """Say that they are; False if somebody did before."""
        async with translated(), _session(self._writer, writes=True) as session:
            unbound = update(StoreIdentity).where(not_(StoreIdentity.files_bound)).values(files_bound=True)
            bound = (await session.scalars(unbound.returning(StoreIdentity.id))).one_or_none()
            await session.commit()
        return bound is not None

    async def dvc_remote(self) -> str | None:
        """Where versions are brought for DVC."""
        async with translated(), _session(self._reader, writes=False) as session:
            return (await session.scalars(select(StoreIdentity.dvc_remote))).one()

    async def change_dvc_remote(self, url: str, dataset_intent: str, model_intent: str, time: datetime) -> bool:
        """Have all versions brought there from now on; False if they are already."""
        async with translated(), _session(self._writer, writes=True) as session:
            changed = update(StoreIdentity).where(StoreIdentity.dvc_remote.is_distinct_from(url)).values(dvc_remote=url)
            if not (await session.scalars(changed.returning(StoreIdentity.id))).all():
                return False
            for kind, table in ((dataset_intent, DatasetVersion), (model_intent, ModelVersion)):
                await SqlOutbox(session).add_all(kind, select(table.id).order_by(table.create_time), time)
            await session.commit()
        return True

    async def documents_layout(self) -> int:
        """Of the document server that was prepared for this database; 0 while documents are kept in the database."""
        async with translated(), _session(self._reader, writes=False) as session:
            return await SqlPendingDocuments(session).layout()

    async def move_documents(self, layout: int) -> int:
        """Have the documents of the database applied on a server of this layout from now on; how many there were."""
        async with translated(), _session(self._writer, writes=True) as session:
            moved = await SqlPendingDocuments(session).move_in(layout)
            await session.commit()
        return moved

    async def close(self) -> None:
        """Close all connections."""
        await self._writer.dispose()
        await self._reader.dispose()


def _session(engine: AsyncEngine, *, writes: bool) -> AsyncSession:
    return AsyncSession(engine, expire_on_commit=False, autoflush=False, info={WRITES: writes})


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


def open_postgresql(url: str, limits: PoolLimits) -> SqlStore:
    """A store on a PostgreSQL database, which must have been migrated; `url` is postgresql://user:password@host/name."""
    engine = postgresql_engine(url, limits)
    return SqlStore(engine, engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True))


def postgresql_engine(url: str, limits: PoolLimits) -> AsyncEngine:
    """Connections of which those that have ended are replaced before use: a restart of the database costs no call."""
    engine = create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        pool_size=limits.connections,
        max_overflow=0,
        pool_timeout=limits.wait_seconds,
        json_deserializer=from_json,
        connect_args={
            "timeout": limits.wait_seconds,
            "server_settings": {
                "application_name": "easyml-server",
                "timezone": "UTC",
                "lock_timeout": _milliseconds(limits.lock_seconds),
                "statement_timeout": _milliseconds(limits.statement_seconds),
                "idle_in_transaction_session_timeout": _milliseconds(limits.statement_seconds),
            },
        },
    )

    @event.listens_for(engine.sync_engine, "checkout")
    def check(connection: Any, _record: Any, _fairy: Any) -> None:
        # The driver has heard of its end by now. SQLAlchemy's own check asks the database, in three turns.
        if connection.driver_connection.is_closed():
            raise DisconnectionError("The database has closed the connection.")

    return engine


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))
