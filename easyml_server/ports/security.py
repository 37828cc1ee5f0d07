"""Passwords and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

IDENTITY_LIFETIME: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What an access token says."""

    user_id: UUID
    session_id: UUID
    expire_time: datetime


class PasswordHasher(Protocol):
    """Hashes passwords off the event loop, a few at a time."""

    async def hash(self, password: str) -> str:
        """A salted hash with its parameters."""
        ...

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password is right; takes as long when there is no hash (an unknown account)."""
        ...

    def is_common(self, password: str) -> bool:
        """Whether the password is one that attackers try first."""
        ...


class TokenSigner(Protocol):
    """Signs and reads short tokens."""

    def sign_access(self, claims: AccessClaims, now: datetime) -> str:
        """An access token for this server."""
        ...

    def read_access(self, token: str) -> AccessClaims:
        """Raises NotSignedIn (INVALID_TOKEN, TOKEN_EXPIRED)."""
        ...

    def sign_identity(self, user_id: UUID, audience: str, now: datetime) -> str:
        """A token that one model server accepts for IDENTITY_LIFETIME, in the name of a user."""
        ...
