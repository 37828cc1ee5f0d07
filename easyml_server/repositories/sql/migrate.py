"""Brings a database to the schema of this release.

A start compares the stored revision by one query; Alembic is loaded only when it differs.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, create_engine, event, func, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

HEAD = "0012"
"""The newest revision; a test compares it with the migrations."""

MIGRATIONS = Path(__file__).with_name("migrations")


ONE_AT_A_TIME = 7_305_808_071
"""Number of the advisory lock that PostgreSQL gives to one migration at a time."""


class NewerDatabaseError(Exception):
    """The database was written by a newer release."""


class ForeignDatabaseError(Exception):
    """The database holds tables, and they are not ours."""


def migrate_sqlite(path: Path) -> bool:
    """Bring the SQLite file to `HEAD`, making it if needed; True if something was done.

    Raises NewerDatabaseError when the file's revision is not one of this release.
    """
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def configure(connection, _record):  # type: ignore[no-untyped-def]  # SQLAlchemy's event signature
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")

    try:
        with engine.begin() as connection:
            return migrate(connection)
    finally:
        engine.dispose()


async def migrate_postgresql(engine: AsyncEngine) -> bool:
    """Bring the database to `HEAD`; of several at once one does it, and the others find it done."""
    async with engine.begin() as connection:
        await connection.execute(select(func.pg_advisory_xact_lock(ONE_AT_A_TIME)))
        return await connection.run_sync(migrate)


async def revision_of(engine: AsyncEngine) -> str | None:
    """The stored revision; None in an empty database."""
    async with engine.connect() as connection:
        return await connection.run_sync(current_revision)


def migrate(connection: Connection) -> bool:
    """Bring the database behind a connection to `HEAD`, in its transaction."""
    found = current_revision(connection)
    if found == HEAD:
        return False
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise NewerDatabaseError(found)
    command.upgrade(config, "head")
    return True


def current_revision(connection: Connection) -> str | None:
    """The stored revision; None in an empty database."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" not in tables:
        if tables:
            raise ForeignDatabaseError(", ".join(sorted(tables)[:3]))
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
