"""Migrations of databases that are full, on both engines: down, up again, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, func, inspect, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from easyml_server.repositories.sql.base import Base
from easyml_server.repositories.sql.migrate import HEAD, MIGRATIONS
from easyml_server.repositories.sql.store import SqlStore
from tests.conformance.filled import World, a_world, fill, store_world
from tests.conformance.stores import EmptyStore

BEFORE_THE_CHECKS = "0005-1"
ROWS = 50
TABLES = Base.metadata.tables


@pytest.fixture
def empty_store(new_store: EmptyStore) -> EmptyStore:
    """Rows are what this is about."""
    return new_store


async def filled(store: SqlStore) -> World:
    world = await store_world(store, a_world())
    async with store._writer.begin() as connection:
        await fill(connection, ROWS)
        await connection.commit()
    return world


async def on(store: SqlStore, work: Callable[[Connection], Any]) -> Any:
    """On a connection as migrations have it, which on SQLite does not follow foreign keys."""
    if store._writer.dialect.name == "sqlite":
        return await asyncio.to_thread(on_file, Path(str(store._writer.url.database)), work)
    return await on_server(store._writer, work)


async def on_server(engine: AsyncEngine, work: Callable[[Connection], Any]) -> Any:
    async with engine.begin() as connection:
        return await connection.run_sync(work)


def on_file(path: Path, work: Callable[[Connection], Any]) -> Any:
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.begin() as connection:
            return work(connection)
    finally:
        engine.dispose()


def step(move: Callable[[Config, str], None], revision: str) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        move(config, revision)

    return work


def counted(connection: Connection) -> dict[str, int]:
    return {
        name: connection.execute(select(func.count()).select_from(table)).scalar_one() for name, table in TABLES.items()
    }


def drift(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "render_as_batch": True})
    return compare_metadata(context, Base.metadata)


def checked(connection: Connection) -> set[str]:
    """The names of the checks there are."""
    inspector = inspect(connection)
    names = inspector.get_table_names()
    return {str(check["name"]) for name in names for check in inspector.get_check_constraints(name)}


async def test_the_migrations_make_what_the_models_say(store: SqlStore) -> None:
    assert await on(store, drift) == []
    said = {str(each.name) for table in TABLES.values() for each in table.constraints if hasattr(each, "sqltext")}
    assert await on(store, checked) == said


async def test_down_and_up_again_keeps_what_is_there(store: SqlStore) -> None:
    world = await filled(store)
    before = await on(store, counted)
    assert min(count for name, count in before.items() if name != "store_identity") > ROWS
    await on(store, step(command.downgrade, BEFORE_THE_CHECKS))
    assert "ck_uploads_format" not in await on(store, checked)
    assert "ck_uploads_state" in await on(store, checked)
    await on(store, step(command.upgrade, HEAD))
    # Versions of a release that did not know DVC are brought there; it knew no deployments.
    versions = before["dataset_versions"] + before["model_versions"]
    unknown = {"model_deployments": 0, "deployment_revisions": 0}
    assert await on(store, counted) == {**before, **unknown, "outbox": before["outbox"] + versions}
    assert await on(store, drift) == []
    async with store.read() as work:
        assert (await work.models.get_version(world.version.id, world.caller)).id == world.version.id
        assert await work.datasets.find_upload(world.upload.id, world.user.id) == world.upload
        assert await work.users.get_api_key(world.key.id, world.user.id) == world.key


@pytest.mark.parametrize(
    ("table", "column"), [("uploads", "format"), ("api_keys", "scope_permission"), ("model_versions", "primary_metric")]
)
async def test_a_word_that_the_contract_does_not_name_is_refused(store: SqlStore, table: str, column: str) -> None:
    await filled(store)
    with pytest.raises(IntegrityError, match=f"ck_{table}_{column}"):
        await on(store, lambda connection: connection.execute(TABLES[table].update().values({column: "nonsense"})))
