"""argon2id, in threads: hashing is slow by design, and the event loop must not wait for it."""

from __future__ import annotations

import asyncio
from importlib import resources

import argon2

HASH_THREADS = 4
"""Hashes at once; each takes 19 MiB (EASYML_PASSWORD_HASHES)."""


class Argon2Hasher:
    """Fulfils `ports.security.PasswordHasher`."""

    def __init__(self, at_once: int = HASH_THREADS) -> None:
        # The second choice of RFC 9106 scaled to OWASP's minimum: 19 MiB, two passes, one lane.
        self._hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._slots = asyncio.Semaphore(at_once)
        self._nobody = self._hasher.hash("nobody has this password")
        self._common: frozenset[str] | None = None

    async def hash(self, password: str) -> str:
        """A salted hash with its parameters."""
        async with self._slots:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """An unknown account is verified against a hash nobody knows, so that it takes as long."""
        async with self._slots:
            right = await asyncio.to_thread(self._verify, password_hash or self._nobody, password)
        return right and password_hash is not None

    def is_common(self, password: str) -> bool:
        """Compared without regard to case."""
        if self._common is None:
            text = resources.files(__package__).joinpath("common_passwords.txt").read_text()
            self._common = frozenset(text.split("\n"))
        return password.casefold() in self._common

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
