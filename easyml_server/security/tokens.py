"""Tokens: JWTs signed with Ed25519 (PyJWT), and random secrets of which only a hash is stored."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from easyml_server.domain.errors import NotSignedIn, Reason
from easyml_server.ports.security import IDENTITY_LIFETIME, AccessClaims

ALGORITHM = "EdDSA"
AUDIENCE = "easyml"
ACCESS_TYPE = "at+jwt"
IDENTITY_TYPE = "identity+jwt"
LEEWAY = timedelta(seconds=30)
SECRET_PREFIX = "eml_"  # noqa: S105 (a prefix to recognise secrets by)
SECRET_BYTES = 32


def new_secret() -> str:
    """256 random bits, recognisable by their prefix."""
    return SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def secret_hash(secret: str) -> str:
    """What is stored of a secret: SHA-256, which is enough for 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Ed25519Signer:
    """Fulfils `ports.security.TokenSigner` with one key pair from a folder (mode 0700), made at first use.

    The folder holds `signing.pem` (0600) and `jwks.json`, the public key set that model servers read. Servers that
    share a database also share the private key, in a file of its own: what one signs, all of them take.
    """

    def __init__(self, folder: Path, key_file: Path | None = None) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._key = _load_or_make_key(folder / "signing.pem") if key_file is None else load_key(key_file)
        public = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self._kid = hashlib.sha256(public).hexdigest()[:16]
        jwk: dict[str, Any] = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(self._key.public_key()))
        self.jwks_path = folder / "jwks.json"
        self.jwks_path.write_text(json.dumps({"keys": [{**jwk, "kid": self._kid, "alg": ALGORITHM, "use": "sig"}]}))

    def sign_access(self, claims: AccessClaims, now: datetime) -> str:
        """An access token for this server."""
        payload = {
            "sub": str(claims.user_id),
            "sid": str(claims.session_id),
            "aud": AUDIENCE,
            "iat": now,
            "exp": claims.expire_time,
        }
        return self._sign(payload, ACCESS_TYPE)

    def sign_identity(self, user_id: UUID, audience: str, now: datetime) -> str:
        """Valid for a few minutes at one model server."""
        payload = {"sub": str(user_id), "aud": audience, "iat": now, "exp": now + IDENTITY_LIFETIME}
        return self._sign(payload, IDENTITY_TYPE)

    def read_access(self, token: str) -> AccessClaims:
        """Algorithm, key, type, audience and expiry must all be right."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != ACCESS_TYPE or header.get("kid") != self._kid:
                raise NotSignedIn("This token is not valid here; sign in again.", Reason.INVALID_TOKEN)
            payload = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                leeway=LEEWAY,
                # A clock that was set back must not sign everybody out: what we signed, we signed.
                options={"require": ["exp", "sub", "sid", "aud"], "verify_iat": False},
            )
            expire_time = datetime.fromtimestamp(payload["exp"], UTC)
            return AccessClaims(UUID(payload["sub"]), UUID(payload["sid"]), expire_time)
        except jwt.ExpiredSignatureError as error:
            raise NotSignedIn("This token has expired; refresh it or sign in again.", Reason.TOKEN_EXPIRED) from error
        except (jwt.InvalidTokenError, ValueError) as error:
            raise NotSignedIn("This token is not valid here; sign in again.", Reason.INVALID_TOKEN) from error

    def _sign(self, payload: dict[str, Any], token_type: str) -> str:
        return jwt.encode(payload, self._key, ALGORITHM, headers={"kid": self._kid, "typ": token_type})


class WrongKeyError(Exception):
    """A file does not hold a key to sign with; the message is one line."""


def load_key(path: Path) -> Ed25519PrivateKey:
    """A key to sign with; WrongKeyError says what is wrong with the file."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise WrongKeyError(f"The key {path} cannot be read ({error.strerror}).") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise WrongKeyError(f"{path} holds no private key without a password, in PEM.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise WrongKeyError(f"{path} holds a key that is not Ed25519.")
    return key


def _load_or_make_key(path: Path) -> Ed25519PrivateKey:
    if path.exists():
        return load_key(path)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(path, pem)
    return key


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
