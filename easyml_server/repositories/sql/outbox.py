"""Intents as rows: what is to be done outside commits together with what it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Select, String, delete, exists, insert, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, aliased, mapped_column

from easyml_server.ports.store import LONGEST_WAIT, Intent
from easyml_server.repositories.sql.base import Base, UtcDateTime


class OutboxIntent(Base):
    """Something to be done at least once, in order of its id."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(64), index=True)
    subject_id: Mapped[UUID] = mapped_column(index=True)
    attempts: Mapped[int]
    due_time: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class SqlOutbox:
    """Fulfils `ports.store.Outbox`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, kind: str, subject_id: UUID, time: datetime) -> None:
        """Due at once."""
        self._session.add(OutboxIntent(kind=kind, subject_id=subject_id, attempts=0, due_time=time))
        await self._session.flush()

    async def add_all(self, kind: str, subjects: Select[UUID], time: datetime) -> None:
        """The same for each subject, in their order."""
        (subject,) = subjects.selected_columns
        rows = subjects.with_only_columns(literal(kind), subject, literal(0), literal(time, UtcDateTime()))
        await self._session.execute(
            insert(OutboxIntent).from_select(["kind", "subject_id", "attempts", "due_time"], rows)
        )

    async def due(self, kinds: Sequence[str], time: datetime, limit: int) -> Sequence[Intent]:
        """The oldest that are due."""
        statement = (
            select(OutboxIntent).where(OutboxIntent.kind.in_(kinds), _due(time)).order_by(OutboxIntent.id).limit(limit)
        )
        rows = await self._session.scalars(statement)
        return [Intent(row.id, row.kind, row.subject_id, row.attempts) for row in rows]

    async def claim(self, kinds: Sequence[str], time: datetime, until: datetime) -> Intent | None:
        """Two at once take two, of two subjects."""
        earlier = aliased(OutboxIntent)
        waits = exists().where(earlier.subject_id == OutboxIntent.subject_id, earlier.id < OutboxIntent.id)
        statement = (
            select(OutboxIntent)
            .where(OutboxIntent.kind.in_(kinds), _due(time), ~waits)
            .order_by(OutboxIntent.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        row = await self._session.scalar(statement)
        if row is None:
            return None
        row.due_time = until
        await self._session.flush()
        return Intent(row.id, row.kind, row.subject_id, row.attempts)

    async def prolong(self, intent: Intent, until: datetime) -> None:
        """It is not due before this time."""
        await self._session.execute(update(OutboxIntent).where(OutboxIntent.id == intent.id).values(due_time=until))

    async def failing(self, kinds: Sequence[str]) -> bool:
        """The first is enough."""
        statement = (
            select(OutboxIntent.id)
            .where(OutboxIntent.kind.in_(kinds), OutboxIntent.attempts > 0)
            .order_by(OutboxIntent.id)
            .limit(1)
        )
        return await self._session.scalar(statement) is not None

    async def release(self, kinds: Sequence[str], time: datetime) -> None:
        """Due now, what waited for a claim or a pause to end."""
        await self._session.execute(
            update(OutboxIntent).where(OutboxIntent.kind.in_(kinds), OutboxIntent.due_time > time).values(due_time=time)
        )

    async def done(self, intent: Intent) -> None:
        """It need not be done again."""
        await self._session.execute(delete(OutboxIntent).where(OutboxIntent.id == intent.id))

    async def retry(self, intent: Intent, time: datetime) -> None:
        """It is done again at this time."""
        await self._session.execute(
            update(OutboxIntent)
            .where(OutboxIntent.id == intent.id)
            .values(attempts=OutboxIntent.attempts + 1, due_time=time)
        )


def _due(time: datetime) -> ColumnElement[bool]:
    return or_(OutboxIntent.due_time <= time, OutboxIntent.due_time > time + LONGEST_WAIT)
