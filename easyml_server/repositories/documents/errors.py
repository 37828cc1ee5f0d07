"""MongoDB's errors in the words of the domain while the server runs, and as one line while it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WaitQueueTimeoutError,
)

from easyml_server.domain.errors import Unavailable
from easyml_server.repositories.documents.reachability import away

WRONG_CREDENTIALS = (18, 8000)
NOT_ALLOWED = (13,)
EXAMPLE = "mongodb://user:password@host:27017/name"


class CannotOpenError(Exception):
    """The document server cannot be used; the message is one line that says why and what to do, without passwords."""


class CannotReachError(CannotOpenError):
    """It does not answer just now."""


@contextmanager
def translated(lost: Callable[[str], None]) -> Iterator[None]:
    """Raise what the services know. `lost` is called when the server did not answer."""
    try:
        yield
    except WaitQueueTimeoutError as error:
        # All connections are in use: the server is there.
        raise away() from error
    except PyMongoError as error:
        if _is_away(error):
            lost(type(error).__name__)
            raise away() from error
        if isinstance(error, OperationFailure) and error.code in (*WRONG_CREDENTIALS, *NOT_ALLOWED):
            lost("it refuses the user, or the user may not")
            raise away() from error
        raise


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Whatever is wrong, as a line; `name` is without a password."""
    try:
        yield
    except ConfigurationError as error:
        if "wire version" in str(error):
            raise CannotOpenError(
                f"The document server {name} is too old; EasyML needs MongoDB 4.4 or newer."
            ) from error
        raise CannotOpenError(f"EASYML_MONGODB_URL cannot be used ({_line(error)}); write {EXAMPLE}.") from error
    except OperationFailure as error:
        raise CannotOpenError(_sentence(name, error)) from error
    except PyMongoError as error:
        if not _is_away(error):
            raise CannotOpenError(f"The document server {name} cannot be used ({_line(error)}).") from error
        raise CannotReachError(
            f"The document server {name} cannot be reached; see whether it runs, and EASYML_MONGODB_URL."
        ) from error
    except Unavailable as error:
        raise CannotReachError(
            f"The document server {name} cannot be reached; see whether it runs, and EASYML_MONGODB_URL."
        ) from error


def _is_away(error: PyMongoError) -> bool:
    if isinstance(error, BulkWriteError):
        return bool((error.details or {}).get("writeConcernErrors"))
    # A failed login while connecting comes as one of these, with the answer as its cause.
    return error.timeout or isinstance(error, ConnectionFailure | ExecutionTimeout)


def _sentence(name: str, error: OperationFailure) -> str:
    if error.code in WRONG_CREDENTIALS:
        return f"The document server {name} refuses the user or the password; see EASYML_MONGODB_URL."
    if error.code in NOT_ALLOWED:
        return f"The user of the document server {name} may not do this; grant readWrite and dbAdmin on the database."
    return f"The document server {name} cannot be used ({_line(error)})."


def _line(error: Exception) -> str:
    return str(error).splitlines()[0].partition(", full error:")[0]
