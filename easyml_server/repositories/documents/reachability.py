"""Whether the document server answers. While it does not, calls are refused at once, and one probe waits for it.

Else each call would wait for its own time-out, inside a unit of work that others need.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog

from easyml_server.domain.errors import EasyMLError, Unavailable

PROBE_SECONDS = 1.0

log = structlog.get_logger(__name__)


def away() -> Unavailable:
    """What callers are told."""
    return Unavailable(
        "The document server cannot be reached just now; try again.",
        retry_after=PROBE_SECONDS,
        metadata={"part": "documents"},
    )


class Reachability:
    """Known from what became of the calls."""

    def __init__(self, verify: Callable[[], Awaitable[None]], probe_seconds: float = PROBE_SECONDS) -> None:
        """`verify` returns if the server answers as it should, and raises an EasyMLError otherwise."""
        self._verify = verify
        self._seconds = probe_seconds
        self._changed = asyncio.Event()
        self._probe: asyncio.Task[None] | None = None
        self.available = True

    def require(self) -> None:
        """Refuse calls while it is away."""
        if not self.available:
            raise away()

    def lost(self, why: str) -> None:
        """A call was not answered."""
        if self.available:
            log.warning("documents_away", error=why)
            self._tell(available=False)
            self._probe = asyncio.create_task(self._wait_for_it(), name="documents probe")

    async def availability(self) -> AsyncIterator[bool]:
        """Now, and whenever it changes."""
        while True:
            changed = self._changed
            yield self.available
            await changed.wait()

    async def close(self) -> None:
        """Wait no longer."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)

    async def _wait_for_it(self) -> None:
        said = ""
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self._verify()
            except EasyMLError as error:
                if error.message != said:
                    said = error.message
                    log.warning("documents_still_away", error=said)
                continue
            log.info("documents_back")
            self._tell(available=True)
            return

    def _tell(self, *, available: bool) -> None:
        self.available = available
        self._changed.set()
        self._changed = asyncio.Event()
