"""Groups of events on their way to the store: those of trainings that wait at the same time go there together."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Protocol
from uuid import UUID

from easyml_server.domain.errors import Collided, EasyMLError, LimitReached, Unavailable
from easyml_server.domain.events import TrainingEvent
from easyml_server.domain.faults import fault_point
from easyml_server.ports.store import EventGroup, Store, UnitOfWork

TOGETHER_AT_ONCE = 2
"""Transactions of several trainings; while they run the next one's groups grow, and calls find connections left."""
ALONE_AT_ONCE = 2
"""Of those that cannot go with others; they may have to wait for somebody, and hold up nobody but each other."""
TRIES_TOGETHER = 2
"""A row is locked for a moment whenever leases are renewed."""
EVENTS_TOGETHER = 5_000
"""From here on nobody else comes along: the others have the next transaction."""


class Log(Protocol):
    """What has events to be stored."""

    @property
    def queued(self) -> int:
        """How many."""
        ...

    def group(self) -> EventGroup | None:
        """All that is queued now; None if nothing is."""
        ...

    async def store_pending(self, work: UnitOfWork) -> Sequence[TrainingEvent]:
        """Store them in a unit of work; raises Stale if the training was taken over."""
        ...

    def publish(self, events: Sequence[TrainingEvent]) -> None:
        """They were stored and committed."""
        ...


Result = bool | EasyMLError
"""Whether a log's group was stored with the others, or why none was."""


class GroupWriter:
    """Stores the groups of all logs of a server; each log waits for its group before it comes with the next."""

    def __init__(self) -> None:
        self._waiting: dict[Log, asyncio.Future[Result]] = {}
        self._together = asyncio.Semaphore(TOGETHER_AT_ONCE)
        self._alone = asyncio.Semaphore(ALONE_AT_ONCE)

    async def write(self, store: Store, log: Log) -> None:
        """Store and publish what a log has queued; raises Stale if its training was taken over."""
        for _ in range(TRIES_TOGETHER):
            if await self._written_together(store, log):
                return
        async with self._alone, store.begin() as work:
            events = await log.store_pending(work)
            if events:
                await _commit(work)
                log.publish(events)

    async def _written_together(self, store: Store, log: Log) -> bool:
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting[log] = result
        try:
            async with self._together:
                if log in self._waiting:
                    await self._write_waiting(store)
            written = await result
        finally:
            if self._waiting.get(log) is result:
                del self._waiting[log]
        if isinstance(written, EasyMLError):
            raise written
        return written

    async def _write_waiting(self, store: Store) -> None:
        """One transaction for all that wait when it begins."""
        taken: dict[Log, asyncio.Future[Result]] = {}
        written: Collection[Log] = ()
        failed: EasyMLError | None = None
        try:
            async with store.begin() as work:
                taken = self._take()
                written = await _write(work, taken)
        except Collided:
            pass
        except (Unavailable, LimitReached) as error:
            failed = error
        except EasyMLError:
            # One of them cannot be stored: each is tried by itself, and only that one fails.
            pass
        finally:
            for log, result in (taken or self._take()).items():
                if not result.done():
                    result.set_result(failed or log in written)

    def _take(self) -> dict[Log, asyncio.Future[Result]]:
        taken: dict[Log, asyncio.Future[Result]] = {}
        events = 0
        while self._waiting and events < EVENTS_TOGETHER:
            log = next(iter(self._waiting))
            taken[log] = self._waiting.pop(log)
            events += log.queued
        return taken


async def _write(work: UnitOfWork, logs: Collection[Log]) -> Collection[Log]:
    """Those whose groups were stored and published, or who had none."""
    groups = {log: log.group() for log in logs}
    found = [group for group in groups.values() if group is not None]
    stored: Collection[UUID] = await work.experiments.add_groups(found) if found else ()
    if stored:
        await _commit(work)
    for log, group in groups.items():
        if group is not None and group.experiment_id in stored:
            log.publish(group.events)
    return [log for log, group in groups.items() if group is None or group.experiment_id in stored]


async def _commit(work: UnitOfWork) -> None:
    await work.commit()
    fault_point("training.events")
