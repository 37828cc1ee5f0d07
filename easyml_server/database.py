"""Which database the settings name, and whether the data folder belongs to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from easyml_server.data_folder import DataFolder, StartError
from easyml_server.domain.errors import EasyMLError
from easyml_server.file_owners import FolderOwner, ObjectOwner, elsewhere, of_another
from easyml_server.files import FILES, check_object_store, files_root, make_root, object_store, object_url
from easyml_server.ports.signals import Alone
from easyml_server.processes.locks import exclusive
from easyml_server.repositories.sql.opening import (
    CannotOpenError,
    check_url,
    migrate_file,
    open_file,
    open_server,
    prepare_server,
)
from easyml_server.repositories.sql.store import SqlStore, open_sqlite
from easyml_server.settings import Settings

if TYPE_CHECKING:
    from easyml_server.repositories.sql.signals import PostgresSignals


@asynccontextmanager
async def open_store(settings: Settings, folder: DataFolder) -> AsyncIterator[SqlStore]:
    """The store; an older schema is migrated in embedded mode, and on PostgreSQL if the settings say so."""
    store = await _open(settings, folder)
    try:
        yield store
    finally:
        await store.close()


def open_signals(settings: Settings) -> PostgresSignals | Alone:
    """How this server hears of others on its database; an embedded database has one server."""
    if settings.database_url is None:
        return Alone()
    # Its driver is nothing that an embedded server needs.
    from easyml_server.repositories.sql.signals import PostgresSignals

    return PostgresSignals(listening_url(settings, settings.database_url)[0])


def listening_url(settings: Settings, database_url: SecretStr) -> tuple[str, str]:
    """Where servers on PostgreSQL hear each other, and the setting that says so."""
    url, setting = database_url, "EASYML_DATABASE_URL"
    if settings.database_listen_url is not None:
        url, setting = settings.database_listen_url, "EASYML_DATABASE_LISTEN_URL"
    try:
        check_url(url.get_secret_value(), setting)
    except CannotOpenError as error:
        raise StartError(str(error)) from error
    return url.get_secret_value(), setting


async def migrate_database(settings: Settings, folder: DataFolder) -> bool:
    """Bring the database to this release's schema; True if something was done."""
    try:
        if settings.database_url is None:
            return migrate_file(folder.database)
        return await prepare_server(settings.database_url.get_secret_value(), settings.pool_limits(), migrate=True)
    except CannotOpenError as error:
        raise StartError(str(error)) from error


async def _open(settings: Settings, folder: DataFolder) -> SqlStore:
    try:
        if settings.database_url is None:
            store = open_file(folder.database)
        else:
            url = settings.database_url.get_secret_value()
            store = await open_server(url, settings.pool_limits(), migrate=settings.migrate_at_start)
    except CannotOpenError as error:
        raise StartError(str(error)) from error
    try:
        await _bind(settings, folder, store)
    except BaseException:
        await store.close()
        raise
    return store


@asynccontextmanager
async def database_as_it_is(settings: Settings, folder: DataFolder) -> AsyncIterator[SqlStore]:
    """The store, wherever its files are: nothing is migrated, and nothing bound."""
    try:
        async with _as_it_is(settings, folder) as store:
            yield store
    except (CannotOpenError, EasyMLError) as error:
        raise StartError("what belongs to it is known when the database is in order; see there.") from error


@asynccontextmanager
async def _as_it_is(settings: Settings, folder: DataFolder) -> AsyncIterator[SqlStore]:
    if settings.database_url is not None:
        store = await open_server(settings.database_url.get_secret_value(), settings.pool_limits(), migrate=False)
    elif folder.database.exists():
        store = open_sqlite(str(folder.database))
    else:
        raise StartError("nothing belongs there yet; run: easyml-server migrate")
    try:
        yield store
    finally:
        await store.close()


async def _bind(settings: Settings, folder: DataFolder, store: SqlStore) -> None:
    """Files belong to one database: to another one they would all look as if nobody knew them, and be removed."""
    root = files_root(settings, folder.root)
    url = object_url(settings)
    if url is not None:
        with object_store(url) as objects:
            await check_object_store(objects)
            store_owner = ObjectOwner(objects)
            if not await store.files_bound() and await store_owner.read() is None:
                await _check_bucket(store, store_owner)
            await _bind_to(store, store_owner)
        return
    owner = FolderOwner(root)
    if owner.written() or not await store.files_bound():
        await _check_folder(store, root)
    if settings.database_url is None and root == folder.root and not owner.written() and not await store.files_bound():
        # The embedded database lies beside its files.
        return
    if settings.database_url is not None and DataFolder(root).database.exists():
        raise StartError(
            f"The folder {root} holds an embedded database, and PostgreSQL does not know its files; choose another "
            "folder with --data-dir."
        )
    make_root(root)
    with exclusive(root / "database.lock", wait=True):
        await _bind_to(store, owner)


async def _check_bucket(store: SqlStore, owner: ObjectOwner) -> None:
    """Of a database whose files lay beside it until now."""
    known = await _known(store)
    if known and not await owner.has(FILES):
        raise StartError(
            f"The database has {known} versions of datasets and models, and there are no files in {owner.place}: bring "
            "them there, or leave EASYML_ARTIFACT_URL as it was. If they are lost, write "
            f"{await store.identity()} into {owner.place}/database.id."
        )


async def _known(store: SqlStore) -> int:
    async with store.read() as work:
        return len(await work.known_file_ids())


async def _check_folder(store: SqlStore, root: Path) -> None:
    """Every start makes this folder, so only another place, or what somebody restored, has none."""
    if (root / FILES).exists():
        return
    if known := await _known(store):
        raise StartError(
            f"The database has {known} versions of datasets and models, and there is no {root / FILES}: bring that "
            f"folder here, or name the place where it is (EASYML_ARTIFACT_URL, --data-dir). If it is lost, run: mkdir "
            f"-p {root / FILES}"
        )


async def _bind_to(store: SqlStore, owner: FolderOwner | ObjectOwner) -> None:
    identity = str(await store.identity())
    written = await owner.read()
    if written is None:
        if await store.files_bound() or not await _bound_to(store, owner, identity):
            raise elsewhere(owner, identity)
    elif written != identity:
        raise of_another(owner)
    else:
        await store.bind_files()


async def _bound_to(store: SqlStore, owner: FolderOwner | ObjectOwner, identity: str) -> bool:
    """Write down whose files these are; False if those of the database were bound to another place meanwhile."""
    await owner.write(identity)
    bound = await store.bind_files()
    if not bound:
        await owner.take_back()
    return bound
