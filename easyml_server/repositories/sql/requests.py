"""Requests that may be repeated, as rows."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, String, delete
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from easyml_server.domain.errors import AlreadyExists, Reason
from easyml_server.domain.requests import RequestKey
from easyml_server.domain.users import Caller
from easyml_server.repositories.sql.base import Base, UtcDateTime, one_at_a_time


class Request(Base):
    """What a request made."""

    __tablename__ = "requests"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    request_id: Mapped[UUID] = mapped_column(primary_key=True)
    method: Mapped[str] = mapped_column(String(64))
    fingerprint: Mapped[str] = mapped_column(String(64))
    resource_id: Mapped[UUID]
    create_time: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class SqlRequestRepository:
    """Fulfils `ports.store.RequestRepository`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find(self, caller: Caller, key: RequestKey, since: datetime) -> UUID | None:
        """Older ones are forgotten. Of two with one id the second waits here for what the first makes."""
        await one_at_a_time(self._session, f"request {caller.user_id} {key.request_id}")
        row = await self._session.get(Request, (caller.user_id, key.request_id))
        if row is None or row.create_time < since:
            return None
        if (row.method, row.fingerprint) != (key.method, key.fingerprint):
            raise AlreadyExists(
                "This request_id was used for another request; make a new one.", Reason.REQUEST_ID_REUSED
            )
        return row.resource_id

    async def add(self, caller: Caller, key: RequestKey, resource_id: UUID, time: datetime) -> None:
        """Remember what the request made; a forgotten one of the same id is replaced."""
        await self._session.merge(
            Request(
                user_id=caller.user_id,
                request_id=key.request_id,
                method=key.method,
                fingerprint=key.fingerprint,
                resource_id=resource_id,
                create_time=time,
            )
        )
        await self._session.flush()

    async def forget(self, before: datetime) -> None:
        """Drop what is too old to be repeated."""
        await self._session.execute(delete(Request).where(Request.create_time < before))
