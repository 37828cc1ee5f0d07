"""Documents on a server of their own, behind an outbox: written with their rows, applied there by a dispatcher.

Reads take the write that waits, if there is one, and ask the server otherwise. So everybody reads what was written,
whether the server has it yet or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from easyml_server.ports.documents import WHOLE_PROJECT, DocumentServer
from easyml_server.repositories.documents.encoding import check
from easyml_server.repositories.documents.models import KINDS, Document
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
        waiting = await self._pending.find(kind.collection, document_id)
        if waiting is not None:
            return None if waiting.body is None else kind.from_body(waiting.body)
        stored = await self._server.find(kind.collection, document_id)
        if stored is None:
            return None
        deleted = await self._pending.find(WHOLE_PROJECT, stored.project_id)
        if deleted is not None and deleted.revision > stored.revision:
            return None
        return kind.from_body(stored.body)

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
