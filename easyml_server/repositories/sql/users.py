"""Accounts, sessions and API keys as rows."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from easyml_server.domain import users as domain
from easyml_server.domain.errors import NotFound
from easyml_server.domain.pages import Page, PageRequest
from easyml_server.repositories.sql.base import Base, UtcDateTime, one_of, ordered, paged
from easyml_server.repositories.sql.errors import named


class User(Base):
    """An account."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    display_name: Mapped[str] = mapped_column(String(255))
    administrator: Mapped[bool]
    password_hash: Mapped[str | None] = mapped_column(String(255))
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    update_time: Mapped[datetime] = mapped_column(UtcDateTime)


class Session(Base):
    """A signed-in session and its valid refresh token."""

    __tablename__ = "sessions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    refresh_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    last_used_time: Mapped[datetime] = mapped_column(UtcDateTime)
    expire_time: Mapped[datetime] = mapped_column(UtcDateTime)
    end_time: Mapped[datetime | None] = mapped_column(UtcDateTime)


class UsedRefreshToken(Base):
    """A refresh token that was exchanged: seen again, its session ends."""

    __tablename__ = "used_refresh_tokens"

    refresh_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), index=True)


class ApiKey(Base):
    """A program's key."""

    __tablename__ = "api_keys"
    __table_args__ = (
        Index("ix_api_keys_user_id_create_time", "user_id", "create_time", "id"),
        CheckConstraint(
            one_of("scope_permission", [each.name.lower() for each in domain.Permission]), name="scope_permission"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(255))
    scope_project_id: Mapped[UUID | None]
    scope_permission: Mapped[str] = mapped_column(String(16))
    prefix: Mapped[str] = mapped_column(String(16))
    secret_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    expire_time: Mapped[datetime] = mapped_column(UtcDateTime)
    revoke_time: Mapped[datetime | None] = mapped_column(UtcDateTime)


def _user(row: User) -> domain.User:
    return domain.User(
        row.id, row.email, row.display_name, row.administrator, row.password_hash, row.create_time, row.update_time
    )


def _session(row: Session) -> domain.Session:
    return domain.Session(
        row.id, row.user_id, row.refresh_sha256, row.create_time, row.last_used_time, row.expire_time, row.end_time
    )


def _api_key(row: ApiKey) -> domain.ApiKey:
    return domain.ApiKey(
        id=row.id,
        user_id=row.user_id,
        name=row.name,
        scope=domain.Scope(row.scope_project_id, domain.Permission[row.scope_permission.upper()]),
        prefix=row.prefix,
        secret_sha256=row.secret_sha256,
        create_time=row.create_time,
        expire_time=row.expire_time,
        revoke_time=row.revoke_time,
    )


class SqlUserRepository:
    """Fulfils `ports.store.UserRepository`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, user: domain.User) -> None:
        """Store an account."""
        self._session.add(
            User(
                id=user.id,
                email=user.email,
                display_name=user.display_name,
                administrator=user.administrator,
                password_hash=user.password_hash,
                create_time=user.create_time,
                update_time=user.update_time,
            )
        )
        with named("account", user.email):
            await self._session.flush()

    async def get(self, user_id: UUID) -> domain.User:
        """The account of that id."""
        row = await self._session.get(User, user_id)
        if row is None:
            raise NotFound.of("user", user_id)
        return _user(row)

    async def find_by_email(self, email: str) -> domain.User | None:
        """The account of that address."""
        row = await self._session.scalar(select(User).where(User.email == email))
        return None if row is None else _user(row)

    async def add_session(self, session: domain.Session) -> None:
        """Store a new session."""
        self._session.add(
            Session(
                id=session.id,
                user_id=session.user_id,
                refresh_sha256=session.refresh_sha256,
                create_time=session.create_time,
                last_used_time=session.last_used_time,
                expire_time=session.expire_time,
                end_time=None,
            )
        )
        await self._session.flush()

    async def find_session(self, session_id: UUID) -> domain.Session | None:
        """The session of that id."""
        row = await self._session.get(Session, session_id)
        return None if row is None else _session(row)

    async def find_session_by_refresh(self, refresh_sha256: str) -> tuple[domain.Session, bool] | None:
        """By the valid token, or by one that was used before."""
        row = await self._session.scalar(select(Session).where(Session.refresh_sha256 == refresh_sha256))
        if row is not None:
            return _session(row), True
        used = await self._session.get(UsedRefreshToken, refresh_sha256)
        if used is None:
            return None
        row = await self._session.get_one(Session, used.session_id)
        return _session(row), False

    async def rotate(self, session: domain.Session, used_sha256: str) -> bool:
        """Compare and set, so that of two refreshes with one token one wins."""
        changed = await self._session.execute(
            update(Session)
            .where(Session.id == session.id, Session.refresh_sha256 == used_sha256, Session.end_time.is_(None))
            .values(refresh_sha256=session.refresh_sha256, last_used_time=session.last_used_time)
        )
        if changed.rowcount != 1:  # type: ignore[attr-defined]  # execute(update) gives a CursorResult
            return False
        self._session.add(UsedRefreshToken(refresh_sha256=used_sha256, session_id=session.id))
        await self._session.flush()
        return True

    async def end_sessions(self, user_id: UUID, time: datetime, session_id: UUID | None = None) -> int:
        """Sessions that were over already are not counted."""
        statement = update(Session).where(Session.user_id == user_id, Session.end_time.is_(None))
        if session_id is not None:
            statement = statement.where(Session.id == session_id)
        ended = await self._session.execute(statement.values(end_time=time))
        return int(ended.rowcount)  # type: ignore[attr-defined]  # execute(update) gives a CursorResult

    async def trim_sessions(self, user_id: UUID, keep: int, time: datetime) -> None:
        """The most recently used stay."""
        kept = (
            select(Session.id)
            .where(Session.user_id == user_id, Session.end_time.is_(None))
            .order_by(Session.last_used_time.desc())
            .limit(keep)
        )
        await self._session.execute(
            update(Session)
            .where(Session.user_id == user_id, Session.end_time.is_(None), Session.id.not_in(kept))
            .values(end_time=time)
        )

    async def add_api_key(self, key: domain.ApiKey) -> None:
        """Store a key."""
        self._session.add(
            ApiKey(
                id=key.id,
                user_id=key.user_id,
                name=key.name,
                scope_project_id=key.scope.project_id,
                scope_permission=key.scope.permission.name.lower(),
                prefix=key.prefix,
                secret_sha256=key.secret_sha256,
                create_time=key.create_time,
                expire_time=key.expire_time,
                revoke_time=None,
            )
        )
        await self._session.flush()

    async def get_api_key(self, key_id: UUID, user_id: UUID) -> domain.ApiKey:
        """The user's key of that id."""
        row = await self._session.scalar(select(ApiKey).where(ApiKey.id == key_id, ApiKey.user_id == user_id))
        if row is None:
            raise NotFound.of("API key", key_id)
        return _api_key(row)

    async def find_api_key(self, secret_sha256: str) -> domain.ApiKey | None:
        """The key whose secret has this hash."""
        row = await self._session.scalar(select(ApiKey).where(ApiKey.secret_sha256 == secret_sha256))
        return None if row is None else _api_key(row)

    async def list_api_keys(self, user_id: UUID, page: PageRequest) -> Page[domain.ApiKey]:
        """The user's keys."""
        statement = ordered(select(ApiKey).where(ApiKey.user_id == user_id), page, ApiKey.create_time, ApiKey.id)
        rows = (await self._session.scalars(statement)).all()
        return paged(rows, page, _api_key, lambda row: (row.create_time.isoformat(), str(row.id)))

    async def revoke_api_key(self, key_id: UUID, time: datetime) -> None:
        """The first revocation counts."""
        await self._session.execute(
            update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoke_time.is_(None)).values(revoke_time=time)
        )
