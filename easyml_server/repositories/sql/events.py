"""Events of trainings as rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, cast
from uuid import UUID

from pydantic import Field, TypeAdapter
from sqlalchemy import ARRAY, BigInteger, DateTime, ForeignKey, Table, Text, Uuid, bindparam, select, text
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


# A column is one value: a row by itself costs SQLAlchemy, the driver and PostgreSQL several times as much.
_INSERT_COLUMNS = text(
    "INSERT INTO training_events (experiment_id, sequence, event_time, body) "
    "SELECT * FROM unnest(:experiment_id, :sequence, :event_time, :body) ON CONFLICT DO NOTHING"
).bindparams(
    bindparam("experiment_id", type_=ARRAY(Uuid)),
    bindparam("sequence", type_=ARRAY(BigInteger)),
    bindparam("event_time", type_=ARRAY(DateTime(timezone=True))),
    bindparam("body", type_=ARRAY(Text)),
)


async def insert_events(session: AsyncSession, events: Sequence[TrainingEvent]) -> None:
    """A group whose commit was not answered comes again: one number has one log, so what is there is the same."""
    columns = {
        "experiment_id": [event.experiment_id for event in events],
        "sequence": [event.sequence for event in events],
        "event_time": [event.event_time for event in events],
        "body": [_EVENT.dump_json(event.body).decode() for event in events],
    }
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(_INSERT_COLUMNS, columns)
        return
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    await session.execute(insert_missing(session, cast(Table, TrainingEventRow.__table__)), rows)


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
