"""Attempts to sign in as rows, so that servers count them together."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import BigInteger, Index, Integer, String, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from easyml_server.repositories.sql.base import Base, UtcDateTime, one_at_a_time


class SignInAttempt(Base):
    """One attempt; whose it was is stored as a hash, since nobody needs to read it."""

    __tablename__ = "sign_in_attempts"
    __table_args__ = (Index("ix_sign_in_attempts_counted_attempt_time", "counted", "attempt_time"),)

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True
    )
    counted: Mapped[str] = mapped_column(String(64))
    attempt_time: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class SqlAttemptRepository:
    """Fulfils `ports.store.AttemptRepository`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def count(self, counted: str, most: int, within: timedelta, time: datetime) -> datetime | None:
        """Two at once are counted one after the other."""
        digest = sha256(counted.encode()).hexdigest()
        await one_at_a_time(self._session, digest)
        found = (
            await self._session.execute(
                select(func.count(), func.min(SignInAttempt.attempt_time)).where(
                    SignInAttempt.counted == digest,
                    SignInAttempt.attempt_time > time - within,
                    # A clock that was set back must not keep people out until it has caught up.
                    SignInAttempt.attempt_time < time + within,
                )
            )
        ).one()
        if found[0] >= most:
            oldest: datetime = found[1]
            return oldest
        self._session.add(SignInAttempt(counted=digest, attempt_time=time))
        await self._session.flush()
        return None

    async def forget(self, before: datetime) -> None:
        """Drop what no longer counts."""
        await self._session.execute(delete(SignInAttempt).where(SignInAttempt.attempt_time < before))
