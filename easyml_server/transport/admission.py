"""Admits calls by class, fair per user: who waits too long is told to come back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from easyml_server.domain.errors import LimitReached, Reason
from easyml_server.transport.methods import CallClass

RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ClassLimit:
    """Calls of a class at once: in all, and of one user."""

    total: int
    per_user: int
    setting: str


class Admission:
    """Counts the calls that are being answered."""

    def __init__(self, limits: dict[CallClass, ClassLimit], wait_seconds: float) -> None:
        self._limits = limits
        self._wait_seconds = wait_seconds
        self._total: Counter[CallClass] = Counter()
        self._of_user: Counter[tuple[CallClass, str]] = Counter()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def admit(self, call_class: CallClass, user: str) -> AsyncIterator[None]:
        """Hold a place while a call is answered; waits a moment for one."""
        limit = self._limits[call_class]
        key = (call_class, user)
        if not self._has_room(limit, call_class, key):
            await self._wait(limit, call_class, key)
        self._total[call_class] += 1
        self._of_user[key] += 1
        try:
            yield
        finally:
            self._total[call_class] -= 1
            self._of_user[key] -= 1
            if not self._of_user[key]:
                del self._of_user[key]
            self._freed.set()

    @property
    def busy(self) -> int:
        """Calls that are being answered now."""
        return self._total.total()

    async def idle(self) -> None:
        """Wait until no call is being answered."""
        while self.busy:
            await self._next_freed()

    async def _next_freed(self) -> None:
        """Until a place is given back, for all who wait."""
        self._freed.clear()
        await self._freed.wait()

    def _has_room(self, limit: ClassLimit, call_class: CallClass, key: tuple[CallClass, str]) -> bool:
        return self._total[call_class] < limit.total and self._of_user[key] < limit.per_user

    async def _wait(self, limit: ClassLimit, call_class: CallClass, key: tuple[CallClass, str]) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds):
                while not self._has_room(limit, call_class, key):
                    await self._next_freed()
        except TimeoutError as error:
            mine = self._of_user[key] >= limit.per_user < limit.total
            setting = f"{limit.setting}_PER_USER" if mine else limit.setting
            maximum = limit.per_user if mine else limit.total
            raise LimitReached(
                f"{maximum} calls of this kind are being answered ({setting}); try again in a moment.",
                Reason.OVERLOADED,
                retry_after=RETRY_SECONDS,
                metadata={"limit": setting, "maximum": str(maximum)},
            ) from error
