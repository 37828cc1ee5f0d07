"""Empty stores of each engine, made by copying a migrated template."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from uuid import uuid4

from easyml_server.domain.limits import PoolLimits
from easyml_server.repositories.documents.opening import open_mongodb, prepare_mongodb
from easyml_server.repositories.sql.migrate import migrate_postgresql, migrate_sqlite
from easyml_server.repositories.sql.store import SqlStore, open_postgresql, open_sqlite, postgresql_engine
from easyml_server.services.documents import DocumentDispatcher
from tests.mongodb import MongoServer
from tests.postgresql import PostgresServer

MONGODB_SECONDS = 30.0
"""The server is a program that shares two processors with all tests."""
LIMITS = PoolLimits(connections=8, wait_seconds=20)
EmptyStore = Callable[[], AbstractAsyncContextManager[SqlStore]]


def sqlite_stores(folder: Path) -> EmptyStore:
    """Stores in files; there is no WAL in memory."""
    template = folder / "template.db"
    migrate_sqlite(template)

    @asynccontextmanager
    async def open_empty() -> AsyncIterator[SqlStore]:
        path = folder / f"{uuid4()}.db"
        shutil.copy(template, path)
        store = open_sqlite(str(path))
        try:
            yield store
        finally:
            await store.close()

    return open_empty


async def postgresql_template(server: PostgresServer) -> str:
    """A migrated database without rows; its name."""
    name = await server.create_database()
    engine = postgresql_engine(server.database_url(name), LIMITS)
    try:
        await migrate_postgresql(engine)
    finally:
        await engine.dispose()
    return name


def postgresql_stores(server: PostgresServer, template: str) -> EmptyStore:
    """Stores in databases of their own."""

    @asynccontextmanager
    async def open_empty() -> AsyncIterator[SqlStore]:
        name = await server.create_database(template)
        store = open_postgresql(server.database_url(name), LIMITS)
        try:
            yield store
        finally:
            await store.close()
            await server.drop_database(name)

    return open_empty


def mongodb_stores(rows: EmptyStore, server: MongoServer) -> EmptyStore:
    """Stores whose documents are on MongoDB, with a dispatcher that applies them."""

    @asynccontextmanager
    async def open_empty() -> AsyncIterator[SqlStore]:
        url = server.database_url(name := server.new_name())
        async with rows() as store:
            await prepare_mongodb(url, await store.identity())
            documents = await open_mongodb(url, await store.identity(), MONGODB_SECONDS, known=False)
            dispatcher = DocumentDispatcher(store, documents)
            store.keep_documents_on(documents, dispatcher.wake)
            applying = asyncio.create_task(dispatcher.run())
            try:
                yield store
            finally:
                applying.cancel()
                await asyncio.gather(applying, return_exceptions=True)
                await documents.close()
                server.drop(name)

    return open_empty
