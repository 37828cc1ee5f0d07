"""Documents on MongoDB. The one module that imports motor.

A write carries the revision of its document and replaces older ones only, so that it may come twice, late or from two
servers at once. A deletion is a write too: it leaves a tombstone until nothing late can come any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

import pymongo
import structlog
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo import ReplaceOne
from pymongo.errors import BulkWriteError, DocumentTooLarge

from easyml_server.ports.documents import WHOLE_PROJECT, Applied, PendingDocument, StoredDocument
from easyml_server.repositories.documents.document import Document
from easyml_server.repositories.documents.encoding import for_bson, from_bson
from easyml_server.repositories.documents.errors import translated
from easyml_server.repositories.documents.models import KINDS
from easyml_server.repositories.documents.preparing import verify
from easyml_server.repositories.documents.reachability import PROBE_SECONDS, Reachability
from easyml_server.repositories.documents.schemas import EXPIRE, TOMBSTONE_SECONDS

APPLY_SECONDS = 10.0
"""How long one write of many documents may take; nobody waits for it."""
DUPLICATE = 11000
TRIES = 5

Content = dict[str, Any]
Client = AsyncIOMotorClient[Content]
Database = AsyncIOMotorDatabase[Content]
Collection = AsyncIOMotorCollection[Content]

log = structlog.get_logger(__name__)


def open_client(url: str, wait_seconds: float, reach_seconds: float | None = None) -> Client:
    """Connections that are made when they are needed; an operation takes no longer than `wait_seconds`.

    A server that is not there is looked for as long, or for `reach_seconds`.
    """
    milliseconds = int(wait_seconds * 1000)
    reach_milliseconds = int((reach_seconds or wait_seconds) * 1000)
    return AsyncIOMotorClient(
        url,
        appname="easyml-server",
        tz_aware=True,
        uuidRepresentation="standard",
        serverSelectionTimeoutMS=reach_milliseconds,
        connectTimeoutMS=reach_milliseconds,
        timeoutMS=milliseconds,
        readPreference="primary",
        w="majority",
        journal=True,
    )


class MongoDocuments:
    """Fulfils `ports.documents.DocumentServer`."""

    def __init__(
        self,
        client: Client,
        identity: UUID,
        kinds: Sequence[type[Document]] = KINDS,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        """`identity` is the database's that the documents belong to."""
        self._client = client
        self._database: Database = client.get_default_database()
        self._kinds: Mapping[str, type[Document]] = {kind.collection: kind for kind in kinds}
        self._identity = identity
        self.reachability = Reachability(self._verify, probe_seconds)

    async def find_many(self, collection: str, document_ids: Sequence[UUID]) -> Mapping[UUID, StoredDocument]:
        """Those of these that are there; a tombstone is none."""
        self.reachability.require()
        with translated(self.reachability.lost):
            found = await self._database[collection].find({"_id": {"$in": list(document_ids)}}).to_list(None)
        return {
            each["_id"]: StoredDocument(each["project_id"], each["revision"], from_bson(each["body"]))
            for each in found
            if each["body"] is not None
        }

    async def apply(self, pending: Sequence[PendingDocument]) -> Applied:
        """Collection by collection; whole projects last."""
        self.reachability.require()
        done: list[PendingDocument] = []
        overtaken: list[tuple[PendingDocument, int]] = []
        ordered = sorted(pending, key=lambda each: (each.collection == WHOLE_PROJECT, each.collection))
        with translated(self.reachability.lost), pymongo.timeout(APPLY_SECONDS):
            for collection, group in groupby(ordered, key=lambda each: each.collection):
                writes = list(group)
                if collection == WHOLE_PROJECT:
                    for each in writes:
                        await self._delete_project(each)
                    done += writes
                elif collection in self._kinds:
                    applied = await self._write(self._kinds[collection], writes)
                    done += applied.done
                    overtaken += applied.overtaken
                else:
                    log.error("documents_unknown", collection=collection, documents=len(writes))
        return Applied(done, overtaken)

    def availability(self) -> AsyncIterator[bool]:
        """Whether MongoDB answers."""
        return self.reachability.availability()

    async def close(self) -> None:
        """Close all connections."""
        await self.reachability.close()
        self._client.close()

    async def _verify(self) -> None:
        await verify(self._database, self._identity)

    async def _write(self, kind: type[Document], writes: Sequence[PendingDocument]) -> Applied:
        collection = self._database[kind.collection]
        # What cannot even be sent must not keep the others back.
        sent = [(each, made) for each in writes if (made := _made(kind, each)) is not None]
        if not sent:
            return Applied()
        try:
            await collection.bulk_write([replacement for _, replacement in sent], ordered=False)
        except BulkWriteError as error:
            details = error.details or {}
            if details.get("writeConcernErrors"):
                raise
            failed = {each["index"]: each for each in details["writeErrors"]}
        except DocumentTooLarge:
            # Not one of PyMongo's own errors; it says of a group that there is one.
            return await self._one_by_one(kind, [each for each, _ in sent])
        else:
            return Applied([each for each, _ in sent])
        return await self._sorted_out(kind, [each for each, _ in sent], failed)

    async def _one_by_one(self, kind: type[Document], writes: Sequence[PendingDocument]) -> Applied:
        if len(writes) == 1:
            _refused(writes[0], "too large")
            return Applied()
        applied = [await self._write(kind, [each]) for each in writes]
        return Applied(
            [done for each in applied for done in each.done],
            [overtaken for each in applied for overtaken in each.overtaken],
        )

    async def _sorted_out(
        self, kind: type[Document], writes: Sequence[PendingDocument], failed: Mapping[int, Mapping[str, Any]]
    ) -> Applied:
        done = [each for index, each in enumerate(writes) if index not in failed]
        overtaken: list[tuple[PendingDocument, int]] = []
        for index, failure in failed.items():
            if failure["code"] != DUPLICATE:
                # Not its message, which may quote the document.
                _refused(writes[index], str(failure["code"]))
            elif newer := await self._insist(self._database[kind.collection], kind, writes[index]):
                overtaken.append((writes[index], newer))
            else:
                done.append(writes[index])
        return Applied(done, overtaken)

    async def _insist(self, collection: Collection, kind: type[Document], pending: PendingDocument) -> int:
        """What met a document of its id: the same, a newer one (its revision), or one that came first in a race."""
        for _ in range(TRIES):
            found = await collection.find_one({"_id": pending.document_id})
            if found is not None and found["revision"] >= pending.revision:
                same = found["revision"] == pending.revision and found["body"] == _body(kind, pending)
                return 0 if same else int(found["revision"])
            try:
                await collection.bulk_write([_replacement(kind, pending)])
            except BulkWriteError as error:
                if (error.details or {})["writeErrors"][0]["code"] != DUPLICATE:
                    raise
            else:
                return 0
        # Others write it all the time; what is overtaken is looked at again.
        return pending.revision

    async def _delete_project(self, pending: PendingDocument) -> None:
        older = {"project_id": pending.project_id, "revision": {"$lt": pending.revision}}
        gone = {"body": None, "revision": pending.revision, EXPIRE: _expiry()}
        for collection in self._kinds:
            await self._database[collection].update_many(older, {"$set": gone})


def _replacement(kind: type[Document], pending: PendingDocument) -> ReplaceOne[Content]:
    """Where a newer one is, the filter finds nothing and the insert meets its id."""
    content: Content = {
        "_id": pending.document_id,
        "project_id": pending.project_id,
        "revision": pending.revision,
        "body": _body(kind, pending),
    }
    if pending.body is None:
        content[EXPIRE] = _expiry()
    return ReplaceOne({"_id": pending.document_id, "revision": {"$lt": pending.revision}}, content, upsert=True)


def _body(kind: type[Document], pending: PendingDocument) -> Any:
    return None if pending.body is None else for_bson(kind.upgraded(pending.body))


def _expiry() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=TOMBSTONE_SECONDS)


def _made(kind: type[Document], pending: PendingDocument) -> ReplaceOne[Content] | None:
    """None for a body that cannot be brought to this release's shape: a newer server's, or a broken one."""
    try:
        return _replacement(kind, pending)
    except Exception as error:  # whatever an upgrade meets in a body
        _refused(pending, type(error).__name__)
        return None


def _refused(pending: PendingDocument, why: str) -> None:
    log.error("document_refused", collection=pending.collection, document_id=str(pending.document_id), why=why)
