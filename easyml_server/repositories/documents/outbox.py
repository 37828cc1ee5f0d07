"""Documents on a server of their own, behind an outbox: written with their rows, applied there by a dispatcher.

Reads take the write that waits, if there is one, and ask the server otherwise. So everybody reads what was written,
whether the server has it yet or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from easyml_server.ports.documents import WHOLE_PROJECT, DocumentServer, StoredDocument
from easyml_server.repositories.documents.document import Document
from easyml_server.repositories.documents.encoding import check
from easyml_server.repositories.documents.models import KINDS
from easyml_server.repositories.documents.port import Kind
from easyml_server.repositories.sql.pending import SqlPendingDocuments


class OutboxDocuments:
    """Fulfils `port.Documents`."""

    def __init__(self, pending: SqlPendingDocuments, server: DocumentServer, wake: Callable[[], None]) -> None:
        """`wake` is called after commits that left something to apply."""
        self._pending = pending
        self._server = server
        self._wake = wake
        self._written = False

    async def put(self, document: Document, project_id: UUID) -> None:
        """Insert or replace."""
        await self.put_all([(document, project_id)])

    async def put_all(self, documents: Sequence[tuple[Document, UUID]]) -> None:
        """The same of several."""
        writes = [(document, project_id, document.body()) for document, project_id in documents]
        for _, _, body in writes:
            check(body)
        self._written = True
        await self._pending.put_all(
            [(document.collection, document.id, project_id, body) for document, project_id, body in writes]
        )

    async def find(self, kind: type[Kind], document_id: UUID) -> Kind | None:
        """The document of that id."""
        return (await self.find_many(kind, [document_id])).get(document_id)

    async def find_many(self, kind: type[Kind], document_ids: Sequence[UUID]) -> Mapping[UUID, Kind]:
        """Those of these that are there; the server is asked for what does not wait only."""
        waiting = await self._pending.find_many(kind.collection, document_ids)
        stored = await self._stored(kind.collection, [each for each in document_ids if each not in waiting])
        bodies = {identity: each.body for identity, each in waiting.items() if each.body is not None}
        bodies |= {identity: each.body for identity, each in stored.items()}
        return {identity: kind.from_body(body) for identity, body in bodies.items()}

    async def _stored(self, collection: str, document_ids: Sequence[UUID]) -> Mapping[UUID, StoredDocument]:
        """What the server has, without what was deleted with its project and waits for that."""
        if not document_ids:
            return {}
        stored = await self._server.find_many(collection, document_ids)
        projects = {each.project_id for each in stored.values()}
        deleted = await self._pending.find_many(WHOLE_PROJECT, sorted(projects)) if projects else {}
        return {
            identity: each
            for identity, each in stored.items()
            if each.project_id not in deleted or deleted[each.project_id].revision < each.revision
        }

    async def delete(self, document_id: UUID) -> None:
        """All documents of one row."""
        self._written = True
        await self._pending.delete([kind.collection for kind in KINDS], document_id)

    async def delete_of_project(self, project_id: UUID) -> None:
        """All documents of a project: those that wait one by one, so that none of them comes late, then the rest."""
        self._written = True
        await self._pending.delete_of_project(project_id)

    def committed(self) -> None:
        """Have it applied."""
        if self._written:
            self._written = False
            self._wake()
