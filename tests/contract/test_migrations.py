"""The migrations make what the models say, also of a database that is full."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text

from easyml_server.repositories.sql import migrate
from easyml_server.repositories.sql.base import Base
from easyml_server.repositories.sql.migrate import HEAD, MIGRATIONS, NewerDatabaseError, migrate_sqlite
from easyml_server.repositories.sql.store import open_sqlite
from tests.builders import a_config, a_project, a_user


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    path = tmp_path / "easyml.db"
    migrate_sqlite(path)
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def config_of(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "easyml.db"
    migrate_sqlite(path)
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerDatabaseError):
        migrate_sqlite(path)
    with engine.connect() as connection:
        assert migrate.current_revision(connection) == "9999"
    engine.dispose()


def test_the_newest_migration_is_the_one_that_a_start_compares_with(connection: Connection) -> None:
    assert ScriptDirectory.from_config(config_of(connection)).get_heads() == [HEAD]


def test_a_second_migration_does_nothing(tmp_path: Path) -> None:
    path = tmp_path / "easyml.db"
    assert [migrate_sqlite(path), migrate_sqlite(path)] == [True, False]


def test_the_migrations_make_what_the_models_say(connection: Connection) -> None:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "render_as_batch": True})
    assert compare_metadata(context, Base.metadata) == []


async def test_down_and_up_again_works_on_a_database_with_rows(tmp_path: Path) -> None:
    path = tmp_path / "easyml.db"
    migrate_sqlite(path)
    store = open_sqlite(str(path))
    user = a_user()
    project = a_project(user.id)
    async with store.begin() as work:
        await work.users.add(user)
        await work.projects.add(project, a_config(project))
        await work.commit()
    await store.close()
    engine = create_engine(f"sqlite:///{path}")
    for move in (command.downgrade, command.upgrade):
        with engine.begin() as connection:
            move(config_of(connection), "base" if move is command.downgrade else "head")
    with engine.connect() as connection:
        assert migrate.current_revision(connection) == HEAD
        assert connection.execute(text("SELECT count(*) FROM users")).scalar() == 0
    engine.dispose()
