"""Which document server the settings name, and whether it and the database belong together.

MongoDB's driver is imported only where it is used: most servers do without.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from easyml_server.data_folder import DataFolder, StartError
from easyml_server.database import migrate_database
from easyml_server.domain.errors import EasyMLError
from easyml_server.repositories.documents.models import LAYOUT
from easyml_server.repositories.sql.opening import CannotOpenError as CannotOpenDatabaseError
from easyml_server.repositories.sql.opening import open_server
from easyml_server.repositories.sql.store import SqlStore, open_sqlite
from easyml_server.settings import Settings

if TYPE_CHECKING:
    from easyml_server.repositories.documents.mongo import MongoDocuments


@asynccontextmanager
async def open_documents(settings: Settings, store: SqlStore) -> AsyncIterator[MongoDocuments | None]:
    """MongoDB, if the settings name one; None where documents are kept in the database.

    What is wrong with it is told before anything starts. One that does not answer is waited for later, if it was
    prepared for this release: a server that was killed while MongoDB was away must come back.
    """
    layout = await store.documents_layout()
    if settings.mongodb_url is None:
        if layout:
            raise StartError("The documents of this database are in MongoDB; name it in EASYML_MONGODB_URL.")
        yield None
        return
    documents = await _open(settings, store, settings.mongodb_url.get_secret_value(), layout)
    try:
        yield documents
    finally:
        await documents.close()


async def migrate(settings: Settings, folder: DataFolder) -> bool:
    """Bring the database, and MongoDB if there is one, to this release's schema; True if something was done."""
    migrated = await migrate_database(settings, folder)
    if settings.mongodb_url is None:
        return migrated
    from easyml_server.repositories.documents.opening import CannotOpenError

    # Not as a server opens it: where the files are does not matter here.
    store = await _as_it_is(settings, folder)
    try:
        return await _prepare(store, settings.mongodb_url.get_secret_value()) or migrated
    except CannotOpenError as error:
        raise StartError(str(error)) from error
    finally:
        await store.close()


async def look_at_documents(settings: Settings, folder: DataFolder, url: str) -> str:
    """What there is to say of MongoDB; StartError says what is wrong."""
    from easyml_server.repositories.documents.opening import CannotOpenError, check_mongodb, name_of

    try:
        name = name_of(url)
        store = await _as_it_is(settings, folder)
        try:
            await check_mongodb(url, await store.identity(), settings.mongodb_wait_seconds)
            async with store.read() as work:
                waiting = await work.pending.count()
        finally:
            await store.close()
    except CannotOpenError as error:
        raise StartError(str(error)) from error
    except (EasyMLError, CannotOpenDatabaseError) as error:
        raise StartError("whose documents belong there is known when the database is in order; see there.") from error
    return f"{name}, layout {LAYOUT}; {waiting} wait to be written there."


async def _as_it_is(settings: Settings, folder: DataFolder) -> SqlStore:
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        return await open_server(url, settings.pool_limits(), migrate=False)
    if not folder.database.exists():
        raise StartError("nothing belongs there yet; run: easyml-server migrate")
    return open_sqlite(str(folder.database))


async def _open(settings: Settings, store: SqlStore, url: str, layout: int) -> MongoDocuments:
    from easyml_server.repositories.documents.opening import CannotOpenError, CannotReachError, open_mongodb

    try:
        if settings.migrate_at_start:
            try:
                await _prepare(store, url)
            except CannotReachError:
                if layout != LAYOUT:
                    raise
            else:
                layout = LAYOUT
        identity = await store.identity()
        return await open_mongodb(url, identity, settings.mongodb_wait_seconds, known=layout == LAYOUT)
    except CannotOpenError as error:
        raise StartError(str(error)) from error


async def _prepare(store: SqlStore, url: str) -> bool:
    """Make MongoDB fit for this release, and move documents of the database there; True if something was done."""
    from easyml_server.repositories.documents.opening import prepare_mongodb

    prepared = await prepare_mongodb(url, await store.identity())
    if await store.documents_layout() == LAYOUT:
        return prepared
    await store.move_documents(LAYOUT)
    return True
