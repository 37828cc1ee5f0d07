"""Random stories of documents, held against a dictionary: whatever is below answers as the dictionary does, or says
that it cannot just now."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from easyml_server.domain.errors import Unavailable
from easyml_server.repositories.documents.details import DatasetMetadataDocument
from easyml_server.repositories.documents.document import Document
from easyml_server.repositories.documents.models import ModelSessionDocument, ProjectConfigDocument
from tests.conformance.documents import (
    Bench,
    Benches,
    a_config_document,
    a_metadata_document,
    a_session_document,
    numbers,
    odd_text,
    plain,
    values,
)
from tests.conformance.machines import Story, tell

IDS = [UUID(int=number) for number in (1, 2, 3)]
KINDS = (ProjectConfigDocument, ModelSessionDocument, DatasetMetadataDocument)
ids = st.sampled_from(IDS)
projects = st.sampled_from([0, 1])
documents = st.one_of(
    st.builds(
        a_config_document, ids, st.dictionaries(odd_text, st.dictionaries(odd_text, values, max_size=2), max_size=2)
    ),
    st.builds(a_session_document, ids, st.dictionaries(odd_text, numbers.map(float), max_size=2)),
    st.builds(a_metadata_document, ids, st.lists(odd_text, max_size=2), numbers.map(float)),
)
Key = tuple[type[Document], UUID]


class Stories(Story):
    """Documents of two projects."""

    benches: Benches

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[Key, tuple[Document, int]] = {}
        # Written since the last time that all was applied: known without the server.
        self.waiting: set[Key] = set()
        self.bench: Bench = self.runner.run(self.stack.enter_async_context(self.benches()))

    @rule(document=documents, project=projects, kept=st.booleans())
    def put(self, document: Document, project: int, kept: bool) -> None:
        async def write() -> None:
            async with self.bench.store.begin() as work:
                await work.documents.put(document, self.bench.projects[project])
                if kept:
                    await work.commit()

        self.runner.run(write())
        if kept:
            key = (type(document), document.id)
            self.model[key] = (document, project)
            self.waiting.add(key)

    @rule(document_id=ids)
    def delete(self, document_id: UUID) -> None:
        async def write() -> None:
            async with self.bench.store.begin() as work:
                await work.documents.delete(document_id)
                await work.commit()

        self.runner.run(write())
        for kind in KINDS:
            self.model.pop((kind, document_id), None)
            self.waiting.add((kind, document_id))

    @rule(project=projects)
    def delete_of_project(self, project: int) -> None:
        async def write() -> None:
            async with self.bench.store.begin() as work:
                await work.documents.delete_of_project(self.bench.projects[project])
                await work.commit()

        self.runner.run(write())
        self.model = {key: kept for key, kept in self.model.items() if kept[1] != project}

    @rule()
    def apply(self) -> None:
        if self.bench.away:
            with pytest.raises(Unavailable):
                self.runner.run(self.apply_something())
        else:
            self.runner.run(self.bench.apply())
            self.waiting.clear()

    async def apply_something(self) -> None:
        assert self.bench.server is not None
        async with self.bench.store.read() as work:
            await self.bench.server.apply(await work.pending.page(0))
        # Where nothing waits nothing is asked.
        await self.bench.server.find_many("project_configs", [IDS[0]])

    @precondition(lambda self: not self.bench.away)
    @rule()
    def down(self) -> None:
        self.bench.down()

    @precondition(lambda self: self.bench.away)
    @rule()
    def up(self) -> None:
        self.runner.run(self.bench.up())

    @invariant()
    def everything_is_as_it_was_written(self) -> None:
        self.runner.run(self.look_at_all())

    async def look_at_all(self) -> None:
        for kind in KINDS:
            for document_id in IDS:
                await self.look(kind, document_id)

    async def find(self, kind: type[Document], document_id: UUID) -> Document | None:
        """Asked again where a slow machine took a server that is there for one that is away."""
        try:
            return await self.bench.find(kind, document_id)
        except Unavailable:
            if self.bench.away:
                raise
        await self.bench.up()
        return await self.bench.find(kind, document_id)

    async def look(self, kind: type[Document], document_id: UUID) -> None:
        expected = self.model.get((kind, document_id))
        try:
            found = await self.find(kind, document_id)
        except Unavailable as error:
            assert self.bench.away
            assert (kind, document_id) not in self.waiting
            assert error.retry_after
            return
        assert plain(found) == plain(None if expected is None else expected[0])


@pytest.mark.slow
def test_documents_answer_as_a_dictionary(document_benches: Benches, runner: asyncio.Runner) -> None:
    # To make a story shorter takes minutes here.
    tell(Stories, examples=12, phases=[Phase.generate], benches=document_benches, runner=runner)
