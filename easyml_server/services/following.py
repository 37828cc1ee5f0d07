"""Brings what other servers stored to those who watch here: each group is read once, however many watch."""

from __future__ import annotations

import asyncio
from uuid import UUID

import structlog

from easyml_server.domain.errors import EasyMLError
from easyml_server.ports.store import Store, UnitOfWork
from easyml_server.services.events import EventHub, Feed

POLL_SECONDS = 5.0
"""How often everything that is watched is looked at, whatever was said."""
PAGE_EVENTS = 500
RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Follower:
    """Reads the logs of what is watched here and runs elsewhere."""

    def __init__(self, store: Store, hub: EventHub) -> None:
        self._store = store
        self._hub = hub
        self._wanted = asyncio.Event()
        self._told: set[UUID] = set()

    def tell(self, experiment_id: UUID) -> None:
        """There are new events of a training."""
        if self._hub.find(experiment_id) is not None:
            self._told.add(experiment_id)
            self._wanted.set()

    def look_again(self) -> None:
        """There may be new events of any training."""
        self._told.update(self._hub.used)
        self._wanted.set()

    async def run(self) -> None:
        """Read as it is told, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wanted.wait()
            except TimeoutError:
                self.look_again()
            self._wanted.clear()
            told, self._told = self._told, set()
            try:
                await self._read(told)
            except EasyMLError as error:
                log.warning("events_unreadable", error=error.message)
                self._told |= told
                await asyncio.sleep(RETRY_SECONDS)
                self._wanted.set()

    async def _read(self, told: set[UUID]) -> None:
        feeds = {identity: feed for identity in told if (feed := self._hub.find(identity)) is not None}
        if not feeds:
            return
        async with self._store.read() as work:
            for identity, feed in feeds.items():
                await _read_on(work, identity, feed)


async def _read_on(work: UnitOfWork, experiment_id: UUID, feed: Feed) -> None:
    if not feed.head:
        # Nobody knows where its watchers are; they read on by themselves.
        feed.wake()
        return
    while events := await work.experiments.list_events(experiment_id, feed.head, PAGE_EVENTS):
        feed.show(events)
        if len(events) < PAGE_EVENTS:
            return
