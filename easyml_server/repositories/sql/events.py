"""Events of trainings as rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, cast
from uuid import UUID

from pydantic import Field, TypeAdapter
from sqlalchemy import BigInteger, ForeignKey, Table, Text, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from easyml_server.domain.events import EventBody, TrainingEvent
from easyml_server.repositories.sql.base import Base, UtcDateTime, insert_missing

_EVENT: TypeAdapter[EventBody] = TypeAdapter(Annotated[EventBody, Field(discriminator="type")])


class TrainingEventRow(Base):
    """One event of a training; the primary key forbids repeats."""

    __tablename__ = "training_events"

    experiment_id: Mapped[UUID] = mapped_column(ForeignKey("ml_experiments.id", ondelete="CASCADE"), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    event_time: Mapped[datetime] = mapped_column(UtcDateTime)
    body: Mapped[str] = mapped_column(Text)


async def insert_events(session: AsyncSession, events: Sequence[TrainingEvent]) -> None:
    """A group whose commit was not answered comes again: one number has one log, so what is there is the same."""
    values = [
        {
            "experiment_id": event.experiment_id,
            "sequence": event.sequence,
            "event_time": event.event_time,
            "body": _EVENT.dump_json(event.body).decode(),
        }
        for event in events
    ]
    await session.execute(insert_missing(session, cast(Table, TrainingEventRow.__table__)), values)


async def select_events(session: AsyncSession, experiment_id: UUID, after: int, limit: int) -> Sequence[TrainingEvent]:
    """Of one training, oldest first."""
    statement = (
        select(TrainingEventRow)
        .where(TrainingEventRow.experiment_id == experiment_id, TrainingEventRow.sequence > after)
        .order_by(TrainingEventRow.sequence)
        .limit(limit)
    )
    rows = await session.scalars(statement)
    return [
        TrainingEvent(row.experiment_id, row.sequence, row.event_time, _EVENT.validate_json(row.body)) for row in rows
    ]
