"""Tokens in the name of callers, for one model server each."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from easyml_server.domain.users import Caller
from easyml_server.ports.security import TokenSigner

# They are valid for a few minutes; one that is passed on must outlive the start of its call.
RENEW_AFTER: Final = timedelta(minutes=2)
CACHED_TOKENS: Final = 10_000
CALL_ID: Final = "x-request-id"


class Identities:
    """Signs tokens and keeps them while they are fresh: a signature takes as long as a small prediction."""

    def __init__(self, signer: TokenSigner, clock: Callable[[], datetime]) -> None:
        self._signer = signer
        self._clock = clock
        self._tokens: dict[tuple[UUID, str], tuple[datetime, str]] = {}

    def metadata(self, caller: Caller, audience: UUID) -> tuple[tuple[str, str], ...]:
        """For a call to the model server of this audience."""
        authorization = ("authorization", f"Bearer {self.token(caller.user_id, str(audience))}")
        call_id = structlog.contextvars.get_contextvars().get("call_id")
        return (authorization, (CALL_ID, call_id)) if call_id else (authorization,)

    def token(self, user_id: UUID, audience: str) -> str:
        """A token that the model server of this audience accepts."""
        now = self._clock()
        kept = self._tokens.get((user_id, audience))
        # A clock that was set back must not keep a token for longer.
        if kept is not None and timedelta(0) <= now - kept[0] < RENEW_AFTER:
            return kept[1]
        if len(self._tokens) >= CACHED_TOKENS:
            self._tokens.clear()
        token = self._signer.sign_identity(user_id, audience, now)
        self._tokens[user_id, audience] = (now, token)
        return token
