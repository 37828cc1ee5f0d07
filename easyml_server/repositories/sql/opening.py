"""Opens databases, brought to this release's schema; what is wrong with one is said in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from easyml_server.domain.limits import PoolLimits
from easyml_server.repositories.sql.errors import sqlstate_of
from easyml_server.repositories.sql.migrate import (
    HEAD,
    ForeignDatabaseError,
    NewerDatabaseError,
    migrate_postgresql,
    migrate_sqlite,
    revision_of,
)
from easyml_server.repositories.sql.store import SqlStore, open_postgresql, open_sqlite, postgresql_engine

EXAMPLE = "postgresql://user:password@host:5432/name"


class CannotOpenError(Exception):
    """The database cannot be used; the message is one line that says why and what to do, without its password."""


def open_file(path: Path) -> SqlStore:
    """The embedded database, made or migrated if needed."""
    migrate_file(path)
    return open_sqlite(str(path))


async def open_server(url: str, limits: PoolLimits, *, migrate: bool) -> SqlStore:
    """A PostgreSQL database; one of an older schema is refused unless it may be migrated."""
    await prepare_server(url, limits, migrate=migrate)
    return open_postgresql(url, limits)


def migrate_file(path: Path) -> bool:
    """Bring the embedded database to `HEAD`; True if something was done."""
    with _explained(str(path)):
        return migrate_sqlite(path)


async def prepare_server(url: str, limits: PoolLimits, *, migrate: bool) -> bool:
    """Bring a PostgreSQL database to `HEAD`, or make sure that somebody did; True if something was done."""
    parsed = check_url(url)
    # A migration may wait long for another one's, and for its own statements.
    engine = postgresql_engine(url, PoolLimits(1, limits.wait_seconds, lock_seconds=0, statement_seconds=0))
    try:
        with _explained(parsed.render_as_string(hide_password=True)):
            return await migrate_postgresql(engine) if migrate else await _check_revision(engine)
    finally:
        await engine.dispose()


async def _check_revision(engine: AsyncEngine) -> bool:
    found = await revision_of(engine)
    if found == HEAD:
        return False
    if found is not None and found > HEAD:
        raise NewerDatabaseError(found)
    raise CannotOpenError(
        f"The database has {f'schema {found}' if found else 'no schema yet'}, and this release needs {HEAD}; run: "
        "easyml-server migrate (or set EASYML_MIGRATE_AT_START=true)."
    )


def check_url(url: str, setting: str = "EASYML_DATABASE_URL") -> URL:
    """The parts of a URL of PostgreSQL."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise CannotOpenError(
            f"{setting} is no URL; write {EXAMPLE}, reserved characters of the password percent-encoded (@ as %40)."
        ) from error
    if "@" in (parsed.host or ""):
        # What stands before it may be the rest of the password, so nothing of it is repeated.
        raise CannotOpenError(f"{setting} has an @ in its user or password; write it as %40.")
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise CannotOpenError(f"{setting} begins with {parsed.drivername}://; write {EXAMPLE}.")
    if not parsed.database:
        raise CannotOpenError(f"{setting} names no database; write {EXAMPLE}.")
    return parsed


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Whatever the driver says, as a line; `name` is without its password."""
    try:
        yield
    except NewerDatabaseError as error:
        raise CannotOpenError(
            f"The database {name} was written by a newer EasyML (schema {error}); install that version, or choose "
            "another database."
        ) from error
    except ForeignDatabaseError as error:
        raise CannotOpenError(
            f"The database {name} holds tables of something else ({error}); make an empty one for EasyML."
        ) from error
    except (OSError, DBAPIError) as error:
        raise CannotOpenError(_sentence(name, error)) from error
    except Exception as error:
        # asyncpg's own errors, such as a wrong password, come as they are while it connects.
        if not sqlstate_of(error):
            raise
        raise CannotOpenError(_sentence(name, error)) from error


def _sentence(name: str, error: Exception) -> str:
    state = sqlstate_of(error)
    if state[:2] == "28":
        return f"The database {name} refuses the user or the password; see EASYML_DATABASE_URL."
    if state == "3D000":
        return f"The database {name} does not exist; make it: CREATE DATABASE."
    if state == "42501":
        return f"The user of the database {name} may not make tables in it; grant CREATE on its schema public."
    if isinstance(error, OSError):
        return f"The database {name} cannot be reached ({error}); see whether it runs, and EASYML_DATABASE_URL."
    cause = getattr(error, "orig", None) or error
    return f"The database {name} cannot be used ({cause}); restore it from a backup, or see its own log."
