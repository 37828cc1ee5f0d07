"""Documents as JSON in the relational database: embedded mode needs no other server; they commit with their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ForeignKey, String, Table, delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from easyml_server.repositories.documents.document import Document
from easyml_server.repositories.documents.encoding import check, for_json, from_json
from easyml_server.repositories.documents.port import Kind
from easyml_server.repositories.sql.base import Base, JsonType, insert_or_replace


class StoredDocument(Base):
    """One document of a collection."""

    __tablename__ = "documents"

    collection: Mapped[str] = mapped_column(String(64), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, index=True)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    body: Mapped[Any] = mapped_column(JsonType)


class SqlDocuments:
    """Fulfils `port.Documents`: reads and writes documents inside the unit of work of their rows."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def put(self, document: Document, project_id: UUID) -> None:
        """Insert or replace."""
        await self.put_all([(document, project_id)])

    async def put_all(self, documents: Sequence[tuple[Document, UUID]]) -> None:
        """The same of several."""
        rows = []
        for document, project_id in documents:
            body = document.body()
            check(body)
            identity = {"collection": document.collection, "id": document.id}
            rows.append({**identity, "project_id": project_id, "body": for_json(body)})
        await self._session.execute(insert_or_replace(self._session, cast(Table, StoredDocument.__table__)), rows)

    async def find(self, kind: type[Kind], document_id: UUID) -> Kind | None:
        """The document of that id."""
        row = await self._session.get(StoredDocument, (kind.collection, document_id), populate_existing=True)
        return None if row is None else kind.from_body(from_json(row.body))

    async def find_many(self, kind: type[Kind], document_ids: Sequence[UUID]) -> Mapping[UUID, Kind]:
        """Those of these that are there."""
        rows = await self._session.scalars(
            select(StoredDocument).where(
                StoredDocument.collection == kind.collection, StoredDocument.id.in_(document_ids)
            )
        )
        return {row.id: kind.from_body(from_json(row.body)) for row in rows}

    async def delete(self, document_id: UUID) -> None:
        """All documents of one row."""
        await self._session.execute(delete(StoredDocument).where(StoredDocument.id == document_id))

    async def delete_of_project(self, project_id: UUID) -> None:
        """All documents of a project."""
        await self._session.execute(delete(StoredDocument).where(StoredDocument.project_id == project_id))

    def committed(self) -> None:
        """Nobody waits for them."""
