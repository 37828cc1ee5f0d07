"""What repositories need of documents, wherever these are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar
from uuid import UUID

from easyml_server.repositories.documents.document import Document

Kind = TypeVar("Kind", bound=Document)


class Documents(Protocol):
    """Documents inside a unit of work: they are committed with their rows, and read as they were written.

    Whoever writes a document holds the lock of the row it belongs to, so that writes of one document have an order.
    """

    async def put(self, document: Document, project_id: UUID) -> None:
        """Insert or replace. InvalidInput if it holds what not every engine can keep, or is too large."""
        ...

    async def put_all(self, documents: Sequence[tuple[Document, UUID]]) -> None:
        """The same of several, each of another row."""
        ...

    async def find(self, kind: type[Kind], document_id: UUID) -> Kind | None:
        """The document of that id. Unavailable while it cannot be known."""
        ...

    async def find_many(self, kind: type[Kind], document_ids: Sequence[UUID]) -> Mapping[UUID, Kind]:
        """Those of these that are there. Unavailable while one of them cannot be known."""
        ...

    async def delete(self, document_id: UUID) -> None:
        """All documents of one row."""
        ...

    async def delete_of_project(self, project_id: UUID) -> None:
        """All documents of a project."""
        ...

    def committed(self) -> None:
        """The unit of work was committed, or may have been."""
        ...
