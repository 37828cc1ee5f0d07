"""Opens MongoDB for documents; what is wrong with it is said in one line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from easyml_server.repositories.documents.errors import EXAMPLE, CannotOpenError, CannotReachError, explained
from easyml_server.repositories.documents.preparing import check, prepare

if TYPE_CHECKING:
    from easyml_server.repositories.documents.mongo import Client, MongoDocuments

PREPARE_SECONDS = 10.0
"""How long one step of preparing may take."""
REACH_SECONDS = 5.0
"""How long is looked for the server before."""


async def prepare_mongodb(url: str, identity: UUID, *, moved: bool = False) -> bool:
    """Make a database fit for this release's documents; True if something was done. Raises CannotOpenError.

    `moved` says that the documents are in MongoDB already, so that an empty database is not the one.
    """
    async with _client(url, PREPARE_SECONDS, REACH_SECONDS) as client:
        with explained(name_of(url)):
            return await prepare(client.get_default_database(), identity, moved=moved)


async def check_mongodb(url: str, identity: UUID, wait_seconds: float, *, moved: bool = False) -> None:
    """Whether documents of this database can be kept there; CannotOpenError if not."""
    async with _client(url, wait_seconds) as client:
        with explained(name_of(url)):
            await check(client.get_default_database(), identity, moved=moved)


async def open_mongodb(
    url: str, identity: UUID, wait_seconds: float, *, known: bool, moved: bool = False
) -> MongoDocuments:
    """The documents. One that is `known` to be prepared for this release may be away just now."""
    from easyml_server.repositories.documents.mongo import MongoDocuments, open_client

    try:
        await check_mongodb(url, identity, wait_seconds, moved=moved)
    except CannotReachError as error:
        if not known:
            raise
        documents = MongoDocuments(open_client(url, wait_seconds), identity)
        documents.reachability.lost(str(error))
        return documents
    return MongoDocuments(open_client(url, wait_seconds), identity)


def name_of(url: str) -> str:
    """Hosts and database, without user and password; CannotOpenError if it is no URL of MongoDB's."""
    if not url.startswith(("mongodb://", "mongodb+srv://")):
        raise CannotOpenError(f"EASYML_MONGODB_URL is no URL of MongoDB; write {EXAMPLE}.")
    plain, _, options = url.partition("?")
    scheme, _, rest = plain.partition("://")
    try:
        # What a name of DNS stands for is seen when it is connected to.
        found = parse_uri(f"mongodb://{rest}")
    except (PyMongoError, ValueError) as error:
        raise CannotOpenError(
            f"EASYML_MONGODB_URL is no URL; write {EXAMPLE}, reserved characters of the password percent-encoded "
            "(@ as %40)."
        ) from error
    if not found["database"]:
        raise CannotOpenError(f"EASYML_MONGODB_URL names no database; write {EXAMPLE}.")
    try:
        # Without the user: what is said of an option is said without a password.
        parse_uri(f"mongodb://host/?{options}")
    except (PyMongoError, ValueError) as error:
        raise CannotOpenError(f"EASYML_MONGODB_URL has an option that will not do ({error}).") from error
    return f"{scheme}://{rest.rpartition('@')[2]}"


@asynccontextmanager
async def _client(url: str, wait_seconds: float, reach_seconds: float | None = None) -> AsyncIterator[Client]:
    from easyml_server.repositories.documents.mongo import open_client

    name = name_of(url)
    with explained(name):
        client = open_client(url, wait_seconds, reach_seconds)
    try:
        yield client
    finally:
        client.close()


__all__ = ["CannotOpenError", "CannotReachError", "check_mongodb", "name_of", "open_mongodb", "prepare_mongodb"]
