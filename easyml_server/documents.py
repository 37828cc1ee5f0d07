"""Which document server the settings name, and whether it and the database belong together.

MongoDB's driver is imported only where it is used: most servers do without.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from easyml_server.data_folder import DataFolder, StartError
from easyml_server.database import database_as_it_is, migrate_database
from easyml_server.repositories.documents.models import LAYOUT
from easyml_server.repositories.sql.store import SqlStore
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
        _check_that_none_moved(layout)
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
    try:
        async with database_as_it_is(settings, folder) as store:
            return await _prepare(store, settings.mongodb_url.get_secret_value()) or migrated
    except CannotOpenError as error:
        raise StartError(str(error)) from error


def _check_that_none_moved(layout: int) -> None:
    if layout:
        raise StartError("The documents of this database are in MongoDB; name it in EASYML_MONGODB_URL.")


async def look_at_documents(settings: Settings, folder: DataFolder) -> str:
    """What there is to say of documents; StartError says what is wrong."""
    if settings.mongodb_url is None:
        async with database_as_it_is(settings, folder) as store:
            _check_that_none_moved(await store.documents_layout())
        return "are kept in the database."
    from easyml_server.repositories.documents.opening import CannotOpenError, check_mongodb, name_of

    url = settings.mongodb_url.get_secret_value()
    try:
        name = name_of(url)
        async with database_as_it_is(settings, folder) as store:
            moved = await store.documents_layout() > 0
            await check_mongodb(url, await store.identity(), settings.mongodb_wait_seconds, moved=moved)
            async with store.read() as work:
                waiting = await work.pending.count()
    except CannotOpenError as error:
        raise StartError(str(error)) from error
    return f"{name}, layout {LAYOUT}; {waiting} wait to be written there."


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
        return await open_mongodb(
            url, identity, settings.mongodb_wait_seconds, known=layout == LAYOUT, moved=layout > 0
        )
    except CannotOpenError as error:
        raise StartError(str(error)) from error


async def _prepare(store: SqlStore, url: str) -> bool:
    """Make MongoDB fit for this release, and move documents of the database there; True if something was done."""
    from easyml_server.repositories.documents.opening import prepare_mongodb

    layout = await store.documents_layout()
    prepared = await prepare_mongodb(url, await store.identity(), moved=layout > 0)
    if layout == LAYOUT:
        return prepared
    await store.move_documents(LAYOUT)
    return True
