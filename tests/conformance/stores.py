"""Empty stores of each engine, made by copying a migrated template."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg

from easyml_server.domain.limits import PoolLimits
from easyml_server.repositories.documents.opening import open_mongodb, prepare_mongodb
from easyml_server.repositories.sql.migrate import migrate_postgresql
from easyml_server.repositories.sql.store import SqlStore, open_postgresql, open_sqlite, postgresql_engine
from easyml_server.services.documents import DocumentDispatcher
from tests.mongodb import MongoServer
from tests.postgresql import PostgresServer

MONGODB_SECONDS = 30.0
"""The server is a program that shares two processors with all tests."""
LIMITS = PoolLimits(connections=8, wait_seconds=20)
KEEP = """
CREATE SCHEMA kept;
DO $$ DECLARE name text; filled boolean; BEGIN
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
    EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', name) INTO filled;
    IF filled THEN EXECUTE format('CREATE TABLE kept.%I AS TABLE public.%I', name, name); END IF;
  END LOOP;
END $$;
"""
"""Remembers the rows that a migration made."""
EMPTY = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
SET session_replication_role = replica;
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
    EXECUTE format('DELETE FROM public.%I', name);
  END LOOP;
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'kept' LOOP
    EXECUTE format('INSERT INTO public.%I TABLE kept.%I', name, name);
  END LOOP;
END $$;
"""
"""Leaves those rows alone, in whatever order the tables refer to each other."""
EmptyStore = Callable[[], AbstractAsyncContextManager[SqlStore]]


def sqlite_stores(template: Path, folder: Path) -> EmptyStore:
    """Stores in files, copies of a migrated one; there is no WAL in memory."""

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
    """A database as a migration leaves it; its name."""
    name = await server.create_database()
    engine = postgresql_engine(server.database_url(name), LIMITS)
    try:
        await migrate_postgresql(engine)
    finally:
        await engine.dispose()
    await execute(server.database_url(name), KEEP)
    return name


async def execute(url: str, statements: str) -> None:
    """On a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


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


def postgresql_stores_again(server: PostgresServer, template: str) -> EmptyStore:
    """Stores in databases that are emptied for whoever is next: a new one takes a quarter of a second of a processor.

    For tests that look at answers; what statements cost is measured in a database of its own.
    """
    emptied: list[str] = []

    @asynccontextmanager
    async def open_empty() -> AsyncIterator[SqlStore]:
        name = emptied.pop() if emptied else await server.create_database(template)
        store = open_postgresql(server.database_url(name), LIMITS)
        try:
            yield store
        finally:
            await store.close()
            await execute(server.database_url(name), EMPTY)
            emptied.append(name)

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
