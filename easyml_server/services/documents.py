"""Applies documents that were committed with their rows to the server that keeps them; while that is away, later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress

import structlog

from easyml_server.domain.errors import EasyMLError
from easyml_server.domain.faults import fault_point
from easyml_server.ports.documents import DocumentServer, PendingDocument
from easyml_server.ports.store import Store

POLL_SECONDS = 5.0
"""How often is looked for what another server left behind."""
FIRST_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 5.0
GROUP_SECONDS = 0.05
"""How long writes wait for company: the session of a training that runs changes many times a second."""

log = structlog.get_logger(__name__)


class DocumentDispatcher:
    """Works off the documents that wait. Several servers may do so at once: what one has applied, the others meet."""

    def __init__(self, store: Store, server: DocumentServer) -> None:
        self._store = store
        self._server = server
        self._wanted = asyncio.Event()

    def wake(self) -> None:
        """A document was committed."""
        self._wanted.set()

    async def run(self) -> None:
        """Apply until cancelled."""
        retry = FIRST_RETRY_SECONDS
        while True:
            self._wanted.clear()
            try:
                await self.work_off()
            except Exception as error:  # whatever it fails with, what waits stays
                _tell(error)
                await _at_most(retry, self._back())
                retry = min(2 * retry, MAX_RETRY_SECONDS)
            else:
                retry = FIRST_RETRY_SECONDS
                await _at_most(POLL_SECONDS, self._wanted.wait())
                await asyncio.sleep(GROUP_SECONDS)

    async def work_off(self) -> None:
        """Go once through all that waits; what the server refused is left for the next time."""
        after = 0
        while True:
            async with self._store.read() as work:
                pending = await work.pending.page(after)
            if not pending:
                return
            await self._apply(pending)
            after = pending[-1].revision

    async def _apply(self, pending: Sequence[PendingDocument]) -> None:
        fault_point("documents.apply")
        applied = await self._server.apply(pending)
        fault_point("documents.applied")
        async with self._store.begin() as work:
            await work.pending.remove(applied.done)
            for each, revision in applied.overtaken:
                await work.pending.renew(each, revision)
            await work.commit()

    async def _back(self) -> None:
        """The server was away, and answers again."""
        was_away = False
        async for available in self._server.availability():
            if available and was_away:
                return
            was_away = not available


def _tell(error: Exception) -> None:
    if isinstance(error, EasyMLError):
        log.info("documents_wait", error=error.message)
    else:
        log.error("documents_not_applied", exc_info=error)


async def _at_most(seconds: float, event: Awaitable[object]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event
