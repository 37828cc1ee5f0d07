"""Works off intents: what commits with a row and is done outside afterwards, at least once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta

import structlog

from easyml_server.domain.errors import EasyMLError, NotFound
from easyml_server.ports.store import Intent, Store

POLL_SECONDS = 5.0
FIRST_RETRY_SECONDS = 2.0
MAX_RETRY_SECONDS = 300.0
BATCH = 20

Handler = Callable[[Intent], Awaitable[None]]

log = structlog.get_logger(__name__)


class OutboxWorker:
    """Does intents of some kinds, one at a time in their order; a part that is away delays its own worker only.

    A handler takes the intent off with what it writes (`done`). Raises it NotFound, what the intent was about is gone.
    """

    def __init__(self, store: Store, handlers: Mapping[str, Handler], clock: Callable[[], datetime]) -> None:
        self._store = store
        self._handlers = handlers
        self._clock = clock
        self._wanted = asyncio.Event()

    def wake(self) -> None:
        """An intent was committed."""
        self._wanted.set()

    async def run(self) -> None:
        """Work off intents until cancelled."""
        while True:
            self._wanted.clear()
            try:
                await self.work_off()
            except EasyMLError as error:
                log.warning("outbox_unreadable", error=error.message)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wanted.wait()

    async def work_off(self) -> None:
        """Do everything that is due now."""
        while True:
            async with self._store.read() as work:
                intents = await work.outbox.due(tuple(self._handlers), self._clock(), BATCH)
            if not intents:
                return
            for intent in intents:
                await self._do(intent)

    async def _do(self, intent: Intent) -> None:
        try:
            await self._handlers[intent.kind](intent)
        except NotFound:
            await take_off(self._store, intent)
        except Exception as error:  # whatever the part fails with, the intent stays
            delay = min(FIRST_RETRY_SECONDS * 2**intent.attempts, MAX_RETRY_SECONDS)
            log.warning(
                "intent_waits", kind=intent.kind, subject=str(intent.subject_id), retry_seconds=delay, error=str(error)
            )
            async with self._store.begin() as work:
                await work.outbox.retry(intent, self._clock() + timedelta(seconds=delay))
                await work.commit()


async def take_off(store: Store, intent: Intent) -> None:
    """It need not be done again."""
    async with store.begin() as work:
        await work.outbox.done(intent)
        await work.commit()
