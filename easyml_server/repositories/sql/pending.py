"""Writes of documents that wait to be applied on their server, as rows: they commit with the rows they belong to."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Integer, String, Text, UniqueConstraint, delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from easyml_server.ports.documents import WHOLE_PROJECT, PendingDocument
from easyml_server.repositories.documents.encoding import for_json, from_json
from easyml_server.repositories.sql.base import Base, StoreIdentity

PAGE = 100
PAGE_CHARACTERS = 8 * 1024 * 1024
"""What a page holds at most of bodies, unless its first is larger."""
MOVE = """
INSERT INTO pending_documents (collection, document_id, project_id, body)
SELECT moved.collection, moved.id, moved.project_id, CAST(moved.body AS TEXT)
FROM documents AS moved
WHERE NOT EXISTS (
    SELECT 1 FROM pending_documents AS newer
    WHERE newer.collection = moved.collection AND newer.document_id = moved.id
)
"""


class PendingDocumentRow(Base):
    """The newest write of one document; it outlives the project, which it may have to be deleted with."""

    __tablename__ = "pending_documents"
    __table_args__ = (UniqueConstraint("collection", "document_id"), {"sqlite_autoincrement": True})

    # Never given twice, also when the row that had the highest is gone.
    revision: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    collection: Mapped[str] = mapped_column(String(64))
    document_id: Mapped[UUID]
    project_id: Mapped[UUID] = mapped_column(index=True)
    body: Mapped[str | None] = mapped_column(Text)


class SqlPendingDocuments:
    """Fulfils `ports.documents.PendingDocuments`, and keeps what `OutboxDocuments` writes."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def put(self, collection: str, document_id: UUID, project_id: UUID, body: Mapping[str, Any] | None) -> None:
        """Replace the write of this document that waits; without a body it is a deletion."""
        await self.put_all([(collection, document_id, project_id, body)])

    async def put_all(self, writes: Sequence[tuple[str, UUID, UUID, Mapping[str, Any] | None]]) -> None:
        """The same of several documents."""
        await self._replace(
            [
                (collection, document_id, project_id, None if body is None else _as_text(body))
                for collection, document_id, project_id, body in writes
            ]
        )

    async def find_many(self, collection: str, document_ids: Sequence[UUID]) -> Mapping[UUID, PendingDocument]:
        """The writes of these documents that wait."""
        statement = select(PendingDocumentRow).where(
            PendingDocumentRow.collection == collection, PendingDocumentRow.document_id.in_(document_ids)
        )
        rows = await self._session.scalars(statement.execution_options(populate_existing=True))
        return {row.document_id: _pending(row) for row in rows}

    async def delete(self, collections: Sequence[str], document_id: UUID) -> None:
        """Leave a deletion in each collection, of a project that no longer matters."""
        await self._replace([(collection, document_id, document_id, None) for collection in collections])

    async def delete_of_project(self, project_id: UUID) -> None:
        """Leave deletions of what waits, and one of the whole project."""
        waiting = await self._session.execute(
            select(PendingDocumentRow.collection, PendingDocumentRow.document_id).where(
                PendingDocumentRow.project_id == project_id, PendingDocumentRow.collection != WHOLE_PROJECT
            )
        )
        gone = [(collection, document_id, project_id, None) for collection, document_id in waiting.all()]
        await self._replace([*gone, (WHOLE_PROJECT, project_id, project_id, None)])

    async def page(self, after: int) -> Sequence[PendingDocument]:
        """The oldest after a revision."""
        sizes = await self._session.execute(
            select(PendingDocumentRow.revision, func.coalesce(func.length(PendingDocumentRow.body), 0))
            .where(PendingDocumentRow.revision > after)
            .order_by(PendingDocumentRow.revision)
            .limit(PAGE)
        )
        total = 0
        revisions: list[int] = []
        for revision, size in sizes.all():
            total += size
            if revisions and total > PAGE_CHARACTERS:
                break
            revisions.append(revision)
        statement = select(PendingDocumentRow).where(PendingDocumentRow.revision.in_(revisions))
        rows = await self._session.scalars(statement.order_by(PendingDocumentRow.revision))
        return [_pending(row) for row in rows]

    async def remove(self, applied: Sequence[PendingDocument]) -> None:
        """What a writer has locked is about to be replaced: that is left alone, so that nobody waits for anybody."""
        revisions = [pending.revision for pending in applied]
        free = (
            select(PendingDocumentRow.revision)
            .where(PendingDocumentRow.revision.in_(revisions))
            .with_for_update(skip_locked=True)
        )
        found = (await self._session.scalars(free)).all()
        await self._session.execute(delete(PendingDocumentRow).where(PendingDocumentRow.revision.in_(found)))

    async def renew(self, pending: PendingDocument, above: int) -> None:
        """The counter is behind the server's revisions after the database was restored from a backup."""
        gone = await self._session.execute(
            delete(PendingDocumentRow)
            .where(PendingDocumentRow.revision == pending.revision)
            .returning(PendingDocumentRow.body)
        )
        found = gone.one_or_none()
        if found is None:
            return
        await self._count_from(above)
        await self._replace([(pending.collection, pending.document_id, pending.project_id, found.body)])

    async def count(self) -> int:
        """How many wait."""
        return await self._session.scalar(select(func.count()).select_from(PendingDocumentRow)) or 0

    async def layout(self) -> int:
        """Of the document server that was prepared for this database; 0 while documents are kept in the database."""
        return (await self._session.scalars(select(StoreIdentity.documents_layout))).one()

    async def move_in(self, layout: int) -> int:
        """Have the documents of the database applied on the server from now on; how many there were."""
        await self._session.execute(text(MOVE))
        moved = await self._session.execute(text("DELETE FROM documents RETURNING id"))
        await self._session.execute(update(StoreIdentity).values(documents_layout=layout))
        return len(moved.all())

    async def _replace(self, writes: Sequence[tuple[str, UUID, UUID, str | None]]) -> None:
        ids: defaultdict[str, list[UUID]] = defaultdict(list)
        for collection, document_id, _, _ in writes:
            ids[collection].append(document_id)
        for collection, document_ids in ids.items():
            await self._session.execute(
                delete(PendingDocumentRow).where(
                    PendingDocumentRow.collection == collection, PendingDocumentRow.document_id.in_(document_ids)
                )
            )
        names = ("collection", "document_id", "project_id", "body")
        await self._session.execute(
            insert(PendingDocumentRow), [dict(zip(names, write, strict=True)) for write in writes]
        )

    async def _count_from(self, revision: int) -> None:
        if self._session.get_bind().dialect.name == "sqlite":
            statement = "UPDATE sqlite_sequence SET seq = max(seq, :least) WHERE name = :name"
            values = {"least": revision, "name": PendingDocumentRow.__tablename__}
            await self._session.execute(text(statement), values)
            return
        sequence = func.pg_get_serial_sequence(PendingDocumentRow.__tablename__, "revision")
        await self._session.execute(select(func.setval(sequence, func.greatest(revision, func.nextval(sequence)))))


def _as_text(body: Mapping[str, Any]) -> str:
    return json.dumps(for_json(body), ensure_ascii=False, allow_nan=False)


def _pending(row: PendingDocumentRow) -> PendingDocument:
    body = None if row.body is None else from_json(json.loads(row.body))
    return PendingDocument(row.revision, row.collection, row.document_id, row.project_id, body)
