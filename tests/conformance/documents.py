"""Documents of each engine, with the connection to where they are kept in the test's hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from easyml_server.domain.experiments import TrainingState
from easyml_server.domain.statistics import (
    ColumnStatistics,
    NumberStatistics,
    Quartiles,
    TableStatistics,
    ValueCount,
)
from easyml_server.repositories.documents.details import DatasetMetadataDocument
from easyml_server.repositories.documents.document import Document
from easyml_server.repositories.documents.models import ModelSessionDocument, ProjectConfigDocument
from easyml_server.repositories.documents.mongo import MongoDocuments, open_client
from easyml_server.repositories.documents.opening import prepare_mongodb
from easyml_server.repositories.sql.store import SqlStore
from easyml_server.services.documents import DocumentDispatcher
from tests.builders import TIME, a_config, a_project, a_user
from tests.conformance.stores import EmptyStore
from tests.mongodb import MongoServer
from tests.proxy import proxy

WAIT_SECONDS, PROBE_SECONDS = 0.5, 0.05


@dataclass
class Bench:
    """A store with two projects; on engines that are always there, `down` and `up` do nothing."""

    store: SqlStore
    projects: tuple[UUID, UUID]
    server: MongoDocuments | None = None
    dispatcher: DocumentDispatcher | None = None
    take_away: Callable[[], None] = lambda: None
    give_back: Callable[[], None] = lambda: None
    away: bool = False

    def down(self) -> None:
        """Where documents are kept cannot be reached."""
        self.take_away()
        self.away = self.server is not None

    async def up(self) -> None:
        """It can; returns when it is known."""
        self.give_back()
        self.away = False
        if self.server is not None:
            async for available in self.server.availability():
                if available:
                    return

    async def apply(self) -> None:
        """Apply what waits."""
        if self.dispatcher is not None:
            await self.dispatcher.work_off()

    async def put(self, document: Document, project_id: UUID) -> None:
        """In a unit of work of its own."""
        async with self.store.begin() as work:
            await work.documents.put(document, project_id)
            await work.commit()

    async def find(self, kind: type[Document], document_id: UUID) -> Document | None:
        """In a unit of work of its own."""
        async with self.store.read() as work:
            return await work.documents.find(kind, document_id)


Benches = Callable[[], AbstractAsyncContextManager[Bench]]


def benches(rows: EmptyStore, mongo: MongoServer | None) -> Benches:
    """Documents in the rows' database, or on a MongoDB."""

    @asynccontextmanager
    async def make() -> AsyncIterator[Bench]:
        async with rows() as store:
            projects = await _two_projects(store)
            if mongo is None:
                yield Bench(store, projects)
                return
            with proxy(*mongo.address) as line:
                url = mongo.through(line).database_url(name := mongo.new_name())
                await prepare_mongodb(url, await store.identity())
                server = MongoDocuments(
                    open_client(url, WAIT_SECONDS), await store.identity(), probe_seconds=PROBE_SECONDS
                )
                dispatcher = DocumentDispatcher(store, server)
                store.keep_documents_on(server, dispatcher.wake)
                try:
                    yield Bench(store, projects, server, dispatcher, line.down, line.up)
                finally:
                    await server.close()
                    mongo.drop(name)

    return make


async def _two_projects(store: SqlStore) -> tuple[UUID, UUID]:
    user = a_user()
    made = [a_project(user.id), a_project(user.id)]
    async with store.begin() as work:
        await work.users.add(user)
        for project in made:
            await work.projects.add(project, a_config(project))
        await work.commit()
    return made[0].id, made[1].id


# What is odd to one engine or another: dots, dollars, percent signs, beyond 64 bits, no numbers, whole floats.
odd_text = st.text(st.sampled_from(".$%é🐧'\"\\a2E"), max_size=4)
numbers = st.one_of(
    st.sampled_from([float("nan"), float("inf"), float("-inf"), -0.0, 1e16, 1e300, 5e-324, 2.0**53, 1.0, 0.1]),
    st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**30, 0]),
)
values = st.recursive(
    st.one_of(numbers, odd_text, st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(odd_text, inner, max_size=2)),
    max_leaves=4,
)


def a_config_document(document_id: UUID, content: dict[str, dict[str, Any]]) -> ProjectConfigDocument:
    """A configuration."""
    return ProjectConfigDocument(
        id=document_id,
        default_hyperparameters=content,
        mlflow_experiment="",
        storage_max_bytes=0,
        keep_original_files=True,
        update_time=TIME,
        etag="1",
    )


def a_session_document(document_id: UUID, content: dict[str, float]) -> ModelSessionDocument:
    """A live session."""
    return ModelSessionDocument(
        id=document_id,
        state=TrainingState.RUNNING,
        stage=None,
        fold=0,
        folds=0,
        iteration=0,
        iterations=0,
        values=content,
        update_time=TIME,
    )


def a_metadata_document(document_id: UUID, texts: list[str], number: float) -> DatasetMetadataDocument:
    """What columns hold."""
    numbers = NumberStatistics(number, None, -number, 0.0, Quartiles(number, number, number), 1)
    columns = [ColumnStatistics(text, 1, numbers=numbers, frequent=(ValueCount(text, 2**40),)) for text in texts]
    return DatasetMetadataDocument.of(document_id, TableStatistics(tuple(columns), len(texts)))


def plain(value: Any) -> str:
    """What two documents are the same by: NaN is itself, 1.0 is not 1, the order of keys does not count."""
    if isinstance(value, Document):
        return type(value).__name__ + plain(dict(value.body()))
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{key!r}:{plain(each)}" for key, each in value.items())) + "}"
    if isinstance(value, list):
        return "[" + ",".join(plain(each) for each in value) + "]"
    return repr(value)
