"""Users, their sessions and API keys, and the caller of a request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from uuid import UUID


class Permission(IntEnum):
    """The least a caller needs; ordered, so that more includes less. Names as in the contract."""

    PUBLIC = 1
    SIGNED_IN = 2
    VIEWER = 3
    EDITOR = 4
    OWNER = 5
    ADMINISTRATOR = 6


@dataclass(frozen=True, slots=True)
class User:
    """A person, or the local owner of an embedded server."""

    id: UUID
    email: str
    display_name: str
    administrator: bool
    password_hash: str | None
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Scope:
    """Limits of an API key: one project or all (None), and the highest permission it carries."""

    project_id: UUID | None = None
    permission: Permission = Permission.OWNER

    def covers(self, other: Scope) -> bool:
        """Whether nothing in `other` goes beyond this scope."""
        same_place = self.project_id is None or self.project_id == other.project_id
        return same_place and self.permission >= other.permission


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A program's key; only the SHA-256 of the secret is kept."""

    id: UUID
    user_id: UUID
    name: str
    scope: Scope
    prefix: str
    secret_sha256: str
    create_time: datetime
    expire_time: datetime
    revoke_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in session; `refresh_sha256` is of the one refresh token that is valid now."""

    id: UUID
    user_id: UUID
    refresh_sha256: str
    create_time: datetime
    last_used_time: datetime
    expire_time: datetime
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class SessionTokens:
    """What a client gets of a session. Secrets: never logged, never stored in clear."""

    access_token: str
    access_expire_time: datetime
    refresh_token: str
    session_expire_time: datetime


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call: the user, through a session or an API key, within a scope.

    `needs` is what the called method asks for (its permission option); queries and use cases hold the role against it.
    """

    user_id: UUID
    administrator: bool = False
    scope: Scope = Scope()
    needs: Permission = Permission.SIGNED_IN
    session_id: UUID | None = None
    api_key_id: UUID | None = None
