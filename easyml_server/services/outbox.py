"""Works off intents: what commits with a row and is done outside afterwards, at least once.

Of several servers the one that claims an intent does it. If it dies, its claim ends soon, and another does it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta

import structlog

from easyml_server.domain.errors import EasyMLError, NotFound
from easyml_server.ports.store import Intent, Store

POLL_SECONDS = 5.0
FIRST_RETRY_SECONDS = 2.0
MAX_RETRY_SECONDS = 60.0
CLAIM_SECONDS = 30.0
"""An intent that was not done, and not prolonged for this long, is somebody else's to do."""
PROLONG_SECONDS = 10.0

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
        self._changed = asyncio.Event()
        self._available = True

    async def availability(self) -> AsyncIterator[bool]:
        """Whether the part does what it is asked, now and whenever that changes; on whatever server it was tried."""
        while True:
            changed = self._changed
            yield self._available
            await changed.wait()

    def wake(self) -> None:
        """An intent was committed."""
        self._wanted.set()

    async def run(self) -> None:
        """Work off intents until cancelled."""
        while True:
            self._wanted.clear()
            try:
                await self.work_off()
                await self._look()
            except EasyMLError as error:
                log.warning("outbox_unreadable", error=error.message)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wanted.wait()

    async def recover(self) -> None:
        """At the start of the only server: nobody is at work on anything."""
        async with self._store.begin() as work:
            await work.outbox.release(tuple(self._handlers), self._clock())
            await work.commit()

    async def work_off(self) -> None:
        """Do everything that is due now."""
        while (intent := await self._claim()) is not None:
            await self._do(intent)

    async def _look(self) -> None:
        async with self._store.read() as work:
            self._tell(available=not await work.outbox.failing(tuple(self._handlers)))

    def _tell(self, *, available: bool) -> None:
        if available != self._available:
            self._available = available
            self._changed.set()
            self._changed = asyncio.Event()

    async def _claim(self) -> Intent | None:
        now, kinds = self._clock(), tuple(self._handlers)
        async with self._store.read() as work:
            # Mostly there is nothing to do, and nobody needs to wait for a look.
            if not await work.outbox.due(kinds, now, 1):
                return None
        async with self._store.begin() as work:
            intent = await work.outbox.claim(kinds, now, now + timedelta(seconds=CLAIM_SECONDS))
            await work.commit()
        return intent

    async def _do(self, intent: Intent) -> None:
        prolonging = asyncio.create_task(self._prolong(intent))
        try:
            await self._handlers[intent.kind](intent)
        except NotFound:
            await take_off(self._store, intent)
        except Exception as error:  # whatever the part fails with, the intent stays
            delay = min(FIRST_RETRY_SECONDS * 2**intent.attempts, MAX_RETRY_SECONDS)
            log.warning(
                "intent_waits", kind=intent.kind, subject=str(intent.subject_id), retry_seconds=delay, error=str(error)
            )
            self._tell(available=False)
            async with self._store.begin() as work:
                await work.outbox.retry(intent, self._clock() + timedelta(seconds=delay))
                await work.commit()
        finally:
            prolonging.cancel()

    async def _prolong(self, intent: Intent) -> None:
        while True:
            await asyncio.sleep(PROLONG_SECONDS)
            with suppress(EasyMLError):
                async with self._store.begin() as work:
                    await work.outbox.prolong(intent, self._clock() + timedelta(seconds=CLAIM_SECONDS))
                    await work.commit()


async def take_off(store: Store, intent: Intent) -> None:
    """It need not be done again."""
    async with store.begin() as work:
        await work.outbox.done(intent)
        await work.commit()
