"""Who may ask this model server: tokens signed by EasyML for its audience, checked with the public key set."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import jwt

from easyml_server.domain.errors import NotSignedIn, Reason

ALGORITHM: Final = "EdDSA"
TOKEN_TYPE: Final = "identity+jwt"  # noqa: S105 (a kind of token, not one)
LEEWAY_SECONDS: Final = 30
BEARER: Final = "bearer "
# Unknown keys are looked for in the file, but not as often as somebody invents them.
REREAD_SECONDS: Final = 1.0
CACHED_TOKENS: Final = 10_000


class TokenCheck:
    """Checks tokens; one that was right is remembered until it expires, since that takes a tenth of the time."""

    def __init__(self, jwks: Path, audience: str, clock: Callable[[], float] = time.time) -> None:
        self._jwks = jwks
        self._audience = audience
        self._clock = clock
        self._keys = _read_keys(jwks)
        self._read_at = clock()
        self._expiry: dict[str, float] = {}

    def check(self, authorization: str) -> None:
        """Raise NotSignedIn unless the metadata holds a token for this server."""
        expires = self._expiry.get(authorization)
        if expires is None:
            expires = self._verify(authorization)
            if len(self._expiry) >= CACHED_TOKENS:
                self._expiry.clear()
            self._expiry[authorization] = expires
        if expires <= self._clock():
            raise _expired()

    def _verify(self, authorization: str) -> float:
        """When the token expires, leeway included."""
        if not authorization.lower().startswith(BEARER):
            raise NotSignedIn("Send the metadata `authorization: Bearer <token>` with a token for this deployment.")
        token = authorization[len(BEARER) :].strip()
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != TOKEN_TYPE:
                raise _invalid()
            payload = jwt.decode(
                token,
                self._key(header.get("kid", "")),
                algorithms=[ALGORITHM],
                audience=self._audience,
                # The clock is ours; the library would take its own.
                options={"require": ["exp", "sub", "aud"], "verify_exp": False, "verify_iat": False},
            )
            return float(payload["exp"]) + LEEWAY_SECONDS
        except (jwt.InvalidTokenError, ValueError, TypeError) as error:
            raise _invalid() from error

    def _key(self, kid: str) -> Any:
        if kid not in self._keys and self._clock() - self._read_at >= REREAD_SECONDS:
            self._read_at = self._clock()
            # A file that is just being replaced must not cost the keys that are known.
            with suppress(OSError, ValueError, jwt.PyJWTError):
                self._keys = _read_keys(self._jwks)
        if kid not in self._keys:
            raise _invalid()
        return self._keys[kid]


def _read_keys(path: Path) -> dict[str, Any]:
    """Public Ed25519 keys by their `kid`."""
    keys = jwt.PyJWKSet.from_dict(json.loads(path.read_bytes())).keys
    return {key.key_id: key.key for key in keys if key.key_id and key.algorithm_name == ALGORITHM}


def _invalid() -> NotSignedIn:
    return NotSignedIn("This token is not valid here; get one for this deployment.", Reason.INVALID_TOKEN)


def _expired() -> NotSignedIn:
    return NotSignedIn("This token has expired; get a new one.", Reason.TOKEN_EXPIRED)
