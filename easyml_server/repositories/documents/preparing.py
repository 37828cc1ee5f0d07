"""Makes a MongoDB database fit for documents, and tells whether it is: marker, validators, indexes, shapes.

The marker is a document that names the relational database whose documents these are, and the layout that was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pymongo.errors import DuplicateKeyError, OperationFailure

from easyml_server.domain.errors import Unavailable
from easyml_server.repositories.documents.document import Document
from easyml_server.repositories.documents.encoding import for_bson, from_bson
from easyml_server.repositories.documents.errors import CannotOpenError, explained
from easyml_server.repositories.documents.models import KINDS, LAYOUT
from easyml_server.repositories.documents.schemas import INDEXES, validator_of

if TYPE_CHECKING:
    from easyml_server.repositories.documents.mongo import Collection, Database

STORE, MARKER = "easyml_store", "easyml"
MIN_WIRE_VERSION = 9
"""Of MongoDB 4.4."""
COLLECTION_EXISTS = 48
MIGRATE = "run: easyml-server migrate (or set EASYML_MIGRATE_AT_START=true)"


async def verify(database: Database, identity: UUID) -> None:
    """Whether a server that came back is the one it was; Unavailable if not."""
    try:
        with explained(database.name):
            await check(database, identity)
    except CannotOpenError as error:
        raise Unavailable(str(error), metadata={"part": "documents"}) from error


async def check(database: Database, identity: UUID, layout: int = LAYOUT, *, moved: bool = False) -> None:
    """Whether documents of this database can be kept here; CannotOpenError if not.

    `moved` says that its documents are in MongoDB already: then one that holds none of them is the wrong one.
    """
    await _check_version(database)
    marker = await _marker_or_nothing(database)
    if marker is None:
        if moved:
            raise _elsewhere(database, identity)
        raise CannotOpenError(f"The MongoDB database {database.name} was not prepared for EasyML yet; {MIGRATE}.")
    _check_marker(database, marker, identity, layout)
    if marker["layout"] < layout:
        raise CannotOpenError(
            f"The MongoDB database {database.name} has layout {marker['layout']}, and this release needs {layout}; "
            f"{MIGRATE}."
        )
    # Told now rather than by the first document: a user may read and not write.
    await database[STORE].update_one({"_id": MARKER}, {"$set": {"seen_time": datetime.now(UTC)}})


async def prepare(
    database: Database,
    identity: UUID,
    kinds: Sequence[type[Document]] = KINDS,
    layout: int = LAYOUT,
    *,
    moved: bool = False,
) -> bool:
    """Make what is missing; True if something was done. May be repeated, cut off, and done by two at once.

    Not where none of the documents are that were `moved` to MongoDB before.
    """
    await _check_version(database)
    marker = await _marker_or_nothing(database)
    if marker is None:
        if moved:
            raise _elsewhere(database, identity)
        marker = await _mark(database, identity)
    _check_marker(database, marker, identity, layout)
    for kind in kinds:
        await _make_collection(database, kind)
        await _upgrade_all(database[kind.collection], kind)
    await database[STORE].update_one({"_id": MARKER}, {"$max": {"layout": layout}})
    return bool(marker["layout"] < layout)


async def _check_version(database: Database) -> None:
    hello = await database.client.admin.command("hello")
    if hello["maxWireVersion"] < MIN_WIRE_VERSION:
        raise CannotOpenError("The document server is too old; EasyML needs MongoDB 4.4 or newer.")


async def _marker(database: Database) -> Any:
    return await database[STORE].find_one({"_id": MARKER})


async def _marker_or_nothing(database: Database) -> Any:
    """The marker, or None in an empty database."""
    # Looked at before the marker: what another server makes meanwhile is not taken for something else.
    names = await database.list_collection_names()
    marker = await _marker(database)
    others = sorted(name for name in names if name != STORE and not name.startswith("system."))
    if marker is None and others:
        raise CannotOpenError(
            f"The MongoDB database {database.name} holds collections of something else ({', '.join(others[:3])}); name "
            "an empty one in EASYML_MONGODB_URL."
        )
    return marker


async def _mark(database: Database, identity: UUID) -> Any:
    # Another server may be faster.
    with suppress(DuplicateKeyError):
        await database[STORE].insert_one({"_id": MARKER, "identity": identity, "layout": 0})
    return await _marker(database)


def _elsewhere(database: Database, identity: UUID) -> CannotOpenError:
    return CannotOpenError(
        f"The MongoDB database {database.name} is empty, and the documents are in another one: name that in "
        f"EASYML_MONGODB_URL, or restore it from a backup. If they are lost, insert {{_id: '{MARKER}', identity: "
        f"UUID('{identity}'), layout: 0}} into its collection {STORE}, and {MIGRATE}."
    )


def _check_marker(database: Database, marker: Any, identity: UUID, layout: int) -> None:
    if marker["identity"] != identity:
        raise CannotOpenError(
            f"The documents in the MongoDB database {database.name} belong to another EasyML database; name the one "
            "they came with, or an empty one, in EASYML_MONGODB_URL."
        )
    if marker["layout"] > layout:
        raise CannotOpenError(
            f"The MongoDB database {database.name} was written by a newer EasyML (layout {marker['layout']}); install "
            "that version."
        )


async def _make_collection(database: Database, kind: type[Document]) -> None:
    # Moderate: a document of an older shape may still be upgraded, which is how it becomes valid.
    rules = {"validator": validator_of(kind), "validationLevel": "moderate"}
    try:
        await database.command({"create": kind.collection, **rules})
    except OperationFailure as error:
        if error.code != COLLECTION_EXISTS:
            raise
        await database.command({"collMod": kind.collection, **rules})
    for index in INDEXES:
        await database[kind.collection].create_index(index.field, name=index.name, **index.options)


async def _upgrade_all(collection: Collection, kind: type[Document]) -> None:
    """One by one, so that it goes on where it was cut off; one that is written meanwhile is in its newest shape."""
    async for stored in collection.find({"body.schema_version": {"$lt": kind.newest()}}):
        body = for_bson(kind.upgraded(from_bson(stored["body"])))
        await collection.update_one({"_id": stored["_id"], "revision": stored["revision"]}, {"$set": {"body": body}})
