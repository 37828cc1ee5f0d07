"""Errors of the database in the words of the domain."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from easyml_server.domain.disk import FULL, disk_full
from easyml_server.domain.errors import (
    AlreadyExists,
    Collided,
    EasyMLError,
    InvalidInput,
    LimitReached,
    Reason,
    Stale,
    Unavailable,
)

RETRY_SECONDS = 1.0
DISK_FULL = "53100"
WRONG_TEXT = ("22021", "22P05")
"""Of PostgreSQL: a character that the database cannot hold, such as NUL."""
KEY_IS_THERE = ("23505", "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY")
COLLIDED = ("40001", "40P01")
"""Of PostgreSQL: serialization failure, deadlock. Nothing was changed."""
WAITED = ("55P03", "57014")
"""Of PostgreSQL: lock or statement timeout. Nothing was changed, after a long time."""
GONE = ("08", "57", "53", "25")
"""Classes of PostgreSQL: connection, operator intervention, resources, and a transaction that timed out idle."""


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Raise what the services know: LimitReached, Unavailable, Collided, Stale or InvalidInput."""
    try:
        yield
    except PoolTimeout as error:
        raise LimitReached(
            "The server is busy with other calls to its database; try again.",
            Reason.OVERLOADED,
            retry_after=RETRY_SECONDS,
        ) from error
    except DBAPIError as error:
        meaning = _meaning(error)
        if meaning is None:
            raise
        raise meaning from error
    except ConnectionError as error:
        # asyncpg says so itself when nobody answers at the address.
        raise _away() from error


@contextmanager
def named(kind: str, name: str) -> Iterator[None]:
    """A name that is taken is told as such; whatever else a row refers to in vain, `translated` tells."""
    try:
        yield
    except IntegrityError as error:
        if not key_is_there(error):
            raise
        raise AlreadyExists.of(kind, name) from error


def key_is_there(error: IntegrityError) -> bool:
    """Whether a row with that key was there before; else it refers to one that is not."""
    return (sqlstate_of(error) or getattr(error.orig, "sqlite_errorname", "")) in KEY_IS_THERE


def _meaning(error: DBAPIError) -> EasyMLError | None:
    state = sqlstate_of(error)
    if _is_full(error.orig) or state == DISK_FULL:
        return disk_full()
    if state in WRONG_TEXT:
        return InvalidInput("A text holds a character that cannot be stored, such as NUL; leave it out.")
    if isinstance(error, IntegrityError):
        return Stale("Something this refers to was changed at the same time; read it again, then repeat your change.")
    if state in COLLIDED:
        return _collided()
    if state in WAITED or state[:2] in GONE or error.connection_invalidated or _is_sqlite(error):
        return _away()
    return None if state else _away()


def sqlstate_of(error: BaseException) -> str:
    """PostgreSQL's code of what went wrong, of its driver's error or one around it; empty where there is none."""
    found = getattr(getattr(error, "orig", None) or error, "sqlstate", None)
    return str(found or "")


def _is_sqlite(error: DBAPIError) -> bool:
    return isinstance(error.orig, sqlite3.OperationalError | sqlite3.InterfaceError)


def _is_full(error: BaseException | None) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return bool(code & 0xFF == sqlite3.SQLITE_FULL)
    return isinstance(error, OSError) and error.errno in FULL


def _away() -> Unavailable:
    return Unavailable(
        "The database cannot be used just now; try again.",
        retry_after=RETRY_SECONDS,
        metadata={"part": "database"},
    )


def _collided() -> Collided:
    return Collided(
        "Other calls were in the way of this one in the database, and nothing was changed; try again.",
        retry_after=RETRY_SECONDS,
        metadata={"part": "database"},
    )
