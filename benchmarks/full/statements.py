"""What a use case asks PostgreSQL and MongoDB: recorded, and asked again without the service.

Recorded is what SQLAlchemy hands to the driver, with the transactions around it, so that the same goes over the wire
either way, in as many turns.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import asyncpg
from sqlalchemy import Engine, event

from easyml_server.domain.limits import Limits, PoolLimits
from easyml_server.ports.documents import DocumentServer, StoredDocument
from easyml_server.repositories.documents.mongo import Client, open_client
from easyml_server.repositories.documents.opening import open_mongodb
from easyml_server.repositories.sql.store import open_postgresql
from easyml_server.services.projects import ProjectService
from easyml_server.services.trainings import TrainingService

WAIT_SECONDS = 5.0


@dataclass(frozen=True)
class Statement:
    """As PostgreSQL gets it."""

    text: str
    values: Sequence[Any] | None = None


@dataclass(frozen=True)
class Lookup:
    """A document that is read by its id."""

    collection: str
    document_id: UUID


Step = Statement | Lookup


@dataclass(frozen=True)
class UseCases:
    """Those of a server's database, in this process; what they ask is written down."""

    projects: ProjectService
    trainings: TrainingService
    asked: list[Step]

    async def steps(self, use_case: Awaitable[object]) -> Sequence[Step]:
        """What one of them asks."""
        self.asked.clear()
        await use_case
        return tuple(self.asked)


@asynccontextmanager
async def use_cases(url: str, mongodb_url: str) -> AsyncIterator[UseCases]:
    """Ready to be looked at."""
    asked: list[Step] = []
    store = open_postgresql(url, PoolLimits())
    listeners = {
        "begin": lambda connection: asked.append(_begin(connection.get_execution_options())),
        "before_cursor_execute": lambda _c, _r, text, values, _x, _m: asked.append(Statement(text, tuple(values))),
        "commit": lambda _: asked.append(Statement("COMMIT")),
        "rollback": lambda _: asked.append(Statement("ROLLBACK")),
    }
    documents = await open_mongodb(mongodb_url, await store.identity(), WAIT_SECONDS, known=False)
    store.keep_documents_on(cast("DocumentServer", _Documents(documents, asked)), lambda: None)
    for name, listener in listeners.items():
        event.listen(Engine, name, listener)
    unused: Any = None
    try:
        yield UseCases(
            ProjectService(store, unused, unused, Limits(), lambda: datetime.now(UTC)),
            TrainingService(store, unused, unused, unused, Limits(), unused, unused),
            asked,
        )
    finally:
        for name, listener in listeners.items():
            event.remove(Engine, name, listener)
        await documents.close()
        await store.close()


class _Documents:
    """Reads of a document server, written down."""

    def __init__(self, server: DocumentServer, asked: list[Step]) -> None:
        self._server = server
        self._asked = asked

    async def find_many(self, collection: str, document_ids: Sequence[UUID]) -> Mapping[UUID, StoredDocument]:
        self._asked.extend(Lookup(collection, each) for each in document_ids)
        return await self._server.find_many(collection, document_ids)


def _begin(options: Any) -> Statement:
    level, only = options.get("isolation_level"), options.get("postgresql_readonly")
    return Statement(f"BEGIN{f' ISOLATION LEVEL {level}' if level else ''}{' READ ONLY' if only else ''}")


class Direct:
    """A connection to each database, as somebody would open them who does without the service."""

    def __init__(self, postgres: Any, mongodb: Client) -> None:
        self._postgres = postgres
        self._documents = mongodb.get_default_database()

    async def ask(self, steps: Sequence[Step]) -> None:
        """One after the other, reading all of each answer."""
        for step in steps:
            if isinstance(step, Lookup):
                await self._documents[step.collection].find_one({"_id": step.document_id})
            elif step.values is None:
                await self._postgres.execute(step.text)
            else:
                await self._postgres.fetch(step.text, *step.values)


@asynccontextmanager
async def direct(url: str, mongodb_url: str, connections: int) -> AsyncIterator[list[Direct]]:
    """So many; their answers' JSON is read, and what is sent as JSON is text already."""
    mongodb = open_client(mongodb_url, WAIT_SECONDS)
    opened = []
    try:
        for _ in range(connections):
            opened.append(await asyncpg.connect(url))
            for name in ("json", "jsonb"):
                await opened[-1].set_type_codec(name, encoder=str, decoder=json.loads, schema="pg_catalog")
        yield [Direct(connection, mongodb) for connection in opened]
    finally:
        for connection in opened:
            await connection.close()
        mongodb.close()
