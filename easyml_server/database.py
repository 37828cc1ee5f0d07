"""Which database the settings name, and whether the data folder belongs to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from easyml_server.artifacts.locks import exclusive
from easyml_server.data_folder import DataFolder, StartError
from easyml_server.files import files_root, make_root
from easyml_server.ports.signals import Alone
from easyml_server.repositories.sql.opening import (
    CannotOpenError,
    check_url,
    migrate_file,
    open_file,
    open_server,
    prepare_server,
)
from easyml_server.repositories.sql.store import SqlStore
from easyml_server.security.tokens import write_private
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

    url = settings.database_url
    setting = "EASYML_DATABASE_URL"
    if settings.database_listen_url is not None:
        url = settings.database_listen_url
        setting = "EASYML_DATABASE_LISTEN_URL"
    try:
        check_url(url.get_secret_value(), setting)
    except CannotOpenError as error:
        raise StartError(str(error)) from error
    return PostgresSignals(url.get_secret_value())


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


async def _bind(settings: Settings, folder: DataFolder, store: SqlStore) -> None:
    """Files belong to one database: to another one they would all look as if nobody knew them, and be removed."""
    root = files_root(settings, folder.root)
    written = root / "database.id"
    if settings.database_url is None and root == folder.root and not written.exists() and not await store.files_bound():
        # The embedded database lies beside its files.
        return
    if settings.database_url is not None and DataFolder(root).database.exists():
        raise StartError(
            f"The folder {root} holds an embedded database, and PostgreSQL does not know its files; choose another "
            "folder with --data-dir."
        )
    identity = str(await store.identity())
    make_root(root)
    with exclusive(root / "database.lock", wait=True):
        if not written.exists():
            if await store.files_bound() or not await _bound_to(store, written, identity):
                raise StartError(
                    f"The files of this database are not in {root}: name the place where they are on all servers "
                    f"(EASYML_ARTIFACT_URL, or --data-dir). Whoever moves them moves database.id too; if they are "
                    f"lost, write {identity} into {written}."
                )
        elif written.read_text().strip() != identity:
            raise StartError(
                f"The files in {root} belong to another database; choose another folder (--data-dir, "
                "EASYML_ARTIFACT_URL), or the database they came with."
            )
        else:
            await store.bind_files()


async def _bound_to(store: SqlStore, written: Path, identity: str) -> bool:
    """Write down whose files these are; False if those of the database were bound to another place meanwhile."""
    write_private(written, f"{identity}\n".encode())
    bound = await store.bind_files()
    if not bound:
        _take_back(written)
    return bound


def _take_back(written: Path) -> None:
    written.unlink()
